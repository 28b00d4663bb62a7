# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import copy
from ipaddress import IPv4Address
from typing import Any

import pytest

from swg_ha_lab import TOPOLOGY
from swg_ha_lab.errors import LabError, UsageError
from swg_ha_lab.topology import load, parse, parse_size


@pytest.fixture
def data() -> dict[str, Any]:
    return copy.deepcopy(load(TOPOLOGY))


def test_the_shipped_topology_is_two_servers_with_a_leg_on_each_of_two_switches(data: dict[str, Any]) -> None:
    topology = parse(data)
    assert set(topology.hosts) == {"ps1", "ps2", "sw1", "sw2", "scanner1", "client1", "gw1"}
    assert [switch.name for switch in topology.switches()] == ["sw1", "sw2"]
    for server, number in (("ps1", 11), ("ps2", 12)):
        legs = topology.host(server).legs
        assert [(leg.interface, leg.switch, str(leg.address)) for leg in legs] == [
            ("eth0", "sw1", f"192.0.2.{number}"),
            ("eth1", "sw2", f"198.51.100.{number}"),
        ]
        disk = topology.host(server).kind.disk
        assert disk is not None and (disk.size, disk.mount) == (8 * 1024**3, "/opt/finjan")


def test_the_default_route_goes_by_the_first_network_and_not_through_oneself(data: dict[str, Any]) -> None:
    topology = parse(data)
    assert topology.leg("ps1", "eth0").gateway == IPv4Address("192.0.2.1")
    assert topology.leg("ps1", "eth1").gateway is None
    assert topology.leg("gw1", "eth0").gateway is None


def test_every_card_has_an_address_of_its_own(data: dict[str, Any]) -> None:
    macs = [leg.mac for leg in parse(data).legs()]
    assert len(set(macs)) == len(macs)


def test_parked_names_fit_into_an_interface_name(data: dict[str, Any]) -> None:
    for leg in parse(data).legs():
        assert max(len(leg.parked), len(leg.port_parked)) <= 15


@pytest.mark.parametrize("link", ["eth1", "1"])
def test_a_leg_goes_by_interface_or_number(data: dict[str, Any], link: str) -> None:
    assert parse(data).leg("ps1", link).interface == "eth1"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("hosts.ps1.kind", "toaster", "hosts.ps1.kind: 'toaster' is not one of policy_server"),
        ("hosts.ps1.legs.eth0.switch", "sw9", "hosts.ps1.legs.eth0.switch: 'sw9' is not one of sw1, sw2"),
        ("hosts.ps1.legs.eth0.address", "192.0.2.300", "hosts.ps1.legs.eth0.address: "),
        ("hosts.ps1.legs.eth0.address", "203.0.113.5", "203.0.113.5 is not a host's address in 192.0.2.0/24"),
        ("hosts.ps1.legs.eth0.address", "192.0.2.255", "192.0.2.255 is not a host's address"),
        ("hosts.ps1.legs.eth0.address", "192.0.2.1", "192.0.2.1 is taken by gw1"),
        ("hosts.ps2.legs.eth0.port", "p1", "sw1 p1 is taken by ps1"),
        ("hosts.ps2.legs.eth0.port", "port-one", "'port-one' is not a small letter"),
        ("hosts.ps1.legs.interface0", {}, "at most 4"),
        ("hosts.policyserver1", {"kind": "client", "legs": {}}, "hosts.policyserver1: a host's name"),
        ("hosts.sw1.network", "192.0.2.1/24", "hosts.sw1.network: "),
        ("hosts.sw1.gateway", "198.51.100.1", "hosts.sw1.gateway: 198.51.100.1 is not"),
        ("hosts.sw1.legs", {}, "hosts.sw1: a switch has a network and no legs"),
        ("hosts.ps1.network", "192.0.2.0/24", "hosts.ps1: a switch has a network and no legs"),
        ("hosts.ps1.colour", "red", "hosts.ps1: 'colour' is not known here"),
        ("kinds.policy_server.disk.size", "8 GB", "kinds.policy_server.disk.size: '8 GB' is not a size"),
        ("kinds.policy_server.disk.mount", "opt", "kinds.policy_server.disk.mount: 'opt' is not an absolute path"),
        ("kinds.switch.bridge", "yes", "kinds.switch.bridge: 'yes' is neither true nor false"),
        ("kinds.switch", "switch", "kinds.switch: a table is wanted"),
    ],
)
def test_a_wrong_entry_is_named(data: dict[str, Any], path: str, value: object, message: str) -> None:
    *parents, last = path.split(".")
    table = data
    for name in parents:
        table = table[name]
    table[last] = value
    with pytest.raises(LabError) as error:
        parse(data)
    assert message in str(error.value)


@pytest.mark.parametrize("path", ["kinds", "hosts", "hosts.ps1.kind", "kinds.client.group", "hosts.ps1.legs.eth0.port"])
def test_a_missing_entry_is_named(data: dict[str, Any], path: str) -> None:
    *parents, last = path.split(".")
    table = data
    for name in parents:
        table = table[name]
    del table[last]
    with pytest.raises(LabError, match=f"'{last}' is missing"):
        parse(data)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.host("ps3"), "host 'ps3' is not in the topology: it has sw1, sw2"),
        (lambda t: t.switch("ps1"), "'ps1' is a policy_server, not a switch: use sw1 or sw2"),
        (lambda t: t.leg("ps1", "eth9"), "ps1 has no link 'eth9': it has eth0, eth1"),
        (lambda t: t.leg("sw1", "p1"), "sw1 has no link 'p1'"),
        (lambda t: t.common_legs("ps1", "ps1"), "'ps1' is named twice"),
        (lambda t: t.common_legs("client1", "ps1", "eth1"), "client1 and ps1 have no such leg on a common switch"),
    ],
)
def test_asking_for_what_is_not_there_is_a_usage_error(data: dict[str, Any], call: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        call(parse(data))
    assert message in str(error.value)


def test_common_legs_are_those_on_one_switch(data: dict[str, Any]) -> None:
    topology = parse(data)
    assert [(a.interface, b.interface) for a, b in topology.common_legs("ps1", "ps2")] == [("eth0", "eth0"), ("eth1", "eth1")]
    assert [(a.interface, b.interface) for a, b in topology.common_legs("ps1", "ps2", "1")] == [("eth1", "eth1")]
    assert [(a.host, b.switch) for a, b in topology.common_legs("client1", "ps1")] == [("client1", "sw1")]


@pytest.mark.parametrize(("text", "size"), [("512M", 512 * 1024**2), ("8G", 8 * 1024**3)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size("disk", text) == size


def test_a_file_that_is_not_toml_is_named(tmp_path: Any) -> None:
    path = tmp_path / "topology.toml"
    path.write_text("[hosts")
    with pytest.raises(LabError, match="topology.toml"):
        load(path)
