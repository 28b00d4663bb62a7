# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Connections to a PostgreSQL that may be frozen: each question ends at its deadline, whatever the server does."""

from __future__ import annotations

import ctypes
import os
import platform
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2
from psycopg2 import extensions

from .shared.postgres import PostgresError, conninfo

# What an operator may have set for everybody must not end our questions, and none of ours waits for the peer or fills the log.
OPTIONS = " ".join(
    f"-c {option}"
    for option in (
        "statement_timeout=0", "lock_timeout=0", "idle_session_timeout=0", "synchronous_commit=local", "log_statement=none",
        "log_min_duration_statement=-1", "log_duration=off",
    )
)  # fmt: skip
# SQLSTATE of a server that is starting, recovering from a crash, or stopping.
CANNOT_CONNECT_NOW = "57P03"
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_SETRESUID = {"x86_64": 117, "aarch64": 147, "riscv64": 147, "ppc64le": 164, "s390x": 208, "i686": 208, "armv7l": 208}
_libc = ctypes.CDLL(None, use_errno=True)


class NoAnswer(PostgresError):
    """The server has said nothing by the deadline."""


class Refused(PostgresError):
    """The server, or the system in its place, has said no."""


@contextmanager
def effective_user(uid: int) -> Iterator[None]:
    """Let this thread be another account: os.seteuid would change every thread of the process."""
    mine = os.geteuid()
    if mine != uid:
        _set_effective_user(uid)
    try:
        yield
    finally:
        if mine != uid:
            _set_effective_user(mine)


def _set_effective_user(uid: int) -> None:
    number = _SETRESUID.get(platform.machine())
    if number is None:
        raise PostgresError(f"the processor type {platform.machine()} is not known here: expected one of {', '.join(_SETRESUID)}")
    if _libc.syscall(ctypes.c_long(number), ctypes.c_long(-1), ctypes.c_long(uid), ctypes.c_long(-1)) != 0:
        code = ctypes.get_errno()
        raise PostgresError(f"user id {uid} cannot be taken on: {os.strerror(code)}; ha_manager must run as root")


class Session:
    """A connection by libpq's ``parameters``; ``host`` is one only.

    :arg until: time.monotonic() by which it must stand. Raises :class:`NoAnswer` or :class:`Refused`.
    """

    def __init__(self, parameters: Mapping[str, object], until: float) -> None:
        try:
            self._connection = psycopg2.connect(conninfo(parameters), async_=True)
            self._wait(until)
        except psycopg2.Error as error:
            raise Refused(f"PostgreSQL at {parameters.get('host')}, port {parameters.get('port')}: {_line(error)}") from None

    @classmethod
    def local(cls, sockets: str, port: str, owner: str, uid: int, until: float, database: str = "postgres") -> Session:
        """Through the unix socket as the cluster's owner, whom PostgreSQL knows by its user id (peer)."""
        parameters = {"host": sockets, "port": port, "user": owner, "dbname": database, "application_name": "ha_manager"}
        # The kernel notes down who calls connect().
        with effective_user(uid):
            return cls(parameters | {"options": OPTIONS}, until)

    def ask(self, statement: str, until: float) -> Any:
        """The first column of the first row, None where there is no row; after an error it is closed."""
        try:
            cursor = self._connection.cursor()
            cursor.execute(statement)
            self._wait(until)
            row = cursor.fetchone() if cursor.description else None
        except psycopg2.Error as error:
            self.close()
            raise Refused(f"PostgreSQL: {_line(error)}") from None
        except NoAnswer:
            self.close()
            raise
        return row[0] if row else None

    def close(self) -> None:
        with suppress(psycopg2.Error):
            self._connection.close()

    def _wait(self, until: float) -> None:
        waits_for = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}
        began = time.monotonic()
        while (state := self._connection.poll()) != extensions.POLL_OK:
            left = until - time.monotonic()
            if left <= 0:
                raise NoAnswer(f"PostgreSQL has not answered for {time.monotonic() - began:.1f} s")
            poll = select.poll()
            poll.register(self._connection.fileno(), waits_for[state])
            poll.poll(left * 1000)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def refusal(sockets: str, port: str, owner: str, until: float) -> str | None:
    """The SQLSTATE that the server refuses a new connection with, in whatever language; None when it does not.

    Raises :class:`NoAnswer`, and OSError where nobody listens.
    """
    body = struct.pack("!i", 196608) + f"user\0{owner}\0database\0postgres\0\0".encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(max(until - time.monotonic(), 0.001))
        try:
            connection.connect(f"{sockets}/.s.PGSQL.{port}")
            connection.sendall(struct.pack("!i", len(body) + 4) + body)
            message = connection.recv(4096)
        except TimeoutError:
            raise NoAnswer("PostgreSQL takes connections, but says nothing on them") from None
    if not message.startswith(b"E"):
        return None
    found = {chr(field[0]): field[1:].decode(errors="replace") for field in message[5:].split(b"\0") if field}
    return found.get("C")


def serves(address: str, port: int, deadline: float) -> bool:
    """Whether a PostgreSQL answers at the address within ``deadline`` seconds; that of a frozen one is silent, though its kernel accepts."""
    until = time.monotonic() + deadline
    try:
        with socket.create_connection((address, port), timeout=deadline) as connection:
            connection.settimeout(max(until - time.monotonic(), 0.001))
            connection.sendall(SSL_REQUEST)
            return connection.recv(1) in (b"S", b"N")
    except OSError:
        return False
