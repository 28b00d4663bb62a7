# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The tree of configurations on the disk, replaced as a whole: whoever looks, even after a power cut, sees the old or the new one.

It has other files too, which the Notifier and updates put there. They stay: the new tree shares them with the old one, by hard links.
Which files are from the database is written down in the tree itself, and goes wherever it is copied to.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .shared.durable import exchange, locked, make_folders, sync_file_system

WRITTEN = ".full_replicate.json"
FOLDER_MODE, FILE_MODE = 0o750, 0o640


@contextmanager
def alone(base: Path) -> Iterator[Path]:
    """Have nobody else write the tree at base meanwhile. Where an administrator has moved it by a link: where it is. Raises OSError."""
    base = Path(os.path.realpath(base))
    make_folders(str(base.parent))
    with locked(str(base.parent)):
        yield base


def write(base: Path, wanted: Mapping[str, bytes], group: int) -> bool:
    """Have exactly these files of the database (folder/name) in the tree, ``alone``; False if they were there already. Raises OSError."""
    # What a run that was cut off has left: the new tree, half or whole, or the old one.
    new = base.with_name(f".{base.name}.full_replicate")
    if new.exists():
        shutil.rmtree(new)
    before = written_before(base)
    if before == set(wanted) and all(is_there(base / path, content, group) for path, content in wanted.items()):
        return False
    build(base, new, before, wanted, group)
    install(new, base, {WRITTEN, *wanted, *(before or ())})
    return True


def written_before(base: Path) -> set[str] | None:
    """The files that came from the database; None where none ever did."""
    try:
        said = json.loads((base / WRITTEN).read_bytes())
    except (OSError, ValueError):
        return None
    # It is copied from server to server: what it says is taken for names of files in a folder of the tree, or for nothing.
    return {path for path in said if isinstance(path, str) and is_inside(path)} if isinstance(said, list) else None


def is_inside(path: str) -> bool:
    folder, slash, name = path.partition("/")
    return bool(slash) and "/" not in name and not {folder, name} & {"", ".", ".."}


def is_there(path: Path, content: bytes, group: int) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(status.st_mode) or not stat.S_ISDIR(path.parent.lstat().st_mode):
        return False
    attributes = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_size)
    return attributes == (FILE_MODE, os.geteuid(), group, len(content)) and path.read_bytes() == content


def build(base: Path, new: Path, before: set[str] | None, wanted: Mapping[str, bytes], group: int) -> None:
    """The new tree, beside the old one, which is not touched."""
    make_folder(new, group)
    if base.is_dir():
        share(base, new)
    for path in before or ():
        remove(new / path)
    for path, content in wanted.items():
        target = new / path
        # A link in the place of a folder would lead out of the tree.
        if target.parent.is_symlink() or not target.parent.is_dir():
            remove(target.parent)
            make_folder(target.parent, group)
        remove(target)
        make_file(target, content, group)
    for path in (before or set()) - wanted.keys():
        folder = (new / path).parent
        if not folder.is_symlink() and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    remove(new / WRITTEN)
    make_file(new / WRITTEN, json.dumps(sorted(wanted), indent=1).encode() + b"\n", group)


def share(old: Path, new: Path) -> None:
    """Everything of a folder in another one: folders anew, all else by hard links."""
    liken(old, new)
    with os.scandir(old) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                (new / entry.name).mkdir()
                share(old / entry.name, new / entry.name)
            else:
                os.link(entry.path, new / entry.name, follow_symlinks=False)


def make_alike(old: Path, new: Path) -> None:
    """Have a folder there, with those above it, as the old one is."""
    if not new.is_dir():
        make_alike(old.parent, new.parent)
        new.mkdir()
        liken(old, new)


def liken(old: Path, new: Path) -> None:
    """Give a folder owner, mode and times of another one."""
    status = old.lstat()
    os.chown(new, status.st_uid, status.st_gid)
    shutil.copystat(old, new)


def remove(path: Path) -> None:
    """Whatever is there: a link itself instead of what it leads to, and nothing that is only reached through one."""
    if path.parent.is_symlink() or not path.parent.is_dir():
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(path: Path, group: int) -> None:
    path.mkdir()
    os.chown(path, -1, group)
    path.chmod(FOLDER_MODE)


def make_file(path: Path, content: bytes, group: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        os.fchown(file.fileno(), -1, group)
        os.fchmod(file.fileno(), FILE_MODE)
        file.write(content)


def install(new: Path, base: Path, ours: Container[str]) -> None:
    """The new tree in the place of the old one, in one step, once all of it is on the disk. ours: the files of either that are from the database."""
    above = os.open(base.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file_system(above)
        if not base.exists():
            os.rename(new, base)
        elif not exchange(new, base):
            raise OSError(f"{base}: the file system cannot exchange two folders in one step")
        os.fsync(above)
        # By now the old one.
        if new.exists():
            if rescue(new, base, ours):
                sync_file_system(above)
            shutil.rmtree(new)
    finally:
        os.close(above)


def rescue(old: Path, new: Path, ours: Container[str], inside: str = "") -> bool:
    """Move over what others have put into the old tree since the new one was made of it; whether there was something."""
    found = False
    with os.scandir(old) as entries:
        for entry in entries:
            name, there = inside + entry.name, new / entry.name
            # What is of another kind there was in the way of ours.
            a_folder, known = entry.is_dir(follow_symlinks=False), os.path.lexists(there)
            if known and a_folder != (there.is_dir() and not there.is_symlink()):
                continue
            if a_folder:
                found |= rescue(old / entry.name, there, ours, f"{name}/")
            elif name not in ours and not (known and os.lstat(there).st_ino == entry.inode()):
                make_alike(old, new)
                os.rename(entry.path, there)
                found = True
    return found
