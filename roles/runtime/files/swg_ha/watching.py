# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Watches a replicated folder with all that is below it: what the unit ha_tree@ runs, until the folder is gone.

A path unit of systemd sees one folder. inotifywait looks into a new folder before it watches it, and never hears of what is made in
between; this does it the other way round. While nothing changes it sleeps in the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
import time

from . import copying

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, UNMOUNT, OVERFLOW, IGNORED, IS_FOLDER = 0x400, 0x800, 0x2000, 0x4000, 0x8000, 0x40000000
ONLY_FOLDERS, NO_LINKS, NOT_UNLINKED = 0x1000000, 0x2000000, 0x4000000
CHANGES = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
EVENT = struct.Struct("iIII")

# Where the kernel grants no more watches, the folder is copied every so many seconds instead.
INSTEAD = 60.0


class Gone(Exception):
    """The folder itself is no longer where it was."""


class TooMany(Exception):
    """The kernel grants no more watches."""


class Watcher:
    """The watches of one folder and of all folders in it."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = -1
        self._folders: dict[int, bytes] = {}
        self.begin()

    def begin(self) -> None:
        """Watch everything that is there now. Raises Gone, TooMany."""
        self.close()
        self._file = self._libc.inotify_init1(os.O_CLOEXEC)
        if self._file < 0:
            raise TooMany(os.strerror(ctypes.get_errno()))
        self._folders = {}
        self._add(self._root)
        if self._root not in self._folders.values():
            raise Gone

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _add(self, folder: bytes) -> None:
        """First the watch, then the look at what is in it: so nothing is made unseen in between."""
        waiting = [folder]
        while waiting:
            path = waiting.pop()
            watch = self._libc.inotify_add_watch(self._file, path, CHANGES | ONLY_FOLDERS | NO_LINKS | NOT_UNLINKED)
            if watch < 0:
                if (number := ctypes.get_errno()) in (errno.ENOSPC, errno.ENOMEM):
                    raise TooMany(os.strerror(number))
                continue
            self._folders[watch] = path
            try:
                with os.scandir(path) as found:
                    waiting += [each.path for each in found if each.is_dir(follow_symlinks=False)]
            except OSError:
                continue

    def wait(self) -> None:
        """Until something has changed. Raises Gone, TooMany."""
        events = os.read(self._file, 1 << 18)
        anew = False
        at = 0
        while at < len(events):
            watch, mask, _cookie, length = EVENT.unpack_from(events, at)
            name = events[at + EVENT.size : at + EVENT.size + length].rstrip(b"\0")
            at += EVENT.size + length
            folder = self._folders.get(watch)
            if folder == self._root and mask & (DELETE_SELF | MOVE_SELF | UNMOUNT | IGNORED):
                raise Gone
            if mask & IGNORED:
                self._folders.pop(watch, None)
            # A folder that was moved takes its watches along, and what was lost is not known.
            anew |= bool(mask & OVERFLOW) or (bool(mask & MOVED_FROM) and bool(mask & IS_FOLDER))
            if folder is not None and mask & IS_FOLDER and mask & (CREATE | MOVED_TO):
                self._add(os.path.join(folder, name))
        if anew:
            self.begin()


def main(arguments: list[str], run: str = copying.RUN) -> int:
    """Raise the flag of the entry with this id whenever something in its folder changes. Its unit removes the mark that it is watched."""
    if len(arguments) != 1:
        print("usage: ha_tree ID", file=sys.stderr)
        return 2
    file = os.path.join(run, arguments[0])
    name = copying.read(f"{file}.entry").get("name", [""])[-1]
    try:
        watcher = Watcher(os.fsencode(name))
        copying.write(f"{file}.tree", {"watched": [name]})
        while True:
            # What changed before the watch was there is found by the copy that this asks for.
            copying.touch(f"{file}.changed")
            watcher.wait()
    except Gone:
        copying.touch(f"{file}.changed")
        return 0
    except TooMany as error:
        print(f"{name} cannot be watched ({error}), it is copied every {INSTEAD:g} s: raise fs.inotify.max_user_watches", file=sys.stderr)
        copying.write(f"{file}.tree", {"error": [str(error)]})
        while True:
            copying.touch(f"{file}.changed")
            time.sleep(INSTEAD)
