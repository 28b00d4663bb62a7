# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What Heartbeat says, what role that means, and which timings it accepts.

Needs the standard library alone: the modules use it, and so does what runs on the servers.
What asks Heartbeat does so through a runner, ``run(argv, input=None) -> (exit code, standard
output, standard error)``; all else is a pure function.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import TypeVar

Run = Callable[..., tuple[int, str, str]]
Answer = TypeVar("Answer")

ACTIVE = "active"
PASSIVE = "passive"
UNCHANGED = "unchanged"
ROLES = (ACTIVE, PASSIVE)

RESOURCE_STATUSES = ("all", "local", "foreign", "none", "transition")
PARAMETERS = ("keepalive", "deadtime", "warntime", "initdead", "deadping", "auto_failback", "udpport")
UNKNOWN = "unknown"

# cl_status ends itself after 5 s with 12; the runner uses the same number, so that both mean "no answer in time".
RC_TIMEOUT = 12
RC_CANNOT_RUN = 126
RC_NOT_FOUND = 127
_WHY_NO_ANSWER = {
    1: "cannot sign on, or Heartbeat leaves its resources to Pacemaker",
    11: "it does not know the question",
    RC_TIMEOUT: "Heartbeat does not answer in time, its processes may be frozen",
    RC_CANNOT_RUN: "it cannot be started",
    RC_NOT_FOUND: "Heartbeat is not installed",
}


def runner(timeout: float) -> Run:
    """A runner that gives each command ``timeout`` seconds.

    A command that takes longer is killed and ends with RC_TIMEOUT, one that does not exist with
    RC_NOT_FOUND, one that cannot be started with RC_CANNOT_RUN. It raises nothing for these.
    """

    def run(argv: Sequence[str], input: str | None = None) -> tuple[int, str, str]:
        try:
            # AnsibleModule.run_command has no bound, and what runs on the servers has no Ansible.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                list(argv),
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            return RC_TIMEOUT, "", f"no answer within {timeout:g} s"
        except (FileNotFoundError, NotADirectoryError) as error:
            return RC_NOT_FOUND, "", str(error)
        except OSError as error:
            return RC_CANNOT_RUN, "", str(error)
        return done.returncode, done.stdout, done.stderr

    return run


@dataclass(frozen=True)
class Node:
    """One node as this machine's Heartbeat sees it.

    status: active, up, init, dead, ping (a ping node that answers) or unknown.
    type: normal, ping or unknown. links: name of the link to up, dead or unknown.
    """

    status: str
    type: str
    links: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """Heartbeat's whole state on this machine.

    rscstatus is one of RESOURCE_STATUSES, or None when there was no answer, and then
    problem says why. parameters holds what ha.cf says, as written there.
    """

    installed: bool
    running: bool
    rscstatus: str | None = None
    problem: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)


class NoAnswer(Exception):
    """Heartbeat did not answer. rc: the exit code of cl_status; the text names the question and says why."""

    def __init__(self, question: str, rc: int, err: str) -> None:
        why = _WHY_NO_ANSWER.get(rc, f"exit code {rc}")
        said = " ".join(err.split())
        super().__init__(f"cl_status {question}: {why}" + (f" ({said})" if said else ""))
        self.rc = rc


def ask(run: Run, cl_status: str, *question: str) -> str:
    """What ``cl_status QUESTION`` prints, without the blanks around it. Raises NoAnswer.

    What it prints is the answer, whether it exits with 0 or 1: ``nodestatus`` of a dead node
    prints ``dead`` and exits with 1; with Heartbeat stopped it exits with 1 and prints nothing.
    """
    rc, out, err = run([cl_status, *question])
    if rc in (0, 1) and out.strip():
        return out.strip()
    raise NoAnswer(" ".join(question), rc, err)


def read_rscstatus(run: Run, cl_status: str = "cl_status") -> str:
    """One of RESOURCE_STATUSES. Raises NoAnswer, for any other word too."""
    word = ask(run, cl_status, "rscstatus")
    if word not in RESOURCE_STATUSES:
        raise NoAnswer("rscstatus", 0, f"{word!r} is none of {', '.join(RESOURCE_STATUSES)}")
    return word


def read_nodes(listing: str) -> dict[str, Node]:
    """The nodes in the answer of ``cl_status listnodes -v``, in order of their names.

    A node is a line ``name TAB status TAB (nodetype: type)``; its links follow, one a line,
    ``TAB name TAB status``. What does not look like either is left out.
    """
    nodes: dict[str, Node] = {}
    current: Node | None = None
    for line in listing.splitlines():
        node = re.fullmatch(r"(\S+)\t(.*)\t\(nodetype: (.*)\)", line)
        link = re.fullmatch(r"\t(\S+)\t(.*)", line)
        if node:
            current = Node(status=_word(node[2]), type=_word(node[3]))
            nodes[node[1]] = current
        elif link and current is not None:
            current.links[link[1]] = _word(link[2])
    return dict(sorted(nodes.items()))


def _word(text: str) -> str:
    """A status word; Heartbeat prints ``(null)`` where it has none."""
    return text if re.fullmatch(r"[a-z]+", text) else UNKNOWN


def read_parameter(run: Run, name: str, cl_status: str = "cl_status") -> str | None:
    """What ha.cf says, as written there, or the default that Heartbeat filled in; None: nothing. Raises NoAnswer."""
    try:
        return ask(run, cl_status, "hbparameter", "-p", name)
    except NoAnswer as error:
        if error.rc == 1:
            return None
        raise


def read_state(run: Run, cl_status: str = "cl_status") -> State:
    """Ask Heartbeat everything, through a runner that several threads may use at once.

    Takes one timeout of the runner when Heartbeat hangs from the start, and never more than two.
    """
    try:
        status = ask(run, cl_status, "hbstatus")
    except NoAnswer as error:
        # One that hangs still runs, and may still hold the resources.
        return State(installed=error.rc != RC_NOT_FOUND, running=error.rc == RC_TIMEOUT, problem=str(error))
    if "is running" not in status:
        return State(installed=True, running="is stopped" not in status, problem=status)

    # Each answer waits for a tick of Heartbeat, half a second and more with the usual timings: ask all at once.
    problems: list[str] = []
    with ThreadPoolExecutor(max_workers=len(PARAMETERS) + 2) as pool:
        rscstatus = pool.submit(read_rscstatus, run, cl_status)
        listing = pool.submit(ask, run, cl_status, "listnodes", "-v")
        parameters = {name: pool.submit(read_parameter, run, name, cl_status) for name in PARAMETERS}

    def result(of: Future[Answer]) -> Answer | None:
        try:
            return of.result()
        except NoAnswer as error:
            problems.append(str(error))
            return None

    state = State(
        installed=True,
        running=True,
        rscstatus=result(rscstatus),
        nodes=read_nodes(result(listing) or ""),
        parameters={name: value for name, answer in parameters.items() if (value := result(answer)) is not None},
    )
    return replace(state, problem=problems[0]) if problems else state


@dataclass(frozen=True)
class Decision:
    """role: active, passive, or unchanged (keep the one that it has). code never changes; reason is for people."""

    role: str
    code: str
    reason: str


_SETTLED = {
    "all": Decision(ACTIVE, "RSC_ALL", "Heartbeat holds all resources here"),
    "none": Decision(PASSIVE, "RSC_NONE", "Heartbeat holds no resources here"),
}
_UNSETTLED = {
    "foreign": Decision(UNCHANGED, "RSC_FOREIGN", "Heartbeat holds only the other server's resources here: it has not settled"),
    "transition": Decision(UNCHANGED, "RSC_TRANSITION", "Heartbeat is moving resources: it has not settled"),
    None: Decision(UNCHANGED, "NO_ANSWER", "Heartbeat does not say what it holds"),
}


def decide(
    rscstatus: str | None,
    *,
    default_active: bool,
    previous: str | None = None,
    peer: str | None = None,
) -> Decision:
    """The role that the answer of ``cl_status rscstatus`` means for this server.

    rscstatus: one of RESOURCE_STATUSES, or None when there was no answer.
    previous, peer: the role that this server had and that the other one has; None: not known.
    Raises ValueError for any other word.
    """
    for role in (previous, peer):
        if role is not None and role not in ROLES:
            raise ValueError(f"{role!r} is not a role: must be one of {', '.join(ROLES)}, or None")
    if rscstatus in _SETTLED:
        return _SETTLED[rscstatus]
    if rscstatus in _UNSETTLED:
        return _UNSETTLED[rscstatus]
    if rscstatus != "local":
        raise ValueError(f"{rscstatus!r} is not an answer of rscstatus: must be one of {', '.join(RESOURCE_STATUSES)}")
    return _decide_local(default_active, previous, peer)


def _decide_local(default_active: bool, previous: str | None, peer: str | None) -> Decision:
    """``local`` counts an empty set too, so on the default passive it proves nothing by itself."""
    if default_active:
        return Decision(ACTIVE, "RSC_LOCAL_DEFAULT_ACTIVE", "Heartbeat holds this server's own resources: the service")
    own = "Heartbeat holds this server's own resources, of which the default passive has none"
    if previous == PASSIVE:
        return Decision(PASSIVE, "RSC_LOCAL_WAS_PASSIVE", f"{own}; it was passive before")
    if peer == ACTIVE:
        return Decision(PASSIVE, "RSC_LOCAL_PEER_ACTIVE", f"{own}; the other server is active")
    if previous is None:
        return Decision(PASSIVE, "RSC_LOCAL_NEVER_ACTIVE", f"{own}; it is not known to have been active")
    if peer is None:
        return Decision(PASSIVE, "RSC_LOCAL_PEER_UNKNOWN", f"{own}; it was active, but the other server is not known to be passive")
    return Decision(ACTIVE, "RSC_LOCAL_STAYED_ACTIVE", f"{own}; it was active and the other server is passive")


def milliseconds(value: float | str) -> int:
    """A duration of ha.cf in milliseconds, rounded as Heartbeat does.

    Takes seconds as a number, or what ha.cf takes: ``2``, ``1.5``, ``250ms``, ``500us``.
    ``2s`` is not among them. Raises ValueError.
    """
    match = None if isinstance(value, bool) else re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(ms|us)?", str(value).strip(), re.I)
    if match is None:
        raise ValueError(f"{value!r} is not a duration")
    per_unit = {"": Decimal(1000), "ms": Decimal(1), "us": Decimal("0.001")}[(match[2] or "").lower()]
    return int((Decimal(match[1]) * per_unit).quantize(Decimal(1), rounding=ROUND_HALF_UP))


@dataclass(frozen=True)
class TimingProblem:
    """A setting of ha.cf that Heartbeat would refuse or that could not work, and what would be right."""

    setting: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.setting} is {self.value}: must be {self.expected}"


def timing_problems(
    keepalive: float | str,
    deadtime: float | str,
    *,
    warntime: float | str | None = None,
    initdead: float | str | None = None,
    deadping: float | str | None = None,
) -> list[TimingProblem]:
    """Every problem of these timings of ha.cf, each a number of seconds or a string as ha.cf has it.

    None means that ha.cf does not set it. A setting that another depends on and that is
    itself wrong is told once; what depends on it is not judged.
    """
    given = {
        "keepalive": keepalive,
        "deadtime": deadtime,
        "warntime": warntime,
        "initdead": initdead,
        "deadping": deadping,
    }
    problems = []
    ms: dict[str, int] = {}
    for name, value in given.items():
        if value is None:
            continue
        try:
            duration = milliseconds(value)
        except ValueError:
            duration = 0
        if duration > 0:
            ms[name] = duration
        else:
            expected = "more than 0, in seconds (2, 1.5) or with the unit ms or us (250ms)"
            problems.append(TimingProblem(name, str(value), expected))

    def require(name: str, holds: Callable[[int, int], bool], other: str, expected: str) -> None:
        if name in ms and other in ms and not holds(ms[name], ms[other]):
            problems.append(TimingProblem(name, str(given[name]), f"{expected} ({other} is {given[other]})"))

    def beats(mine: int, beat: int) -> bool:
        return mine > 2 * beat

    require("deadtime", beats, "keepalive", "more than twice keepalive")
    require("deadping", beats, "keepalive", "more than twice keepalive")
    require("warntime", lambda mine, beat: mine > beat, "keepalive", "more than keepalive")
    require("warntime", lambda mine, dead: mine < dead, "deadtime", "less than deadtime")
    require("initdead", lambda mine, dead: mine >= dead, "deadtime", "at least deadtime")
    return problems


def interface_holding(address: str, ip_addr_json: str) -> str | None:
    """The interface that has ``address``, in the output of ``ip -j addr``; None: no interface has it.

    Raises ValueError for an address that is none and for output that is not such JSON.
    """
    wanted = ipaddress.ip_address(address)
    try:
        for interface in json.loads(ip_addr_json):
            for info in interface.get("addr_info", ()):
                if "local" in info and ipaddress.ip_address(info["local"]) == wanted:
                    return str(interface["ifname"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not the JSON that 'ip -j addr' prints: {error}") from error
    return None
