# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Keeps this server's PostgreSQL as its role wants it: alive and watched on the active, a streaming standby on the passive.

Nothing here decides about roles: what cannot be repaired is told as ``trouble``, and the decision goes by it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .events import Event, tell
from .postgres import Database, DatabaseTrouble, Followed, Postgres
from .role import ACTIVE, PASSIVE
from .route import cut, prefer
from .settings import Settings
from .shared.postgres import PostgresError

_log = logging.getLogger("swg_ha.keeper")

# How often PostgreSQL is looked at, in seconds: while it is as it should be, and while it is not.
CALM, BUSY = 2.0, 0.4
# While commits wait for the passive. An idle one answers every second: looks that are not as far apart meet an answer that is young, now
# and then, and tell how old the others are.
AT_STAKE = 0.7
CHECK_DEADLINE = 1.0
DISK_DEADLINE = 2.0
START_DEADLINE = 20.0
# With the other server ready, it is the quicker way back to service.
START_OR_LEAVE = 4.0
# To look at PostgreSQL takes that long only where the disk hangs.
LOOK_DEADLINE = 4.0
# What keeps a server that does not serve from serving is tried again after so many seconds: it may be over.
DOUBT = 15.0
# So many crashes within so many seconds are more than a restart can cure.
CRASHES, CRASH_WINDOW = 3, 60.0


@dataclass(frozen=True)
class Wanted:
    """What the manager wants of PostgreSQL. role: None while nothing is decided. peer_active: the other server serves; peer_ready: it could."""

    role: str | None
    peer_active: bool = False
    peer_heard: bool = False
    peer_ready: bool = False


class Keeper:
    """database: as it was seen last. trouble: (code, text) of what keeps it from serving. progress: what ``follow`` is doing."""

    def __init__(
        self,
        settings: Settings,
        postgres: Postgres,
        wanted: Callable[[], Wanted],
        changed: Callable[[], None],
        kept: Callable[[], Awaitable[list[dict[str, Any]]]],
    ) -> None:
        self.settings = settings
        self.postgres = postgres
        self.database = Database(state="stopped")
        self.trouble: tuple[str, str] | None = None
        self.progress: str | None = None
        self.following = False
        self.followed_error: str | None = None
        self.stream_seen: float | None = None
        self._wanted = wanted
        self._changed = changed
        self._kept = kept
        self._wake = asyncio.Event()
        self._busy = asyncio.Lock()
        self._cancel = threading.Event()
        self._tidying: asyncio.Task[None] | None = None
        self._crashes: deque[float] = deque(maxlen=CRASHES)
        self._bad_checks = 0
        self._starting_since: float | None = None
        self._not_streaming_since: float | None = None
        self._follow_after = 0.0
        self._pidfd: int | None = None
        self._observing: asyncio.Task[Database] | None = None
        self._trouble_since = 0.0
        self._checked = 0.0

    def wake(self) -> None:
        self._wake.set()

    @asynccontextmanager
    async def hands_off(self) -> AsyncIterator[None]:
        """While a change of role works with PostgreSQL, nothing else does. What ``follow`` was doing is cancelled."""
        self._cancel.set()
        async with self._busy:
            self._cancel.clear()
            self._starting_since = None
            self._unwatch()
            try:
                yield
            finally:
                self.wake()

    def give_up_following(self) -> None:
        """Whoever is followed is gone: what is whole here may have to serve, and a copy that is not will not become so."""
        self._cancel.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            if not self._busy.locked():
                async with self._busy:
                    try:
                        await self.look()
                        await self._care()
                    except Exception:
                        _log.exception("PostgreSQL could not be looked after")
            pause = BUSY if not self._calm() else AT_STAKE if self.database.synchronous else CALM
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    def _calm(self) -> bool:
        role, database = self._wanted().role, self.database
        if role == ACTIVE:
            return database.state == "primary" and database.streaming and not self.trouble
        return database.state == "standby" and database.streaming

    async def route(self, dead: frozenset[str], active: bool) -> None:
        """Take the replication off the links to these addresses of the other server. Beside all else: it cannot wait."""
        cluster = self.postgres.cluster
        self.postgres.dead_links = dead
        move = cut if active else prefer
        try:
            if await asyncio.to_thread(move, cluster, dead, CHECK_DEADLINE):
                _log.info("the replication is taken off the link to %s", ", ".join(sorted(dead)))
        except PostgresError as error:
            _log.warning("the replication stays on the link to %s: %s", ", ".join(sorted(dead)), error)
        self.wake()

    async def look(self) -> None:
        """See how PostgreSQL is."""
        before = self.database
        if self._observing is None:
            self._observing = asyncio.create_task(asyncio.to_thread(self.postgres.observe), name="look at PostgreSQL")
        await asyncio.wait({self._observing}, timeout=LOOK_DEADLINE)
        if not self._observing.done():
            self.database = Database("unresponsive", complete=before.complete)
            self._set_trouble("DISK_HANGS", f"{self.settings.postgresql.data_directory} could not be looked at for {LOOK_DEADLINE:g} s")
            self._changed()
            return
        observing, self._observing = self._observing, None
        try:
            self.database = observing.result()
        except (PostgresError, OSError) as error:
            _log.warning("%s", error)
            return
        now = asyncio.get_running_loop().time()
        if self.database.streaming:
            self.stream_seen = now - (self.database.heard or 0.0)
            self._not_streaming_since = None
        elif self._not_streaming_since is None:
            self._not_streaming_since = now
        self._watch()
        if replace(before, heard=None) != replace(self.database, heard=None):
            self._changed()

    async def _care(self) -> None:
        wanted = self._wanted()
        try:
            if wanted.role == ACTIVE:
                await self._care_for_primary()
            elif wanted.role == PASSIVE or not wanted.peer_heard:
                await self._reconsider()
                await self._care_for_standby(wanted)
        except (PostgresError, OSError) as error:
            self._set_trouble("DATABASE_FAILED", str(error))

    async def _care_for_primary(self) -> None:
        if self.database.state in ("stopped", "missing"):
            try:
                # Where the disk is why, starting again only costs the time in which the other server could serve.
                await asyncio.to_thread(self.postgres.probe_disk, DISK_DEADLINE)
            except DatabaseTrouble as trouble:
                self._set_trouble(trouble.code, str(trouble))
                return
            await self._restart("it was gone")
            return
        now = asyncio.get_running_loop().time()
        if now - self._checked < CALM and not self._bad_checks and self._starting_since is None:
            return
        self._checked = now
        try:
            await self._check()
        except DatabaseTrouble as trouble:
            if trouble.code.startswith("DISK"):
                self._set_trouble(trouble.code, str(trouble))
                return
            if trouble.code == "STARTING":
                # Killed, it would begin its recovery anew, and never end it. A server that is ready gets the role meanwhile.
                self._bad_checks = 0
                self._starting_since = now if self._starting_since is None else self._starting_since
                if now - self._starting_since > START_OR_LEAVE:
                    self._set_trouble(
                        "DATABASE_DOWN", "PostgreSQL recovers, and takes no connections before that ends: its log tells how far it is"
                    )
                return
            self._starting_since = None
            self._bad_checks += 1
            if self._bad_checks >= 2:
                self._bad_checks = 0
                await asyncio.to_thread(self.postgres.kill)
                await self._restart(f"it did not answer: {trouble}")
            return
        self._bad_checks = 0
        self._starting_since = None
        self._set_trouble(None)

    async def _check(self) -> None:
        """Raises DatabaseTrouble, the disk's first: one that hangs makes PostgreSQL hang as well, which no restart cures."""
        answer, disk = await asyncio.gather(
            asyncio.to_thread(self.postgres.check, CHECK_DEADLINE),
            asyncio.to_thread(self.postgres.probe_disk, DISK_DEADLINE),
            return_exceptions=True,
        )
        for error in (disk, answer):
            if error is not None:
                raise error

    async def _restart(self, why: str) -> None:
        loop = asyncio.get_running_loop()
        self._starting_since = None
        self._crashes.append(loop.time())
        if len(self._crashes) == CRASHES and self._crashes[-1] - self._crashes[0] < CRASH_WINDOW:
            self._set_trouble("DATABASE_CRASHES", f"PostgreSQL was gone {CRASHES} times within {CRASH_WINDOW:.0f} s")
            if self._follow_after > loop.time():
                return
        begun = loop.time()
        deadline = START_OR_LEAVE if self._wanted().peer_ready else START_DEADLINE
        try:
            await asyncio.to_thread(self.postgres.start, "primary", deadline)
        except PostgresError as error:
            self._set_trouble("DATABASE_DOWN", f"PostgreSQL does not start: {error}")
            self._follow_after = loop.time() + 5
            return
        if self.trouble and self.trouble[0] == "DATABASE_DOWN":
            self._set_trouble(None)
        tell(Event.DATABASE_RESTARTED, seconds=round(loop.time() - begun, 3), reason=why)
        await self.look()

    async def _reconsider(self) -> None:
        """Trouble that is over must not keep this server from serving, when it is the one to serve."""
        if self.trouble is None or asyncio.get_running_loop().time() - self._trouble_since < DOUBT:
            return
        if self.trouble[0].startswith("DISK"):
            try:
                await asyncio.to_thread(self.postgres.probe_disk, DISK_DEADLINE)
            except DatabaseTrouble as trouble:
                self._set_trouble(trouble.code, str(trouble))
                return
        self._set_trouble(None)

    async def _care_for_standby(self, wanted: Wanted) -> None:
        now = asyncio.get_running_loop().time()
        database = self.database
        standby = (Path(self.settings.postgresql.data_directory) / "standby.signal").exists()
        if not wanted.peer_active:
            # A standby may run whatever comes; a former primary waits until it is known whom to follow.
            if database.state == "stopped" and standby and database.complete and now >= self._follow_after:
                self._follow_after = now + 5
                await asyncio.to_thread(self.postgres.start, "standby", START_DEADLINE)
            return
        # One that was just started, or whose primary was, gets a moment to connect.
        connecting = (
            database.state == "standby" and standby and self._not_streaming_since is not None and now - self._not_streaming_since < 2.0
        )
        if (database.state == "standby" and database.streaming) or connecting or now < self._follow_after:
            if database.streaming:
                self._set_trouble(None)
            return
        await self._follow()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        settings = self.settings
        if self._tidying is not None and not self._tidying.done():
            # What it removes must not be what is put there now.
            return
        self.following = True
        self.progress = "begins"
        self._changed()
        tell(Event.REPLICATION_STARTED, active=settings.peer_node, passive=settings.node)
        begun = loop.time()

        def progress(text: str) -> None:
            self.progress = text
            loop.call_soon_threadsafe(self._changed)

        try:
            followed = await asyncio.to_thread(self.postgres.follow, progress, self._cancel)
        except (PostgresError, OSError) as error:
            self.followed_error = str(error)
            self._follow_after = loop.time() + min(5.0, settings.passive_interval)
            if not self._cancel.is_set():
                _log.warning("following %s failed: %s", settings.peer_node, error)
            self._cancel.clear()
        else:
            if followed.quarantine:
                # Whoever hears that the pair is redundant again hears of this too, unless the disk hangs.
                await asyncio.wait({asyncio.create_task(self._quarantined(), name="look at the quarantine")}, timeout=LOOK_DEADLINE)
            # Not where this task is cancelled: the thread goes on then, and has yet to see it.
            self._cancel.clear()
            self.followed_error = None
            self._set_trouble(None)
            tell(
                Event.REPLICATION_INITIALIZED,
                active=settings.peer_node,
                passive=settings.node,
                how=followed.what,
                seconds=round(loop.time() - begun, 3),
            )
            # Beside all else: it takes its time, and the data is whole already.
            self._tidying = asyncio.create_task(self._tidy(followed), name="tidy up after following")
        finally:
            self.following = False
            self.progress = None
            await self.look()
            self._changed()

    async def _tidy(self, followed: Followed) -> None:
        try:
            await asyncio.to_thread(self.postgres.prune)
        except (PostgresError, OSError) as error:
            _log.warning("what is kept of former data could not be tidied up: %s", error)
        if followed.quarantine:
            for kept in await self._quarantined():
                if kept["path"] == str(followed.quarantine):
                    tell(Event.QUARANTINED, path=kept["path"], peer=self.settings.peer_node, transactions=kept["transactions"])

    async def _quarantined(self) -> list[dict[str, Any]]:
        try:
            return await self._kept()
        except OSError as error:
            _log.warning("the quarantine cannot be looked at: %s", error)
            return []

    def _set_trouble(self, code: str | None, text: str = "") -> None:
        trouble = (code, text) if code else None
        self._trouble_since = asyncio.get_running_loop().time()
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble:
                _log.error("%s: %s", *trouble)
            self._changed()

    def _watch(self) -> None:
        """Be told at once when the postmaster ends."""
        if self._pidfd is not None or self._wanted().role != ACTIVE or self.database.state != "primary":
            return
        pid = self.postgres.postmaster()
        if pid is None:
            return
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            return
        asyncio.get_running_loop().add_reader(self._pidfd, self._postmaster_ended)

    def _postmaster_ended(self) -> None:
        self._unwatch()
        self.wake()

    def _unwatch(self) -> None:
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
