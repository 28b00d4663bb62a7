# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from ansible_collections.swg.ha.plugins.module_utils import topology

# Recorded on two Debian 12 machines; ps1 holds the virtual IP 192.0.2.10 (label eth0:0). br-lan has the same address on
# both, as docker0 has it on every machine.
FACTS = json.loads((Path(__file__).parent / "fixtures/facts.json").read_text(encoding="utf-8"))
VIP = "192.0.2.10"


def facts(without=("eth0.10", "br-lan", "eth0_0"), **changes):
    """The facts of both servers, without some interfaces; changes by server, each a function of that server's facts."""
    given = copy.deepcopy(FACTS)
    for server in given.values():
        server["interfaces"] = [name for name in server["interfaces"] if name not in without]
    for host, change in changes.items():
        change(given[host])
    return given


def pair(given=None, hosts=("ps1", "ps2"), own=None, **settings):
    """What follows from the facts and the settings of both servers; own: settings of one server."""
    common = {"ha_virtual_ip": VIP, **settings}
    return topology.pair_topology(
        "policy_servers",
        list(hosts),
        facts() if given is None else given,
        {host: {**common, **(own or {}).get(host, {})} for host in hosts},
    )


def networks(result, host="ps1"):
    return [link["network"] for link in result["hosts"][host]["links"]]


def address(interface, value, prefix=24, kind=None):
    """A change of facts: another address on an interface."""

    def change(given):
        if interface not in given["interfaces"]:
            given["interfaces"].append(interface)
        device = given.setdefault(interface.replace("-", "_"), {"type": "ether", "macaddress": "02:00:5e:00:09:09"})
        device["ipv4"] = {"address": value, "prefix": str(prefix)}
        if kind:
            device["type"] = kind

    return change


def second(interface, value, prefix=24):
    """A change of facts: one more address on an interface."""

    def change(given):
        given[interface].setdefault("ipv4_secondaries", []).append({"address": value, "prefix": str(prefix)})

    return change


def several(*changes):
    def change(given):
        for one in changes:
            one(given)

    return change


def test_a_pair():
    result = pair(ha_link_interfaces=[], ha_ping_nodes=[])
    assert result["problems"] == []
    assert result["hosts"]["ps2"] == {
        "hosts": ["ps1", "ps2"],
        "peer": "ps1",
        "node": "ps2",
        "peer_node": "ps1",
        "nodes": ["ps1", "ps2"],
        "is_default_active": False,
        "ping_nodes": ["192.0.2.1"],
        "links": [
            {
                "interface": "eth0",
                "address": "192.0.2.12",
                "prefix": 24,
                "network": "192.0.2.0/24",
                "mac": "02:00:5e:00:04:00",
                "peer_interface": "eth0",
                "peer_address": "192.0.2.11",
                "peer_mac": "02:00:5e:00:03:00",
            },
            {
                "interface": "eth1",
                "address": "198.51.100.12",
                "prefix": 24,
                "network": "198.51.100.0/24",
                "mac": "02:00:5e:00:04:01",
                "peer_interface": "eth1",
                "peer_address": "198.51.100.11",
                "peer_mac": "02:00:5e:00:03:01",
            },
        ],
    }
    assert result["hosts"]["ps1"]["is_default_active"] is True


@pytest.mark.parametrize(
    ("interface", "kind", "settings", "expected"),
    [
        ("eth0.10", None, {}, ["192.0.2.0/24", "203.0.113.0/25"]),
        ("bond0", "bonding", {}, ["192.0.2.0/24", "203.0.113.0/25"]),
        ("br-lan", "bridge", {}, ["192.0.2.0/24"]),
        ("br-lan", "bridge", {"ha_link_interfaces": ["eth0", "br-lan"]}, ["192.0.2.0/24", "203.0.113.0/25"]),
    ],
)
def test_kinds_of_second_links(interface, kind, settings, expected):
    def change(number):
        return address(interface, f"203.0.113.{number}", 25, kind)

    given = facts(without=("eth0.10", "eth1", "eth0_0", "br-lan"), ps1=change(1), ps2=change(2))
    result = pair(given, **settings)
    assert networks(result) == networks(result, "ps2") == expected
    assert (result["problems"] == []) == (len(expected) == 2)


def test_the_service_link_is_the_one_with_the_virtual_ip():
    result = pair(ha_virtual_ip="198.51.100.10")
    assert networks(result) == networks(result, "ps2") == ["198.51.100.0/24", "192.0.2.0/24"]
    assert result["problems"] == []


def test_interfaces_are_taken_in_the_order_of_the_operator():
    result = pair(ha_link_interfaces=["eth1", "eth0"], ha_virtual_ip="198.51.100.10")
    assert [link["interface"] for link in result["hosts"]["ps2"]["links"]] == ["eth1", "eth0"]


def test_interfaces_may_have_different_names_on_the_two_servers():
    given = facts(
        without=("eth1", "eth0.10", "br-lan", "eth0_0"), ps1=address("ens4", "198.51.100.11"), ps2=address("enp2s0", "198.51.100.12")
    )
    result = pair(given, own={"ps1": {"ha_link_interfaces": ["eth0", "ens4"]}, "ps2": {"ha_link_interfaces": "eth0, enp2s0"}})
    assert result["problems"] == []
    assert [link["peer_interface"] for link in result["hosts"]["ps1"]["links"]] == ["eth0", "enp2s0"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["192.0.2.1", "192.0.2.3"], ["192.0.2.1", "192.0.2.3"]),
        # Ansible's argument specifications take a string as a list, so that no other problem would be told.
        ("192.0.2.3", ["192.0.2.3"]),
        ("192.0.2.1, 192.0.2.3", ["192.0.2.1", "192.0.2.3"]),
        ("", ["192.0.2.1"]),
        (None, ["192.0.2.1"]),
    ],
)
def test_ping_nodes(given, expected):
    result = pair(ha_ping_nodes=given)
    assert result["problems"] == []
    assert result["hosts"]["ps1"]["ping_nodes"] == expected


def test_a_server_that_nothing_tells_of_the_network():
    given = facts()
    given["ps2"]["default_ipv4"] = {}
    [problem] = pair(given)["problems"]
    assert problem.startswith("ps2 has no default gateway, and ha_ping_nodes is empty: name an address")
    assert pair(given, ha_ping_nodes=["192.0.2.1"])["problems"] == []


def test_the_default_active_is_chosen_by_name():
    result = pair(ha_default_active="ps2")
    assert result["hosts"]["ps1"]["hosts"] == ["ps2", "ps1"]
    assert (result["hosts"]["ps1"]["is_default_active"], result["hosts"]["ps2"]["is_default_active"]) == (False, True)


def test_the_virtual_ip_belongs_to_the_pair_wherever_it_is_held():
    """ps1's recorded facts hold it, beside and below its own address."""
    result = pair(facts(without=()))
    assert result["problems"] == []
    assert {link["peer_address"] for link in result["hosts"]["ps2"]["links"]}.isdisjoint({VIP})


def test_a_bridge_with_the_same_address_everywhere_is_not_the_same_server():
    assert pair(facts(without=("eth0_0",)))["problems"] == []


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ([], ["'policy_servers'", "(ha_pair)", "holds 0 servers (none)", "exactly two", "add the missing server"]),
        (["ps1"], ["holds 1 servers (ps1)", "exactly two", "add the missing server"]),
        (["ps1", "ps2", "ps3"], ["holds 3 servers (ps1, ps2, ps3)", "exactly two", "each pair's own group in ha_pair"]),
    ],
)
def test_not_exactly_two_servers(hosts, words):
    result = topology.pair_topology("policy_servers", hosts, {host: {} for host in hosts}, {host: {} for host in hosts})
    assert result["hosts"] == {}
    [problem] = result["problems"]
    assert [word for word in words if word not in problem] == []


def same_name(given):
    given["nodename"] = "ps1"


BAD = {
    "the same server twice": (
        {"given": facts(ps2=lambda given: given.update(copy.deepcopy(FACTS["ps1"])))},
        ["ps1 and ps2 are the same server twice", "192.0.2.11, 198.51.100.11", "addresses of its own"],
    ),
    "one address twice": (
        {"given": facts(ps2=address("eth1", "198.51.100.11"))},
        ["ps1 and ps2", "both have 198.51.100.11", "addresses of its own"],
    ),
    "one address twice, on bridges that are links": (
        {
            "given": facts(without=("eth0.10", "eth1", "eth0_0")),
            "ha_link_interfaces": ["eth0", "br-lan"],
        },
        ["ps1 and ps2", "both have 203.0.113.129", "addresses of its own"],
    ),
    "one host name twice": (
        {"given": facts(ps2=same_name)},
        ["ps1 and ps2 both have the host name 'ps1' (uname -n)", "hostnamectl set-hostname"],
    ),
    "no virtual IP": ({"ha_virtual_ip": None}, ["ha_virtual_ip is ''", "must be one IPv4 address", "192.0.2.10"]),
    "malformed": ({"ha_virtual_ip": "192.0.2"}, ["ha_virtual_ip is '192.0.2'", "must be one IPv4 address"]),
    "with a prefix": ({"ha_virtual_ip": "192.0.2.10/24"}, ["ha_virtual_ip is '192.0.2.10/24'", "without a prefix length"]),
    "a number": ({"ha_virtual_ip": 3221225994}, ["ha_virtual_ip is '3221225994'", "must be one IPv4 address"]),
    "IPv6": ({"ha_virtual_ip": "2001:db8::10"}, ["ha_virtual_ip is '2001:db8::10'", "must be one IPv4 address"]),
    "outside": (
        {"ha_virtual_ip": "203.0.113.10"},
        ["ha_virtual_ip is 203.0.113.10", "must be in the network of the service link, 192.0.2.0/24 (interface eth0)"],
    ),
    "of the second link": (
        {"ha_virtual_ip": "198.51.100.10", "ha_link_interfaces": ["eth0", "eth1"]},
        ["ha_virtual_ip is 198.51.100.10", "192.0.2.0/24 (interface eth0)", "put it first in ha_link_interfaces"],
    ),
    "the network": ({"ha_virtual_ip": "192.0.2.0"}, ["ha_virtual_ip is 192.0.2.0", "network's own", "free host address in 192.0.2.0/24"]),
    "broadcast": ({"ha_virtual_ip": "192.0.2.255"}, ["ha_virtual_ip is 192.0.2.255", "broadcast", "free host address in 192.0.2.0/24"]),
    "the active's own": (
        {"ha_virtual_ip": "198.51.100.11"},
        ["ha_virtual_ip is 198.51.100.11: that is a server's own address (ps1 eth1)", "choose an address that no machine has"],
    ),
    "the passive's own": (
        {"ha_virtual_ip": "198.51.100.12"},
        ["ha_virtual_ip is 198.51.100.12: that is a server's own address (ps2 eth1)", "choose an address that no machine has"],
    ),
    "different for the two": (
        {"own": {"ps2": {"ha_virtual_ip": "192.0.2.11"}}},
        ["ha_virtual_ip is '192.0.2.10' for ps1, but '192.0.2.11' for ps2", "the same for both"],
    ),
    "two default actives": (
        {"own": {"ps1": {"ha_default_active": "ps1"}, "ps2": {"ha_default_active": "ps2"}}},
        ["ha_default_active is 'ps1' for ps1, but 'ps2' for ps2", "the same for both"],
    ),
    "another default active": (
        {"ha_default_active": "ps3"},
        ["ha_default_active is 'ps3'", "inventory name of a server of the pair 'policy_servers': ps1 or ps2"],
    ),
    "different networks": (
        {"given": facts(ps2=several(address("eth0", "203.0.113.2", 25), address("eth1", "203.0.113.130", 25)))},
        [
            "ps1 and ps2 are in different networks",
            "ps1: eth0 192.0.2.11/24, eth1 198.51.100.11/24",
            "ps2: eth0 203.0.113.2/25, eth1 203.0.113.130/25",
            "one in a second network, each over a switch of its own",
        ],
    ),
    "different prefixes": (
        {"given": facts(ps2=address("eth1", "198.51.100.12", 25))},
        ["share one link only (192.0.2.0/24", "ps2: eth0 192.0.2.12/24, eth1 198.51.100.12/25", "needs two separate links"],
    ),
    "one link": (
        {"given": facts(without=("eth1", "eth0.10", "br-lan", "eth0_0"))},
        ["ps1 and ps2 share one link only (192.0.2.0/24; ps1: eth0 192.0.2.11/24", "needs two separate links", "add a second network"],
    ),
    "two networks on one interface": (
        {
            "given": facts(
                without=("eth1", "eth0.10", "br-lan", "eth0_0"),
                ps1=second("eth0", "198.51.100.11"),
                ps2=second("eth0", "198.51.100.12"),
            )
        },
        ["share one link only (192.0.2.0/24; ps1: eth0 192.0.2.11/24, eth0", "198.51.100.11/24", "needs two separate links"],
    ),
    "two networks on one interface of the peer": (
        {"given": facts(ps2=several(second("eth0", "198.51.100.12"), lambda given: given["interfaces"].remove("eth1")))},
        ["share one link only (192.0.2.0/24", "needs two separate links"],
    ),
    "interfaces that are none": (
        {"ha_link_interfaces": ["eth0", "eth7"]},
        ["ha_link_interfaces of ps1 names 'eth7'", "has no such interface with an IPv4 address (it has eth0, eth1)"],
    ),
    "a label for an interface": (
        {"given": facts(without=("eth0.10", "br-lan")), "ha_link_interfaces": ["eth0_0", "eth1"]},
        ["ha_link_interfaces of ps1 names 'eth0_0'", "(it has eth0, eth1)"],
    ),
    "links in another order": (
        {"own": {"ps2": {"ha_link_interfaces": ["eth1", "eth0"]}}},
        [
            "ha_link_interfaces leads the servers of the pair to different links",
            "ps1: 192.0.2.0/24, 198.51.100.0/24; ps2: 198.51.100.0/24, 192.0.2.0/24",
            "that of the service first",
        ],
    ),
    "a link on one side": (
        {"own": {"ps2": {"ha_link_interfaces": ["eth0"]}}},
        ["ps1: 192.0.2.0/24, 198.51.100.0/24; ps2: 192.0.2.0/24", "the same networks for both"],
    ),
    "a ping node that is no address": (
        {"ha_ping_nodes": ["gateway"]},
        ["ha_ping_nodes of ps1 names 'gateway'", "must be one IPv4 address, like 192.0.2.1"],
    ),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=list(BAD))
def test_bad_input(arguments, words):
    problems = pair(**arguments)["problems"]
    assert any(all(word in problem for word in words) for problem in problems), problems


def test_all_problems_come_at_once():
    given = facts(ps2=several(same_name, address("eth1", "203.0.113.2")))
    problems = pair(given, ha_virtual_ip="192.0.2.255", ha_default_active="ps9", ha_ping_nodes=["x"])["problems"]
    assert [problem.split(":")[0].split(" is ")[0].split(" (")[0] for problem in problems] == [
        "ha_default_active",
        "ha_ping_nodes of ps1 names 'x'",
        "ha_ping_nodes of ps2 names 'x'",
        "ps1 and ps2 both have the host name 'ps1'",
        "ps1 and ps2 share one link only",
        "ha_virtual_ip",
    ]


@pytest.mark.parametrize("gone", ["ps1", "ps2"])
def test_an_unreachable_server_is_told_elsewhere(gone):
    result = pair({**facts(), gone: {}})
    assert result["problems"] == []
    assert {host: entry["links"] for host, entry in result["hosts"].items()} == {"ps1": [], "ps2": []}
    assert result["hosts"]["ps1"]["peer"] == "ps2"
