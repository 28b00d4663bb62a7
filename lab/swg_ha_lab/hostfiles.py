"""The files that make the common image one particular host. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .topology import Host, Topology


@dataclass(frozen=True)
class File:
    text: str
    mode: int = 0o644


def files(topology: Topology, host: Host, keys: Mapping[str, str], machine_id: str) -> dict[str, File]:
    """Path below the host's root -> file.

    keys: `authorized` (public key of the lab's client), `host` and `host_public` (the SSH host key).
    """
    made = {
        "etc/hostname": File(f"{host.name}\n"),
        "etc/machine-id": File(f"{machine_id}\n", 0o444),
        "etc/hosts": File(hosts_file(topology)),
        "root/.ssh/authorized_keys": File(keys["authorized"], 0o600),
        "etc/ssh/ssh_host_ed25519_key": File(keys["host"], 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": File(keys["host_public"]),
    }
    for leg in host.legs:
        made[f"etc/systemd/network/10-{leg.interface}.network"] = File(leg_network(leg.interface, leg.address, leg.network, leg.gateway))
    if host.kind.bridge:
        made["etc/systemd/network/10-br0.netdev"] = File(
            "[NetDev]\nName=br0\nKind=bridge\n\n# No loop: a port forwards as soon as it has a carrier.\n[Bridge]\nSTP=no\nForwardDelaySec=0\n"
        )
        made["etc/systemd/network/10-br0.network"] = File(
            "[Match]\nName=br0\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nLinkLocalAddressing=no\nConfigureWithoutCarrier=yes\n"
        )
        for port in topology.ports(host.name):
            made[f"etc/systemd/network/20-{port.port}.network"] = File(f"[Match]\nName={port.port}\n\n[Network]\nBridge=br0\n")
    if host.kind.time_source:
        made.update(time_source(topology))
    return made


def hosts_file(topology: Topology) -> str:
    lines = ["127.0.0.1 localhost"]
    lines += [f"{host.legs[0].address} {host.name}" for host in topology.hosts.values() if host.legs]
    return "\n".join(lines) + "\n"


def leg_network(interface: str, address: object, network: object, gateway: object) -> str:
    """A leg that keeps its address whatever the cable does, as an address of a server must."""
    prefix = str(network).rpartition("/")[2]
    route = f"Gateway={gateway}\n" if gateway else ""
    return (
        f"[Match]\nName={interface}\n\n[Network]\nAddress={address}/{prefix}\n{route}"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\nConfigureWithoutCarrier=yes\nIgnoreCarrierLoss=yes\nKeepConfiguration=yes\n"
    )


def time_source(topology: Topology) -> dict[str, File]:
    """chronyd that hands out the machine's time as it is: -x, for the clock is the machine's and is never touched."""
    allowed = "".join(f"allow {switch.network}\n" for switch in topology.switches())
    return {
        "etc/chrony/chrony.conf": File(f"local stratum 8\n{allowed}driftfile /var/lib/chrony/chrony.drift\n"),
        "etc/default/chrony": File('DAEMON_OPTS="-x"\n'),
        # chronyd must not start without CAP_SYS_TIME, says its unit; with -x it may.
        "etc/systemd/system/chrony.service.d/lab.conf": File("[Unit]\nConditionCapability=\n"),
    }


def enablement(unit: str, text: str) -> dict[str, str]:
    """What `systemctl enable` would link for the unit file `text`: link below etc/systemd/system -> target."""
    links: dict[str, str] = {}
    section = ""
    target = f"/lib/systemd/system/{unit}"
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[] ")
        name, _, value = line.partition("=")
        if section == "Install":
            for word in value.split():
                match name.strip():
                    case "WantedBy":
                        links[f"{word}.wants/{unit}"] = target
                    case "Alias":
                        links[word] = target
    return links
