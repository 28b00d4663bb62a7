"""Making and healing faults in a lab that is up. What outlasts a power cycle is recorded in its faults file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import disk
from .errors import LabError, UsageError
from .faults import Faults
from .lab import Lab
from .machine import Machine
from .network import Block

DISK_STATES = ("on", "booting", "frozen")


@contextmanager
def _faults(lab: Lab) -> Iterator[Faults]:
    """The recorded faults, written back when the change has worked."""
    faults = lab.faults()
    yield faults
    faults.save(lab.layout.faults)


def freeze(lab: Lab, host: str) -> str | None:
    """Stop all processes of a host at once; its kernel goes on. Returns a note when some are stuck in the kernel."""
    machine = lab.machine(host)
    machine.require("on", "booting", "frozen")
    return None if machine.group.freeze() else f"{host}: some of its processes wait in the kernel and stop when they leave it"


def thaw(lab: Lab, host: str) -> None:
    machine = lab.machine(host)
    machine.require("on", "booting", "frozen")
    machine.group.thaw()


def cable(lab: Lab, host: str, interface: str, *, out: bool) -> None:
    """Pull a host's cable out of the switch, or put it back."""
    leg = lab.topology.leg(host, interface)
    with _faults(lab) as faults, lab.wiring.exclusive():
        # Recorded first: a switch that boots meanwhile asks the record.
        end = (leg.host, leg.interface)
        if out:
            faults.cables_out.add(end)
            lab.wiring.pull(leg)
        else:
            faults.cables_out.discard(end)
            lab.wiring.plug(leg, faults.blocks)


def block(lab: Lab, source: str, target: str, interface: str | None, *, on: bool) -> None:
    """Lose what `source` sends to `target` on their common switches (or on that of one leg of the target), or stop losing it."""
    lab.topology.host(source)
    pairs = [Block(*pair) for pair in lab.topology.common_legs(source, target, interface)]
    with _faults(lab) as faults, lab.wiring.exclusive():
        faults.blocks = [kept for kept in faults.blocks if kept not in pairs] + (pairs if on else [])
        for switch in {pair.target.switch for pair in pairs}:
            lab.wiring.apply_blocks(switch, faults.blocks)


def _disk(lab: Lab, host: str) -> tuple[Machine, Path, str]:
    """The host, its data disk's folder as seen from here, and the disk's device."""
    machine = lab.machine(host)
    if not machine.host.kind.disk:
        having = ", ".join(m.name for m in lab.machines.values() if m.host.kind.disk)
        raise UsageError(f"{host} has no data disk: {having} have one")
    machine.require(*DISK_STATES)
    data, device = machine.data(), disk.loop_device(machine.paths.disk)
    if data is None or device is None:
        raise LabError(f"{host}: its data disk is not mounted: run 'bin/lab --name {lab.layout.name} power reset {host}'")
    return machine, data, device


def disk_fill(lab: Lab, host: str) -> None:
    _, data, _ = _disk(lab, host)
    with _faults(lab) as faults:
        faults.full.add(host)
        disk.fill(data)


def disk_slow(lab: Lab, host: str, operations: int) -> None:
    """At most so many write operations a second."""
    machine, _, device = _disk(lab, host)
    with _faults(lab) as faults:
        machine.group.limit_writes(disk.device_number(device), operations)
        faults.slow[host] = operations


def disk_freeze(lab: Lab, host: str) -> None:
    _, data, _ = _disk(lab, host)
    with _faults(lab) as faults:
        disk.freeze(data)
        faults.frozen.add(host)


def disk_read_only(lab: Lab, host: str) -> None:
    machine, _, device = _disk(lab, host)
    with _faults(lab) as faults:
        disk.fail(device)
        faults.read_only.add(host)
    if not disk.read_only(machine.mounts(), str(machine.paths.data)):
        raise LabError(f"{host}: its data disk is still writable after an error was put into its file system")


def disk_heal(lab: Lab, host: str) -> str | None:
    """Take every fault of the disk away. Returns a note when that took a power cycle."""
    machine, data, device = _disk(lab, host)
    faults = lab.faults()
    if host in faults.frozen:
        disk.thaw(data)
    if host in faults.slow:
        machine.group.limit_writes(disk.device_number(device), 0)
    failed = disk.read_only(machine.mounts(), str(machine.paths.data))
    if host in faults.full and not failed:
        disk.empty(data)
    faults.forget_disk(host)
    faults.save(lab.layout.faults)
    if not failed:
        return None
    # ext4 stays read-only after an error until it has been unmounted and checked.
    lab.cut([machine])
    lab.power_on([machine])
    disk.empty(_disk(lab, host)[1])
    return f"{host}: power cycled, for a file system that has failed is repaired at boot"


def heal(lab: Lab) -> None:
    """Take every fault away and have every host on."""
    with _faults(lab) as faults:
        for host, interface in sorted(faults.cables_out):
            leg = lab.topology.leg(host, interface)
            faults.cables_out.discard((host, interface))
            with lab.wiring.exclusive():
                lab.wiring.plug(leg, faults.blocks)
        faults.blocks = []
        with lab.wiring.exclusive():
            for switch in lab.topology.switches():
                lab.wiring.apply_blocks(switch.name, [])
    for machine in lab.machines.values():
        if machine.state() == "frozen":
            machine.group.thaw()
    start = [machine for machine in lab.machines.values() if not machine.on]
    for machine in start:
        machine.wait_cut()
    lab.power_on(start)
    for host in lab.topology.hosts:
        if lab.faults().disk(host):
            disk_heal(lab, host)
