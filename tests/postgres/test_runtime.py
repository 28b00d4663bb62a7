# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""ha_manager's PostgreSQL engine with real servers. Times are bounds that a busy machine keeps, not figures."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from swg_ha import postgres as engine
from swg_ha.postgres import Cancelled, DatabaseTrouble, PostgresError, serves
from swg_ha.postgres_session import NoAnswer
from swg_ha.shared.postgres import lsn
from swg_ha.shared.postgres_cluster import wait_until
from tests.postgres.runtime import MORE_SETTINGS, Node
from tests.postgres.servers import Server

MakeServer = Callable[..., Server]
Pair = tuple[Node, Node]


@pytest.fixture
def nodes(server: MakeServer) -> Iterator[Pair]:
    """Two servers with the same data, stopped."""
    one, two = (server(name, settings=MORE_SETTINGS) for name in ("ps1", "ps2"))
    pair = Node(one, two), Node(two, one)
    yield pair
    for node in pair:
        with suppress(PostgresError):
            node.postgres.kill()


@pytest.fixture
def pair(nodes: Pair) -> Pair:
    """A primary with table t (row 1) and its streaming standby."""
    active, passive = nodes
    active.postgres.start("primary", 20)
    active.server.introduce().sql("CREATE TABLE t (x int); INSERT INTO t VALUES (1)")
    assert passive.follow() == ("start", None)
    return pair_in_step(active, passive)


def pair_in_step(active: Node, passive: Node) -> Pair:
    """The same two, once the standby has everything and the primary knows."""
    assert wait_until(lambda: (seen := active.postgres.observe()).streaming and seen.lag == 0, 20), active.postgres.observe()
    return active, passive


def assert_replicates(active: Node, passive: Node) -> None:
    active.server.sql("CREATE TABLE IF NOT EXISTS beat (at int); INSERT INTO beat VALUES (1)")
    beats = active.server.sql("SELECT count(*) FROM beat")
    passive.server.wait(f"SELECT count(*) = {beats} FROM beat")


def hand_over(active: Node, passive: Node) -> tuple[int, str]:
    end = active.postgres.stop(10)
    assert end is not None
    passive.postgres.wait_replayed(end, 10)
    return passive.postgres.promote(10)


# Looking ------------------------------------------------------------------------------------------------------


def test_what_is_seen_of_a_pair_and_of_servers_that_are_down(nodes: Pair) -> None:
    active, passive = nodes
    stopped = active.postgres.observe()
    assert (stopped.state, stopped.timeline, stopped.clean, stopped.complete) == ("stopped", 1, True, True)

    active.postgres.start("primary", 20)
    active.server.introduce()
    alone = active.postgres.observe()
    assert (alone.state, alone.streaming, alone.heard, alone.lag, alone.clean) == ("primary", False, None, None, None)
    assert alone.system_id == stopped.system_id
    assert alone.lsn is not None and stopped.lsn is not None and lsn(alone.lsn) > lsn(stopped.lsn)

    passive.follow()
    pair_in_step(active, passive)

    def both() -> tuple[engine.Database, engine.Database]:
        return active.postgres.observe(), passive.postgres.observe()

    # A primary at rest writes now and then as well.
    assert wait_until(lambda: len({place for one, other in [both()] for place in (one.lsn, other.lsn, other.received)}) == 1, 20)
    here, there = both()
    assert (here.state, here.streaming, here.synchronous, here.received) == ("primary", True, False, None)
    assert (there.state, there.streaming, there.timeline, there.replay_paused) == ("standby", True, 1, False)
    assert here.heard is not None and here.heard < 3
    assert there.heard is not None and there.heard < 6

    active.postgres.kill()
    crashed = active.postgres.observe()
    assert (crashed.state, crashed.clean) == ("stopped", False)
    assert wait_until(lambda: not passive.postgres.observe().streaming, 10)
    lonely = passive.postgres.observe()
    assert lonely.state == "standby" and lonely.lsn is not None and there.lsn is not None and lsn(lonely.lsn) >= lsn(there.lsn)
    passive.postgres.stop(10)
    assert (passive.postgres.observe().state, passive.postgres.observe().clean) == ("stopped", True)


def test_the_time_since_the_peer_was_heard_grows_when_it_is_gone(pair: Pair) -> None:
    active, passive = pair
    assert (active.postgres.observe().heard or 0) < 3
    passive.postgres.kill()
    time.sleep(1.5)
    heard = active.postgres.observe().heard
    assert heard is not None and heard >= 1.4


def test_a_server_without_data_and_one_in_the_middle_of_a_copy(nodes: Pair) -> None:
    active, _passive = nodes
    active.server.cluster.sibling("new").mkdir()
    assert (active.postgres.observe().state, active.postgres.observe().complete) == ("stopped", False)
    active.server.cluster.sibling("new").rmdir()
    active.server.data.rename(active.server.cluster.sibling("rewind"))
    assert (active.postgres.observe().state, active.postgres.observe().complete) == ("missing", False)


def test_a_frozen_server_is_unresponsive_within_the_deadline_and_can_be_ended(pair: Pair) -> None:
    active, _passive = pair
    processes = active.postgres._processes()
    assert len(processes) > 4
    assert serves("127.0.0.1", active.server.port, 1)
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    assert active.postgres.observe(0.5).state == "unresponsive"
    assert time.monotonic() - begin < 5
    with pytest.raises(DatabaseTrouble, match="has not answered") as trouble:
        active.postgres.check(0.3)
    assert trouble.value.code == "UNRESPONSIVE"
    # Its kernel takes the connection all the same.
    with closing(socket.create_connection(("127.0.0.1", active.server.port), 1)):
        assert not serves("127.0.0.1", active.server.port, 0.3)
    begin = time.monotonic()
    assert active.postgres.stop(4) is None
    assert time.monotonic() - begin < 15
    assert active.postgres.observe().state == "stopped"
    assert active.postgres._processes() == []


def test_a_frozen_postmaster_behind_a_kept_connection_is_found_by_the_check(pair: Pair) -> None:
    active, _passive = pair
    postmaster = active.postgres.postmaster()
    assert postmaster is not None
    os.kill(postmaster, signal.SIGSTOP)
    assert active.postgres.observe(10).state == "primary"
    with pytest.raises(DatabaseTrouble) as trouble:
        active.postgres.check(0.3)
    assert trouble.value.code == "UNRESPONSIVE"
    active.postgres.kill()
    assert active.postgres.postmaster() is None


def test_one_that_stops_and_waits_for_its_clients_is_not_taken_for_one_that_recovers(nodes: Pair) -> None:
    active, _passive = nodes
    active.postgres.start("primary", 20)
    client = active.postgres.cluster.connect(time.monotonic() + 10)

    def trouble() -> str:
        try:
            active.postgres.check(5)
        except DatabaseTrouble as error:
            return error.code
        return ""

    postmaster = active.postgres.postmaster()
    assert postmaster is not None
    os.kill(postmaster, signal.SIGTERM)
    assert wait_until(lambda: trouble() == "REFUSES", 20)
    client.close()


def test_the_check_says_what_is_wrong(nodes: Pair) -> None:
    active, _passive = nodes
    with pytest.raises(DatabaseTrouble, match="no PostgreSQL runs") as trouble:
        active.postgres.check(1)
    assert trouble.value.code == "STOPPED"
    active.postgres.start("primary", 20)
    active.postgres.check(5)
    hba = active.server.config / "pg_hba.conf"
    hba.write_text("local all all reject\n")
    active.postgres.cluster.reload()

    def refused() -> bool:
        try:
            active.postgres.check(5)
        except DatabaseTrouble as error:
            return error.code == "REFUSES" and "pg_hba" in str(error)
        return False

    assert wait_until(refused, 10)


def test_nobody_serves_where_nobody_listens() -> None:
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        assert not serves("127.0.0.1", silent.getsockname()[1], 0.5)
        silent.listen(1)
        begin = time.monotonic()
        assert not serves("127.0.0.1", silent.getsockname()[1], 0.3)
        assert time.monotonic() - begin < 5


# Starting -----------------------------------------------------------------------------------------------------


def test_a_start_says_as_what_before_it_starts(nodes: Pair) -> None:
    active, _passive = nodes
    begin = time.monotonic()
    active.postgres.start("standby", 20)
    assert time.monotonic() - begin < 15
    assert (active.allowed, active.postgres.observe().state) == (["standby"], "standby")
    with pytest.raises(PostgresError, match="runs as standby and was to be primary"):
        active.postgres.start("primary", 20)
    active.postgres.stop(10)
    assert active.allowed == []
    active.postgres.start("primary", 20)
    assert (active.allowed, active.postgres.observe().state) == (["primary"], "primary")
    assert not (active.server.data / "standby.signal").exists()
    active.postgres.start("primary", 20)
    assert active.child.started == 2


def test_what_runs_when_the_manager_begins_may_be_started_again(nodes: Pair) -> None:
    active, _passive = nodes
    active.child.start()
    active.server.wait("SELECT true")
    assert active.allowed == []
    assert active.postgres.observe().state == "primary"
    assert active.allowed == ["primary"]


def test_a_start_that_fails_says_why(nodes: Pair) -> None:
    active, _passive = nodes
    (active.server.config / "conf.d" / "broken.conf").write_text("shared_buffers = 'much'\n")
    begin = time.monotonic()
    with pytest.raises(PostgresError, match="did not start as primary.*shared_buffers"):
        active.postgres.start("primary", 20)
    assert time.monotonic() - begin < 15


def test_it_starts_after_a_kill_though_its_pid_file_is_left(nodes: Pair) -> None:
    active, _passive = nodes
    active.postgres.start("primary", 20)
    active.postgres.kill()
    # As after a power cut: the number is some other process's of the same account.
    pid_file = active.server.data / "postmaster.pid"
    other = subprocess.Popen(["setpriv", "--reuid=postgres", "--clear-groups", "sleep", "60"])
    try:
        pid_file.write_text("\n".join([str(other.pid), *pid_file.read_text().splitlines()[1:]]) + "\n")
        active.postgres.start("primary", 20)
    finally:
        other.kill()
        other.wait()
    assert active.postgres.observe().state == "primary"


# Handing over -------------------------------------------------------------------------------------------------


def test_a_hand_over_loses_nothing_and_needs_no_rewind(pair: Pair) -> None:
    active, passive = pair
    for number in range(2, 6):
        active.server.sql(f"INSERT INTO t SELECT {number} FROM generate_series(1, 3000)")
        active.postgres.checkpoint(20)
        end = active.postgres.stop(10)
        assert end is not None
        passive.postgres.wait_replayed(end, 10)
        assert passive.server.sql("SELECT pg_last_wal_replay_lsn()") == end
        timeline, switch = passive.postgres.promote(10)
        assert (timeline, switch) == (number, end)
        assert passive.server.sql(f"SELECT count(*) FROM t WHERE x = {number}") == "3000"
        assert passive.allowed == ["primary"]
        assert active.follow() == ("start", None)
        active, passive = pair_in_step(passive, active)
        assert active.siblings() == passive.siblings() == ["main"]


def test_the_end_of_the_shutdown_is_told_right_at_every_place_of_a_page(pair: Pair) -> None:
    active, passive = pair
    for number in range(6):
        # Texts of different lengths put the last record elsewhere each time, also across pages.
        active.server.sql(f"SELECT pg_logical_emit_message(true, 'pad', repeat('x', {1300 * number + 7}))")
        end = active.postgres.stop(10)
        assert end is not None
        passive.postgres.wait_replayed(end, 10)
        assert passive.server.sql("SELECT pg_last_wal_replay_lsn()") == end
        active.postgres.start("primary", 20)
        assert wait_until(lambda: passive.postgres.observe().streaming, 20)


def test_a_server_whose_wal_is_gone_is_stopped_all_the_same(nodes: Pair) -> None:
    active, _passive = nodes
    active.postgres.start("primary", 20)
    end = active.postgres.stop(10)
    assert end is not None and active.postgres.stop(10) == end
    for segment in (active.server.data / "pg_wal").glob("0*"):
        segment.unlink()
    assert active.postgres.stop(5) is None
    assert active.postgres.observe().state == "stopped"


def test_a_promotion_is_quick_and_keeps_the_wal_for_the_peer(pair: Pair) -> None:
    active, passive = pair
    active.postgres.kill()
    begin = time.monotonic()
    timeline, _switch = passive.postgres.promote(10)
    assert time.monotonic() - begin < 8
    assert timeline == 2
    passive.server.sql("INSERT INTO t VALUES (2)")
    assert passive.server.sql("SELECT restart_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'ha_ps1'") == "t"
    # Asked for in the background: a rewind of the peer finds the new timeline in the control file.
    passive.server.wait("SELECT timeline_id = 2 FROM pg_control_checkpoint()")
    assert passive.postgres.promote(10) == (timeline, _switch)


def test_a_standby_that_looks_for_its_primary_is_promoted_without_waiting_for_the_next_try(pair: Pair) -> None:
    active, passive = pair
    passive.server.sql("ALTER SYSTEM SET wal_retrieve_retry_interval = '20s'")
    passive.postgres.cluster.reload()
    active.postgres.kill()
    assert wait_until(lambda: "waiting for WAL" in passive.server.log(), 20)
    begin = time.monotonic()
    passive.postgres.promote(15)
    assert time.monotonic() - begin < 12


def test_a_paused_replay_is_resumed(pair: Pair) -> None:
    active, passive = pair
    passive.server.sql("SELECT pg_wal_replay_pause()")
    passive.server.wait("SELECT pg_get_wal_replay_pause_state() = 'paused'")
    active.server.sql("INSERT INTO t SELECT 2 FROM generate_series(1, 1000)")
    assert passive.postgres.observe().replay_paused
    end = active.postgres.stop(10)
    assert end is not None
    passive.postgres.wait_replayed(end, 10)
    passive.server.sql("SELECT pg_wal_replay_pause()")
    passive.postgres.promote(10)
    assert passive.server.sql("SELECT count(*) FROM t") == "1001"


def lagging(pair: Pair, rows: int) -> int:
    """Let the standby have received so many rows of t that it has yet to replay, and its primary be gone; its startup process."""
    active, passive = pair
    passive.server.sql("SELECT pg_wal_replay_pause()")
    passive.server.wait("SELECT pg_get_wal_replay_pause_state() = 'paused'")
    active.server.sql(f"INSERT INTO t SELECT generate_series(1, {rows})")
    written = active.server.sql("SELECT pg_current_wal_flush_lsn()")
    passive.server.wait(f"SELECT pg_last_wal_receive_lsn() >= '{written}'", 60)
    active.postgres.kill()
    return int(passive.server.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'"))


@contextmanager
def slowed(pid: int) -> Iterator[None]:
    """Let a process run for some ten milliseconds, five times a second."""
    over = threading.Event()

    def slow() -> None:
        with suppress(ProcessLookupError):
            while not over.is_set():
                os.kill(pid, signal.SIGSTOP)
                over.wait(0.2)
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.01)

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_promotion_takes_as_long_as_there_is_something_to_replay(pair: Pair) -> None:
    passive = pair[1]
    startup = lagging(pair, 400_000)
    begin = time.monotonic()
    with slowed(startup):
        timeline, _switch = passive.postgres.promote(2)
    assert time.monotonic() - begin > 2, "it was too quick to tell anything"
    assert timeline == 2 and passive.server.sql("SELECT count(*) FROM t") == "400001"


def test_a_promotion_that_replays_nothing_is_given_up(pair: Pair) -> None:
    passive = pair[1]
    startup = lagging(pair, 1000)
    os.kill(startup, signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(NoAnswer, match=r"PostgreSQL was promoted, and replays nothing after 0/\w+ for 2\.0 s"):
        passive.postgres.promote(2)
    assert 2 <= time.monotonic() - begin < 15
    os.kill(startup, signal.SIGCONT)
    # What it was told it does, whoever waits.
    passive.server.wait("SELECT NOT pg_is_in_recovery()")
    assert passive.postgres.promote(20)[0] == 2


def test_waiting_for_what_never_comes_ends(pair: Pair) -> None:
    _active, passive = pair
    with pytest.raises(PostgresError, match="not to FF/0"):
        passive.postgres.wait_replayed("FF/0", 3)


def test_a_stop_ends_though_the_standby_is_frozen_and_its_end_is_waited_for_in_vain(pair: Pair) -> None:
    active, passive = pair
    receiver = int(passive.server.sql("SELECT pid FROM pg_stat_wal_receiver"))
    os.kill(receiver, signal.SIGSTOP)
    active.server.sql("INSERT INTO t VALUES (2)")
    # All of it within the 5 s after which a receiver gives its sender up.
    begin = time.monotonic()
    end = active.postgres.stop(3)
    assert time.monotonic() - begin < 15
    assert end is not None and active.postgres.observe().state == "stopped"
    with pytest.raises(PostgresError, match=f"not to {end}"):
        passive.postgres.wait_replayed(end, 0.6)
    os.kill(receiver, signal.SIGCONT)
    passive.postgres.wait_replayed(end, 10)


def test_a_stop_that_has_to_use_force_is_not_clean(pair: Pair) -> None:
    active, _passive = pair
    active.server.sql("INSERT INTO t VALUES (2)")
    checkpointer = int(active.server.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))
    os.kill(checkpointer, signal.SIGSTOP)
    begin = time.monotonic()
    assert active.postgres.stop(5) is None
    assert time.monotonic() - begin < 15
    assert (active.postgres.observe().state, active.postgres.observe().clean) == ("stopped", False)


# Following ----------------------------------------------------------------------------------------------------


def test_nothing_is_done_for_a_standby_that_streams(pair: Pair) -> None:
    _active, passive = pair
    begin = time.monotonic()
    assert passive.follow() == ("nothing", None)
    assert time.monotonic() - begin < 10


def diverge(pair: Pair) -> Pair:
    """The second has taken over, while the first, which did not know, went on: returns the new primary and the old one."""
    old, new = pair
    old.server.sql("CREATE TABLE kept (x int); CREATE DATABASE shop")
    old.server.sql("CREATE TABLE goods (x int)", "shop")
    pair_in_step(old, new)
    new.postgres.stop(10)
    old.server.sql("INSERT INTO kept SELECT generate_series(1, 500); INSERT INTO t VALUES (7)")
    old.server.sql("INSERT INTO goods VALUES (1)", "shop")
    old.postgres.kill()
    new.postgres.start("standby", 20)
    new.postgres.promote(10)
    new.server.sql("INSERT INTO t VALUES (8)")
    return new, old


def test_what_the_peer_never_had_is_in_quarantine_before_it_is_rewound(pair: Pair) -> None:
    active, passive = diverge(pair)
    what, quarantine = passive.follow()
    assert what == "rewind" and quarantine is not None
    assert_replicates(active, passive)
    assert passive.server.sql("SELECT string_agg(x::text, ',' ORDER BY x) FROM t") == "1,8"
    # It was a primary: what it kept for its peer is gone.
    assert passive.server.sql("SELECT count(*) FROM pg_replication_slots") == "0"

    assert passive.postgres.prune() == []
    [entry] = passive.postgres.quarantined()
    assert (entry["name"], entry["path"], entry["timeline"]) == (quarantine.name, str(quarantine), 1)
    assert entry["transactions"] == 3 and entry["bytes"] > 500 and not entry["acknowledged"]
    assert lsn(entry["to"]) - lsn(entry["from"]) == entry["bytes"]
    assert entry["tables"] == ["postgres: kept", "postgres: t", "shop: goods"]

    with pytest.raises(PostgresError, match="'other' is not in quarantine: there is main.diverged"):
        passive.postgres.acknowledge("other")
    passive.postgres.acknowledge(entry["name"])
    assert passive.postgres.quarantined() == [entry | {"acknowledged": True}]


def test_there_and_back_again_by_force(pair: Pair) -> None:
    """Each takes over from the other's crash, in turn."""
    active, passive = pair
    for number in range(3):
        active.server.sql(f"INSERT INTO t VALUES ({number})")
        pair_in_step(active, passive)
        active.postgres.kill()
        passive.postgres.promote(10)
        passive.server.sql(f"INSERT INTO t VALUES (1{number})")
        what, _quarantine = active.follow()
        assert what in ("start", "rewind")
        assert_replicates(passive, active)
        active, passive = passive, active
    assert active.server.sql("SELECT count(*) FROM t") == "7"


def test_a_first_copy_says_how_far_it_is(nodes: Pair) -> None:
    active, passive = nodes
    subprocess.run(["rm", "-r", str(passive.server.data)], check=True)
    active.postgres.start("primary", 20)
    active.server.introduce()
    assert passive.postgres.observe().state == "missing"
    assert passive.follow() == ("copy", None)
    assert any(phase.startswith("copy") for phase in passive.phases)
    assert_replicates(active, passive)


def test_a_copy_that_replaces_a_standby_left_behind_alarms_nobody(pair: Pair) -> None:
    active, passive = pair
    passive.postgres.stop(10)
    active.server.wait("SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'ha_ps2'")
    active.server.sql("SELECT pg_drop_replication_slot('ha_ps2')")
    active.server.sql("ALTER SYSTEM SET wal_keep_size = 0; SELECT pg_reload_conf()")
    for _turn in range(3):
        active.server.sql("SELECT pg_switch_wal(); INSERT INTO t VALUES (2); CHECKPOINT")
    assert passive.follow() == ("copy", None)
    assert_replicates(active, passive)
    # It was only behind: kept for the time being, and nothing that an operator must look at.
    [entry] = passive.postgres.quarantined()
    assert entry["acknowledged"] and passive.siblings() == ["main", entry["name"]]


def test_following_can_be_called_off(pair: Pair) -> None:
    active, passive = pair
    passive.postgres.stop(10)
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        passive.postgres.follow(lambda text: None, cancel)
    passive.follow()
    assert_replicates(active, passive)


def test_a_recovery_that_was_cut_off_costs_no_copy(pair: Pair) -> None:
    active, passive = diverge(pair)
    passive.server.data.rename(passive.server.cluster.sibling("recover"))
    assert passive.postgres.observe().state == "missing"
    what, quarantine = passive.follow()
    assert what == "rewind" and quarantine is not None
    assert_replicates(active, passive)


def test_old_quarantine_goes_and_what_nobody_has_seen_stays_longer(nodes: Pair) -> None:
    active, _passive = nodes
    folders = [f"main.diverged.20260101T00000{number}Z" for number in range(6)] + ["main.20260101T000000Z", "main.20260102T000000Z"]
    for name in folders:
        active.server.data.with_name(name).mkdir()
    assert [entry["name"] for entry in active.postgres.quarantined()] == sorted(
        folders, key=lambda name: name.replace("diverged.", ""), reverse=True
    )
    # Twice the two that are kept.
    assert sorted(active.postgres.prune()) == folders[:2]
    for name in folders[2:]:
        active.postgres.acknowledge(name)
    assert sorted(active.postgres.prune()) == ["main.20260101T000000Z", *folders[2:4]]
    assert active.siblings() == ["main", "main.20260102T000000Z", *folders[4:6]]


# Commits that wait --------------------------------------------------------------------------------------------


def test_commits_wait_for_the_standby_until_they_are_let_go(pair: Pair) -> None:
    active, passive = pair
    assert active.postgres.waits_from(0.2) is None
    active.postgres.name_standby(True)
    assert wait_until(lambda: active.postgres.observe().synchronous, 10)
    waits_from = active.postgres.waits_from(10)
    active.server.sql("INSERT INTO t VALUES (2)")
    assert waits_from is not None and 0 < lsn(waits_from) < lsn(str(active.postgres.observe().lsn))
    settings = active.server.config / "conf.d" / "swg_ha_synchronous.conf"
    written = settings.stat()
    active.postgres.name_standby(True)
    assert settings.stat() == written

    passive.postgres.kill()
    waiting = threading.Thread(target=active.server.sql, args=("INSERT INTO t VALUES (3)",), daemon=True)
    waiting.start()
    active.server.wait("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    # What we do ourselves waits for nobody.
    active.postgres.checkpoint(10)
    assert waiting.is_alive()
    active.postgres.name_standby(False)
    waiting.join(30)
    assert not waiting.is_alive()
    assert not settings.exists()
    active.postgres.name_standby(False)


def test_a_promoted_standby_waits_for_nobody(pair: Pair) -> None:
    active, passive = pair
    passive.postgres.name_standby(True)
    active.postgres.kill()
    passive.postgres.promote(10)
    passive.server.sql("INSERT INTO t VALUES (2)")
    assert not passive.postgres.observe().synchronous


# The disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own, of 24 MiB."""
    with tempfile.TemporaryDirectory(prefix="pg-small-") as name:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", name], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.fail(f"tests/postgres: no file system can be mounted here: {done.stderr}")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def test_a_disk_that_is_full_or_read_only_is_told(nodes: Pair, small_disk: Path) -> None:
    postgres = nodes[0].postgres
    postgres.cluster.data_directory = small_disk / "main"
    postgres.probe_disk(5)
    (small_disk / "filler").write_bytes(b"x" * (12 << 20))
    with pytest.raises(DatabaseTrouble, match="MiB free: make room") as trouble:
        postgres.probe_disk(5)
    assert trouble.value.code == "DISK_FULL"
    (small_disk / "filler").unlink()
    postgres.probe_disk(5)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DatabaseTrouble, match="Read-only file system") as trouble:
        postgres.probe_disk(5)
    assert trouble.value.code == "DISK_READ_ONLY"


def test_a_disk_that_hangs_holds_nobody_up_and_is_asked_once(nodes: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    postgres = nodes[0].postgres
    postgres.cluster.data_directory = tmp_path / "main"
    # A pipe without a reader: opening it for writing hangs as a dead disk does.
    os.mkfifo(tmp_path / engine.PROBE)
    for _turn in range(3):
        begin = time.monotonic()
        with pytest.raises(DatabaseTrouble, match="has not ended for") as trouble:
            postgres.probe_disk(0.2)
        assert trouble.value.code == "DISK_HANGS"
        assert time.monotonic() - begin < 5
    assert [thread.name for thread in threading.enumerate()].count("disk probe") == 1
    with (tmp_path / engine.PROBE).open("rb") as reader:
        assert wait_until(lambda: "disk probe" not in [thread.name for thread in threading.enumerate()], 20)
        assert reader is not None
    (tmp_path / engine.PROBE).unlink()
    postgres.probe_disk(5)
