# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A database that dies, hangs, cannot write, lags, or has what the other one never had."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.faults.invariants import watched
from tests.faults.rig import Pair, pause
from tests.system.pair import CLUSTER, DATA, Lab, eventually

fault = pytest.mark.fault
# Seconds until a database that hangs or cannot write has been left for the other one.
HUNG = 12.0
# As long may the virtual IP be at a database that hangs: nobody knows at once.
HUNG_ADDRESS = 8.0
TABLE = "swg_probe.ballast"
HELD_BACK = "/etc/systemd/system/ha_manager.service.d/zz_swg_probe.conf"


def grow(lab: Lab, host: str, megabytes: int, *, commit: str = "local") -> None:
    """Write so much WAL, in rows of a kilobyte that do not compress, committed as said."""
    lab.sql(
        host,
        f"SET synchronous_commit = {commit};"
        f"CREATE TABLE IF NOT EXISTS {TABLE} (noise text);"
        f"ALTER TABLE {TABLE} ALTER noise SET STORAGE PLAIN;"
        f"INSERT INTO {TABLE} SELECT string_agg(md5(random()::text || i::text), '') "
        f"FROM generate_series(1, {megabytes * 1000}) AS i, generate_series(1, 31) GROUP BY i;",
    )


@fault("F07", normal=True)
def test_the_active_s_postgresql_is_killed(pair: Pair) -> None:
    """It is started again or left for the passive, whichever is quicker."""
    with watched(pair) as watch:
        kill = time.monotonic()
        pair.lab.sh(pair.active, f"kill -KILL {pair.postmaster(pair.active)}")
        watch.probe.resumes(15, "after the crash")
    assert watch.story.longest_gap(kill) < 2.5


def end_backends(pair: Pair, signal: str) -> None:
    """Have the processes that serve the probe on the active end by a signal; PostgreSQL then begins anew, with its postmaster."""
    query = "SELECT pid FROM pg_stat_activity WHERE usename = 'swg_probe'"
    pair.lab.try_run("exec", pair.active, "--", "sh", "-c", f'kill -{signal} $(runuser -u postgres -- psql -XAtqc "{query}")', timeout=20)


@fault("F09")
def test_processes_of_the_active_s_postgresql_crash_again_and_again(pair: Pair) -> None:
    """Each time its postmaster has it begin anew: nothing moves, for what crashes one server would crash the other as well."""
    active = pair.active
    with watched(pair) as watch:
        begun = time.monotonic()
        for _ in range(5):
            crash = time.monotonic()
            end_backends(pair, "SEGV")
            watch.probe.resumes(10, "after the crash")
            pause(max(0.0, 2 - (time.monotonic() - crash)))
    assert watch.story.longest_gap(begun) < 2.5
    assert watch.story.servers() == [active]


@fault("F42")
def test_the_kernel_ends_a_process_for_want_of_memory(pair: Pair) -> None:
    """It takes one of PostgreSQL's, and never what moves the service; the postmaster begins anew."""
    active = pair.active
    for service in ("ha_manager", "heartbeat"):
        # What systemd was told: in a container it may not be allowed to, and passes over it.
        assert pair.lab.sh(active, f"systemctl show --property=OOMScoreAdjust --value {service}") == "-1000", service
    with watched(pair) as watch:
        begun = time.monotonic()
        end_backends(pair, "KILL")
        watch.probe.resumes(10, "after a process of PostgreSQL was killed")
    assert watch.story.longest_gap(begun) < 2.5
    assert watch.story.servers() == [active]


@fault("F14")
def test_the_active_s_disk_is_slow(pair: Pair) -> None:
    """Commits take their time; a disk that answers within the limit is no reason to move."""
    active = pair.active
    with watched(pair) as watch:
        pair.lab("disk", "slow", active, "--iops", "5")
        slow = time.monotonic()
        pause(12)
        assert watch.probe.has_committed(slow + 8), watch.probe.tail()
        pair.lab("disk", "heal", active)
    assert watch.story.servers() == [active]


@fault("F08", normal=True)
def test_the_active_s_postgresql_is_frozen(pair: Pair) -> None:
    """The passive serves, and the frozen one is gone before."""
    active, passive = pair.active, pair.passive
    with watched(pair, stale_for=HUNG_ADDRESS) as watch:
        stop = time.monotonic()
        pair.lab.sh(active, f"systemctl kill --signal=STOP {CLUSTER}")
        watch.probe.resumes(30, "although PostgreSQL is frozen")
    assert watch.story.longest_gap(stop) < HUNG
    # Whether it was the same server, restarted, or the other one is the product's choice; it is documented.
    assert set(watch.story.servers()) <= {active, passive}


@fault("F10")
def test_the_active_s_disk_is_full(pair: Pair) -> None:
    """The passive serves."""
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=90, stale_for=HUNG_ADDRESS) as watch:
        full = time.monotonic()
        pair.lab("disk", "fill", active)
        # What is left of the present WAL segment is used up.
        pair.lab.try_run("exec", active, "--", "runuser", "-u", "postgres", "--", "psql", "-Xc", "SELECT pg_switch_wal()")
        pair.wait_role(passive, "active", 40)
        watch.probe.resumes(15, "on the server with space")
    assert watch.story.longest_gap(full) < 2 * HUNG
    assert pair.active == passive


@fault("F11")
def test_the_passive_s_disk_is_full(pair: Pair) -> None:
    """The active goes on; the passive is not fit to take over, and says so."""
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=90) as watch:
        full = time.monotonic()
        pair.lab("disk", "fill", passive)
        grow(pair.lab, active, 40)
        watch.probe.resumes(20, "without the passive")
        pair.wait_status(active, lambda status: not status["redundant"], 40, "the pair is not redundant")
        refused = pair.ha(active, "failover", timeout=90)
        assert refused.returncode != 0 and refused.stderr.strip(), refused.stdout + refused.stderr
    assert watch.story.longest_gap(full) < pair.deadtime + 5
    assert pair.active == active


@fault("F12")
def test_the_active_s_disk_becomes_read_only(pair: Pair) -> None:
    """The passive serves."""
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=90, stale_for=HUNG_ADDRESS) as watch:
        failed = time.monotonic()
        pair.lab("disk", "readonly", active)
        pair.wait_role(passive, "active", 40)
        watch.probe.resumes(15, "on the server with a disk")
    assert watch.story.longest_gap(failed) < HUNG
    assert pair.active == passive


@fault("F13", normal=True)
def test_the_active_s_disk_hangs(pair: Pair) -> None:
    """ha_manager does not wait with it: the passive serves."""
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=90, stale_for=HUNG_ADDRESS) as watch:
        hung = time.monotonic()
        pair.lab("disk", "freeze", active)
        pair.wait_role(passive, "active", 40)
        watch.probe.resumes(15, "on the server with a disk")
    assert watch.story.longest_gap(hung) < HUNG
    assert pair.active == passive


@fault("G04")
def test_the_active_s_data_directory_cannot_be_written(pair: Pair) -> None:
    """The passive serves."""
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=90, stale_for=HUNG_ADDRESS) as watch:
        begun = time.monotonic()
        # Root is PostgreSQL's owner's better: the attribute holds for both.
        pair.lab.sh(active, f"chattr +i {DATA}/pg_wal {DATA}/global")
        try:
            pair.lab.try_run("exec", active, "--", "runuser", "-u", "postgres", "--", "psql", "-Xc", "SELECT pg_switch_wal()")
            # It may have ended by itself already.
            pair.lab.try_run("exec", active, "--", "systemctl", "kill", "--signal=KILL", CLUSTER)
            pair.wait_role(passive, "active", 40)
            watch.probe.resumes(15, "on the server that can write")
        finally:
            pair.lab.sh(active, f"chattr -i {DATA}/pg_wal {DATA}/global")
    assert watch.story.longest_gap(begun) < 2 * HUNG
    assert pair.active == passive


@fault("F31")
def test_the_active_dies_while_the_passive_makes_its_first_copy(pair: Pair) -> None:
    """Half a copy is not promoted: the active is waited for."""
    active, passive = pair.active, pair.passive
    grow(pair.lab, active, 200)
    with watched(pair, redundant_within=180) as watch:
        pair.lab.sh(passive, f"systemctl stop ha_manager; systemctl stop {CLUSTER}; rm -rf {DATA}/*")
        pair.lab("disk", "slow", passive, "--iops", "20")
        pair.lab.sh(passive, "systemctl start ha_manager")
        copying = pair.wait_status(passive, lambda status: status["replication_status"] == "initializing", 40, "it copies")
        assert copying["role"] == "passive"
        pair.lab("power", "off", active)
        off = time.monotonic()
        pair.wait_status(passive, lambda status: status["state"] == "refusing" or not status["peer"]["connected"], 15, "it is alone")
        pause(pair.deadtime + 6)
        assert pair.must_status(passive)["role"] == "passive"
        assert not watch.probe.has_committed(off)
        pair.lab("disk", "heal", passive)
        pair.lab("power", "on", active)
        watch.probe.resumes(45, "on the server with the data")
    assert pair.active == active


@fault("F33")
def test_a_hand_over_to_a_passive_that_lags_waits_or_is_refused(pair: Pair) -> None:
    """Replay stands still with 100 MB to go: a planned hand-over loses nothing, done or refused."""
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=60) as watch:
        begun = time.monotonic()
        pair.lab.sql(passive, "SELECT pg_wal_replay_pause()")
        grow(pair.lab, active, 100)
        done = pair.ha(active, "failover", timeout=90)
        pair.lab.try_run("exec", passive, "--", "runuser", "-u", "postgres", "--", "psql", "-Xc", "SELECT pg_wal_replay_resume()")
        if done.returncode:
            assert len(done.stderr.strip().splitlines()) >= 1, done
        watch.probe.resumes(20, "after the hand-over or without it")
    assert watch.story.longest_gap(begun) < 10
    assert pair.active == (active if done.returncode else passive)


@fault("F34")
def test_a_passive_whose_replay_is_paused_is_promoted_all_the_same(pair: Pair) -> None:
    active, passive = pair.active, pair.passive
    with watched(pair) as watch:
        pair.lab.sql(passive, "SELECT pg_wal_replay_pause()")
        cut = time.monotonic()
        pair.lab("power", "off", active)
        watch.probe.resumes(30, "on the server whose replay was paused")
    assert watch.story.longest_gap(cut) < pair.deadtime + 3
    assert pair.active == passive


@fault("F35")
def test_a_slot_that_was_given_up_is_made_again_with_a_new_copy(pair: Pair) -> None:
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=120) as watch:
        try:
            pair.lab.sql(
                active, "ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'; ALTER SYSTEM SET wal_keep_size = 0; SELECT pg_reload_conf()"
            )
            pair.lab("power", "off", passive)
            watch.probe.resumes(20, "without the passive")
            for _ in range(3):
                grow(pair.lab, active, 60)
                pair.lab.sql(active, "SELECT pg_switch_wal(); CHECKPOINT")
            slots = "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'"
            eventually(lambda: pair.lab.sql(active, f"CHECKPOINT; {slots}").splitlines()[-1] == "1", 20, "the slot is lost")
            pair.lab("power", "on", passive)
            pair.wait_redundant(120)
        finally:
            pair.lab.sql(
                pair.active, "ALTER SYSTEM RESET max_slot_wal_keep_size; ALTER SYSTEM RESET wal_keep_size; SELECT pg_reload_conf()"
            )
    assert pair.active == active


def diverge(pair: Pair, active: str, passive: str) -> None:
    """Let the active commit what the passive never gets, and cut its power."""
    with pair.losing(passive, "tcp sport 5432"):
        grow(pair.lab, active, 5)
        pair.lab("power", "off", active)


@fault("F36", normal=True)
def test_what_only_the_old_active_had_is_kept_aside(pair: Pair) -> None:
    """It comes back rewound; what it had alone is in its quarantine, and told until somebody acknowledges it."""
    active, passive = pair.active, pair.passive
    known = {entry["name"] for entry in pair.must_status(active)["quarantine"]}
    with watched(pair, redundant_within=60) as watch:
        diverge(pair, active, passive)
        watch.probe.resumes(20, "on the server that was passive")
        pair.lab("power", "on", active)
        pair.wait_redundant(60)
        told = pair.wait_status(active, lambda status: {one["name"] for one in status["quarantine"]} - known, 60, "it is in quarantine")
        kept = [entry for entry in told["quarantine"] if not entry["acknowledged"]]
        newest: dict[str, Any] = max(kept, key=lambda entry: str(entry["created"]), default={})
        assert newest.get("bytes") and newest.get("transactions"), json.dumps(kept, indent=1)
        pair.lab.sh(active, f"test -d {newest['path']}")
        for entry in kept:
            done = pair.ha(active, "acknowledge", entry["name"])
            assert done.returncode == 0, done.stdout + done.stderr
        assert all(entry["acknowledged"] for entry in pair.must_status(active)["quarantine"])
    assert pair.active == passive


@fault("F37")
def test_where_a_rewind_is_impossible_a_new_copy_is_made(pair: Pair) -> None:
    active, passive = pair.active, pair.passive
    with watched(pair, redundant_within=120) as watch:
        # It is not started at the next boot, and PostgreSQL thus neither: the server still belongs to its pair.
        pair.lab.sh(active, f"install -D /dev/stdin {HELD_BACK}; sync", input="[Unit]\nConditionPathExists=/run/swg_probe.go\n")
        diverge(pair, active, passive)
        watch.probe.resumes(20, "on the server that was passive")
        pair.lab("power", "on", active)
        # All WAL from before the power cut is gone: nobody can tell any more where the two went apart.
        pair.lab.sh(active, f"rm -f {DATA}/pg_wal/0* {HELD_BACK}; systemctl daemon-reload; systemctl start ha_manager")
    assert pair.active == passive
    assert watch.story.servers() == [active, passive]
