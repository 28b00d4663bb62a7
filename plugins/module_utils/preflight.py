# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a pair must be like before anything is changed on it.

Pure functions. Each takes what was seen on the two servers and returns sentences that name
the thing, its value and what would be right. An empty list means that all is well.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError

from ansible_collections.swg.ha.plugins.module_utils.clock import Offset
from ansible_collections.swg.ha.plugins.module_utils.settings import SETTINGS
from ansible_collections.swg.ha.plugins.module_utils.topology import is_ipv4

Observations = Mapping[str, Mapping[str, Any]]

# What listens on the addresses of the links.
TCP_PORTS = ("ha_config_device_uname_port", "ha_config_manager_port", "logrelay_port", "postgres_streaming_port")


def variable_problems(host: str, variables: Mapping[str, Any], specifications: Mapping[str, Any]) -> list[str]:
    """Check what the inventory sets against the argument specifications of the collection and of its roles.

    ``specifications`` holds argument specifications by variable name. Variables that are not set are left to the
    roles' defaults; only those of the collection as a whole can be missing.
    """
    known = {**specifications, **SETTINGS}
    given = {name: variables[name] for name in known if name in variables and variables[name] is not None}
    spec = {name: known[name] for name in known if name in given or known[name].get("required")}
    problems = [
        # Ansible leaves it to the caller to say what is wrong with an unsupported parameter.
        f"{host}: {'unsupported option ' if isinstance(error, UnsupportedError) else ''}{error.msg}"
        for error in ArgumentSpecValidator(spec).validate(given).errors.errors
    ]
    for name, value in given.items():
        problems += [f"{host}: {text}" for text in _port_problems(name, value)]
    for name in variables:
        if name.startswith("ha_") and name not in SETTINGS:
            # A group name or a fact of the operator's own may begin like ours: only a near miss is told.
            for meant in difflib.get_close_matches(name, list(SETTINGS), n=1, cutoff=0.85):
                problems.append(f"{host}: there is no setting {name}: did you mean {meant}?")
    return problems


def _port_problems(name: str, value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _port_problems(f"{name}.{key}", inner)
    elif re.search(r"(^|[._])port$", name):
        try:
            valid = 1 <= int(value) <= 65535
        except (TypeError, ValueError):
            valid = False
        # "port: yes" is a true one in YAML, and port 1 to Python.
        if not valid or isinstance(value, bool):
            yield f"{name} is {value!r}: a port is a number from 1 to 65535"


def application_problems(everyone: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """What the inventory says of the application, by host: it would start with none of this, or a takeover would not move it."""
    devices = {
        host: str(variables["policy_server_device_id"]) for host, variables in everyone.items() if variables.get("policy_server_device_id")
    }
    for host, device in devices.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", device) or device == "global":
            yield (
                f"{host}: policy_server_device_id is {device!r}: up to 63 letters, digits, '.', '_' and '-', a letter or a digit first, "
                "and not 'global'"
            )
    if len(set(devices.values())) < len(devices):
        yield f"the servers have the same policy_server_device_id ({_each(devices)}): each is a device of its own"
    for host, variables in everyone.items():
        networks = variables.get("policy_server_clients")
        # Another form is told by the argument specifications.
        for network in networks if isinstance(networks, list) else ():
            try:
                IPv4Network(network)
            except ValueError as error:
                yield f"{host}: policy_server_clients has {network!r} ({error}): an IPv4 network is needed, like 192.0.2.0/24"
        health = variables.get("policy_server_health")
        if isinstance(health, list) and len(health) == 1 and re.match(r"(?!http://)\w+://", str(health[0])):
            yield (
                f"{host}: policy_server_health is {health[0]!r}: only http:// is asked without help; for others name a program, like "
                "[curl, --fail, --silent, URL]"
            )


def port_clashes(host: str, variables: Mapping[str, Any], specifications: Mapping[str, Any]) -> list[str]:
    """Ports that two programs of the pair would listen on."""
    users: dict[str, list[str]] = {}
    for name in TCP_PORTS:
        port = variables.get(name)
        users.setdefault(str(specifications.get(name, {}).get("default") if port is None else port), []).append(name)
    return [
        f"{host}: {' and '.join(names)} are both {port}: each needs a port of its own" for port, names in users.items() if len(names) > 1
    ]


def reachability_problems(observed: Observations) -> list[str]:
    """Servers that Ansible could not talk to."""
    return [
        f"{host} cannot be reached from the controller ({observed[host].get('unreachable_reason') or 'no facts'}): both "
        "servers of a pair must be up; check its power, its network and that you can log in to it by SSH"
        for host in observed
        if not observed[host].get("reachable")
    ]


def version_problems(observed: Observations, packages: Sequence[str]) -> list[str]:
    """Different systems or package versions on the two servers."""
    problems = []
    systems = {host: seen.get("system", "unknown") for host, seen in observed.items()}
    if len(set(systems.values())) > 1:
        problems.append(f"the servers run different systems ({_each(systems)}): both servers of a pair must run the same release")
    for host, system in systems.items():
        if system not in ("Debian 12", "Debian 13"):
            problems.append(f"{host} runs {system}: the collection supports Debian 12 and Debian 13")
    for host, seen in observed.items():
        if seen.get("service_manager") != "systemd":
            problems.append(f"{host} is managed by {seen.get('service_manager')!r}: systemd is needed as process 1")
    for package in packages:
        # Different releases have different versions, and packages of different names.
        if len(set(systems.values())) > 1:
            break
        versions = {host: seen.get("packages", {}).get(package) for host, seen in observed.items()}
        if len(set(versions.values())) > 1:
            problems.append(
                f"the servers have different versions of {package} ({_each(versions)}): both must run the same; bring "
                "them to the same state with apt first"
            )
        problems += [
            f"{host}: package {package} is neither installed nor known to apt: check the package sources, or run apt-get update"
            for host, version in versions.items()
            if version is None
        ]
    return problems


def package_versions(policy: str) -> dict[str, str]:
    """Installed versions, or else the versions that apt would install, from the output of ``apt-cache policy``."""
    versions: dict[str, str] = {}
    package = ""
    for line in policy.splitlines():
        if line and not line[0].isspace():
            package = line.rstrip(":")
        found = re.match(r"\s+(Installed|Candidate): (\S+)", line)
        # The installed version comes first. "(none)" is apt's word, whatever the locale of Debian's C.UTF-8.
        if found and found[2] != "(none)":
            versions.setdefault(package, found[2])
    return versions


def installed_packages(listing: str) -> dict[str, str]:
    """Versions of the installed packages, from ``dpkg-query`` with a line ``STATUS PACKAGE VERSION`` for each that it knows."""
    words = (line.split() for line in listing.splitlines())
    return {found[1]: found[2] for found in words if len(found) == 3 and found[0] == "installed"}


def clock_problems(offset: Offset, limit_s: float) -> list[str]:
    """The clocks of the two servers, compared; a problem only where the measurement leaves no doubt."""
    if not offset.beyond(limit_s):
        return []
    return [
        f"the servers' clocks differ by {abs(offset.offset_s):.3f} s (give or take {offset.uncertainty_s:.3f} s), the limit "
        f"(preflight_clock_offset_max) is {limit_s} s: set both by the same NTP server first"
    ]


def name_problems(observed: Observations) -> list[str]:
    """Servers of a pair that tell each other another name than their facts have.

    Of each server, ``node`` is its name by its facts, and ``peer_told`` the name that the other one's handler told it; empty: none.
    """
    problems = []
    for host, seen in observed.items():
        for other, other_seen in observed.items():
            told, node = seen.get("peer_told"), other_seen.get("node")
            if other != host and told and told != node:
                problems.append(
                    f"{other}: its handler device_uname tells {host} the name {told}, but its facts say {node}: restart the service "
                    f"device_uname there if {node} is right, or give the server its name {told} back"
                )
    return problems


def link_probes(links: Sequence[Mapping[str, Any]], virtual_ip: Any = None) -> list[dict[str, str]]:
    """Ask for each of the peer's addresses on every link: on its own it must answer, on the others it must not.

    ``virtual_ip`` is asked for on the first link, if it is an address in that link's network.
    """
    probes = []
    if links and is_ipv4(virtual_ip) and ip_address(str(virtual_ip)) in ip_network(links[0]["network"]):
        probes.append({"address": str(virtual_ip), "interface": str(links[0]["interface"])})
    return probes + [{"address": str(link["peer_address"]), "interface": str(asked["interface"])} for asked in links for link in links]


def address_problems(observed: Observations, virtual_ip: str) -> list[str]:
    """Who answers for the virtual IP, whether each link leads to the peer, and whether the links are separate.

    Of each server, ``links`` is the fact ``topology_links`` and ``probes`` what ``arp_probe_info`` returned for
    the virtual IP and for ``link_probes()``.
    """
    own = {link[end].lower() for seen in observed.values() for link in seen["links"] for end in ("mac", "peer_mac")}
    problems = []
    for host, seen in observed.items():
        by_address = {link["peer_address"]: link for link in seen["links"]}
        for probe in seen["probes"]:
            address, interface, answers = probe["address"], probe["interface"], set(probe["macs"])
            if probe["error"]:
                problems.append(f"{host}: {interface} cannot be used as a link: {probe['error']}")
            elif address == virtual_ip:
                if answers - own:
                    problems.append(
                        f"ha_virtual_ip {virtual_ip} is already answered by another machine "
                        f"({', '.join(sorted(answers - own))}, seen by {host} on {interface}): choose an address that "
                        "nobody uses"
                    )
            # What is neither was asked for by a server with a virtual IP of its own: that is told by topology.py.
            elif address in by_address:
                problems += _link_problems(host, interface, by_address[address], answers)
    return list(dict.fromkeys(problems))


def _link_problems(host: str, interface: str, link: Mapping[str, Any], answers: set[str]) -> Iterable[str]:
    address, answered = link["peer_address"], link["peer_mac"].lower() in answers
    if interface == link["interface"] and not answered:
        yield (
            f"{host}: the peer does not answer for {address} on {interface}: check the cable, the switch and the "
            "addresses of that link, or name the right interfaces in ha_link_interfaces"
        )
    elif interface != link["interface"] and answered:
        yield (
            f"{host}: the peer's {address} of link {link['interface']} answers on {interface} too: the two links share "
            "one network segment, and one switch can cut both; give each link a switch (or a VLAN) of its own"
        )


def choose_primary(postgres: Observations, default_active: str, default_passive: str, told: str | None) -> tuple[str, list[str]]:
    """Which server's databases live on, and what speaks against replacing the other's.

    ``postgres`` holds what ``pg_replica`` (state observed) says, by inventory name. Returns the inventory name of the
    primary, and problems.
    """
    hosts = (default_active, default_passive)
    if told and told not in hosts:
        return default_active, [f"ha_data_source is {told!r}: it must be the inventory name of a server of the pair: {' or '.join(hosts)}"]
    standbys = [host for host in hosts if postgres[host].get("in_recovery")]
    primaries = [host for host in hosts if postgres[host].get("exists") and host not in standbys]
    if len(standbys) == 1 and len(primaries) == 1:
        primary, standby = primaries[0], standbys[0]
        identifiers = {host: postgres[host].get("system_identifier") for host in (primary, standby)}
        if told and told != primary:
            return primary, [
                f"ha_data_source is {told}, but {primary} is the primary of this pair and {told} its standby: leave "
                "ha_data_source out, or run disable_ha first"
            ]
        if not told and identifiers[primary] != identifiers[standby]:
            return primary, [
                f"PostgreSQL on {standby} is a standby, but of another primary than {primary} (system identifiers: "
                f"{_each(identifiers)}): enabling would replace it by a copy of {primary}'s. Say whose data lives: "
                f"ha_data_source={primary} (that of {standby} is moved aside, not deleted), or promote {standby} (pg_promote()) and "
                f"set ha_default_active={standby} with ha_data_source={standby}"
            ]
        return primary, []
    if len(standbys) == 2:
        return default_active, [
            f"PostgreSQL is a standby on both servers ({' and '.join(hosts)}): none takes writes; promote the one with "
            "the newest data (pg_promote()), then run this again"
        ]
    if told and told != default_active:
        return default_active, [
            f"ha_data_source is {told}, but {default_active} is active at first: set ha_default_active to {told}, so that "
            "the server whose data lives is the active one"
        ]
    if default_active in standbys:
        return default_active, [
            f"PostgreSQL on {default_active} is a standby without its primary, and takes no writes: promote it (pg_promote()), "
            "then run this again"
        ]
    replaced = postgres[default_passive]
    if told or not replaced.get("exists") or replaced.get("has_user_data") is False:
        return default_active, []
    why = (
        f"has databases of its own ({_databases(replaced)})"
        if replaced.get("has_user_data")
        else "is stopped or does not answer, so that nobody can tell whether it holds data"
    )
    return default_active, [
        f"PostgreSQL on {default_passive} {why}: enabling would replace it by a copy of {default_active}'s. Say whose data "
        f"lives: ha_data_source={default_active} (that of {default_passive} is moved aside, not deleted), or "
        f"ha_default_active={default_passive} with ha_data_source={default_passive}"
    ]


def _databases(info: Mapping[str, Any]) -> str:
    names = [
        f"{database['name']}, {int(database.get('size') or 0) / 1e6:.0f} MB"
        for database in info.get("databases") or []
        if database.get("user", True)
    ]
    return "; ".join(names) or "objects in the database postgres"


def _each(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{host}: {value or 'none'}" for host, value in values.items())
