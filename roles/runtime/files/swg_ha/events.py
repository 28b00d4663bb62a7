# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What ha_manager puts into the log: every event has an id of its own, which never changes, to search and to alarm by.

``python3 -m swg_ha.events`` prints them all as a table in Markdown.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from string import Formatter
from typing import Any

IDENTIFIER = "ha_manager"
JOURNAL = Path("/run/systemd/journal/socket")
SYSLOG = Path("/dev/log")

# Priorities of syslog, and its facility for daemons.
CRITICAL, ERROR, WARNING, NOTICE, INFO = 2, 3, 4, 5, 6
PRIORITY_NAMES = {CRITICAL: "critical", ERROR: "error", WARNING: "warning", NOTICE: "notice", INFO: "info"}
_DAEMON = 3
# The journal takes a record as one datagram.
_MAX_FIELD = 8192


@dataclass(frozen=True)
class Kind:
    """message_id: 32 hexadecimal digits, fixed for ever. template: the message, with the names of the event's fields."""

    message_id: str
    priority: int
    template: str


class Event(Enum):
    """Everything that is told. The first four are those of the manual."""

    ROLE_CHANGED = Kind("d21161f3eba74c3b9e2f4a38fdb47a2d", NOTICE, "{node} is {role} now, it was {previous}: {code}: {reason}")
    REPLICATION_STARTED = Kind(
        "edd92a928e8942a9b540cc9a54d3256f", NOTICE, "PostgreSQL's replication from {active} to {passive} has started"
    )
    REPLICATION_INITIALIZED = Kind(
        "0158d9268f494b3c8d2d9511f3a5a127", NOTICE, "PostgreSQL's replication to {passive} is initialized: {how}, {seconds} s"
    )
    PEER_UNREACHABLE = Kind("8fdb98b41f294593b422e8b08ce08b0f", ERROR, "cannot connect to ha_manager on {peer}: {reason}")
    PEER_CONNECTED = Kind("76b760d7c13647e59953bb1acd8f9ee8", INFO, "connected to ha_manager on {peer}")
    TRANSITION_STARTED = Kind("a96fadcc073747aca51bf0c1432524f8", NOTICE, "{node}: {kind} begins ({trigger}): {code}: {reason}")
    TRANSITION_ENDED = Kind("92964e718aad47f2b8bb1dbb275b2da3", NOTICE, "{node}: {kind} is {outcome} after {seconds} s")
    TRANSITION_FAILED = Kind("3abfbd894df14d3db66703036b6d3555", ERROR, "{node}: {kind} has failed after {seconds} s: {reason}")
    TRANSITION_RESUMED = Kind(
        "185e895bd7434d65ad5894ac1c83f60a", WARNING, "{node}: {kind} was cut off and is carried on, for the {resumed}. time"
    )
    STEP_DONE = Kind("835d081d7bda427185cb87f9bdde724c", INFO, "{kind}: step {step} done after {seconds} s: {reason}")
    STEP_SKIPPED = Kind("62e45f191c604bbf9c9af6439e87dfad", INFO, "{kind}: step {step} skipped: {reason}")
    STEP_FAILED = Kind("8ebdb1081d4f42cca53c202f5b0fdde5", ERROR, "{kind}: step {step} failed after {seconds} s: {reason}")
    REFUSED = Kind("588cd2030e2847fcb3e1f0e384a79b16", ERROR, "{node} refuses the active role: {code}: {reason}")
    FENCED = Kind("5c75ec8689154aba94dd2fc4e0546d10", CRITICAL, "{node} gave up the virtual IP and stopped its database: {code}: {reason}")
    SETTINGS_LOADED = Kind("9cdbd1133f41451c83d50652ec7707ed", NOTICE, "the settings were loaded")
    SETTINGS_REFUSED = Kind("b3986090786c477499145ea50e3cf248", ERROR, "the settings cannot be used, those from before stay: {reason}")
    PAUSED = Kind("fcc035c314b64fe7b6774fd6e49e1d0b", WARNING, "automatic failover is off until {until}, by {by}: {reason}")
    RESUMED = Kind("4691e391e58c4377a7a2e10651eb3258", NOTICE, "automatic failover is on again: {reason}")
    QUARANTINED = Kind(
        "20a385408c474d82ac32d57e016fd043",
        ERROR,
        "commits that {peer} never had are kept in {path}: 'ha status --watch' says what is in there",
    )
    ACKNOWLEDGED = Kind("13fcd58f58224adf993bdcf6d08dbb52", NOTICE, "the quarantine {name} is acknowledged by {by}")
    REDUNDANCY_LOST = Kind("3b2c4f12ed9b48699f12828daff9aea7", ERROR, "the pair is not redundant: {reason}")
    REDUNDANCY_REGAINED = Kind("7ff9373a12ba4aaba555162c83bf7ab7", NOTICE, "the pair is redundant again, after {seconds} s")
    DATABASE_RESTARTED = Kind(
        "f96e827dcea8418b9d4b1f21c1072172", ERROR, "PostgreSQL was gone and was started again within {seconds} s: {reason}"
    )

    FILE_NOT_COPIED = Kind("184a6634baf1445e86acdad6be77f813", WARNING, "{name} is not copied to {peer}: {code}: {reason}")
    FILE_COPIED_AGAIN = Kind("514bc00d883c45b5aa509a7786977192", NOTICE, "{name} is copied to {peer} again")

    @property
    def message_id(self) -> str:
        return self.value.message_id

    @property
    def priority(self) -> int:
        return self.value.priority

    def message(self, fields: dict[str, Any]) -> str:
        """One line. A field that is missing is a question mark: a log record is never lost for it."""
        known = {name: "?" if fields.get(name) is None else fields[name] for name in names(self)}
        return " ".join(self.value.template.format_map(known).split())


def names(event: Event) -> list[str]:
    """The fields that an event's message needs."""
    return [name for _text, name, _format, _conversion in Formatter().parse(event.value.template) if name]


def tell(event: Event, *, journal: Path = JOURNAL, syslog: Path = SYSLOG, **fields: Any) -> None:
    """Put an event into the journal, every field as SWG_HA_NAME; into syslog where there is no journal. Never raises.

    Never waits either: a log that is stuck, behind a disk that is, must not hold up a failover. That is why this speaks
    the journal's own protocol: systemd.journal.send would wait for it.
    """
    try:
        message = event.message(fields)
        record = {
            "MESSAGE": message,
            "MESSAGE_ID": event.message_id,
            "PRIORITY": str(event.priority),
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            "SYSLOG_FACILITY": str(_DAEMON),
            "SWG_HA_EVENT": event.name,
            **{f"SWG_HA_{name.upper()}": str(value) for name, value in fields.items() if value is not None},
        }
        line = f"<{_DAEMON << 3 | event.priority}>{IDENTIFIER}[{os.getpid()}]: {message}"
        told = _send(journal, encode(record)) or _send(syslog, line.encode(errors="replace")[:_MAX_FIELD])
        # A service's standard error is the journal's too: while that is stuck, a write there does not return.
        if not told and select.select([], [sys.stderr.fileno()], [], 0)[1]:
            print(f"<{event.priority}>{message}", file=sys.stderr, flush=True)
    except Exception as error:
        with suppress(Exception):
            print(f"<{ERROR}>{event.name} could not be logged: {error}", file=sys.stderr, flush=True)


def encode(record: dict[str, str]) -> bytes:
    """A record as the journal's socket takes it: NAME=value, or NAME, a length of 8 bytes and the value, if that has several lines."""
    parts = []
    for name, value in record.items():
        data = value.encode(errors="replace")[:_MAX_FIELD]
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


def _send(path: Path, data: bytes) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.sendto(data, str(path))
        except OSError:
            return False
    return True


def table() -> str:
    """All events in Markdown, for the documentation."""
    rows = [f"| `{event.name}` | {PRIORITY_NAMES[event.priority]} | `{event.message_id}` | {_cell(event)} |" for event in Event]
    return "\n".join(["| event | priority | MESSAGE_ID | message |", "|---|---|---|---|", *rows])


def _cell(event: Event) -> str:
    text = str(event.value.template)
    for name in names(event):
        text = text.replace("{" + name + "}", f"*{name}*")
    return text


if __name__ == "__main__":
    print(table())
