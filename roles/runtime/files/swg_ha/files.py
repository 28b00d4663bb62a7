# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The files that are replicated beside the database: their units, whether these run, how each copy is.

HA/module.xml lists them. Each entry is some units of systemd's, made here in /run; what they have in common comes with the role
file_replication. systemd runs the copies (copying.py), ha_manager only says whether they are to run, and looks at what came of them.

    ha_file@ID.path    a change raises the flag /run/ha_files/ID.changed, through ha_changed@ID
    ha_tree@ID         does the same for what changes anywhere in a folder
    ha_file@ID.timer   copies at the entry's interval; once an hour what is watched, in case that something was missed
    ha_flag@ID.path    the flag is up: ha_copy@ID, which takes it down before it copies
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import posixpath
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import copying, units
from .control import Refused
from .events import Event, tell
from .peer import PeerError, PeerLink, PeerRefused
from .role import ACTIVE, PASSIVE
from .settings import MODULE_XML, Settings
from .shared import durable, module_xml
from .shared.module_xml import ReplicatedFile
from .shared.xml_document import InvalidXml
from .text import size

_log = logging.getLogger("swg_ha.files")

TARGET = "ha_files.target"
UNITS = Path("/run/systemd/system")
INSTALLED = Path("/etc/systemd/system", TARGET)
# The longest name of a unit is 255 letters; the hash is for what would be longer.
LONGEST_ID = 200

STALE = "FILE_STALE"
NOT_WATCHED = "FILE_NOT_WATCHED"
# What was asked for, or changed, is to be copied by then; what is copied at an interval, after three of them as well.
LATE = 60.0
LOOK = 2.0
# While nothing is amiss, it is looked so often whether the units and the target are as they should be.
SURE = 60.0
FIRST_RETRY, LONGEST_RETRY = 2.0, 60.0
HOURLY = 3600
PATIENCE = 20.0


# Pure: what the units of a list are


@dataclass(frozen=True)
class Entry:
    """A file or folder, with the id that its units and its state go by."""

    id: str
    file: ReplicatedFile

    @property
    def interval(self) -> int:
        return HOURLY if self.file.inotify or self.file.interval is None else self.file.interval


def entries(files: Iterable[ReplicatedFile]) -> dict[str, Entry]:
    """The entries of a list, by their ids."""
    found = (Entry(identify(file.name), file) for file in files)
    return {entry.id: entry for entry in found}


def identify(name: str) -> str:
    """The name as ``systemd-escape --path`` has it, or its hash where that is too long."""
    path = posixpath.normpath(name).strip("/").encode()
    escaped = "".join(_escaped(byte, first=index == 0) for index, byte in enumerate(path)) or "-"
    return escaped if len(escaped) <= LONGEST_ID else f"sha256-{hashlib.sha256(path).hexdigest()}"


def _escaped(byte: int, *, first: bool) -> str:
    letter = chr(byte)
    if letter == "/":
        return "-"
    plain = letter.isascii() and (letter.isalnum() or letter in ":_" or (letter == "." and not first))
    return letter if plain else f"\\x{byte:02x}"


def unit_texts(wanted: Mapping[str, Entry]) -> dict[str, str]:
    """{path below /run/systemd/system: text} of all units that belong to the entries alone."""
    texts: dict[str, str] = {}
    started: list[str] = []
    for id, entry in sorted(wanted.items()):
        head = f"[Unit]\nDescription=Changes of a replicated file\nPartOf={TARGET}\n"
        if entry.file.inotify:
            # The name itself might end with a backslash or a blank, which a unit cannot say.
            path = "%f" if not id.startswith("sha256-") else entry.file.name.replace("%", "%%")
            texts[f"ha_file@{id}.path"] = f"{head}\n[Path]\nPathModified={path}\nUnit=ha_changed@{id}.service\nTriggerLimitIntervalSec=0\n"
            started.append(f"ha_file@{id}.path")
        accuracy = min(max(entry.interval // 10, 1), 300)
        texts[f"ha_file@{id}.timer"] = (
            f"{head}\n[Timer]\nOnActiveSec={entry.interval}\nOnUnitActiveSec={entry.interval}\nAccuracySec={accuracy}\n"
            f"Unit=ha_copy@{id}.service\n"
        )
        started += [f"ha_file@{id}.timer", f"ha_flag@{id}.path"]
    texts[f"{TARGET}.d/entries.conf"] = "[Unit]\n" + "".join(f"Wants={unit}\n" for unit in started)
    return texts


def units_of(id: str) -> list[str]:
    """Every unit that an entry may have, those first that would start others."""
    return [f"ha_file@{id}.path", f"ha_file@{id}.timer", f"ha_tree@{id}.service", f"ha_flag@{id}.path", f"ha_copy@{id}.service"]


@dataclass(frozen=True)
class Difference:
    """What has to be written, removed, stopped and restarted so that the units are those that are wanted."""

    write: dict[str, str]
    remove: list[str]
    stop: list[str]
    restart: list[str]

    def __bool__(self) -> bool:
        return bool(self.write or self.remove)


def difference(there: Mapping[str, str], wanted: Mapping[str, Entry]) -> Difference:
    """there: {path below the folder of the units: text} of what was made before."""
    texts = unit_texts(wanted)
    write = {path: text for path, text in texts.items() if there.get(path) != text}
    gone = [path for path in there if path not in texts]
    known = {_id_of(path) for path in there} - {None}
    removed = sorted(str(id) for id in known if id not in wanted)
    stop = [unit for id in removed for unit in units_of(id)]
    # One that is watched no longer, or whose interval is another.
    stop += [path for path in gone if _id_of(path) in wanted]
    stop += [f"ha_tree@{_id_of(path)}.service" for path in gone if _id_of(path) in wanted]
    restart = [path for path in write if path in there and _id_of(path)]
    return Difference(write, gone, stop, restart)


def _id_of(path: str) -> str | None:
    return path.removeprefix("ha_file@").rpartition(".")[0] if path.startswith("ha_file@") else None


# Pure: how a copy is


def describe(entry: Entry, state: copying.Fields, waiting: float | None, watched: copying.Fields, now: float) -> dict[str, Any]:
    """An entry of the status document. waiting: for how many seconds its flag has been up."""

    def number(name: str) -> float | None:
        return copying.number(state, name) if name in state else None

    good = number("good_at")
    code, error = state.get("code", [None])[-1], state.get("error", [None])[-1]
    age = None if good is None else max(0.0, now - good)
    if code is None and error is None:
        allowed = LATE + (number("seconds") or 0)
        if waiting is not None and waiting > allowed:
            code, error = STALE, f"it changed, and has not been copied for {LATE:g} s and more since"
        elif not entry.file.inotify and waiting is None and age is not None and age > 3 * entry.interval + allowed:
            code, error = STALE, f"it is to be copied every {entry.interval} s, and was not for three times as long"
        elif watched.get("error"):
            code = NOT_WATCHED
            error = f"its changes are not seen ({watched['error'][-1]}), it is copied every minute: raise fs.inotify.max_user_watches"
    return {
        "name": entry.file.name,
        "id": entry.id,
        "inotify": entry.file.inotify,
        "interval": entry.file.interval,
        "permissions": entry.file.permissions,
        "absent": "good_absent" in state,
        "last_good": None
        if good is None or "good_absent" in state
        else datetime.fromtimestamp(good, UTC).isoformat(timespec="milliseconds"),
        "age_seconds": None if age is None else round(age, 1),
        "seconds": number("good_seconds"),
        "bytes": number("good_bytes"),
        "size": number("good_size"),
        "files": number("good_entries"),
        "failures": int(copying.number(state, "failures")),
        "left_out": state.get("left_out", []),
        "code": code,
        "error": error,
    }


def ageless(described: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Without what time alone changes."""
    return [{**one, "age_seconds": None} for one in described]


def retry_after(state: copying.Fields) -> float | None:
    """Seconds from the end of the last attempt until the next; None: it was good."""
    if "code" not in state:
        return None
    return float(min(FIRST_RETRY * 2 ** min(copying.number(state, "in_a_row") - 1, 10), LONGEST_RETRY))


# What does it


class Files:
    """Has the replication of the files run on the active server, and nowhere else. Never raises; ``problem`` says what is wrong."""

    def __init__(
        self,
        settings: Settings,
        link: PeerLink,
        changed: Callable[[], None],
        *,
        run: Path = Path(copying.RUN),
        state: Path = Path(copying.STATE),
        folder: Path = UNITS,
        installed: Path = INSTALLED,
        module: Path = MODULE_XML,
    ) -> None:
        self.problem: str | None = None
        self._peer_node = settings.peer_node
        self._links = [f"link{index}" for index, _link in enumerate(settings.links)]
        self._link = link
        self._changed = changed
        self._run, self._state, self._folder, self._installed, self._module = run, state, folder, installed, module
        self._wanted = entries(settings.files)
        self._written = self._written_at()
        self._role: str | None = None
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._sure_until = 0.0
        self._outdated = True
        # The units that a playbook has installed may be newer than what systemd knows.
        self._in_effect = False
        # In their order.
        self._to_stop: dict[str, None] = {}
        self._to_restart: dict[str, None] = {}
        # What the other server was told, None when it has to be told again.
        self._told: tuple[ReplicatedFile, ...] | None = None
        self._codes: dict[str, str] = {}
        self._described: list[dict[str, Any]] = []

    @property
    def installed(self) -> bool:
        return self._installed.exists()

    def take(self, settings: Settings) -> None:
        """A new list: its difference is made at once, here and on the other server."""
        self._wanted = entries(settings.files)
        self._written = self._written_at()
        self._told = None
        self._outdated = True
        self._wake.set()

    def _written_at(self) -> float:
        """When the list was written (Unix time); 0 where there is none."""
        try:
            return self._module.stat().st_mtime
        except OSError:
            return 0.0

    def follow(self, role: str | None) -> None:
        """The role of this server from now on; None: it is about to change, and the steps of the change see to the files."""
        if role != self._role:
            self._role = role
            self._sure_until = 0.0
            self._wake.set()

    def peer_changed(self, receives: bool) -> None:
        """The other server came or went, as one that is passive: only such a one takes copies.

        It may be a new one: it is told the list, and everything is compared with what it has.
        """
        self._told = None
        if receives and self._role == ACTIVE:
            self._flag(self._wanted)
        self._wake.set()

    async def run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._wake.wait()
            self._wake.clear()
            await self._settle()

    async def _settle(self) -> None:
        if not self.installed:
            return
        try:
            role, now = self._role, asyncio.get_running_loop().time()
            unsure = now > self._sure_until
            if self._outdated or unsure:
                # Before it begins: what changes meanwhile is one more reason.
                self._outdated = False
                await self._apply()
            if role in (ACTIVE, PASSIVE) and unsure:
                running = await units.is_active(TARGET)
                if role == ACTIVE and not running:
                    await self.start()
                elif role == PASSIVE and running:
                    await self.stop()
                self._sure_until = now + SURE
            if role == ACTIVE:
                await self._tell_peer()
            described = await asyncio.to_thread(self._look, role)
        except (units.UnitError, OSError) as error:
            self._outdated = True
            self._complain(str(error))
            return
        self._complain(None)
        changed = ageless(described) != ageless(self._described)
        self._described = described
        if changed:
            self._changed()

    def _complain(self, text: str | None) -> None:
        if text != self.problem:
            self.problem = text
            if text:
                _log.error("the files are not replicated as they should be: %s", text)
            self._changed()

    # The units

    async def _apply(self) -> None:
        """Make the units those of the list. Raises UnitError, OSError."""
        async with self._lock:
            changes = await asyncio.to_thread(self._write_units)
            # Until all of it has gone well, as the next difference does not know of it.
            self._to_stop |= dict.fromkeys(changes.stop)
            self._to_restart |= dict.fromkeys(changes.restart)
            self._in_effect = self._in_effect and not changes
            if self._in_effect:
                return
            for unit in self._to_stop:
                with suppress(units.UnitError):
                    await units.stop(unit, PATIENCE)
            await asyncio.to_thread(self._forget_others)
            await units.daemon_reload()
            if await units.is_active(TARGET):
                await units.start(TARGET, PATIENCE)
                for unit in self._to_restart:
                    await units.restart(unit, PATIENCE)
                self._flag(self._wanted)
            self._to_stop.clear()
            self._to_restart.clear()
            self._in_effect = True

    def _write_units(self) -> Difference:
        for folder in (self._run, self._state):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for id, entry in self._wanted.items():
            fields = {"id": [id], "name": [entry.file.name], "inotify": [str(int(entry.file.inotify))], "link": self._links[::-1]}
            if copying.read(str(self._run / f"{id}.entry")) != fields:
                copying.write(str(self._run / f"{id}.entry"), fields)
        there: dict[str, str] = {}
        for found in (*self._folder.glob("ha_file@*"), *self._folder.glob(f"{TARGET}.d/entries.conf")):
            there[str(found.relative_to(self._folder))] = found.read_text()
        changes = difference(there, self._wanted)
        for path, text in changes.write.items():
            (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self._folder / path).write_text(text)
        for path in changes.remove:
            (self._folder / path).unlink(missing_ok=True)
        return changes

    def _forget_others(self) -> None:
        """What is remembered of entries that are no more."""
        for found in self._state.iterdir():
            if found.name.removesuffix(".new") not in self._wanted:
                found.unlink(missing_ok=True)
        for found in self._run.iterdir():
            if found.suffix in (".entry", ".changed", ".accept", ".progress", ".tree") and found.stem not in self._wanted:
                found.unlink(missing_ok=True)

    async def start(self) -> int:
        """Replicate from this server, beginning with a comparison of everything. How many entries; raises UnitError, OSError."""
        await self._apply()
        self._flag(self._wanted)
        await units.start(TARGET, PATIENCE)
        return len(self._wanted)

    async def stop(self) -> bool:
        """Replicate no longer. Whether it did; raises UnitError."""
        if not await units.is_active(TARGET):
            return False
        await units.stop(TARGET, PATIENCE)
        return True

    async def drain(self, seconds: float) -> bool:
        """Wait until what has changed so far is copied. Whether it is."""
        until = asyncio.get_running_loop().time() + seconds
        while not (idle := await asyncio.to_thread(self._idle)) and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.05)
        return idle

    def _idle(self) -> bool:
        waiting = any((self._run / f"{id}.changed").exists() for id in self._wanted)
        return not waiting and not copying.busy(str(self._run))

    def _flag(self, ids: Iterable[str]) -> None:
        for id in ids:
            with suppress(OSError):
                copying.touch(str(self._run / f"{id}.changed"))

    # How the copies are

    def _look(self, role: str | None) -> list[dict[str, Any]]:
        """In a thread: read how every copy is, and have those tried again that failed."""
        now = time.time()
        described = []
        for id, entry in self._wanted.items():
            state = copying.read(str(self._state / id)) if role == ACTIVE else {}
            waiting = None
            with suppress(OSError):
                waiting = now - os.stat(self._run / f"{id}.changed").st_mtime
            one = describe(entry, state, waiting if role == ACTIVE else None, copying.read(str(self._run / f"{id}.tree")), now)
            after = retry_after(state)
            if role == ACTIVE and after is not None and waiting is None and now - copying.number(state, "ended") > after:
                self._flag([id])
            self._tell_of(one)
            described.append(one)
        return described

    def _tell_of(self, one: Mapping[str, Any]) -> None:
        name, code = str(one["name"]), one["code"]
        if code == self._codes.get(name):
            return
        if code:
            self._codes[name] = code
            tell(Event.FILE_NOT_COPIED, name=name, peer=self._peer_node, code=code, reason=one["error"])
        elif one["last_good"] or one["absent"]:
            del self._codes[name]
            tell(Event.FILE_COPIED_AGAIN, name=name, peer=self._peer_node)

    def document(self) -> list[dict[str, Any]]:
        """For the status document, in the order of the list."""
        return self._described

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.problem:
            yield copying.FAILED, f"the files are not replicated as they should be: {self.problem}"
        yield from ((one["code"], f"{one['name']}: {one['error']}") for one in self._described if one["code"])

    # What the other server is told, and tells

    async def _tell_peer(self) -> None:
        files = tuple(entry.file for entry in self._wanted.values())
        if not self._link.connected or self._told == files:
            return
        try:
            await self._link.request("files", {"files": [asdict(file) for file in files], "written": self._written}, 5)
        except PeerError as error:
            _log.warning("%s was not told which files are replicated: %s", self._peer_node, error)
            if error.code == "REFUSED":
                self._told = files
        else:
            self._told = files

    async def listen(self, body: Mapping[str, Any]) -> bool:
        """Put the list that the active server told into HA/module.xml, unless what is there is newer. Whether it is another one; raises PeerRefused.

        A playbook writes both servers' files before it has the active one's ha_manager read its own.
        """
        if self._role == ACTIVE:
            raise PeerRefused("ACTIVE", "this server is active: its own list is the one that counts")
        try:
            return await asyncio.to_thread(self._put_down, body["files"], float(body["written"]))
        except (InvalidXml, OSError, TimeoutError, TypeError, KeyError, ValueError) as error:
            raise PeerRefused("INVALID", f"{self._module}: {' '.join(str(error).split())}") from error

    def _put_down(self, files: object, written: float) -> bool:
        if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
            raise ValueError("the files to replicate are no list of objects")
        with durable.locked(str(self._module.parent)):
            before = self._module.read_bytes()
            if [asdict(file) for file in module_xml.parse(before).files_to_replicate] == files:
                return False
            if written < self._written_at():
                raise PeerRefused("NEWER", f"{self._module} here was written later, and lists other files: 'enable_ha' makes both alike")
            after = module_xml.edit(before, {module_xml.FILES: files})
            durable.replace(str(self._module), after)
        return True

    # On demand

    async def replicate(self, name: str | None, accept: bool, progress: Callable[[str], None]) -> dict[str, Any]:
        """Copy one entry now, or all, and wait until it is done. Raises Refused."""
        if not self.installed:
            raise Refused("NOT_INSTALLED", "no files are replicated here: run the playbook swg.ha.enable_ha")
        if self._role != ACTIVE:
            raise Refused("PASSIVE", f"the active server replicates, and this one is not: run it on {self._peer_node}")
        chosen = [entry for entry in self._wanted.values() if name in (None, entry.file.name)]
        if not chosen:
            known = ", ".join(entry.file.name for entry in self._wanted.values())
            raise Refused("UNKNOWN", f"{name} is not in the list of files to replicate; there are: {known or 'none'}")
        since = time.time()
        for entry in chosen:
            if accept:
                await asyncio.to_thread(copying.touch, str(self._accepted(entry)))
        self._flag(entry.id for entry in chosen)
        if not await units.is_active(TARGET):
            await units.start(TARGET, PATIENCE)
        outcomes = await asyncio.gather(*(self._copied(entry, since, progress) for entry in chosen))
        failed = [f"{entry.file.name}: {outcome['error']}" for entry, outcome in zip(chosen, outcomes, strict=True) if outcome["code"]]
        self._wake.set()
        if failed:
            raise Refused("FAILED", "; ".join(failed))
        return {"files": outcomes}

    def _accepted(self, entry: Entry) -> Path:
        """There from when an operator accepts what is missing until a copy begins that goes by it."""
        return self._run / f"{entry.id}.accept"

    async def _copied(self, entry: Entry, since: float, progress: Callable[[str], None]) -> dict[str, Any]:
        """Wait for the end of a copy that has begun since then."""
        shown = ""
        while True:
            if self._role == PASSIVE:
                raise Refused("PASSIVE", "this server is passive by now: it copies nothing any more")
            state = await asyncio.to_thread(copying.read, str(self._state / entry.id))
            # What is accepted is used up by the copy that knows of it: one that had begun before is no answer.
            if copying.number(state, "attempt") >= since and not self._accepted(entry).exists():
                one = describe(entry, state, None, {}, time.time())
                if one["code"]:
                    progress(f"{entry.file.name}: {one['error']}")
                elif one["absent"]:
                    progress(f"{entry.file.name}: it is not there, and never was")
                else:
                    progress(f"{entry.file.name}: {size(one['bytes'] or 0)} in {one['seconds']:.1f} s")
                return one
            with suppress(OSError):
                line = (self._run / f"{entry.id}.progress").read_text().strip()
                if line and line != shown:
                    shown = line
                    progress(f"{entry.file.name}: {' '.join(line.split()[:4])}")
            await asyncio.sleep(0.2)
