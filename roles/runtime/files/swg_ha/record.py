# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The epoch: who was made active last, and on which data. Heartbeat forgets; this does not.

Both servers keep a record, on disk before it is acted on, and send it with every beat. Whoever is made
active counts one further, so of two records the one with the higher counter is the newer, and a server
whose record is older knows that it must not go on from its own data.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .shared import durable


def now() -> str:
    """The time for people: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Record:
    """Who is active since when.

    counter: how often somebody was made active. active: its ``uname -n``. system_id, timeline and switch_lsn name
    the data that it went on from (None: not known yet, its promotion is under way). in_sync: at their last contact
    the passive server had all that it must have to take over. changed: UTC, for people alone. given: the server that was active
    has handed over to ``active``, up to switch_lsn, and it is not known yet whether that one took it. doubtful: the active server gave
    up the service while the other one could have taken over unheard.
    """

    counter: int
    active: str
    system_id: str | None = None
    timeline: int | None = None
    switch_lsn: str | None = None
    in_sync: bool = False
    changed: str = ""
    given: bool = False
    doubtful: bool = False

    def claimed_by(self, node: str) -> Record:
        """The record of ``node`` being made active after this."""
        return Record(self.counter + 1, node, self.system_id, changed=now())

    def taken(self) -> Record:
        """The record of the server that it names going on by it."""
        return replace(self, given=False, doubtful=False, in_sync=False, changed=now())

    def given_to(self, node: str, lsn: str | None) -> Record:
        """The record of handing over to ``node``, which must have everything up to ``lsn``. What it lacked at last contact, it still lacks."""
        return replace(
            self, counter=self.counter + 1, active=node, timeline=None, switch_lsn=lsn, changed=now(), given=True, doubtful=False
        )

    @property
    def unfinished(self) -> bool:
        """A hand-over that was taken, whose promotion is not known to have ended."""
        return self.timeline is None and self.switch_lsn is not None


def told(record: Record | None) -> dict[str, Any] | None:
    """As JSON has it. Without the copies that asdict makes of what cannot change: a beat tells it several times a second."""
    return None if record is None else dict(vars(record))


def parse(said: Mapping[str, Any]) -> Record:
    """A record from a JSON object. Raises ValueError."""
    if not isinstance(said, Mapping):
        raise ValueError(f"not a record: {said!r}")
    kinds = {"counter": int, "active": str, "system_id": (str, type(None)), "timeline": (int, type(None)), "switch_lsn": (str, type(None))}
    known = {f.name for f in fields(Record)}
    try:
        record = Record(**{name: value for name, value in said.items() if name in known})
    except TypeError as error:
        raise ValueError(f"not a record: {error}") from error
    for name, kind in kinds.items():
        value = getattr(record, name)
        if not isinstance(value, kind) or isinstance(value, bool):  # type: ignore[arg-type]
            raise ValueError(f"not a record: {name} is {value!r}")
    if not all(isinstance(one, bool) for one in (record.given, record.doubtful, record.in_sync)):
        raise ValueError("not a record: given, doubtful and in_sync are true or false")
    if record.counter < 0 or not record.active:
        raise ValueError(f"not a record: counter {record.counter}, active {record.active!r}")
    return record


def newest(one: Record | None, other: Record | None) -> Record | None:
    """The newer of two records. Of two with one counter, the one that knows its timeline, then the one whose active server sorts first.

    The last rule only makes both servers choose alike: it takes two forced take-overs behind each other's back to need it.
    """
    if one is None or other is None:
        return one or other

    def age(record: Record) -> tuple[int, bool]:
        return record.counter, record.timeline is not None

    if age(one) != age(other):
        return max(one, other, key=age)
    return min(one, other, key=lambda record: record.active)


class Overtaken(ValueError):
    """A newer record has come meanwhile: what this one was for must not be done."""


class Store:
    """The record of this server. What is heard counts at once, a doubt as well, and what else is said of this server when it is on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: Record | None = None
        self.problem: str | None = None
        self._saved: Record | None = None
        self._writing = threading.Lock()
        # Never held while the disk is waited for: the event loop takes it too.
        self._changing = threading.Lock()

    def load(self) -> Record | None:
        """Read it; None where there is none. What cannot be read is set aside with a reason in ``problem``."""
        try:
            self.record = parse(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            self.record = None
        except (OSError, ValueError) as error:
            aside = self.path.with_suffix(".broken")
            self.record = None
            self.problem = f"{self.path} cannot be used ({error}); it was set aside as {aside.name}, and this server goes by its peer's"
            if not isinstance(error, OSError):
                os.replace(self.path, aside)
        self._saved = self.record
        return self.record

    @property
    def unsaved(self) -> bool:
        """Something counts that is not on the disk yet."""
        return self.record != self._saved

    def update(self, of: Record, change: Callable[[Record], Record]) -> Record:
        """Have what ``change`` makes of the record on disk, and then in force; gives it back.

        of: the record that the caller goes by, or where there is none yet, the one that it begins with. Its active server may tell more of the
        same one while it is written: then change is called again, so that neither word is lost. Raises OSError; Overtaken where another one
        is in force.
        """
        with self._writing:
            while True:
                before = self.record
                if before is not None and not _same(of, before):
                    raise Overtaken(f"{before.active} was made active meanwhile (record {before.counter})")
                changed = change(of if before is None else before)
                self._write(changed)
                with self._changing:
                    if self.record == before:
                        self.record = changed
                        return changed

    def keep(self) -> None:
        """Have on disk what counts. Raises OSError."""
        with self._writing:
            # What is in force stays so: it may be a newer version than the one that was there when this was called.
            while (record := self.record) is not None and record != self._saved:
                self._write(record)

    def doubt(self, of: Record) -> None:
        """Go by it that this server may have been superseded, where the record is still that one. Nothing is written: that is for ``keep``."""
        with self._changing:
            if self.record is not None and _same(of, self.record) and not self.record.doubtful:
                self.record = replace(self.record, doubtful=True, changed=now())

    def _write(self, record: Record) -> None:
        if record != self._saved:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.replace(str(self.path), (json.dumps(told(record), indent=1) + "\n").encode(), lambda new: os.chmod(new, 0o600))
            self._saved = record
        self.problem = None

    def adopt(self, other: Record | None, *, of_its_active: bool) -> bool:
        """Go by a newer record; one of the same counter only from the server that it makes active, which keeps it. True if it is new.

        Nothing is written: that is for ``keep``.
        """
        with self._changing:
            if other is None or other == self.record:
                return False
            same = self.record is not None and _same(self.record, other)
            if not (same and of_its_active) and newest(self.record, other) != other:
                return False
            self.record = other
            return True


def _same(one: Record, other: Record) -> bool:
    return (one.counter, one.active) == (other.counter, other.active)
