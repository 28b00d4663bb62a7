# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Put down, on disk, that this server is being made active: from here on whoever has an older record gives way."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ..installs import others_are_newer
from ..plan import Step
from ..record import Record
from .world import World

# Nobody knows how often the other server was made active behind the back of one that is forced: an operator's word is to be the newer one.
AHEAD = 1000


async def run(world: World) -> str:
    store, node = world.store, world.settings.node
    record = store.record

    def is_ours(now: Record) -> bool:
        return now.active == node and not (now.given or now.doubtful or world.forced)

    world.previous = record if record is None or record.given or record.active != node else None
    # A hand-over that was taken, and may not have ended.
    if record is not None and world.previous is None and record.unfinished and (is_ours(record) or world.forced):
        world.previous = replace(record, given=True)
    # Before the record says that this server is active: from then on nobody could tell that it still has to install anything.
    if others_are_newer(record, node, forced=world.forced):
        await asyncio.to_thread(world.installs.begin)

    # A word of this server's own may reach the disk just now: that it may have been superseded, or gave the record away.
    def claimed(before: Record) -> Record:
        mine = record is not None and before.active == node
        if mine and is_ours(before):
            return before
        taken = before.taken() if mine else before.claimed_by(node)
        return replace(taken, counter=taken.counter + AHEAD) if world.forced else taken

    claim = await asyncio.to_thread(store.update, record or Record(0, node), claimed)
    return f"record {claim.counter}"


STEP = Step("claim", run, essential=True, timeout=10)
