# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The arithmetic of a pair: who is whose peer, over which links, in which networks.

Pure functions over Ansible's gathered facts. Nothing here talks to a host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# A bridge (docker0, virbr0) often has the same private network on every machine
# and leads to no other machine: it is a link only where the operator names it.
LINK_TYPES = frozenset({"ether", "bonding", "infiniband"})


@dataclass(frozen=True)
class Address:
    """One IPv4 address of one interface."""

    interface: str
    mac: str
    address: str
    prefix: int
    kind: str

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"{self.address}/{self.prefix}", strict=False)


@dataclass(frozen=True)
class Link:
    """One cable of a server, seen from that server, with the peer's end of the same network."""

    interface: str
    address: str
    prefix: int
    network: str
    mac: str
    peer_interface: str
    peer_address: str
    peer_mac: str


def _devices(facts: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each interface's name and facts. Ansible keeps those of "br-lan" under br_lan, those of "eth0.10" under its name."""
    for name in sorted(facts.get("interfaces", [])):
        device = facts.get(name.replace("-", "_"), {})
        # A label such as eth0:0 is listed as eth0_0, without a type: its addresses are those of eth0.
        if device.get("type"):
            yield name, device


def addresses_of(facts: Mapping[str, Any], without: str = "") -> list[Address]:
    """The IPv4 addresses in ``ansible_facts``, in the order of the interfaces' names.

    ``without`` (the virtual IP) belongs to the pair, not to a server: it is left out.
    """
    found = []
    for name, device in _devices(facts):
        if device.get("type") == "loopback":
            continue
        for entry in [device.get("ipv4") or {}, *device.get("ipv4_secondaries", [])]:
            if entry.get("address") and entry["address"] != without and entry.get("prefix"):
                found.append(
                    Address(
                        name,
                        str(device.get("macaddress", "")),
                        str(entry["address"]),
                        int(entry["prefix"]),
                        str(device.get("type", "")),
                    )
                )
    return found


def links_between(mine: Sequence[Address], theirs: Sequence[Address], virtual_ip: str = "", wanted: Sequence[str] = ()) -> list[Link]:
    """The links from one server to its peer: networks that both have an address in.

    The network of ``virtual_ip`` comes first (the service link), the others in the order
    of the interface names; ``wanted`` (interface names) chooses and orders them instead.
    """
    candidates = [a for a in mine if a.interface in wanted] if wanted else [a for a in mine if a.kind in LINK_TYPES]
    if wanted:
        candidates.sort(key=lambda a: list(wanted).index(a.interface))
    elif is_ipv4(virtual_ip):
        candidates.sort(key=lambda a: ipaddress.IPv4Address(virtual_ip) not in a.network)
    links: list[Link] = []
    for address in candidates:
        peer = next((a for a in theirs if a.network == address.network and (wanted or a.kind in LINK_TYPES)), None)
        # Two networks on one interface are one cable.
        taken = {(link.network, link.interface, link.peer_interface) for link in links}
        if peer is None or any(
            network == str(address.network) or interface == address.interface or other == peer.interface
            for network, interface, other in taken
        ):
            continue
        links.append(
            Link(
                address.interface,
                address.address,
                address.prefix,
                str(address.network),
                address.mac,
                peer.interface,
                peer.address,
                peer.mac,
            )
        )
    return links


def is_ipv4(text: Any) -> bool:
    """Is this a dotted IPv4 address (no prefix length)?"""
    try:
        ipaddress.IPv4Address(str(text))
    except ValueError:
        return False
    return True


def pair_topology(
    pair: str, hosts: Sequence[str], facts: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Everything that follows from the inventory and the gathered facts of one pair.

    ``hosts`` are the inventory names in the pair's group, ``facts`` and ``settings``
    are by inventory name: ``ansible_facts`` (empty where a host could not be reached)
    and the ``ha_*`` variables. Returns ``{"problems": [text], "hosts": {name: facts of the pair}}``;
    ``hosts`` is empty where the group is not a pair.
    """
    if len(hosts) != 2:
        return {"problems": [_not_a_pair(pair, hosts)], "hosts": {}}
    problems: list[str] = []
    default_active = settings[hosts[0]].get("ha_default_active") or hosts[0]
    if default_active not in hosts:
        problems.append(
            f"ha_default_active is {default_active!r}: it must be the inventory name of a server of the "
            f"pair {pair!r}: {hosts[0]} or {hosts[1]}"
        )
        default_active = hosts[0]
    active = str(default_active)
    passive = next(host for host in hosts if host != active)
    problems += _different_settings(active, passive, settings)
    virtual_ip = str(settings[active].get("ha_virtual_ip") or "")
    addresses = {host: addresses_of(facts[host], without=virtual_ip) for host in hosts}
    nodes = {host: str(facts[host].get("nodename", "")) for host in hosts}
    result: dict[str, dict[str, Any]] = {}
    for host, peer in ((active, passive), (passive, active)):
        wanted = _texts(settings[host].get("ha_link_interfaces"))
        problems += _unknown_interfaces(host, wanted, addresses[host])
        links = links_between(addresses[host], addresses[peer], virtual_ip, wanted)
        gateway = str(facts[host].get("default_ipv4", {}).get("gateway", ""))
        pings = _texts(settings[host].get("ha_ping_nodes")) or ([gateway] if gateway else [])
        problems += [
            f"ha_ping_nodes of {host} names {ping!r}: it must be one IPv4 address, like 192.0.2.1" for ping in pings if not is_ipv4(ping)
        ]
        if facts[host] and not pings:
            problems.append(
                f"{host} has no default gateway, and ha_ping_nodes is empty: name an address that answers a ping while the network is "
                "there, so that a server that has lost it can be told from one whose peer has"
            )
        result[host] = {
            "hosts": [active, passive],
            "peer": peer,
            "node": nodes[host],
            "peer_node": nodes[peer],
            "nodes": [nodes[active], nodes[passive]],
            "is_default_active": host == active,
            "links": [asdict(link) for link in links],
            "ping_nodes": pings,
        }
    if all(facts[host] for host in hosts):
        problems += _same_server(active, passive, nodes, addresses, result)
        problems += _links(active, passive, result, addresses)
        problems += _virtual_ip(virtual_ip, result[active]["links"], {host: facts[host] for host in (active, passive)})
    return {"problems": problems, "hosts": result}


def _not_a_pair(pair: str, hosts: Sequence[str]) -> str:
    names = ", ".join(hosts) or "none"
    hint = "name each pair's own group in ha_pair" if len(hosts) > 2 else "add the missing server to the group"
    return f"the inventory group {pair!r} (ha_pair) holds {len(hosts)} servers ({names}): a pair is exactly two; {hint}"


def _texts(value: Any) -> list[str]:
    """The elements of a list; a string is one with commas between them, as Ansible's argument specifications have it."""
    return [text.strip() for text in value.split(",")] if isinstance(value, str) and value else list(map(str, value or []))


def _different_settings(active: str, passive: str, settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"{name} is {settings[active].get(name)!r} for {active}, but {settings[passive].get(name)!r} for {passive}: it must be "
        "the same for both servers of a pair; set it once, for their group"
        for name in ("ha_virtual_ip", "ha_default_active")
        if settings[active].get(name) != settings[passive].get(name)
    ]


def _unknown_interfaces(host: str, wanted: Sequence[str], addresses: Sequence[Address]) -> list[str]:
    known = sorted({a.interface for a in addresses})
    return [
        f"ha_link_interfaces of {host} names {name!r}: {host} has no such interface with an IPv4 address "
        f"(it has {', '.join(known) or 'none'})"
        for name in wanted
        if known and name not in known
    ]


def _same_server(
    active: str,
    passive: str,
    nodes: Mapping[str, str],
    addresses: Mapping[str, Sequence[Address]],
    result: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    def own(host: str) -> set[str]:
        """A bridge that is no link (docker0) may well have the same address on every machine."""
        return {a.address for a in addresses[host] if a.kind in LINK_TYPES} | {link["address"] for link in result[host]["links"]}

    shared = sorted(own(active) & own(passive))
    if shared:
        return [
            f"{active} and {passive} are the same server twice, or two with the same address: both have "
            f"{', '.join(shared)}; every server of a pair needs addresses of its own"
        ]
    if nodes[active] == nodes[passive]:
        return [
            f"{active} and {passive} both have the host name {nodes[active]!r} (uname -n): Heartbeat tells servers "
            "apart by it; give one another name (hostnamectl set-hostname)"
        ]
    return []


def _links(active: str, passive: str, result: Mapping[str, Mapping[str, Any]], addresses: Mapping[str, Sequence[Address]]) -> list[str]:
    links = result[active]["links"]
    networks = {host: [link["network"] for link in result[host]["links"]] for host in (active, passive)}
    if any(nets[:1] != networks[active][:1] or set(nets) != set(networks[active]) for nets in networks.values()):
        told = "; ".join(f"{host}: {', '.join(found) or 'none'}" for host, found in networks.items())
        return [
            f"ha_link_interfaces leads the servers of the pair to different links ({told}): name the interfaces of the same "
            "networks for both, that of the service first"
        ]
    if len(links) >= 2:
        return []
    listed = "; ".join(
        f"{host}: {', '.join(f'{a.interface} {a.address}/{a.prefix}' for a in addresses[host]) or 'no address'}"
        for host in (active, passive)
    )
    if not links:
        return [
            f"{active} and {passive} are in different networks ({listed}): both servers of a pair need an address "
            "in the network of the service and one in a second network, each over a switch of its own"
        ]
    return [
        f"{active} and {passive} share one link only ({links[0]['network']}; {listed}): a pair needs two separate "
        "links, each over a switch of its own; add a second network, or name the interfaces in ha_link_interfaces"
    ]


def _virtual_ip(virtual_ip: str, links: Sequence[Mapping[str, Any]], facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not is_ipv4(virtual_ip):
        return [f"ha_virtual_ip is {virtual_ip!r}: it must be one IPv4 address without a prefix length, like 192.0.2.10"]
    # Heartbeat adds the virtual IP beside an interface's own address: where it comes first, it is the server's own.
    own = [
        f"{host} {name}"
        for host in facts
        for name, device in _devices(facts[host])
        if (device.get("ipv4") or {}).get("address") == virtual_ip
    ]
    if own:
        return [
            f"ha_virtual_ip is {virtual_ip}: that is a server's own address ({', '.join(own)}); the virtual IP moves "
            "between the servers, choose an address that no machine has"
        ]
    if not links:
        return []
    network = ipaddress.IPv4Network(links[0]["network"])
    vip = ipaddress.IPv4Address(virtual_ip)
    if vip not in network:
        return [
            f"ha_virtual_ip is {virtual_ip}: it must be in the network of the service link, {network} "
            f"(interface {links[0]['interface']}); if another link carries the service, put it first in "
            "ha_link_interfaces"
        ]
    if vip in (network.network_address, network.broadcast_address) and network.prefixlen < 31:
        return [
            f"ha_virtual_ip is {virtual_ip}: that is the network's own or its broadcast address; choose a free host address in {network}"
        ]
    return []
