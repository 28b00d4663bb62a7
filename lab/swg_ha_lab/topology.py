"""The topology: hosts, their kinds, their legs on the switches. Pure; read from TOML, kept as JSON by a running lab."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from .errors import LabError, UsageError

_HOST = re.compile(r"[a-z][a-z0-9]{0,8}")
_INTERFACE = re.compile(r"[a-z][a-z0-9]{0,4}")
_SIZE = re.compile(r"([1-9][0-9]*)([MG])")
_UNITS = {"M": 1024**2, "G": 1024**3}


@dataclass(frozen=True)
class Disk:
    """A data disk: its size in bytes and where the host finds it."""

    size: int
    mount: str


@dataclass(frozen=True)
class Kind:
    name: str
    group: str
    services: tuple[str, ...] = ()
    disk: Disk | None = None
    bridge: bool = False
    forward: bool = False
    time_source: bool = False
    realtime: bool = False
    inventory: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Leg:
    """A network card of a host and the cable to a port of a switch."""

    host: str
    interface: str
    switch: str
    port: str
    address: IPv4Address
    network: IPv4Network
    gateway: IPv4Address | None
    mac: str

    @property
    def parked(self) -> str:
        """The name of the host's end of the cable while the host is off."""
        return f"{self.host}.{self.interface}"

    @property
    def port_parked(self) -> str:
        """The name of the switch's end while the switch is off or the cable is out."""
        return f"{self.switch}.{self.port}"


@dataclass(frozen=True)
class Host:
    name: str
    kind: Kind
    legs: tuple[Leg, ...] = ()
    network: IPv4Network | None = None


@dataclass(frozen=True)
class Topology:
    hosts: Mapping[str, Host]

    def host(self, name: str) -> Host:
        try:
            return self.hosts[name]
        except KeyError:
            raise UsageError(f"host '{name}' is not in the topology: it has {', '.join(self.hosts)}") from None

    def switch(self, name: str) -> Host:
        host = self.host(name)
        if not host.kind.bridge:
            raise UsageError(f"'{name}' is a {host.kind.name}, not a switch: use {' or '.join(h.name for h in self.switches())}")
        return host

    def switches(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.kind.bridge]

    def legs(self) -> list[Leg]:
        return [leg for host in self.hosts.values() for leg in host.legs]

    def ports(self, switch: str) -> list[Leg]:
        return [leg for leg in self.legs() if leg.switch == switch]

    def leg(self, host: str, interface: str) -> Leg:
        """A leg by its interface (`eth0`) or its number (`0`)."""
        legs = self.host(host).legs
        for number, leg in enumerate(legs):
            if interface in (leg.interface, str(number)):
                return leg
        has = ", ".join(leg.interface for leg in legs) or "none: it is a switch, name the host at the other end"
        raise UsageError(f"{host} has no link '{interface}': it has {has}")

    def common_legs(self, source: str, target: str, interface: str | None = None) -> list[tuple[Leg, Leg]]:
        """The pairs of legs (of source, of target) on one switch; with `interface`, only the target's leg of that name."""
        if source == target:
            raise UsageError(f"'{source}' is named twice: name two hosts")
        wanted = None if interface is None else self.leg(target, interface)
        pairs = [
            (mine, other)
            for other in self.host(target).legs
            for mine in self.host(source).legs
            if mine.switch == other.switch and wanted in (None, other)
        ]
        if not pairs:
            raise UsageError(f"{source} and {target} have no {'such ' if interface else ''}leg on a common switch")
        return pairs


def load(path: Path) -> dict[str, Any]:
    """The topology file as plain data."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise LabError(f"{path}: {error}") from None


def parse(data: Mapping[str, Any]) -> Topology:
    """Check the plain data (see topology.toml for its shape); LabError names the first entry that is wrong."""
    _keys("topology", data, required=("kinds", "hosts"))
    kinds = {name: _kind(name, entry) for name, entry in data["kinds"].items()}
    entries: Mapping[str, Any] = data["hosts"]
    for name, entry in entries.items():
        if not _HOST.fullmatch(name):
            raise LabError(f"hosts.{name}: a host's name is a small letter and at most 8 small letters or digits")
        _keys(f"hosts.{name}", entry, required=("kind",), optional=("legs", "network", "gateway"))
        if entry["kind"] not in kinds:
            raise LabError(f"hosts.{name}.kind: '{entry['kind']}' is not one of {', '.join(kinds)}")
        if kinds[entry["kind"]].bridge == ("network" not in entry) or kinds[entry["kind"]].bridge == ("legs" in entry):
            raise LabError(f"hosts.{name}: a switch has a network and no legs, any other host has legs and no network")
    switches = {name: entry for name, entry in entries.items() if kinds[entry["kind"]].bridge}
    hosts: dict[str, Host] = {}
    taken: dict[str, str] = {}
    for number, (name, entry) in enumerate(entries.items()):
        kind = kinds[entry["kind"]]
        if kind.bridge:
            hosts[name] = Host(name, kind, network=_network(f"hosts.{name}.network", entry["network"]))
            continue
        legs = []
        for index, (interface, leg_entry) in enumerate(entry["legs"].items()):
            where = f"hosts.{name}.legs.{interface}"
            leg = _leg(where, name, interface, leg_entry, switches, f"02:00:5e:00:{number:02x}:{index:02x}")
            _claim(where, taken, f"{leg.address}", name)
            _claim(where, taken, f"{leg.switch} {leg.port}", name)
            legs.append(leg)
        hosts[name] = Host(name, kind, tuple(legs))
    return Topology(hosts)


def _claim(where: str, taken: dict[str, str], thing: str, host: str) -> None:
    if thing in taken:
        raise LabError(f"{where}: {thing} is taken by {taken[thing]}")
    taken[thing] = host


def _kind(name: str, entry: Mapping[str, Any]) -> Kind:
    where = f"kinds.{name}"
    flags = ("bridge", "forward", "time_source", "realtime")
    _keys(where, entry, required=("group",), optional=("services", "disk", "inventory", *flags))
    disk = None
    if "disk" in entry:
        _keys(f"{where}.disk", entry["disk"], required=("size", "mount"))
        disk = Disk(parse_size(f"{where}.disk.size", entry["disk"]["size"]), entry["disk"]["mount"])
        if not re.fullmatch(r"(/[a-z0-9_-]+)+", disk.mount):
            raise LabError(f"{where}.disk.mount: '{disk.mount}' is not an absolute path")
    for flag in flags:
        if not isinstance(entry.get(flag, False), bool):
            raise LabError(f"{where}.{flag}: '{entry[flag]}' is neither true nor false")
    return Kind(
        name,
        entry["group"],
        tuple(entry.get("services", ())),
        disk,
        inventory=entry.get("inventory", {}),
        **{flag: entry.get(flag, False) for flag in flags},
    )


def _leg(where: str, host: str, interface: str, entry: Mapping[str, Any], switches: Mapping[str, Any], mac: str) -> Leg:
    if not _INTERFACE.fullmatch(interface):
        raise LabError(f"{where}: an interface's name is a small letter and at most 4 small letters or digits")
    _keys(where, entry, required=("switch", "port", "address"))
    if entry["switch"] not in switches:
        raise LabError(f"{where}.switch: '{entry['switch']}' is not one of {', '.join(switches) or 'the switches: there are none'}")
    if not _INTERFACE.fullmatch(entry["port"]):
        raise LabError(f"{where}.port: '{entry['port']}' is not a small letter and at most 4 small letters or digits")
    switch = switches[entry["switch"]]
    network = _network(f"hosts.{entry['switch']}.network", switch["network"])
    address = _address(f"{where}.address", entry["address"], network)
    gateway = _address(f"hosts.{entry['switch']}.gateway", switch["gateway"], network) if "gateway" in switch else None
    return Leg(host, interface, entry["switch"], entry["port"], address, network, None if gateway == address else gateway, mac)


def _network(where: str, text: object) -> IPv4Network:
    try:
        return IPv4Network(str(text))
    except ValueError as error:
        raise LabError(f"{where}: {error}") from None


def _address(where: str, text: object, network: IPv4Network) -> IPv4Address:
    try:
        address = IPv4Address(str(text))
    except ValueError as error:
        raise LabError(f"{where}: {error}") from None
    if address not in network or address in (network.network_address, network.broadcast_address):
        raise LabError(f"{where}: {address} is not a host's address in {network}")
    return address


def parse_size(where: str, text: object) -> int:
    """`512M` or `8G` in bytes."""
    found = _SIZE.fullmatch(str(text))
    if not found:
        raise LabError(f"{where}: '{text}' is not a size such as 512M or 8G")
    return int(found[1]) * _UNITS[found[2]]


def _keys(where: str, entry: object, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    if not isinstance(entry, Mapping):
        raise LabError(f"{where}: a table is wanted, not '{entry}'")
    for name in required:
        if name not in entry:
            raise LabError(f"{where}: '{name}' is missing")
    for name in entry:
        if name not in (*required, *optional):
            raise LabError(f"{where}: '{name}' is not known here: {', '.join((*required, *optional))}")
