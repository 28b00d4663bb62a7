# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import yaml

from ansible_collections.swg.ha.plugins.action import preflight_info
from ansible_collections.swg.ha.plugins.module_utils.preflight import link_probes
from ansible_collections.swg.ha.plugins.module_utils.settings import SETTINGS
from ansible_collections.swg.ha.plugins.modules import preflight_info as documentation

VIP = "192.0.2.10"
XML_PATH = "/var/wasp/conf/ha/current/module.xml"
HA_MODULE = '<module name="HA"><init><ha enabled="0"/></init></module>\n'
NO_ADDRESS = '<module name="HA"><init><default_active ip="192.0.2.300" name="ps1"/></init></module>'


def links(host, peer):
    return [
        {
            "interface": interface,
            "network": f"{network}.0/24",
            "mac": f"02:00:5e:00:0{host}:0{number}",
            "peer_interface": interface,
            "peer_address": f"{network}.1{peer}",
            "peer_mac": f"02:00:5e:00:0{peer}:0{number}",
        }
        for number, (interface, network) in enumerate([("eth0", "192.0.2"), ("eth1", "198.51.100")])
    ]


def server(host, peer):
    """What role preflight sees on a bare server with a fresh cluster."""
    mine = links(host, peer)
    return {
        "reachable": True,
        "unreachable_reason": "",
        "system": "Debian 12",
        "service_manager": "systemd",
        "links": mine,
        "node": f"ps{host}",
        "peer_told": f"ps{peer}",
        "packages": {"heartbeat": "1:3.0.6-13+b2"},
        "postgres": {"exists": True, "in_recovery": False, "has_user_data": False, "system_identifier": str(host)},
        "probes": [
            {**probe, "error": None, "macs": [link["peer_mac"] for link in mine if probe == asked(link)]}
            for probe in link_probes(mine, VIP)
        ],
        "clock": {"steady_offset_s": 1000.0, "offset_s": 0.0, "uncertainty_s": 0.001},
        "module_xml": None,
        "module_xml_path": XML_PATH,
    }


def asked(link):
    return {"address": link["peer_address"], "interface": link["interface"]}


def run(change=None, only=("ps1", "ps2"), topology_problems=(), own=None, **variables):
    """change: by server, changes of what is seen there; own: variables of one server, variables: of both."""
    observed = {"ps1": server(1, 2), "ps2": server(2, 1)}
    for host, changes in (change or {}).items():
        observed[host] |= changes
    common = {"ha_virtual_ip": VIP, **variables}
    everyone = {host: {**common, **(own or {}).get(host, {})} for host in observed}
    task = SimpleNamespace(
        args={"observed": {host: observed[host] for host in only}, "clock_offset_max": "1.0", "same_packages": ["heartbeat"]},
        action="swg.ha.preflight_info",
        async_val=0,
        check_mode=True,
    )
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nonexistent"))
    action = preflight_info.ActionModule(task, connection, None, None, None, None)
    pair = {"topology_hosts": ["ps1", "ps2"]} if len(only) == 2 else {}
    return action.run(task_vars={**everyone["ps1"], **pair, "hostvars": everyone, "topology_problems": list(topology_problems)})


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"ha_timing_profile": "wan", "heartbeat_timing": {"deadtime": "30", "initdead": "60"}},
        {"heartbeat_timing": None},
        {"ha_config_files_to_replicate": [{"name": "/etc/shadow", "inotify": True, "permissions": "root:shadow"}]},
        {"ha_config_files_to_replicate": []},
        {"policy_server_clients": ["192.0.2.0/24", "198.51.100.7"], "policy_server_health": ["http://127.0.0.1:81/"]},
        {"policy_server_clients": [], "policy_server_health": ["/usr/bin/curl", "--fail", "https://127.0.0.1/"]},
        {"own": {"ps1": {"policy_server_device_id": 166}, "ps2": {"policy_server_device_id": "28"}}},
        {"manager_roles": {"HA": ["ha_manager.service"], "Web": ["web.service"]}, "manager_roles_active": ["HA", "Web"]},
    ],
)
def test_nothing_speaks_against_a_bare_pair(variables):
    assert run(**variables) == {"changed": False, "primary": "ps1", "problems": []}


@pytest.mark.parametrize("text", [HA_MODULE, '<?xml version="1.0" encoding="ISO-8859-1"?><!-- caf\udce9 -->\n' + HA_MODULE])
def test_a_module_xml_that_is_there(text):
    """As the filter b64decode hands it over: bytes that are no UTF-8 become surrogates."""
    assert run({"ps2": {"module_xml": text}})["problems"] == []


BAD = {
    "no virtual IP": ({"ha_virtual_ip": None}, ["ps1: missing required arguments: ha_virtual_ip"]),
    "a typo": (
        {"own": {"ps2": {"ha_syncronous_mode": True}}},
        ["ps2: there is no setting ha_syncronous_mode: did you mean ha_synchronous_mode?"],
    ),
    "a wrong choice": ({"ha_timing_profile": "quick"}, ["ps1: value of ha_timing_profile must be one of: fast, balanced, wan, got: quick"]),
    "a profile that is a list": (
        {"heartbeat_timing_profile": ["fast"]},
        ["ps2: value of heartbeat_timing_profile must be one of: fast, balanced, wan"],
    ),
    "times beside a wrong profile": (
        {"ha_timing_profile": "quick", "heartbeat_timing": {"keepalive": "2", "deadtime": "3"}},
        ["ps1: heartbeat_timing (profile quick): deadtime is 3: must be more than twice keepalive (keepalive is 2)"],
    ),
    "a device id that leads elsewhere": (
        {"own": {"ps1": {"policy_server_device_id": "../etc"}}},
        ["ps1: policy_server_device_id is '../etc': up to 63 letters"],
    ),
    "the id of what holds for all": ({"own": {"ps2": {"policy_server_device_id": "global"}}}, ["ps2: policy_server_device_id is 'global'"]),
    "one device": (
        {"policy_server_device_id": "174"},
        ["the servers have the same policy_server_device_id (ps1: 174, ps2: 174)"],
    ),
    "no network": (
        {"own": {"ps1": {"policy_server_clients": ["192.0.2.1/24"]}}},
        ["ps1: policy_server_clients has '192.0.2.1/24' (192.0.2.1/24 has host bits set): an IPv4 network is needed"],
    ),
    "a page that cannot be asked": (
        {"own": {"ps1": {"policy_server_health": ["https://127.0.0.1/"]}}},
        ["ps1: policy_server_health is 'https://127.0.0.1/': only http:// is asked without help"],
    ),
    "an unknown time": ({"heartbeat_timing": {"deadtme": "3"}}, ["ps1: ", "heartbeat_timing.deadtme", "deadtime"]),
    "a time that is none": (
        {"heartbeat_timing": {"deadtime": "3s"}},
        ["ps1: heartbeat_timing (profile balanced): deadtime is 3s: must be more than 0, in seconds"],
    ),
    "times that do not fit": (
        {"own": {"ps2": {"heartbeat_timing": {"keepalive": "2"}}}},
        ["ps2: heartbeat_timing (profile balanced): deadtime is 3: must be more than twice keepalive (keepalive is 2)"],
    ),
    "times that do not fit the profile": (
        {"ha_timing_profile": "fast", "heartbeat_timing": {"deadtime": "400ms"}},
        ["ps1: heartbeat_timing (profile fast): deadtime is 400ms: must be more than twice keepalive (keepalive is 200ms)"],
    ),
    "a port of a role": ({"heartbeat_port": 70000}, ["ps1: heartbeat_port is 70000: a port is a number from 1 to 65535"]),
    "another port of a role": ({"ha_config_manager_port": 0}, ["ps1: ha_config_manager_port is 0: a port is a number from 1 to 65535"]),
    "a unit that is none": (
        {"manager_roles": {"HA": ["ha_manager.service", "heartbeat"]}},
        ["ps1: manager_roles.HA: the unit name 'heartbeat': must be that of a systemd unit, such as 'name.service'"],
    ),
    "units that are no list": (
        {"manager_roles": {"HA": "x.service"}},
        ["ps2: manager_roles.HA is 'x.service': must be a list of unit names"],
    ),
    "roles without the one that decides": (
        {"manager_roles": {"Web": ["web.service"]}},
        ["ps1: manager_roles has no role HA: it must have one"],
    ),
    "a role that has no name": ({"manager_roles_passive": ["HA", "-"]}, ["ps1: manager_roles_passive: the role name '-': must be letters"]),
    "two programs on one port": (
        {"logrelay_port": "5222"},
        ["ps1: ha_config_device_uname_port and logrelay_port are both 5222: each needs a port of its own"],
    ),
    "another name than the inventory's": (
        {"change": {"ps1": {"peer_told": "old2"}}},
        ["ps2: its handler device_uname tells ps1 the name old2, but its facts say ps2", "restart the service device_uname there"],
    ),
    "a relative path": (
        {"ha_config_files_to_replicate": [{"name": "etc/shadow", "inotify": True, "permissions": "root:shadow"}]},
        ["ps1: ha_config_files_to_replicate", "'etc/shadow'", "an absolute path"],
    ),
    "files that are no files": ({"ha_config_files_to_replicate": "/etc/shadow"}, ["ps1: ", "ha_config_files_to_replicate"]),
    "an empty file": ({"change": {"ps2": {"module_xml": ""}}}, [f"ps2: {XML_PATH}: ", "line 1"]),
    "no XML": ({"change": {"ps2": {"module_xml": "enabled = 1\n"}}}, [f"ps2: {XML_PATH}: ", "line 1"]),
    "broken XML": ({"change": {"ps2": {"module_xml": '<module name="HA"><init>'}}}, [f"ps2: {XML_PATH}: "]),
    "a DOCTYPE": (
        {"change": {"ps1": {"module_xml": '<!DOCTYPE module [<!ENTITY a "b">]>' + HA_MODULE}}},
        [f"ps1: {XML_PATH}: ", "DOCTYPE"],
    ),
    "another module": (
        {"change": {"ps2": {"module_xml": '<module name="Commander"/>'}}},
        [f"ps2: {XML_PATH}: ", '<module name="Commander">', 'must be <module name="HA">'],
    ),
    "a wrong value in the XML": (
        {"change": {"ps2": {"module_xml": NO_ADDRESS}}},
        [f"ps2: {XML_PATH}: ", "192.0.2.300", "an IP address"],
    ),
    "clocks": (
        {"change": {"ps2": {"clock": {"steady_offset_s": 1002.5, "uncertainty_s": 0.001}}}},
        ["the servers' clocks differ by 2.500 s (give or take 0.002 s)", "(preflight_clock_offset_max) is 1.0 s"],
    ),
    "releases": ({"change": {"ps2": {"system": "Debian 13"}}}, ["ps1: Debian 12, ps2: Debian 13"]),
    "versions": ({"change": {"ps2": {"packages": {"heartbeat": "1:3.0.5"}}}}, ["different versions of heartbeat", "ps2: 1:3.0.5"]),
    "a taken address": (
        {"change": {"ps1": {"probes": [{"address": VIP, "interface": "eth0", "macs": ["00:00:5e:00:53:99"], "error": None}]}}},
        [f"ha_virtual_ip {VIP} is already answered by another machine (00:00:5e:00:53:99, seen by ps1 on eth0)"],
    ),
    "data": (
        {"change": {"ps2": {"postgres": {"exists": True, "in_recovery": False, "has_user_data": True}}}},
        ["PostgreSQL on ps2 has databases of its own", "ha_data_source=ps1"],
    ),
    "an unreachable server": (
        {"change": {"ps2": {"reachable": False, "unreachable_reason": "Connection timed out", "links": [], "probes": [], "clock": {}}}},
        ["ps2 cannot be reached from the controller (Connection timed out)"],
    ),
    "no pair": (
        {"only": ["ps1"], "topology_problems": ["the inventory group 'policy_servers' (ha_pair) holds 1 servers"]},
        ["the inventory group 'policy_servers' (ha_pair) holds 1 servers"],
    ),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=list(BAD))
def test_bad_input(arguments, words):
    problems = run(**arguments)["problems"]
    assert any(all(word in problem for word in words) for problem in problems), problems


def test_all_problems_come_at_once():
    """Each kind of wrong input, in one run: what is told of each alone is told of all together."""
    change, variables, expected = {}, {}, []
    for name, (arguments, words) in copy.deepcopy(BAD).items():
        # The unreachable server and the missing one leave nothing to be compared.
        if "own" in arguments or name in ("an unreachable server", "no pair", "releases", "no virtual IP"):
            continue
        given = arguments.pop("change", {})
        if any(changes.keys() & change.get(host, {}).keys() for host, changes in given.items()) or arguments.keys() & variables.keys():
            continue
        for host, changes in given.items():
            change.setdefault(host, {}).update(changes)
        variables |= arguments
        expected.append(words)
    assert len(expected) >= 10
    problems = run(change, topology_problems=["topology"], **variables)["problems"]
    assert "topology" in problems
    missing = [words for words in expected if not any(all(word in problem for word in words) for problem in problems)]
    assert missing == [], problems


def test_an_unreachable_server_does_not_hide_wrong_variables():
    gone = {"reachable": False, "links": [], "probes": []}
    result = run({"ps1": gone, "ps2": gone}, ha_timing_profile="quick")
    assert [problem.split(" ")[0] for problem in result["problems"]] == ["ps1:", "ps2:", "ps1", "ps2"]
    assert result["primary"] is None


def test_a_pair_whose_handlers_do_not_answer_is_no_problem():
    assert run({"ps1": {"peer_told": ""}, "ps2": {"peer_told": ""}})["problems"] == []


def test_every_port_that_may_clash_is_an_option_with_a_default():
    options = preflight_info.role_specifications()
    assert [name for name in preflight_info.preflight.TCP_PORTS if not isinstance(options[name].get("default"), int)] == []


def test_a_problem_is_told_once():
    result = run({"ps1": {"clock": {}}}, topology_problems=["the same", "the same"])
    assert result["problems"] == ["the same"]


def test_options_of_all_roles_are_known():
    options = preflight_info.role_specifications()
    assert {"heartbeat_port", "ha_config_manager_port", "ha_config_files_to_replicate", "preflight_clock_offset_max"} <= set(options)


def test_no_option_of_a_role_is_taken_for_a_typo():
    """Those of role ha_config begin like the settings of the pair."""
    names = [name for name in preflight_info.role_specifications() if name.startswith("ha_")]
    assert names
    found = preflight_info.preflight.variable_problems("ps1", dict.fromkeys([*names, *SETTINGS]) | {"ha_virtual_ip": VIP}, {})
    assert found == []


def test_what_is_returned_is_what_is_documented():
    assert set(run()) - {"changed"} == set(yaml.safe_load(documentation.RETURN))
