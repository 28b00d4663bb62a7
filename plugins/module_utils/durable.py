# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Files that are replaced as a whole: whoever reads one, even after a power cut, reads the old or the new.

Needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def locked(directory: str, timeout: float = 30) -> Iterator[None]:
    """Hold the lock of a directory, which is given up by the end of the process too.

    Raises TimeoutError when somebody else holds it for ``timeout`` seconds, and OSError.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + timeout
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has held the lock of {directory} for {timeout:g} s")
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def replace(path: str, content: bytes, prepare: Callable[[str], object] = lambda path: None) -> None:
    """Put content into the file at path, which need not exist, with owner, mode, ACL and extended attributes kept.

    prepare gets the path of the new file, complete, before it takes the old one's place.
    The caller holds the lock of the directory: what a power cut has left of an earlier
    attempt is removed. Raises OSError, and then the file is the old one.
    """
    directory, name = os.path.split(path)
    new = os.path.join(directory, f".{name}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            _take_over_attributes(path, new)
            file.write(content)
            file.flush()
            prepare(new)
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    sync(directory)


def _take_over_attributes(path: str, new: str) -> None:
    """Before anything is written, so that the times are those of the writing."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        umask = os.umask(0o077)
        os.umask(umask)
        os.chmod(new, 0o666 & ~umask)
        return
    os.chown(new, status.st_uid, status.st_gid)
    shutil.copystat(path, new)


def sync(path: str) -> None:
    """Have what is in a file or a directory on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: str) -> None:
    """Create the folder and those above it that are missing, durably, for root alone to write and for all to read. Raises OSError."""
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    make_folders(above)
    os.mkdir(folder, 0o755)
    os.chmod(folder, 0o755)
    sync(above)


def sync_file_system(descriptor: int) -> None:
    """Have everything on the disk that was written to the file system of an open file or folder. Raises OSError."""
    if _libc.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"syncfs: {os.strerror(code)}")


def exchange(one: Path, other: Path) -> bool:
    """Swap two names of one folder in one step; False where the kernel or the file system cannot. Raises OSError."""
    at_cwd, rename_exchange = -100, 2
    if _libc.renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), rename_exchange) == 0:
        return True
    code = ctypes.get_errno()
    # EXDEV: an overlay, whose lower layer holds one of them.
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV):
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))
