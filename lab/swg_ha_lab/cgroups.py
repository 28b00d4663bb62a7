"""Control groups: one group a host in every hierarchy that this machine has (v1, v2 or both).

Freezing and killing need version 2, which any systemd machine has mounted; limits are set where their
controller is, and are refused with a message where it is not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError
from .process import wait_for

_DELEGATED = ("cpu", "io", "memory", "pids")
REALTIME_MICROSECONDS = 60000


@dataclass(frozen=True)
class Hierarchy:
    path: Path
    version: int
    controllers: frozenset[str]


def parse_mounts(mountinfo: str) -> list[Hierarchy]:
    """The cgroup hierarchies in the text of /proc/self/mountinfo, whole ones only (mounted from their root)."""
    found: dict[tuple[str, str], Hierarchy] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2") or fields[3] != "/":
            continue
        version, options = (2, "") if kind[0] == "cgroup2" else (1, kind[2])
        controllers = frozenset(options.split(",")) - {"rw", ""}
        found.setdefault((kind[0], options), Hierarchy(Path(fields[4]), version, controllers))
    return list(found.values())


def hierarchies() -> list[Hierarchy]:
    return parse_mounts(Path("/proc/self/mountinfo").read_text())


class Group:
    """A host's group, e.g. Group("swgha-demo", "ps1")."""

    def __init__(self, lab: str, host: str, present: list[Hierarchy] | None = None) -> None:
        self.host = host
        self._hierarchies = hierarchies() if present is None else present
        self._lab = lab
        unified = [h for h in self._hierarchies if h.version == 2]
        if not unified:
            raise LabError(
                "no cgroup2 hierarchy is mounted on this machine: mount one, e.g. 'mount -t cgroup2 none /sys/fs/cgroup/unified'"
            )
        self.unified = unified[0].path / lab / host

    def _folder(self, hierarchy: Hierarchy) -> Path:
        return hierarchy.path / self._lab / self.host

    def create(self) -> None:
        for hierarchy in self._hierarchies:
            folder = self._folder(hierarchy)
            if hierarchy.version == 2:
                for parent in (hierarchy.path, hierarchy.path / self._lab):
                    parent.mkdir(exist_ok=True)
                    _delegate(parent)
            folder.mkdir(parents=True, exist_ok=True)
            if "cpuset" in hierarchy.controllers:
                for child in (folder.parent, folder):
                    for name in ("cpuset.cpus", "cpuset.mems"):
                        (child / name).write_text((hierarchy.path / name).read_text())

    def join(self) -> None:
        """Put the calling process into the group, everywhere."""
        for hierarchy in self._hierarchies:
            (self._folder(hierarchy) / "cgroup.procs").write_text(str(os.getpid()))

    def allow_realtime(self) -> str | None:
        """Let the host's processes use SCHED_RR. Returns what is missing, or None.

        Only the v1 cpu controller hands out real-time time group by group, none to a new group; all groups' shares
        must fit into their parent's.
        """
        for hierarchy in self._hierarchies:
            own = self._folder(hierarchy) / "cpu.rt_runtime_us"
            if hierarchy.version == 1 and own.exists():
                lab = own.parent.parent / own.name
                shares = sum(int(path.read_text()) for path in lab.parent.glob(f"*/{own.name}") if path != own)
                try:
                    if int(lab.read_text()) < shares + REALTIME_MICROSECONDS:
                        lab.write_text(str(shares + REALTIME_MICROSECONDS))
                    own.write_text(str(REALTIME_MICROSECONDS))
                except OSError as error:
                    return f"no real-time scheduling in {self.host}: {own}: {error.strerror}"
        return None

    def processes(self) -> list[int]:
        return [int(line) for path in self.unified.rglob("cgroup.procs") for line in _read(path).split()]

    def freeze(self, seconds: float = 1.0) -> bool:
        """Stop every process of the host at once. False when some are stuck in the kernel (they stop when they leave it)."""
        (self.unified / "cgroup.freeze").write_text("1")
        return wait_for(lambda: "frozen 1" in _read(self.unified / "cgroup.events"), seconds, 0.002)

    def thaw(self) -> None:
        (self.unified / "cgroup.freeze").write_text("0")

    def frozen(self) -> bool:
        return _read(self.unified / "cgroup.freeze").strip() == "1"

    def kill(self) -> None:
        """Kill every process of the host, frozen or not."""
        if self.unified.exists():
            (self.unified / "cgroup.kill").write_text("1")
            self.thaw()

    def limit_writes(self, device: str, operations: int) -> None:
        """At most this many write operations a second on the block device `MAJOR:MINOR`; 0 for no limit."""
        for hierarchy in self._hierarchies:
            folder = self._folder(hierarchy)
            if (path := folder / "blkio.throttle.write_iops_device").exists():
                path.write_text(f"{device} {operations}")
                return
            if (path := folder / "io.max").exists():
                path.write_text(f"{device} wiops={operations or 'max'}")
                return
        raise LabError(f"{self.host}: this machine's kernel offers no blkio (v1) or io (v2) cgroup controller: its disk cannot be slowed")

    def remove(self, seconds: float = 10) -> None:
        """Remove the host's groups, and the lab's when they are empty. Killed processes may take a moment to be gone."""
        for hierarchy in self._hierarchies:
            folder = self._folder(hierarchy)
            end = time.monotonic() + seconds
            while not _remove(folder):
                if time.monotonic() > end:
                    raise LabError(f"{folder}: processes {' '.join(map(str, self.processes())) or '(none seen)'} will not end")
                time.sleep(0.02)

    def remove_parent(self) -> None:
        for hierarchy in self._hierarchies:
            _remove(hierarchy.path / self._lab)


def _delegate(folder: Path) -> None:
    """Hand the controllers that there are on to the groups below; the limits of a missing one are refused when asked for."""
    for controller in set(_read(folder / "cgroup.controllers").split()) & set(_DELEGATED):
        try:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            continue


def _remove(folder: Path) -> bool:
    try:
        for path in [*_folders(folder), folder]:
            path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _folders(folder: Path) -> Iterable[Path]:
    """Every folder below, the deepest first."""
    for path, _, _ in os.walk(folder, topdown=False):
        if path != str(folder):
            yield Path(path)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
