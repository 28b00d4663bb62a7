# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work is refused before the first change, with every problem in one message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.pair import MODULE_XML, SERVERS, VIRTUAL_IP, Lab, eventually, refused

REMOVE = f"rm {MODULE_XML}; rmdir --ignore-fail-on-non-empty --parents $(dirname {MODULE_XML})"
Fingerprints = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def before(bare: Lab) -> Fingerprints:
    return {host: bare.fingerprint(host) for host in SERVERS}


@pytest.fixture
def untouched(bare: Lab, before: Fingerprints) -> Iterator[Lab]:
    """The lab, whose two servers are the same before and after the test."""
    yield bare
    for host in SERVERS:
        assert bare.fingerprint(host) == before[host]


def only(problems: list[str], *words: str) -> str:
    """The one problem that holds all the words."""
    found = [problem for problem in problems if all(word in problem for word in words)]
    assert len(found) == 1, f"{words}: {json.dumps(problems, indent=1)}"
    return found[0]


def test_every_wrong_variable_is_told_at_once(untouched: Lab, inventory: Path) -> None:
    wrong: dict[str, Any] = {
        "ha_virtual_ip": "192.0.2.300",
        "ha_virtual_ipp": "192.0.2.10",
        "ha_default_active": "ps3",
        "ha_timing_profile": "quick",
        "heartbeat_port": 0,
        "heartbeat_timing": {"keepalive": "2", "deadtime": "3"},
        "ha_config_manager_port": 70000,
        "ha_config_files_to_replicate": [{"name": "etc/shadow"}],
    }
    problems = refused("enable_ha", inventory, **wrong)
    only(problems, "ha_virtual_ip is '192.0.2.300'", "like 192.0.2.10")
    only(problems, "ha_default_active is 'ps3'", "ps1 or ps2")
    for host in SERVERS:
        only(problems, f"{host}: ", "no setting ha_virtual_ipp", "did you mean ha_virtual_ip?")
        only(problems, f"{host}: ", "ha_timing_profile", "fast, balanced, wan", "quick")
        only(problems, f"{host}: ", "heartbeat_port is 0", "1 to 65535")
        only(problems, f"{host}: ", "ha_config_manager_port is 70000", "1 to 65535")
        only(problems, f"{host}: ", "heartbeat_timing", "deadtime", "3", "keepalive")
        only(problems, f"{host}: ", "ha_config_files_to_replicate", "etc/shadow", "absolute")
    assert len(problems) == 14


def test_the_world_is_looked_at_as_well(bare: Lab, before: Fingerprints, inventory: Path) -> None:
    """An address that is taken, a cable that is out, files that are not the HA configuration: all of it in one run."""
    bare.sh("client1", f"ip address add {VIRTUAL_IP}/24 dev eth0")
    bare("cable", "out", "ps2", "eth1")
    for host, text in (("ps1", "<module><ha></module>"), ("ps2", '<!DOCTYPE module [<!ENTITY x "y">]><module name="HA"/>')):
        bare.sh(host, f"mkdir --parents $(dirname {MODULE_XML}); cat > {MODULE_XML}", input=text)
    here = {host: bare.fingerprint(host) for host in SERVERS}
    try:
        # No measurement over a network can tell a nanosecond: where there is doubt, the clocks are no problem.
        problems = refused("enable_ha", inventory, preflight_clock_offset_max=0.000000001)
    finally:
        bare.sh("client1", f"ip address delete {VIRTUAL_IP}/24 dev eth0")
        bare("cable", "in", "ps2", "eth1")
    mac = bare.sh("client1", "cat /sys/class/net/eth0/address")
    for host in SERVERS:
        only(problems, f"ha_virtual_ip {VIRTUAL_IP} is already answered by another machine", mac, f"seen by {host} on eth0")
    only(problems, "ps1: the peer does not answer for 198.51.100.12 on eth1")
    only(problems, "ps2: eth1 cannot be used as a link", "no carrier")
    only(problems, f"ps1: {MODULE_XML}: ")
    only(problems, f"ps2: {MODULE_XML}: ", "DOCTYPE")
    assert len(problems) == 6, problems
    assert {host: bare.fingerprint(host) for host in SERVERS} == here

    bare.sh("ps1", f"cat > {MODULE_XML}", input='<module name="Logger"><logger enabled="true"/></module>')
    bare.sh("ps2", REMOVE)
    eventually(lambda: bare.sh("ps2", "cat /sys/class/net/eth1/operstate") == "up", 30, "the cable is in")
    problems = refused("preflight", inventory, ha_virtual_ip="203.0.113.10")
    only(problems, "ha_virtual_ip is 203.0.113.10", "192.0.2.0/24")
    only(problems, f"ps1: {MODULE_XML}: ")
    assert len(problems) == 2, problems
    bare.sh("ps1", REMOVE)
    for host in SERVERS:
        assert bare.fingerprint(host) == before[host]


def test_groups_that_are_no_pairs_are_told_together(untouched: Lab, inventory: Path, tmp_path: Path) -> None:
    """One server, three servers, and one server under two names: three would-be pairs in one inventory."""
    known = yaml.safe_load(inventory.read_text())
    servers = known["policy_servers"]["hosts"]
    client = known["clients"]["hosts"]["client1"]
    pairs = {
        "alone": {"alone1": servers["ps1"]},
        "crowd": {"crowd1": servers["ps1"], "crowd2": servers["ps2"], "crowd3": client},
        "twice": {"twice1": servers["ps2"], "twice2": servers["ps2"]},
    }
    own = tmp_path / "pairs.yml"
    children = {name: {"hosts": hosts, "vars": {"ha_pair": name, "ha_virtual_ip": VIRTUAL_IP}} for name, hosts in pairs.items()}
    own.write_text(json.dumps({"policy_servers": {"vars": known["policy_servers"]["vars"], "children": children}}))
    problems = refused("enable_ha", own)
    only(problems, "group 'alone' (ha_pair) holds 1 servers (alone1)", "add the missing server")
    only(problems, "group 'crowd' (ha_pair) holds 3 servers (crowd1, crowd2, crowd3)", "exactly two")
    only(problems, "twice1 and twice2 are the same server twice", "192.0.2.12", "198.51.100.12")


def test_a_passive_server_that_is_off_is_told_and_the_active_one_left_alone(bare: Lab, before: Fingerprints, inventory: Path) -> None:
    bare("power", "off", "ps2")
    only(refused("enable_ha", inventory), "ps2 cannot be reached", "both servers of a pair must be up")
    assert bare.fingerprint("ps1") == before["ps1"]
    bare("power", "on", "ps2")
