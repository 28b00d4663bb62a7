"""Limits of the machine that a lab needs more of."""

from __future__ import annotations

from pathlib import Path

# Every systemd of every host has a handful of inotify instances, all counted for root: the kernel's 128 are used up by two labs.
INOTIFY_INSTANCES = 1024
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")


def raise_inotify(path: Path = _INOTIFY) -> None:
    """Raise the limit where it is lower. It stays raised: other labs may be using it when this one goes."""
    if int(path.read_text()) < INOTIFY_INSTANCES:
        path.write_text(str(INOTIFY_INSTANCES))
