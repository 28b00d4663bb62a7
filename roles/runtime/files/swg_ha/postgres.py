# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The local PostgreSQL as ha_manager drives it: look, start, promote, stop, follow the peer.

Everything blocks, and returns or raises :class:`PostgresError` by its deadline (seconds). Two files
in /run/ha_manager, ``primary`` and ``standby``, say what the cluster's unit may run as. At most one of
them exists; without either the unit does not start at all, and without the first never as a primary.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .postgres_session import CANNOT_CONNECT_NOW, NoAnswer, Refused, Session, refusal, serves
from .quarantine import Quarantine, Relation
from .settings import Settings
from .shared import durable
from .shared.postgres import ControlData, PostgresError, lsn, lsn_text, read_control_file, record_end, segment_file, tail
from .shared.postgres_cluster import QUERY_TIMEOUT, Cluster, Service, run_command
from .shared.postgres_primary import CONNECTION_DEFAULTS, Primary, PrimaryUnreachable
from .shared.postgres_replica import Cancelled, Progress, Replica, Wanted

__all__ = ["Cancelled", "Database", "DatabaseTrouble", "Followed", "Postgres", "PostgresError", "serves"]

RUN_DIRECTORY = Path("/run/ha_manager")
# Module pg_replica's: the two do not work on one cluster at the same time.
LOCK_DIRECTORY = Path("/run/swg_ha")
POLL = 0.01
# The last question before a deadline gets this much time (seconds), so that the deadline's own error is told.
ANSWER = 0.5
# Of the time to stop, the last part is left for the rougher ways.
ROUGH = 0.3
# By then the kernel has ended what got SIGKILL, unless a disk hangs.
KILLED_WITHIN = 2.0
CHECKPOINT_TIMEOUT = 600.0
CONNECT_TIMEOUT = 3.0
# By then a reload has reached all processes that are not busy.
RELOADED = 0.05
# A standby answers every second (wal_receiver_status_interval), and a little late.
MOST_BETWEEN_ANSWERS = 1.2
# An answer is as old as it looks beside the youngest one of so many seconds, in which two clocks part by nothing that matters.
YOUNGEST_OF = 10.0
SEGMENT = re.compile(r"[0-9A-F]{24}")
PROBE = ".swg_ha.probe"
# PostgreSQL needs a whole segment of WAL at a time.
MINIMUM_ROOM = 16 << 20


class DatabaseTrouble(PostgresError):
    """The local database is not fit to serve. ``code`` says in one word why."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Database:
    """What :meth:`Postgres.observe` saw.

    ``starting`` is a server that takes no questions now: starting, recovering, or stopping. ``heard``
    is how many seconds ago something came from the other end of the stream, on either end. ``lag``
    is in bytes: what the peer has not replayed yet on a primary, what is known of but not replayed on a standby.
    """

    state: str
    system_id: str | None = None
    timeline: int | None = None
    lsn: str | None = None
    received: str | None = None
    streaming: bool = False
    heard: float | None = None
    lag: int | None = None
    synchronous: bool = False
    clean: bool | None = None
    replay_paused: bool = False
    complete: bool = False


@dataclass(frozen=True)
class Followed:
    """``what``: nothing, configured, start, rewind or copy; ``quarantine``: where what was discarded is kept."""

    what: str
    quarantine: Path | None = None


# {slot} is the peer's slot here; names are letters, digits and underscores by construction.
OBSERVE_SQL = """
SELECT json_build_object(
  'recovery', pg_is_in_recovery(),
  'system_id', (SELECT system_identifier::text FROM pg_control_system()),
  'timeline', CASE WHEN pg_is_in_recovery()
    THEN greatest((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT timeline_id FROM pg_control_checkpoint()),
                  (SELECT min_recovery_end_timeline FROM pg_control_recovery()))
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
  'lsn', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END,
  'received', CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) END,
  'paused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
  'synchronous', NOT pg_is_in_recovery() AND current_setting('synchronous_standby_names') <> '',
  'receiver', (SELECT json_build_object('status', status, 'at', last_msg_receipt_time,
      'age', extract(epoch FROM clock_timestamp() - last_msg_receipt_time),
      'lag', pg_wal_lsn_diff(latest_end_lsn, pg_last_wal_replay_lsn()))
    FROM pg_stat_wal_receiver WHERE pid IS NOT NULL),
  'sender', (SELECT json_build_object('status', state, 'at', reply_time,
      'age', extract(epoch FROM clock_timestamp() - reply_time),
      'lag', CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_flush_lsn(), replay_lsn) END)
    FROM pg_stat_replication WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}')));
"""

# A slot that was lost, or never reserved, keeps nothing.
HAVE_SLOT_SQL = """
SELECT count(CASE WHEN slot_name IS NOT NULL THEN pg_drop_replication_slot(slot_name) END) FROM pg_replication_slots
  WHERE slot_name = '{slot}' AND NOT active AND (restart_lsn IS NULL OR wal_status = 'lost');
SELECT count(pg_create_physical_replication_slot('{slot}', true)) WHERE NOT EXISTS
  (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}');
"""
# While the server is in recovery: the process that replays, -1 where it is gone already.
RECOVERY_SQL = """
SELECT json_build_object('startup', (SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'), 'replayed', pg_last_wal_replay_lsn())
WHERE pg_is_in_recovery()
"""
# From files of tables, of their indexes, and of what both keep out of line. A table that was made in the WAL itself has no name here.
TABLES_SQL = """
SELECT json_agg(DISTINCT CASE WHEN owner IS NULL THEN 'file ' || file ELSE owner::regclass::text END) FROM (
  SELECT file, coalesce((SELECT oid FROM pg_class WHERE reltoastrelid = tab), tab) AS owner FROM (
    SELECT file, coalesce((SELECT indrelid FROM pg_index WHERE indexrelid = found), found) AS tab FROM (
      SELECT file, pg_filenode_relation(space, file) AS found FROM (VALUES {files}) AS files(space, file)) AS one) AS two) AS three
WHERE file >= 16384 AND (owner IS NULL OR owner >= 16384);
"""
# Whether this session knows that commits are to wait (null: it does not), and whether the checkpointer rests.
WAITING_SQL = """
SELECT CASE WHEN current_setting('synchronous_standby_names') <> '' THEN EXISTS (SELECT FROM pg_stat_activity
  WHERE backend_type = 'checkpointer' AND wait_event IN ('CheckpointerMain', 'CheckpointWriteDelay')) END
"""
DROP_SLOT_SQL = "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE slot_name = '{slot}' AND NOT active;"


class LocalCluster(Cluster):
    """The cluster, asked over kept connections instead of a psql for each question."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._session: Session | None = None
        self._server: int | None = None
        self._lock = threading.Lock()

    def connect(self, until: float, database: str = "postgres") -> Session:
        """A new connection. Raises PostgresError."""
        server = self.postmaster()
        if server is None:
            raise Refused(f"no server runs on {self.data_directory}")
        if not server.sockets:
            raise Refused(f"the server on {self.data_directory} has no unix socket yet")
        return Session.local(server.sockets, server.port, self.owner, self.owner_ids[0], until, database)

    def ask(self, statement: str, until: float) -> Any:
        """The first column of the first row. Raises PostgresError."""
        if not self._lock.acquire(timeout=max(until - time.monotonic(), 0)):
            raise NoAnswer("PostgreSQL is still busy with an earlier question")
        try:
            server = self.postmaster()
            pid = server.pid if server else None
            if self._session is not None and self._server != pid:
                self._forget()
            if self._session is not None:
                with suppress(Refused):
                    return self._asked(self._session, statement, until)
            self._session, self._server = self.connect(until), pid
            return self._asked(self._session, statement, until)
        finally:
            self._lock.release()

    def _asked(self, session: Session, statement: str, until: float) -> Any:
        try:
            return session.ask(statement, until)
        except PostgresError:
            self._forget()
            raise

    def _forget(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None

    def sql(self, statement: str, variables: Any = None) -> Any:
        return self.ask(statement, time.monotonic() + QUERY_TIMEOUT)


class Peer(Primary):
    """The peer as the primary to follow, asked over a kept connection instead of a psql for each question."""

    _session: Session | None = None

    def sql(self, statement: str, **variables: str) -> Any:
        for name, value in variables.items():
            statement = statement.replace(f":'{name}'", "'" + value.replace("'", "''") + "'")
        if self._session is not None:
            with suppress(Refused):
                return self._ask(self._session, statement)
        self._session = self._connect()
        try:
            return self._ask(self._session, statement)
        except Refused as error:
            raise PostgresError(f"the primary ({self.parameters.get('host')}) refused what was asked of it: {error}") from None

    def _ask(self, session: Session, statement: str) -> Any:
        try:
            return session.ask(statement, time.monotonic() + QUERY_TIMEOUT)
        except PostgresError:
            self._session = None
            raise

    def _connect(self) -> Session:
        """By the first address that answers."""
        said = []
        for host in self.parameters["host"].split(","):
            try:
                return Session({**self.parameters, "host": host, "dbname": "postgres"}, time.monotonic() + CONNECT_TIMEOUT)
            except PostgresError as error:
                said.append(f"{host}: {error}")
        raise PrimaryUnreachable(f"the primary cannot be reached: {'; '.join(said)}")

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


class Unit:
    """The cluster as systemd's unit, told without systemctl where a signal does it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self.name = f"postgresql@{cluster.version}-{cluster.name}.service"
        self.log_file = Path(f"/var/log/postgresql/postgresql-{cluster.version}-{cluster.name}.log")

    def start(self) -> None:
        rc, out, err = run_command(["systemctl", "start", "--no-block", self.name])
        if rc != 0:
            raise PostgresError(f"systemctl start {self.name} failed ({rc}): {tail(err or out, 3)}")

    def stop(self) -> None:
        server = self._cluster.postmaster()
        if server:
            with suppress(ProcessLookupError):
                os.kill(server.pid, signal.SIGINT)

    @property
    def starting(self) -> bool:
        rc, out, _err = run_command(["systemctl", "show", "--property=ActiveState", "--property=Job", self.name])
        return rc == 0 and (
            "ActiveState=activating" in out or any(line.startswith("Job=") and line != "Job=0" for line in out.splitlines())
        )

    @property
    def explain(self) -> str:
        return f"journalctl -u {self.name} -n 50; tail -n 50 {self.log_file}"


class Postgres:
    """The local cluster. Safe to be called from several threads; one that changes it at a time."""

    def __init__(
        self,
        settings: Settings,
        *,
        cluster: LocalCluster | None = None,
        service: Service | None = None,
        run_directory: Path = RUN_DIRECTORY,
        lock_directory: Path = LOCK_DIRECTORY,
        parameters: dict[str, object] | None = None,
    ) -> None:
        said = settings.postgresql
        self._settings = settings
        self.cluster = cluster or LocalCluster(
            said.version, said.cluster, run_command, data_directory=Path(os.path.realpath(said.data_directory))
        )
        self._service = service or Unit(self.cluster)
        self._run_directory = run_directory
        self._lock_file = lock_directory / f"pg_replica-{said.version}-{said.cluster}.lock"
        self._parameters = parameters
        self._quarantine = Quarantine(self.cluster, settings.limits.quarantine_keep)
        self._control: tuple[tuple[int, int], ControlData] | None = None
        self._ear = _Ear()
        self._probe: _Probe | None = None
        self._decided = False
        # The other server's addresses on links that are dead while another one lives: tried last.
        self.dead_links: frozenset[str] = frozenset()

    # Looking ------------------------------------------------------------------------------------------------------

    def observe(self, deadline: float = 2) -> Database:
        """What there is, whatever state it is in. Raises PostgresError only where the files cannot be read."""
        until = time.monotonic() + deadline
        cluster = self.cluster
        complete = self._complete()
        server = cluster.postmaster()
        if server is None:
            if not (cluster.data_directory / "PG_VERSION").is_file():
                return Database("missing")
            return self._stopped(complete)
        if server.status not in ("ready", ""):
            return Database("starting", complete=complete)
        try:
            said = cluster.ask(OBSERVE_SQL.format(slot=self._settings.postgresql.peer_slot), until)
        except NoAnswer:
            return Database("unresponsive", complete=complete)
        except Refused:
            return replace(self._not_connected(until), complete=complete)
        found = self._running(said, complete)
        if not self._decided:
            # What runs when ha_manager begins may be started again as what it is.
            self._allow(found.state)
        return found

    def _complete(self) -> bool:
        """Whether the data is whole: neither a copy nor a rewind was begun and not ended."""
        cluster = self.cluster
        begun = any(cluster.sibling(work).is_dir() for work in ("new", "recover", "rewind"))
        return (cluster.data_directory / "PG_VERSION").is_file() and not begun

    def _stopped(self, complete: bool) -> Database:
        control = self._control_data()
        return Database(
            "stopped",
            system_id=control.system_identifier,
            timeline=control.last_timeline,
            lsn=lsn_text(max(control.checkpoint, control.min_recovery_end)),
            clean=control.stopped_cleanly,
            complete=complete,
        )

    def _control_data(self) -> ControlData:
        """pg_controldata is run when its file has changed: a server that is stopped is looked at every second."""
        found = (self.cluster.data_directory / "global" / "pg_control").stat()
        seen = (found.st_ino, found.st_mtime_ns)
        if self._control is None or self._control[0] != seen:
            self._control = seen, self.cluster.control()
        return self._control[1]

    def _not_connected(self, until: float) -> Database:
        server = self.cluster.postmaster()
        if server is None:
            return self._stopped(True)
        try:
            code = refusal(server.sockets, server.port, self.cluster.owner, until)
        except (NoAnswer, OSError):
            code = None
        return Database("starting" if code == CANNOT_CONNECT_NOW else "unresponsive")

    def _running(self, said: dict[str, Any], complete: bool) -> Database:
        other = said["receiver"] if said["recovery"] else said["sender"]
        heard = self._ear.heard(said["recovery"], other)
        return Database(
            "standby" if said["recovery"] else "primary",
            system_id=said["system_id"],
            timeline=said["timeline"],
            lsn=said["lsn"],
            received=said["received"],
            streaming=bool(other and other["status"] == "streaming"),
            heard=heard,
            lag=max(0, int(other["lag"])) if other and other["lag"] is not None else None,
            synchronous=said["synchronous"],
            replay_paused=said["paused"],
            complete=complete,
        )

    def postmaster(self) -> int | None:
        """The process id of the running server."""
        server = self.cluster.postmaster()
        return server.pid if server else None

    def check(self, deadline: float) -> None:
        """Have a new connection and an answer, as a client would. Raises DatabaseTrouble: STOPPED, STARTING, UNRESPONSIVE, REFUSES."""
        until = time.monotonic() + deadline
        server = self.cluster.postmaster()
        if server is None:
            raise DatabaseTrouble("STOPPED", f"no PostgreSQL runs on {self.cluster.data_directory}: systemctl status postgresql@*")
        try:
            session = self.cluster.connect(until)
            try:
                session.ask("SELECT count(*) FROM pg_database", until)
            finally:
                session.close()
        except NoAnswer as error:
            raise DatabaseTrouble("UNRESPONSIVE", f"{error} (process {server.pid})") from None
        except Refused as error:
            # It says the same while it stops, which it may never end: a smart shutdown waits for every client, us among them.
            starting = server.status != "stopping" and self._not_connected(until).state == "starting"
            raise DatabaseTrouble("STARTING" if starting else "REFUSES", str(error)) from None

    def probe_disk(self, deadline: float) -> None:
        """Write a little beside the data. Raises DatabaseTrouble: DISK_FULL, DISK_READ_ONLY, DISK_HANGS, DISK_FAILS."""
        if self._probe is None or not self._probe.is_alive():
            self._probe = _Probe(self.cluster.data_directory.parent)
            self._probe.start()
        self._probe.join(deadline)
        if self._probe.is_alive():
            raise DatabaseTrouble(
                "DISK_HANGS", f"a write to {self._probe.path} has not ended for {self._probe.age:.1f} s: look at the disk"
            )
        if self._probe.trouble is not None:
            raise self._probe.trouble

    # Starting and stopping ----------------------------------------------------------------------------------------

    def start(self, role: str, deadline: float) -> None:
        """Run it as ``primary`` or ``standby``; returns when it takes writes, or answers questions in recovery."""
        until = time.monotonic() + deadline
        if role not in ("primary", "standby"):
            raise PostgresError(f"role {role!r}: expected primary or standby")
        running = self.cluster.postmaster()
        if running is None:
            self._clear(until)
            self._allow(role)
            self._signal_standby(role == "standby")
            self._service.start()
        self._await_role(role, until, deadline)
        if running is not None:
            self._allow(role)

    def _clear(self, until: float) -> None:
        """End what a killed server may have left: its processes, and a pid file that names what is another process by now."""
        self._kill(until)
        (self.cluster.data_directory / "postmaster.pid").unlink(missing_ok=True)

    def _await_role(self, role: str, until: float, deadline: float) -> None:
        looked = time.monotonic()
        while True:
            server = self.cluster.postmaster()
            if server is not None and server.status == "ready":
                with suppress(Refused):
                    found = "standby" if self.cluster.ask("SELECT pg_is_in_recovery()", _for_an_answer(until)) else "primary"
                    if found == role:
                        return
                    raise PostgresError(f"PostgreSQL runs as {found} and was to be {role}: stop it first, or promote it")
            now = time.monotonic()
            if server is None and now > looked + 0.25:
                looked = now
                if not self._service.starting and self.cluster.postmaster() is None:
                    raise PostgresError(f"PostgreSQL did not start as {role}: {self._last_words()}")
            if now > until:
                raise NoAnswer(f"PostgreSQL is not up as {role} after {deadline:.1f} s: {self._last_words()}")
            time.sleep(POLL)

    def _last_words(self) -> str:
        try:
            text = self._service.log_file.read_text(encoding="utf-8", errors="replace")[-4000:]
        except OSError:
            text = ""
        return f"{' | '.join(tail(text, 2).splitlines()) or 'it left no log'}; look further: {self._service.explain}"

    def _allow(self, role: str | None) -> None:
        """Let the unit run in this role, or not at all."""
        self._decided = True
        with suppress(FileExistsError):
            os.mkdir(self._run_directory, 0o755)
        for other in ("primary", "standby"):
            if other != role:
                (self._run_directory / other).unlink(missing_ok=True)
        if role is not None:
            (self._run_directory / role).touch(0o644)

    def _signal_standby(self, wanted: bool) -> None:
        path = self.cluster.standby_signal
        if wanted == path.exists():
            return
        if wanted:
            path.touch(0o600)
            if os.geteuid() == 0:
                os.chown(path, *self.cluster.owner_ids)
        else:
            path.unlink()
        durable.sync(str(path.parent))

    def promote(self, deadline: float) -> tuple[int, str]:
        """Make the standby a primary: the new timeline, and where it begins.

        What it has received is replayed first, however long that takes. :class:`NoAnswer` when it replays nothing for ``deadline`` seconds.

        The peer's slot is there before, so that all WAL since the last restart point is kept
        for its rewind. Nobody is waited for at commit until :meth:`name_standby` says so.
        """
        until = time.monotonic() + deadline
        cluster = self.cluster
        if cluster.ask("SELECT pg_is_in_recovery()", until):
            slot = self._settings.postgresql.peer_slot
            for statement in HAVE_SLOT_SQL.format(slot=slot).split(";")[:2]:
                cluster.ask(statement, until)
            self._allow("primary")
            self.name_standby(False)
            self._resume(until)
            cluster.ask("SELECT pg_promote(false)", until)
            replayed = ""
            while (recovery := cluster.ask(RECOVERY_SQL, _for_an_answer(until))) is not None:
                if recovery["replayed"] != replayed:
                    replayed, until = recovery["replayed"], time.monotonic() + deadline
                elif time.monotonic() > until:
                    raise NoAnswer(
                        f"PostgreSQL was promoted, and replays nothing after {replayed} for {deadline:.1f} s: {self._last_words()}"
                    )
                # A standby that has lost its primary sleeps for wal_retrieve_retry_interval even then, unless something wakes it.
                if recovery["startup"]:
                    with suppress(ProcessLookupError):
                        os.kill(recovery["startup"], signal.SIGHUP)
                time.sleep(POLL)
            until = time.monotonic() + deadline
            # Without it a rewind of the peer would wait for the next one, as the new timeline is not in the control file before.
            threading.Thread(target=self._checkpoint_quietly, name="checkpoint", daemon=True).start()
        timeline = int(cluster.ask("SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int", until))
        return timeline, lsn_text(cluster.history(timeline)[-1].begin)

    def _resume(self, until: float) -> None:
        self.cluster.ask("SELECT pg_wal_replay_resume() WHERE pg_is_wal_replay_paused()", until)

    def _checkpoint_quietly(self) -> None:
        with suppress(PostgresError):
            self.checkpoint(CHECKPOINT_TIMEOUT)

    def checkpoint(self, deadline: float) -> None:
        """Have everything on the disk, so that a stop afterwards has little to write."""
        until = time.monotonic() + deadline
        session = self.cluster.connect(until)
        try:
            session.ask("CHECKPOINT", until)
        finally:
            session.close()

    def wait_replayed(self, position: str, deadline: float) -> None:
        """Until the standby has replayed up to the position; a paused replay is resumed."""
        until = time.monotonic() + deadline
        goal = lsn(position)
        self._resume(until)
        while True:
            found = self.cluster.ask("SELECT pg_last_wal_replay_lsn()::text", _for_an_answer(until))
            if found is not None and lsn(found) >= goal:
                return
            if time.monotonic() > until:
                raise NoAnswer(f"the standby has replayed up to {found}, and not to {position}, within {deadline:.1f} s")
            time.sleep(POLL)

    def stop(self, deadline: float) -> str | None:
        """Stop it: how far a standby that has everything will have replayed, or None where it was not shut down cleanly."""
        until = time.monotonic() + deadline
        self._allow(None)
        server = self.cluster.postmaster()
        if server is not None:
            rough = deadline * ROUGH
            if not (_ends(server.pid, signal.SIGINT, until - rough) or _ends(server.pid, signal.SIGQUIT, until - rough / 2)):
                # It has its own time: what is killed last of all must not count as what even that does not end.
                self._kill(max(until, time.monotonic() + KILLED_WITHIN))
        return self._shutdown_end()

    def _shutdown_end(self) -> str | None:
        """The end of the checkpoint that a shutdown of a primary ends with; None where the last one was not."""
        found = read_control_file((self.cluster.data_directory / "global" / "pg_control").read_bytes())
        if found is None:
            control = self._control_data()
            found = control.state == "shut down", control.timeline, control.checkpoint
        shut_down, timeline, checkpoint = found
        if not shut_down:
            return None
        try:
            size = next(entry.stat().st_size for entry in os.scandir(self.cluster.wal_file("")) if SEGMENT.fullmatch(entry.name))
            with self.cluster.wal_file(segment_file(timeline, checkpoint, size)).open("rb") as file:
                file.seek(checkpoint % size)
                length = int.from_bytes(file.read(4), sys.byteorder)
        except (StopIteration, FileNotFoundError):
            # Somebody has emptied pg_wal; it is stopped all the same.
            return None
        return lsn_text(record_end(checkpoint, length, size))

    def kill(self) -> None:
        """End all processes of the cluster at once, those that are frozen too."""
        self._allow(None)
        self._kill(time.monotonic() + KILLED_WITHIN)

    def _kill(self, until: float) -> None:
        while pids := self._processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > until:
                raise PostgresError(f"processes {', '.join(map(str, pids))} of PostgreSQL do not end, even by SIGKILL: does the disk hang?")
            time.sleep(POLL)

    def _processes(self) -> list[int]:
        """Those that work in the data directory, as the server and all its children do."""
        home = str(self.cluster.data_directory)
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                # It may end while we look.
                with suppress(OSError):
                    if os.readlink(process / "cwd") == home and not _is_zombie(process):
                        found.append(int(process.name))
        return found

    def name_standby(self, wait: bool) -> None:
        """Let commits wait for the peer, or for nobody."""
        path = self.cluster.config_directory / "conf.d" / "swg_ha_synchronous.conf"
        wanted = f"synchronous_standby_names = '\"{self._settings.peer_node}\"'\n" if wait else None
        try:
            found: str | None = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            found = None
        if found == wanted:
            return
        if wanted is None:
            path.unlink()
            # Commits wait for this. After a power cut the name may be there again, and is taken away again.
            self.cluster.reload()
            durable.sync(str(path.parent))
        else:
            with durable.locked(str(path.parent)):
                durable.replace(str(path), wanted.encode(), lambda new: os.chmod(new, 0o644))
            self.cluster.reload()

    def waits_from(self, deadline: float) -> str | None:
        """How far the WAL is where commits surely wait for the peer by now; None: that was not to be seen by the deadline.

        A commit goes by a flag that the checkpointer sets when it reads the configuration, and while that one syncs files it reads none.
        So it must have been seen at rest, twice, after a reload that has reached this session.
        """
        until = time.monotonic() + deadline
        known: float | None = None
        rests = 0
        while rests < 2:
            if time.monotonic() > until:
                return None
            resting = self.cluster.ask(WAITING_SQL, _for_an_answer(until))
            if resting is None:
                known, rests = None, 0
            elif known is None:
                known = time.monotonic()
            elif resting and time.monotonic() - known > RELOADED:
                rests += 1
            time.sleep(POLL)
        return str(self.cluster.ask("SELECT pg_current_wal_flush_lsn()::text", _for_an_answer(until)))

    # Following the peer -------------------------------------------------------------------------------------------

    def follow(self, progress: Callable[[str], None], cancel: threading.Event) -> Followed:
        """Make it the streaming standby of the peer: nothing, start, rewind or a new copy, whatever that takes.

        What only this server has is in quarantine before anything discards it. Raises
        PostgresError, :class:`Cancelled` after ``cancel`` was set.
        """
        self._allow("standby")
        if self.cluster.postmaster() is None:
            self._clear(time.monotonic() + QUERY_TIMEOUT)
        peer = self._peer()
        try:
            outcome = self._replica(peer, progress, cancel).follow()
        finally:
            peer.close()
        until = time.monotonic() + QUERY_TIMEOUT
        # Made for a promotion: a standby would keep WAL for it for ever.
        self.cluster.ask(DROP_SLOT_SQL.format(slot=self._settings.postgresql.peer_slot), until)
        decision = outcome.plan.decision
        for path in map(Path, outcome.moved_aside):
            if decision and decision.method == "follow":
                # It was a part of the primary's history, so that its successor has all of it.
                self._quarantine.discard(path)
            elif decision and decision.only_behind:
                self._quarantine.acknowledge(path.name)
        names = {"none": "nothing", "reconfigure": "configured", "basebackup": "copy"}
        method = outcome.plan.method
        return Followed(names.get(method, method), Path(outcome.quarantine) if outcome.quarantine else None)

    def _peer(self) -> Peer:
        settings = self._settings
        said = settings.postgresql
        trust = settings.paths.trust
        parameters: dict[str, object] = self._parameters or {
            "host": ",".join(sorted((link.peer_address for link in settings.links), key=lambda address: address in self.dead_links)),
            "port": said.port,
            "user": said.user,
            "passfile": said.passfile,
            "sslmode": "verify-full",
            "sslrootcert": f"{trust}/peer.crt",
            "sslcert": f"{trust}/tls.crt",
            "sslkey": f"{trust}/tls.key",
        }
        parameters |= {"application_name": settings.node, **CONNECTION_DEFAULTS}
        return Peer(self.cluster, parameters, said.slot)

    def _replica(self, peer: Peer, progress: Callable[[str], None], cancel: threading.Event) -> Replica:
        settings = self._settings
        return Replica(
            self.cluster,
            peer,
            Wanted(settings.node, timeout=settings.limits.copy_timeout),
            self._service,
            Progress(None, progress),
            self._lock_file,
            cancelled=cancel.is_set,
        )

    def quarantined(self) -> list[dict[str, Any]]:
        """What is kept of what was discarded, the newest first: the list ``quarantine`` of the status document."""
        return self._quarantine.entries()

    def acknowledge(self, name: str) -> None:
        """An operator has looked at it."""
        self._quarantine.acknowledge(name)

    def prune(self) -> list[str]:
        """Complete the reports, which takes a running server, and remove what is beyond what is kept; the names of what went."""
        self._quarantine.examine(self._table_names)
        return self._quarantine.prune()

    def _table_names(self, relations: set[Relation]) -> list[str]:
        """What an operator calls them: ``database: schema.table``. Indexes count as their tables, system catalogs do not."""
        found: set[str] = set()
        for database in {database for _tablespace, database, _file in relations if database}:
            until = time.monotonic() + QUERY_TIMEOUT
            name = self.cluster.ask(f"SELECT datname FROM pg_database WHERE oid = {database} AND datallowconn", until)
            if name is None:
                found.add(f"database {database}, which is not there now")
                continue
            files = sorted((tablespace, file) for tablespace, of, file in relations if of == database)
            session = self.cluster.connect(until, name)
            try:
                tables = session.ask(TABLES_SQL.format(files=", ".join(f"({space}, {file})" for space, file in files)), until)
            finally:
                session.close()
            found |= {f"{name}: {table}" for table in tables or ()}
        return sorted(found)


class _Ear:
    """When the other end of the stream was last heard of, by this server's monotonic clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[bool, str | None] | None = None
        self._looked = self._heard = 0.0
        self._ages: deque[tuple[float, float]] = deque()

    def heard(self, standby: bool, other: dict[str, Any] | None) -> float | None:
        """Seconds. The servers' times only tell that something came, or at most for how long nothing did: clocks jump."""
        with self._lock:
            now = time.monotonic()
            at = other["at"] if other else None
            if self._key is not None and self._key[0] != standby:
                self._key = None
            if at is not None and (standby, at) != self._key:
                age = float(other.get("age") or 0) if other else 0.0
                age = max(0.0, age) if standby else self._since_sent(age, now)
                self._heard = now - (min(age, now - self._looked) if self._key else age)
                self._key = standby, at
            self._looked = now
            return now - self._heard if self._key else None

    def _since_sent(self, age: float, now: float) -> float:
        """How long ago at least the other server sent its answer, which says when by that one's clock.

        The clock may be off by whatever it likes: what counts is how much older this answer looks than the youngest one did.
        """
        if self._key is None:
            self._ages.clear()
        self._ages.append((now, age))
        while now - self._ages[0][0] > YOUNGEST_OF:
            self._ages.popleft()
        # After a jump of a clock everything would look old for so long.
        return min(age - min(age for _at, age in self._ages), MOST_BETWEEN_ANSWERS)


class _Probe(threading.Thread):
    """One small write, in a thread of its own, as it may never return."""

    def __init__(self, directory: Path) -> None:
        super().__init__(name="disk probe", daemon=True)
        self.path = directory / PROBE
        self.trouble: DatabaseTrouble | None = None
        self._began = time.monotonic()

    @property
    def age(self) -> float:
        return time.monotonic() - self._began

    def run(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(descriptor, b"Written now and then to see whether the disk takes it.\n", 0)
            finally:
                os.close(descriptor)
            self._look_for_room()
        except OSError as error:
            self.trouble = _disk_trouble(error, self.path)

    def _look_for_room(self) -> None:
        """The write above finds its place anew even on a full disk, and root may have what others may not."""
        found = os.statvfs(self.path)
        free = found.f_bavail * found.f_frsize
        if free < MINIMUM_ROOM or (found.f_files and not found.f_favail):
            self.trouble = DatabaseTrouble("DISK_FULL", f"{self.path.parent} has {free >> 20} MiB free: make room, PostgreSQL cannot write")


def _for_an_answer(until: float) -> float:
    return max(until, time.monotonic() + ANSWER)


def _disk_trouble(error: OSError, path: Path) -> DatabaseTrouble:
    codes = {errno.ENOSPC: "DISK_FULL", errno.EDQUOT: "DISK_FULL", errno.EROFS: "DISK_READ_ONLY"}
    return DatabaseTrouble(codes.get(error.errno or 0, "DISK_FAILS"), f"{path} cannot be written: {error.strerror}: look at the disk")


def _ends(pid: int, number: signal.Signals, until: float) -> bool:
    """Whether the process ends by ``until`` after the signal."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(until - time.monotonic(), 0) * 1000))
    finally:
        os.close(descriptor)


def _is_zombie(process: Path) -> bool:
    return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
