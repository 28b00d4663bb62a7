"""Namespaces, cables and one-way loss.

A cable is a veth pair that lives as long as the lab. The end of a host that is off waits in the lab's parking
namespace under the name HOST.INTERFACE, and so does the port of a cable that is out: the other end then has no
carrier. An end carries that name as its alias, so that it is known whatever the host calls it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from . import state
from .errors import LabError
from .layout import NAMESPACES, Layout
from .process import run
from .syscalls import network_namespace
from .topology import Host, Leg, Topology

_SYSCTLS = {
    # Two legs of one host may see the same machines: each answers for its own addresses only.
    "ipv4/conf/all/arp_ignore": "1",
    "ipv4/conf/all/arp_announce": "2",
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
}


@dataclass(frozen=True)
class Block:
    """What `source` sends to `target` on the switch of these legs is lost."""

    source: Leg
    target: Leg

    def record(self) -> dict[str, str]:
        return {"from": self.source.host, "to": self.target.host, "leg": self.target.interface, "switch": self.target.switch}


def block_rules(switch: str, blocks: Iterable[Block]) -> str:
    """The nft script that makes exactly these blocks on one switch: frames are dropped as they leave the port to the target."""
    script = ["add table netdev swgha_lab", "delete table netdev swgha_lab", "add table netdev swgha_lab"]
    by_port: dict[str, list[str]] = {}
    for block in blocks:
        if block.target.switch == switch:
            by_port.setdefault(block.target.port, []).append(block.source.mac)
    for port, macs in by_port.items():
        script.append(f"add chain netdev swgha_lab {port} {{ type filter hook egress device {port} priority 0; }}")
        script += [f"add rule netdev swgha_lab {port} ether saddr {mac} counter drop" for mac in macs]
    return "\n".join(script) + "\n"


def cable_plan(topology: Topology) -> list[str]:
    """`ip -batch` lines that make every cable with both ends parked."""
    lines = []
    for number, leg in enumerate(topology.legs()):
        port_mac = f"02:00:5e:01:00:{number:02x}"
        lines.append(f"link add name {leg.parked} address {leg.mac} type veth peer name {leg.port_parked} address {port_mac}")
        lines += [f"link set dev {end} alias {end}" for end in (leg.parked, leg.port_parked)]
    return lines


class Wiring:
    """The cables of one lab."""

    def __init__(self, layout: Layout, topology: Topology) -> None:
        self.layout = layout
        self.topology = topology

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One change of the wiring at a time, among supervisors and commands."""
        with state.locked(self.layout.wiring_lock, 60):
            yield

    def lay_cables(self) -> None:
        run(["ip", "netns", "add", self.layout.parking])
        _batch(self.layout.parking, cable_plan(self.topology))

    def power_up(self, host: Host, cables_out: set[tuple[str, str]], blocks: Iterable[Block]) -> None:
        """Give the host a fresh namespace with its cable ends in it."""
        name = self.layout.machine(host.name)
        if self.layout.namespace(host.name).exists():
            self.power_down(host)
        run(["ip", "netns", "add", name])
        with network_namespace(str(self.layout.namespace(host.name))):
            for key, value in {**_SYSCTLS, **({"ipv4/ip_forward": "1"} if host.kind.forward else {})}.items():
                try:
                    with open(f"/proc/sys/net/{key}", "w") as setting:
                        setting.write(value)
                except FileNotFoundError:
                    continue
        ends = [(leg.parked, leg.interface) for leg in host.legs]
        ends += [(leg.port_parked, leg.port) for leg in self.topology.ports(host.name) if (leg.host, leg.interface) not in cables_out]
        self._hand_over(host.name, ends)
        _batch(name, ["link set dev lo up"])
        if host.kind.bridge:
            self.apply_blocks(host.name, blocks)

    def power_down(self, host: Host) -> None:
        """Take the cable ends out of the host's namespace, whatever they are called by now, and remove the namespace."""
        self._park(host.name, {leg.parked for leg in host.legs} | {leg.port_parked for leg in self.topology.ports(host.name)})
        self.remove_namespace(self.layout.machine(host.name))

    def pull(self, leg: Leg) -> None:
        """Pull the cable out of the switch."""
        self._park(leg.switch, {leg.port_parked})

    def plug(self, leg: Leg, blocks: Iterable[Block]) -> None:
        """Put the cable back into the switch, if that is on."""
        parked = [link["ifname"] for link in _links(self.layout.parking)]
        if self.layout.namespace(leg.switch).exists() and leg.port_parked in parked:
            self._hand_over(leg.switch, [(leg.port_parked, leg.port)])
            self.apply_blocks(leg.switch, blocks)

    def apply_blocks(self, switch: str, blocks: Iterable[Block]) -> None:
        """Make exactly these blocks on a switch that is on. Ports that are not there have none."""
        if not self.layout.namespace(switch).exists():
            return
        present = {link["ifname"] for link in self.links(switch)}
        rules = block_rules(switch, [block for block in blocks if block.target.port in present])
        with network_namespace(str(self.layout.namespace(switch))):
            run(["nft", "-f", "-"], input=rules, what=f"nft in {switch}")

    def links(self, host: str) -> list[dict[str, Any]]:
        """`ip -j link` of a host that is on; [] of one that is off."""
        namespace = self.layout.namespace(host)
        try:
            return _links(self.layout.machine(host)) if namespace.exists() else []
        except LabError:
            # It may have gone off since.
            if namespace.exists():
                raise
            return []

    def not_ready(self, host: Host) -> str | None:
        """What is still missing before the host's legs (or the switch's ports) carry traffic, or None."""
        links = {link["ifname"]: link for link in json.loads(run(["ip", "-j", "-d", "-n", self.layout.machine(host.name), "address"]))}
        for leg in host.legs:
            link = links.get(leg.interface, {})
            if str(leg.address) not in [a.get("local") for a in link.get("addr_info", [])]:
                return f"{leg.interface} has no address {leg.address}"
        for leg in self.topology.ports(host.name):
            link = links.get(leg.port)
            if link is None:
                continue
            if link.get("master") != "br0":
                return f"port {leg.port} is not in the bridge"
            if link.get("operstate") == "UP" and link.get("linkinfo", {}).get("info_slave_data", {}).get("state") != "forwarding":
                return f"port {leg.port} does not forward"
        return None

    def remove_namespace(self, name: str) -> None:
        if (NAMESPACES / name).exists():
            run(["ip", "netns", "delete", name])

    def remove_all(self) -> None:
        """Remove every namespace of the lab; the cables go with them."""
        for name in [*map(self.layout.machine, self.topology.hosts), self.layout.parking]:
            self.remove_namespace(name)

    def _hand_over(self, host: str, ends: list[tuple[str, str]]) -> None:
        """Move parked ends into a host. It sees them under their own names at once: systemd-networkd does not look again after a change."""
        lines = []
        for parked, interface in ends:
            lines += [f"link set dev {parked} name {interface}", f"link set dev {interface} netns {self.layout.machine(host)}"]
        _batch(self.layout.parking, lines)

    def _park(self, host: str, ends: set[str]) -> None:
        name = self.layout.machine(host)
        found = [(link["ifname"], link["ifalias"]) for link in self.links(host) if link.get("ifalias") in ends]
        _batch(name, [f"link set dev {interface} netns {self.layout.parking} name {end}" for interface, end in found])


def _links(namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(["ip", "-j", "-n", namespace, "link"]) or "[]")
    return found


def _batch(namespace: str, lines: list[str]) -> None:
    if lines:
        try:
            run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(lines) + "\n", what=f"ip in {namespace}")
        except LabError as error:
            raise LabError(f"{error} ({'; '.join(lines)[:200]})", error.details) from None
