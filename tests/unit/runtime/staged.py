# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Two servers' files in one folder: what the other one has, what it staged here, and the places here."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swg_ha.installing import Installer, Outcome
from swg_ha.shared.module_xml import ReplicatedFile
from swg_ha.staging import ATTRIBUTE

# Who writes the stage: an account that owns nothing else.
PEER = 64999
# A shell in the place of ssh: the name of the host goes, the program is run.
SHELL = '#!/bin/sh\nshift\nexec /bin/sh -c "$*"\n'
Tree = dict[bytes, tuple[object, ...]]


class House:
    """other: the other server's root. stage: where it wrote to. place: a folder of this server, at the same path on the other one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.other = folder / "other"
        self.stage = folder / "stage"
        self.place = folder / "place"
        self.replaced = folder / "state/replaced"
        for each in (self.other, self.stage, self.place):
            each.mkdir()
        self.stage.chmod(0o700)
        os.chown(self.stage, PEER, PEER)
        shell = folder / "shell"
        shell.write_text(SHELL)
        shell.chmod(0o755)

    def there(self, path: Path) -> Path:
        """A path of this server, on the other one."""
        return self.other / path.relative_to("/")

    def staged(self, path: Path) -> Path:
        return self.stage / path.relative_to("/")

    def push(self, *paths: Path) -> None:
        """Stage what the other server has at these paths, as a real rsync does it, by the account that may do no more."""
        receiver = f"setpriv --reuid={PEER} --regid={PEER} --clear-groups rsync"
        sources = [f"{self.other}/./{path.relative_to('/')}" for path in paths]
        argv = ["rsync", "-aR", "--delete", "--no-D", "-s", "-M--fake-super", "-e", str(self.folder / "shell"), "--rsync-path", receiver]
        done = subprocess.run([*argv, *sources, f"here:{self.stage}/"], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def install(self, *paths: Path, permissions: str = "root:root", guarded: dict[str, str] | None = None) -> Outcome:
        files = [ReplicatedFile(str(path), True, None, permissions) for path in paths]
        return Installer(str(self.stage), self.replaced, threading.Event(), guarded or {}).install(files)


@contextmanager
def house() -> Iterator[House]:
    """A folder that everybody can get to, on a file system with user attributes."""
    folder = Path(tempfile.mkdtemp(prefix="swg-ha-staged-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        os.setxattr(folder, "user.swg_ha.test", b"1")
        yield House(folder)
    finally:
        shutil.rmtree(folder)


def tree(folder: Path) -> Tree:
    """Everything below a folder, by its name: kind, mode, owner and content, but for the times of folders and links."""
    found: Tree = {}
    top = os.fsencode(folder)
    for above, folders, files in os.walk(top):
        for name in [*folders, *files]:
            path = os.path.join(above, name)
            status = os.lstat(path)
            mode = status.st_mode
            said: tuple[object, ...] = (stat.S_IFMT(mode), status.st_uid, status.st_gid)
            if stat.S_ISREG(mode):
                said += (stat.S_IMODE(mode), status.st_mtime_ns, Path(os.fsdecode(path)).read_bytes())
            elif stat.S_ISLNK(mode):
                said += (os.readlink(path),)
            else:
                said += (stat.S_IMODE(mode),)
            found[os.path.relpath(path, top)] = said
    return found


def inodes(folder: Path) -> dict[bytes, tuple[int, int]]:
    """What changes with any work on a file."""
    found = {}
    for above, folders, files in os.walk(os.fsencode(folder)):
        for path in (above, *(os.path.join(above, name) for name in [*folders, *files])):
            status = os.lstat(path)
            found[path] = (status.st_ino, status.st_ctime_ns)
    return found


def say(path: Path, attribute: str) -> None:
    """Have a staged file say what it was."""
    os.setxattr(path, ATTRIBUTE, attribute.encode())
