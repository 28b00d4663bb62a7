"""Every name and path of one lab. All of them follow from the lab's name, so that remains can be found again."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError

STATE = Path("/var/lib/swg-ha-lab")
CACHE = Path(os.environ.get("SWG_HA_LAB_CACHE", "/var/cache/swg-ha-lab"))
NAMESPACES = Path("/run/netns")
PREFIX = "swgha"

_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")


@dataclass(frozen=True)
class HostPaths:
    folder: Path

    @property
    def layers(self) -> Path:
        """Folder of the overlay layers, one folder each."""
        return self.folder / "layers"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def root(self) -> Path:
        """Where the overlay is mounted, in the host's own mount namespace only."""
        return self.folder / "root"

    @property
    def disk(self) -> Path:
        return self.folder / "disk.img"

    @property
    def data(self) -> Path:
        """Where the data disk is mounted, in the host's own mount namespace only."""
        return self.folder / "data"

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    @property
    def notify(self) -> Path:
        return self.folder / "notify"

    @property
    def run(self) -> Path:
        """What the supervisor says of the present run (JSON)."""
        return self.folder / "run.json"

    @property
    def power(self) -> Path:
        """`on` or `off`: what the host ought to be."""
        return self.folder / "power"

    @property
    def layer_list(self) -> Path:
        """The host's layers, oldest first; the last one is written to (JSON)."""
        return self.folder / "layers.json"

    @property
    def prepared(self) -> Path:
        """There once the host's own files are in its tree."""
        return self.folder / "prepared"


@dataclass(frozen=True)
class Layout:
    """Names of the lab `name`."""

    name: str
    state: Path = STATE
    cache: Path = CACHE

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"lab name '{self.name}': a small letter and at most 15 small letters or digits")

    @property
    def folder(self) -> Path:
        return self.state / self.name

    @property
    def lock(self) -> Path:
        return self.state / f"{self.name}.lock"

    @property
    def record(self) -> Path:
        return self.folder / "lab.json"

    @property
    def faults(self) -> Path:
        return self.folder / "faults.json"

    @property
    def snapshots(self) -> Path:
        return self.folder / "snapshots.json"

    @property
    def wiring_lock(self) -> Path:
        return self.folder / "wiring.lock"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def control(self) -> Path:
        return self.folder / "cp"

    @property
    def connect(self) -> Path:
        """The copy of connect.py that ssh runs."""
        return self.folder / "connect.py"

    def inventory(self, *, qualified: bool = False) -> Path:
        return self.folder / ("inventory-qualified" if qualified else "inventory") / "hosts.yml"

    def host(self, host: str) -> HostPaths:
        return HostPaths(self.folder / "hosts" / host)

    def machine(self, host: str) -> str:
        """The host's name outside: of its network namespace, for ssh, for nspawn."""
        return f"{PREFIX}-{self.name}-{host}"

    @property
    def parking(self) -> str:
        """The namespace of the cable ends that are plugged into nothing that runs."""
        return f"{PREFIX}-{self.name}-parked"

    def namespace(self, host: str) -> Path:
        return NAMESPACES / self.machine(host)

    @property
    def cgroup(self) -> str:
        """The lab's group below the root of every hierarchy; one group a host below it."""
        return f"{PREFIX}-{self.name}"
