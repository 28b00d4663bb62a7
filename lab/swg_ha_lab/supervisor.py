"""The mains and the BIOS of one host: a process that boots it, boots it again when it reboots, and ends when it is off.

Every boot gets a fresh network namespace, and a mount namespace of its own in which the overlay and the data disk are
mounted: when the last process of the host is gone, so are its mounts.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import traceback
import uuid
from pathlib import Path
from typing import NoReturn

from . import disk, hostfiles, state, syscalls
from .cgroups import Group
from .faults import Faults
from .layout import Layout
from .network import Wiring
from .process import Process, run
from .topology import Host, Topology, parse

REBOOT = 133
RELEASE_SECONDS = 10
_NSPAWN_RUNTIME = "/run/systemd/nspawn"


def nspawn_command(layout: Layout, host: Host) -> list[str]:
    paths = layout.host(host.name)
    argv = [
        "systemd-nspawn",
        "--quiet",
        f"--directory={paths.root}",
        f"--machine={layout.machine(host.name)}",
        f"--hostname={host.name}",
        f"--network-namespace-path={layout.namespace(host.name)}",
        "--register=no",
        "--keep-unit",
        "--capability=CAP_NET_ADMIN,CAP_IPC_LOCK",
        # The clock is the whole machine's: no host may touch it.
        "--drop-capability=CAP_SYS_TIME",
        "--rlimit=RLIMIT_MEMLOCK=infinity",
        "--rlimit=RLIMIT_NOFILE=65536",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--notify-ready=yes",
    ]
    if host.kind.disk:
        argv.append(f"--bind={paths.data}:{host.kind.disk.mount}")
    return [*argv, "--boot"]


def overlay_options(image: str, folders: Path, layers: list[str], work: Path) -> str:
    """Mount options of an overlay of `layers` (oldest first, the last one written to) over the image.

    redirect_dir: without it, a folder that a snapshot holds can be neither renamed nor exchanged, as it can on any server's disk.
    """
    lower = [str(folders / layer) for layer in reversed(layers[:-1])] + [image]
    return f"lowerdir={':'.join(lower)},upperdir={folders / layers[-1]},workdir={work},redirect_dir=on"


class Supervisor:
    def __init__(self, layout: Layout, topology: Topology, image: str, host: str) -> None:
        self.layout = layout
        self.topology = topology
        self.image = image
        self.host = topology.host(host)
        self.paths = layout.host(host)
        self.wiring = Wiring(layout, topology)
        self.group = Group(layout.cgroup, host)

    def run(self) -> None:
        boots = 0
        while self.paths.power.read_text() == "on":
            boots += 1
            status = self._boot(boots)
            with self.wiring.exclusive():
                self.wiring.power_down(self.host)
            disk.wait_released(self.paths.disk, self.paths.data, RELEASE_SECONDS)
            if status != REBOOT:
                state.write_text(self.paths.power, "off")

    def _boot(self, boots: int) -> int:
        """Boot the host and wait until it has stopped. Returns its exit status (negative: the signal that ended it)."""
        # Fresh groups for every boot: in one that was killed before, some kernels kill whatever systemd starts
        # by clone3(CLONE_INTO_CGROUP), as they compare the kill counts of two different groups.
        self.group.remove()
        with self.wiring.exclusive():
            self.group.create()
            if self.host.kind.realtime:
                self.group.allow_realtime()
            faults = Faults.load(self.layout.faults, self.topology)
            self.wiring.power_up(self.host, faults.cables_out, faults.blocks)
        self.paths.notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self.paths.notify))
            pid = os.fork()
            if pid == 0:
                self._become_host()
            me, machine = Process.of(os.getpid()), Process.of(pid)
            record = {
                "supervisor": me.record() if me else None,
                "machine": machine.record() if machine else None,
                "boots": boots,
                "ready": False,
            }
            state.write(self.paths.run, record)
            with selectors.DefaultSelector() as selector:
                ended = os.pidfd_open(pid)
                selector.register(ended, selectors.EVENT_READ)
                selector.register(notify, selectors.EVENT_READ)
                while not any(key.fd == ended for key, _ in selector.select()):
                    if b"READY=1" in notify.recv(4096).split(b"\n") and not record["ready"]:
                        record["ready"] = True
                        state.write(self.paths.run, record)
                os.close(ended)
            state.write(self.paths.run, {**record, "ready": False})
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _become_host(self) -> NoReturn:
        """In the child: mount the host's disks where only it sees them, and turn into systemd-nspawn."""
        try:
            syscalls.die_with_parent(signal.SIGKILL)
            log = os.open(self.paths.console, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            self.group.join()
            syscalls.unshare_mounts()
            # What nspawn leaves here when it is killed goes with the mount.
            os.makedirs(_NSPAWN_RUNTIME, exist_ok=True)
            run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", _NSPAWN_RUNTIME])
            self._mount_root()
            if not self.paths.prepared.exists():
                self._prepare()
            if self.host.kind.disk:
                disk.check(self.paths.disk)
                self.paths.data.mkdir(exist_ok=True)
                run(["mount", "-o", "loop,errors=remount-ro,noinit_itable", str(self.paths.disk), str(self.paths.data)])
                self._limit_disk()
            environment = {
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "NOTIFY_SOCKET": str(self.paths.notify),
                "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                # /sys/class/net and /proc/sys/net are those of the host's namespace, the latter writable.
                "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
            }
            argv = nspawn_command(self.layout, self.host)
            os.execvpe(argv[0], argv, environment)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)

    def _mount_root(self) -> None:
        layers: list[str] = state.read(self.paths.layer_list)
        work = self.paths.work / layers[-1]
        for folder in (work, self.paths.root, self.paths.layers / layers[-1]):
            folder.mkdir(parents=True, exist_ok=True)
        options = overlay_options(self.image, self.paths.layers, layers, work)
        run(["mount", "-t", "overlay", self.layout.machine(self.host.name), "-o", options, str(self.paths.root)])

    def _prepare(self) -> None:
        keys = {
            "authorized": (self.layout.keys / "client.pub").read_text(),
            "host": (self.layout.keys / self.host.name).read_text(),
            "host_public": (self.layout.keys / f"{self.host.name}.pub").read_text(),
        }
        for name, file in hostfiles.files(self.topology, self.host, keys, uuid.uuid4().hex).items():
            path = self.paths.root / name
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if name.startswith("root/") else 0o755)
            path.unlink(missing_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode), "w") as out:
                out.write(file.text)
        units = self.paths.root / "etc/systemd/system"
        for service in self.host.kind.services:
            unit = f"{service}.service"
            for link, target in hostfiles.enablement(unit, (self.paths.root / f"usr/lib/systemd/system/{unit}").read_text()).items():
                (units / link).parent.mkdir(exist_ok=True)
                (units / link).symlink_to(target)
        self.paths.prepared.touch()

    def _limit_disk(self) -> None:
        operations = Faults.load(self.layout.faults, self.topology).slow.get(self.host.name)
        device = disk.loop_device(self.paths.disk)
        if operations and device:
            self.group.limit_writes(disk.device_number(device), operations)


def main() -> None:
    """`NAME STATE CACHE HOST` as arguments."""
    name, state_folder, cache, host = sys.argv[1:]
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    layout = Layout(name, Path(state_folder), Path(cache))
    record = state.read(layout.record)
    Supervisor(layout, parse(record["topology"]), record["image"], host).run()
