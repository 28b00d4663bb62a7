# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from ansible_collections.swg.ha.plugins.action import topology_info
from ansible_collections.swg.ha.plugins.modules import topology_info as documentation

FACTS = json.loads((Path(__file__).parents[1] / "module_utils/fixtures/facts.json").read_text(encoding="utf-8"))


def run(host, groups, pair=None, **variables):
    everyone = {
        name: {"ansible_facts": FACTS[name], "ha_virtual_ip": "192.0.2.10", **variables} if name in FACTS else {}
        for name in {host}.union(*groups.values())
    }
    task = SimpleNamespace(args={"pair": pair} if pair else {}, action="swg.ha.topology_info", async_val=0, check_mode=True)
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nonexistent"))
    action = topology_info.ActionModule(task, connection, None, None, None, None)
    return action.run(task_vars={"inventory_hostname": host, "groups": groups, "hostvars": everyone})


@pytest.mark.parametrize(
    ("groups", "pair"),
    [
        ({"policy_servers": ["ps1", "ps2"]}, None),
        # Several pairs in one inventory: each in a group of its own.
        ({"policy_servers": ["ps1", "ps2", "west1", "west2"], "east": ["ps1", "ps2"], "west": ["west1", "west2"]}, "east"),
    ],
)
def test_a_pair(groups, pair):
    result = run("ps2", groups, pair)
    assert (result["changed"], result["problems"]) == (False, [])
    assert (result["pair"]["peer"], result["pair"]["peer_node"], result["pair"]["is_default_active"]) == ("ps1", "ps1", False)


def test_settings_of_the_inventory_are_used():
    result = run(
        "ps2",
        {"policy_servers": ["ps1", "ps2"]},
        ha_default_active="ps2",
        ha_ping_nodes=["192.0.2.3"],
        ha_link_interfaces=["eth0", "eth0.10"],
    )
    assert result["pair"]["is_default_active"] is True
    assert result["pair"]["ping_nodes"] == ["192.0.2.3"]
    assert [link["interface"] for link in result["pair"]["links"]] == ["eth0", "eth0.10"]


@pytest.mark.parametrize(
    ("host", "groups", "pair", "words"),
    [
        ("ps1", {}, None, ["'policy_servers' (ha_pair) holds 0 servers (none)"]),
        ("ps1", {"policy_servers": ["ps1", "ps2", "ps3"]}, None, ["holds 3 servers (ps1, ps2, ps3)", "each pair's own group in ha_pair"]),
        ("ps3", {"east": ["ps1", "ps2"]}, "east", ["ha_pair of ps3 is 'east'", "ps3 is not in that inventory group"]),
    ],
)
def test_no_pair(host, groups, pair, words):
    result = run(host, groups, pair)
    assert result["pair"] == {}
    [problem] = result["problems"]
    assert [word for word in words if word not in problem] == []


def test_a_server_without_facts_is_no_failure():
    result = run("west1", {"policy_servers": ["west1", "west2"]})
    assert result["pair"]["peer"] == "west2"
    assert result["pair"]["links"] == []


def test_what_is_returned_is_what_is_documented():
    documented = yaml.safe_load(documentation.RETURN)
    result = run("ps1", {"policy_servers": ["ps1", "ps2"]})
    assert set(result) - {"changed"} == set(documented)
    assert set(result["pair"]) == set(documented["pair"]["contains"])
    assert set(result["pair"]["links"][0]) == set(documented["pair"]["contains"]["links"]["sample"][0])
