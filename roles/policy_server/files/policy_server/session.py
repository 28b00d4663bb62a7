# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""PostgreSQL from within the loop: a few connections that are kept, each question with a deadline, nothing that blocks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import psycopg2
from psycopg2 import extensions

from .database import DATABASE
from .settings import Settings

CONNECTIONS = 8
SECONDS = 5.0
# A statement whose client has given up must not go on for ever; a commit that waits for the other server cannot be ended like this.
OPTIONS = f"-c statement_timeout={SECONDS:.0f}s"


class Unavailable(Exception):
    """PostgreSQL has not done it, or nobody knows whether it has; the text says why."""


class Session:
    """One connection. Whatever goes wrong on it is the end of it."""

    def __init__(self, settings: Settings) -> None:
        self._connection = psycopg2.connect(
            host=settings.sockets,
            port=settings.postgresql_port,
            user=settings.account,
            dbname=DATABASE,
            application_name="policy_server",
            options=OPTIONS,
            async_=True,
        )

    async def ready(self) -> None:
        """Wait until the connection stands, or what was asked is answered."""
        loop = asyncio.get_running_loop()
        while (state := self._connection.poll()) != extensions.POLL_OK:
            descriptor = self._connection.fileno()
            ready = asyncio.Event()
            watch, forget = (
                (loop.add_reader, loop.remove_reader) if state == extensions.POLL_READ else (loop.add_writer, loop.remove_writer)
            )
            watch(descriptor, ready.set)
            try:
                await ready.wait()
            finally:
                forget(descriptor)

    async def ask(self, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        cursor = self._connection.cursor()
        cursor.execute(statement, parameters)
        await self.ready()
        return cursor.fetchall() if cursor.description else []

    @property
    def usable(self) -> bool:
        """Has nothing been said on it while nothing was asked? What a server that stops says then is its farewell."""
        try:
            self._connection.poll()
        except psycopg2.Error:
            return False
        return not self._connection.closed

    def close(self) -> None:
        with contextlib.suppress(psycopg2.Error):
            self._connection.close()


class Database:
    """Asks questions, on at most CONNECTIONS connections at a time. Each statement is a transaction of its own."""

    def __init__(self, connect: Callable[[], Session], seconds: float = SECONDS) -> None:
        self._connect = connect
        self._seconds = seconds
        self._idle: list[Session] = []
        self._room = asyncio.Semaphore(CONNECTIONS)

    async def ask(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of the answer, once it is committed. Raises Unavailable, and psycopg2.Error for what the statement itself gets wrong."""
        try:
            async with asyncio.timeout(self._seconds), self._room:
                return await self._ask(statement, parameters)
        except TimeoutError:
            raise Unavailable(f"PostgreSQL has not answered within {self._seconds:g} s; whether it does later is not known") from None
        except psycopg2.Error as error:
            raise Unavailable(f"PostgreSQL: {' '.join(str(error).split()) or type(error).__name__}") from error

    async def _ask(self, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        # A server that was restarted may have ended a connection that was kept. Each of the statements may be made twice.
        if (kept := self._kept()) is not None:
            with contextlib.suppress(psycopg2.OperationalError, psycopg2.InterfaceError):
                return await self._ask_on(kept, statement, parameters)
        return await self._ask_on(self._connect(), statement, parameters)

    async def _ask_on(self, session: Session, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            await session.ready()
            rows = await session.ask(statement, parameters)
        except BaseException:
            session.close()
            raise
        self._idle.append(session)
        return rows

    def _kept(self) -> Session | None:
        while self._idle:
            session = self._idle.pop()
            if session.usable:
                return session
            session.close()
        return None

    def close(self) -> None:
        for session in self._idle:
            session.close()
        self._idle.clear()
