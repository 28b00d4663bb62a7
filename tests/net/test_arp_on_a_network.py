# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.net.namespaces import PATIENCE, Host, Network, run, until

ADDRESS = "192.0.2.10"
NOBODYS = "192.0.2.99"
# So long that a run which waits for it to pass is told from one that does not.
LONG = 30.0


def heard(*macs: str, own: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"answered": bool(macs), "macs": sorted(macs), "own_macs": sorted(own), "error": None}


def said(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: answer[key] for key in ("answered", "macs", "own_macs", "error")}


def add(host: Host, name: str, below: str, kind: str, *options: str) -> None:
    """Add an interface of a kind that a small kernel may not have."""
    added = subprocess.run(
        ["ip", "-n", host.namespace, "link", "add", *(("link", below) if below else ()), "name", name, "type", kind, *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "Unknown device type" in added.stderr or "Operation not supported" in added.stderr:
        pytest.skip(f"this kernel has no interfaces of the type {kind}")
    assert added.returncode == 0, added.stderr


@pytest.fixture
def switch(network: Network) -> Host:
    return network.switch()


@pytest.fixture
def asker(network: Network, switch: Host) -> Host:
    host = network.host("asker")
    network.plug(host, "eth0", switch, "192.0.2.1/24")
    return host


@pytest.fixture
def holder(network: Network, switch: Host) -> Host:
    host = network.host("holder")
    network.plug(host, "eth0", switch, f"{ADDRESS}/24")
    return host


def test_the_machine_that_holds_an_address_is_found(asker: Host, holder: Host) -> None:
    asking = asker.start_asking((ADDRESS, "eth0"), timeout=LONG)
    (answer,) = asking.result()["probes"]
    assert answer == {"address": ADDRESS, "interface": "eth0", **heard(holder.mac("eth0"))}
    assert asking.took < LONG / 2


def test_an_address_that_nobody_holds(asker: Host, holder: Host) -> None:
    before = holder.frames("eth0", "rx")
    asking = asker.start_asking((NOBODYS, "eth0"), (ADDRESS, "eth0"), timeout=0.5, count=5)
    nobodys, holders = asking.result()["probes"]
    assert (nobodys["address"], said(nobodys)) == (NOBODYS, heard())
    assert (holders["address"], said(holders)) == (ADDRESS, heard(holder.mac("eth0")))
    assert asking.took >= 0.5
    assert holder.frames("eth0", "rx") - before >= 5


def test_every_link_is_asked_for_itself(network: Network, asker: Host, holder: Host) -> None:
    second = network.switch("switch2")
    network.plug(asker, "eth1", second, "198.51.100.1/24")
    network.plug(holder, "eth1", second, "198.51.100.2/24")
    probes = [(ADDRESS, "eth0"), ("198.51.100.2", "eth1"), (ADDRESS, "eth1")]
    holder.configure("net/ipv4/conf/all/arp_ignore", "1")
    assert [said(answer) for answer in asker.ask(*probes, timeout=0.5)] == [
        heard(holder.mac("eth0")),
        heard(holder.mac("eth1")),
        heard(),
    ]


def test_a_probe_leaves_no_trace_in_any_cache(asker: Host, holder: Host) -> None:
    asker.ask((ADDRESS, "eth0"), wait_for_all=True, timeout=0.3)
    assert (asker.neighbours(), holder.neighbours()) == (set(), set())


def test_asking_from_the_interface_uses_its_address_in_the_same_network(asker: Host, holder: Host) -> None:
    asker.ip("address", "add", "198.51.100.1/24", "dev", "eth0")
    holder.ip("address", "add", "198.51.100.2/24", "dev", "eth0")
    (answer,) = asker.ask(("198.51.100.2", "eth0"), source="interface", timeout=LONG)
    assert said(answer) == heard(holder.mac("eth0"))
    assert holder.neighbours() == {"198.51.100.1"}


def test_asking_from_the_interface_never_announces(asker: Host, holder: Host) -> None:
    asker.ip("address", "add", f"{ADDRESS}/32", "dev", "eth0")
    before = holder.frames("eth0", "rx")
    (answer,) = asker.ask((ADDRESS, "eth0"), source="interface", timeout=LONG)
    assert answer["error"] == f"this machine holds {ADDRESS} itself: asking from it would announce it"
    assert holder.frames("eth0", "rx") == before


def test_asking_from_an_interface_without_address(asker: Host, holder: Host) -> None:
    asker.ip("address", "flush", "dev", "eth0")
    from_interface, *_none = asker.ask((ADDRESS, "eth0"), source="interface", timeout=LONG)
    assert from_interface["error"] == "interface eth0 has no IPv4 address to ask from"
    (from_nobody,) = asker.ask((ADDRESS, "eth0"), timeout=LONG)
    assert said(from_nobody) == heard(holder.mac("eth0"))


def test_two_machines_with_the_same_address_are_both_found(network: Network, switch: Host, asker: Host, holder: Host) -> None:
    other = network.host("other")
    network.plug(other, "eth0", switch, f"{ADDRESS}/24")
    asking = asker.start_asking((ADDRESS, "eth0"), wait_for_all=True, timeout=0.5)
    (answer,) = asking.result()["probes"]
    assert said(answer) == heard(holder.mac("eth0"), other.mac("eth0"))
    assert asking.took >= 0.5


def test_two_servers_may_ask_for_the_same_address_at_once(network: Network, switch: Host, asker: Host) -> None:
    peer = network.host("peer")
    network.plug(peer, "eth0", switch, "192.0.2.2/24")
    runs = [host.start_asking((NOBODYS, "eth0"), timeout=1.5, count=15) for host in (asker, peer)]
    results = [run.result()["probes"][0] for run in runs]
    assert [said(result) for result in results] == [heard(), heard()]


def test_the_own_address_is_not_another_machines(asker: Host, holder: Host) -> None:
    (answer,) = asker.ask(("192.0.2.1", "eth0"), timeout=0.3)
    assert said(answer) == heard()


def test_an_answer_over_another_own_interface_is_told_apart(network: Network, switch: Host, asker: Host) -> None:
    network.plug(asker, "eth1", switch)
    (own,) = asker.ask(("192.0.2.1", "eth0"), timeout=0.3)
    assert said(own) == heard(own=(asker.mac("eth1"),))
    peer = network.host("peer")
    network.plug(peer, "eth0", switch, "192.0.2.1/24")
    (both,) = asker.ask(("192.0.2.1", "eth0"), timeout=0.3)
    assert said(both) == heard(peer.mac("eth0"), own=(asker.mac("eth1"),))


def test_interfaces_that_cannot_be_asked_do_not_hinder_the_others(network: Network, asker: Host, holder: Host) -> None:
    network.cable(asker, "pulled", holder, "far")
    holder.ip("link", "set", "far", "down")
    until(lambda: "NO-CARRIER" in asker.link("pulled")["flags"], "the carrier gone")
    network.cable(asker, "off", holder, "near")
    asker.ip("link", "set", "off", "down")
    names = ["pulled", "off", "gone", "lo", "eth0"]
    asking = asker.start_asking(*((ADDRESS, name) for name in names), timeout=LONG)
    answers = asking.result()["probes"]
    assert [answer["error"] for answer in answers] == [
        "interface pulled has no carrier",
        "interface off is down",
        "there is no interface 'gone'",
        "interface lo is no Ethernet interface with ARP",
        None,
    ]
    assert [answer["answered"] for answer in answers] == [False] * 4 + [True]
    assert asking.took < LONG / 2


def test_a_machine_that_comes_late_is_found(asker: Host, holder: Host) -> None:
    before = holder.frames("eth0", "rx")
    asking = asker.start_asking((NOBODYS, "eth0"), timeout=LONG, count=60)
    until(lambda: holder.frames("eth0", "rx") > before, "the first question")
    holder.ip("address", "add", f"{NOBODYS}/24", "dev", "eth0")
    (answer,) = asking.result()["probes"]
    assert said(answer) == heard(holder.mac("eth0"))
    assert asking.took < LONG


def test_a_machine_that_announces_itself_is_found(asker: Host, holder: Host) -> None:
    """It does not answer, but it asks for somebody from that address."""
    holder.configure("net/ipv4/conf/all/arp_ignore", "8")
    before = holder.frames("eth0", "rx")
    asking = asker.start_asking((ADDRESS, "eth0"), timeout=LONG, count=60)
    until(lambda: holder.frames("eth0", "rx") > before, "the first question")
    probe = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.77', 9))"
    assert holder.start(sys.executable, "-c", probe).wait(timeout=LONG) == 0
    (answer,) = asking.result()["probes"]
    assert said(answer) == heard(holder.mac("eth0"))
    assert asking.took < LONG


@pytest.mark.parametrize(("end", "error"), [("near", "interface eth0 is down"), ("far", "interface eth0 has no carrier")])
def test_silence_proves_nothing_when_the_link_goes_meanwhile(network: Network, end: str, error: str) -> None:
    asker, peer = network.host("asker"), network.host("peer")
    network.cable(asker, "eth0", peer, "eth0")
    before = peer.frames("eth0", "rx")
    asking = asker.start_asking((NOBODYS, "eth0"), timeout=4.0, count=20)
    until(lambda: peer.frames("eth0", "rx") > before, "the first question")
    (asker if end == "near" else peer).ip("link", "set", "eth0", "down")
    (answer,) = asking.result()["probes"]
    assert answer["answered"] is False
    assert answer["error"] == error


def test_an_interface_that_is_removed_meanwhile(network: Network) -> None:
    asker, peer = network.host("asker"), network.host("peer")
    network.cable(asker, "eth0", peer, "eth0")
    before = peer.frames("eth0", "rx")
    asking = asker.start_asking((NOBODYS, "eth0"), timeout=LONG, count=60)
    until(lambda: peer.frames("eth0", "rx") > before, "the first question")
    asker.ip("link", "delete", "eth0")
    (answer,) = asking.result()["probes"]
    assert answer["error"] == "interface eth0: No such device"
    assert asking.took < LONG


def test_a_vlan_is_a_segment_of_its_own(asker: Host, holder: Host) -> None:
    for host, address in ((asker, "203.0.113.1/24"), (holder, "203.0.113.10/24")):
        add(host, "eth0.10", "eth0", "vlan", "id", "10")
        host.ip("link", "set", "eth0.10", "up")
        host.ip("address", "add", address, "dev", "eth0.10")
    holder.configure("net/ipv4/conf/all/arp_ignore", "1")
    probes = [("203.0.113.10", "eth0.10"), ("203.0.113.10", "eth0"), (ADDRESS, "eth0"), (ADDRESS, "eth0.10")]
    there = heard(holder.mac("eth0"))
    assert [said(answer) for answer in asker.ask(*probes, timeout=0.5)] == [there, heard(), there, heard()]


def test_a_virtual_interface(asker: Host, holder: Host) -> None:
    add(asker, "upper", "eth0", "macvlan", "mode", "vepa")
    asker.ip("link", "set", "upper", "up")
    until(lambda: asker.passes("upper"), "upper up")
    present, absent = asker.ask((ADDRESS, "upper"), (NOBODYS, "upper"), timeout=0.5)
    assert (said(present), said(absent)) == (heard(holder.mac("eth0")), heard())


def test_a_bond(network: Network, holder: Host, switch: Host) -> None:
    asker = network.host("bonded")
    add(asker, "bond0", "", "bond", "mode", "active-backup", "miimon", "50")
    for slave in ("eth0", "eth1"):
        network.plug(asker, slave, switch)
        asker.ip("link", "set", slave, "down")
        asker.ip("link", "set", slave, "master", "bond0")
    asker.ip("link", "set", "bond0", "up")
    until(lambda: asker.link("bond0")["operstate"] == "UP", "bond0 up")
    (answer,) = asker.ask((ADDRESS, "bond0"), timeout=LONG)
    assert said(answer) == heard(holder.mac("eth0"))


def test_a_part_of_a_bridge_hears_nothing_and_is_not_asked(switch: Host, holder: Host) -> None:
    part, whole = switch.ask((ADDRESS, "port0"), (ADDRESS, "bridge"), timeout=LONG)
    assert part["error"] == "interface port0 is a part of bridge, which gets what it receives: ask on bridge"
    assert said(whole) == heard(holder.mac("eth0"))


def test_many_addresses_take_no_longer_than_one(asker: Host, holder: Host) -> None:
    addresses = [f"192.0.2.{number}" for number in range(20, 250)]
    batch = "".join(f"address add {address}/24 dev eth0\n" for address in addresses)
    run("ip", "-n", holder.namespace, "-batch", "-", input=batch)
    asking = asker.start_asking(*((address, "eth0") for address in addresses), timeout=LONG)
    answers = asking.result()["probes"]
    assert [answer["address"] for answer in answers] == addresses
    assert all(said(answer) == heard(holder.mac("eth0")) for answer in answers)
    assert asking.took < LONG / 2


# Sends frames to everybody until it is ended: claims of the address that must not count, and noise.
NOISE = """
import random, socket, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
chance = random.Random(0)
claim = bytes.fromhex(
    "ffffffffffff 00005e005366 0806 0001 0800 06 04 0002 00005e005366 c0000263 ffffffffffff 00000000"
)
bad = [
    claim[:12] + bytes.fromhex("81000064") + claim[12:],
    claim[:12] + bytes.fromhex("81000064") + claim[12:] + bytes(14),
    claim[:41],
    claim[:30],
    claim[:22] + bytes.fromhex("01005e005366") + claim[28:],
    claim[:18] + bytes.fromhex("0806") + claim[20:],
]
while True:
    for frame in bad:
        sock.send(frame)
    for _turn in range(100):
        sock.send(claim[:14] + chance.randbytes(chance.randrange(100)))
    sys.stdout.write(".")
    sys.stdout.flush()
"""


def test_noise_is_no_answer_and_outlasts_no_deadline(network: Network, switch: Host, asker: Host, holder: Host) -> None:
    noisy = network.host("noisy")
    network.plug(noisy, "eth0", switch)
    noise = noisy.start(sys.executable, "-c", NOISE)
    assert noise.stdout is not None
    try:
        assert noise.stdout.read(1) == ".", "the noise did not start"
        asking = asker.start_asking((NOBODYS, "eth0"), (ADDRESS, "eth0"), timeout=1.0, wait_for_all=True)
        nobodys, holders = asking.result()["probes"]
        assert noise.poll() is None, "the noise ended early"
    finally:
        noise.kill()
        noise.communicate()
    assert said(nobodys) == heard()
    assert said(holders) == heard(holder.mac("eth0"))
    assert asking.took < LONG / 2


def test_without_the_right_to_send_it_fails_and_says_what_is_missing(asker: Host) -> None:
    asking = asker.start_asking((ADDRESS, "eth0"), before=("setpriv", "--bounding-set", "-net_raw"))
    result = asking.result()
    assert result["failed"] is True
    assert result["msg"] == "cannot open a packet socket, which needs root or CAP_NET_RAW: Operation not permitted"


def test_through_ansible_in_check_mode(asker: Host, holder: Host) -> None:
    task = f'{{"probes": [{{"address": "{ADDRESS}", "interface": "eth0"}}], "timeout": {LONG}}}'
    process = asker.start(
        sys.executable, "-m", "ansible", "adhoc", "localhost", "--check",
        "-e", f"ansible_python_interpreter={sys.executable}", "-m", "swg.ha.arp_probe_info", "-a", task,
    )  # fmt: skip
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    result = json.loads(out.partition("=>")[2])
    assert result["changed"] is False
    assert [said(answer) for answer in result["probes"]] == [heard(holder.mac("eth0"))]


def test_bad_input_is_refused_as_a_whole(asker: Host, holder: Host) -> None:
    before = holder.frames("eth0", "rx")
    asking = asker.start_asking((ADDRESS, "eth0"), ("192.0.2.256", "eth0"), timeout=0.0)
    result = asking.result()
    assert result["failed"] is True
    assert "timeout: 0.0 " in result["msg"]
    assert "probes[1].address: '192.0.2.256' " in result["msg"]
    assert holder.frames("eth0", "rx") == before
