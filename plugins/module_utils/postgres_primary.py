# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The primary as its future standby sees it: asked over libpq as the replication role, with a passfile.

What the role needs there: ``LOGIN REPLICATION``; EXECUTE on
``pg_read_binary_file(text, bigint, bigint, boolean)`` and what else pg_rewind needs; lines in
pg_hba.conf for the databases ``replication`` and ``postgres``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .postgres import History, PostgresError, Source, conninfo, lsn, parse_history, tail
from .postgres_cluster import Cluster, psql_arguments

# A leg of the network that went dead is noticed within about 6 s, and libpq then tries the next address.
CONNECTION_DEFAULTS: dict[str, str] = {
    "connect_timeout": "3",
    "keepalives_idle": "3",
    "keepalives_interval": "1",
    "keepalives_count": "3",
    "tcp_user_timeout": "6000",
    "gssencmode": "disable",
}

PRIMARY_SQL = """
SELECT json_build_object(
  'version', current_setting('server_version_num')::int / 10000,
  'started', json_build_array(pg_postmaster_start_time() AT TIME ZONE 'UTC', pg_conf_load_time() AT TIME ZONE 'UTC'),
  'in_recovery', pg_is_in_recovery(),
  'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),
  'control_timeline', (SELECT timeline_id FROM pg_control_checkpoint()),
  'timeline', CASE WHEN NOT pg_is_in_recovery() THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
  'lsn', CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() END,
  'size', (SELECT sum(CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) END) FROM pg_database),
  'tablespaces', (SELECT coalesce(json_agg(pg_tablespace_location(oid)), '[]') FROM pg_tablespace WHERE spcname NOT LIKE 'pg\\_%'),
  'may_checkpoint', coalesce((SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = 'pg_checkpoint'), false),
  'slot', (SELECT json_build_object('type', slot_type, 'wal_status', wal_status, 'restart_lsn', restart_lsn,
      'active_pid', active_pid, 'user', (SELECT application_name FROM pg_stat_replication WHERE pid = active_pid))
    FROM pg_replication_slots WHERE slot_name = :'slot'));
"""

# pg_stat_replication keeps state and positions from a role that is not in pg_read_all_stats; the rest of its own row it sees.
STANDBY_SQL = """
SELECT json_build_object('lsn', pg_current_wal_flush_lsn(), 'seen', EXISTS (
  SELECT FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid
  WHERE application_name = :'application_name' AND slot_name = :'slot'));
"""


READ_WAL = "GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean)"


class PrimaryUnreachable(PostgresError):
    """No connection to the primary: no network, no server, no such role, a wrong password or certificate."""


@dataclass(frozen=True)
class Slot:
    """The physical slot on the primary; ``user`` is the application name of what streams from it."""

    wal_status: str | None
    reserved: bool
    active_pid: int | None
    user: str | None

    @property
    def usable(self) -> bool:
        return self.reserved and self.wal_status != "lost"


@dataclass(frozen=True)
class Answer:
    """What the primary says of itself. ``control_timeline`` lags behind until the checkpoint after a promotion.

    ``started`` is when the server started and when it read its settings, to the microsecond: which server it is. Two machines that
    boot together do start theirs in the same microsecond now and then.
    """

    started: list[str]
    source: Source
    control_timeline: int
    size: int
    tablespaces: tuple[str, ...]
    may_checkpoint: bool
    slot: Slot | None


class Primary:
    """The server to follow.

    :arg cluster: the local cluster, whose psql, owner and runner are used.
    :arg parameters: libpq parameters (hosts joined by commas); no password, but a passfile.
    """

    def __init__(self, cluster: Cluster, parameters: Mapping[str, object], slot: str) -> None:
        self._cluster = cluster
        self.parameters = {str(name): str(value) for name, value in parameters.items() if value not in (None, "")}
        self.slot = slot

    @property
    def conninfo(self) -> str:
        """For primary_conninfo, pg_basebackup and pg_receivewal."""
        return conninfo(self.parameters)

    @property
    def sql_conninfo(self) -> str:
        """For ordinary queries and pg_rewind."""
        return conninfo({**self.parameters, "dbname": "postgres"})

    def sql(self, statement: str, **variables: str) -> Any:
        """The JSON answer of one statement, in which ``:'name'`` is the quoted variable ``name``."""
        out = self._psql(self.sql_conninfo, statement, variables)
        return json.loads(out) if out.strip() else None

    def _psql(self, target: str, statement: str, variables: Mapping[str, str]) -> str:
        rc, out, err = self._cluster.run(self._cluster.as_owner("psql", *psql_arguments(target, variables)), statement)
        if rc == 2:
            command = f"runuser -u {self._cluster.owner} -- psql {shlex.quote(target)}"
            raise PrimaryUnreachable(f"the primary cannot be reached: {tail(err, 6)}\nlook further: {command}")
        if rc != 0:
            raise PostgresError(f"the primary ({self.parameters.get('host')}) refused what was asked of it: {tail(err, 4)}")
        return out

    def ask(self) -> Answer:
        """:class:`PostgresError` if it cannot be reached, is no primary, or is of another major version."""
        said = self.sql(PRIMARY_SQL, slot=self.slot)
        where = self.parameters.get("host")
        if said["in_recovery"]:
            raise PostgresError(f"{where} is itself a standby: name the primary in primary_hosts, or promote it first")
        if str(said["version"]) != self._cluster.version:
            raise PostgresError(
                f"the primary {where} runs PostgreSQL {said['version']}, here it is {self._cluster.version}: both must be the same"
            )
        slot = said["slot"]
        if slot and slot["type"] != "physical":
            raise PostgresError(f"replication slot {self.slot!r} on {where} is a {slot['type']} one: choose another slot name")
        timeline = int(said["timeline"])
        return Answer(
            started=said["started"],
            source=Source(said["system_identifier"], self._history(timeline), lsn(said["lsn"])),
            control_timeline=int(said["control_timeline"]),
            size=int(said["size"] or 0),
            tablespaces=tuple(said["tablespaces"]),
            may_checkpoint=bool(said["may_checkpoint"]),
            slot=slot and Slot(slot["wal_status"], bool(slot["restart_lsn"]), slot["active_pid"], slot["user"]),
        )

    def _history(self, timeline: int) -> History:
        if timeline == 1:
            return parse_history("", 1)
        found = self._read(f"SELECT to_json(encode(pg_read_binary_file('pg_wal/{timeline:08X}.history', 0, 1048576, true), 'escape'));")
        if found is None:
            raise PostgresError(
                f"the primary has no history of its timeline {timeline} in pg_wal: run CHECKPOINT there, or look at its log"
            )
        return parse_history(found, timeline)

    def wal_digest(self, names: Sequence[str], length: int) -> str | None:
        """SHA-256 of the first ``length`` bytes of the first of the segments that is there in full; None if none is."""
        # Names are hexadecimal by construction (segment_file).
        rows = ", ".join(f"({number}, 'pg_wal/{name}')" for number, name in enumerate(names))
        statement = f"""
            SELECT to_json(encode(sha256(content), 'hex')) FROM (VALUES {rows}) AS segment(number, name),
            LATERAL pg_read_binary_file(name, 0, {length}, true) AS content
            WHERE octet_length(content) = {length} ORDER BY number LIMIT 1;"""
        return self._read(statement)

    def _read(self, statement: str) -> str | None:
        try:
            found: str | None = self.sql(statement)
        except PrimaryUnreachable:
            raise
        except PostgresError as error:
            role = self.parameters.get("user")
            raise PostgresError(f"{error}\n{role} needs there: {READ_WAL} TO {role}") from None
        return found

    def has_wal(self, names: Sequence[str]) -> bool:
        return self.wal_digest(names, 8) is not None

    def standby(self, application_name: str) -> tuple[bool, int]:
        """Whether the standby streams from its slot, as the primary sees it, and how far the primary's WAL goes now."""
        found = self.sql(STANDBY_SQL, application_name=application_name, slot=self.slot)
        return bool(found["seen"]), lsn(found["lsn"])

    def control_timeline(self) -> int:
        return int(self.sql("SELECT to_json(timeline_id) FROM pg_control_checkpoint();"))

    def checkpoint(self) -> None:
        self.sql("CHECKPOINT;")

    def create_slot(self) -> None:
        self.sql("SELECT to_json(lsn) FROM pg_create_physical_replication_slot(:'slot', true);", slot=self.slot)

    def drop_slot(self) -> None:
        self.sql("SELECT to_json(count(pg_drop_replication_slot(:'slot')));", slot=self.slot)

    def terminate(self, pid: int) -> None:
        """End a walsender of the same role, such as that of a standby which lost its power."""
        self.sql(f"SELECT to_json(pg_terminate_backend({int(pid)}, 5000));")
