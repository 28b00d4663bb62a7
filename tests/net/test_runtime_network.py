# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The network engine of ha_manager, on real interfaces, frames and carriers."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from tests.net.namespaces import PATIENCE, Host, Network, until

FILES = Path(__file__).resolve().parents[2] / "roles" / "runtime" / "files"
VIRTUAL_IP = "192.0.2.10"
LINKS = [
    {"interface": "eth0", "address": "192.0.2.11", "prefix": 24, "peer_address": "192.0.2.12"},
    {"interface": "eth1", "address": "198.51.100.11", "prefix": 24, "peer_address": "198.51.100.12"},
]
PING_NODES = ["192.0.2.1", "198.51.100.1"]
ANNOUNCED = [0.0, 0.2, 0.5, 1.2, 2.0, 5.0, 10.0]

# Does what it is told, line by line, with a Network, and says so. It may start no process.
SERVER = """
import asyncio, inspect, json, os, sys, time
from ipaddress import IPv4Interface

from swg_ha.network import Evidence, Network
from swg_ha.settings import Link


def say(**line):
    print(json.dumps({"at": time.monotonic(), **line}), flush=True)


def refuse(event, arguments):
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"):
        raise RuntimeError(f"it starts a process: {event} {arguments}")


def plain(value):
    return sorted(value) if isinstance(value, set) else value


async def main(links, virtual_ip, ping_nodes):
    network = Network([Link(**link) for link in links], IPv4Interface(virtual_ip), ping_nodes)
    evidence = Evidence(network)
    moves = []
    await network.start(lambda interface, carrier: say(interface=interface, carrier=carrier), lambda: moves.append(network.holds()))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say(result=network.carriers)
    while line := await reader.readline():
        name, *arguments = json.loads(line)
        known = {
            "descriptors": lambda: len(os.listdir("/proc/self/fd")),
            "carriers": lambda: network.carriers,
            "moves": lambda: moves,
            "watch": evidence.start,
            "unwatch": evidence.stop,
            "evidence": lambda: [evidence.sees, evidence.held, sorted(evidence.held_by)],
        }
        began = time.monotonic()
        try:
            result = known.get(name) or getattr(network, name)
            result = result(*arguments)
            if inspect.isawaitable(result):
                result = await result
        except Exception as error:
            say(error=f"{type(error).__name__}: {error}")
        else:
            say(result=plain(result), took=time.monotonic() - began)
    evidence.stop()
    await network.close()
    assert len(asyncio.all_tasks()) == 1


sys.addaudithook(refuse)
asyncio.run(main(**json.loads(sys.argv[1])))
"""

# Prints the gratuitous ARP that it hears.
LISTENER = """
import json, socket, struct, time

listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
listener.bind(("eth0", 0x0806))
print(json.dumps("ready"), flush=True)
while True:
    frame = listener.recv(2048)
    operation, sender_mac, sender, target_mac, target = struct.unpack_from("!6xH6s4s6s4s", frame, 14)
    if sender == target:
        print(json.dumps({
            "at": time.monotonic(), "form": {1: "request", 2: "reply"}[operation], "to": frame[:6].hex(":"), "from": frame[6:12].hex(":"),
            "mac": sender_mac.hex(":"), "target_mac": target_mac.hex(":"), "address": socket.inet_ntoa(sender), "length": len(frame),
        }), flush=True)
"""


class Talk:
    """A program in a host that prints lines of JSON."""

    def __init__(self, host: Host, script: str, *arguments: str) -> None:
        host.environment = {**host.environment, "PYTHONPATH": str(FILES)}
        self.process = host.start(sys.executable, "-c", script, *arguments, stdin=-1, bufsize=1)
        self._unread = b""

    def line(self, patience: float = PATIENCE) -> Any:
        """The next line. Fails after patience seconds without one, with what the program says of it."""
        assert self.process.stdout is not None
        # Not by the file's own buffer, which may hold a line that select knows nothing of.
        pipe = self.process.stdout.fileno()
        deadline = time.monotonic() + patience
        while b"\n" not in self._unread:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready or not (part := os.read(pipe, 65536)):
                self.process.kill()
                pytest.fail(f"no line within {patience} s: {self.process.communicate()[1]}")
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)


class Server(Talk):
    """A Network in a host."""

    def __init__(self, host: Host, links: list[dict[str, Any]] = LINKS, ping_nodes: list[str] = PING_NODES) -> None:
        settings = {"links": links, "virtual_ip": f"{VIRTUAL_IP}/24", "ping_nodes": ping_nodes}
        super().__init__(host, SERVER, json.dumps(settings))
        self.host = host
        self.changes: deque[dict[str, Any]] = deque()
        self.took = 0.0
        self.carriers = self._answer()["result"]

    def __call__(self, name: str, *arguments: Any) -> Any:
        return self.tell(name, *arguments)["result"]

    def tell(self, name: str, *arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
        answer = self._answer()
        self.took = answer.get("took", 0.0)
        return answer

    def _answer(self) -> dict[str, Any]:
        while "interface" in (line := self.line()):
            self.changes.append(line)
        assert isinstance(line, dict)
        return line

    def change(self) -> dict[str, Any]:
        """The next change of a carrier."""
        change = self.changes.popleft() if self.changes else self.line()
        assert "interface" in change, change
        return dict(change)

    def addresses(self, interface: str) -> list[tuple[str, int]]:
        (link,) = json.loads(self.host.ip("-json", "-4", "address", "show", "dev", interface)) or ({},)
        return [(entry["local"], entry["prefixlen"]) for entry in link.get("addr_info", [])]

    def end(self) -> None:
        """Let it close everything, and fail if it did not."""
        _out, err = self.process.communicate(timeout=PATIENCE)
        assert (self.process.returncode, err) == (0, "")


@pytest.fixture
def switch(network: Network) -> Host:
    return network.switch()


@pytest.fixture
def gateway(network: Network, switch: Host) -> Host:
    host = network.host("gateway")
    network.plug(host, "eth0", switch, "192.0.2.1/24")
    return host


@pytest.fixture
def machine(network: Network, switch: Host, gateway: Host) -> Host:
    """A server with two links: eth0 to the switch, eth1 by a cable of its own to the gateway."""
    host = network.host("server")
    network.plug(host, "eth0", switch, "192.0.2.11/24")
    # The kernel holds the changes of a carrier back for up to a second where both ends of a cable have the same number.
    gateway.ip("link", "add", "name", "spare0", "type", "veth", "peer", "name", "spare1")
    network.cable(host, "eth1", gateway, "eth1")
    host.ip("address", "add", "198.51.100.11/24", "dev", "eth1")
    gateway.ip("address", "add", "198.51.100.1/24", "dev", "eth1")
    return host


@pytest.fixture
def server(machine: Host) -> Server:
    return Server(machine)


def holder_of_the_address(network: Network, switch: Host) -> Host:
    host = network.host("holder")
    network.plug(host, "eth0", switch, f"{VIRTUAL_IP}/24")
    return host


def neighbour_entry(host: Host) -> dict[str, Any]:
    entries = json.loads(host.ip("-json", "-4", "neigh", "show", "to", VIRTUAL_IP))
    return dict(entries[0]) if entries else {}


def test_the_address_comes_and_goes(server: Server) -> None:
    own = [("192.0.2.11", 24)]
    assert server("holds") is False
    for _turn in range(2):
        server("raise_address")
        assert server.addresses("eth0") == [*own, (VIRTUAL_IP, 24)]
        assert server("holds") is True
    assert "scope global secondary" in server.host.ip("address", "show", "to", VIRTUAL_IP)
    assert "brd 192.0.2.255" in server.host.ip("address", "show", "to", VIRTUAL_IP)
    assert server("drop_address") is True
    assert server.addresses("eth0") == own
    assert server("holds") is False
    assert server("drop_address") is False
    server.end()


def test_an_address_in_a_wrong_place_is_seen_moved_and_dropped(server: Server) -> None:
    server.host.ip("address", "add", f"{VIRTUAL_IP}/32", "dev", "lo")
    server.host.ip("address", "add", f"{VIRTUAL_IP}/32", "dev", "eth0")
    assert server("holds") is True
    server("raise_address")
    assert server.addresses("eth0") == [("192.0.2.11", 24), (VIRTUAL_IP, 24)]
    assert (VIRTUAL_IP, 32) not in server.addresses("lo")
    server.host.ip("address", "add", f"{VIRTUAL_IP}/24", "dev", "eth1")
    assert server("drop_address") is True
    assert server("holds") is False
    assert server.addresses("eth1") == [("198.51.100.11", 24)]


def test_that_somebody_takes_the_address_away_is_told(server: Server) -> None:
    """Of other addresses nothing is told."""
    server.host.ip("address", "add", "192.0.2.77/24", "dev", "eth0")
    server("raise_address")
    server.host.ip("address", "del", f"{VIRTUAL_IP}/24", "dev", "eth0")
    server.host.ip("address", "del", "192.0.2.77/24", "dev", "eth0")
    assert server("holds") is False
    assert server("moves") == [True, False]
    # With its network's first address the kernel takes the others away.
    server("raise_address")
    server.host.ip("address", "del", "192.0.2.11/24", "dev", "eth0")
    assert server("moves") == [True, False, True, False]


def test_the_address_comes_also_where_there_is_no_carrier(server: Server, switch: Host) -> None:
    """A server whose switch restarts is still the active one."""
    switch.ip("link", "set", "port1", "down")
    assert server.change()["carrier"] is False
    server("raise_address")
    server("announce")
    assert server("holds") is True


def test_an_interface_that_is_not_there_is_named(machine: Host) -> None:
    server = Server(machine, links=[{**LINKS[0], "interface": "eth7"}, LINKS[1]])
    assert server.carriers == {"eth7": False, "eth1": True}
    assert server.tell("raise_address")["error"].startswith("NetworkError: cannot give 192.0.2.10/24 to eth7: ")
    assert server("drop_address") is False
    assert server("holders", 0.1) == []


def test_neighbours_are_told_in_both_forms_again_and_again(server: Server, gateway: Host) -> None:
    listener = Talk(gateway, LISTENER)
    assert listener.line() == "ready"
    server("raise_address")
    began = time.monotonic()
    server("announce")
    heard = [listener.line(patience=15) for _moment in ANNOUNCED for _form in range(2)]
    mac = server.host.mac("eth0")
    for claim in heard:
        assert (claim["address"], claim["mac"], claim["from"], claim["to"]) == (VIRTUAL_IP, mac, mac, "ff:ff:ff:ff:ff:ff")
        assert claim["length"] == 60
    assert [claim["form"] for claim in heard] == ["request", "reply"] * len(ANNOUNCED)
    assert {claim["target_mac"] for claim in heard if claim["form"] == "reply"} == {mac}
    times = [claim["at"] - began for claim in heard[::2]]
    assert all(moment <= at < moment + 0.3 for moment, at in zip(ANNOUNCED, times, strict=True)), times
    server.end()


def test_dropping_the_address_ends_the_announcements(server: Server, gateway: Host) -> None:
    listener = Talk(gateway, LISTENER)
    assert listener.line() == "ready"
    server("raise_address")
    server("announce")
    server("drop_address")
    server("defend")
    forms = [listener.line(patience=5)["form"] for _frame in range(4)]
    assert forms == ["request", "reply"] * 2
    server.end()


def test_a_neighbour_sends_to_the_new_holder_at_once(network: Network, switch: Host, server: Server, gateway: Host) -> None:
    holder = holder_of_the_address(network, switch)
    probe = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.10', 9))"
    assert gateway.start(sys.executable, "-c", probe).wait(timeout=PATIENCE) == 0
    until(lambda: neighbour_entry(gateway).get("lladdr") == holder.mac("eth0"), "the old holder in the neighbour's cache")
    holder.ip("link", "set", "eth0", "down")
    server("raise_address")
    server("announce")
    mac = server.host.mac("eth0")
    until(lambda: neighbour_entry(gateway).get("lladdr") == mac, "the new holder in the neighbour's cache")


def test_a_link_that_comes_back_hears_of_the_address_again(server: Server, switch: Host, gateway: Host) -> None:
    listener = Talk(gateway, LISTENER)
    assert listener.line() == "ready"
    switch.ip("link", "set", "port1", "down")
    assert server.change()["carrier"] is False
    server("raise_address")
    switch.ip("link", "set", "port1", "up")
    assert server.change()["carrier"] is True
    assert listener.line(patience=5)["mac"] == server.host.mac("eth0")


def test_a_carrier_is_told_as_it_changes(server: Server, gateway: Host) -> None:
    assert server.carriers == {"eth0": True, "eth1": True}
    for state, carrier in (("down", False), ("up", True)) * 3:
        gateway.ip("link", "set", "eth1", state)
        done = time.monotonic()
        change = server.change()
        assert (change["interface"], change["carrier"]) == ("eth1", carrier)
        assert change["at"] - done < 0.5
        assert server("carriers") == {"eth0": True, "eth1": carrier}
    server.host.ip("link", "set", "eth0", "down")
    assert server.change()["interface"] == "eth0"
    server.host.ip("link", "delete", "eth1")
    change = server.change()
    assert (change["interface"], change["carrier"]) == ("eth1", False)
    assert server("carriers") == {"eth0": False, "eth1": False}


def test_a_carrier_is_known_as_soon_as_it_is_asked_for(server: Server, gateway: Host) -> None:
    for state, carrier in (("down", False), ("up", True)) * 3:
        gateway.ip("link", "set", "eth1", state)
        server("look")
        assert server("carriers") == {"eth0": True, "eth1": carrier}


def test_ping_nodes_answer_over_their_own_link(server: Server, gateway: Host) -> None:
    assert server("ping", 10.0) == PING_NODES
    assert server.took < 1.0
    gateway.ip("link", "set", "eth1", "down")
    assert server("ping", 0.3) == ["192.0.2.1"]
    assert 0.3 <= server.took < 1.0
    gateway.configure("net/ipv4/icmp_echo_ignore_all", "1")
    assert server("ping", 0.2) == []


def test_no_way_to_any_ping_node_is_known_at_once(machine: Host) -> None:
    server = Server(machine, ping_nodes=["203.0.113.1"])
    assert server("ping", 30.0) == []
    assert server.took < 1.0


def test_the_virtual_ip_is_not_asked_from(server: Server, gateway: Host) -> None:
    """Where both servers hold it, the answer would go to the other one."""
    server.host.ip("address", "flush", "dev", "eth0")
    server("raise_address")
    server.host.ip("address", "add", "192.0.2.11/24", "dev", "eth0")
    gateway.ip("neigh", "replace", VIRTUAL_IP, "lladdr", "00:00:5e:00:53:66", "dev", "eth0")
    assert server("ping", 5.0) == PING_NODES


def test_another_holder_is_found_on_any_link(network: Network, switch: Host, server: Server, gateway: Host) -> None:
    assert server("holders", 0.3) == []
    assert 0.3 <= server.took < 1.0
    server("raise_address")
    assert server("holders", 0.3) == []
    holder = holder_of_the_address(network, switch)
    assert server("holders", 10.0) == [holder.mac("eth0")]
    assert server.took < 1.0
    holder.ip("link", "set", "eth0", "down")
    gateway.ip("address", "add", f"{VIRTUAL_IP}/32", "dev", "lo")
    gateway.configure("net/ipv4/conf/eth0/arp_ignore", "8")
    assert server("holders", 10.0) == [gateway.mac("eth1")]


def test_evidence_is_there_before_it_is_asked_for(network: Network, switch: Host, server: Server, gateway: Host) -> None:
    holder = holder_of_the_address(network, switch)
    mac = holder.mac("eth0")
    assert server("evidence") == [None, None, []]
    server("watch", 0.05, 0.3)
    until(lambda: server("evidence") == [True, True, [mac]], "a ping node and a holder")
    holder.ip("address", "del", f"{VIRTUAL_IP}/24", "dev", "eth0")
    until(lambda: server("evidence") == [True, False, []], "no holder")
    gateway.configure("net/ipv4/icmp_echo_ignore_all", "1")
    until(lambda: server("evidence") == [False, False, []], "no ping node")
    gateway.configure("net/ipv4/icmp_echo_ignore_all", "0")
    switch.ip("link", "set", "port1", "down")
    # The other link still sees a ping node; that nobody answers on the service link proves nothing.
    until(lambda: server("evidence") == [True, None, []], "no way to ask")
    server("unwatch")
    assert server("evidence") == [None, None, []]
    server.end()


def test_the_loop_is_not_held_up(server: Server) -> None:
    """By no more than a few milliseconds; the quickest of ten, as the machine may be busy with other things."""
    for name in ("raise_address", "announce", "defend", "holds", "look", "drop_address"):
        took = []
        for _turn in range(10):
            server(name)
            took.append(server.took)
        assert min(took) < 0.003, name


def test_nothing_is_sent_at_rest_and_nothing_stays_open(server: Server, gateway: Host) -> None:
    open_files = server("descriptors")
    server("watch", 0.05)
    until(lambda: server("evidence")[:2] == [True, False], "evidence")
    server("unwatch")
    for _turn in range(20):
        server("ping", 1.0)
        server("holders", 0.05)
        server("raise_address")
        server("announce")
        server("holds")
        server("drop_address")
    until(lambda: server("descriptors") == open_files, "everything closed that was opened")
    sent = server.host.frames("eth0", "tx"), server.host.frames("eth1", "tx")
    time.sleep(1.0)
    assert (server.host.frames("eth0", "tx"), server.host.frames("eth1", "tx")) == sent
    server.end()
