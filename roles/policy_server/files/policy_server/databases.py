# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Make the databases, and bring their schemas up to date. On the server whose PostgreSQL takes writes: the other one follows.

A schema has a version, the number of the migrations that it has seen. A migration that was shipped is never changed: a new one follows it.
"""

from __future__ import annotations

from typing import Any

from psycopg2 import sql

from . import command
from .database import DATABASE, connection, refuse_standby
from .settings import Settings

MIGRATIONS: dict[str, tuple[str, ...]] = {
    DATABASE: (
        """
        CREATE TABLE device (
          key integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
          -- It moves from the device that was active to the one that is: what belongs to a device goes by its key.
          id text NOT NULL UNIQUE,
          active boolean NOT NULL DEFAULT false,
          since timestamptz NOT NULL DEFAULT now()
        );
        CREATE UNIQUE INDEX device_one_active ON device (active) WHERE active;
        INSERT INTO device (id) VALUES ('global');
        CREATE TABLE configuration (
          device integer NOT NULL REFERENCES device,
          name text NOT NULL,
          content bytea NOT NULL,
          version integer NOT NULL DEFAULT 1,
          changed timestamptz NOT NULL DEFAULT now(),
          PRIMARY KEY (device, name)
        );
        CREATE TABLE health (single boolean PRIMARY KEY DEFAULT true CHECK (single), asked timestamptz NOT NULL);
        """,
    ),
    # For what the product around it keeps: its logs, its reports, its own system log.
    "logs": (),
    "reports": (),
    "system_logs": (),
}


def make_account(cursor: Any, settings: Settings) -> list[str]:
    """The role that the account logs in as. It needs no password, so it has none."""
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [settings.account])
    if cursor.fetchone():
        return []
    cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(settings.account)))
    return [f"role {settings.account}"]


def missing(cursor: Any) -> list[str]:
    cursor.execute("SELECT datname FROM pg_database")
    there = {name for (name,) in cursor.fetchall()}
    return [name for name in MIGRATIONS if name not in there]


def make_database(cursor: Any, name: str, settings: Settings) -> None:
    """Without a transaction, as PostgreSQL wants it: one that was cut off is not there."""
    # From template0: what an administrator has put into the other one is not ours.
    cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(sql.Identifier(name), sql.Identifier(settings.account)))


def close_to_others(cursor: Any, name: str) -> list[str]:
    """Let nobody in who has no business there; the owner of a database always may."""
    cursor.execute("SELECT has_database_privilege('public', %s, 'CONNECT')", [name])
    if not cursor.fetchone()[0]:
        return []
    cursor.execute(sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
    return [f"database {name}, for its owner alone"]


def migrate(cursor: Any, name: str) -> list[str]:
    """Bring a schema up to date: all of it, or nothing. Raises DatabaseError."""
    migrations = MIGRATIONS[name]
    cursor.execute("SELECT to_regclass('schema_version') IS NOT NULL")
    if not cursor.fetchone()[0]:
        cursor.execute("CREATE TABLE schema_version (version integer NOT NULL); INSERT INTO schema_version VALUES (0)")
    cursor.execute("LOCK TABLE schema_version IN ACCESS EXCLUSIVE MODE")
    cursor.execute("SELECT version FROM schema_version")
    version = cursor.fetchone()[0]
    for migration in migrations[version:]:
        cursor.execute(migration)
    # A schema of a newer version is left alone: a server with the old programs must not undo what the new ones did.
    if version >= len(migrations):
        return []
    cursor.execute("UPDATE schema_version SET version = %s", [len(migrations)])
    return [f"schema {name}, version {len(migrations)}"]


def work(settings: Settings, administrator: str = "postgres") -> list[str]:
    """All of it; what was done, in words. Raises DatabaseError."""
    with connection(settings, "postgres", administrator) as cursor:
        refuse_standby(cursor)
        done = make_account(cursor, settings)
        lacking = missing(cursor)
    for name in lacking:
        with connection(settings, "postgres", administrator, autocommit=True) as cursor:
            make_database(cursor, name, settings)
            done.append(f"database {name}")
    for name in MIGRATIONS:
        with connection(settings, "postgres", administrator) as cursor:
            done += close_to_others(cursor, name)
        with connection(settings, name) as cursor:
            done += migrate(cursor, name)
    return done


def main() -> int:
    return command.run("policy_server_databases", lambda settings: "\n".join(work(settings)), "Make the databases of the policy server.")
