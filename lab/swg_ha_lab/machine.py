"""One host of a lab, seen from outside: its state, its power, its disk's folder."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from . import PACKAGE, disk, state
from .cgroups import Group
from .errors import LabError
from .layout import Layout
from .network import Wiring
from .process import Process, wait_for
from .syscalls import network_namespace
from .topology import Host

READY_SECONDS = 90
CUT_SECONDS = 30
_LAUNCH = "import sys; sys.path.insert(0, sys.argv.pop(1)); from swg_ha_lab.supervisor import main; main()"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|[^\n\t\x20-\x7e\x80-\U0010ffff]")


class Machine:
    def __init__(self, layout: Layout, host: Host, wiring: Wiring) -> None:
        self.layout = layout
        self.host = host
        self.name = host.name
        self.wiring = wiring
        self.paths = layout.host(host.name)
        self.group = Group(layout.cgroup, host.name)

    def process(self, which: str) -> Process | None:
        """`supervisor` or `machine` of the present run, if it is alive."""
        process = Process.from_record((state.read(self.paths.run) or {}).get(which))
        return process if process and process.alive() else None

    @property
    def on(self) -> bool:
        return self.process("supervisor") is not None

    def state(self) -> str:
        """`on`, `booting`, `frozen`, `off`, or `broken`: meant to be on, but its supervisor is gone."""
        if not self.on:
            return "broken" if state.read_text(self.paths.power) == "on" else "off"
        if self.group.frozen():
            return "frozen"
        return "on" if (state.read(self.paths.run) or {}).get("ready") else "booting"

    def require(self, *states: str) -> None:
        """LabError, with the remedy, unless the host is in one of these states."""
        found = self.state()
        if found in states:
            return
        remedies = {
            "off": f"power on {self.name}",
            "broken": f"power reset {self.name}",
            "frozen": f"thaw {self.name}",
            "booting": "status",
            "on": f"power off {self.name}",
        }
        raise LabError(f"{self.name} is {found}: run 'bin/lab --name {self.layout.name} {remedies[found]}' first")

    def power_on(self) -> None:
        """Start the host; it is ready when `wait_ready` says so."""
        state.write_text(self.paths.power, "on")
        self.paths.console.write_text("")
        self.paths.run.unlink(missing_ok=True)
        layout = self.layout
        arguments = [str(PACKAGE.parent), layout.name, str(layout.state), str(layout.cache), self.name]
        with self.paths.console.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCH, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                start_new_session=True,
            )
        supervisor = Process.of(child.pid)
        # The supervisor's own record, which has more, replaces this one at once.
        if supervisor and not self.paths.run.exists():
            state.write(self.paths.run, {"supervisor": supervisor.record(), "ready": False})
        # It outlives us on purpose: not ours to wait for.
        child.returncode = 0

    def not_ready(self) -> str | None:
        """What the host still lacks to be of use, or None. LabError when it never will be ready."""
        if not self.on:
            raise LabError(f"{self.name} stopped while it started", self.console_tail())
        if not (state.read(self.paths.run) or {}).get("ready"):
            return "it has not booted"
        try:
            with network_namespace(str(self.layout.namespace(self.name))), socket.create_connection(("127.0.0.1", 22), timeout=2) as ssh:
                if ssh.recv(4) != b"SSH-":
                    return "its SSH server says nothing"
        except OSError as error:
            return f"its SSH server does not answer ({error})"
        return self.wiring.not_ready(self.host)

    def console_tail(self, lines: int = 15) -> str:
        try:
            text = _CONTROL.sub("", self.paths.console.read_text(errors="replace"))
        except FileNotFoundError:
            return ""
        rows = [row for row in text.splitlines() if row.strip()]
        return "\n".join([f"last lines of {self.paths.console}:", *rows[-lines:]])

    def cut(self) -> None:
        """Take the power away: from this moment nothing of the host answers, and nothing of it reaches its disk."""
        state.write_text(self.paths.power, "off")
        if self.group.unified.exists():
            self.group.freeze(0.3)
        with self.wiring.exclusive():
            self.wiring.power_down(self.host)
        if data := self.data():
            disk.cut(data)
            # A frozen file system would outlive its host; it is cut off already, so nothing is written now.
            disk.thaw(data)
        self.group.kill()

    def wait_cut(self) -> None:
        """Wait until the last trace of the host's run is gone; only then may it be started again."""
        end = time.monotonic() + CUT_SECONDS
        while self.on or self.group.processes():
            # A host that was between two boots when it was cut is cut again.
            self.group.kill()
            if time.monotonic() > end:
                raise LabError(f"{self.name}: processes {self.group.processes()} will not end", self.console_tail())
            time.sleep(0.02)
        with self.wiring.exclusive():
            self.wiring.power_down(self.host)
        disk.wait_released(self.paths.disk, self.paths.data, CUT_SECONDS)

    def shut_down(self) -> None:
        """Ask the host to power off, as its power button does."""
        if machine := self.process("machine"):
            machine.kill(signal.SIGTERM)

    def wait_shut_down(self, seconds: float) -> None:
        if not wait_for(lambda: not self.on, seconds, 0.05):
            raise LabError(f"{self.name} has not powered off in {seconds:g} s: 'power off {self.name}' cuts its power", self.console_tail())
        disk.wait_released(self.paths.disk, self.paths.data, CUT_SECONDS)

    def data(self) -> Path | None:
        """The data disk's folder as seen from here, when the host has one and it is mounted."""
        machine = self.process("machine")
        if not self.host.kind.disk or not machine:
            return None
        path = Path(f"/proc/{machine.pid}/root{self.paths.data}")
        return path if os.path.ismount(path) else None

    def mounts(self) -> str:
        """/proc/PID/mountinfo of the host's own mount namespace."""
        machine = self.process("machine")
        return Path(f"/proc/{machine.pid}/mountinfo").read_text() if machine else ""
