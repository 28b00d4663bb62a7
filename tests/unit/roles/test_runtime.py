# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What role runtime installs is whole, and what it writes is what the programs read."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from swg_ha.settings import parse_runtime
from tools.environment import ROOT

ROLE = ROOT / "roles/runtime"
PACKAGE = ROLE / "files/swg_ha"
SHARED = ROOT / "plugins/module_utils"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def imported(path: Path, package: str = "") -> set[str]:
    """The modules of a package that a file imports relatively; without one, those beside it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            outer, _dot, module = (node.module or "").rpartition(".")
            if (node.module or "") == package:
                found |= {alias.name for alias in node.names}
            elif outer == package:
                found.add(module)
    return found


def test_every_shared_module_that_the_programs_need_is_installed_and_no_other() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if "shared" not in path.relative_to(PACKAGE).parts]
    needed = {name for path in files for name in imported(path, "shared")}
    while more := {other for name in needed for other in imported(SHARED / f"{name}.py")} - needed:
        needed |= more
    assert sorted(needed) == load(ROLE / "vars/main.yml")["__runtime_shared"]


def test_every_folder_of_the_package_is_sent() -> None:
    [include] = [task["swg.ha.program_tree"]["include"] for task in load(ROLE / "tasks/main.yml") if "swg.ha.program_tree" in task]
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")} - {"shared"}
    assert [folder for folder in folders if f"'{'' if folder == '.' else f'{folder}/'}*.py'" not in include] == []


TOPOLOGY = {
    "topology_node": "Node-One",
    "topology_peer_node": "node2",
    "topology_links": [
        {"interface": "eth0", "address": "192.0.2.11", "prefix": 24, "peer_address": "192.0.2.12", "mac": "00:00:5e:00:53:01"},
        {"interface": "eth1", "address": "198.51.100.11", "prefix": 24, "peer_address": "198.51.100.12", "network": "198.51.100.0/24"},
    ],
    "ha_virtual_ip": "192.0.2.10",
    "ansible_facts": {"distribution_major_version": "12"},
}


def trusted(value: Any) -> Any:
    """What Ansible does with what it reads from a role's files."""
    if isinstance(value, dict):
        return {name: trusted(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [trusted(inner) for inner in value]
    return trust_as_template(value) if isinstance(value, str) else value


def rendered(**variables: Any) -> dict[str, Any]:
    """runtime.json as the role writes it, read by the programs."""
    role = trusted(load(ROLE / "defaults/main.yml") | load(ROLE / "vars/main.yml"))
    templar = Templar(DataLoader(), variables=role | TOPOLOGY | variables)
    said = templar.template(trust_as_template("{{ __runtime_settings }}"))
    return parse_runtime(json.dumps(said).encode())


def test_what_is_written_is_what_ha_manager_reads() -> None:
    said = rendered()
    assert (said["node"], said["peer_node"], said["synchronous"]) == ("Node-One", "node2", False)
    assert [link.peer_address for link in said["links"]] == ["192.0.2.12", "198.51.100.12"]
    assert (said["postgresql"].version, said["postgresql"].port) == ("15", 5432)
    # As role postgres_streaming has them.
    assert (said["postgresql"].slot, said["postgresql"].peer_slot) == ("ha_node_one", "ha_node2")
    assert (said["limits"].max_lag, said["paths"].trust) == (16777216, "/etc/ha_manager/trust")


@pytest.mark.parametrize(
    ("variables", "synchronous"),
    [
        ({"ha_synchronous_mode": True}, True),
        ({"runtime_synchronous": True}, True),
        ({"ha_synchronous_mode": False, "runtime_synchronous": True}, False),
    ],
)
def test_the_setting_of_the_pair_comes_first(variables: dict[str, bool], synchronous: bool) -> None:
    assert rendered(**variables)["synchronous"] is synchronous


def test_what_an_operator_sets_arrives() -> None:
    said = rendered(
        postgres_streaming_port=5433,
        runtime_max_lag=1,
        runtime_commands={"policy_server_start": ["systemctl", "start", "policy_server"]},
        runtime_paths={"base": "/srv/base"},
        runtime_textfile_directory="/var/lib/node_exporter",
    )
    assert (said["postgresql"].port, said["limits"].max_lag) == (5433, 1)
    assert said["commands"].policy_server_start == ("systemctl", "start", "policy_server")
    assert (said["paths"].base, said["paths"].textfile) == ("/srv/base", "/var/lib/node_exporter")


@pytest.mark.parametrize("name", ["commands", "paths"])
def test_every_setting_can_be_set(name: str) -> None:
    """What the programs know is in the argument specification, apart from what has a variable of its own."""
    options = load(ROLE / "meta/argument_specs.yml")["argument_specs"]["main"]["options"][f"runtime_{name}"]["options"]
    known = set(rendered()[name].__dataclass_fields__)
    assert set(options) == known - {"trust", "textfile"}
