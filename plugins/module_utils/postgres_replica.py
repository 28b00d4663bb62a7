# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Makes the local cluster the streaming standby of a primary, so that a power cut at any line can be repaired.

Directories, all siblings of the data directory ``main``:

* ``main.new/`` holds a base copy in the making (``data``) and what is known of it
  (``pg_replica.json``). It takes the place of ``main`` in one step, complete and on disk.
* ``main.recover`` is the data directory while it is recovered from a crash, so that it can be
  rewound: under that name no service starts it. One found there later is whole.
* ``main.rewind`` is the data directory while pg_rewind works on it: one found there later was
  interrupted and is never started.
* ``main.<UTC time>`` is old data that was moved aside. Nothing here deletes it.
* ``main.diverged.<UTC time>/`` is the WAL that a rewind takes away, with a report.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .durable import exchange, sync_file_system
from .postgres import (
    Decision,
    Fork,
    Local,
    PostgresError,
    decide,
    fork_of,
    lsn,
    lsn_text,
    parse_conninfo,
    parse_progress,
    render_auto_conf,
    segment_file,
    segment_files,
    tail,
)
from .postgres_cluster import Cluster, Service, is_streaming, summary, wait_until
from .postgres_primary import Answer, Primary

POLL = 0.1
# How often, while it does not stream, the primary is asked whether it still has the WAL that comes next.
GAP_INTERVAL = 3.0
STALL = 60.0
SYNC_BYTES = 512 << 20
MARKER = "pg_replica.json"


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    ``max_rate`` is in kB/s (0: no limit), ``timeout`` in seconds for everything together,
    ``compression`` of a base backup on its way: lz4, zstd or none.
    """

    application_name: str
    max_rate: int = 0
    compression: str = "none"
    method: str = "auto"
    timeout: float = 3600


@dataclass(frozen=True)
class Plan:
    """``method``: none, start, reconfigure, rewind or basebackup; ``answer`` is None where the primary was not asked."""

    method: str
    reason: str
    configure: bool = False
    decision: Decision | None = None
    answer: Answer | None = None
    local: Local | None = None
    before: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """What was done. ``changed`` is false when nothing was touched."""

    plan: Plan
    changed: bool = False
    bytes: int = 0
    duration_s: float = 0.0
    moved_aside: list[str] = field(default_factory=list)
    quarantine: str | None = None
    commands: list[str] = field(default_factory=list)
    position: dict[str, Any] = field(default_factory=dict)


class Progress:
    """Says how far the work is: in a small JSON file for whoever looks, and in the log.

    The file has ``phase``, ``method``, ``bytes_done``, ``bytes_total``, ``rate`` (bytes/s),
    ``eta_s``, ``pid``, ``started`` and ``updated`` (Unix time).
    """

    def __init__(self, path: Path | None, log: Callable[[str], None]) -> None:
        self._path = path
        self._log = log
        self._state: dict[str, Any] = {
            "phase": "start", "method": None, "bytes_done": 0, "bytes_total": 0, "rate": 0, "eta_s": None,
            "pid": os.getpid(), "started": round(time.time(), 3),
        }  # fmt: skip
        self._phase_began = time.monotonic()
        self._logged = 0.0

    def phase(self, name: str, text: str = "", method: str | None = None) -> None:
        self._state |= {"phase": name, "method": method or self._state["method"]}
        self._phase_began = self._logged = time.monotonic()
        self._log(f"{name}: {text}" if text else name)
        self._write()

    def bytes(self, done: int, total: int) -> None:
        now = time.monotonic()
        rate = done / max(now - self._phase_began, 0.001)
        self._state |= {
            "bytes_done": done,
            "bytes_total": max(done, total),
            "rate": round(rate),
            "eta_s": round((total - done) / rate, 1) if rate and total >= done else None,
        }
        self._write()
        if now - self._logged > 10:
            self._logged = now
            self._log(f"{self._state['phase']}: {done >> 20} of {total >> 20} MiB, {rate / 1048576:.0f} MiB/s")

    @property
    def bytes_done(self) -> int:
        return int(self._state["bytes_done"])

    def _write(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(self._state | {"updated": round(time.time(), 3)}) + "\n", encoding="utf-8")
        os.chmod(temporary, 0o644)
        os.replace(temporary, self._path)


DROP_SLOTS_SQL = """
WITH old AS MATERIALIZED (SELECT slot_name, pg_drop_replication_slot(slot_name) FROM pg_replication_slots
  WHERE slot_type = 'physical' AND NOT active)
SELECT coalesce(json_agg(slot_name), '[]') FROM old;
"""


class CopyNeeded(PostgresError):
    """What was started cannot become a standby of the primary: only a new base copy helps."""


class Cancelled(PostgresError):
    """The caller has called it off."""


# What happens to the WAL that a rewind takes away: gets the data directory, the fork and the local cluster, returns where it is.
Quarantine = Callable[["Replica", Local, Fork], Path]


class Replica:
    """The work on one cluster.

    :arg cancelled: asked now and then; when it says so the work is given up, at the next place where that harms nothing.
    :arg lock_file: held (flock) by the one run that may change the cluster, and by the programs that it started.
    """

    def __init__(
        self,
        cluster: Cluster,
        primary: Primary,
        wanted: Wanted,
        service: Service,
        progress: Progress,
        lock_file: Path,
        quarantine: Quarantine | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.cluster = cluster
        self.primary = primary
        self.wanted = wanted
        self.service = service
        self.progress = progress
        self.lock_file = lock_file
        self.quarantine = quarantine or keep_diverged_wal
        self._cancelled = cancelled
        self._deadline = time.monotonic() + wanted.timeout
        self._lock: int | None = None
        self._stopped_by_us = False
        self._no_data = ""
        self._outcome = Outcome(Plan("none", ""))

    # Looking ----------------------------------------------------------------------------------------------

    @property
    def settings(self) -> dict[str, str]:
        return {"primary_conninfo": self.primary.conninfo, "primary_slot_name": self.primary.slot}

    def configured(self, here: Mapping[str, Any]) -> bool:
        """Whether the running server is set up as wanted, now and for its next start; which of the primary's addresses comes first is its own affair."""
        try:
            present, wanted = (parse_conninfo(text) for text in (here["primary_conninfo"], self.primary.conninfo))
        except PostgresError:
            return False
        for parameters in (present, wanted):
            parameters["host"] = ",".join(sorted(parameters.get("host", "").split(",")))
        return present == wanted and here["primary_slot_name"] == self.primary.slot and self.cluster.standby_signal.is_file()

    def plan(self) -> Plan:
        """What would be done, and why. Changes nothing."""
        self._check_place()
        cluster = self.cluster
        here = cluster.position() if cluster.exists else None
        before = self.before(here)
        if here and is_streaming(here) and self.configured(here):
            return Plan("none", "already streaming from the primary", before=before)
        # In this order: what a running standby has received by now, the primary has as well when it is asked.
        local, why_not = self._local(here)
        answer = self.primary.ask()
        if here and here["started"] == answer.started:
            raise PostgresError(f"primary_hosts ({self.primary.parameters.get('host')}) leads to this server itself: name the other one")
        if self.wanted.method == "basebackup":
            return Plan("basebackup", "a base backup was asked for", answer=answer, local=local, before=before)
        same_wal: bool | None = None
        if local:
            same_wal, why_not = self._same_wal(local, answer)
        decision = decide(local, answer.source, same_wal, why_not)
        if self.wanted.method == "rewind" and decision.method == "basebackup":
            raise PostgresError(f"method=rewind is not possible: {decision.reason}; use method=auto or method=basebackup")
        method, configure = decision.method, True
        if method == "follow":
            method = "start"
            if cluster.running:
                configure = not (here and self.configured(here))
                method = "reconfigure" if configure or not (answer.slot and answer.slot.usable) else "none"
        return Plan(method, decision.reason, configure, decision, answer, local, before)

    def before(self, here: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The role and the settings that the cluster has now."""
        if not self.cluster.exists:
            return {"role": "absent"}
        if here is None:
            return {"role": "running" if self.cluster.running else "stopped"}
        return {
            "role": "standby" if here["in_recovery"] else "primary",
            "primary_conninfo": summary(here)["primary_conninfo"],
            "primary_slot_name": here["primary_slot_name"],
        }

    def _local(self, here: Mapping[str, Any] | None) -> tuple[Local | None, str]:
        """The local cluster; None, and why, where there is none that could be judged."""
        cluster = self.cluster
        if not cluster.exists:
            return None, self._no_data or f"there is no data directory {cluster.data_directory}"
        control = cluster.control()
        timeline, start = control.last_timeline, control.known_position
        standby = cluster.standby_signal.is_file()
        if here:
            standby = here["in_recovery"]
            timeline = max(timeline, here["timeline"] or 0)
            start = max(start, lsn(here["replay"])) if here["replay"] else start
        try:
            history = cluster.history(timeline)
        except PostgresError as error:
            return None, str(error)
        running = cluster.running
        end = cluster.wal_end(timeline, start, control.segment_size) if standby or not running else None
        return Local(control, history, end, running, tuple(cluster.histories())), ""

    def _same_wal(self, local: Local, answer: Answer) -> tuple[bool | None, str]:
        """Whether the WAL before the fork is the same on both, byte for byte; None, and why, where that cannot be known.

        The segment that holds the last common byte is compared, and the one before it where
        both still have that: a short beginning of a segment says little.
        """
        point = fork_of(local, answer.source)
        if point is None or local.control.system_identifier != answer.source.system_identifier:
            return None, ""
        size = local.control.segment_size
        last = point.position - 1
        same = self._same_segment(local, answer, last)
        if same and last >= size:
            return self._same_segment(local, answer, last - last % size - 1) is not False, ""
        return same, "one of the two no longer has that WAL"

    def _same_segment(self, local: Local, answer: Answer, last: int) -> bool | None:
        """Whether the segment that holds the byte at ``last`` is the same up to there; None where one of the two lacks it."""
        size = local.control.segment_size
        length = last % size + 1
        mine = self.cluster.wal_digest(segment_files(local.history, last, size), length)
        theirs = self.primary.wal_digest(segment_files(answer.source.history, last, size), length) if mine else None
        return mine == theirs if theirs else None

    # Doing ------------------------------------------------------------------------------------------------

    def follow(self) -> Outcome:
        """Do it, and return when the standby streams and the primary says so too.

        :class:`PostgresError` tells what failed, what state the cluster is in and where to look.
        """
        began = time.monotonic()
        quick = self.cluster.position() if self.cluster.exists and not self._unfinished() else None
        if quick and is_streaming(quick) and self.configured(quick):
            self._outcome.plan = Plan("none", "already streaming from the primary", before=self.before(quick))
            self._outcome.position = summary(quick)
            return self._outcome
        with self._locked():
            try:
                self._follow()
            except BaseException as error:
                self.progress.phase("failed", str(error))
                for kept in (*self._outcome.moved_aside, self._outcome.quarantine):
                    if kept:
                        error.add_note(f"kept: {kept}")
                raise
        self._outcome.duration_s = round(time.monotonic() - began, 3)
        return self._outcome

    def _follow(self) -> None:
        self._check_place()
        self._tidy()
        plan = self._say(self.plan())
        try:
            if plan.method == "rewind" and self.cluster.running:
                self._stop()
                # What it wrote while it stopped belongs to the decision.
                plan = self._say(replace(self.plan(), before=plan.before))
            self._carry_out(plan)
        except BaseException as error:
            if self._stopped_by_us and not self.cluster.running:
                self._start_again(error)
            raise

    def _say(self, plan: Plan) -> Plan:
        self._outcome.plan = plan
        self.progress.phase("plan", f"{plan.method}: {plan.reason}", plan.method)
        return plan

    def _start_again(self, error: BaseException) -> None:
        try:
            self.service.start()
        except PostgresError as other:
            error.add_note(str(other))
        runs = wait_until(lambda: self.cluster.running, 10)
        error.add_note(f"the cluster, which was stopped for this, {'runs again as before' if runs else 'did not start again'}")

    def _carry_out(self, plan: Plan) -> None:
        answer = plan.answer or self.primary.ask()
        try:
            if plan.method == "rewind":
                self._rewind(plan, answer)
            elif plan.method != "basebackup":
                self._adopt(plan, answer)
            if plan.method != "basebackup":
                self._wait()
                self._drop_old_slots(plan)
                return
        except CopyNeeded as needed:
            if self.wanted.method == "rewind":
                raise
            self._say(replace(plan, method="basebackup", reason=str(needed)))
        self._keep_diverged(plan)
        self._base_backup()
        self._wait()

    def _keep_diverged(self, plan: Plan) -> None:
        """Where it is known what only this server has; the data that is moved aside has it as well, among all the rest."""
        local, point = plan.local, plan.decision.fork if plan.decision else None
        if local is None or local.end is None or point is None or local.end <= point.position or self._outcome.quarantine:
            return
        self.progress.phase("quarantine", f"the local WAL after {lsn_text(point.position)}")
        self._outcome.quarantine = str(self.quarantine(self, local, point))

    def _adopt(self, plan: Plan, answer: Answer) -> None:
        """Let the local data, as it is, stream from the primary."""
        self._reserve(answer)
        if plan.configure:
            self._configure(self.cluster.data_directory)
            self._outcome.changed = True
        if plan.method == "start":
            self._start()
        elif plan.configure:
            self._outcome.commands.append(f"reload {self.cluster.version}/{self.cluster.name}")
            self.cluster.reload()

    # Locks, places, leftovers

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.lock_file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not lock(descriptor):
                self._end_orphans(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            self._lock = descriptor
            yield
        finally:
            self._lock = None
            os.close(descriptor)

    def _end_orphans(self, descriptor: int) -> None:
        """Take the lock over from programs that outlived their run (pg_basebackup's receiver of WAL does, and never ends)."""
        holder = os.pread(descriptor, 64, 0).decode(errors="replace").strip()
        users = processes_with(self.lock_file)
        alive = holder in map(str, users)
        for pid in () if alive else users:
            if pid != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if alive or not wait_until(lambda: lock(descriptor), 5):
            raise PostgresError(
                f"another run (pid {holder or 'unknown'}) is at work on cluster {self.cluster.version}/{self.cluster.name}: "
                f"wait for it to end, or end it ({self.lock_file})"
            )

    def _check_place(self) -> None:
        cluster = self.cluster
        if not cluster.installed:
            raise PostgresError(f"PostgreSQL {cluster.version} is not installed: {cluster.bin_directory}/postgres is missing")
        if not cluster.configured:
            raise PostgresError(
                f"there is no cluster {cluster.version}/{cluster.name}: {cluster.config_directory}/postgresql.conf is missing "
                f"(pg_createcluster {cluster.version} {cluster.name})"
            )
        data = cluster.data_directory
        if data == cluster.config_directory or data in cluster.config_directory.parents:
            raise PostgresError(f"the configuration {cluster.config_directory} lies inside the data directory, which is to be replaced")
        if not data.parent.is_dir():
            raise PostgresError(f"{data.parent} does not exist: create it, so that the data directory {data} can be made in it")
        if os.path.ismount(data):
            raise PostgresError(f"the data directory {data} is a mount point and cannot be moved aside: use a folder inside it")

    def _unfinished(self) -> list[Path]:
        """What a dead run left behind."""
        data = self.cluster.data_directory
        patterns = ("new", "recover", "rewind", "diverged.*.tmp")
        return [path for pattern in patterns for path in data.parent.glob(f"{data.name}.{pattern}") if path.is_dir()]

    def _tidy(self) -> None:
        """Bring what a dead run left behind to an end."""
        unfinished = self._unfinished()
        self._outcome.changed = bool(unfinished)
        for path in unfinished:
            if path.suffix == ".tmp":
                shutil.rmtree(path)
        data, rewind, new = self.cluster.data_directory, self.cluster.sibling("rewind"), self.cluster.sibling("new")
        if self.cluster.sibling("recover").is_dir():
            self._put_back(self.cluster.sibling("recover"))
        if rewind.is_dir():
            self._no_data = "a rewind was interrupted"
            self._move_aside(rewind)
        if not new.is_dir():
            return
        marker = read_json(new / MARKER)
        copy = new / "data"
        if marker is None and any(path.name != temporary_name(MARKER) for path in new.iterdir()):
            raise PostgresError(f"{new} is in the way and is not of our making (no {MARKER} in it): move it away")
        if marker and marker.get("phase") == "complete" and copy.is_dir():
            if copy.stat().st_ino != marker.get("inode"):
                # The two were exchanged already: what is here is the old data.
                self._move_aside(copy)
            elif not data.exists():
                os.rename(copy, data)
                sync_directory(data.parent)
        shutil.rmtree(new)
        sync_directory(new.parent)

    def _put_back(self, work: Path) -> None:
        """Whatever it was, it is not to start as a primary now."""
        data = self.cluster.data_directory
        write_file(work / "standby.signal", "", self.cluster.owner_ids)
        os.rename(work, data)
        sync_directory(data.parent)

    def _move_aside(self, path: Path) -> None:
        target = fresh_name(self.cluster)
        os.rename(path, target)
        sync_directory(target.parent)
        sync_directory(path.parent)
        self._outcome.moved_aside.append(str(target))
        self._outcome.changed = True
        self.progress.phase("moved aside", f"the old data is kept as {target}")

    # Parts of every method

    def _left(self, at_most: float = 1e9, trouble: str = "") -> float:
        """Seconds until the deadline, at most ``at_most``."""
        if self._cancelled():
            raise Cancelled("called off before it was done")
        left = min(self._deadline - time.monotonic(), at_most)
        if left <= 0:
            raise PostgresError(f"not streaming within timeout={self.wanted.timeout:.0f} s\n{trouble}{self.diagnosis()}")
        return left

    def _start(self) -> None:
        self.progress.phase("start")
        self._outcome.changed = True
        self._outcome.commands.append(f"start {self.cluster.version}/{self.cluster.name}")
        self._stopped_by_us = False
        self.service.start()
        wait_until(lambda: self.cluster.running or not self.service.starting, self._left(60))
        if not self.cluster.running:
            raise self._not_running("did not start")

    def _not_running(self, what: str) -> PostgresError:
        text = f"the server {what}\n{self.diagnosis()}"
        # Recovery stops for good where a rewound directory lacks the WAL that it has to start from.
        return CopyNeeded(text) if self._outcome.plan.method == "rewind" else PostgresError(text)

    def _stop(self) -> None:
        self.progress.phase("stop")
        self._outcome.changed = True
        self._outcome.commands.append(f"stop {self.cluster.version}/{self.cluster.name}")
        self._stopped_by_us = True
        self.service.stop()
        if not wait_until(lambda: not self.cluster.running, self._left(60)):
            raise PostgresError(f"the cluster did not stop\n{self.diagnosis()}")

    def _configure(self, directory: Path) -> None:
        """Make ``directory`` a standby of the primary from its next start (or reload) on.

        postgresql.auto.conf and not a file in /etc: it wins over every other file, a base copy
        brings the primary's own along (with whatever that followed once), and it moves with the data.
        """
        path = directory / "postgresql.auto.conf"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        owner = self.cluster.owner_ids
        # First, so that a power cut in between leaves a standby without a primary, and not a primary.
        write_file(directory / "standby.signal", "", owner)
        write_file(path, render_auto_conf(text, self.settings), owner)
        (directory / "recovery.signal").unlink(missing_ok=True)
        sync_directory(directory)

    def _reserve(self, answer: Answer) -> None:
        """Have the slot on the primary, reserved and free for us."""
        slot = answer.slot
        if slot and slot.active_pid and not self._receives_from_slot(self.cluster.position()):
            if slot.user != self.wanted.application_name:
                raise PostgresError(
                    f"replication slot {self.primary.slot!r} is in use by {slot.user!r} (pid {slot.active_pid} on the primary): "
                    "give each standby a slot of its own"
                )
            # Ours, from before a power cut or a stop: the primary has not noticed yet.
            self.primary.terminate(slot.active_pid)
            slot = replace(slot, active_pid=None)
        if slot and not slot.usable and not slot.active_pid:
            self.progress.phase("slot", f"{self.primary.slot} ({slot.wal_status or 'never reserved'}) is made anew")
            self.primary.drop_slot()
            slot = None
        if slot is None:
            self.primary.create_slot()
            self._outcome.changed = True
            self._outcome.commands.append(f"SELECT pg_create_physical_replication_slot('{self.primary.slot}', true)")

    def _receives_from_slot(self, here: Mapping[str, Any] | None) -> bool:
        return bool(here and here["receiver"] and here["receiver"]["slot"] == self.primary.slot)

    def _drop_old_slots(self, plan: Plan) -> None:
        """A former primary still has the slots of its standbys, and would keep WAL for them for ever."""
        if plan.local is None or plan.local.control.was_standby:
            return
        dropped = self.cluster.sql(DROP_SLOTS_SQL)
        self._outcome.commands += [f"SELECT pg_drop_replication_slot('{name}')" for name in dropped]

    # Base backup

    def _base_backup(self) -> None:
        cluster, new = self.cluster, self.cluster.sibling("new")
        self._check_size(self.primary.ask())
        if cluster.running and cluster.standby_signal.is_file():
            # It would take the slot.
            self._stop()
        self._reserve(self.primary.ask())
        self._outcome.changed = True
        new.mkdir(mode=0o700)
        os.chown(new, *cluster.owner_ids)
        self._mark(new, phase="copying")
        copy = new / "data"
        with WriteBack(new) as disk:
            self._copy(copy, disk)
            self.progress.phase("sync")
            self._configure(copy)
        self._mark(new, phase="complete", inode=copy.stat().st_ino)
        if cluster.running:
            self._stop()
        self._install(copy)
        shutil.rmtree(new)
        sync_directory(new.parent)
        self._start()

    def _check_size(self, answer: Answer) -> None:
        parent = self.cluster.data_directory.parent
        if answer.tablespaces:
            raise PostgresError(
                f"the primary has tablespaces outside its data directory ({', '.join(answer.tablespaces)}): only the data "
                "directory is copied; move the tables into it first"
            )
        free = shutil.disk_usage(parent).free
        if free < answer.size:
            raise PostgresError(
                f"the primary's databases take {answer.size >> 20} MiB, {parent} has {free >> 20} MiB free: make room "
                f"(kept there by earlier runs: {', '.join(map(str, self.cluster.leftovers())) or 'nothing'})"
            )

    def _mark(self, new: Path, **facts: Any) -> None:
        write_file(new / MARKER, json.dumps(facts) + "\n", self.cluster.owner_ids)
        sync_directory(new.parent)

    def _copy(self, target: Path, disk: WriteBack) -> None:
        argv = self.cluster.as_owner(
            "pg_basebackup", f"--pgdata={target}", f"--dbname={self.primary.conninfo}", f"--slot={self.primary.slot}",
            "--format=plain", "--wal-method=stream", "--checkpoint=fast", "--progress", "--no-sync", "--no-manifest",
            "--no-password",
        )  # fmt: skip
        if self.wanted.compression != "none":
            argv.append(f"--compress=server-{self.wanted.compression}")
        if self.wanted.max_rate:
            argv.append(f"--max-rate={self.wanted.max_rate}")
        self.progress.phase("copy", f"from {self.primary.parameters.get('host')} to {target}")
        rc, _out, err = self._run(argv, disk, stoppable=True)
        if rc != 0:
            raise PostgresError(f"pg_basebackup failed ({rc}): {tail(err, 6)}\nlook further: tail the primary's log; run this again")

    def _run(self, argv: list[str], disk: WriteBack, *, stoppable: bool = False) -> tuple[int, str, str]:
        """A long-running program: its progress is told, and the lock is its own as well, should we die before it."""

        def on_line(line: str) -> None:
            if stoppable and self._cancelled():
                raise Cancelled("called off while it was copying")
            progress = parse_progress(line)
            if progress:
                self.progress.bytes(*progress)
                disk.reached(progress[0])

        self._outcome.commands.append(shlex.join(argv))
        done = self.cluster.run(argv, timeout=self._left(), on_line=on_line, keep=[] if self._lock is None else [self._lock])
        self._outcome.bytes += self.progress.bytes_done
        return done

    def _install(self, copy: Path) -> None:
        """Put the copy in the place of the data directory, in one step where the file system can do that."""
        data = self.cluster.data_directory
        self.progress.phase("install")
        self._stopped_by_us = False
        if not data.exists() or not any(data.iterdir()):
            os.rename(copy, data)
        elif exchange(copy, data):
            sync_directory(copy.parent)
            sync_directory(data.parent)
            self._move_aside(copy)
        else:
            self._move_aside(data)
            os.rename(copy, data)
        sync_directory(copy.parent)
        sync_directory(data.parent)

    # Rewind

    def _rewind(self, plan: Plan, answer: Answer) -> None:
        """Take the local data back to where the histories part, and on to the primary's; then start it.

        :class:`CopyNeeded` if pg_rewind failed: the directory is moved aside then, as nobody knows what it holds.
        """
        local, point = plan.local, plan.decision.fork if plan.decision else None
        if local is None or point is None:
            raise AssertionError("only a local cluster with a fork can be rewound")
        cluster, data = self.cluster, self.cluster.data_directory
        recover, work = cluster.sibling("recover"), cluster.sibling("rewind")
        self._reserve(answer)
        self.progress.phase("quarantine", f"the local WAL after {lsn_text(point.position)}")
        self._outcome.quarantine = str(self.quarantine(self, local, point))
        self._outcome.changed = True
        self._await_checkpoint(answer)
        os.rename(data, recover)
        sync_directory(data.parent)
        was_standby = (recover / "standby.signal").exists()
        try:
            self._recover(recover, local)
        except BaseException:
            if was_standby:
                write_file(recover / "standby.signal", "", cluster.owner_ids)
            os.rename(recover, data)
            sync_directory(data.parent)
            raise
        os.rename(recover, work)
        sync_directory(work.parent)
        self._stopped_by_us = False
        self.progress.phase("rewind")
        argv = cluster.as_owner(
            "pg_rewind", f"--target-pgdata={work}", f"--source-server={self.primary.sql_conninfo}", "--progress", "--no-sync",
            "--no-ensure-shutdown",
        )  # fmt: skip
        with WriteBack(work.parent) as disk:
            rc, out, err = self._run(argv, disk)
            if rc != 0 or "no rewind required" in out + err:
                self._move_aside(work)
                raise CopyNeeded(f"pg_rewind failed ({rc}): {tail(err or out, 4)}")
            self._configure(work)
        os.rename(work, data)
        sync_directory(work.parent)
        self._start()

    def _recover(self, work: Path, local: Local) -> None:
        """pg_rewind wants a cluster that was shut down; its own way to it does not know Debian's configuration."""
        if local.control.stopped_cleanly:
            return
        self.progress.phase("recover")
        for name in ("standby.signal", "recovery.signal"):
            (work / name).unlink(missing_ok=True)
        arguments = ["--single", "-F", "-D", str(self.cluster.config_directory), "-c", f"data_directory={work}", "template1"]
        self._outcome.commands.append(shlex.join(["postgres", *arguments]))
        self.cluster.program("postgres", *arguments, input="", timeout=self._left())
        if not self.cluster.control(work).stopped_cleanly:
            raise PostgresError(f"crash recovery of {work} did not end in a shutdown\n{self.diagnosis()}")

    def _await_checkpoint(self, answer: Answer) -> None:
        """pg_rewind takes the primary's timeline from its control file, which a promotion changes only at the next checkpoint."""
        timeline = answer.source.timeline
        if answer.control_timeline == timeline:
            return
        self.progress.phase("checkpoint", "the primary was promoted and has made no checkpoint since")
        if answer.may_checkpoint:
            self.primary.checkpoint()
        if not wait_until(lambda: self.primary.control_timeline() == timeline, self._left(), 0.25):
            raise PostgresError("the primary made no checkpoint after its promotion: run CHECKPOINT there")

    # Waiting

    def _wait(self) -> None:
        """Until it streams, the primary sees it do so, and it has all that the primary had when that began."""
        self.progress.phase("catch up")
        goal: int | None = None
        place: tuple[str, str] | None = None
        moved = looked = time.monotonic()
        trouble = ""
        while True:
            here, now = self.cluster.position(), time.monotonic()
            try:
                # With another slot set, the receiver of before goes on for a moment.
                if here and is_streaming(here) and self._receives_from_slot(here):
                    seen, theirs = self.primary.standby(self.wanted.application_name)
                    goal = goal or theirs
                    if seen and lsn(here["write"]) >= goal:
                        lag = max(0, theirs - lsn(here["replay"]))
                        self._outcome.position = summary(here) | {"lag_bytes": lag}
                        self.progress.phase("done", f"streaming, {lag} bytes behind")
                        return
                elif now > looked + GAP_INTERVAL:
                    looked = now
                    self._check_gap(here)
            except CopyNeeded:
                raise
            except PostgresError as error:
                # Such as a primary that is being restarted: it may come back within the time.
                trouble = f"{error}\n"
            if not self.cluster.running:
                raise self._not_running("has stopped while it was to become a standby")
            if here is None or (here["write"], here["replay"]) != place:
                place, moved = (here["write"], here["replay"]) if here else None, now
            elif now > moved + STALL:
                raise PostgresError(f"it does not stream, and nothing has moved for {STALL:.0f} s\n{trouble}{self.diagnosis()}")
            self._left(trouble=trouble)
            time.sleep(POLL)

    def _check_gap(self, here: Mapping[str, Any] | None) -> None:
        """:class:`CopyNeeded` if the primary no longer has the WAL that follows the last local record."""
        control = self.cluster.control()
        timeline, start = control.timeline, control.redo
        if here and here["replay"]:
            timeline, start = here["timeline"], lsn(here["replay"])
        needed = self.cluster.wal_end(timeline, start, control.segment_size)
        answer = self.primary.ask()
        if needed <= answer.source.end and not self.primary.has_wal(segment_files(answer.source.history, needed, control.segment_size)):
            raise CopyNeeded(f"the primary no longer has the WAL from {lsn_text(needed)} on, which comes next here")

    def diagnosis(self) -> str:
        """What a person needs to look further: control data, the end of the server's log, commands."""
        lines = []
        try:
            control = self.cluster.control()
            lines.append(f"control data: {control.state}, timeline {control.last_timeline}, redo from {lsn_text(control.redo)}")
        except PostgresError as error:
            lines.append(f"control data: {error}")
        try:
            text = self.service.log_file.read_text(encoding="utf-8", errors="replace")[-20000:]
            lines.append(f"end of {self.service.log_file}:\n{tail(text)}")
        except OSError as error:
            lines.append(f"no log: {self.service.log_file}: {error.strerror}")
        lines.append(f"look further: {self.service.explain}")
        return "\n".join(lines)


def keep_diverged_wal(replica: Replica, local: Local, point: Fork) -> Path:
    """Copy the WAL from the fork to the end, the histories and the control file, with a report of what is in it.

    ``report.json``: ``system_identifier``, ``timelines``, ``from``, ``to`` (LSN), ``bytes``, ``spans`` (each begin, end,
    timeline), ``transactions`` (how many were committed), ``files`` (of pg_wal), ``source`` (address of the primary).
    """
    cluster = replica.cluster
    size = local.control.segment_size
    end = local.end or point.position
    kept = [span for span in local.history if span.timeline >= point.timeline]
    spans = [(max(span.begin, point.position), min(span.end or end, end), span.timeline) for span in kept]
    target = fresh_name(cluster, "diverged.")
    work = target.with_name(f"{target.name}.tmp")
    with WriteBack(target.parent):
        work.mkdir(mode=0o700)
        histories = [f"{span.timeline:08X}.history" for span in local.history]
        segments = [
            segment_file(timeline, position, size)
            for begin, stop, timeline in spans
            for position in range(begin // size * size, stop + 1, size)
        ]
        kept_files = [name for name in histories + segments if cluster.wal_file(name).is_file()]
        for name in kept_files:
            shutil.copyfile(cluster.wal_file(name), work / name)
        shutil.copyfile(cluster.data_directory / "global" / "pg_control", work / "pg_control")
        report = {
            "system_identifier": local.control.system_identifier,
            "timelines": [span.timeline for span in kept],
            "from": lsn_text(point.position),
            "to": lsn_text(end),
            "bytes": end - point.position,
            "spans": [(lsn_text(begin), lsn_text(stop), timeline) for begin, stop, timeline in spans],
            "transactions": sum(cluster.commits(timeline, begin, stop) for begin, stop, timeline in spans),
            "files": kept_files,
            "source": replica.primary.parameters.get("host"),
        }
        write_file(work / "report.json", json.dumps(report, indent=2) + "\n", cluster.owner_ids)
        for path in (work, *work.iterdir()):
            os.chown(path, *cluster.owner_ids)
    os.rename(work, target)
    sync_directory(target.parent)
    return target


def fresh_name(cluster: Cluster, prefix: str = "") -> Path:
    """A sibling of the data directory that does not exist, named by the time (UTC)."""
    stamp = prefix + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    names = (stamp if number == 1 else f"{stamp}-{number}" for number in itertools.count(1))
    return next(path for path in map(cluster.sibling, names) if not path.exists())


# Files --------------------------------------------------------------------------------------------------------


def lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def processes_with(path: Path) -> list[int]:
    """The processes that have the file open."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            # It may end while we look.
            with suppress(OSError):
                if any(os.readlink(link) == str(path) for link in (process / "fd").iterdir()):
                    found.append(int(process.name))
    return found


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_name(name: str) -> str:
    return f".{name}.pg_replica"


def write_file(path: Path, text: str, owner: tuple[int, int], mode: int = 0o600) -> None:
    """Temporary file, fsync, rename, fsync of the directory."""
    temporary = path.with_name(temporary_name(path.name))
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        if os.geteuid() == 0:
            os.fchown(descriptor, *owner)
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    sync_directory(path.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class WriteBack:
    """What is written to the file system of ``directory`` inside the block is on disk at its end; OSError if not.

    With :meth:`reached` the disk is set to work meanwhile, once for each SYNC_BYTES: all at
    the end would take the more time the slower the disk is, and all the time slows the
    writer. One open descriptor serves from the beginning, as the kernel tells each of them
    of an error once.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._synced = 0
        self._thread: threading.Thread | None = None
        self._errors: list[OSError] = []

    def __enter__(self) -> WriteBack:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if self._thread:
                self._thread.join()
            if error is None:
                self._sync()
                if self._errors:
                    raise self._errors[0]
        finally:
            os.close(self._descriptor)

    def reached(self, done: int) -> None:
        """So many bytes have been written by now."""
        if done - self._synced >= SYNC_BYTES and not (self._thread and self._thread.is_alive()):
            self._synced = done
            self._thread = threading.Thread(target=self._sync, daemon=True)
            self._thread.start()

    def _sync(self) -> None:
        try:
            sync_file_system(self._descriptor)
        except OSError as error:
            self._errors.append(error)
