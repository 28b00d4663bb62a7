# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The way to PostgreSQL for the commands: as the application's account, through the local socket, without a password."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg2

from .settings import Settings

DATABASE = "policy_server"
# Nobody waits for ever: not to be let in, not for an answer, not for somebody else's lock.
CONNECT_SECONDS = 10
OPTIONS = "-c statement_timeout=60000 -c lock_timeout=30000"


class DatabaseError(Exception):
    """PostgreSQL does not do what is needed; the text says what and why."""


class Standby(DatabaseError):
    """The databases here are a standby's, so this server is not the active one."""


@contextmanager
def effective_account(name: str) -> Iterator[None]:
    """Be another account for a moment, which takes root. PostgreSQL takes whoever connects for whom the kernel says it is."""
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise DatabaseError(f"there is no account {name}: run the playbook swg.ha.enable_ha") from None
    mine = os.geteuid()
    if mine == account.pw_uid:
        yield
        return
    try:
        os.seteuid(account.pw_uid)
    except PermissionError:
        raise DatabaseError(f"this must be run as root or as {name}") from None
    try:
        yield
    finally:
        os.seteuid(mine)


@contextmanager
def connection(settings: Settings, database: str = DATABASE, account: str | None = None, autocommit: bool = False) -> Iterator[Any]:
    """A cursor, in one transaction that ends with the block: committed, or rolled back for whatever was raised. Raises DatabaseError.

    autocommit: no transaction, for the statements that cannot be in one.
    """
    account = account or settings.account
    found = None
    try:
        with effective_account(account):
            found = psycopg2.connect(
                host=settings.sockets,
                port=settings.postgresql_port,
                user=account,
                dbname=database,
                application_name="policy_server",
                connect_timeout=CONNECT_SECONDS,
                options=OPTIONS,
            )
        found.autocommit = autocommit
        with nullcontext() if autocommit else found, found.cursor() as cursor:
            yield cursor
    except psycopg2.Error as error:
        raise DatabaseError(f"PostgreSQL, database {database}: {' '.join(str(error).split())}") from error
    finally:
        if found is not None:
            found.close()


def refuse_standby(cursor: Any) -> None:
    """Raises Standby where the databases take no writes."""
    cursor.execute("SELECT pg_is_in_recovery()")
    if cursor.fetchone()[0]:
        raise Standby("this server is not the active one: its databases are a standby's. Run this on the active server ('ha amIactive')")
