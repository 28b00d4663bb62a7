# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What is staged, what is in its place, and where the two differ. Nothing is changed here: that is for ``installing``.

The stage is written by an account that may do nothing else, with ``rsync --fake-super``: what a file was at the other server is
in its attribute ``user.rsync.%stat``, and a symbolic link is a file that holds where it leads. So that this account cannot make
root read or write elsewhere, every folder is opened from the one above it, and no link is followed: neither in the stage, nor in
a place, but for links of root's own in the way to it. Names are bytes; Python's surrogates stand for those that are no UTF-8.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

ATTRIBUTE = "user.rsync.%stat"
FILE, FOLDER, LINK, OTHER = "file", "folder", "link", "other"
# An open folder each: nobody has more, and whoever makes more is not to use up all descriptors.
DEEPEST = 100
LINKS_FOLLOWED = 40
IN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_STAT = re.compile(rb"([0-7]{1,7}) (\d+),(\d+) (\d+):(\d+)")
_TEMPORARY = re.compile(r"\.swg_ha\.[0-9a-f]{16}\.new")
# What rsync has not finished, and what a copy that was cut off has left.
_UNFINISHED = re.compile(r"\..+\.[A-Za-z0-9]{6}", re.DOTALL)
_OF_RSYNC = (".~tmp~", ".rsync-partial")
_MUNGED = "/rsyncd-munged/"


@dataclass(slots=True)
class Item:
    """What is, or is to be, under a name. Two that are equal need no work. identity and mtime of the file that says so."""

    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    target: str = ""
    identity: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Change:
    """One name whose place differs. parts: below the folder of the entry, its own name first. item: what is to be there, or nothing.

    size: the bytes that are to be written for it. doomed: a left-over of this program, not to be kept. called: the name to keep it by.
    """

    parts: tuple[str, ...]
    item: Item | None
    before: Item | None
    size: int = 0
    doomed: bool = False
    called: str = ""


@dataclass(frozen=True)
class Owner:
    uid: int
    gid: int


class LeftOut(Exception):
    """Something that is staged and not to be installed; the text says why."""


class Folder:
    """An open folder, for a ``with``."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __enter__(self) -> int:
        return self.descriptor

    def __exit__(self, *exception: object) -> None:
        os.close(self.descriptor)


def inner(folder: int, name: str) -> Folder:
    """Open a folder within a folder; a link is none. Raises OSError."""
    return Folder(os.open(name, IN_FOLDER, dir_fd=folder))


def below(folder: int, parts: tuple[str, ...]) -> int:
    """A descriptor of the folder that lies below another one by these names. Raises OSError."""
    descriptor = os.dup(folder)
    try:
        for name in parts:
            following = os.open(name, IN_FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = following
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def way(path: str, *, whole: bool = False, make: bool = False) -> tuple[int, str] | None:
    """(descriptor of the folder, name in it) of an absolute path, by links of root's alone; None where a folder is missing.

    whole: follow a link of the last name as well. make: make the folders that are missing, root's, for all to read. Raises OSError.
    """
    todo = [part for part in reversed(path.split("/")) if part]
    folder = os.open("/", IN_FOLDER)
    followed = 0
    try:
        while todo:
            name = todo.pop()
            found = _status(folder, name)
            if found is not None and stat.S_ISLNK(found.st_mode) and (todo or whole):
                followed += 1
                if found.st_uid != 0 or followed > LINKS_FOLLOWED:
                    raise OSError(errno.ELOOP, f"{name!r} on the way to it is a link that is not root's, or leads in a circle")
                target = os.readlink(name, dir_fd=folder)
                if target.startswith("/"):
                    os.close(folder)
                    folder = os.open("/", IN_FOLDER)
                todo += [part for part in reversed(target.split("/")) if part and part != "."]
                continue
            if not todo and name != "..":
                return os.dup(folder), name
            if found is None:
                if not make:
                    return None
                make_folder(folder, name)
            following = os.open(name, IN_FOLDER, dir_fd=folder)
            os.close(folder)
            folder = following
        raise OSError(errno.EINVAL, "it leads to no name")
    finally:
        os.close(folder)


def make_folder(folder: int, name: str) -> None:
    """Make a folder, root's, for all to read, on the disk."""
    os.mkdir(name, 0o700, dir_fd=folder)
    with inner(folder, name) as made:
        os.fchmod(made, 0o755)
        os.fsync(made)
    os.fsync(folder)


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def temporary(name: str) -> str:
    """The name of what is to take the place of another name; the same at each run, so that it is found again."""
    return f".swg_ha.{blake2b(os.fsencode(name), digest_size=8).hexdigest()}.new"


def is_temporary(name: str) -> bool:
    return _TEMPORARY.fullmatch(name) is not None


def shown(path: str) -> str:
    """A path for people: what cannot be printed, or is no UTF-8, as Python writes it."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def stays_inside(target: str, place: str, parts: tuple[str, ...]) -> bool:
    """Whether a link of the name ``parts`` leads to something within its entry, which is at the path ``place``.

    Names only go down after the first: where another link of the entry lies on the way, going up again would lead anywhere.
    """
    if target.startswith("/"):
        if target != place and not target.startswith(f"{place}/"):
            return False
        way_on = target[len(place) :].split("/")
    else:
        way_on = target.split("/")
        ups = 0
        while way_on and way_on[0] in ("..", ".", ""):
            ups += way_on.pop(0) == ".."
        # A link in the folder of the entry itself has the length 2.
        if ups > len(parts) - 2 or len(parts) < 2:
            return False
    return ".." not in way_on


class Reader:
    """Reads one side: the stage of rsync, where ``owner`` is who everything is to belong to, or what is what it is (None)."""

    def __init__(self, owner: Owner | None = None, by: int | None = None) -> None:
        self.owner = owner
        self.by = by

    def item(self, folder: int, name: str, found: os.stat_result | None = None) -> Item:
        """What is under a name. Raises LeftOut for what is not to be installed, OSError."""
        found = os.stat(name, dir_fd=folder, follow_symlinks=False) if found is None else found
        return self._plain(folder, name, found) if self.owner is None else self._staged(folder, name, found, self.owner)

    def _plain(self, folder: int, name: str, found: os.stat_result) -> Item:
        kind, mode = _kind(found.st_mode), stat.S_IMODE(found.st_mode)
        if kind == FILE:
            return Item(kind, mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns, "", _identity(found))
        if kind == LINK:
            return Item(kind, 0, found.st_uid, found.st_gid, target=os.readlink(name, dir_fd=folder))
        return Item(kind, mode, found.st_uid, found.st_gid)

    def _staged(self, folder: int, name: str, found: os.stat_result, owner: Owner) -> Item:
        real = _kind(found.st_mode)
        if real == LINK:
            raise LeftOut("it is a link that rsync did not write")
        if real == OTHER:
            raise LeftOut("it is a socket, a pipe or a device")
        if found.st_nlink > 1 and real == FILE and self.by not in (None, found.st_uid):
            raise LeftOut("it is another name of somebody else's file")
        try:
            said = os.getxattr(f"/proc/self/fd/{folder}/{name}", ATTRIBUTE, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
            # As it is at the other server. The set-id bits are never so: rsync takes them away here, and puts them into the attribute.
            kind, mode = real, stat.S_IMODE(found.st_mode) & 0o777
        else:
            match = _STAT.fullmatch(said)
            if match is None:
                raise LeftOut(f"its attribute {ATTRIBUTE} is {said[:40]!r}")
            kind, mode = _kind(int(match[1], 8)), stat.S_IMODE(int(match[1], 8))
        if kind == OTHER:
            return Item(OTHER)
        if (kind == FOLDER) != (real == FOLDER):
            raise LeftOut(f"it is a {real}, and its attribute {ATTRIBUTE} says {kind}")
        if kind == LINK:
            return Item(LINK, 0, owner.uid, owner.gid, target=_link_target(folder, name, found))
        if kind == FOLDER:
            return Item(FOLDER, mode, owner.uid, owner.gid)
        return Item(FILE, mode, owner.uid, owner.gid, found.st_size, found.st_mtime_ns, "", _identity(found))

    def contents(self, folder: int) -> Iterator[tuple[str, Item | LeftOut]]:
        """What is in a folder, without what is never finished."""
        with os.scandir(folder) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if self.owner is not None and entry.name[0] == "." and self._unfinished(folder, entry.name, found):
                    continue
                try:
                    yield entry.name, self.item(folder, entry.name, found)
                except LeftOut as why:
                    yield entry.name, why

    def _unfinished(self, folder: int, name: str, found: os.stat_result) -> bool:
        if is_temporary(name) or name in _OF_RSYNC:
            return True
        if not stat.S_ISREG(found.st_mode) or not _UNFINISHED.fullmatch(name):
            return False
        try:
            os.getxattr(f"/proc/self/fd/{folder}/{name}", ATTRIBUTE, follow_symlinks=False)
        except OSError:
            return stat.S_IMODE(found.st_mode) == 0o600
        return False


def _kind(mode: int) -> str:
    return FILE if stat.S_ISREG(mode) else FOLDER if stat.S_ISDIR(mode) else LINK if stat.S_ISLNK(mode) else OTHER


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def unchanged(descriptor: int, item: Item) -> bool:
    """Whether an open file is the one that an item was made of, as it was then."""
    found = os.fstat(descriptor)
    return stat.S_ISREG(found.st_mode) and _identity(found) == item.identity


def _link_target(folder: int, name: str, found: os.stat_result) -> str:
    with open(os.open(name, TO_READ, dir_fd=folder), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise LeftOut("it changed while it was read")
        target = os.fsdecode(file.read(4096)).removeprefix(_MUNGED)
    if not target or "\0" in target or found.st_size > 4095:
        raise LeftOut("it is a link that leads nowhere")
    return target


class Comparison:
    """Where the places of one entry differ from its stage. ``changes`` in an order in which a folder comes before what is in it.

    left_out: (path, why). A name whose stage is left out stays as it is in its place; and what is never staged (sockets, pipes,
    devices, links that lead out of the entry) is not taken away because it is not staged.
    """

    def __init__(self, place: str, reader: Reader, *, any_link: bool = False, never_gone: Collection[str] = ()) -> None:
        self.place = place
        self._never_gone = never_gone
        self.changes: list[Change] = []
        self.left_out: list[tuple[str, str]] = []
        # Files that are to be written.
        self.copies = 0
        self._reader = reader
        self._here = Reader()
        self._any_link = any_link

    def path(self, parts: tuple[str, ...]) -> str:
        return "/".join((self.place, *parts[1:]))

    def compare(self, staged: int | None, there: int | None, name: str, place_name: str) -> bool:
        """Compare one name in two folders; None: the folder is not there. False where nothing is staged. Raises OSError."""
        before = None
        if there is not None:
            found = _status(there, place_name)
            before = self._here.item(there, place_name, found) if found is not None else None
        something = staged is not None and self._one(staged, there, name, place_name, before)
        left = temporary(place_name)
        if there is not None and _status(there, left) is not None:
            self._left_over((), {left: self._here.item(there, left)}, [place_name])
        return something

    def _one(self, staged: int, there: int | None, name: str, place_name: str, before: Item | None) -> bool:
        try:
            item = self._reader.item(staged, name)
            self._check(item, (place_name,))
        except FileNotFoundError:
            return False
        except LeftOut as why:
            self.left_out.append((self.place, str(why)))
            return True
        self._pair(staged, there, name, (place_name,), item, before)
        return True

    def _check(self, item: Item, parts: tuple[str, ...]) -> None:
        if item.kind == OTHER:
            raise LeftOut("it is a socket, a pipe or a device")
        if item.kind == LINK and not self._any_link and not stays_inside(item.target, self.place, parts):
            raise LeftOut(f"it is a link that leads out of {shown(self.place)}: to {shown(item.target)}")

    def _pair(self, staged: int, there: int | None, name: str, parts: tuple[str, ...], item: Item, before: Item | None) -> None:
        if item.kind == FOLDER and before is not None and before.kind == FOLDER and there is not None:
            if item != before:
                self.changes.append(Change(parts, item, before))
            with inner(staged, name) as from_folder, inner(there, parts[-1]) as to_folder:
                self._folders(from_folder, to_folder, parts)
        elif item != before:
            size = item.size
            self.copies += item.kind == FILE
            if item.kind == FOLDER:
                with inner(staged, name) as folder:
                    size = self._new(folder, parts)
            self.changes.append(Change(parts, item, before, size))

    def acceptable(self, folder: int, parts: tuple[str, ...]) -> Iterator[tuple[str, Item | LeftOut]]:
        """What is staged in a folder, with what is left out for where it is."""
        if len(parts) > DEEPEST:
            raise OSError(errno.ELOOP, f"more than {DEEPEST} folders lie within each other")
        for name, item in self._reader.contents(folder):
            try:
                if isinstance(item, Item):
                    self._check(item, (*parts, name))
            except LeftOut as why:
                yield name, why
            else:
                yield name, item

    def _folders(self, staged: int, there: int, parts: tuple[str, ...]) -> None:
        places = {name: item for name, item in self._here.contents(there) if isinstance(item, Item)}
        left = {name: places.pop(name) for name in list(places) if name.startswith(".swg_ha.") and is_temporary(name)}
        names = []
        for name, item in sorted(self.acceptable(staged, parts), key=lambda pair: pair[0]):
            before = places.pop(name, None)
            names.append(name)
            if isinstance(item, LeftOut):
                self.left_out.append((self.path((*parts, name)), str(item)))
            else:
                self._pair(staged, there, name, (*parts, name), item, before)
        for name, before in sorted(places.items(), key=lambda pair: pair[0]):
            self.changes += self._gone(there, (*parts, name), before)[1]
        if left:
            self._left_over(parts, left, names)

    def _left_over(self, parts: tuple[str, ...], left: Mapping[str, Item], names: Iterable[str]) -> None:
        """What a run that was cut off has left in a folder. Last, as what is made now has the same name until then.

        A folder beside a place where nothing is to be done is what was there before: the two had been exchanged.
        """
        waiting = {temporary(change.parts[-1]) for change in self.changes if change.item is not None and change.parts[:-1] == parts}
        called = {temporary(name): name for name in names}
        for name, item in left.items():
            doomed = item.kind != FOLDER or name in waiting
            self.changes.append(Change((*parts, name), None, item, doomed=doomed, called=called.get(name, name)))

    def _new(self, folder: int, parts: tuple[str, ...]) -> int:
        """The bytes in a folder that is not there yet."""
        size = 0
        for name, item in self.acceptable(folder, parts):
            if isinstance(item, LeftOut):
                self.left_out.append((self.path((*parts, name)), str(item)))
            elif item.kind == FOLDER:
                with inner(folder, name) as further:
                    size += self._new(further, (*parts, name))
            else:
                size += item.size
                self.copies += item.kind == FILE
        return size

    def _gone(self, there: int, parts: tuple[str, ...], before: Item) -> tuple[bool, list[Change]]:
        """(whether nothing of it stays, what is to be taken away)."""
        if before.kind == OTHER or (before.kind == LINK and not self._any_link and not stays_inside(before.target, self.place, parts)):
            return False, []
        if self.path(parts) in self._never_gone:
            return False, []
        whole = True
        inside: list[Change] = []
        if before.kind == FOLDER:
            with inner(there, parts[-1]) as folder:
                for name, item in sorted(self.acceptable_there(folder, parts)):
                    gone, changes = self._gone(folder, (*parts, name), item)
                    whole = whole and gone
                    inside += changes
        return whole, [Change(parts, None, before)] if whole else inside

    def acceptable_there(self, folder: int, parts: tuple[str, ...]) -> list[tuple[str, Item]]:
        if len(parts) > DEEPEST:
            raise OSError(errno.ELOOP, f"more than {DEEPEST} folders lie within each other")
        return [(name, item) for name, item in self._here.contents(folder) if isinstance(item, Item)]
