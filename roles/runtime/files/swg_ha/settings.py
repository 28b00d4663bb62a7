# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What ha_manager is told: HA/module.xml, what the playbook adds to it, and Heartbeat's own times.

Each file is the only home of what it says. Reading them changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, TypeVar

from .shared import module_xml
from .shared.heartbeat import milliseconds
from .shared.xml_document import InvalidXml

Part = TypeVar("Part")

RUNTIME = Path("/etc/ha_manager/runtime.json")
MODULE_XML = Path("/var/wasp/conf/ha/current/module.xml")
HA_CF = Path("/etc/ha.d/ha.cf")


class SettingsError(Exception):
    """The settings cannot be used; the text tells every problem, with the file that it is in."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Link:
    """A network that both servers have an address in."""

    interface: str
    address: str
    prefix: int
    peer_address: str


@dataclass(frozen=True)
class Postgresql:
    """The cluster that is replicated. slot is this server's on the other one, peer_slot the other's here."""

    version: str
    cluster: str
    data_directory: str
    port: int
    user: str
    passfile: str
    slot: str
    peer_slot: str


@dataclass(frozen=True)
class Limits:
    """Where patience ends: max_lag in bytes of WAL, quarantine_keep in folders, the rest in seconds.

    health_timeout: from the start of the policy server until it is up.
    """

    max_lag: int = 16 * 2**20
    copy_timeout: int = 7200
    heartbeat_grace: int = 30
    quarantine_keep: int = 5
    health_timeout: int = 30


@dataclass(frozen=True)
class Commands:
    """Programs with their arguments for the parts around the database; an empty one is not run. policy_server_health: or one URL."""

    manager_active: tuple[str, ...] = ()
    manager_passive: tuple[str, ...] = ()
    policy_server_start: tuple[str, ...] = ()
    policy_server_stop: tuple[str, ...] = ()
    policy_server_health: tuple[str, ...] = ()
    active_request_cli: tuple[str, ...] = ()
    full_replicate: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paths:
    """Places outside ha_manager's own. textfile: the folder of node_exporter's collector; empty: no metrics are written."""

    conf_ready: str = "/opt/finjan/configuration/conf_ready"
    base: str = "/var/policyserver/configuration/base"
    staged: str = "/opt/finjan/configuration/ha"
    trust: str = "/etc/ha_manager/trust"
    textfile: str = ""


@dataclass(frozen=True)
class Times:
    """Heartbeat's times, in seconds, and the addresses that tell whether the network is there."""

    keepalive: float
    deadtime: float
    initdead: float
    ping_nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """Everything that ha_manager goes by. The service link is the first of links; virtual_ip: None where the pair has none."""

    enabled: bool
    node: str
    peer_node: str
    default_active: str
    virtual_ip: IPv4Interface | None
    peer_port: int
    connection_timeout: int
    heartbeat_interval: int
    passive_interval: int
    links: tuple[Link, ...]
    postgresql: Postgresql
    times: Times
    synchronous: bool = False
    limits: Limits = field(default_factory=Limits)
    commands: Commands = field(default_factory=Commands)
    paths: Paths = field(default_factory=Paths)
    files: tuple[module_xml.ReplicatedFile, ...] = ()

    @property
    def is_default_active(self) -> bool:
        return self.node == self.default_active


def load(runtime: Path = RUNTIME, module: Path = MODULE_XML, ha_cf: Path = HA_CF) -> Settings:
    """Read the three files. Raises SettingsError with everything that is wrong in any of them."""
    problems: list[str] = []

    def read(path: Path, parse: Callable[[bytes], Part]) -> Part | None:
        try:
            return parse(path.read_bytes())
        except OSError as error:
            problems.append(f"{path}: {error.strerror}: run the playbook swg.ha.enable_ha")
        except InvalidXml as error:
            problems.extend(f"{path}: {problem}" for problem in error.problems)
        except (ValueError, TypeError, KeyError) as error:
            problems.append(f"{path}: {error}")
        return None

    said = read(runtime, parse_runtime)
    ha = read(module, module_xml.parse)
    times = read(ha_cf, parse_ha_cf)
    if said is None or ha is None or times is None:
        raise SettingsError(problems)
    names = {ha.default_active.name, ha.default_passive.name}
    # A module.xml from before the names were written into it says only addresses.
    if None not in names and names != {said["node"], said["peer_node"]}:
        problems.append(
            f"{module}: the pair is {' and '.join(sorted(map(str, names)))}, but {runtime} is for {said['node']}, with {said['peer_node']}"
        )
        raise SettingsError(problems)
    links: tuple[Link, ...] = said["links"]
    mine = {link.address for link in links}
    address = ha.virtual_ip
    default_active = ha.default_active.name or (said["node"] if str(ha.default_active.ip) in mine else said["peer_node"])
    return Settings(
        **said,
        enabled=ha.enabled,
        default_active=default_active,
        virtual_ip=IPv4Interface(f"{address}/{links[0].prefix}") if address else None,
        peer_port=ha.ha_manager.port,
        connection_timeout=ha.ha_manager.connection_timeout,
        heartbeat_interval=ha.ha_manager.heartbeat_cmd_interval,
        passive_interval=ha.ha_manager.passive_status_interval,
        times=times,
        files=ha.files_to_replicate,
    )


def parse_runtime(data: bytes) -> dict[str, Any]:
    """The fields of Settings that runtime.json has. Raises ValueError, TypeError or KeyError that says what is wrong."""
    said = json.loads(data)
    if not isinstance(said, dict):
        raise ValueError(f"a JSON object is expected, not {type(said).__name__}")
    known = {"node", "peer_node", "links", "postgresql", "synchronous", "limits", "commands", "paths"}
    if unknown := said.keys() - known:
        raise ValueError(f"{', '.join(sorted(unknown))}: not a setting; there are {', '.join(sorted(known))}")
    links = tuple(_build(Link, "links", link) for link in said.get("links", ()))
    if not links:
        raise ValueError("links: at least one link is needed")
    for link in links:
        IPv4Address(link.address), IPv4Address(link.peer_address)
    for name in ("node", "peer_node"):
        if not isinstance(said.get(name), str) or not said[name]:
            raise ValueError(f"{name}: a name as 'uname -n' prints it is needed")
    return {
        "node": said["node"],
        "peer_node": said["peer_node"],
        "links": links,
        "postgresql": _build(Postgresql, "postgresql", said.get("postgresql", {})),
        "synchronous": bool(said.get("synchronous", False)),
        "limits": _build(Limits, "limits", said.get("limits", {})),
        "commands": _build(Commands, "commands", {name: tuple(argv) for name, argv in said.get("commands", {}).items()}),
        "paths": _build(Paths, "paths", said.get("paths", {})),
    }


def _build(kind: type[Part], name: str, values: Mapping[str, Any]) -> Part:
    """A dataclass from a JSON object. Raises ValueError for a field that is unknown, missing or of another type."""
    types = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := values.keys() - types.keys():
        raise ValueError(f"{name}.{sorted(unknown)[0]}: not a setting; there are {', '.join(types)}")
    for key, value in values.items():
        expected = {"str": str, "int": int}.get(types[key])
        if expected is not None and (not isinstance(value, expected) or isinstance(value, bool)):
            raise ValueError(f"{name}.{key} is {value!r}: must be {'a number' if expected is int else 'a text'}")
        if expected is int and isinstance(value, int) and value < 0:
            raise ValueError(f"{name}.{key} is {value}: must not be negative")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def parse_ha_cf(data: bytes) -> Times:
    """The times and ping nodes of ha.cf, with Heartbeat's own defaults. Raises ValueError."""
    said: dict[str, str] = {}
    ping_nodes: list[str] = []
    for line in data.decode(errors="replace").splitlines():
        name, _blank, value = line.partition("#")[0].strip().partition(" ")
        if name == "ping":
            ping_nodes += value.split()
        elif name:
            said[name] = value.strip()

    def seconds(name: str, default: float) -> float:
        return milliseconds(said[name]) / 1000 if name in said else default

    deadtime = seconds("deadtime", 30)
    return Times(
        keepalive=seconds("keepalive", 1),
        deadtime=deadtime,
        initdead=seconds("initdead", max(12.0, 2 * deadtime)),
        ping_nodes=tuple(ping_nodes),
    )
