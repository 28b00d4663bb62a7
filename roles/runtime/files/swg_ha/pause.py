# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Automatic failover off for a while: kept over restarts, and never for longer than it was asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .events import Event, tell
from .shared import durable

LONGEST = 24 * 60


def begin(minutes: int, by: str, reason: str) -> dict[str, str]:
    """A pause from now on, in the shape of the status document."""
    until = datetime.now(UTC) + timedelta(minutes=minutes)
    return {"until": until.isoformat(timespec="seconds").replace("+00:00", "Z"), "by": by, "reason": reason}


class Pause:
    """current: the pause that is in force, or None. changed is called when it begins and when it ends.

    It is in force at once; ``kept`` waits until the disk has it, which takes as long as the disk does.
    """

    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        self.current: dict[str, str] | None = None
        self.problem: str | None = None
        self._path = path
        self._changed = changed
        self._end: asyncio.TimerHandle | None = None
        self._kept: dict[str, str] | None = None
        self._keeping: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Go on with the pause of an earlier ha_manager, if it has not run out."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            self._kept = json.loads(self._path.read_bytes())
            self._begin(dict(self._kept or {}))

    def set(self, pause: Mapping[str, str] | None) -> None:
        """Begin a pause, or end the one that is in force. Raises ValueError, KeyError."""
        if pause is None:
            self._stop("as asked")
        elif self._begin(dict(pause)):
            tell(Event.PAUSED, until=pause["until"], by=pause["by"], reason=pause["reason"])

    async def kept(self, seconds: float) -> bool:
        """Whether the disk has it within so many seconds."""
        if self._keeping is not None:
            await asyncio.wait({self._keeping}, timeout=seconds)
        return self._kept == self.current

    def _begin(self, pause: dict[str, str]) -> bool:
        left = (datetime.fromisoformat(pause["until"]) - datetime.now(UTC)).total_seconds()
        if left <= 0:
            self._keep()
            return False
        if self._end:
            self._end.cancel()
        self.current = pause
        self._keep()
        self._end = asyncio.get_running_loop().call_later(left, self._stop, "its time is over")
        self._changed()
        return True

    def _stop(self, why: str) -> None:
        if self._end:
            self._end.cancel()
            self._end = None
        if self.current is not None:
            self.current = None
            tell(Event.RESUMED, reason=why)
            self._changed()
        self._keep()

    def _keep(self) -> None:
        """A disk that hangs holds up a thread, and no decision."""
        if self._kept != self.current and (self._keeping is None or self._keeping.done()):
            self._keeping = asyncio.create_task(self._write(), name="keep the pause")

    async def _write(self) -> None:
        while self._kept != (wanted := self.current):
            try:
                await asyncio.to_thread(self._put_down, wanted)
            except OSError as error:
                # Nobody knows what is there now: whatever comes next is written.
                self._kept = {}
                self.problem = (
                    f"{self._path} cannot be written ({error.strerror}): a restart of ha_manager will not know of the pause, or of its end"
                )
                return
            self._kept, self.problem = wanted, None

    def _put_down(self, pause: dict[str, str] | None) -> None:
        if pause is None:
            with suppress(FileNotFoundError):
                self._path.unlink()
                # Otherwise it would be back after a power cut.
                durable.sync(str(self._path.parent))
        else:
            durable.replace(str(self._path), json.dumps(pause).encode())
