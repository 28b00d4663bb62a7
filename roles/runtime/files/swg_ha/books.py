# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Heartbeat's books: whom it calls alive, where it has its resources, and that these are where the service is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from .heartbeat import Heartbeat
from .peer import PeerLink
from .role import ACTIVE, PASSIVE
from .senses import Senses
from .units import UnitError

_log = logging.getLogger("swg_ha.books")

# Between two requests to Heartbeat to move its resources, and between two questions while it moves them, or has just started (seconds).
BETWEEN_MOVES = 6.0
SOON = 1.0
# Heartbeat moves its resources in a second or two: after so many, it may wait for a message that was lost.
LOST = 5.0
# Or 15 seconds after its start; what takes longer never ends. One server at a time starts it anew, the active one first, after which both
# have settled in most cases.
UNSETTLED = {ACTIVE: 20.0, PASSIVE: 35.0}


class Books:
    """holding: the resources are here, by the last word of the gate or of Heartbeat. rscstatus, peer: as Heartbeat class has them.

    interval: seconds between two questions to Heartbeat. wake: something may have changed.
    """

    def __init__(
        self,
        heartbeat: Heartbeat,
        senses: Senses,
        link: PeerLink,
        *,
        interval: Callable[[], float],
        wake: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self.holding = False
        self.rscstatus: str | None = None
        self.peer: str | None = None
        self._heartbeat, self._senses, self._link = heartbeat, senses, link
        self._interval, self._wake, self._spawn = interval, wake, spawn
        self._loop = asyncio.get_running_loop()
        # Since when Heartbeat cannot be listened to; None: it can.
        self._deaf_since: float | None = self._loop.time()
        self._unsettled_since: float | None = None
        self._told_again = False
        # How often it has told of the peer.
        self._words = 0
        self._moved = 0.0
        self._unsettled = asyncio.Event()
        self._role: str | None = None
        self._left_alone = False

    @property
    def gone_for(self) -> float:
        """For how many seconds Heartbeat has not run here."""
        return 0.0 if self._deaf_since is None else self._loop.time() - self._deaf_since

    @property
    def gives(self) -> bool:
        """Whether the resources are given to this server: one that Heartbeat calls dead loses them next, and no script needs to be waited for."""
        return self.holding or self.peer == "dead"

    async def run(self) -> None:
        """The manual's poll: it finds what Heartbeat did not tell."""
        while True:
            await self._ask(self._heartbeat.poll)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval()):
                    await self._unsettled.wait()
                    await asyncio.sleep(SOON)

    async def _ask(self, rscstatus: Callable[[], Awaitable[str | None]]) -> None:
        self.rscstatus = await rscstatus()
        if self.rscstatus is None or self._deaf_since is not None or self.peer is None:
            # Otherwise it tells by itself, and an answer from before must not take the place of what it told meanwhile.
            words, answer = self._words, await self._heartbeat.peer()
            if words == self._words:
                self.peer = answer
        if self.rscstatus in ("all", "none"):
            self.holding = self.rscstatus == "all"
        if self.rscstatus in (None, "transition") and self._deaf_since is None:
            self._unsettled.set()
        else:
            self._unsettled.clear()
        await self._settle()
        self._wake()

    async def _settle(self) -> None:
        """Have it end a move of its resources that does not end by itself."""
        now, limit = self._loop.time(), UNSETTLED[self._role or PASSIVE]
        if self.rscstatus != "transition":
            self._unsettled_since = None
            return
        if self._unsettled_since is None:
            self._unsettled_since, self._told_again = now, False
        lasts = now - self._unsettled_since
        if lasts > LOST and self._role == ACTIVE and not self._told_again:
            self._told_again = True
            _log.warning("Heartbeat has not ended its take-over after %g s: it is told once more that it has", LOST)
            if not self._heartbeat.complete_takeover():
                _log.warning("Heartbeat does not read what it is told")
        elif lasts > limit and self._senses.peer_present() and not self._left_alone:
            self._unsettled_since = None
            _log.warning("Heartbeat has moved its resources for %g s and more: it is started anew, the service stays", limit)
            with suppress(UnitError):
                await self._heartbeat.begin_anew()

    def told(self, node: str, what: str) -> None:
        """As Heartbeat.watch tells it."""
        if what in ("resources", "started"):
            self._spawn(self._ask(self._heartbeat.rscstatus), "ask Heartbeat")
        if node == self._heartbeat.node and what in ("started", "stopped"):
            self._deaf_since = None if what == "started" else self._loop.time()
            if what == "stopped":
                # What it said of the other server is old from now on.
                self.peer = None
        elif node == self._heartbeat.peer_node and what != "resources":
            self.peer = what
            self._words += 1
        self._wake()

    def follow(self, role: str | None, *, changing: bool, stopped: bool) -> None:
        """Have the resources where the service is, once roles are settled. stopped: an operator has taken this server out of the pair."""
        self._role, self._left_alone = role, stopped
        now = self._loop.time()
        if changing or stopped or now - self._moved < BETWEEN_MOVES or self._deaf_since is not None or not self._senses.peer_present():
            return
        theirs = self._link.peer_status or {}
        if role == PASSIVE and self.holding and self._senses.peer_role() == ACTIVE:
            self._moved = now
            self._spawn(self._move(self._heartbeat.give), "give")
        elif role == ACTIVE and not self.holding and not theirs.get("holding") and self._senses.peer_role() == PASSIVE:
            self._moved = now
            self._spawn(self._move(self._heartbeat.take), "take")

    async def _move(self, move: Callable[[], Awaitable[bool]]) -> None:
        if await self._heartbeat.peer() == "active":
            await move()
        await self._ask(self._heartbeat.rscstatus)
