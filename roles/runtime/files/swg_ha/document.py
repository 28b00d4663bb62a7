# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The status document: all that ha_manager knows, in the shape of the status file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .record import now, told
from .role import ACTIVE

if TYPE_CHECKING:
    from .manager import Manager

VERSION = 1


def document(manager: Manager) -> dict[str, Any]:
    """Everything, as JSON has it."""
    because = manager.redundancy()
    running = manager.heartbeat.running()
    transition = manager.transition
    return {
        "version": VERSION,
        "time": now(),
        "started": manager.started,
        "node": manager.settings.node,
        "peer_node": manager.settings.peer_node,
        "default_active": manager.settings.default_active,
        "role": manager.role or "undecided",
        "state": manager.state(),
        "decision": {"role": manager.verdict.role, "code": manager.verdict.code, "reason": manager.verdict.reason, "since": manager.since},
        "virtual_ip": _virtual_ip(manager),
        "heartbeat": {
            "running": running,
            "rscstatus": manager.books.rscstatus,
            "peer": manager.books.peer,
            "holding": manager.books.holding,
        },
        "peer": _peer(manager),
        "network": _network(manager),
        "postgresql": _postgresql(manager),
        "replication_status": _replication(manager),
        "progress": manager.keeper.progress,
        "files": manager.files.document(),
        "redundant": not because,
        "not_redundant_because": because,
        "record": told(manager.store.record),
        "transition": transition if transition and transition["outcome"] == "running" else None,
        "last_transition": next((one for one in manager.timeline.told(transition) if one["outcome"] != "running"), None),
        "paused": manager.pause.current,
        "quarantine": manager.quarantine,
        "problems": [{"code": code, "text": text, "since": manager.since} for code, text in _problems(manager, running)],
        "settings": {"loaded": manager.loaded, "error": manager.settings_error},
        "transitions_total": manager.transitions,
        "failures": manager.failures,
    }


def _virtual_ip(manager: Manager) -> dict[str, Any]:
    address = manager.settings.virtual_ip
    return {
        "address": str(address.ip) if address else None,
        "interface": manager.settings.links[0].interface,
        "held": manager.network.holds() if address else False,
    }


def _peer(manager: Manager) -> dict[str, Any]:
    silent = manager.senses.silent()
    return {
        "connected": manager.senses.peer_present(),
        "links": {address: "up" if up else "down" for address, up in manager.link.links.items()},
        "role": manager.senses.peer_role() if manager.senses.peer_present() else None,
        "silent_seconds": None if silent is None else round(silent, 2),
    }


def _network(manager: Manager) -> dict[str, Any]:
    asking = manager.senses.evidence.running and manager.senses.evidence.sees is not None
    answering = manager.senses.evidence.seen_nodes() if asking else set()
    return {
        "carriers": dict(manager.network.carriers),
        "ping_nodes": {node: node in answering if asking else None for node in manager.settings.times.ping_nodes},
    }


def _postgresql(manager: Manager) -> dict[str, Any]:
    database = manager.keeper.database
    return {
        "state": database.state,
        "timeline": database.timeline,
        "lsn": database.lsn,
        "streaming": database.streaming,
        "lag_bytes": database.lag if manager.role == ACTIVE else manager.lag(),
        "synchronous": database.synchronous,
    }


def _replication(manager: Manager) -> str:
    if manager.keeper.database.streaming:
        return "running"
    theirs = (manager.link.peer_status or {}).get("following") if manager.senses.peer_present() else False
    return "initializing" if manager.keeper.following or theirs else "not running"


def _problems(manager: Manager, heartbeat_runs: bool) -> Iterator[tuple[str, str]]:
    """What somebody should look at, most urgent first."""
    keeper = manager.keeper
    if manager.state() in ("refusing", "fenced"):
        yield manager.verdict.code, manager.verdict.reason
    if keeper.trouble:
        yield keeper.trouble
    if keeper.followed_error:
        yield "FOLLOW_FAILED", keeper.followed_error
    if not heartbeat_runs and not manager.stopped:
        yield "HEARTBEAT_GONE", "Heartbeat does not run here: 'ha start' starts it, 'journalctl -u heartbeat' says why it ended"
    for unit in manager.failed_units:
        yield (
            "MANAGER_UNIT_FAILED",
            f"{unit} of this server's roles has failed: 'journalctl -u {unit} -n 20' says why, 'manager-ctl status' shows the roles",
        )
    for problem in manager.unreadable_roles:
        yield "MANAGER_FILE", problem
    for address, up in manager.link.links.items():
        if not up:
            yield "PEER_LINK_DOWN", f"the link to {address} is down{f': {manager.link.problem}' if manager.link.problem else ''}"
    for interface, carrier in manager.network.carriers.items():
        if not carrier:
            yield "NO_CARRIER", f"{interface} has no carrier"
    if manager.role == ACTIVE and manager.senses.evidence.held:
        yield "VIRTUAL_IP_CONFLICT", f"another machine answers for the virtual IP: {', '.join(sorted(manager.senses.evidence.held_by))}"
    if manager.senses.peer_present() and manager.role == ACTIVE == manager.senses.peer_role():
        yield "SPLIT_BRAIN", "both servers are active"
    for said in (
        manager.store.problem,
        manager.timeline.problem,
        manager.installs.problem,
        manager.pause.problem,
        manager.settings_error,
    ):
        if said:
            yield "FILE", said
    yield from manager.files.problems()
    yield from manager.installs.problems
    yield from (("QUARANTINE", _kept(kept)) for kept in manager.quarantine if not kept["acknowledged"])
    if manager.senses.peer_present() and (number := (manager.link.peer_status or {}).get("quarantined")):
        yield (
            "PEER_QUARANTINE",
            f"{manager.settings.peer_node} keeps {number} times what was taken out of its databases: 'ha status --watch' there",
        )


def _kept(kept: dict[str, Any]) -> str:
    number = kept.get("transactions")
    what = (
        "a data directory that a new copy took the place of is"
        if number is None
        else f"{number} transactions that the other server never had are"
    )
    return f"{what} kept in {kept['path']}: look at it, then 'ha acknowledge {kept['name']}'"
