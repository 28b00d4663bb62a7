# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Networks of network namespaces, to try the modules on real frames.

They need root, iproute2 and a kernel with veth and bridges; no traffic leaves the namespaces.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

PREFIX = f"arpt-{os.getpid()}-"
# Far beyond what any command here takes, on however busy a machine.
PATIENCE = 60


def run(*argv: str, **options: Any) -> str:
    """What a command prints; its error text is shown when it fails."""
    done: subprocess.CompletedProcess[str] = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.returncode}: {done.stderr or done.stdout}"
    return done.stdout


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition, and say what was waited for in vain."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not seen in {PATIENCE} s: {what}"
        time.sleep(0.02)
    return value


class Host:
    """A network namespace that stands for a machine."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self.namespace = PREFIX + name
        self.environment = environment
        self.is_switch = False
        self._processes: list[subprocess.Popen[str]] = []

    def boot(self) -> None:
        run("ip", "netns", "add", self.namespace)
        # Its own frames would be counted among those of a test.
        self.configure("net/ipv6/conf/default/disable_ipv6", "1")
        self.ip("link", "set", "lo", "up")

    def configure(self, setting: str, value: str) -> None:
        """Change a setting of the kernel's network, where it has it."""
        script = '[ ! -e "/proc/sys/$0" ] || echo "$1" > "/proc/sys/$0"'
        run("ip", "netns", "exec", self.namespace, "/bin/sh", "-c", script, setting, value)

    def ip(self, *arguments: str) -> str:
        return run("ip", "-n", self.namespace, *arguments)

    def link(self, interface: str) -> dict[str, Any]:
        link: dict[str, Any]
        (link,) = json.loads(self.ip("-json", "-details", "-statistics", "link", "show", "dev", interface))
        return link

    def mac(self, interface: str) -> str:
        return str(self.link(interface)["address"])

    def passes(self, interface: str) -> bool:
        """Whether frames go through: a port of a switch starts a moment after its carrier is there."""
        link = self.link(interface)
        port = link.get("linkinfo", {}).get("info_slave_data", {"state": "forwarding"})
        return (link["operstate"], port["state"]) == ("UP", "forwarding")

    def frames(self, interface: str, direction: str) -> int:
        """How many frames were received (`rx`) or sent (`tx`) so far."""
        return int(self.link(interface)["stats64"][direction]["packets"])

    def neighbours(self) -> set[str]:
        """The addresses in the neighbour cache."""
        return {entry["dst"] for entry in json.loads(self.ip("-json", "-4", "neigh", "show"))}

    def start(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *argv],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            **options,
        )
        self._processes.append(process)
        return process

    def start_asking(self, *probes: tuple[str, str], before: tuple[str, ...] = (), **options: Any) -> Asking:
        """Start `swg.ha.arp_probe_info`, from the file that would be copied to the host, with (address, interface)s."""
        asked = [{"address": address, "interface": interface} for address, interface in probes]
        module = "ansible_collections.swg.ha.plugins.modules.arp_probe_info"
        process = self.start(*before, sys.executable, "-m", module, stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {"probes": asked, **options}}))
        process.stdin.close()
        process.stdin = None
        return Asking(process)

    def ask(self, *probes: tuple[str, str], **options: Any) -> list[dict[str, Any]]:
        result = self.start_asking(*probes, **options).result()
        assert result["changed"] is False
        answers: list[dict[str, Any]] = result["probes"]
        return answers

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False)


class Asking:
    """A run of `swg.ha.arp_probe_info`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.started = time.monotonic()

    def result(self) -> dict[str, Any]:
        """What the module returns. `self.took` is then how many seconds it took, with starting Python."""
        out, err = self.process.communicate(timeout=PATIENCE)
        self.took = time.monotonic() - self.started
        assert out.strip(), err
        result: dict[str, Any] = json.loads(out)
        return result


class Network:
    """Machines and the cables between them. `close` removes them all."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.hosts: list[Host] = []
        self._ends = itertools.count()

    def host(self, name: str) -> Host:
        host = Host(name, self.environment)
        self.hosts.append(host)
        host.boot()
        return host

    def switch(self, name: str = "switch") -> Host:
        host = self.host(name)
        host.is_switch = True
        # Without delay, as a port would only learn for the first 15 seconds; without snooping, as it sends frames itself.
        host.ip("link", "add", "name", "bridge", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
        host.ip("link", "set", "bridge", "up")
        return host

    def cable(self, one: Host, its_end: str, other: Host, others_end: str) -> None:
        """Connect two machines. On a switch the end becomes a port of the bridge."""
        one.ip(
            "link", "add", "name", its_end, "type", "veth",
            "peer", "name", others_end, "netns", other.namespace,
        )  # fmt: skip
        ends = ((one, its_end), (other, others_end))
        for host, end in ends:
            if host.is_switch:
                host.ip("link", "set", end, "master", "bridge")
            host.ip("link", "set", end, "up")
        for host, end in ends:
            until(partial(host.passes, end), f"{end} of {host.namespace} up")

    def plug(self, host: Host, interface: str, switch: Host, *addresses: str) -> None:
        """Connect an interface with addresses (with prefix lengths) to a switch."""
        self.cable(host, interface, switch, f"port{next(self._ends)}")
        for address in addresses:
            host.ip("address", "add", address, "dev", interface)

    def close(self) -> None:
        for host in self.hosts:
            host.close()
