"""Snapshots of the hosts that have a data disk, taken while they are off.

A host's tree is a stack of layers, the last one written to. A snapshot keeps the stack as it is, copies the disk, and
gives the host a new last layer; a roll-back gives it a new layer on top of the kept stack, and a copy of the kept disk.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

from . import injection, state
from .errors import LabError, UsageError
from .image import remove_tree
from .lab import Lab
from .machine import Machine
from .process import run

SHUTDOWN_SECONDS = 60
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")


def names(lab: Lab) -> list[str]:
    return list(state.read(lab.layout.snapshots, {}))


def take(lab: Lab, name: str, *, replace: bool = False) -> None:
    """Shut the servers down, keep what they are, and start them again."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"snapshot '{name}': a name is at most 31 small letters, digits, '-' and '_'")
    snapshots: dict[str, Any] = state.read(lab.layout.snapshots, {})
    if name in snapshots and not replace:
        raise LabError(f"snapshot '{name}' exists already: take another name, or --replace it")
    machines = _machines(lab)
    for machine in machines:
        machine.require("on")
        if faults := lab.faults().disk(machine.name):
            raise LabError(
                f"{machine.name}: its disk is {' and '.join(faults)}: run 'bin/lab --name {lab.layout.name} disk heal {machine.name}' first"
            )
    try:
        for machine in machines:
            machine.shut_down()
        for machine in machines:
            machine.wait_shut_down(SHUTDOWN_SECONDS)
        kept = {machine.name: _keep(machine) for machine in machines}
        snapshots[name] = kept
        state.write(lab.layout.snapshots, snapshots)
        for machine in machines:
            _new_layer(machine, kept[machine.name]["layers"])
    finally:
        lab.power_on(machine for machine in machines if not machine.on)
    _remove_unused(machines, snapshots)


def roll_back(lab: Lab, name: str) -> None:
    """Cut the servers' power, put back what the snapshot kept, heal every fault, and have every host on."""
    snapshots: dict[str, Any] = state.read(lab.layout.snapshots, {})
    if name not in snapshots:
        raise UsageError(f"there is no snapshot '{name}': there is {', '.join(snapshots) or 'none'}")
    machines = _machines(lab)
    lab.cut(machines)
    faults = lab.faults()
    for machine in machines:
        kept = snapshots[name][machine.name]
        copy = machine.paths.disk.with_suffix(".new")
        _copy(machine.paths.folder / kept["disk"], copy)
        copy.rename(machine.paths.disk)
        _new_layer(machine, kept["layers"])
        faults.forget_disk(machine.name)
    faults.save(lab.layout.faults)
    _remove_unused(machines, snapshots)
    injection.heal(lab)


def _machines(lab: Lab) -> list[Machine]:
    return [machine for machine in lab.machines.values() if machine.host.kind.disk]


def _keep(machine: Machine) -> dict[str, Any]:
    disk = f"disk-{uuid.uuid4().hex[:12]}.img"
    _copy(machine.paths.disk, machine.paths.folder / disk)
    return {"layers": state.read(machine.paths.layer_list), "disk": disk}


def _copy(source: Path, target: Path) -> None:
    run(["cp", "--reflink=auto", "--sparse=always", str(source), str(target)], what=f"copying {source}", timeout=600)


def _new_layer(machine: Machine, below: list[str]) -> None:
    state.write(machine.paths.layer_list, [*below, uuid.uuid4().hex[:12]])


def _remove_unused(machines: list[Machine], snapshots: dict[str, Any]) -> None:
    """Remove the layers and disks that neither a snapshot nor the host itself stands on."""
    for machine in machines:
        kept = [snapshot[machine.name] for snapshot in snapshots.values()]
        layers = {layer for entry in kept for layer in entry["layers"]} | set(state.read(machine.paths.layer_list))
        disks = {entry["disk"] for entry in kept}
        for folder in (machine.paths.layers, machine.paths.work):
            for path in folder.iterdir():
                if path.name not in layers:
                    remove_tree(path)
        for path in machine.paths.folder.glob("disk-*.img"):
            if path.name not in disks:
                path.unlink()
