# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cables, switches, partitions, loss: who serves, and who gives up in time."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.faults.invariants import timeline, watched
from tests.faults.rig import Pair, pause
from tests.system.pair import SERVERS

fault = pytest.mark.fault
SLACK = 2.0
# What a client may see of something that is no reason to move (seconds): less than deadtime, and than the quickest move.
UNNOTICED = 0.9


@fault("F15", normal=True)
def test_the_active_loses_its_service_link(pair: Pair) -> None:
    """The other link lives: the two servers agree at once."""
    active, passive = pair.active, pair.passive
    with watched(pair) as watch:
        pulled = time.monotonic()
        pair.lab("cable", "out", active, "eth0")
        watch.probe.resumes(20, "on the server that was passive")
    assert watch.story.longest_gap(pulled) < 2.5
    assert pair.active == passive


@fault("F16")
def test_the_active_loses_its_heartbeat_link(pair: Pair) -> None:
    """Nothing moves; the status tells of the link."""
    active = pair.active
    with watched(pair) as watch:
        pulled = time.monotonic()
        pair.lab("cable", "out", active, "eth1")
        pair.wait_status(active, lambda status: status["network"]["carriers"]["eth1"] is False, 10, "it sees that the carrier is gone")
        pair.wait_status(active, lambda status: "down" in status["peer"]["links"].values(), 10, "it sees that a link is down")
        pause(pair.deadtime + 3)
    assert watch.story.longest_gap(pulled) < UNNOTICED
    assert watch.story.servers() == [active]


@fault("F17", normal=True)
def test_the_service_switch_dies(pair: Pair) -> None:
    """It is gone for both: nothing moves, for the other server has nothing better."""
    active = pair.active
    begun = {host: len(timeline(pair, host)) for host in SERVERS}
    with watched(pair) as watch:
        off = time.monotonic()
        pair.lab("switch", "off", "sw1")
        pause(10)
        assert pair.must_status(active)["role"] == "active"
        pair.lab("switch", "on", "sw1")
        on = time.monotonic()
        watch.probe.resumes(15, "once the switch is back")
        back = time.monotonic()
    assert watch.story.servers() == [active]
    assert watch.story.longest_gap(on, back) < (on - off) + 6
    assert {host: len(timeline(pair, host)) for host in SERVERS} == begun


@fault("F18")
def test_the_active_s_port_flaps(pair: Pair) -> None:
    """Twenty times 50 ms: shorter than any decision; clients go on."""
    active = pair.active
    switch, port = f"swgha-{pair.lab.name}-sw1", f"p{SERVERS.index(active) + 1}"
    with watched(pair) as watch:
        begin = time.monotonic()
        for _ in range(20):
            for state in ("down", "up"):
                subprocess.run(["ip", "-n", switch, "link", "set", port, state], check=True)
                time.sleep(0.05)
        watch.probe.resumes(10, "when the port is steady again")
    assert watch.story.longest_gap(begin) < pair.deadtime + SLACK
    assert pair.active == active


@fault("F19", normal=True)
def test_the_active_is_cut_off_and_comes_back(pair: Pair) -> None:
    """It gives up before the passive takes over; its return interrupts nobody."""
    active, passive = pair.active, pair.passive
    with watched(pair) as watch:
        # In this order: without its service link alone it would begin to hand over.
        pair.lab("cable", "out", active, "eth1")
        cut = time.monotonic()
        pair.lab("cable", "out", active, "eth0")
        watch.probe.resumes(20, "on the server that was passive")
        fenced = pair.must_status(active)
        assert not fenced["virtual_ip"]["held"], fenced["decision"]
        pair.wait_status(active, lambda status: status["role"] != "active", 15, "it says that it does not serve")
        pause(10)
        healed = time.monotonic()
        pair.together(("cable", "in", active, "eth0"), ("cable", "in", active, "eth1"))
        pair.wait_redundant(60)
    assert watch.story.longest_gap(cut, healed - 1) < pair.deadtime + SLACK
    assert watch.story.longest_gap(healed) < UNNOTICED
    assert pair.active == passive


@fault("F20", normal=True)
def test_the_servers_do_not_hear_each_other_but_both_see_the_network(pair: Pair) -> None:
    """The passive sees that somebody serves at the virtual IP, and stays what it is."""
    active, passive = pair.active, pair.passive
    with watched(pair) as watch:
        cut = time.monotonic()
        with pair.not_speaking():
            pause(8)
            assert pair.must_status(passive)["role"] != "active"
            alone = pair.must_status(active)
            assert alone["role"] == "active", f"{alone['decision']}\n{pair.diagnosis()}"
            assert not alone["redundant"] and alone["not_redundant_because"]
        healed = time.monotonic()
        pair.wait_redundant(60)
    assert watch.story.longest_gap(cut, healed - 1) < pair.deadtime + 3.5
    assert watch.story.longest_gap(healed) < UNNOTICED
    assert watch.story.servers() == [active]


@fault("F21")
@pytest.mark.parametrize("deaf", ["passive", "active"])
def test_one_server_does_not_hear_the_other(pair: Pair, deaf: str) -> None:
    """Loss one way, on both networks: at most one of them serves at any time."""
    active, passive = pair.active, pair.passive
    block = (active, passive) if deaf == "passive" else (passive, active)
    with watched(pair) as watch:
        cut = time.monotonic()
        pair.lab("block", *block)
        watch.probe.resumes(20, "on one of them")
        pause(8)
    assert watch.story.longest_gap(cut) < pair.deadtime + 2.5


@fault("F22")
def test_thirty_percent_of_the_packets_are_lost(pair: Pair) -> None:
    """On every network of both servers, both ways: no failover."""
    active = pair.active
    devices = ("eth0", "eth1")
    loss = "".join(
        f"add chain netdev swg_loss {device} {{ type filter hook ingress device {device} priority 0; }}; "
        f"add rule netdev swg_loss {device} numgen random mod 100 < 30 drop; "
        for device in devices
    )
    with watched(pair) as watch:
        for host in SERVERS:
            pair.lab.sh(host, f"nft '{'add table netdev swg_loss'}; {loss}'")
        try:
            pause(20)
            assert pair.must_status(active)["role"] == "active"
        finally:
            for host in SERVERS:
                pair.lab.sh(host, "nft delete table netdev swg_loss")
        watch.probe.resumes(15, "without loss")
    assert pair.active == active
    assert watch.story.servers() == [active]


@fault("F62")
def test_the_ping_node_dies(pair: Pair) -> None:
    """It is gone for both: nothing moves."""
    active = pair.active
    with watched(pair, redundant_within=40) as watch:
        off = time.monotonic()
        pair.lab("power", "off", "gw1")
        pause(10)
    assert watch.story.longest_gap(off) < UNNOTICED
    assert watch.story.servers() == [active]


@fault("G05", normal=True)
def test_the_peer_link_is_down_while_heartbeat_is_up(pair: Pair) -> None:
    """Nothing moves."""
    active, passive = pair.active, pair.passive
    rule = "tcp dport 4589", "tcp sport 4589"
    with watched(pair) as watch:
        cut = time.monotonic()
        with pair.losing(active, rule[0]), pair.losing(active, rule[1]):
            pair.wait_status(active, lambda status: not status["peer"]["connected"], 15, "the peer link is down")
            pause(pair.deadtime + 5)
            assert pair.must_status(passive)["role"] == "passive"
        pair.wait_redundant(60)
    assert watch.story.longest_gap(cut) < pair.deadtime + 2.5
    assert watch.story.servers() == [active]


@fault("G06")
def test_heartbeat_is_cut_off_while_the_peer_link_is_up(pair: Pair) -> None:
    """Heartbeat believes that the other side is dead, and later that it has come back from a partition: nothing moves."""
    active = pair.active
    with watched(pair) as watch:
        cut = time.monotonic()
        with pair.losing(active, "udp dport 694"):
            pause(pair.deadtime + 8)
        pause(12)
        pair.wait_redundant(60)
    assert watch.story.longest_gap(cut) < UNNOTICED
    assert watch.story.servers() == [active]
