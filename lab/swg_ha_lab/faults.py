"""The faults that are on. They outlast a power cut of the host or switch that they are about, as a pulled cable does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import state
from .network import Block
from .topology import Topology


@dataclass
class Faults:
    """cables_out: (host, interface); blocks: one-way losses; slow: host -> write operations a second of its disk;
    full, frozen, read_only: hosts whose disk is so."""

    cables_out: set[tuple[str, str]] = field(default_factory=set)
    blocks: list[Block] = field(default_factory=list)
    slow: dict[str, int] = field(default_factory=dict)
    full: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    read_only: set[str] = field(default_factory=set)

    @classmethod
    def load(cls, path: Path, topology: Topology) -> Faults:
        record = state.read(path, {})
        blocks = [
            Block(source, target)
            for entry in record.get("blocks", [])
            for source, target in topology.common_legs(entry["from"], entry["to"], entry["leg"])
        ]
        return cls(
            {(host, interface) for host, interface in record.get("cables_out", [])},
            blocks,
            dict(record.get("slow", {})),
            *(set(record.get(name, [])) for name in ("full", "frozen", "read_only")),
        )

    def save(self, path: Path) -> None:
        state.write(path, self.record())

    def record(self) -> dict[str, Any]:
        return {
            "cables_out": sorted(map(list, self.cables_out)),
            "blocks": [block.record() for block in self.blocks],
            "slow": self.slow,
            "full": sorted(self.full),
            "frozen": sorted(self.frozen),
            "read_only": sorted(self.read_only),
        }

    def disk(self, host: str) -> list[str]:
        """What is wrong with the host's disk, in the words of `bin/lab disk`."""
        sets = {"full": self.full, "slow": set(self.slow), "frozen": self.frozen, "read-only": self.read_only}
        return [word for word, hosts in sets.items() if host in hosts]

    def forget_disk(self, host: str) -> None:
        """All of the disk's faults are healed."""
        self.slow.pop(host, None)
        for hosts in (self.full, self.frozen, self.read_only):
            hosts.discard(host)

    def power_cycle(self, host: str) -> None:
        """What does not outlast the loss of power: a frozen file system, and one that an error made read-only."""
        self.frozen.discard(host)
        self.read_only.discard(host)
