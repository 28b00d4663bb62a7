# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""How this server is: the status file, the markers of its role, and the same for people.

The texts are pure functions of the status document. They take one in which something is missing, so that
ha_manager and the command ha need not be of the same version.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import timeline
from .shared import heartbeat
from .shared.durable import sync
from .text import WIDTH, moment, plain, size, wrap

Document = dict[str, Any]

DIRECTORY = Path("/etc/ha_manager")
STATUS_FILE = DIRECTORY / "ha_manager_status"
MARKERS = ("active", "passive")

_LABEL = 12
_GREEN, _YELLOW, _RED = "32", "33", "31"


def write(document: Document, path: Path = STATUS_FILE, *, durable: bool = False) -> None:
    """Put the document into the file, an entry a line. Raises OSError, and ValueError for a number that JSON does not have."""
    # With indentation Python would do it without C, which is a good part of what a server at rest has to do.
    entries = (f"{json.dumps(name)}: {json.dumps(value, allow_nan=False, ensure_ascii=False)}" for name, value in document.items())
    publish("{\n" + ",\n".join(entries) + "\n}\n", path, durable=durable)


def publish(text: str, path: Path, *, durable: bool = False) -> None:
    """Put the text into a file that everybody may read, as a whole. durable: and wait for the disk. Raises OSError."""
    new = path.with_name(f".{path.name}.new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text.encode(errors="replace"))
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.replace(new, path)
    if durable:
        sync(str(path.parent))


# A disk may keep one thread that marks waiting until the next change of role has another one.
_marking = threading.Lock()


def mark(role: str | None, directory: Path = DIRECTORY) -> None:
    """Leave the marker of this role alone, on the disk; None: neither. There is no instant, and no power cut, with both. Raises OSError."""
    with _marking:
        _mark(role, directory)


def _mark(role: str | None, directory: Path) -> None:
    others = [directory / name for name in MARKERS if name != role]
    gone = [other for other in others if _removed(other)]
    if gone:
        sync(str(directory))
    if role is None or (directory / role).exists():
        return
    os.close(os.open(directory / role, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    sync(str(directory))


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def marked(directory: Path = DIRECTORY) -> str | None:
    """The role that the markers say; None: neither is there."""
    return next((name for name in MARKERS if (directory / name).exists()), None)


def screen(document: Document, *, color: bool = False) -> str:
    """The whole state on one screen, at most 79 columns wide."""
    view = _View(document)
    lines = [view.head(), ""]
    for label, text, look in view.rows():
        lines += _row(label, text, look if color else None)
    if transition := document.get("transition"):
        lines += ["", *timeline.show(transition).splitlines()]
    elif transition := document.get("last_transition"):
        lines += ["", *timeline.summary(transition)]
    return "\n".join(lines)


def why(document: Document) -> list[str]:
    """Why this server has its role, and what would have to happen for the other one: texts of a sentence or two."""
    return list(_View(document).reasons())


class _View:
    """A status document, put into words."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.node = str(self.get("node") or "this server")
        self.peer = str(self.get("peer_node") or "the other server")
        self.role = self.get("role") or "undecided"

    def get(self, *keys: str) -> Any:
        found: Any = self._document
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def head(self) -> str:
        state = str(self.get("state") or "").replace("_", " ")
        left = plain(f"{self.node}: {self.role}" + (f", {state}" if state else ""))
        right = moment(self.get("time"))
        return f"{left}{right:>{max(WIDTH - len(left), len(right) + 1)}}"[:WIDTH]

    def rows(self) -> Iterator[tuple[str, str, str | None]]:
        if self.get("redundant"):
            yield "redundant", "yes", _GREEN
        else:
            yield "redundant", "NO: " + ("; ".join(self.get("not_redundant_because") or []) or "the reason is not known"), _RED
        yield "decision", self._decision(), None
        yield "virtual IP", self._virtual_ip(), None
        yield "database", self._database(), None if self.get("postgresql", "state") in ("primary", "standby") else _YELLOW
        yield "replication", self._replication(), None
        if self.role == "active" and self.get("files"):
            yield from self._files()
        yield "Heartbeat", self._heartbeat(), None if self.get("heartbeat", "running") else _RED
        yield "peer", f"{self.peer}: {self._peer()}", None if self.get("peer", "connected") else _RED
        yield "network", self._network(), None
        yield "record", self._record(), None
        if self.get("paused"):
            yield "paused", self._paused(), _YELLOW
        for kept in self.get("quarantine") or []:
            if not kept.get("acknowledged"):
                yield "quarantine", self._quarantine(kept), _RED
        if error := self.get("settings", "error"):
            yield "settings", f"refused, those of {moment(self.get('settings', 'loaded'))} stay: {error}", _RED
        for problem in self.get("problems") or []:
            yield "problem", f"{problem.get('code')}: {problem.get('text')} (since {moment(problem.get('since'))})", _RED

    def reasons(self) -> Iterator[str]:
        since = moment(self.get("decision", "since"))
        yield f"{self.node} is {self.role} since {since}: {self._decision()}."
        yield f"Heartbeat {self._heartbeat()}. {self._table()}"
        yield f"The record {self._record()}."
        yield f"{self.peer}: {self._peer()}."
        yield f"The database here is {self._database()}; the virtual IP is {self._virtual_ip()}."
        if self.get("paused"):
            yield f"Automatic failover is off {self._paused()}."
        yield from self._other_role()

    def _decision(self) -> str:
        return f"{self.get('decision', 'code') or '?'}: {self.get('decision', 'reason') or 'no reason is known'}"

    def _virtual_ip(self) -> str:
        address = self.get("virtual_ip", "address")
        if not address:
            return "not set up"
        where = f"{address} on {self.get('virtual_ip', 'interface')}"
        return f"{where}: held here" if self.get("virtual_ip", "held") else f"{where}: not here"

    def _database(self) -> str:
        database = self.get("postgresql") or {}
        parts = [str(database.get("state") or "not known")]
        if database.get("timeline") is not None:
            parts.append(f"timeline {database['timeline']}")
        if database.get("lsn"):
            parts.append(f"at {database['lsn']}")
        if database.get("synchronous"):
            parts.append("commits wait for the other server")
        return ", ".join(parts)

    def _replication(self) -> str:
        database = self.get("postgresql") or {}
        parts = [str(self.get("replication_status") or "not known")]
        if database.get("streaming"):
            parts.append("streaming")
        if database.get("lag_bytes") is not None:
            parts.append(f"{size(database['lag_bytes'])} behind")
        if progress := self.get("progress"):
            parts.append(str(progress))
        return ", ".join(parts)

    def _files(self) -> Iterator[tuple[str, str, str | None]]:
        """One row when all is well; the files in trouble are among the problems."""
        files = self.get("files") or []
        trouble = sum(bool(one.get("code")) for one in files)
        absent = sum(bool(one.get("absent")) and not one.get("code") for one in files)
        copied = sum(bool(one.get("last_good")) and not one.get("code") for one in files)
        parts = [f"{copied} of {len(files)} copied"]
        if last := max((str(one.get("last_good") or "") for one in files), default=""):
            parts.append(f"last at {moment(last)}")
        parts += [f"{absent} not there yet"] if absent else []
        parts += [f"{trouble} IN TROUBLE"] if trouble else []
        if left_out := sum(len(one.get("left_out") or []) for one in files):
            parts.append(f"{left_out} sockets, pipes or devices left out")
        yield "files", ", ".join(parts), _RED if trouble else None

    def _heartbeat(self) -> str:
        if not self.get("heartbeat", "running"):
            return "does not run"
        answer = self.get("heartbeat", "rscstatus") or "no answer"
        text = f"runs, rscstatus: {answer}, it calls {self.peer} {self.get('heartbeat', 'peer') or 'nothing'}"
        return text + (", it has given the service to this server" if self.get("heartbeat", "holding") else "")

    def _table(self) -> str:
        """What Heartbeat's answer alone would make of the role."""
        answer, default_active = self.get("heartbeat", "rscstatus"), self.get("default_active")
        if answer == "local" and default_active is None:
            return "By itself 'local' means: active on the default active server; on the default passive, active only if it was so already."
        known = {
            name: role if role in heartbeat.ROLES else None for name, role in (("previous", self.role), ("peer", self.get("peer", "role")))
        }
        try:
            alone = heartbeat.decide(answer, default_active=default_active == self.node, **known)
        except ValueError:
            return f"By itself {answer!r} means nothing."
        means = "the role stays as it is" if alone.role == heartbeat.UNCHANGED else alone.role
        return f"By itself that means: {means} ({alone.reason})."

    def _peer(self) -> str:
        links = self.get("peer", "links") or {}
        each = ", ".join(f"{address} {state}" for address, state in links.items())
        silent = self.get("peer", "silent_seconds")
        if self.get("peer", "connected"):
            said = f"connected, says it is {self.get('peer', 'role') or 'undecided'}"
        elif silent is None:
            said = "not connected, never heard"
        else:
            said = f"not connected, heard {silent:.1f} s ago"
        return f"{said}; {each}" if each else said

    def _network(self) -> str:
        carriers = [f"{name} {'up' if up else 'DOWN'}" for name, up in (self.get("network", "carriers") or {}).items()]
        words = {True: "answers", False: "DOES NOT ANSWER", None: "not asked yet"}
        nodes = [f"{address} {words[answers]}" for address, answers in (self.get("network", "ping_nodes") or {}).items()]
        return ", ".join(carriers + nodes) or "not known"

    def _record(self) -> str:
        record = self.get("record")
        if not record:
            return "is empty: nobody was ever active"
        in_sync = "the passive had everything" if record.get("in_sync") else "the passive did not have everything"
        text = f"{record.get('counter')} says that {record.get('active')} became active ({moment(record.get('changed'))}"
        text += f", timeline {record['timeline']}" if record.get("timeline") is not None else ""
        text += f" from {record['switch_lsn']}" if record.get("switch_lsn") else ""
        return f"{text}); at last contact {in_sync}"

    def _paused(self) -> str:
        paused = self.get("paused") or {}
        return f"until {moment(paused.get('until'))}, by {paused.get('by')}: {paused.get('reason') or 'no reason given'}"

    def _quarantine(self, kept: dict[str, Any]) -> str:
        tables = ", ".join(kept.get("tables") or []) or "not known"
        return (
            f"{kept.get('transactions')} transactions that {self.peer} never had ({size(kept.get('bytes') or 0)}, tables: {tables}) "
            f"are in {kept.get('path')}; once seen to: ha acknowledge {kept.get('name')}"
        )

    def _other_role(self) -> Iterator[str]:
        if self.role == "active":
            ready = "is ready for it" if self.get("redundant") else "is not ready: " + "; ".join(self.get("not_redundant_because") or ["?"])
            yield f"It becomes passive by 'ha failover' ({self.peer} {ready})."
            if not self.get("paused"):
                yield (
                    f"By itself it becomes passive when {self.peer} is ready and sees more of the network or has the healthier database, "
                    "and it stops serving when it hears neither the other server nor any ping node."
                )
            return
        if self.get("state") == "refusing":
            yield (
                f"It becomes active once {self.peer} can be heard and the newer data are here, or by 'ha failover --force', "
                "which gives up what only the other server has."
            )
        elif self.get("state") == "fenced":
            yield f"It stopped serving by itself; it serves again, or follows, once {self.peer} or a ping node can be heard."
        yield "It becomes active by 'ha failover', on either server."
        if not self.get("paused"):
            yield (
                f"By itself it becomes active when {self.peer} is heard on no link for Heartbeat's deadtime, while a ping node answers, "
                "the service link has carrier, nobody serves at the virtual IP, and the data here are fresh."
            )


def _row(label: str, text: str, look: str | None) -> Iterable[str]:
    lines = wrap(text, f"{plain(label)[: _LABEL - 1]:<{_LABEL}}", " " * _LABEL)
    return lines if look is None else [_paint(line, look) for line in lines]


def _paint(line: str, look: str) -> str:
    return f"{line[:_LABEL]}\x1b[{look}m{line[_LABEL:]}\x1b[0m"
