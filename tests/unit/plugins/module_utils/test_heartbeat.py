# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import itertools
import json
import sys
import threading
import time

import pytest

from ansible_collections.swg.ha.plugins.module_utils import heartbeat
from ansible_collections.swg.ha.plugins.module_utils.heartbeat import (
    RC_CANNOT_RUN,
    RC_NOT_FOUND,
    RC_TIMEOUT,
    NoAnswer,
    Node,
    State,
    decide,
    interface_holding,
    milliseconds,
    read_nodes,
    read_rscstatus,
    read_state,
    timing_problems,
)

LISTNODES = (
    "\nps2\tactive\t(nodetype: normal)\n\teth1\tdead\n\teth0\tup\n"
    "\n192.0.2.1\tping\t(nodetype: ping)\n\t192.0.2.1\tup\n"
    "\nps1\tactive\t(nodetype: normal)\n\teth1\tup\n\teth0\tup\n"
)
NODES = {
    "192.0.2.1": Node("ping", "ping", {"192.0.2.1": "up"}),
    "ps1": Node("active", "normal", {"eth1": "up", "eth0": "up"}),
    "ps2": Node("active", "normal", {"eth1": "dead", "eth0": "up"}),
}


class Transcript:
    """A runner that gives the answers of one cl_status, and remembers the questions."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def __call__(self, argv, input=None):
        assert argv[0] == "cl_status" and input is None
        question = " ".join(argv[1:])
        self.asked.append(question)
        return self.answers[question]


RUNNING = {
    "hbstatus": (0, "Heartbeat is running on this machine.\n", ""),
    "rscstatus": (0, "all\n", ""),
    "listnodes -v": (0, LISTNODES, ""),
    "hbparameter -p keepalive": (0, "250ms\n", ""),
    "hbparameter -p deadtime": (0, "2\n", ""),
    "hbparameter -p warntime": (0, "1000ms\n", ""),
    "hbparameter -p initdead": (0, "12\n", ""),
    "hbparameter -p deadping": (1, "", "cl_status: ERROR: Cannot get parameter deadping's value"),
    "hbparameter -p auto_failback": (0, "off\n", ""),
    "hbparameter -p udpport": (0, "694\n", ""),
}


def test_state_of_a_running_heartbeat():
    assert read_state(Transcript(RUNNING)) == State(
        installed=True,
        running=True,
        rscstatus="all",
        problem=None,
        parameters={
            "keepalive": "250ms",
            "deadtime": "2",
            "warntime": "1000ms",
            "initdead": "12",
            "auto_failback": "off",
            "udpport": "694",
        },
        nodes=NODES,
    )


@pytest.mark.parametrize(
    ("answer", "installed", "running", "problem"),
    [
        ((RC_NOT_FOUND, "", "No such file"), False, False, "not installed"),
        ((RC_CANNOT_RUN, "", "Permission denied"), True, False, "Permission denied"),
        ((1, "Heartbeat is stopped on this machine.\n", ""), True, False, "Heartbeat is stopped on this machine"),
        (
            (0, "Heartbeat is apparently running on this machine, but refuses my connection\n", ""),
            True,
            True,
            "refuses",
        ),
        ((RC_TIMEOUT, "", ""), True, True, "frozen"),
        ((13, "", "odd"), True, False, "exit code 13 (odd)"),
        ((-11, "", ""), True, False, "exit code -11"),
    ],
)
def test_state_when_the_first_question_has_no_answer(answer, installed, running, problem):
    run = Transcript({"hbstatus": answer})
    state = read_state(run)
    assert (state.installed, state.running, state.rscstatus) == (installed, running, None)
    assert (state.parameters, state.nodes) == ({}, {})
    assert problem in state.problem
    assert run.asked == ["hbstatus"]


@pytest.mark.parametrize("unanswered", [question for question in RUNNING if question != "hbstatus"])
def test_state_when_a_later_question_has_no_answer(unanswered):
    whole = read_state(Transcript(RUNNING))
    state = read_state(Transcript({**RUNNING, unanswered: (RC_TIMEOUT, "", "")}))
    assert state.problem == f"cl_status {unanswered}: Heartbeat does not answer in time, its processes may be frozen"
    missing = unanswered.rpartition(" ")[2]
    assert state.rscstatus == (None if missing == "rscstatus" else "all")
    assert state.nodes == ({} if missing == "-v" else NODES)
    assert state.parameters == {name: value for name, value in whole.parameters.items() if name != missing}


def test_the_questions_are_asked_at_once():
    waiting = threading.Barrier(len(heartbeat.PARAMETERS) + 2, timeout=30)

    def run(argv, input=None):
        if argv[1] != "hbstatus":
            waiting.wait()
        return RUNNING[" ".join(argv[1:])]

    assert read_state(run) == read_state(Transcript(RUNNING))


@pytest.mark.parametrize("word", heartbeat.RESOURCE_STATUSES)
def test_rscstatus_words(word):
    assert read_rscstatus(Transcript({"rscstatus": (0, f"{word}\n", "")})) == word


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((0, "ALL\n", ""), "'ALL' is none of all, local"),
        ((0, "", ""), "exit code 0"),
        ((1, "", "cl_status: ERROR:\n Cannot signon"), "cannot sign on"),
        ((11, "", ""), "does not know"),
        ((RC_TIMEOUT, "all\n", ""), "frozen"),
    ],
)
def test_rscstatus_without_an_answer(answer, said):
    with pytest.raises(NoAnswer, match="^cl_status rscstatus: ") as caught:
        read_rscstatus(Transcript({"rscstatus": answer}))
    assert said in str(caught.value)


def test_a_dead_node_is_an_answer_though_the_exit_code_is_1():
    run = Transcript({"nodestatus ps2": (1, "dead\n", "")})
    assert heartbeat.ask(run, "cl_status", "nodestatus", "ps2") == "dead"


@pytest.mark.parametrize(
    ("listing", "nodes"),
    [
        ("", {}),
        ("\tstray\tup\n", {}),
        (
            "\nps1\t(null)\t(nodetype: unknown type)\n\teth0\t(null)\n",
            {"ps1": Node("unknown", "unknown", {"eth0": "unknown"})},
        ),
        ("noise\nps1\tdead\t(nodetype: normal)\n", {"ps1": Node("dead", "normal", {})}),
        (LISTNODES, NODES),
    ],
)
def test_nodes(listing, nodes):
    assert read_nodes(listing) == nodes


# Every combination, written out: (rscstatus, default active, previous, peer) -> (role, code).
EVERY_ROLE = (None, "active", "passive")
WHATEVER_ELSE = {
    "all": ("active", "RSC_ALL"),
    "none": ("passive", "RSC_NONE"),
    "foreign": ("unchanged", "RSC_FOREIGN"),
    "transition": ("unchanged", "RSC_TRANSITION"),
    None: ("unchanged", "NO_ANSWER"),
}
LOCAL_ON_THE_DEFAULT_PASSIVE = {
    ("passive", "passive"): ("passive", "RSC_LOCAL_WAS_PASSIVE"),
    ("passive", "active"): ("passive", "RSC_LOCAL_WAS_PASSIVE"),
    ("passive", None): ("passive", "RSC_LOCAL_WAS_PASSIVE"),
    ("active", "active"): ("passive", "RSC_LOCAL_PEER_ACTIVE"),
    ("active", "passive"): ("active", "RSC_LOCAL_STAYED_ACTIVE"),
    ("active", None): ("passive", "RSC_LOCAL_PEER_UNKNOWN"),
    (None, "active"): ("passive", "RSC_LOCAL_PEER_ACTIVE"),
    (None, "passive"): ("passive", "RSC_LOCAL_NEVER_ACTIVE"),
    (None, None): ("passive", "RSC_LOCAL_NEVER_ACTIVE"),
}


def decision_table():
    for default_active, previous, peer in itertools.product((True, False), EVERY_ROLE, EVERY_ROLE):
        for rscstatus, expected in WHATEVER_ELSE.items():
            yield rscstatus, default_active, previous, peer, expected
    for previous, peer in itertools.product(EVERY_ROLE, EVERY_ROLE):
        yield "local", True, previous, peer, ("active", "RSC_LOCAL_DEFAULT_ACTIVE")
        yield "local", False, previous, peer, LOCAL_ON_THE_DEFAULT_PASSIVE[previous, peer]


@pytest.mark.parametrize(("rscstatus", "default_active", "previous", "peer", "expected"), list(decision_table()))
def test_decision(rscstatus, default_active, previous, peer, expected):
    decision = decide(rscstatus, default_active=default_active, previous=previous, peer=peer)
    assert (decision.role, decision.code) == expected
    assert decision.reason


def test_the_table_is_exhaustive():
    assert len(list(decision_table())) == (len(heartbeat.RESOURCE_STATUSES) + 1) * 2 * 3 * 3


@pytest.mark.parametrize(
    ("rscstatus", "roles"),
    [("ALL", {}), ("", {}), ("all", {"previous": "Active"}), ("all", {"peer": "unchanged"})],
)
def test_decision_refuses_words_that_it_does_not_know(rscstatus, roles):
    with pytest.raises(ValueError, match="must be one of"):
        decide(rscstatus, default_active=True, **roles)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, 2000),
        (1.5, 1500),
        (0.25, 250),
        ("2", 2000),
        (" 1.7 ", 1700),
        (".5", 500),
        ("5.", 5000),
        ("250ms", 250),
        ("250 MS", 250),
        ("1.5ms", 2),
        ("500us", 1),
        ("499us", 0),
        ("0", 0),
    ],
)
def test_milliseconds(value, expected):
    assert milliseconds(value) == expected


@pytest.mark.parametrize("value", ["", "2s", "1e3", "-1", -1, "1,5", "250msec", "two", "1.2.3", True, None, float("nan")])
def test_not_a_duration(value):
    with pytest.raises(ValueError, match="is not a duration"):
        milliseconds(value)


@pytest.mark.parametrize(
    "timing",
    [
        {"keepalive": 1, "deadtime": 5},
        {"keepalive": "200ms", "deadtime": "1", "warntime": "0.5", "initdead": "10", "deadping": "1"},
        {"keepalive": "250ms", "deadtime": "501ms"},
        {"keepalive": 2, "deadtime": 10, "initdead": 10, "deadping": 5, "warntime": 9},
    ],
)
def test_timing_that_works(timing):
    assert timing_problems(**timing) == []


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        ({"keepalive": 1, "deadtime": 2}, ["deadtime is 2: must be more than twice keepalive (keepalive is 1)"]),
        (
            {"keepalive": "250ms", "deadtime": "0.5"},
            ["deadtime is 0.5: must be more than twice keepalive (keepalive is 250ms)"],
        ),
        (
            {"keepalive": 1, "deadtime": 5, "deadping": "2000ms"},
            ["deadping is 2000ms: must be more than twice keepalive (keepalive is 1)"],
        ),
        ({"keepalive": 1, "deadtime": 5, "initdead": 4}, ["initdead is 4: must be at least deadtime (deadtime is 5)"]),
        ({"keepalive": 1, "deadtime": 5, "warntime": 5}, ["warntime is 5: must be less than deadtime (deadtime is 5)"]),
        (
            {"keepalive": 1, "deadtime": 5, "warntime": 1},
            ["warntime is 1: must be more than keepalive (keepalive is 1)"],
        ),
        (
            {"keepalive": "1s", "deadtime": 0, "initdead": 1},
            [
                "keepalive is 1s: must be more than 0, in seconds (2, 1.5) or with the unit ms or us (250ms)",
                "deadtime is 0: must be more than 0, in seconds (2, 1.5) or with the unit ms or us (250ms)",
            ],
        ),
        (
            {"keepalive": 3, "deadtime": 5, "warntime": 6, "initdead": 1, "deadping": 1},
            [
                "deadtime is 5: must be more than twice keepalive (keepalive is 3)",
                "deadping is 1: must be more than twice keepalive (keepalive is 3)",
                "warntime is 6: must be less than deadtime (deadtime is 5)",
                "initdead is 1: must be at least deadtime (deadtime is 5)",
            ],
        ),
    ],
)
def test_timing_problems(timing, expected):
    assert [str(problem) for problem in timing_problems(**timing)] == expected


IP_ADDR = json.dumps(
    [
        {},
        {"ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8}]},
        {
            "ifname": "eth0",
            "addr_info": [
                {"family": "inet", "local": "192.0.2.11", "prefixlen": 24},
                {"family": "inet", "local": "192.0.2.10", "prefixlen": 24, "secondary": True, "label": "eth0:vip"},
                {"family": "inet6", "local": "2001:db8::10", "prefixlen": 64},
                {},
            ],
        },
    ]
)


@pytest.mark.parametrize(
    ("address", "interface"),
    [
        ("192.0.2.10", "eth0"),
        ("192.0.2.1", None),
        ("127.0.0.1", "lo"),
        ("2001:0db8:0::0010", "eth0"),
        ("2001:db8::11", None),
    ],
)
def test_interface_holding(address, interface):
    assert interface_holding(address, IP_ADDR) == interface


@pytest.mark.parametrize(
    ("address", "output"),
    [("192.0.2.300", IP_ADDR), ("192.0.2.10", ""), ("192.0.2.10", "{}x"), ("192.0.2.10", "[1]"), ("192.0.2.10", "3")],
)
def test_interface_holding_refuses_nonsense(address, output):
    with pytest.raises(ValueError):
        interface_holding(address, output)


class TestRunner:
    def test_gives_what_the_command_said(self):
        script = "import os, sys; print(sys.stdin.read(), os.environ['LC_ALL']); sys.exit('why')"
        assert heartbeat.runner(60)([sys.executable, "-c", script], input="in") == (1, "in C\n", "why\n")

    def test_kills_what_takes_too_long(self):
        started = time.monotonic()
        rc, out, err = heartbeat.runner(0.2)([sys.executable, "-c", "import time; time.sleep(60)"])
        assert (rc, out, err) == (RC_TIMEOUT, "", "no answer within 0.2 s")
        assert time.monotonic() - started < 30

    def test_a_command_that_does_not_exist(self, tmp_path):
        rc, out, err = heartbeat.runner(60)([str(tmp_path / "cl_status"), "hbstatus"])
        assert (rc, out) == (RC_NOT_FOUND, "")
        assert "cl_status" in err

    def test_a_command_that_cannot_be_started(self, tmp_path):
        assert heartbeat.runner(60)([str(tmp_path)])[0] == RC_CANNOT_RUN
