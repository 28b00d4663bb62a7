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
    target = path.with_name(f"{path.name}.{stamp}")
    os.rename(path, target)
    sync_directory(path.parent)
    return target


def make_parents(path: Path, uid: int, gid: int) -> None:
    """Create the directories above the data: passable for all down to the last, which is the server's own."""
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o755)
        os.chmod(parent, 0o755)
        sync_directory(parent.parent)
    if path.parent in missing:
        os.chown(path.parent, uid, gid)


def move(run: Run, source: Path, target: Path, now: float | None = None) -> Path | None:
    """Bring the data of a stopped cluster from source to target.

    Renames within a file system. Across file systems it copies, and leaves the source where it is. What lies at the
    target already is moved aside first. Returns where it went, or None. Raises MoveError.
    """
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
