# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hand-overs on purpose."""

from __future__ import annotations

import time

import pytest

from tests.faults.evidence import lost
from tests.faults.invariants import watched
from tests.faults.rig import Pair
from tests.system.pair import eventually

fault = pytest.mark.fault
LOAD = """
cd /var/lib/postgresql
runuser -u postgres -- /usr/lib/postgresql/15/bin/pgbench --initialize --quiet --scale=5 postgres 2>&1
echo begin
exec runuser -u postgres -- /usr/lib/postgresql/15/bin/pgbench --client=4 --rate=2000 --time=60 --no-vacuum postgres
"""


@fault("F54", normal=True)
def test_a_hand_over_under_load_loses_nothing(pair: Pair) -> None:
    """And there again, back: writes stop for less than a second."""
    active, passive = pair.active, pair.passive
    with watched(pair) as watch:
        with pair.lab.watching(active, LOAD) as said:
            eventually(lambda: "begin" in said(), 60, "there is load")
            begin = watch.probe.resumes(10, "under load")
            pair.wait_status(active, lambda status: status["redundant"], 30, "the passive keeps up")
            pair.failover()
            watch.probe.resumes(10, "on the other server")
        pair.wait_redundant(60)
        assert pair.active == passive
        pair.failover()
        watch.probe.resumes(10, "where it began")
    assert watch.story.longest_gap(begin) < 1.5
    assert watch.lost == [] and lost(watch.story.acknowledged, pair.rows(watch.probe.client)) == []
    assert pair.active == active


# Threads come late where processors are busy. The load ends by itself.
BUSY = "echo begin; for _ in 1 2 3; do timeout 60 sh -c 'while :; do :; done' & done; wait"


@fault("G14")
def test_on_busy_processors_the_old_active_takes_over_again_right_after_a_hand_over(pair: Pair) -> None:
    active, passive = pair.active, pair.passive
    with watched(pair) as watch, pair.lab.watching(active, BUSY) as said:
        eventually(lambda: "begin" in said(), 20, "there is load")
        pair.failover()
        pair.wait_redundant(60)
        assert pair.active == passive
        pair.lab("power", "off", passive)
        watch.probe.resumes(30, "on the server that had handed over")
        pair.wait_role(active, "active", 60)
    assert pair.active == active


@fault("F30")
def test_two_hand_overs_one_right_after_the_other(pair: Pair) -> None:
    active = pair.active
    with watched(pair) as watch:
        begin = time.monotonic()
        for _ in range(2):
            # Refused as long as the other side is not ready.
            eventually(lambda: pair.redundant() and pair.ha(pair.active, "failover", timeout=90).returncode == 0, 40, "a hand-over")
        watch.probe.resumes(10, "after the second one")
    assert watch.story.longest_gap(begin) < 1.5
    assert pair.active == active


@fault("G10")
def test_a_restart_of_heartbeat_and_of_ha_manager_moves_nothing(pair: Pair) -> None:
    active = pair.active
    with watched(pair) as watch:
        begin = time.monotonic()
        for host in (pair.active, pair.passive):
            done = pair.ha(host, "restart", timeout=150)
            assert done.returncode == 0, done.stdout + done.stderr
            pair.lab.sh(host, "systemctl restart ha_manager")
            pair.wait_redundant(60)
    assert watch.story.longest_gap(begin) < 0.5
    assert watch.story.servers() == [active]
