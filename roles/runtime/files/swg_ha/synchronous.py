# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Whether commits on the active server wait for the passive one, and what the record says of it.

A passive server that was told that it has everything may take over for as long as its patience lasts after it last heard the active one.
So commits go on alone only after that, or after it said that it knows better, and never before the record, on the disk, says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from . import record
from .keeper import Keeper
from .peer import PeerLink
from .role import LEASE_MARGIN, patience
from .senses import Senses
from .settings import Settings
from .shared.postgres import PostgresError, lsn

# The record gets so many seconds to be on the disk before commits may go on alone.
RECORD_AHEAD = 0.5
# Seconds in which PostgreSQL is asked whether commits wait, before it is asked anew.
SEEING = 0.5


@dataclass(frozen=True)
class Now:
    """What is known on an active server.

    wanted: the mode that is set. there: the passive server replicates, and its manager is heard. waits: commits wait for it. in_sync: the
    record says that it has everything. complete: it has all that was committed before commits began to wait for it. near: it lags by less
    than is allowed. left: seconds in which it may still take over as if it had everything. conceded: it cannot any more, by its own word or because
    its patience is over.
    """

    wanted: bool
    there: bool
    waits: bool
    in_sync: bool
    complete: bool
    near: bool
    left: float
    conceded: bool


@dataclass(frozen=True)
class Next:
    """What is to be. look_in: seconds until time alone changes that."""

    wait: bool
    in_sync: bool
    look_in: float | None = None


def decide(now: Now) -> Next:
    """The record is to say no more than what is true, and commits are to wait until it says so."""
    if not now.wanted:
        # Nothing is promised: the record tells how much may be missing.
        in_sync, wait = now.there and now.near, False
    elif now.there:
        in_sync, wait = (now.in_sync and now.waits) or now.complete, True
    elif now.left:
        in_sync = now.in_sync and now.left > RECORD_AHEAD
        return Next(now.waits, in_sync, now.left - RECORD_AHEAD if in_sync else now.left)
    else:
        in_sync, wait = False, now.waits and not now.conceded
    return Next(wait, in_sync)


class Synchronous:
    """Makes it so on the active server. ``follow`` is called whenever something may have changed, and awaits nothing."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        keeper: Keeper,
        senses: Senses,
        link: PeerLink,
        store: record.Store,
        *,
        tick: float,
        wake: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        complain: Callable[[str | None], None],
    ) -> None:
        self._settings = settings
        self._keeper, self._senses, self._link, self._store = keeper, senses, link, store
        self._tick, self._wake, self._spawn, self._complain = tick, wake, spawn, complain
        self._loop = asyncio.get_running_loop()
        self._alone_since: float | None = None
        # How far the WAL was when commits were seen to wait for the passive: it must have everything up to there.
        self._waits_from: str | None = None
        self._working: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, serving: bool, theirs: record.Record | None) -> None:
        """serving: this server is active, and its role is not about to change. theirs: the other one's record."""
        database, mine = self._keeper.database, self._store.record
        if not serving or database.state != "primary" or mine is None or mine.active != self._settings().node:
            self._alone_since = self._waits_from = None
            return
        if self._working is not None and not self._working.done():
            return
        there = database.streaming and self._senses.peer_present()
        if there:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = self._loop.time()
        if not database.synchronous:
            self._waits_from = None
        wanted = decide(
            Now(
                wanted=self._settings().synchronous,
                there=there,
                waits=database.synchronous,
                in_sync=mine.in_sync,
                complete=self._complete(),
                near=(database.lag or 0) <= self._settings().limits.max_lag,
                left=self._lease_left(),
                conceded=self._conceded(mine, theirs),
            )
        )
        if wanted.look_in is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(wanted.look_in, self._wake)
        if (wanted.in_sync, wanted.wait) != (mine.in_sync, database.synchronous):
            self._working = self._spawn(self._bring_about(mine, wanted), "synchronous mode")
        elif wanted.wait and there and not mine.in_sync and self._waits_from is None:
            self._working = self._spawn(self._see_that_they_wait(), "see whether commits wait")

    def _complete(self) -> bool:
        database = self._keeper.database
        if not database.synchronous or self._waits_from is None or database.lsn is None or database.lag is None:
            return False
        return lsn(database.lsn) - database.lag >= lsn(self._waits_from)

    def _lease(self) -> float:
        """Seconds since the passive was heard in which it may take over without more ado: its patience, and what it may have heard later."""
        return patience(self._settings().times.deadtime) + self._tick + LEASE_MARGIN

    def _lease_left(self) -> float:
        silent = self._senses.silent()
        if silent is None or self._alone_since is None:
            return 0.0
        return max(0.0, self._lease() - max(silent, self._loop.time() - self._alone_since))

    def _conceded(self, mine: record.Record, theirs: record.Record | None) -> bool:
        silent = self._senses.silent()
        if silent is None or silent >= self._lease():
            return True
        heard = theirs is not None and (theirs.counter, theirs.active, theirs.in_sync) == (mine.counter, mine.active, False)
        return heard and self._senses.peer_present()

    async def _bring_about(self, mine: record.Record, wanted: Next) -> None:
        try:
            if self._store.record != replace(mine, in_sync=wanted.in_sync):
                await asyncio.to_thread(self._store.update, mine, lambda now: replace(now, in_sync=wanted.in_sync, changed=record.now()))
                self._link.tell()
            if wanted.wait != self._keeper.database.synchronous:
                # What was seen of commits that wait is over with this.
                self._waits_from = None
                await asyncio.to_thread(self._keeper.postgres.name_standby, wanted.wait)
                self._keeper.wake()
        except (OSError, PostgresError, record.Overtaken) as error:
            self._complain(f"whether commits wait for {self._settings().peer_node} cannot be changed: {error}")
            await asyncio.sleep(self._tick)
        else:
            self._complain(None)
        self._wake()

    async def _see_that_they_wait(self) -> None:
        """Until then commits may be acknowledged alone, whatever the configuration says."""
        try:
            self._waits_from = await asyncio.to_thread(self._keeper.postgres.waits_from, SEEING)
        except PostgresError as error:
            self._complain(f"it is not known whether commits wait for {self._settings().peer_node}: {error}")
        else:
            self._complain(None)
        if self._waits_from is None:
            await asyncio.sleep(self._tick)
        else:
            # What the passive has is to be seen after that.
            self._keeper.wake()
        self._wake()
