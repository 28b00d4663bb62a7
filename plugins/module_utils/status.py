# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state of a pair: one dictionary for programs, one screen for people. Pure functions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.swg.ha.plugins.module_utils.clock import ClockError, pair_offset
from ansible_collections.swg.ha.plugins.module_utils.failover import timeline
from ansible_collections.swg.ha.plugins.module_utils.heartbeat import Decision, decide

# Beyond this, logs of the two servers can no longer be laid side by side.
CLOCK_LIMIT_S = 1.0
WIDTH = 26


def pair_report(pair: str, virtual_ip: str, observed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up what was seen on the two servers of a pair.

    ``observed`` holds, by inventory name (the default active first): ``reachable``, ``node``, ``heartbeat`` (the fact of
    cl_status_facts), ``postgres`` (pg_replica, state observed), ``clock`` (clock_offset_info) and ``manager`` (ha_manager_info).
    """
    hosts = list(observed)
    servers = {host: _server(host, observed, default_active=host == hosts[0]) for host in hosts}
    holders = [host for host in hosts if servers[host]["virtual_ip_held"]]
    primaries = [host for host in hosts if servers[host]["postgres"]["role"] == "primary"]
    report: dict[str, Any] = {
        "pair": pair,
        "virtual_ip": virtual_ip,
        "active": holders[0] if len(holders) == 1 else None,
        "primary": primaries[0] if len(primaries) == 1 else None,
        "clock_offset_s": _clock_offset([seen.get("clock") for seen in observed.values()]),
        "servers": servers,
    }
    report["problems"] = list(_problems(report, holders, primaries))
    report["redundant"] = not report["problems"]
    return report


def _server(host: str, observed: Mapping[str, Mapping[str, Any]], default_active: bool) -> dict[str, Any]:
    seen = observed[host]
    heartbeat = seen.get("heartbeat") or {}
    held = bool(heartbeat.get("virtual_ip_held"))
    peer_holds = any((other.get("heartbeat") or {}).get("virtual_ip_held") for name, other in observed.items() if name != host)
    manager = _manager(seen.get("manager") or {})
    decision = decide(
        heartbeat.get("rscstatus"),
        default_active=default_active,
        # Whoever holds the address was active: no other memory is kept.
        previous="active" if held else "passive",
        peer="active" if peer_holds else "passive",
    )
    return {
        "node": seen.get("node"),
        "reachable": bool(seen.get("reachable")),
        **_role(manager, heartbeat, decision),
        "virtual_ip_held": held,
        "virtual_ip_interface": heartbeat.get("virtual_ip_interface"),
        "heartbeat": {
            "installed": bool(heartbeat.get("installed")),
            "running": bool(heartbeat.get("running")),
            "problem": heartbeat.get("problem"),
            "rscstatus": heartbeat.get("rscstatus"),
            "nodes": heartbeat.get("nodes") or {},
        },
        "manager": manager,
        "postgres": _postgres(seen.get("postgres") or {}),
        "clock_offset_s": (seen.get("clock") or {}).get("offset_s"),
    }


def _manager(info: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "installed": bool(info.get("installed")),
        "running": bool(info.get("running")),
        "problem": info.get("problem"),
        # As ha_manager has it. Of one that does not run it is what it wrote last.
        "status": info.get("status"),
    }


def _role(manager: Mapping[str, Any], heartbeat: Mapping[str, Any], decision: Decision) -> dict[str, str | None]:
    """The role of the server and the reason for it. ha_manager knows; without one, Heartbeat's state says what it would be."""
    if manager["running"]:
        return {"role": manager["status"].get("role"), "reason": (manager["status"].get("decision") or {}).get("reason")}
    if manager["installed"]:
        return {"role": None, "reason": manager["problem"]}
    if heartbeat.get("running"):
        return {"role": decision.role, "reason": decision.reason}
    return {"role": None, "reason": heartbeat.get("problem")}


def _postgres(info: Mapping[str, Any]) -> dict[str, Any]:
    if not info.get("exists"):
        role = None
    elif not info.get("accepting"):
        role = "stopped"
    else:
        role = "standby" if info.get("in_recovery") else "primary"
    names = ("streaming", "lag_bytes", "lag_s", "timeline", "system_identifier", "data_directory", "leftovers", "reason")
    return {
        "role": role,
        **{name: info.get(name) for name in names},
        "standbys": [
            {name: standby.get(name) for name in ("application_name", "state", "sync_state", "lag_bytes", "lag_s")}
            for standby in info.get("standbys") or []
        ],
    }


def _clock_offset(clocks: Sequence[Any]) -> float | None:
    if len(clocks) != 2 or not all(clocks):
        return None
    try:
        return pair_offset(*clocks).offset_s
    except (ClockError, KeyError):
        return None


def _problems(report: Mapping[str, Any], holders: Sequence[str], primaries: Sequence[str]) -> Iterator[str]:
    servers = report["servers"]
    for host, server in servers.items():
        if not server["reachable"]:
            yield f"{host} cannot be reached"
        elif not server["heartbeat"]["running"]:
            yield f"{host}: Heartbeat does not run ({server['heartbeat']['problem'] or 'no answer'})"
        else:
            yield from _heartbeat_problems(host, server["heartbeat"], server["node"])
        yield from _manager_problems(host, server["manager"])
    if not holders:
        yield f"nobody holds the virtual IP {report['virtual_ip']}"
    elif len(holders) > 1:
        yield f"both servers hold the virtual IP {report['virtual_ip']}"
    if not primaries:
        yield "PostgreSQL takes writes on no server"
    elif len(primaries) > 1:
        yield "PostgreSQL takes writes on both servers: their data grows apart"
    elif len(holders) == 1 and holders != primaries:
        yield f"the virtual IP leads to {holders[0]}, but PostgreSQL takes writes on {primaries[0]}"
    for host, server in servers.items():
        if server["postgres"]["role"] == "standby" and not server["postgres"]["streaming"]:
            yield f"{host}: PostgreSQL is a standby, but receives nothing"
        if server["reachable"] and server["postgres"]["role"] in (None, "stopped"):
            yield f"{host}: PostgreSQL does not run ({server['postgres']['reason'] or 'no cluster'})"
    yield from _not_redundant(servers)
    offset = report["clock_offset_s"]
    if offset is not None and abs(offset) > CLOCK_LIMIT_S:
        yield f"the servers' clocks differ by {abs(offset):.3f} s"


def _manager_problems(host: str, manager: Mapping[str, Any]) -> Iterator[str]:
    if not manager["running"]:
        if manager["installed"]:
            yield f"{host}: {manager['problem']}"
        return
    status = manager["status"]
    for problem in status.get("problems") or []:
        # That Heartbeat does not run is seen here too.
        if problem.get("code") != "HEARTBEAT_GONE":
            yield f"{host}: {problem.get('text')}"
    if paused := status.get("paused"):
        yield f"{host}: automatic failover is paused until {paused.get('until')} by {paused.get('by')} ({paused.get('reason') or 'no reason'})"


def _not_redundant(servers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What the active server says, or else any that answers."""
    asked = {host: server["manager"]["status"] for host, server in servers.items() if server["manager"]["running"]}
    for host in sorted(asked, key=lambda host: asked[host].get("role") != "active")[:1]:
        for reason in asked[host].get("not_redundant_because") or []:
            yield f"not redundant: {reason}"


def _heartbeat_problems(host: str, heartbeat: Mapping[str, Any], own_node: str | None) -> Iterator[str]:
    if heartbeat["rscstatus"] in (None, "transition"):
        yield f"{host}: Heartbeat has not settled ({heartbeat['rscstatus'] or 'no answer'})"
    for name, node in heartbeat["nodes"].items():
        if name == own_node:
            continue
        for link, state in node["links"].items():
            if state != "up":
                yield f"{host}: " + (f"ping node {name} does not answer" if node["type"] == "ping" else f"link {link} to {name} is {state}")


def screen(report: Mapping[str, Any]) -> list[str]:
    """The report on one screen, 80 columns wide, one string a line."""
    servers = report["servers"]
    title = f"Pair {report['pair']}, virtual IP {report['virtual_ip']}"
    verdict = "redundant" if report["redundant"] else "NOT REDUNDANT"
    lines = [f"{_cut(title, 2 * WIDTH - 1):<{2 * WIDTH}}{verdict:>{WIDTH}}", ""]
    lines.append(_row("", [host if host == s["node"] else f"{host} ({s['node'] or '?'})" for host, s in servers.items()]))
    lines.append(_row("role", [server["role"] or "unknown" for server in servers.values()]))
    lines.append(_row("virtual IP", [_virtual_ip(server) for server in servers.values()]))
    if any(server["manager"]["installed"] for server in servers.values()):
        lines.append(_row("ha_manager", [_state(server) for server in servers.values()]))
        lines.append(_row("  because", [_said(server, "decision", "code") for server in servers.values()]))
        lines.append(_row("  last made active", [_epoch(server) for server in servers.values()]))
        lines.append(_row("  replication", [_said(server, "replication_status") for server in servers.values()]))
    lines.append(_row("Heartbeat", [_heartbeat(server["heartbeat"]) if server["reachable"] else "unknown" for server in servers.values()]))
    for label, states in _links(servers):
        lines.append(_row(f"  {label}", states))
    lines.append(_row("PostgreSQL", [_database(server["postgres"]) if server["reachable"] else "unknown" for server in servers.values()]))
    lines.append(_row("  replay lag", [_lag(server["postgres"]) for server in servers.values()]))
    lines.append(_row("  commits wait", [_waits(server["postgres"]) for server in servers.values()]))
    lines.append(_row("clock, to controller", [_offset(server["clock_offset_s"]) for server in servers.values()]))
    lines.append(_row("clock, between them", [_offset(report["clock_offset_s"])]))
    lines.append("")
    for problem in report["problems"]:
        lines += textwrap.wrap(problem, 3 * WIDTH, initial_indent="! ", subsequent_indent="  ", break_on_hyphens=False)
    if not report["problems"]:
        lines.append("Nothing is wrong.")
    if last := _last_transition(servers):
        lines += ["", *(_cut(line, 3 * WIDTH) for line in timeline(last))]
    return lines


def _last_transition(servers: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The latest change of role that any of the servers tells of, the present one included."""
    statuses = [server["manager"]["status"] or {} for server in servers.values()]
    told = [status[name] for status in statuses for name in ("transition", "last_transition") if status.get(name)]
    return max(told, key=lambda transition: str(transition.get("started")), default=None)


def _state(server: Mapping[str, Any]) -> str:
    manager = server["manager"]
    if not server["reachable"]:
        return "unknown"
    if not manager["running"]:
        return "no answer" if manager["installed"] else "not installed"
    return str(manager["status"].get("state") or "?").replace("_", " ")


def _said(server: Mapping[str, Any], *names: str) -> str:
    """What stands in the status of a ha_manager that runs."""
    found = server["manager"]["status"] if server["manager"]["running"] else None
    for name in names:
        found = (found or {}).get(name)
    return "-" if found is None else str(found)


def _epoch(server: Mapping[str, Any]) -> str:
    return "-" if _said(server, "record") == "-" else f"{_said(server, 'record', 'active')}, record {_said(server, 'record', 'counter')}"


def _row(label: str, cells: Sequence[str]) -> str:
    return "".join(f"{_cut(cell, WIDTH - 1):<{WIDTH}}" for cell in (label, *cells)).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 2]}.."


def _virtual_ip(server: Mapping[str, Any]) -> str:
    return f"held on {server['virtual_ip_interface']}" if server["virtual_ip_held"] else "-"


def _heartbeat(heartbeat: Mapping[str, Any]) -> str:
    if not heartbeat["running"]:
        return "stopped" if heartbeat["installed"] else "not installed"
    return f"running, {heartbeat['rscstatus'] or 'no answer'}"


def _links(servers: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """A row for each link and each ping node, with what every server sees there."""
    seen: dict[str, dict[str, str]] = {}
    for host, server in servers.items():
        for name, node in server["heartbeat"]["nodes"].items():
            if name == server["node"]:
                continue
            for link, state in node["links"].items():
                label = f"ping {name}" if node["type"] == "ping" else f"link {link}"
                seen.setdefault(label, {})[host] = state
    for label in sorted(seen):
        yield label, [seen[label].get(host, "-") for host in servers]


def _database(postgres: Mapping[str, Any]) -> str:
    if postgres["role"] == "standby":
        return "standby, streaming" if postgres["streaming"] else "standby, NOT streaming"
    return f"primary, timeline {postgres['timeline']}" if postgres["role"] == "primary" else postgres["role"] or "none"


def _lag(postgres: Mapping[str, Any]) -> str:
    if postgres["role"] != "standby":
        return "-"
    return f"{postgres['lag_bytes'] or 0} bytes, {postgres['lag_s'] or 0:.1f} s"


def _waits(postgres: Mapping[str, Any]) -> str:
    if postgres["role"] != "primary":
        return "-"
    waiting = [standby["application_name"] for standby in postgres["standbys"] if standby["sync_state"] in ("sync", "quorum")]
    return f"for {', '.join(waiting)}" if waiting else "for nobody (asynchronous)"


def _offset(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds:+.3f} s"
