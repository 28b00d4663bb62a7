# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""How a server becomes the standby of another: with real clusters, whose data all come from one image."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.swg.ha.plugins.module_utils import postgres_replica
from ansible_collections.swg.ha.plugins.module_utils.postgres import PostgresError
from ansible_collections.swg.ha.plugins.module_utils.postgres_cluster import wait_until
from tests.postgres.servers import SEGMENT_SIZE, Server, owned_file

MakeServer = Callable[..., Server]
BULK = "CREATE TABLE bulk AS SELECT i, repeat('x', 500) FROM generate_series(1, 60000) i"


def rows(server: Server, statement: str = "SELECT string_agg(x::text, ',' ORDER BY x) FROM t") -> str:
    return server.sql(statement)


def assert_replicates(primary: Server, standby: Server) -> None:
    """A row that is written now is read on the standby."""
    primary.sql("CREATE TABLE IF NOT EXISTS beat (at text); INSERT INTO beat VALUES ('now')")
    beats = rows(primary, "SELECT count(*) FROM beat")
    standby.wait(f"SELECT count(*) = {beats} FROM beat")


def siblings(server: Server) -> list[str]:
    return sorted(path.name for path in server.data.parent.iterdir())


@pytest.fixture
def pair(primary: Server, server: MakeServer) -> tuple[Server, Server]:
    """A primary with table t (row 1) and its streaming standby."""
    primary.sql("CREATE TABLE t (x int); INSERT INTO t VALUES (1)")
    standby = server("ps2", data=False)
    standby.replica_of(primary).follow()
    return primary, standby


# Base backup --------------------------------------------------------------------------------------------------


def test_a_server_without_data_gets_a_base_backup_and_is_then_left_alone(primary: Server, server: MakeServer) -> None:
    primary.sql("CREATE TABLE t (x int); INSERT INTO t VALUES (1)")
    standby = server("ps2", data=False)
    outcome = standby.replica_of(primary).follow()
    assert (outcome.plan.method, outcome.changed, outcome.moved_aside) == ("basebackup", True, [])
    assert outcome.bytes > 10_000_000
    assert outcome.position["receiver"]["slot"] == "ps2"
    assert siblings(standby) == ["main"]
    assert_replicates(primary, standby)
    progress = json.loads((standby.directory / "progress.json").read_text())
    assert (progress["phase"], progress["method"], progress["bytes_done"]) == ("done", "basebackup", outcome.bytes)

    began = time.monotonic()
    again = standby.replica_of(primary).follow()
    assert time.monotonic() - began < 5
    assert (again.plan.method, again.changed, again.commands) == ("none", False, [])
    assert again.position["streaming"]


def test_clones_of_one_image_are_told_apart_though_system_identifier_and_timeline_agree(primary: Server, server: MakeServer) -> None:
    standby = server("ps2").start()
    standby.sql("CREATE TABLE mine (x int); INSERT INTO mine VALUES (7)")
    assert standby.cluster.control().system_identifier == primary.cluster.control().system_identifier
    outcome = standby.replica_of(primary).follow()
    assert outcome.plan.method == "basebackup"
    assert_replicates(primary, standby)
    [aside] = outcome.moved_aside
    assert (Path(aside) / "PG_VERSION").exists()
    assert siblings(standby) == ["main", Path(aside).name]


def test_clones_are_told_apart_when_they_were_shut_down_and_when_they_crashed(primary: Server, server: MakeServer) -> None:
    for name, stop in (("ps2", Server.stop), ("ps3", Server.crash)):
        clone = server(name).start()
        clone.sql("CREATE TABLE mine (x int); INSERT INTO mine VALUES (7)")
        # Far more WAL on the primary: only the bytes tell that the clone's shorter WAL is no part of it.
        primary.sql(f"CREATE TABLE more_{name} AS SELECT generate_series(1, 10000)")
        stop(clone)
        plan = clone.replica_of(primary).plan()
        assert plan.method == "basebackup"
        assert "differs" in plan.reason


def test_a_clone_made_from_the_image_after_a_promotion_is_not_rewound(pair: tuple[Server, Server], server: MakeServer) -> None:
    """The re-imaged server: its timeline 1 ends before the fork, so that the histories alone would let it follow."""
    old, new = pair
    old.sql(BULK)
    new.wait("SELECT count(*) = 60000 FROM bulk")
    old.stop()
    new.promote()
    clone = server("ps3").start()
    clone.sql("CREATE TABLE mine (x int)")
    clone.stop()
    plan = clone.replica_of(new).plan()
    assert (plan.method, "differs" in plan.reason or "could not be proved" in plan.reason) == ("basebackup", True)


def test_another_database_system_is_moved_aside(primary: Server, server: MakeServer) -> None:
    other = server("ps2", data=False)
    other.cluster.program("initdb", "--no-sync", "--auth=trust", f"--wal-segsize={SEGMENT_SIZE >> 20}", "--pgdata", str(other.data))
    other.start()
    outcome = other.replica_of(primary).follow()
    assert (outcome.plan.method, len(outcome.moved_aside)) == ("basebackup", 1)
    assert "system identifier" in outcome.plan.reason
    assert_replicates(primary, other)


def test_without_exchange_of_names_the_copy_is_installed_in_two_steps(
    primary: Server, server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    standby = server("ps2").start()
    monkeypatch.setattr(postgres_replica, "exchange", lambda one, other: False)
    outcome = standby.replica_of(primary).follow()
    assert siblings(standby) == ["main", Path(outcome.moved_aside[0]).name]
    assert_replicates(primary, standby)


def test_a_base_backup_can_be_asked_for(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    standby.stop()
    outcome = standby.replica_of(primary, method="basebackup").follow()
    assert (outcome.plan.method, len(outcome.moved_aside)) == ("basebackup", 1)
    assert_replicates(primary, standby)


# Start and reconfigure ----------------------------------------------------------------------------------------


def test_a_stopped_standby_is_started(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    standby.stop()
    primary.sql("INSERT INTO t VALUES (2)")
    outcome = standby.replica_of(primary).follow()
    assert (outcome.plan.method, outcome.moved_aside, outcome.bytes) == ("start", [], 0)
    standby.wait("SELECT count(*) = 2 FROM t")


def test_a_standby_that_crashed_is_started(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    standby.crash()
    assert standby.replica_of(primary).follow().plan.method == "start"
    assert_replicates(primary, standby)


def test_a_running_standby_gets_other_settings_without_a_restart(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    began = standby.sql("SELECT pg_postmaster_start_time()")
    outcome = standby.replica_of(primary, slot="another", parameters={"keepalives_idle": "5"}).follow()
    assert (outcome.plan.method, outcome.changed) == ("reconfigure", True)
    assert outcome.position["receiver"]["slot"] == "another"
    assert standby.sql("SELECT pg_postmaster_start_time()") == began
    assert_replicates(primary, standby)


def test_a_dead_address_first_in_the_list_does_not_matter(primary: Server, server: MakeServer) -> None:
    nobody = server("nobody", data=False)
    standby = server("ps2", data=False)
    outcome = standby.replica_of(nobody, primary).follow()
    assert outcome.position["receiver"]["sender_port"] == primary.port


def test_a_lost_slot_is_made_anew_and_the_data_copied(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    standby.stop()
    primary.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'; ALTER SYSTEM SET wal_keep_size = 0; SELECT pg_reload_conf()")
    # What was set is taken up a moment later.
    switch = "SELECT pg_switch_wal(); CHECKPOINT; SELECT wal_status FROM pg_replication_slots"
    assert wait_until(lambda: primary.sql(switch).endswith("lost"), 30)
    outcome = standby.replica_of(primary).follow()
    assert (outcome.plan.method, len(outcome.moved_aside)) == ("basebackup", 1)
    assert_replicates(primary, standby)


def test_a_running_standby_whose_slot_is_lost_is_copied_anew(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    standby.sql("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'; SELECT pg_reload_conf()")
    primary.sql("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots")
    primary.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'; ALTER SYSTEM SET wal_keep_size = 0; SELECT pg_reload_conf()")
    for _ in range(4):
        primary.sql("SELECT pg_switch_wal(); CHECKPOINT")
    outcome = standby.replica_of(primary).follow()
    assert outcome.plan.method == "basebackup"
    assert_replicates(primary, standby)


# Rewind -------------------------------------------------------------------------------------------------------


def diverge(old: Server, new: Server, end_of_old: Callable[[Server], None]) -> None:
    """The old primary commits what the new one never had, as after a split brain."""
    new.promote()
    old.sql("INSERT INTO t VALUES (100); INSERT INTO t VALUES (101)")
    end_of_old(old)
    new.sql("INSERT INTO t VALUES (2)")


@pytest.mark.parametrize("end_of_old", [Server.stop, Server.crash, lambda server: None], ids=["stopped", "crashed", "running"])
def test_a_diverged_primary_is_rewound_and_what_it_loses_is_kept(pair: tuple[Server, Server], end_of_old: Callable[[Server], None]) -> None:
    old, new = pair
    diverge(old, new, end_of_old)
    outcome = old.replica_of(new).follow()
    assert (outcome.plan.method, outcome.moved_aside) == ("rewind", [])
    assert_replicates(new, old)
    assert rows(old) == "1,2"
    assert outcome.quarantine is not None
    report = json.loads((Path(outcome.quarantine) / "report.json").read_text())
    assert (report["timelines"], report["transactions"]) == ([1], 2)
    assert all((Path(outcome.quarantine) / name).stat().st_size == SEGMENT_SIZE for name in report["files"])
    assert siblings(old) == ["main", Path(outcome.quarantine).name]
    assert old.sql("SELECT count(*) FROM pg_replication_slots") == "0", "the slot of its former standby would keep WAL for ever"
    assert old.replica_of(new).follow().changed is False


def test_an_old_primary_that_lost_nothing_is_just_started(pair: tuple[Server, Server]) -> None:
    old, new = pair
    old.stop()
    new.promote()
    new.sql("INSERT INTO t VALUES (2)")
    outcome = old.replica_of(new).follow()
    assert (outcome.plan.method, outcome.quarantine, outcome.moved_aside) == ("start", None, [])
    assert_replicates(new, old)
    assert rows(old) == "1,2"


def test_a_standby_that_was_promoted_by_mistake_is_rewound_to_the_older_timeline(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    standby.promote()
    standby.sql("INSERT INTO t VALUES (100)")
    outcome = standby.replica_of(primary).follow()
    assert outcome.plan.method == "rewind"
    assert json.loads((Path(str(outcome.quarantine)) / "report.json").read_text())["timelines"] == [1, 2]
    assert_replicates(primary, standby)
    assert rows(standby) == "1"


def test_a_rewind_that_cannot_begin_leaves_the_cluster_as_it_was(pair: tuple[Server, Server]) -> None:
    old, new = pair
    diverge(old, new, lambda server: None)

    def full_disk(*_arguments: object) -> Path:
        raise OSError(28, "No space left on device", "/quarantine")

    replica = old.replica_of(new)
    replica.quarantine = full_disk
    with pytest.raises(OSError, match="No space left") as raised:
        replica.follow()
    assert raised.value.__notes__ == ["the cluster, which was stopped for this, runs again as before"]
    old.wait("SELECT count(*) = 3 FROM t")
    assert (rows(old), siblings(old)) == ("1,100,101", ["main"])


def test_where_the_right_to_read_wal_is_missing_the_remedy_is_told(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    standby.stop()
    primary.sql("REVOKE EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean) FROM ha_replication")
    with pytest.raises(PostgresError, match="ha_replication needs there: GRANT EXECUTE ON FUNCTION pg_read_binary_file"):
        standby.replica_of(primary).plan()
    assert standby.replica_of(primary, method="basebackup").plan().method == "basebackup"


def test_there_and_back_again(pair: tuple[Server, Server]) -> None:
    """Three promotions: histories grow, settings of former primaries come along with each rewind."""
    active, passive = pair
    for number in (2, 3, 4):
        passive.promote()
        active.sql(f"INSERT INTO t VALUES ({100 + number})")
        active.crash()
        passive.sql(f"INSERT INTO t VALUES ({number})")
        outcome = active.replica_of(passive).follow()
        assert outcome.plan.method == "rewind"
        assert_replicates(passive, active)
        active, passive = passive, active
    assert rows(active) == "1,2,3,4"


def test_a_primary_that_was_promoted_a_moment_ago_is_waited_for(pair: tuple[Server, Server]) -> None:
    """Its control file still has the old timeline, for which pg_rewind would find nothing to do."""
    old, new = pair
    new.sql("ALTER SYSTEM SET checkpoint_timeout = '1h'")
    old.sql("GRANT pg_checkpoint TO ha_replication")
    old.sql(BULK)
    new.wait("SELECT pg_has_role('ha_replication', 'pg_checkpoint', 'USAGE') AND EXISTS (SELECT FROM pg_class WHERE relname = 'bulk')")
    new.sql("SELECT pg_promote(true, 30)")
    old.sql("INSERT INTO t VALUES (100)")
    old.crash()
    outcome = old.replica_of(new).follow()
    assert outcome.plan.method == "rewind"
    assert rows(old) == "1"


def test_where_the_wal_of_the_fork_is_gone_a_base_backup_is_taken(pair: tuple[Server, Server]) -> None:
    old, new = pair
    diverge(old, new, Server.stop)
    new.sql("ALTER SYSTEM SET wal_keep_size = 0; SELECT pg_reload_conf()")
    for _ in range(8):
        new.sql("SELECT pg_switch_wal(); CHECKPOINT")
    outcome = old.replica_of(new).follow()
    assert (outcome.plan.method, len(outcome.moved_aside)) == ("basebackup", 1)
    assert_replicates(new, old)
    assert rows(old) == "1,2"


def test_where_pg_rewind_fails_a_base_backup_is_taken_and_the_old_data_kept(pair: tuple[Server, Server]) -> None:
    """The old primary has recycled its own WAL back to the last checkpoint before the fork."""
    old, new = pair
    old.sql("CHECKPOINT")
    old.sql("SELECT pg_switch_wal()")
    old.sql("CREATE TABLE after_the_switch ()")
    new.wait("SELECT to_regclass('after_the_switch') IS NOT NULL")
    diverge(old, new, lambda server: None)
    old.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    old.sql("ALTER SYSTEM SET wal_keep_size = 0")
    old.sql("SELECT pg_reload_conf()")
    # The segment of the fork is kept, for the comparison to succeed; the checkpoint is in the one before.
    name = old.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    saved = (old.data / "pg_wal" / name).read_bytes()
    for _ in range(12):
        old.sql("SELECT pg_switch_wal()")
        old.sql("CHECKPOINT")
    old.stop()
    owned_file(old.data / "pg_wal" / name, saved)
    assert old.replica_of(new).plan().method == "rewind"

    outcome = old.replica_of(new).follow()
    assert outcome.plan.method == "basebackup"
    assert "pg_rewind failed" in outcome.plan.reason
    [aside] = map(Path, outcome.moved_aside)
    assert siblings(old) == ["main", aside.name, Path(str(outcome.quarantine)).name]
    assert_replicates(new, old)
    assert rows(old) == "1,2"


def test_a_cluster_without_wal_log_hints_is_not_rewound(primary: Server, server: MakeServer) -> None:
    old, new = server("old", settings="wal_log_hints = off").start().introduce(), server("new", data=False)
    old.sql("CREATE TABLE t (x int); INSERT INTO t VALUES (1)")
    new.replica_of(old).follow()
    diverge(old, new, Server.stop)
    with pytest.raises(PostgresError, match="method=rewind is not possible: .*neither wal_log_hints nor data checksums"):
        old.replica_of(new, method="rewind").follow()
    assert old.replica_of(new).follow().plan.method == "basebackup"


# Cut off ------------------------------------------------------------------------------------------------------


def test_killed_in_the_middle_of_the_copy_it_begins_again(primary: Server, server: MakeServer) -> None:
    primary.sql(BULK)
    standby = server("ps2").start()
    pid = os.fork()
    if pid == 0:
        try:
            # About 6 s of copying.
            replica = standby.replica_of(primary, max_rate=10000)
            replica.follow()
        finally:
            os._exit(1)
    new = standby.data.with_name("main.new")
    assert wait_until(lambda: (new / "data" / "base").is_dir(), 30)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert rows(standby, "SELECT pg_is_in_recovery()") == "f", "the old data is untouched and still served"

    outcome = standby.replica_of(primary).follow()
    assert outcome.plan.method == "basebackup"
    assert siblings(standby) == ["main", Path(outcome.moved_aside[0]).name]
    assert_replicates(primary, standby)
    assert postgres_replica.processes_with(standby.directory / "pg_replica.lock") == []


class PowerCut(BaseException):
    """Ends a run as a power cut does: nothing after it is done."""


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two renames"])
def test_cut_off_at_every_step_of_a_base_backup_the_next_run_repairs(
    primary: Server, server: MakeServer, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(postgres_replica, "exchange", lambda one, other: False)
    standby = server("ps2").start()
    assert_cuts_are_repaired(primary, standby, monkeypatch, lambda: standby.replica_of(primary, method="basebackup"))


def test_cut_off_at_every_step_of_a_rewind_the_next_run_repairs(pair: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = pair
    diverge(old, new, Server.crash)
    assert_cuts_are_repaired(new, old, monkeypatch, lambda: old.replica_of(new))
    assert rows(old) == "1,2"


def assert_cuts_are_repaired(
    primary: Server, standby: Server, monkeypatch: pytest.MonkeyPatch, make: Callable[[], postgres_replica.Replica]
) -> None:
    """Cut each run one directory change later than the one before, until one gets through."""
    real = postgres_replica.sync_directory
    for cut in range(100):
        left = [cut]

        def sync(path: Path, left: list[int] = left) -> None:
            if left[0] == 0:
                raise PowerCut
            left[0] -= 1
            real(path)

        monkeypatch.setattr(postgres_replica, "sync_directory", sync)
        replica = make()
        # A power cut starts nothing again.
        monkeypatch.setattr(replica, "_start_again", lambda error: None)
        try:
            replica.follow()
        except PowerCut:
            if standby.data.exists():
                control = standby.cluster.control()
                whole = (standby.data / "backup_label").exists() or control.state != "in crash recovery"
                assert whole and (standby.data / "PG_VERSION").exists()
            continue
        assert cut > 5
        break
    monkeypatch.setattr(postgres_replica, "sync_directory", real)
    assert_replicates(primary, standby)
    assert make().plan().method == "none"
    left_over = [name for name in siblings(standby) if name.endswith((".new", ".rewind", ".tmp"))]
    assert left_over == []


def test_what_a_dead_run_left_is_removed_though_it_streams_already(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    new = standby.data.with_name("main.new")
    new.mkdir()
    (new / "data").mkdir()
    (new / postgres_replica.MARKER).write_text('{"phase": "copying"}')
    outcome = standby.replica_of(primary).follow()
    assert (outcome.plan.method, outcome.changed, siblings(standby)) == ("none", True, ["main"])


def test_the_walsender_of_a_standby_that_lost_its_power_is_ended(pair: tuple[Server, Server]) -> None:
    """The primary notices only after wal_sender_timeout; until then it would keep the slot from its standby."""
    primary, standby = pair
    standby.stop()
    replica = standby.replica_of(primary)
    argv = standby.cluster.as_owner(
        "pg_receivewal", "--no-loop", "--slot=ps2", f"--dbname={replica.primary.conninfo}", f"--directory={standby.directory}"
    )
    ghost = subprocess.Popen(argv, cwd="/", stderr=subprocess.DEVNULL)
    try:
        primary.wait("SELECT active FROM pg_replication_slots")
        assert replica.follow().plan.method == "start"
        assert ghost.wait(30) != 0
    finally:
        ghost.kill()
        ghost.wait()


def test_two_runs_at_once_are_refused(primary: Server, server: MakeServer) -> None:
    standby = server("ps2", data=False)
    first = standby.replica_of(primary)
    with first._locked(), pytest.raises(PostgresError, match=f"another run \\(pid {os.getpid()}\\) is at work on cluster 15/main"):
        standby.replica_of(primary).follow()
    assert siblings(standby) == []


# Failures -----------------------------------------------------------------------------------------------------


def assert_still_serves(server: Server) -> None:
    assert rows(server, "SELECT x FROM mine") == "7"
    assert siblings(server) == ["main"]


@pytest.fixture
def serving(server: MakeServer) -> Server:
    found = server("ps2").start()
    found.sql("CREATE TABLE mine (x int); INSERT INTO mine VALUES (7)")
    return found


def test_a_wrong_password_changes_nothing(primary: Server, serving: Server) -> None:
    serving.password("wrong")
    with pytest.raises(PostgresError, match="cannot be reached: .*password authentication failed") as raised:
        serving.replica_of(primary).follow()
    assert "wrong" not in str(raised.value)
    assert_still_serves(serving)


def test_a_primary_that_is_down_changes_nothing(primary: Server, serving: Server) -> None:
    primary.stop()
    with pytest.raises(PostgresError, match="cannot be reached: .*Connection refused"):
        serving.replica_of(primary).follow()
    assert_still_serves(serving)


def test_a_primary_that_is_a_standby_is_refused(pair: tuple[Server, Server], server: MakeServer) -> None:
    third = server("ps3", data=False)
    with pytest.raises(PostgresError, match="is itself a standby"):
        third.replica_of(pair[1]).follow()


def test_a_server_does_not_follow_itself(primary: Server) -> None:
    with pytest.raises(PostgresError, match="leads to this server itself"):
        primary.replica_of(primary).follow()


def test_a_slot_in_use_by_another_standby_is_refused(pair: tuple[Server, Server], server: MakeServer) -> None:
    third = server("ps3", data=False)
    with pytest.raises(PostgresError, match="slot 'ps2' is in use by 'ps2'"):
        third.replica_of(pair[0], slot="ps2").follow()
    assert siblings(third) == []


def test_a_primary_that_dies_during_the_copy_leaves_the_old_data_in_place_and_running(primary: Server, serving: Server) -> None:
    primary.sql(BULK)
    replica = serving.replica_of(primary, max_rate=10000)
    crash_when_copying(replica, primary)
    with pytest.raises(PostgresError, match="pg_basebackup failed"):
        replica.follow()
    assert rows(serving, "SELECT x FROM mine") == "7"
    primary.start()
    serving.replica_of(primary).follow()
    assert_replicates(primary, serving)


def crash_when_copying(replica: postgres_replica.Replica, primary: Server) -> None:
    real = replica.progress.bytes
    crashed: list[bool] = []

    def bytes_done(done: int, total: int) -> None:
        real(done, total)
        if not crashed and done > 1_000_000:
            crashed.append(True)
            primary.crash()

    replica.progress.bytes = bytes_done  # type: ignore[method-assign]


def test_too_little_room_is_told_before_anything_is_done(primary: Server, serving: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1 << 20

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(PostgresError, match="databases take 2[0-9] MiB, .* has 1 MiB free: make room"):
        serving.replica_of(primary).follow()
    assert_still_serves(serving)


def test_a_standby_that_does_not_start_is_diagnosed(primary: Server, server: MakeServer) -> None:
    standby = server("ps2", data=False, settings="max_connections = 20")
    with pytest.raises(PostgresError) as raised:
        standby.replica_of(primary, timeout=20).follow()
    text = str(raised.value)
    assert "max_connections" in text
    assert f"look further: tail {standby.service.log_file}" in text


def test_a_directory_of_somebody_else_is_not_removed(primary: Server, server: MakeServer) -> None:
    standby = server("ps2", data=False)
    theirs = standby.data.with_name("main.new")
    theirs.mkdir()
    (theirs / "photo").write_text("x")
    with pytest.raises(PostgresError, match=r"main\.new is in the way and is not of our making"):
        standby.replica_of(primary).follow()
    assert (theirs / "photo").exists()
