# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Heartbeat that is killed, frozen, or gives its resources to the wrong server."""

from __future__ import annotations

import time

import pytest

from tests.faults.invariants import watched
from tests.faults.rig import Pair, pause
from tests.faults.test_network import UNNOTICED
from tests.system.pair import SERVERS, VIRTUAL_IP

fault = pytest.mark.fault
MACH_DOWN = "/usr/share/heartbeat/mach_down"
NO_RESTART = "/run/systemd/system/heartbeat.service.d/zz_swg_probe.conf"


def kill(pair: Pair, host: str) -> None:
    pair.lab.sh(host, "systemctl kill --kill-whom=all --signal=KILL heartbeat")


@fault("F24", normal=True)
@pytest.mark.parametrize("whose", ["active", "passive"])
def test_heartbeat_is_killed_and_stays_dead(pair: Pair, whose: str) -> None:
    """Never two virtual IPs; whoever serves then, clients hardly notice."""
    host = getattr(pair, whose)
    with watched(pair, redundant_within=60) as watch:
        pair.lab.sh(host, f"install -D /dev/stdin {NO_RESTART}; systemctl daemon-reload", input="[Service]\nRestart=no\n")
        try:
            killed = time.monotonic()
            kill(pair, host)
            pause(pair.deadtime + 4)
        finally:
            pair.lab.sh(host, f"rm {NO_RESTART}; systemctl daemon-reload; systemctl reset-failed heartbeat; systemctl start heartbeat")
        watch.probe.resumes(10, "once Heartbeat runs again")
        pair.wait_redundant(60)
    assert watch.story.longest_gap(killed) < (pair.deadtime + 2 if whose == "active" else UNNOTICED)


@fault("G12", normal=True)
@pytest.mark.parametrize("active", SERVERS)
def test_the_active_loses_power_right_after_a_start_of_its_heartbeat(pair: Pair, active: str) -> None:
    """Which has asked the other Heartbeat for more patience than deadtime. What that one makes of it depends on the order of the nodes."""
    if pair.active != active:
        pair.failover()
        pair.wait_redundant(60)
    passive = pair.passive
    with watched(pair, redundant_within=60) as watch:
        kill(pair, active)
        pair.wait_status(active, lambda status: status["heartbeat"]["running"], 10, "Heartbeat runs again")
        pair.wait_status(passive, lambda status: status["heartbeat"]["peer"] == "active", 10, "the other one has heard it")
        cut = time.monotonic()
        pair.lab("power", "off", active)
        watch.probe.resumes(20, "on the server that was passive")
        pair.wait_role(passive, "active", 60)
    assert watch.story.longest_gap(cut) < pair.deadtime + 1.5


@fault("G13")
def test_heartbeat_does_not_hear_the_end_of_its_own_takeover(pair: Pair) -> None:
    """Its scripts spoil each other's messages now and then. Without this one it would move its resources for ever."""
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=60) as watch:
        pair.lab.sh(passive, f"sed --in-place=.whole 's/ha_clustermsg/: &/' {MACH_DOWN}")
        try:
            pair.lab("power", "off", active)
            watch.probe.resumes(20, "on the server that was passive")
            before = pair.lab.sh(passive, "cat /run/heartbeat.pid")
            pair.wait_status(passive, lambda status: status["heartbeat"]["rscstatus"] == "transition", 15, "Heartbeat waits")
            pair.lab("power", "on", active)
            pair.wait_status(passive, lambda status: status["heartbeat"]["rscstatus"] == "all", 15, "Heartbeat has settled")
            assert pair.lab.sh(passive, "cat /run/heartbeat.pid") == before
        finally:
            pair.lab.sh(passive, f"mv {MACH_DOWN}.whole {MACH_DOWN}")


@fault("F25")
@pytest.mark.parametrize("whose", ["active", "passive"])
def test_heartbeat_is_killed_and_started_again(pair: Pair, whose: str) -> None:
    """As the manual does it: nothing moves."""
    active, host = pair.active, getattr(pair, whose)
    with watched(pair, redundant_within=60) as watch:
        killed = time.monotonic()
        kill(pair, host)
        pause(1)
        pair.lab.sh(host, "systemctl reset-failed heartbeat || true; systemctl start heartbeat")
        pause(15)
    assert watch.story.longest_gap(killed) < UNNOTICED
    assert watch.story.servers() == [active]


@fault("F26")
def test_the_active_s_heartbeat_is_frozen_for_longer_than_deadtime(pair: Pair) -> None:
    """Heartbeat alone would be without an address for 20 s afterwards."""
    with watched(pair, redundant_within=60) as watch:
        stopped = time.monotonic()
        pair.lab.sh(pair.active, "systemctl kill --kill-whom=all --signal=STOP heartbeat")
        pause(8)
        pair.lab.sh(pair.active, "systemctl kill --kill-whom=all --signal=CONT heartbeat")
        pause(15)
    assert watch.story.longest_gap(stopped) < pair.deadtime + 2


@fault("G07", normal=True)
def test_the_active_as_a_whole_is_frozen_for_longer_than_deadtime(pair: Pair) -> None:
    """The passive serves; the other one fences itself when it thaws, before anybody is answered twice."""
    active, passive = pair.active, pair.passive
    # Frozen, its kernel still has the address, and at the thaw its database takes writes until ha_manager has its turn.
    with watched(pair, both_for=1.0, stale_for=1.0) as watch:
        frozen = time.monotonic()
        # In this order, or it would begin to hand over because of its cables.
        pair.lab("freeze", active)
        pair.together(("cable", "out", active, "eth0"), ("cable", "out", active, "eth1"))
        watch.probe.resumes(20, "on the server that was passive")
        pause(8)
        pair.together(("cable", "in", active, "eth0"), ("cable", "in", active, "eth1"))
        thawed = time.monotonic()
        pair.lab("thaw", active)
        pair.wait_redundant(60)
    assert watch.story.longest_gap(frozen, thawed - 1) < pair.deadtime + 2
    assert watch.story.longest_gap(thawed) < 1.5
    assert pair.active == passive


@fault("F52")
def test_the_passive_s_heartbeat_has_another_key(pair: Pair) -> None:
    """The two Heartbeats call each other dead; the managers hear each other, and nothing moves."""
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=60) as watch:
        begun = time.monotonic()
        key = "/etc/ha.d/authkeys"
        take_up = "systemctl restart heartbeat"
        pair.lab.sh(passive, f"cp -a {key} {key}.kept; sed -Ei 's/^([0-9]+ sha1 ).*/\\1of-a-stranger/' {key}; {take_up}")
        try:
            assert pair.lab.sh(passive, f"grep -c of-a-stranger {key}") == "1"
            pair.wait_status(passive, lambda status: status["heartbeat"]["peer"] == "dead", 40, "its Heartbeat calls the other one dead")
            pause(pair.deadtime + 4)
            assert pair.must_status(passive)["role"] == "passive"
        finally:
            pair.lab.sh(passive, f"mv {key}.kept {key}; {take_up}")
    assert watch.story.longest_gap(begun) < UNNOTICED
    assert watch.story.servers() == [active]


@fault("F64")
def test_heartbeat_asks_the_passive_to_serve_although_the_active_does(pair: Pair) -> None:
    """The gate answers in time and truthfully for Heartbeat, and nothing moves."""
    active, passive = pair.active, pair.passive
    with watched(pair) as watch:
        asked = time.monotonic()
        gate = pair.lab.try_run("exec", passive, "--", "/etc/ha.d/resource.d/ha_gate", f"{VIRTUAL_IP}/24", "start", timeout=30)
        assert gate.returncode == 0, gate.stdout + gate.stderr
        assert time.monotonic() - asked < 11
        pause(3)
        assert not pair.must_status(passive)["virtual_ip"]["held"]
        # As an operator might, behind ha_manager's back.
        pair.lab.sh(passive, "/usr/share/heartbeat/hb_takeover all || /usr/lib/heartbeat/hb_takeover all")
        pause(12)
        pair.wait_redundant(60)
    assert watch.story.longest_gap(asked) < 1.5
    assert set(watch.story.servers()) <= {active, passive}
