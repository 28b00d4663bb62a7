# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The PostgreSQL cluster of this machine: where it is, what it says, how it is started and stopped.

Everything that runs a program does it through an injected :class:`Run`; files are read
directly, so the caller must be root or the cluster's owner.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from .postgres import (
    ControlData,
    History,
    PostgresError,
    lsn,
    lsn_text,
    parse_control_data,
    parse_history,
    parse_waldump_end,
    segment_file,
    tail,
)

# Nothing of the caller's surroundings (PGHOST, PGPASSWORD, a language) reaches PostgreSQL's programs.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/nonexistent"}
QUERY_TIMEOUT = 30.0


class Run(Protocol):
    """Runs a program: ``(exit status, standard output, standard error)``.

    ``timeout`` (seconds) ends it by SIGKILL and raises :class:`PostgresError`; ``on_line``
    gets each line of standard error as it comes; ``keep`` are file descriptors that it inherits.
    """

    def __call__(
        self,
        argv: Sequence[str],
        input: str | None = None,
        *,
        timeout: float = QUERY_TIMEOUT,
        on_line: Callable[[str], None] | None = None,
        keep: Sequence[int] = (),
    ) -> tuple[int, str, str]: ...


def run_command(
    argv: Sequence[str],
    input: str | None = None,
    *,
    timeout: float = QUERY_TIMEOUT,
    on_line: Callable[[str], None] | None = None,
    keep: Sequence[int] = (),
) -> tuple[int, str, str]:
    """The real :class:`Run`."""
    try:
        # AnsibleModule.run_command needs Ansible, and tells nothing before the end.
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv),
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=ENVIRONMENT,
            encoding="utf-8",
            errors="replace",
            pass_fds=tuple(keep),
        )
    except OSError as error:
        return 127, "", f"{argv[0]}: {error.strerror}"
    if on_line is None:
        try:
            out, err = process.communicate(input, timeout=max(timeout, 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise PostgresError(f"no answer within {timeout:.0f} s from: {' '.join(argv)}") from None
        return process.returncode, out, err
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(max(timeout, 0.1), expire)
    timer.daemon = True
    timer.start()
    lines: list[str] = []
    try:
        for line in process.stderr or ():
            lines.append(line)
            del lines[:-200]
            on_line(line)
        out = process.stdout.read() if process.stdout else ""
        process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
    if expired.is_set():
        raise PostgresError(f"not finished within {timeout:.0f} s: {' '.join(argv)}")
    return process.returncode, out, "".join(lines)


# Where a standby stands, for a poll: one short query.
POSITION_SQL = """
SELECT json_build_object(
  'started', json_build_array(pg_postmaster_start_time() AT TIME ZONE 'UTC', pg_conf_load_time() AT TIME ZONE 'UTC'),
  'in_recovery', pg_is_in_recovery(),
  'primary_conninfo', current_setting('primary_conninfo'),
  'primary_slot_name', current_setting('primary_slot_name'),
  'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),
  'timeline', CASE WHEN pg_is_in_recovery()
    THEN greatest((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT timeline_id FROM pg_control_checkpoint()),
                  (SELECT min_recovery_end_timeline FROM pg_control_recovery()))
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
  'write', CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
    ELSE pg_current_wal_lsn() END,
  'replay', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END,
  'lag_s', CASE WHEN NOT pg_is_in_recovery() THEN NULL
    WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() THEN 0
    ELSE round(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::numeric, 3) END,
  'receiver', (SELECT json_build_object('status', status, 'sender_host', sender_host, 'sender_port', sender_port,
      'slot', slot_name, 'lsn', flushed_lsn, 'sender_lsn', latest_end_lsn, 'timeline', received_tli)
    FROM pg_stat_wal_receiver WHERE pid IS NOT NULL));
"""

# The rest of `info`. Objects with an oid of 16384 or more were made after initdb.
INVENTORY_SQL = """
SELECT json_build_object(
  'standbys', (SELECT coalesce(json_agg(json_build_object('application_name', application_name,
      'client_address', host(client_addr), 'state', state, 'sync_state', sync_state, 'sent', sent_lsn, 'replay', replay_lsn,
      'lag_bytes', CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) END,
      'lag_s', coalesce(round(extract(epoch FROM replay_lag)::numeric, 3), 0)) ORDER BY application_name), '[]')
    FROM pg_stat_replication),
  'slots', (SELECT coalesce(json_agg(json_build_object('name', slot_name, 'type', slot_type, 'active', active,
      'wal_status', wal_status, 'restart_lsn', restart_lsn, 'retained_bytes', pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn))
      ORDER BY slot_name), '[]') FROM pg_replication_slots),
  'databases', (SELECT json_agg(json_build_object('name', datname, 'size', pg_database_size(oid),
      'user', datname NOT IN ('postgres', 'template0', 'template1')) ORDER BY datname) FROM pg_database),
  'user_objects', (SELECT coalesce(json_agg(o), '[]') FROM (
    SELECT format('%s %I.%I', what, n.nspname, name) AS o FROM (
      SELECT 'pg_class'::regclass AS catalog, oid, relnamespace AS ns, 'relation' AS what, relname AS name FROM pg_class
      UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace, 'function', proname FROM pg_proc
      UNION ALL SELECT 'pg_type'::regclass, t.oid, typnamespace, 'type', typname FROM pg_type t
        WHERE typrelid = 0 AND typelem = 0
    ) f JOIN pg_namespace n ON n.oid = ns
    WHERE f.oid >= 16384 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = catalog AND d.objid = f.oid AND d.deptype = 'e')
    UNION ALL SELECT format('schema %I', nspname) FROM pg_namespace n WHERE oid >= 16384 AND nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
    UNION ALL SELECT format('large object %s', oid) FROM pg_largeobject_metadata
    LIMIT 5) AS found(o)));
"""


@dataclass(frozen=True)
class Postmaster:
    """The server process, as its postmaster.pid tells. ``status`` is starting, ready, standby (no queries) or stopping."""

    pid: int
    port: str
    sockets: str
    status: str


class Cluster:
    """One cluster of one major version as Debian's postgresql-common lays it out.

    :arg version: the major version, such as ``15``.
    :arg name: the cluster's name, such as ``main``.
    """

    def __init__(
        self,
        version: str,
        name: str,
        run: Run,
        *,
        config_directory: Path | None = None,
        bin_directory: Path | None = None,
        data_directory: Path | None = None,
        owner: str = "postgres",
    ) -> None:
        self.version = version
        self.name = name
        self.run = run
        self.config_directory = config_directory or Path("/etc/postgresql", version, name)
        self.bin_directory = bin_directory or Path("/usr/lib/postgresql", version, "bin")
        self.owner = owner
        if data_directory is not None:
            self.data_directory = data_directory

    # Programs

    def as_owner(self, program: str, *arguments: str) -> list[str]:
        """The argv of a PostgreSQL program as the cluster's owner. It dies with its caller."""
        argv = [str(self.bin_directory / program), *arguments]
        if os.geteuid() != 0:
            return argv
        user = self.owner
        return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--pdeathsig=KILL", "--", *argv]

    def program(self, program: str, *arguments: str, input: str | None = None, timeout: float = QUERY_TIMEOUT) -> str:
        """The output of a PostgreSQL program; :class:`PostgresError` with its complaint if it fails."""
        argv = self.as_owner(program, *arguments)
        rc, out, err = self.run(argv, input, timeout=timeout)
        if rc != 0:
            raise PostgresError(f"{program} failed ({rc}): {tail(err or out, 4)}")
        return out

    # Where it is

    @property
    def installed(self) -> bool:
        return os.access(self.bin_directory / "postgres", os.X_OK)

    @property
    def configured(self) -> bool:
        return (self.config_directory / "postgresql.conf").is_file()

    def setting(self, name: str) -> str:
        """What the configuration files say now (a running server may not have read them yet)."""
        return self.program("postgres", "-D", str(self.config_directory), "-C", name).strip()

    @cached_property
    def data_directory(self) -> Path:
        """The real path (symbolic links resolved) of the data directory that the configuration names."""
        return Path(os.path.realpath(self.setting("data_directory")))

    @property
    def exists(self) -> bool:
        return self.installed and self.configured and (self.data_directory / "PG_VERSION").is_file()

    def sibling(self, suffix: str) -> Path:
        return self.data_directory.with_name(f"{self.data_directory.name}.{suffix}")

    @cached_property
    def owner_ids(self) -> tuple[int, int]:
        entry = pwd.getpwnam(self.owner)
        return entry.pw_uid, entry.pw_gid

    # What it says

    def control(self, directory: Path | None = None) -> ControlData:
        return parse_control_data(self.program("pg_controldata", "-D", str(directory or self.data_directory)))

    def postmaster(self) -> Postmaster | None:
        """The server that runs on the data directory; None if none does."""
        try:
            lines = (self.data_directory / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            pid = int(lines[0])
            # A process id is used again after a power cut: only a postmaster lives in its data directory.
            if os.readlink(f"/proc/{pid}/cwd") != str(self.data_directory):
                return None
        except (OSError, ValueError, IndexError):
            return None
        lines += [""] * (8 - len(lines))
        return Postmaster(pid, lines[3].strip(), lines[4].strip(), lines[7].strip())

    @property
    def running(self) -> bool:
        return self.postmaster() is not None

    @property
    def standby_signal(self) -> Path:
        return self.data_directory / "standby.signal"

    def sql(self, statement: str, variables: Mapping[str, str] | None = None) -> Any:
        """The JSON answer of one statement asked through the unix socket as the owner."""
        found = self.postmaster()
        if found is None:
            raise PostgresError(f"no server runs on {self.data_directory}")
        if not found.sockets:
            raise PostgresError("the server has no unix socket (yet): unix_socket_directories is empty, or it is just starting")
        target = f"host={found.sockets} port={found.port} user={self.owner} dbname=postgres connect_timeout=5 application_name=pg_replica"
        return json.loads(self.program("psql", *psql_arguments(target, variables), input=statement) or "null")

    def position(self) -> dict[str, Any] | None:
        """The answer to POSITION_SQL; None while no server runs or it accepts no connections yet."""
        server = self.postmaster()
        if server is None or server.status != "ready":
            return None
        try:
            answer: dict[str, Any] = self.sql(POSITION_SQL)
        except PostgresError:
            return None
        return answer

    def reload(self) -> None:
        """Have the configuration read again, also by a server that accepts no connections yet."""
        server = self.postmaster()
        if server:
            os.kill(server.pid, signal.SIGHUP)

    # Its WAL

    def wal_file(self, name: str, directory: Path | None = None) -> Path:
        return (directory or self.data_directory) / "pg_wal" / name

    def history(self, timeline: int) -> History:
        """The local history of ``timeline``; :class:`PostgresError` if its file is gone."""
        if timeline == 1:
            return parse_history("", 1)
        path = self.wal_file(f"{timeline:08X}.history")
        try:
            return parse_history(path.read_text(encoding="utf-8"), timeline)
        except OSError as error:
            raise PostgresError(f"the history of local timeline {timeline} cannot be read: {path}: {error.strerror}") from None

    def histories(self) -> list[int]:
        """The timelines of which pg_wal has a history file."""
        return sorted(int(path.stem, 16) for path in self.wal_file("").glob("????????.history"))

    def wal_end(self, timeline: int, start: int, segment_size: int) -> int:
        """The end of the last valid record at or after ``start`` on ``timeline``; ``start`` if there is none."""
        after = start - start % segment_size
        while self.wal_file(segment_file(timeline, after, segment_size)).is_file():
            after += segment_size
        if after <= start:
            return start
        argv = self.as_owner(
            "pg_waldump", "--stats", f"--path={self.wal_file('')}", f"--timeline={timeline}",
            f"--start={lsn_text(start)}", f"--end={lsn_text(after)}",
        )  # fmt: skip
        # It always ends with an error: the first place that holds no valid record is what is looked for.
        _rc, out, _err = self.run(argv, timeout=600)
        return parse_waldump_end(out) or start

    def commits(self, timeline: int, start: int, end: int) -> int:
        """How many transactions were committed on ``timeline`` from ``start`` to ``end``."""
        if start >= end:
            return 0
        argv = self.as_owner(
            "pg_waldump", "--stats=record", "--rmgr=Transaction", f"--path={self.wal_file('')}", f"--timeline={timeline}",
            f"--start={lsn_text(start)}", f"--end={lsn_text(end)}",
        )  # fmt: skip
        _rc, out, _err = self.run(argv, timeout=600)
        return sum(int(count) for count in re.findall(r"^Transaction/COMMIT(?:_PREPARED)?\s+(\d+)", out, re.MULTILINE))

    def wal_digest(self, names: Sequence[str], length: int) -> str | None:
        """SHA-256 of the first ``length`` bytes of the first of the segments that is there in full; None if none is."""
        for name in names:
            try:
                with self.wal_file(name).open("rb") as file:
                    content = file.read(length)
            except FileNotFoundError:
                continue
            if len(content) == length:
                return hashlib.sha256(content).hexdigest()
        return None

    # For people

    def info(self) -> dict[str, Any]:
        """What there is, whatever state it is in. Keys: see RETURN of module pg_replica, ``info``."""
        found: dict[str, Any] = {
            "installed": self.installed, "exists": False, "running": False, "accepting": False, "streaming": False,
            "in_recovery": None, "port": None, "data_directory": None, "state": None, "system_identifier": None,
            "timeline": None, "lsn": None, "receiver": None, "lag_bytes": None, "lag_s": None, "primary_conninfo": None,
            "standbys": [], "slots": [], "databases": [], "has_user_data": None, "user_data": [], "reason": None, "leftovers": [],
        }  # fmt: skip
        if not self.installed:
            return found | {"has_user_data": False, "reason": f"PostgreSQL {self.version} is not installed ({self.bin_directory})"}
        if not self.configured:
            return found | {"has_user_data": False, "reason": f"there is no cluster {self.version}/{self.name} ({self.config_directory})"}
        try:
            return found | self._found()
        except PostgresError as error:
            # A configuration or a data directory that PostgreSQL itself cannot read.
            return found | {"reason": str(error)}

    def _found(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "data_directory": str(self.data_directory),
            "leftovers": [str(path) for path in self.leftovers()],
            "port": int(self.setting("port")),
        }
        if not self.exists:
            return found | {"has_user_data": False, "reason": f"there is no data directory {self.data_directory}"}
        control = self.control()
        found |= {
            "exists": True,
            "state": control.state,
            "system_identifier": control.system_identifier,
            "timeline": control.last_timeline,
            "in_recovery": control.was_standby or self.standby_signal.is_file(),
        }
        server = self.postmaster()
        if server is None:
            return found | {"reason": "the cluster is stopped: what databases it has cannot be asked"}
        found |= {"running": True, "port": int(server.port or found["port"])}
        try:
            here: dict[str, Any] = self.sql(POSITION_SQL)
            inventory: dict[str, Any] = self.sql(INVENTORY_SQL)
        except PostgresError as error:
            return found | {"reason": f"the server runs but does not answer: {error}"}
        user_data: list[str] = [f"database {database['name']}" for database in inventory["databases"] if database["user"]]
        user_data += [f"{name} in database postgres" for name in inventory.pop("user_objects")]
        return found | inventory | summary(here) | {"accepting": True, "has_user_data": bool(user_data), "user_data": user_data}

    def leftovers(self) -> list[Path]:
        """What earlier runs left beside the data directory: work in progress, and old data that was moved aside."""
        parent = self.data_directory.parent
        if not parent.is_dir():
            return []
        return sorted(path for path in parent.glob(f"{self.data_directory.name}.*") if path.is_dir())


def summary(here: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer to POSITION_SQL means, in the names of the module's return values."""
    receiver = here["receiver"]
    lag = None
    if here["in_recovery"] and receiver and receiver["sender_lsn"] and here["replay"]:
        lag = max(0, lsn(receiver["sender_lsn"]) - lsn(here["replay"]))
    return {
        "in_recovery": here["in_recovery"],
        "system_identifier": here["system_identifier"],
        "timeline": here["timeline"],
        "lsn": {"write": here["write"], "replay": here["replay"]},
        "receiver": receiver,
        "streaming": is_streaming(here),
        "lag_bytes": lag,
        "lag_s": here["lag_s"],
        "primary_conninfo": here["primary_conninfo"] if "password" not in here["primary_conninfo"] else "(holds a password)",
    }


def is_streaming(here: Mapping[str, Any] | None) -> bool:
    return bool(here and here["in_recovery"] and here["receiver"] and here["receiver"]["status"] == "streaming")


def psql_arguments(target: str, variables: Mapping[str, str] | None = None) -> list[str]:
    """Arguments of a psql that reads its statement from standard input, where ``:'name'`` is quoted by psql itself."""
    arguments = ["-XAtq", "-v", "ON_ERROR_STOP=1"]
    for name, value in (variables or {}).items():
        arguments += ["-v", f"{name}={value}"]
    return [*arguments, "-d", target]


# Starting and stopping ----------------------------------------------------------------------------------------


class Service(Protocol):
    """How a cluster is started and stopped. ``log_file`` is where its first words after a start go."""

    log_file: Path

    def start(self) -> None:
        """Have it started; whether it runs is seen by :meth:`Cluster.postmaster`."""

    def stop(self) -> None:
        """A fast shutdown, complete when this returns."""

    @property
    def starting(self) -> bool:
        """Whether a start is still under way."""

    @property
    def explain(self) -> str:
        """The command that shows a person more."""


class DebianService:
    """A cluster of postgresql-common: through systemd where that is PID 1, otherwise by pg_ctlcluster."""

    def __init__(self, version: str, name: str, run: Run, *, systemd: bool | None = None, timeout: float = 300) -> None:
        self._run = run
        self._timeout = timeout
        self._systemd = Path("/run/systemd/system").is_dir() if systemd is None else systemd
        self._unit = f"postgresql@{version}-{name}.service"
        self._pg_ctlcluster = ["pg_ctlcluster", "--skip-systemctl-redirect", "--mode", "fast", version, name]
        self.log_file = Path(f"/var/log/postgresql/postgresql-{version}-{name}.log")

    def _do(self, argv: list[str], fine: Sequence[int] = (0,)) -> str:
        rc, out, err = self._run(argv, timeout=self._timeout)
        if rc not in fine:
            raise PostgresError(f"{' '.join(argv)} failed ({rc}): {tail(err or out, 4)}")
        return out

    def start(self) -> None:
        if self._systemd:
            # pg_ctlcluster goes on probing for two seconds after the server is there.
            self._do(["systemctl", "start", "--no-block", self._unit])
        else:
            self._do([*self._pg_ctlcluster, "start"], fine=(0, 2))

    def stop(self) -> None:
        if self._systemd:
            self._do(["systemctl", "stop", self._unit])
        else:
            self._do([*self._pg_ctlcluster, "stop"], fine=(0, 2))

    @property
    def starting(self) -> bool:
        if not self._systemd:
            return False
        said = self._do(["systemctl", "show", "--property=ActiveState", "--property=Job", self._unit])
        return "ActiveState=activating" in said or bool(re.search(r"^Job=[1-9]", said, re.MULTILINE))

    @property
    def explain(self) -> str:
        log = f"tail -n 50 {self.log_file}"
        return f"journalctl -u {self._unit} -n 50; {log}" if self._systemd else log


def wait_until(condition: Callable[[], bool], seconds: float, interval: float = 0.05) -> bool:
    """Whether ``condition`` came true within ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(interval)
    return True
