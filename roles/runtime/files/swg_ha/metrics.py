# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The status document as Prometheus metrics, for the textfile collector of node_exporter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from . import timeline
from .status import Document, publish

FILE = "swg_ha.prom"

ROLES = ("active", "passive", "undecided")
STATES = ("steady", "becoming_active", "becoming_passive", "following", "fenced", "refusing")

Labels = dict[str, Any]


@dataclass(frozen=True)
class Metric:
    """One metric with its samples; those whose value is None are not there."""

    name: str
    kind: str
    help: str
    samples: list[tuple[Labels, float | None]]


def write(text: str, folder: Path) -> None:
    """Put the metrics into the folder, as a whole: no collector reads half of them. Raises OSError."""
    publish(text, folder / FILE)


def render(document: Document) -> str:
    """The metrics of a status document. What it does not say is left out."""
    return "".join(line + "\n" for metric in _metrics(document) for line in _lines(metric))


def _lines(metric: Metric) -> Iterator[str]:
    samples = [(labels, value) for labels, value in metric.samples if value is not None]
    if not samples:
        return
    name = f"swg_ha_{metric.name}"
    yield f"# HELP {name} {metric.help}"
    yield f"# TYPE {name} {metric.kind}"
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escape(str(text))}"' for label, text in labels.items())
        yield f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}"


def _escape(text: str) -> str:
    return re.sub(r'[\\"\n]', lambda found: {"\\": "\\\\", '"': '\\"', "\n": "\\n"}[found[0]], text)


def _number(value: float) -> str:
    return repr(int(value)) if float(value).is_integer() else repr(float(value))


def _metrics(document: Document) -> Iterator[Metric]:
    def get(*keys: str) -> Any:
        found: Any = document
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def gauge(name: str, help: str, value: Any) -> Metric:
        return Metric(name, "gauge", help, [({}, None if value is None else float(value))])

    def each(name: str, help: str, label: str, values: dict[str, Any] | None) -> Metric:
        pairs = (values or {}).items()
        return Metric(name, "gauge", help, [({label: key}, None if value is None else float(value)) for key, value in pairs])

    def one_of(name: str, help: str, values: tuple[str, ...]) -> Metric:
        return Metric(name, "gauge", help, [({name: value}, float(get(name) == value)) for value in values])

    yield Metric("info", "gauge", "The servers of the pair.", [({"node": get("node"), "peer_node": get("peer_node")}, 1.0)])
    yield gauge("status_time_seconds", "When this was written, in seconds since the epoch.", _seconds(get("time")))
    yield gauge("start_time_seconds", "When ha_manager was started, in seconds since the epoch.", _seconds(get("started")))
    yield one_of("role", "Whether the server has this role.", ROLES)
    yield one_of("state", "Whether the server is in this state.", STATES)
    yield gauge("redundant", "Whether the other server could take over with all data.", bool(get("redundant")))
    yield gauge("paused", "Whether automatic failover is off for maintenance.", bool(get("paused")))
    yield gauge("settings_valid", "Whether the settings on the disk are those in use.", not get("settings", "error"))
    yield gauge("virtual_ip_held", "Whether the virtual IP is on this server.", get("virtual_ip", "held"))
    yield gauge("record_counter", "How often a server of the pair was made active.", get("record", "counter"))

    yield gauge("heartbeat_running", "Whether Heartbeat runs on this server.", get("heartbeat", "running"))
    yield gauge("peer_connected", "Whether ha_manager on the other server can be heard.", get("peer", "connected"))
    yield gauge("peer_silent_seconds", "Time since the other server was last heard.", get("peer", "silent_seconds"))
    links = {address: state == "up" for address, state in (get("peer", "links") or {}).items()}
    yield each("peer_link_up", "Whether the other server can be heard at this address.", "address", links)
    yield each("link_carrier", "Whether the interface has carrier.", "interface", get("network", "carriers"))
    yield each("ping_node_up", "Whether the ping node answers.", "address", get("network", "ping_nodes"))

    yield gauge("postgresql_up", "Whether PostgreSQL takes queries.", get("postgresql", "state") in ("primary", "standby"))
    yield gauge("postgresql_primary", "Whether PostgreSQL takes writes.", get("postgresql", "state") == "primary")
    yield gauge("postgresql_timeline", "PostgreSQL's timeline.", get("postgresql", "timeline"))
    yield gauge("postgresql_synchronous", "Whether commits wait for the other server.", get("postgresql", "synchronous"))
    yield gauge("replication_streaming", "Whether the databases are replicated as they change.", get("postgresql", "streaming"))
    yield gauge(
        "replication_lag_bytes", "How much of the write-ahead log the passive server does not have.", get("postgresql", "lag_bytes")
    )

    yield from _files(document)

    kept = [one for one in get("quarantine") or [] if not one.get("acknowledged")]
    yield gauge("quarantined", "Sets of commits that were kept aside and that nobody has acknowledged.", len(kept))
    problems: dict[str, int] = {}
    for problem in get("problems") or []:
        problems[str(problem.get("code"))] = problems.get(str(problem.get("code")), 0) + 1
    yield gauge("problems", "Everything that is wrong now.", sum(problems.values()))
    yield each("problem", "What is wrong now, by its code.", "code", problems)

    total = get("transitions_total")
    yield Metric("transitions_total", "counter", "Changes of role since ha_manager was started.", [({}, total)])
    failures = (get("failures") or {}).items()
    yield Metric("step_failures_total", "counter", "Failed steps since ha_manager was started.", [({"step": s}, n) for s, n in failures])
    if last := get("last_transition"):
        yield from _last(last)


def _files(document: Document) -> Iterator[Metric]:
    def of(name: str, kind: str, help: str, field: str) -> Metric:
        return Metric(f"file_{name}", kind, help, [({"file": one.get("name")}, one.get(field)) for one in document.get("files") or []])

    yield of("age_seconds", "gauge", "Time since the last good copy of a replicated file.", "age_seconds")
    yield of("copied_bytes", "gauge", "How much the last good copy of a replicated file transferred.", "bytes")
    yield of("size_bytes", "gauge", "How much there is of a replicated file or folder.", "size")
    yield of("copy_seconds", "gauge", "How long the last good copy of a replicated file took.", "seconds")
    yield of("copy_failures_total", "counter", "Failed copies of a replicated file.", "failures")


def _last(transition: timeline.Transition) -> Iterator[Metric]:
    labels = {name: transition.get(name) for name in ("kind", "trigger", "code", "outcome")}
    help = "How long the last change of role took."
    yield Metric("last_transition_seconds", "gauge", help, [(labels, timeline.seconds(transition))])
    help = "When the last change of role began, in seconds since the epoch."
    yield Metric("last_transition_start_time_seconds", "gauge", help, [({}, _seconds(transition.get("started")))])
    help = "How long nobody could write in the last change of role, as far as this server can tell."
    yield Metric("last_outage_seconds", "gauge", help, [({}, timeline.outage(transition))])
    help = "How long the steps of the last change of role took."
    steps = [({"step": step["name"], "state": step.get("state")}, step.get("seconds")) for step in transition["steps"]]
    yield Metric("last_transition_step_seconds", "gauge", help, steps)


def _seconds(iso: Any) -> float | None:
    try:
        return datetime.fromisoformat(iso).timestamp()
    except (TypeError, ValueError):
        return None
