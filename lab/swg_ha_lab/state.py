"""What a lab remembers: small JSON files, renamed into place so that no reader finds half of one.

Nothing is synced: when the machine itself goes down, every lab on it is gone anyway.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import LabError


def write(path: Path, value: Any, mode: int = 0o644) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n", mode)


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    os.rename(temporary, path)


def read_text(path: Path) -> str:
    """The text of the file, empty when there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def read(path: Path, default: Any = None) -> Any:
    """The value in the file; `default` when there is none or it cannot be read as JSON."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return default


@contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Hold the lock file; it is removed when it is let go of. LabError when another process holds it for so long."""
    end = time.monotonic() + seconds
    while True:
        try:
            file = path.open("w")
        except FileNotFoundError:
            raise LabError(f"{path.parent} is not there any more") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Removed by its last holder while we waited: then we hold nothing.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                break
        except BlockingIOError:
            if time.monotonic() > end:
                file.close()
                raise LabError(f"{path}: another process has held this lock for {seconds:g} s: wait for it, or end it") from None
        except FileNotFoundError:
            pass
        file.close()
        time.sleep(0.01)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
