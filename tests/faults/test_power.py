# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers that lose their power and get it back, in every order."""

from __future__ import annotations

import time

import pytest

from tests.faults.invariants import timeline, watched
from tests.faults.rig import CLIENT, Pair, pause, upload
from tests.system.pair import VIRTUAL_IP

fault = pytest.mark.fault
# Seconds beyond deadtime until the passive takes writes, on a machine that does other things as well.
SLACK = 2.0
# Seconds from power on until a server that need not wait for anybody serves: its boot, and Heartbeat's initdead.
ALONE = 45.0


@fault("F01", normal=True)
def test_the_active_loses_power(pair: Pair) -> None:
    """The passive serves; the old active comes back as the passive, without an interruption."""
    active, passive = pair.active, pair.passive
    with watched(pair) as watch:
        cut = time.monotonic()
        pair.lab("power", "off", active)
        watch.probe.resumes(20, "on the server that was passive")
        pair.wait_role(passive, "active", 60)
    assert watch.story.longest_gap(cut) < pair.deadtime + SLACK
    assert watch.story.servers() == [active, passive]
    assert (pair.active, pair.passive) == (passive, active)


@fault("F02", normal=True)
def test_the_passive_loses_power(pair: Pair) -> None:
    """The active goes on alone, says so, and waits for the passive again once it is back."""
    active = pair.active
    with watched(pair) as watch:
        cut = time.monotonic()
        pair.lab("power", "off", pair.passive)
        watch.probe.resumes(20, "without the passive")
        alone = pair.wait_status(active, lambda status: not status["redundant"], 10, "it knows that it is alone")
        assert alone["not_redundant_because"]
    assert watch.story.longest_gap(cut) < pair.deadtime + 3.5
    assert pair.active == active
    assert watch.story.servers() == [active]


@fault("F03")
def test_both_lose_power_and_the_active_comes_first(pair: Pair) -> None:
    """It has put down that it went on alone: it serves alone again, without having taken over from anybody."""
    active, passive = pair.active, pair.passive
    counter = pair.must_status(active)["record"]["counter"]
    with watched(pair, redundant_within=60) as watch:
        pair.lab("power", "off", passive)
        pair.wait_status(active, lambda said: not said["record"]["in_sync"], 20, "the record says that it is alone")
        pair.lab("power", "off", active)
        pair.lab("power", "on", active)
        watch.probe.resumes(ALONE, "on the one server that has power")
        alone = pair.wait_role(active, "active", 60)
        assert alone["record"]["counter"] == counter
    assert watch.story.servers() == [active]
    assert pair.active == active


@fault("G11")
def test_both_lose_power_at_once_and_the_active_comes_first(pair: Pair) -> None:
    """It cannot know whether the other one took over meanwhile: in the synchronous mode nobody serves until that one is back."""
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=60) as watch:
        pair.together(("power", "off", passive), ("power", "off", active))
        pair.lab("power", "on", active)
        pair.wait_status(active, lambda said: said["decision"]["code"] == "MAYBE_SUPERSEDED", ALONE, "it refuses")
        pair.lab("power", "on", passive)
        watch.probe.resumes(ALONE, "when both can talk")
    assert watch.story.servers() == [active]
    assert pair.active == active


@fault("F04", normal=True)
def test_both_lose_power_and_the_stale_passive_comes_first(pair: Pair) -> None:
    """It refuses, and nobody serves until the one with the newest data is back."""
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=60) as watch:
        pair.lab("power", "off", passive)
        watch.probe.resumes(20, "alone, so that the passive is stale")
        pair.lab("power", "off", active)
        pair.lab("power", "on", passive)
        off = time.monotonic()
        refusing = pair.wait_status(passive, lambda status: status["state"] == "refusing", ALONE, "it refuses to serve")
        assert refusing["role"] != "active" and refusing["decision"]["code"], refusing["decision"]
        # Heartbeat's own start, with whatever it asks of the gate, lies within this.
        pause(15)
        assert not watch.probe.has_committed(off)
        still = pair.must_status(passive)
        assert still["role"] != "active" and not still["virtual_ip"]["held"], still["decision"]
    assert watch.story.servers() == [active]
    assert pair.active == active


@fault("F05", normal=True)
def test_both_lose_power_and_get_it_at_the_same_time(pair: Pair) -> None:
    """The one that was active last is active again, and no take-over is counted."""
    active, passive = pair.active, pair.passive
    counter = pair.must_status(active)["record"]["counter"]
    with watched(pair, redundant_within=60) as watch:
        pair.together(("power", "off", passive), ("power", "off", active))
        pair.together(("power", "on", passive), ("power", "on", active))
    assert pair.active == active
    assert watch.story.servers() == [active]
    assert pair.must_status(active)["record"]["counter"] == counter


@fault("G01")
def test_the_passive_alone_gets_power(pair: Pair) -> None:
    """It cannot know what the active did after it: it refuses until an operator forces it. Then the old active follows it."""
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=60) as watch:
        pair.together(("power", "off", active), ("power", "off", passive))
        pair.lab("power", "on", passive)
        alone = pair.wait_status(passive, lambda status: status["state"] in ("refusing", "steady"), ALONE, "it has decided")
        if alone["role"] != "active":
            assert alone["decision"]["code"], alone["decision"]
            forced = pair.ha(passive, "failover", "--force", "--yes", passive)
            assert forced.returncode == 0, forced.stdout + forced.stderr
        watch.probe.resumes(15, "on the server that was forced")
    assert (pair.active, pair.passive) == (passive, active)


@fault("G02")
def test_the_old_active_returns_while_the_new_one_is_still_being_promoted(pair: Pair) -> None:
    active, passive = pair.active, pair.passive
    with watched(pair) as watch:
        cut = time.monotonic()
        pair.lab("power", "off", active)
        pause(pair.deadtime - 0.3)
        pair.lab("power", "on", active)
        watch.probe.resumes(20, "on the server that was passive")
    assert watch.story.longest_gap(cut) < pair.deadtime + SLACK
    assert pair.active == passive


STRANGER = r"""
import os, socket, sys, threading, time
end = time.monotonic() + float(sys.argv[1])
def annoy(address, kind):
    while time.monotonic() < end:
        try:
            with socket.create_connection((address, 4589), timeout=1) as link:
                link.settimeout(1)
                if kind == "garbage":
                    link.sendall(os.urandom(4096))
                elif kind == "hello":
                    link.sendall(b"\x16\x03\x01\x40\x00")
                time.sleep(0.5 if kind == "silent" else 0.05)
        except OSError:
            time.sleep(0.05)
for address in sys.argv[2:]:
    for kind in ("garbage", "silent", "hello"):
        threading.Thread(target=annoy, args=(address, kind)).start()
"""


@fault("G03")
def test_strangers_at_the_peer_link_do_not_slow_a_failover_down(pair: Pair) -> None:
    active, passive = pair.active, pair.passive
    upload(pair.lab, "scanner1", "/run/swg_stranger.py", STRANGER)
    with pair.lab.watching("scanner1", "echo begin; exec python3 /run/swg_stranger.py 25 192.0.2.11 192.0.2.12"), watched(pair) as watch:
        cut = time.monotonic()
        pair.lab("power", "off", active)
        watch.probe.resumes(20, "on the server that was passive")
    assert watch.story.longest_gap(cut) < pair.deadtime + SLACK
    assert pair.active == passive


@fault("F46")
def test_a_client_whose_arp_entry_is_fresh_finds_the_new_active(pair: Pair) -> None:
    """A kernel believes no gratuitous ARP for a second after an entry was updated: those that come later must reach it."""
    active, passive = pair.active, pair.passive
    mac = pair.lab.sh(active, "cat /sys/class/net/eth0/address")
    refresh = f"ip neighbour replace {VIRTUAL_IP} dev eth0 lladdr {mac} nud reachable"
    with watched(pair) as watch:
        cut = time.monotonic()
        pair.lab("power", "off", active)
        with pair.lab.watching(CLIENT, f"echo begin; for _ in $(seq 24); do {refresh}; sleep 0.05; done"):
            watch.probe.resumes(20, "on the server that was passive")
    assert watch.story.longest_gap(cut) < pair.deadtime + SLACK + 2.5
    assert pair.active == passive


@fault("F59", normal=True)
def test_a_power_cut_during_maintenance_is_left_to_the_operator(pair: Pair) -> None:
    """Nothing happens by itself. Afterwards the passive cannot know whether the active went on alone: it says so, and can be forced."""
    active, passive = pair.active, pair.passive
    with watched(pair) as watch:
        paused = pair.ha(active, "pause", "30", "--reason", "maintenance of the rack")
        assert paused.returncode == 0, paused.stdout + paused.stderr
        pair.wait_status(passive, lambda status: status["paused"] is not None, 10, "the passive knows of the pause")
        begun = len(timeline(pair, passive))
        pair.lab("power", "off", active)
        off = time.monotonic()
        pair.wait_status(passive, lambda status: not status["peer"]["connected"], 10, "the passive misses the active")
        pause(pair.deadtime + 6)
        assert not watch.probe.has_committed(off)
        assert len(timeline(pair, passive)) == begun
        resumed = pair.ha(passive, "resume")
        assert resumed.returncode == 0, resumed.stdout + resumed.stderr
        decided = pair.must_status(passive)["decision"]
        assert decided["role"] != "active" and decided["code"] != "PAUSED", decided
        forced = pair.ha(passive, "failover", "--force", "--yes", passive)
        assert forced.returncode == 0, forced.stdout + forced.stderr
        watch.probe.resumes(15, "on the server that was passive")
    assert pair.active == passive
    assert pair.must_status(active)["paused"] is None
