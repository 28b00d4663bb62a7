# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What role policy_server installs is whole, and what it writes is what the program reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from policy_server.settings import parse
from tests.unit.roles.test_runtime import SHARED, TOPOLOGY, imported, load, rendered, trusted
from tools.environment import ROOT

ROLE = ROOT / "roles/policy_server"
PACKAGE = ROLE / "files/policy_server"


def settings(**variables: Any) -> Any:
    role = trusted(load(ROLE / "defaults/main.yml") | load(ROLE / "vars/main.yml"))
    links = [{**link, "network": "192.0.2.0/24"} for link in TOPOLOGY["topology_links"]]
    templar = Templar(DataLoader(), variables=role | TOPOLOGY | {"topology_links": links} | variables)
    return parse(json.loads(json.dumps(templar.template(trust_as_template("{{ __policy_server_settings }}")))))


def test_what_is_written_is_what_the_program_reads() -> None:
    said = settings()
    assert (said.device_id, said.account, said.port, said.postgresql_port) == ("Node-One", "policyserver", 8080, 5432)
    assert str(said.base) == "/var/policyserver/configuration/base"
    assert [str(network) for network in said.clients] == ["192.0.2.0/24"]


def test_what_an_operator_sets_arrives() -> None:
    said = settings(
        policy_server_port="8443",
        policy_server_clients=[],
        postgres_streaming_port=5433,
        runtime_paths={"base": "/srv/base"},
        policy_server_device_id="42",
    )
    assert (said.device_id, said.port, said.clients, said.postgresql_port, str(said.base)) == ("42", 8443, (), 5433, "/srv/base")


def test_the_shared_files_that_it_needs_are_installed_and_no_other() -> None:
    files = list(PACKAGE.glob("*.py"))
    needed = {name for path in files for name in imported(path, "shared")}
    while more := {other for name in needed for other in imported(SHARED / f"{name}.py")} - needed:
        needed |= more
    [include] = [task["swg.ha.program_tree"]["include"] for task in load(ROLE / "tasks/install.yml") if "swg.ha.program_tree" in task]
    assert sorted(include) == ["*.py", *(f"shared/{name}.py" for name in sorted(needed))]


ONES_OWN = {
    "policy_server_unit": "shop",
    "policy_server_health": ["/usr/bin/shop", "--check"],
    "policy_server_active_request_cli": [],
    "policy_server_full_replicate": ["/usr/bin/shop", "--export"],
}


@pytest.mark.parametrize("variables", [{}, {"policy_server_port": 81}, ONES_OWN, {"policy_server_unit": ""}])
def test_ha_manager_runs_what_this_role_says(variables: dict[str, Any]) -> None:
    """Role runtime comes before this one in the play, and on its own knows the same."""
    defaults = trusted(load(ROLE / "defaults/main.yml"))
    assert rendered(**variables)["commands"] == rendered(**(defaults | variables))["commands"]


def test_the_commands_are_those_of_the_unit() -> None:
    said = rendered(**ONES_OWN)["commands"]
    assert said.policy_server_start == ("/usr/bin/systemctl", "start", "shop")
    assert said.policy_server_stop == ("/usr/bin/systemctl", "stop", "shop")
    assert (said.policy_server_health, said.active_request_cli) == (("/usr/bin/shop", "--check"), ())
    assert rendered(policy_server_unit="")["commands"].policy_server_start == ()
    assert rendered()["commands"].policy_server_health == ("http://127.0.0.1:8080/health",)
