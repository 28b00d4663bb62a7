# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Have the other server take over, and give the record away before it is asked: whatever happens then, not both can be active."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ..peer import PeerError
from ..plan import Step, StepFailed
from ..record import Overtaken, Record, told
from .world import World

DEADLINE = 20.0


async def run(world: World) -> str:
    settings, store = world.settings, world.store
    lsn = None if world.forced else world.lsn
    mine = store.record or Record(0, settings.node)
    if mine.active != settings.peer_node:
        if lsn is None and not world.forced and settings.synchronous and not mine.in_sync:
            # As a passive by itself would not take over from such a one.
            lacking = f"{settings.peer_node} lacks commits that were acknowledged here alone, and PostgreSQL did not end cleanly"
            raise StepFailed(f"{lacking}: '--force' hands over all the same")
        mine = await asyncio.to_thread(store.update, mine, lambda now: now.given_to(settings.peer_node, lsn))
    body = {"lsn": lsn, "record": told(mine)}
    try:
        await world.link.request("take_over", body, DEADLINE)
    except PeerError as error:
        # Without an answer nobody knows whether it took over: only its own word gives the record back.
        if error.code == "REFUSED":
            # Most often it has told meanwhile that it gives the record back.
            with suppress(Overtaken):
                await asyncio.to_thread(store.update, mine, lambda now: now.claimed_by(settings.node))
        raise StepFailed(f"{settings.peer_node} did not take over: {error}") from error
    return f"{settings.peer_node} serves"


STEP = Step("hand_over", run, needs=("stop_database",), essential=True, timeout=DEADLINE + 2)
ABANDON = Step("hand_over", run, needs=("abandon_database",), essential=True, timeout=DEADLINE + 2)
