# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Moving a PostgreSQL data directory to another place, so that a power cut at any line loses nothing.

The order is: stop the cluster, put the data at its new place under a temporary name, make it durable, rename it, and
only then tell the cluster. Until the last step the cluster's configuration names the old place, which is whole.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path

Run = Callable[[list[str]], tuple[int, str, str]]


class MoveError(Exception):
    """The data could not be moved; the text says why, and that it is still where it was."""


def same_file_system(source: Path, target: Path) -> bool:
    """Can the source be renamed to the target?"""
    existing = next(parent for parent in target.parents if parent.exists())
    return os.stat(source).st_dev == os.stat(existing).st_dev


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def aside(path: Path, now: float | None = None) -> Path:
    """Rename what lies at path to a sibling with the time in its name, and return that; nothing is deleted."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    names = (f"{path.name}.{stamp}{suffix}" for suffix in chain([""], (f".{number}" for number in count(1))))
    target = next(place for place in map(path.with_name, names) if not os.path.lexists(place))
    os.rename(path, target)
    sync_directory(path.parent)
    return target


def make_parents(path: Path, uid: int, gid: int) -> None:
    """Create the directories above the data: passable for all down to the last, which is the server's own."""
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        # Under another name until it is the right one's: an interrupted run leaves nothing half made.
        fresh = parent.with_name(f".{parent.name}.new")
        fresh.mkdir(exist_ok=True)
        os.chmod(fresh, 0o755)
        if parent == path.parent:
            os.chown(fresh, uid, gid)
        os.rename(fresh, parent)
        sync_directory(parent.parent)


def running(data: Path) -> bool:
    """Does a server run on this data directory? It works in it, and says so in postmaster.pid."""
    try:
        pid = int((data / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
        return os.path.samefile(f"/proc/{pid}/cwd", data)
    except (OSError, ValueError):
        return False


def move(run: Run, source: Path, target: Path, now: float | None = None) -> Path | None:
    """Bring the data of a stopped cluster from source to target.

    Renames within a file system. Across file systems it copies, and leaves the source where it is. What lies at the
    target already is moved aside first. Returns where it went, or None. Raises MoveError.
    """
    # What is moved is the data, not a symbolic link to it.
    source, real_target = source.resolve(), target.resolve()
    if source == real_target:
        return None
    if source in real_target.parents or real_target in source.parents:
        raise MoveError(f"the data is in {source}, and is to be in {target}: one must not lie within the other")
    if running(source):
        raise MoveError(f"a server runs on {source}, though its service is stopped: stop it (pg_ctlcluster) first")
    owner = os.stat(source)
    make_parents(target, owner.st_uid, owner.st_gid)
    moved = aside(target, now) if target.exists() else None
    if same_file_system(source, target):
        os.rename(source, target)
        sync_directory(source.parent)
    else:
        partial = target.with_name(f"{target.name}.partial")
        if partial.exists():
            shutil.rmtree(partial)
        rc, out, err = run(["cp", "--archive", "--reflink=auto", "--", str(source), str(partial)])
        if rc != 0:
            raise MoveError(f"copying {source} to {partial} failed ({(err or out).strip()}); the data is still in {source}")
        rc, out, err = run(["sync", "--file-system", str(partial)])
        if rc != 0:
            raise MoveError(f"writing {partial} to its disk failed ({(err or out).strip()}); the data is still in {source}")
        os.rename(partial, target)
    sync_directory(target.parent)
    return moved
