# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The decision as a table: a situation in each line, and the role, code and act that must come of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from swg_ha.record import Record
from swg_ha.role import ACTIVE, FENCE, GIVE, HAND_OVER, PASSIVE, Data, Peer, Situation, judge, readiness

MINE = Record(7, "ps2", "42", 3, "0/3000000", in_sync=True)
THEIRS = Record(7, "ps1", "42", 3, "0/3000000", in_sync=True)
STREAMING = Data(state="standby", lag=0, system_id="42")
# ps2, the default passive, whose active has just fallen silent, in profile fast.
LOST = Situation(
    node="ps2",
    peer_node="ps1",
    default_active="ps1",
    role=PASSIVE,
    deadtime=1.0,
    record=THEIRS,
    silent=1.3,
    holding=True,
    data=STREAMING,
    pings=2,
)
GIVEN = THEIRS.given_to("ps2", "0/4000000")
BROKEN = replace(STREAMING, trouble=("DATABASE_DOWN", "it does not start"))
# ps2 as the active one, with a ready ps1 beside it.
SERVING = replace(
    LOST,
    role=ACTIVE,
    record=MINE,
    peer=Peer(PASSIVE, MINE, ready=True, pings=2, system_id="42"),
    silent=0.1,
    data=Data(state="primary", system_id="42"),
)

TAKING_OVER = {
    "the active is lost": ({}, ACTIVE, "TAKE_OVER", None),
    "Heartbeat has not said so": ({"holding": False}, PASSIVE, "WAITING", None),
    "paused": ({"paused": True}, PASSIVE, "PAUSED", None),
    "taken out": ({"stopped": True}, PASSIVE, "STOPPED", None),
    "somebody serves": ({"served_elsewhere": True}, PASSIVE, "VIRTUAL_IP_SERVED", None),
    "the peer has taken the address": ({"claimed_elsewhere": True}, PASSIVE, "ADDRESS_CLAIMED", None),
    "no service link": ({"service_link": False}, PASSIVE, "NO_SERVICE_LINK", None),
    "no ping node": ({"pings": 0}, PASSIVE, "ISOLATED", None),
    "nobody looked for ping nodes": ({"pings": None}, ACTIVE, "TAKE_OVER", None),
    "never heard since boot": ({"silent": None}, PASSIVE, "STALE_EPOCH", None),
    "heard too long ago": ({"silent": 12.0}, PASSIVE, "STALE_CONTACT", None),
    "heard long ago, but in time": ({"silent": 10.9}, ACTIVE, "TAKE_OVER", None),
    "heard too long ago for synchronous mode": ({"silent": 2.3, "synchronous": True}, PASSIVE, "STALE_CONTACT", None),
    "in synchronous mode": ({"silent": 2.1, "synchronous": True}, ACTIVE, "TAKE_OVER", None),
    "the active went on alone": (
        {"silent": 2.1, "synchronous": True, "record": replace(THEIRS, in_sync=False)},
        PASSIVE,
        "NOT_IN_SYNC",
        None,
    ),
    "behind": ({"data": replace(STREAMING, lag=2**24 + 1)}, PASSIVE, "LAGGING", None),
    "nobody knows how far behind": ({"data": replace(STREAMING, lag=None)}, PASSIVE, "LAGGING", None),
    "no whole copy": ({"data": replace(STREAMING, complete=False)}, PASSIVE, "INCOMPLETE_COPY", None),
    "disk full": ({"data": replace(STREAMING, trouble=("DISK_FULL", "no room"))}, PASSIVE, "DISK_FULL", None),
    "it was active itself": ({"record": MINE, "silent": None}, ACTIVE, "RECORD_MINE", None),
    "it was active itself, and off, in synchronous mode": (
        {"record": MINE, "silent": None, "synchronous": True},
        PASSIVE,
        "MAYBE_SUPERSEDED",
        None,
    ),
    "it was active alone, and off, in synchronous mode": (
        {"record": replace(MINE, in_sync=False), "silent": None, "synchronous": True},
        ACTIVE,
        "RECORD_MINE",
        None,
    ),
    "it was active itself, and restarted, in synchronous mode": ({"record": MINE, "synchronous": True}, ACTIVE, "RECORD_MINE", None),
    "it was active itself, while paused": ({"record": MINE, "silent": None, "paused": True}, ACTIVE, "RECORD_MINE", None),
    "it was given the role, and has lost the other one just now": ({"record": GIVEN}, ACTIVE, "TAKE_OVER", None),
    "it was given the role, and has not heard of it for long": ({"record": GIVEN, "silent": 12.0}, PASSIVE, "STALE_CONTACT", None),
    "it gave the role away, and the other one is gone": ({"record": replace(GIVEN, active="ps1")}, PASSIVE, "HANDED_OVER", None),
    "the other one may have served meanwhile": ({"record": replace(MINE, doubtful=True)}, PASSIVE, "MAYBE_SUPERSEDED", None),
    "the other one says that it did not": (
        {"record": replace(MINE, doubtful=True), "peer": Peer(None, MINE)},
        ACTIVE,
        "RECORD_MINE",
        None,
    ),
    "there was no time to look": ({"looked": False}, PASSIVE, "WAITING", None),
    "it was given the role, and cannot": ({"peer": Peer(None, GIVEN), "record": GIVEN, "data": BROKEN}, PASSIVE, "DATABASE_DOWN", GIVE),
    "it is entitled and cannot, the peer can": (
        {"peer": Peer(PASSIVE, MINE, ready=True), "record": MINE, "data": BROKEN},
        PASSIVE,
        "DATABASE_DOWN",
        GIVE,
    ),
    "neither can": ({"peer": Peer(PASSIVE, MINE), "record": MINE, "data": BROKEN}, PASSIVE, "DATABASE_DOWN", None),
    "no record on the default passive": ({"record": None}, PASSIVE, "NO_RECORD", None),
    "no record on the default active": (
        {"record": None, "default_active": "ps2", "data": Data(state="stopped")},
        ACTIVE,
        "FIRST_START",
        None,
    ),
    "no record on the default active, with a copy": ({"record": None, "default_active": "ps2"}, PASSIVE, "NO_RECORD", None),
    "no record on the default passive, with the databases": ({"record": None, "data": Data(state="primary")}, ACTIVE, "FIRST_START", None),
    "no record on either, the databases here": (
        {"record": None, "data": Data(state="primary"), "peer": Peer(None, None, database="standby")},
        ACTIVE,
        "FIRST_START",
        None,
    ),
    "no record on either, the databases there": (
        {"record": None, "default_active": "ps2", "peer": Peer(None, None, database="primary")},
        PASSIVE,
        "RECORD_PEER",
        None,
    ),
    "the peer is active": ({"peer": Peer(ACTIVE, THEIRS)}, PASSIVE, "PEER_ACTIVE", None),
    "the peer is entitled": ({"peer": Peer(None, THEIRS)}, PASSIVE, "RECORD_PEER", None),
    "this one is, by the peer's newer record": ({"peer": Peer(None, replace(MINE, counter=8))}, ACTIVE, "RECORD_MINE", None),
    "different databases": ({"peer": Peer(None, THEIRS, system_id="43")}, PASSIVE, "DIFFERENT_DATA", None),
    "undecided, and Heartbeat has not said so": ({"role": None, "holding": False}, None, "WAITING", None),
}

BEING_ACTIVE = {
    "all is well": ({}, ACTIVE, "STEADY", None),
    "superseded": ({"peer": Peer(ACTIVE, replace(THEIRS, counter=8))}, PASSIVE, "SUPERSEDED", FENCE),
    "superseded while paused": ({"peer": Peer(ACTIVE, replace(THEIRS, counter=8)), "paused": True}, PASSIVE, "SUPERSEDED", FENCE),
    "the other one is active by an older record": ({"peer": Peer(ACTIVE, replace(THEIRS, counter=6))}, ACTIVE, "STEADY", None),
    "superseded by what it heard last": ({"peer": None, "record": replace(THEIRS, counter=8)}, PASSIVE, "SUPERSEDED", FENCE),
    "the peer is silent": ({"peer": None, "silent": 0.7}, ACTIVE, "PEER_SILENT", None),
    "cut off": ({"peer": None, "silent": 0.6, "pings": 0}, PASSIVE, "ISOLATED", FENCE),
    "cut off, too early to tell": ({"peer": None, "silent": 0.59, "pings": 0}, ACTIVE, "PEER_SILENT", None),
    "cut off while paused": ({"peer": None, "silent": 0.6, "pings": 0, "paused": True}, ACTIVE, "PAUSED", None),
    "the service link is lost with the peer": ({"peer": None, "silent": 0.6, "service_link": False}, PASSIVE, "NO_SERVICE_LINK", FENCE),
    "the service link is lost": ({"service_link": False}, PASSIVE, "NO_SERVICE_LINK", HAND_OVER),
    "the service link is lost, the peer not ready": (
        {"service_link": False, "peer": replace(SERVING.peer, ready=False)},  # type: ignore[type-var]
        ACTIVE,
        "NO_SERVICE_LINK",
        None,
    ),
    "both service links are lost": ({"service_link": False, "peer": replace(SERVING.peer, service_link=False)}, ACTIVE, "STEADY", None),  # type: ignore[type-var]
    "it sees less": ({"pings": 1, "sees_less": 2.0}, PASSIVE, "FEWER_PING_NODES", HAND_OVER),
    "it has seen less for a moment": ({"pings": 1, "sees_less": 1.9}, ACTIVE, "STEADY", None),
    "the peer, unheard, takes the address": ({"peer": None, "silent": 0.7, "claimed_elsewhere": True}, PASSIVE, "ADDRESS_CLAIMED", FENCE),
    "the database is in trouble": ({"data": Data(trouble=("DISK_FULL", "no room"))}, PASSIVE, "DISK_FULL", HAND_OVER),
    "Heartbeat is gone": ({"heartbeat_gone": 31.0}, PASSIVE, "HEARTBEAT_GONE", HAND_OVER),
    "Heartbeat restarts": ({"heartbeat_gone": 29.0}, ACTIVE, "STEADY", None),
}


@pytest.mark.parametrize("case", TAKING_OVER)
def test_whether_it_takes_over(case: str) -> None:
    changes, role, code, act = TAKING_OVER[case]
    verdict = judge(replace(LOST, **changes))
    assert (verdict.role, verdict.code, verdict.act) == (role, code, act), verdict.reason


@pytest.mark.parametrize("case", BEING_ACTIVE)
def test_whether_it_stays_active(case: str) -> None:
    changes, role, code, act = BEING_ACTIVE[case]
    verdict = judge(replace(SERVING, **changes))
    assert (verdict.role, verdict.code, verdict.act) == (role, code, act), verdict.reason


def pairs() -> list[tuple[Situation, Situation]]:
    """Both servers of a pair that hear each other, with every mix of roles, records and claims of Heartbeat."""
    records = [None, Record(6, "ps1", "42", 2), Record(7, "ps2", "42", 3), Record(7, "ps2"), Record(7, "ps1", "42", 3), Record(8, "ps1")]
    found = []
    for mine, theirs in itertools.product(records, repeat=2):
        for roles in itertools.product((None, PASSIVE), repeat=2):
            for holding in itertools.product((True, False), repeat=2):
                data = Data(state="stopped", system_id="42")
                views = []
                for me in (0, 1):
                    records_of, other = (mine, theirs), 1 - me
                    views.append(
                        Situation(
                            node=("ps1", "ps2")[me],
                            peer_node=("ps1", "ps2")[other],
                            default_active="ps1",
                            role=roles[me],
                            deadtime=1.0,
                            record=records_of[me],
                            peer=Peer(roles[other], records_of[other], system_id="42"),
                            silent=0.1,
                            holding=holding[me],
                            data=data,
                            pings=2,
                        )
                    )
                found.append((views[0], views[1]))
    return found


def test_two_that_hear_each_other_choose_exactly_one() -> None:
    situations = pairs()
    assert len(situations) > 500
    for one, other in situations:
        verdicts = judge(one), judge(other)
        assert [verdict.role for verdict in verdicts].count(ACTIVE) == 1, (one, other, verdicts)


def test_a_server_alone_never_goes_on_from_what_another_was_made_active_on_while_nobody_was_heard() -> None:
    for silent, lag, in_sync in itertools.product((None, 100.0), (0, None), (True, False)):
        stale = replace(LOST, silent=silent, data=replace(STREAMING, lag=lag), record=replace(THEIRS, in_sync=in_sync))
        assert judge(stale).role == PASSIVE


def test_every_refusal_has_a_reason() -> None:
    for changes, *_ in TAKING_OVER.values():
        verdict = judge(replace(LOST, **changes))
        assert verdict.reason
        assert verdict.code.isupper()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"data": replace(STREAMING, lag=2**25)}, "behind"),
        ({"data": replace(STREAMING, lag=None)}, "stream"),
        ({"data": replace(STREAMING, complete=False)}, "complete"),
        ({"data": replace(STREAMING, state="stopped")}, "stopped"),
        ({"stopped": True}, "ha stop"),
        ({"record": THEIRS.given_to("ps1", "0/4000000")}, "handed over"),
        ({"service_link": False}, "service link"),
        ({"heartbeat_gone": 6.0}, "Heartbeat"),
    ],
)
def test_what_makes_a_passive_server_not_ready(changes: dict[str, object], word: str) -> None:
    assert readiness(LOST) == (True, "")
    ready, why = readiness(replace(LOST, **changes))  # type: ignore[arg-type]
    assert not ready
    assert word in why
