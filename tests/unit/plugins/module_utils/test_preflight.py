# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.swg.ha.plugins.module_utils import preflight
from ansible_collections.swg.ha.plugins.module_utils.clock import Offset
from ansible_collections.swg.ha.plugins.module_utils.settings import SETTINGS

VIP = "192.0.2.10"
MACS = {("ps1", "eth0"): "02:00:5e:00:03:00", ("ps1", "eth1"): "02:00:5e:00:03:01"}
MACS |= {("ps2", "eth0"): "02:00:5e:00:04:00", ("ps2", "eth1"): "02:00:5e:00:04:01"}
NETWORKS = {"eth0": "192.0.2", "eth1": "198.51.100"}
STRANGER = "00:00:5e:00:53:99"


def told(problems, *words):
    """Is there one problem with all these words?"""
    return any(all(word in problem for word in words) for problem in problems)


# Variables


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"ha_synchronous_mode": "yes", "ha_link_interfaces": "eth0,eth1", "ha_ping_nodes": ["192.0.2.1"]},
        {"ha_default_active": None},
        {"ha_proxy_port": 3128, "ha_east_coast": True, "topology_links": [], "preflight_primary": "ps1"},
        {"heartbeat_port": "694", "heartbeat_links": []},
    ],
)
def test_what_may_be_set(variables):
    specifications = {"heartbeat_port": {"type": "int", "default": "{{ 694 }}"}, "unset": {"type": "int", "default": "{{ 1 }}"}}
    assert preflight.variable_problems("ps1", {"ha_virtual_ip": VIP, **variables}, specifications) == []


SPECIFICATIONS = {
    "heartbeat_port": {"type": "int", "default": 694},
    "thing_size": {"type": "int"},
    "thing_ports": {"type": "dict", "options": {"manager_port": {"type": "int"}, "port": {"type": "int"}}},
}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ha_virtual_ip": None}, ["ps1: ", "missing required arguments: ha_virtual_ip"]),
        ({"ha_timing_profile": "quick"}, ["ps1: ", "value of ha_timing_profile must be one of: fast, balanced, wan, got: quick"]),
        ({"ha_synchronous_mode": "perhaps"}, ["ps1: ", "ha_synchronous_mode", "unable to convert to bool", "perhaps"]),
        ({"ha_link_interfaces": {"first": "eth0"}}, ["ps1: ", "ha_link_interfaces", "unable to convert to list"]),
        ({"thing_size": "big"}, ["ps1: ", "thing_size", "unable to convert to int", "big"]),
        ({"thing_ports": {"prot": 1}}, ["ps1: ", "unsupported option thing_ports.prot", "manager_port, port"]),
        ({"heartbeat_port": 0}, ["ps1: heartbeat_port is 0: a port is a number from 1 to 65535"]),
        ({"heartbeat_port": -1}, ["ps1: heartbeat_port is -1: a port is a number from 1 to 65535"]),
        ({"heartbeat_port": "65536"}, ["ps1: heartbeat_port is '65536': a port is a number from 1 to 65535"]),
        ({"heartbeat_port": "udp"}, ["ps1: heartbeat_port is 'udp': a port is a number from 1 to 65535"]),
        ({"heartbeat_port": True}, ["ps1: heartbeat_port is True: a port is a number from 1 to 65535"]),
        ({"heartbeat_port": [694]}, ["ps1: heartbeat_port is [694]: a port is a number from 1 to 65535"]),
        ({"thing_ports": {"manager_port": 70000}}, ["ps1: thing_ports.manager_port is 70000: a port is a number from 1 to 65535"]),
        ({"thing_ports": {"port": 70000}}, ["ps1: thing_ports.port is 70000: a port is a number from 1 to 65535"]),
        ({"ha_virtul_ip": VIP}, ["ps1: there is no setting ha_virtul_ip: did you mean ha_virtual_ip?"]),
        ({"ha_ping_node": "192.0.2.1"}, ["ps1: there is no setting ha_ping_node: did you mean ha_ping_nodes?"]),
    ],
)
def test_wrong_variables(variables, words):
    assert told(preflight.variable_problems("ps1", {"ha_virtual_ip": VIP, **variables}, SPECIFICATIONS), *words)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_typo_in_any_setting_is_seen(name):
    typo = name[:-2] + name[-1] + name[-2]
    problems = preflight.variable_problems("ps1", {"ha_virtual_ip": VIP, typo: 1}, {})
    # In a short name, two letters that changed places may be too much for a guess.
    assert problems == [f"ps1: there is no setting {typo}: did you mean {name}?"] or len(name) < 9


def test_all_wrong_variables_come_at_once():
    variables = {"ha_timing_profile": "quick", "thing_size": "big", "heartbeat_port": 0, "ha_pingnodes": []}
    problems = preflight.variable_problems("ps1", variables, SPECIFICATIONS)
    for words in ("ha_virtual_ip", "quick", "thing_size", "heartbeat_port is 0", "ha_pingnodes"):
        assert told(problems, words), words


# Reachability and versions


def server(system="Debian 12", service_manager="systemd", **packages):
    return {"reachable": True, "system": system, "service_manager": service_manager, "packages": {"heartbeat": "1:3", **packages}}


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"reachable": False, "unreachable_reason": "Connection timed out"}, ["ps2 cannot be reached", "(Connection timed out)", "by SSH"]),
        ({"reachable": False, "unreachable_reason": ""}, ["ps2 cannot be reached", "(no facts)", "both servers of a pair must be up"]),
        ({}, ["ps2 cannot be reached", "(no facts)"]),
    ],
)
def test_unreachable_server(seen, words):
    problems = preflight.reachability_problems({"ps1": server(), "ps2": seen})
    assert len(problems) == 1 and told(problems, *words)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (server(), server(), []),
        (server("Debian 13"), server("Debian 13"), []),
        (
            server("Debian 12", postgresql="15"),
            server("Debian 13", postgresql="17"),
            [["ps1: Debian 12, ps2: Debian 13", "must run the same release"]],
        ),
        (
            server("Debian 11"),
            server("Debian 11"),
            [["ps1 runs Debian 11", "supports Debian 12 and Debian 13"], ["ps2 runs Debian 11"]],
        ),
        (server(), server(service_manager="sysvinit"), [["ps2 is managed by 'sysvinit'", "systemd is needed"]]),
        (
            server(heartbeat="1:3.0.6-12"),
            server(heartbeat="1:3.0.6-13"),
            [["different versions of heartbeat (ps1: 1:3.0.6-12, ps2: 1:3.0.6-13)", "same state with apt"]],
        ),
        (
            server(heartbeat=None),
            server(heartbeat=None),
            [["ps1: package heartbeat is neither installed nor known", "apt-get update"], ["ps2: package heartbeat is neither"]],
        ),
        (
            server(),
            server(heartbeat=None),
            [["different versions of heartbeat (ps1: 1:3, ps2: none)"], ["ps2: package heartbeat is neither"]],
        ),
    ],
)
def test_versions(one, other, expected):
    problems = preflight.version_problems({"ps1": one, "ps2": other}, ["heartbeat"])
    assert len(problems) == len(expected), problems
    assert all(told(problems, *words) for words in expected), problems


# As apt 2.6 of Debian 12 prints it, with a package of each kind.
POLICY = """\
heartbeat:
  Installed: 1:3.0.6-13+b2
  Candidate: 1:3.0.6-14
  Version table:
     1:3.0.6-14 500
        500 file:/srv/packages bookworm/main amd64 Packages
 *** 1:3.0.6-13+b2 100
        100 /var/lib/dpkg/status
chrony:
  Installed: (none)
  Candidate: 4.3-2+deb12u3
  Version table:
     4.3-2+deb12u3 500
        500 file:/srv/packages bookworm/main amd64 Packages
resource-agents:
  Installed: (none)
  Candidate: (none)
  Version table:
"""


def test_package_versions():
    assert preflight.package_versions(POLICY) == {"heartbeat": "1:3.0.6-13+b2", "chrony": "4.3-2+deb12u3"}
    assert preflight.package_versions("") == {}


# Clocks


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (Offset(0.9, 0.01), False),
        (Offset(1.0, 0.0), False),
        (Offset(1.4, 0.5), False),  # not beyond doubt
        (Offset(1.6, 0.5), True),
        (Offset(-3600.25, 0.002), True),
    ],
)
def test_clocks(offset, expected):
    problems = preflight.clock_problems(offset, 1.0)
    words = [f"differ by {abs(offset.offset_s):.3f} s", f"{offset.uncertainty_s:.3f} s", "preflight_clock_offset_max", "1.0 s", "NTP"]
    assert bool(problems) is expected
    assert not expected or told(problems, *words)


# Addresses


def links(host, peer):
    return [
        {
            "interface": interface,
            "network": f"{network}.0/24",
            "mac": MACS[host, interface],
            "peer_interface": interface,
            "peer_address": f"{network}.1{peer[-1]}",
            # The kernel and Ansible write small letters; other machines' facts need not.
            "peer_mac": MACS[peer, interface].upper(),
        }
        for interface, network in NETWORKS.items()
    ]


def observed(heard=None, errors=None):
    """What both servers hear: each other on the right link, and nobody for the virtual IP.

    heard and errors: (server, address, interface) to hardware addresses, or to a text.
    """
    result = {}
    for host, peer in (("ps1", "ps2"), ("ps2", "ps1")):
        probes = []
        for probe in preflight.link_probes(links(host, peer), VIP):
            at = (host, probe["address"], probe["interface"])
            right = [MACS[peer, probe["interface"]]] if probe["address"].startswith(NETWORKS[probe["interface"]]) else []
            macs = (heard or {}).get(at, [] if probe["address"] == VIP else right)
            probes.append({**probe, "macs": macs, "error": (errors or {}).get(at)})
        result[host] = {"links": links(host, peer), "probes": probes}
    return result


@pytest.mark.parametrize(
    ("virtual_ip", "expected"),
    [
        (VIP, [{"address": VIP, "interface": "eth0"}]),
        ("192.0.2", []),
        ("127.0.0.1", []),
        ("198.51.100.10", []),
        (None, []),
        (["192.0.2.10"], []),
    ],
)
def test_what_is_asked(virtual_ip, expected):
    """A virtual IP that cannot be asked for is told by topology.py, and must not keep the other problems from being told."""
    assert preflight.link_probes(links("ps1", "ps2"), virtual_ip) == [
        *expected,
        {"address": "192.0.2.12", "interface": "eth0"},
        {"address": "198.51.100.12", "interface": "eth0"},
        {"address": "192.0.2.12", "interface": "eth1"},
        {"address": "198.51.100.12", "interface": "eth1"},
    ]
    assert preflight.link_probes([], virtual_ip) == []


@pytest.mark.parametrize(
    ("heard", "errors", "expected"),
    [
        ({}, {}, []),
        # The pair itself holds the virtual IP.
        ({("ps2", VIP, "eth0"): [MACS["ps1", "eth0"]]}, {}, []),
        (
            {("ps1", VIP, "eth0"): [STRANGER]},
            {},
            [[f"ha_virtual_ip {VIP}", "another machine", f"({STRANGER}, seen by ps1 on eth0)", "choose an address that nobody uses"]],
        ),
        # The pair holds it, and so does another machine.
        ({("ps2", VIP, "eth0"): [MACS["ps1", "eth0"], STRANGER]}, {}, [["another machine", f"({STRANGER}, seen by ps2 on eth0)"]]),
        (
            {("ps1", "198.51.100.12", "eth1"): []},
            {},
            [["ps1: the peer does not answer for 198.51.100.12 on eth1", "check the cable", "ha_link_interfaces"]],
        ),
        # Somebody else has the peer's address there.
        ({("ps1", "198.51.100.12", "eth1"): [STRANGER]}, {}, [["ps1: the peer does not answer for 198.51.100.12 on eth1"]]),
        # Another machine with that address in another network is none of our business.
        ({("ps1", "198.51.100.12", "eth0"): [STRANGER]}, {}, []),
        (
            {("ps1", "198.51.100.12", "eth0"): [MACS["ps2", "eth1"]]},
            {},
            [["ps1: the peer's 198.51.100.12 of link eth1 answers on eth0 too", "share one network segment", "(or a VLAN) of its own"]],
        ),
        (
            {},
            {("ps2", "198.51.100.11", "eth1"): "interface eth1 has no carrier"},
            [["ps2: eth1 cannot be used as a link: interface eth1 has no carrier"]],
        ),
    ],
)
def test_addresses(heard, errors, expected):
    problems = preflight.address_problems(observed(heard, errors), VIP)
    assert len(problems) == len(expected), problems
    assert all(told(problems, *words) for words in expected), problems


def test_a_trouble_of_an_interface_is_told_once():
    errors = {("ps1", address, "eth1"): "interface eth1 is down" for address in ("192.0.2.12", "198.51.100.12")}
    assert preflight.address_problems(observed(errors=errors), VIP) == ["ps1: eth1 cannot be used as a link: interface eth1 is down"]


def test_a_virtual_ip_of_one_server_only():
    """topology.py tells that the two servers have different ones."""
    seen = observed()
    seen["ps2"]["probes"][0]["address"] = "192.0.2.99"
    assert preflight.address_problems(seen, VIP) == []


# Databases

NOTHING = {"exists": False}
FRESH = {"exists": True, "in_recovery": False, "has_user_data": False, "system_identifier": "1"}
DATABASE = {"name": "policy", "size": 1_500_000_000, "user": True}
DATA = {**FRESH, "has_user_data": True, "databases": [{"name": "postgres", "size": 7_763_635, "user": False}, DATABASE]}
STOPPED = {"exists": True, "in_recovery": False, "has_user_data": None, "system_identifier": "1"}
STANDBY = {"exists": True, "in_recovery": True, "has_user_data": True, "system_identifier": "1"}
OTHER = {"system_identifier": "2"}


@pytest.mark.parametrize(
    ("ps1", "ps2", "source", "primary"),
    [
        (NOTHING, NOTHING, None, "ps1"),
        (FRESH, {**FRESH, **OTHER}, None, "ps1"),
        (DATA, NOTHING, None, "ps1"),
        (DATA, {**FRESH, **OTHER}, None, "ps1"),
        (DATA, {**DATA, **OTHER}, "ps1", "ps1"),
        (STOPPED, FRESH, None, "ps1"),
        (FRESH, {**STOPPED, **OTHER}, "ps1", "ps1"),
        # A running pair, whichever of the two is the active one today.
        (DATA, STANDBY, None, "ps1"),
        (STANDBY, DATA, None, "ps2"),
        (STANDBY, DATA, "ps2", "ps2"),
        (STANDBY, STOPPED, None, "ps2"),
        # A standby of something else, that may be replaced as the operator says.
        (DATA, {**STANDBY, **OTHER}, "ps1", "ps1"),
    ],
)
def test_whose_databases_live(ps1, ps2, source, primary):
    assert preflight.choose_primary({"ps1": ps1, "ps2": ps2}, "ps1", "ps2", source) == (primary, [])


@pytest.mark.parametrize(
    ("ps1", "ps2", "source", "words"),
    [
        (
            FRESH,
            {**DATA, **OTHER},
            None,
            [
                "PostgreSQL on ps2 has databases of its own (policy, 1500 MB)",
                "ha_data_source=ps1",
                "ha_default_active=ps2 with ha_data_source=ps2",
            ],
        ),
        # Nothing to lose on ps1 is no reason to give up what is on ps2.
        (NOTHING, DATA, None, ["PostgreSQL on ps2 has databases of its own", "ha_data_source=ps1"]),
        # Clones of one machine have the same system identifier, and data of their own all the same.
        (DATA, DATA, None, ["PostgreSQL on ps2 has databases of its own", "is moved aside, not deleted"]),
        (DATA, {**DATA, "databases": []}, None, ["on ps2 has databases of its own (objects in the database postgres)"]),
        (DATA, STOPPED, None, ["PostgreSQL on ps2 is stopped or does not answer", "nobody can tell", "ha_data_source=ps1"]),
        (DATA, DATA, "ps9", ["ha_data_source is 'ps9'", "inventory name of a server of the pair: ps1 or ps2"]),
        (FRESH, DATA, "ps2", ["ha_data_source is ps2", "ps1 is active at first", "set ha_default_active to ps2"]),
        (DATA, STANDBY, "ps2", ["ha_data_source is ps2", "ps1 is the primary of this pair", "leave ha_data_source out"]),
        (STANDBY, STANDBY, None, ["a standby on both servers (ps1 and ps2)", "pg_promote()"]),
        # The primary was made anew: the only copy of the data is the standby's.
        (
            {**FRESH, **OTHER},
            STANDBY,
            None,
            [
                "on ps2 is a standby, but of another primary than ps1",
                "(system identifiers: ps1: 2, ps2: 1)",
                "ha_data_source=ps1",
                "promote ps2",
            ],
        ),
        (NOTHING, STANDBY, None, ["PostgreSQL on ps2 has databases of its own", "ha_default_active=ps2 with ha_data_source=ps2"]),
        (STANDBY, NOTHING, None, ["PostgreSQL on ps1 is a standby without its primary", "takes no writes", "pg_promote()"]),
        (STANDBY, NOTHING, "ps1", ["PostgreSQL on ps1 is a standby without its primary", "pg_promote()"]),
    ],
)
def test_data_that_would_be_replaced(ps1, ps2, source, words):
    _primary, problems = preflight.choose_primary({"ps1": ps1, "ps2": ps2}, "ps1", "ps2", source)
    assert len(problems) == 1 and told(problems, *words), problems


def test_installed_packages():
    listing = (
        "installed heartbeat 1:3.0.6-13+b2\nconfig-files chrony 4.3-2+deb12u3\nnot-installed postgresql-15 \n"
        "unpacked openssl 3.0.20\n\ninstalled libc6 2.36-9\ninstalled libc6 2.36-9\n"
    )
    assert preflight.installed_packages(listing) == {"heartbeat": "1:3.0.6-13+b2", "libc6": "2.36-9"}
    assert preflight.installed_packages("") == {}
