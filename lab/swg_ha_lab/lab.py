"""The life of a lab: up, down, and what is done to it in between."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import TOPOLOGY, access, disk, limits, requirements, state
from .cgroups import Group, hierarchies
from .errors import LabError
from .faults import Faults
from .image import Cache, remove_tree
from .layout import Layout
from .machine import CUT_SECONDS, READY_SECONDS, Machine
from .network import Wiring
from .process import wait_for
from .topology import Topology, load, parse

LOCK_SECONDS = 300

Say = Callable[[str], None]


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Cleaning up is not interrupted, however often Ctrl-C is pressed."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Lab:
    """A lab that exists, running or not."""

    def __init__(self, layout: Layout, record: dict[str, Any]) -> None:
        self.layout = layout
        self.record = record
        self.topology: Topology = parse(record["topology"])
        self.wiring = Wiring(layout, self.topology)
        self.machines = {host.name: Machine(layout, host, self.wiring) for host in self.topology.hosts.values()}

    @classmethod
    def open(cls, layout: Layout) -> Lab:
        """The lab of this name; LabError when it is not up."""
        record = state.read(layout.record)
        if not record or not record["complete"] or record["boot"] != boot_id():
            raise LabError(f"lab '{layout.name}' is not up: run 'bin/lab --name {layout.name} up'")
        return cls(layout, record)

    @property
    def release(self) -> str:
        return str(self.record["release"])

    def machine(self, host: str) -> Machine:
        return self.machines[self.topology.host(host).name]

    def faults(self) -> Faults:
        return Faults.load(self.layout.faults, self.topology)

    def alive(self) -> bool:
        """Whether this is a lab in use, as opposed to what is left of one whose processes were killed or whose machine went down."""
        if not self.record["complete"] or self.record["boot"] != boot_id():
            return False
        states = {machine.state() for machine in self.machines.values()}
        return "broken" not in states or bool(states - {"broken", "off"})

    def power_on(self, machines: Iterable[Machine], *, wait: bool = True, say: Say = lambda line: None) -> None:
        started = list(machines)
        for machine in started:
            faults = self.faults()
            faults.power_cycle(machine.name)
            faults.save(self.layout.faults)
            machine.power_on()
        if wait:
            self.wait_ready(started, say)

    def wait_ready(self, machines: Iterable[Machine], say: Say = lambda line: None) -> None:
        """Wait until each of them has booted, answers by SSH and has its legs up."""
        waiting = {machine.name: machine for machine in machines}
        end = time.monotonic() + READY_SECONDS
        while waiting:
            for name, machine in list(waiting.items()):
                missing = machine.not_ready()
                if missing is None:
                    say(f"{name} is ready")
                    del waiting[name]
                elif time.monotonic() > end:
                    raise LabError(f"{name} is not ready after {READY_SECONDS} s: {missing}", machine.console_tail())
            time.sleep(0.05)

    def cut(self, machines: Iterable[Machine]) -> None:
        """A power cut of all of them, and the wait until nothing of them is left."""
        cut = list(machines)
        for machine in cut:
            machine.cut()
        for machine in cut:
            machine.wait_cut()


def up(layout: Layout, release: str | None, say: Say) -> Lab:
    """Make the lab, or see that an existing one runs. Leaves nothing behind when it fails."""
    requirements.require()
    limits.raise_inotify()
    layout.state.mkdir(parents=True, exist_ok=True)
    with state.locked(layout.lock, LOCK_SECONDS):
        record = state.read(layout.record)
        if record:
            lab = Lab(layout, record)
            if lab.alive():
                return _up_again(lab, release, say)
        if layout.folder.exists():
            say(f"cleaning up what is left of lab '{layout.name}'")
            remove(layout)
        return _create(layout, release or "bookworm", say)


def _up_again(lab: Lab, release: str | None, say: Say) -> Lab:
    if release and release != lab.release:
        raise LabError(f"lab '{lab.layout.name}' runs {lab.release}, not {release}: run 'bin/lab --name {lab.layout.name} down' first")
    missing = [machine for machine in lab.machines.values() if not machine.on]
    if missing:
        say(f"powering on {', '.join(machine.name for machine in missing)}")
        for machine in missing:
            machine.wait_cut()
        lab.power_on(missing, say=say)
    lab.wait_ready(machine for machine in lab.machines.values() if machine.state() == "booting")
    say(f"lab '{lab.layout.name}' is up ({lab.release})")
    return lab


def _create(layout: Layout, release: str, say: Say) -> Lab:
    data = load(TOPOLOGY)
    parse(data)
    cache = Cache(layout.cache)
    if not cache.path(release).is_dir():
        say(f"building the {release} image (about half a minute)")
    image, _ = cache.ensure(release)
    record = {"name": layout.name, "release": release, "image": str(image), "topology": data, "boot": boot_id(), "complete": False}
    try:
        layout.folder.mkdir(parents=True, mode=0o700)
        state.write(layout.record, record)
        lab = Lab(layout, record)
        say("making keys, disks and cables")
        _furnish(lab, say)
        say(f"powering on {len(lab.machines)} hosts")
        lab.power_on(lab.machines.values(), say=say)
        record["complete"] = True
        state.write(layout.record, record)
    except BaseException:
        with undisturbed():
            say("failed: removing what was made")
            remove(layout)
        raise
    say(f"lab '{layout.name}' is up ({release})")
    return lab


def _furnish(lab: Lab, say: Say) -> None:
    layout = lab.layout
    for machine in lab.machines.values():
        machine.paths.folder.mkdir(parents=True)
        state.write_text(machine.paths.power, "off")
        state.write(machine.paths.layer_list, ["0"])
        machine.group.create()
        if machine.host.kind.realtime and (problem := machine.group.allow_realtime()):
            say(f"note: {problem}")
    with ThreadPoolExecutor(4) as pool:
        work = [
            pool.submit(disk.create, machine.paths.disk, machine.host.kind.disk.size)
            for machine in lab.machines.values()
            if machine.host.kind.disk
        ]
        access.make_keys(layout, lab.topology)
        lab.wiring.lay_cables()
        for item in work:
            item.result()
    access.write_inventories(layout, lab.topology)


def down(layout: Layout, say: Say) -> None:
    layout.state.mkdir(parents=True, exist_ok=True)
    with state.locked(layout.lock, LOCK_SECONDS), undisturbed():
        existed = layout.folder.exists()
        remove(layout)
        say(f"lab '{layout.name}' is down" if existed else f"lab '{layout.name}' is not up: nothing to do")
    # Only the last lab takes the folder with it.
    with suppress(OSError):
        layout.state.rmdir()


def remove(layout: Layout) -> None:
    """Remove everything of this lab, whole or in any state of decay. The cache stays."""
    record = state.read(layout.record)
    topology = parse(record["topology"] if record else load(TOPOLOGY))
    wiring = Wiring(layout, topology)
    machines = [Machine(layout, host, wiring) for host in topology.hosts.values()]
    for machine in machines:
        if machine.paths.folder.exists():
            state.write_text(machine.paths.power, "off")
        if (data := machine.data()) is not None:
            disk.thaw(data)
        machine.group.kill()
    for machine in machines:
        if not _wait_ended(machine, 10) and (supervisor := machine.process("supervisor")):
            supervisor.kill()
            _wait_ended(machine, 2)
    wait_for(lambda: not access.control_sockets(layout), 5)
    wiring.remove_all()
    for machine in machines:
        disk.wait_released(machine.paths.disk, machine.paths.data, CUT_SECONDS)
        machine.group.remove()
    _remove_parent_groups(layout)
    if layout.folder.exists():
        remove_tree(layout.folder)


def _wait_ended(machine: Machine, seconds: float) -> bool:
    def ended() -> bool:
        machine.group.kill()
        return not machine.on

    return wait_for(ended, seconds)


def _remove_parent_groups(layout: Layout) -> None:
    Group(layout.cgroup, "", hierarchies()).remove_parent()
