"""How a user and Ansible get into the hosts: SSH keys, ssh's configuration, the inventories."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import connect_path, state
from .layout import Layout
from .process import run
from .topology import Topology


def make_keys(layout: Layout, topology: Topology) -> None:
    """A key for the client and one for every host; all hosts' keys are known from the start."""
    layout.keys.mkdir(mode=0o700)
    layout.control.mkdir(mode=0o700)

    def make(name: str) -> str:
        comment = f"{name}@{layout.name}"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(layout.keys / name)])
        return (layout.keys / f"{name}.pub").read_text()

    with ThreadPoolExecutor(4) as pool:
        public = dict(zip(["client", *topology.hosts], pool.map(make, ["client", *topology.hosts]), strict=True))
    known = "".join(f"{layout.machine(host)} {public[host]}" for host in topology.hosts)
    state.write_text(layout.known_hosts, known)
    shutil.copy(connect_path(), layout.connect)
    state.write_text(layout.ssh_config, ssh_config(layout))


def ssh_config(layout: Layout) -> str:
    return f"""\
Host {layout.machine("*")}
    User root
    IdentityFile {layout.keys / "client"}
    IdentitiesOnly yes
    UserKnownHostsFile {layout.known_hosts}
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    UpdateHostKeys no
    PasswordAuthentication no
    LogLevel ERROR
    ProxyCommand /usr/bin/python3 -IS {layout.connect} %h %p
    ProxyUseFdpass yes
    ConnectTimeout 10
    ServerAliveInterval 5
    ServerAliveCountMax 2
    ControlMaster auto
    ControlPersist 60s
    ControlPath {layout.control}/%n
"""


def inventory(layout: Layout, topology: Topology, *, qualified: bool = False) -> dict[str, Any]:
    """The lab as an Ansible inventory.

    qualified: the hosts are called LAB-HOST and the pair is a group LAB of its own, so that several labs fit into one run.
    """
    groups: dict[str, Any] = {}
    for host in topology.hosts.values():
        group = groups.setdefault(host.kind.group, {"hosts": {}})
        name = f"{layout.name}-{host.name}" if qualified else host.name
        group["hosts"][name] = {
            "ansible_host": layout.machine(host.name),
            "ansible_user": "root",
            "ansible_ssh_common_args": f"-F {layout.ssh_config}",
            "ansible_control_path_dir": str(layout.control),
            "ansible_pipelining": True,
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        variables: Mapping[str, Any] = host.kind.inventory
        if variables:
            group["vars"] = dict(variables)
    if qualified and "policy_servers" in groups:
        pair = groups["policy_servers"]
        pair.setdefault("vars", {})["ha_pair"] = layout.name
        groups["policy_servers"] = {"children": {layout.name: pair}}
    return groups


def write_inventories(layout: Layout, topology: Topology) -> None:
    for qualified in (False, True):
        path = layout.inventory(qualified=qualified)
        path.parent.mkdir()
        path.write_text(to_yaml(inventory(layout, topology, qualified=qualified)))


def to_yaml(value: Any, indent: str = "") -> str:
    """Nested tables, lists and scalars as YAML (tables in block style, everything else as JSON, which YAML includes)."""
    lines = []
    for key, entry in value.items():
        if isinstance(entry, Mapping) and entry:
            lines.append(f"{indent}{key}:\n{to_yaml(entry, indent + '  ')}")
        else:
            lines.append(f"{indent}{key}: {json.dumps(entry)}\n")
    return "".join(lines)


def client(layout: Layout, host: str, *options: str) -> list[str]:
    """The ssh command line for a host."""
    return ["ssh", "-F", str(layout.ssh_config), *options, layout.machine(host)]


def control_sockets(layout: Layout) -> list[Path]:
    """Sockets of the ssh connections that are kept open in the background."""
    return list(layout.control.iterdir()) if layout.control.is_dir() else []
