# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Put what is staged into its places, so that whoever looks, also after a power cut, sees the old or the new, and never a half.

First everything new is written beside its place under a temporary name, and what it replaces gets a second name below the folder
``replaced``; the disk is waited for; then the names change, and the disk is waited for again. Cut off anywhere, it is carried on by
running it again: what is done already differs no more, and temporary names are always the same.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from . import logins
from .shared import durable
from .shared.durable import exchange, sync_file_system
from .shared.module_xml import ReplicatedFile
from .staging import (
    FILE,
    FOLDER,
    IN_FOLDER,
    LINK,
    TO_READ,
    Change,
    Comparison,
    Folder,
    Item,
    LeftOut,
    Owner,
    Reader,
    below,
    inner,
    shown,
    temporary,
    unchanged,
    way,
)

REFUSED, LEFT_OUT = "STAGED_FILE_REFUSED", "STAGED_FILE_LEFT_OUT"
# So many files are synced one by one, which does not wait for what others write to the same disk.
FEW = 32
# Entries that need no more than this are in place before those that need more are begun.
SMALL = 32 << 20
CHUNK = 8 << 20
NAMED = 20
GUARDED = {path: path for path in logins.GUARDED}
_NO_RANGES = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)


class Stopped(Exception):
    """The work is not wanted any more."""


@dataclass
class Outcome:
    """What was done: numbers of names, and for people the entries that nothing was staged for, and what is wrong."""

    installed: int = 0
    removed: int = 0
    nothing: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def problems(self) -> list[tuple[str, str]]:
        """At most NAMED of a kind, and how many more there are."""
        return [*_some(REFUSED, self.refused), *_some(LEFT_OUT, self.left_out)]

    def text(self) -> str:
        """What happened, in a sentence or some."""
        done = f"{self.installed} installed, {self.removed} removed" if self.installed or self.removed else "everything is in its place"
        parts = [done]
        if self.nothing:
            parts.append(f"nothing is staged for {', '.join(self.nothing)}")
        parts += [text for _code, text in self.problems()]
        return "; ".join(parts)


def _some(code: str, texts: list[str]) -> Iterator[tuple[str, str]]:
    yield from ((code, text) for text in texts[:NAMED])
    if len(texts) > NAMED:
        yield code, f"and {len(texts) - NAMED} more"


class Disk:
    """Waits for the disk: for each file where there are few, for whole file systems otherwise."""

    def __init__(self, few: bool) -> None:
        self._few = few
        self._file_systems: dict[int, int] = {}
        self._folders: dict[tuple[int, int], int] = {}

    def wrote(self, file: int) -> None:
        """A file is complete."""
        if self._few:
            os.fsync(file)

    def touched(self, folder: int) -> None:
        """Names in a folder have changed."""
        found = os.fstat(folder)
        known, key = (self._folders, (found.st_dev, found.st_ino)) if self._few else (self._file_systems, found.st_dev)
        if key not in known:
            known[key] = os.dup(folder)  # type: ignore[index]

    def wait(self) -> None:
        """All of it is on the disk when this returns. Raises OSError."""
        for folder in self._folders.values():
            os.fsync(folder)
        for folder in self._file_systems.values():
            sync_file_system(folder)

    def close(self) -> None:
        for descriptor in (*self._folders.values(), *self._file_systems.values()):
            os.close(descriptor)


class Builder:
    """Writes copies under names that do not exist yet. contents: what of a folder is to be copied, by its names below the entry."""

    def __init__(
        self, contents: Callable[[int, tuple[str, ...]], Iterable[tuple[str, Item | LeftOut]]], disk: Disk, stop: threading.Event
    ) -> None:
        self._contents = contents
        self._disk = disk
        self._stop = stop

    def build(
        self, source: int, parts: tuple[str, ...], item: Item, folder: int, new: str, name: str | None = None, like: int | None = None
    ) -> None:
        """Copy the last name of ``parts`` (or ``name``) in one folder to ``new`` in another. Raises OSError, LeftOut, Stopped.

        like: a folder in which a file that is alike may have the last name of ``parts``: it gets a second name instead of a copy.
        """
        name = parts[-1] if name is None else name
        if self._stop.is_set():
            raise Stopped
        if item.kind == FILE:
            if like is None or not _linked(like, parts[-1], item, folder, new):
                self._file(source, name, item, folder, new)
        elif item.kind == LINK:
            os.symlink(item.target, new, dir_fd=folder)
            os.chown(new, item.uid, item.gid, dir_fd=folder, follow_symlinks=False)
        elif item.kind == FOLDER:
            os.mkdir(new, 0o700, dir_fd=folder)
            with inner(source, name) as from_folder, inner(folder, new) as to_folder, _counterpart(like, parts[-1]) as alike:
                for each, found in list(self._contents(from_folder, parts)):
                    if isinstance(found, Item):
                        self.build(from_folder, (*parts, each), found, to_folder, each, like=alike)
                own(to_folder, item)
                self._disk.touched(to_folder)

    def _file(self, source: int, name: str, item: Item, folder: int, new: str) -> None:
        original = os.open(name, TO_READ, dir_fd=source)
        try:
            if not unchanged(original, item):
                raise LeftOut("it changed while it was installed")
            copy = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
            try:
                if self._send(original, copy) != item.size or not unchanged(original, item):
                    raise LeftOut("it changed while it was installed")
                own(copy, item)
                os.utime(copy, ns=(item.mtime, item.mtime))
                self._disk.wrote(copy)
            finally:
                os.close(copy)
        finally:
            os.close(original)

    def _send(self, original: int, copy: int) -> int:
        """Copy the content; how many bytes it has. Where the file system can share it (XFS, Btrfs), a large file takes no time."""
        done, share = 0, True
        while not self._stop.is_set():
            try:
                sent = os.copy_file_range(original, copy, CHUNK) if share else os.sendfile(copy, original, None, CHUNK)
            except OSError as error:
                if not share or error.errno not in _NO_RANGES:
                    raise
                share = False
                continue
            if sent == 0 and not share:
                return done
            # Some file systems say that there is nothing to share, where there is something to copy.
            share = share and sent > 0
            done += sent
        raise Stopped


@contextmanager
def _counterpart(folder: int | None, name: str) -> Iterator[int | None]:
    """The folder of this name in another one, if there is one."""
    try:
        found = None if folder is None else inner(folder, name)
    except OSError:
        found = None
    if found is None:
        yield None
        return
    with found as descriptor:
        yield descriptor


def _linked(like: int, name: str, item: Item, folder: int, new: str) -> bool:
    try:
        if Reader().item(like, name) != item:
            return False
        os.link(name, new, src_dir_fd=like, dst_dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def own(descriptor: int, item: Item) -> None:
    """Have an open file or folder belong to whom an item says, with its mode."""
    os.fchown(descriptor, item.uid, item.gid)
    # After it, as a new owner takes the set-id bits away.
    os.fchmod(descriptor, item.mode)


def discard(folder: int, name: str) -> None:
    """Remove whatever has this name, if anything has; no link is followed."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=folder)


def owner_of(permissions: str) -> Owner:
    """The numbers of ``owner:group`` here. Raises LeftOut for a name that there is none of."""
    owner, _colon, group = permissions.partition(":")
    try:
        uid = int(owner) if owner.isdigit() else pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise LeftOut(_nobody("account", owner, permissions)) from None
    try:
        return Owner(uid, int(group) if group.isdigit() else grp.getgrnam(group).gr_gid)
    except KeyError:
        raise LeftOut(_nobody("group", group, permissions)) from None


def _nobody(kind: str, name: str, permissions: str) -> str:
    return f"its permissions are {permissions!r}, and there is no {kind} {name!r} here: create it, or name another in HA/module.xml"


class Entry:
    """One file or folder that is replicated, with open folders on both sides, until it is closed."""

    def __init__(self, comparison: Comparison, staged: int | None, name: str) -> None:
        self.comparison = comparison
        self.changes: list[Change] = []
        # Temporary names that wait for their turn.
        self.made: dict[tuple[str, ...], Change] = {}
        self.staged = staged
        self.name = name
        self.place: int | None = None
        self.place_name = name
        self._open: dict[str, tuple[tuple[str, ...], int]] = {}

    @property
    def path(self) -> str:
        return self.comparison.place

    @property
    def size(self) -> int:
        return sum(change.size for change in self.changes)

    def find(self, *, whole: bool, make: bool = False) -> None:
        """Open the folder that its place is in, if it is there. Raises OSError."""
        if self.place is None and (found := way(self.path, whole=whole, make=make)) is not None:
            self.place, self.place_name = found

    def source(self, change: Change) -> tuple[int, str]:
        """The open folder in the stage, and the name in it, that a change is made from. Raises OSError."""
        assert self.staged is not None
        parts = (self.name, *change.parts[1:])
        return self._at("stage", self.staged, parts[:-1]), parts[-1]

    def target(self, change: Change) -> int:
        """The open folder in which a change takes place. Raises OSError."""
        assert self.place is not None
        return self._at("place", self.place, change.parts[:-1])

    def _at(self, side: str, start: int, parts: tuple[str, ...]) -> int:
        """Changes come folder by folder: the last one stays open."""
        if side in self._open:
            known, descriptor = self._open[side]
            if known == parts:
                return descriptor
            del self._open[side]
            os.close(descriptor)
        self._open[side] = parts, below(start, parts)
        return self._open[side][1]

    def undo(self) -> None:
        """Take back what was made and did not get its turn. Raises OSError."""
        while self.made:
            _parts, change = self.made.popitem()
            discard(self.target(change), temporary(change.parts[-1]))

    def close(self) -> None:
        for descriptor in (self.staged, self.place, *(descriptor for _parts, descriptor in self._open.values())):
            if descriptor is not None:
                os.close(descriptor)


class Installer:
    """Installs once. replaced: the folder for what was there before. guarded: which path is to be judged as which of logins.GUARDED."""

    def __init__(self, stage: str, replaced: Path, stop: threading.Event, guarded: Mapping[str, str] = GUARDED) -> None:
        self._stage_path = stage
        replaced.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._replaced = replaced
        self._new = replaced.with_name(f"{replaced.name}.new")
        self._old = replaced.with_name(f"{replaced.name}.old")
        self._stop = stop
        self._guarded = guarded
        self._present = {kind: _read(path) for path, kind in guarded.items()}
        self._settled: set[str] = set()
        self.outcome = Outcome()

    def install(self, files: Sequence[ReplicatedFile]) -> Outcome:
        """Install what is staged of these entries. Raises OSError where nothing can be done at all, Stopped."""
        found = way(self._stage_path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._stage_path)
        above, name = found
        try:
            stage = os.open(name, IN_FOLDER, dir_fd=above)
        finally:
            os.close(above)
        try:
            # The accounts first: what else is staged may belong to new ones.
            order = list(self._guarded)
            accounts = sorted((file for file in files if file.name in self._guarded), key=lambda file: order.index(file.name))
            self._install(stage, accounts)
            self._install(stage, [file for file in files if file.name not in self._guarded])
        finally:
            os.close(stage)
        self._finish()
        return self.outcome

    def _install(self, stage: int, files: Sequence[ReplicatedFile]) -> None:
        entries: list[Entry] = []
        try:
            for file in files:
                if self._stop.is_set():
                    raise Stopped
                try:
                    entries.append(self._look(stage, file))
                except LeftOut as why:
                    self._refuse(file.name, str(why))
                except OSError as error:
                    self._refuse(file.name, _why(error))
            for wave in ([one for one in entries if one.size <= SMALL], [one for one in entries if one.size > SMALL]):
                self._carry_out([entry for entry in wave if entry.changes])
        finally:
            for entry in entries:
                entry.close()

    def _look(self, stage: int, file: ReplicatedFile) -> Entry:
        """Compare one entry. Raises LeftOut, OSError."""
        owner = owner_of(file.permissions)
        *folders, name = file.name.strip("/").split("/")
        reader = Reader(owner, by=os.fstat(stage).st_uid)
        comparison = Comparison(file.name, reader, never_gone=self._guarded)
        try:
            staged = below(stage, tuple(folders))
        except FileNotFoundError:
            staged = None
        entry = Entry(comparison, staged, name)
        try:
            entry.find(whole=staged is not None and _is_folder(reader, staged, name))
            if not comparison.compare(staged, entry.place, name, entry.place_name):
                self.outcome.nothing.append(shown(file.name))
            self.outcome.left_out += [
                f"{shown(path)} was left out, and its place stays as it is: {why}" for path, why in comparison.left_out
            ]
            entry.changes = comparison.changes
        except BaseException:
            entry.close()
            raise
        return entry

    def _carry_out(self, entries: list[Entry]) -> None:
        """Both phases, for all these entries together."""
        if not entries:
            return
        self._settled.clear()
        disk = Disk(few=sum(entry.comparison.copies + len(entry.changes) for entry in entries) <= FEW)
        try:
            for entry in entries:
                self._prepare(entry, disk)
            disk.wait()
            for entry in entries:
                self._put(entry, disk)
            disk.wait()
        finally:
            disk.close()
            for entry in entries:
                with suppress(OSError):
                    entry.undo()

    def _prepare(self, entry: Entry, disk: Disk) -> None:
        """Write everything new of an entry beside its place. One that cannot be written as a whole is refused as a whole."""
        builder = Builder(entry.comparison.acceptable, disk, self._stop)
        ready = []
        try:
            entry.find(whole=False, make=True)
            for change in entry.changes:
                try:
                    self._prepare_one(entry, change, builder, disk)
                except (LeftOut, logins.Refused) as why:
                    discard(entry.target(change), temporary(change.parts[-1]))
                    self._refuse(entry.comparison.path(change.parts), str(why))
                else:
                    ready.append(change)
        except OSError as error:
            self._refuse(entry.path, _why(error))
            ready = []
            with suppress(OSError):
                entry.undo()
        entry.changes = ready

    def _prepare_one(self, entry: Entry, change: Change, builder: Builder, disk: Disk) -> None:
        item, before = change.item, change.before
        if item is None or _same_folder(change):
            return
        path, new = entry.comparison.path(change.parts), temporary(change.parts[-1])
        target = entry.target(change)
        discard(target, new)
        source, name = entry.source(change)
        entry.made[change.parts] = change
        builder.build(source, change.parts, item, target, new, name)
        if path in self._guarded:
            self._judge(self._guarded[path], target, new, item)
        if before is not None and before.kind != FOLDER:
            self._keep(target, change.parts[-1], before, path, disk)
        disk.touched(target)

    def _judge(self, kind: str, folder: int, new: str, item: Item) -> None:
        """Raises logins.Refused."""
        if item.kind != FILE:
            raise logins.Refused(f"it is a {item.kind}")
        if item.size > logins.LARGEST:
            raise logins.Refused(f"it has {item.size} bytes")
        with open(os.open(new, TO_READ, dir_fd=folder), "rb") as file:
            content = file.read()
        logins.check(kind, content, self._present)
        self._present[kind] = content

    def _put(self, entry: Entry, disk: Disk) -> None:
        """Give everything new its name, and take away what is to go."""
        for change in entry.changes:
            if self._stop.is_set():
                raise Stopped
            path = entry.comparison.path(change.parts)
            try:
                target = entry.target(change)
                self._put_one(entry, target, change, path, disk)
                disk.touched(target)
            except OSError as error:
                self._refuse(path, _why(error))
            else:
                if not change.doomed:
                    self.outcome.installed += change.item is not None
                    self.outcome.removed += change.item is None

    def _put_one(self, entry: Entry, target: int, change: Change, path: str, disk: Disk) -> None:
        name, item, before = change.parts[-1], change.item, change.before
        new = temporary(name)
        if item is None:
            if change.doomed:
                discard(target, name)
            else:
                self._move_aside(target, name, os.path.join(os.path.dirname(path), change.called or name), disk)
        elif _same_folder(change):
            with inner(target, name) as folder:
                own(folder, item)
                disk.touched(folder)
        elif before is None or FOLDER not in (item.kind, before.kind):
            os.rename(new, name, src_dir_fd=target, dst_dir_fd=target)
            del entry.made[change.parts]
        else:
            if not exchange(Path(f"/proc/self/fd/{target}/{new}"), Path(f"/proc/self/fd/{target}/{name}")):
                raise OSError(errno.EOPNOTSUPP, "the file system cannot exchange a file and a folder in one step")
            # What has the temporary name now is what was there: it must not be taken for something half.
            del entry.made[change.parts]
            if before.kind == FOLDER:
                self._move_aside(target, new, path, disk)
            else:
                discard(target, new)

    # What was there before

    def _keep(self, folder: int, name: str, before: Item, path: str, disk: Disk) -> None:
        """Have what is in a place stay below ``replaced`` when it is replaced."""
        there = self._free(path, os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino)
        if there is None:
            return
        try:
            os.link(name, there, src_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._copy(folder, name, before, there, disk)
        self._touched(there, disk)

    def _move_aside(self, folder: int, name: str, path: str, disk: Disk) -> None:
        """Take something away from its place, to below ``replaced``."""
        there = self._free(path, None)
        assert there is not None
        try:
            os.rename(name, there, src_dir_fd=folder)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(folder, name, Reader().item(folder, name), there, disk)
            with Folder(os.open(self._new, IN_FOLDER)) as new:
                sync_file_system(new)
            discard(folder, name)
        self._touched(there, disk)

    def _copy(self, folder: int, name: str, item: Item, there: str, disk: Disk) -> None:
        """Where there is another file system: complete under its name, or not there."""
        here = Reader()
        with Folder(os.open(os.path.dirname(there), IN_FOLDER)) as into:
            new = temporary(os.path.basename(there))
            discard(into, new)
            Builder(lambda inside, _parts: here.contents(inside), disk, self._stop).build(folder, (name,), item, into, new)
            os.rename(new, os.path.basename(there), src_dir_fd=into, dst_dir_fd=into)

    def _free(self, path: str, inode: int | None) -> str | None:
        """Where something of this path is to be kept; None where it is kept already, by a run that was cut off."""
        self._new.mkdir(0o700, exist_ok=True)
        first = f"{self._new}{path}"
        os.makedirs(os.path.dirname(first), 0o700, exist_ok=True)
        there, number = first, 0
        while True:
            try:
                found = os.lstat(there)
            except FileNotFoundError:
                return there
            if found.st_ino == inode:
                return None
            number += 1
            there = f"{first}~{number}"

    def _touched(self, there: str, disk: Disk) -> None:
        folder = os.path.dirname(there)
        while folder not in self._settled:
            self._settled.add(folder)
            with Folder(os.open(folder, IN_FOLDER)) as descriptor:
                disk.touched(descriptor)
            if folder == str(self._new.parent):
                return
            folder = os.path.dirname(folder)

    def _finish(self) -> None:
        """What this installation replaced takes the place of what the one before did."""
        if self._new.is_dir():
            if self._old.exists():
                shutil.rmtree(self._old)
            if self._replaced.exists():
                os.rename(self._replaced, self._old)
            os.rename(self._new, self._replaced)
            durable.sync(str(self._new.parent))
        if self._old.exists():
            shutil.rmtree(self._old)

    def _refuse(self, path: str, why: str) -> None:
        self.outcome.refused.append(f"{shown(path)} was not installed, and its place stays as it is: {why}")


def _same_folder(change: Change) -> bool:
    """A folder that is there, and is to have another mode or owner."""
    return change.item is not None and change.before is not None and change.item.kind == change.before.kind == FOLDER


def _is_folder(reader: Reader, staged: int, name: str) -> bool:
    try:
        return reader.item(staged, name).kind == FOLDER
    except (FileNotFoundError, LeftOut):
        return False


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _why(error: OSError) -> str:
    name = f"{shown(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
    return f"{name}{error.strerror or error}"
