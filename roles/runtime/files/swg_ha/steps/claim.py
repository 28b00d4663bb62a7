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
    if record is not None and record.active == node and not (record.given or record.doubtful or world.forced):
        if record.unfinished:
            world.previous = replace(record, given=True)
        await asyncio.to_thread(store.keep)
        return f"record {record.counter} names this server already"
    world.previous = record if record is None or record.given or record.active != node else None
    if world.forced and world.previous is None and record is not None and record.unfinished:
        world.previous = replace(record, given=True)
    # Before the record says that this server is active: from then on nobody could tell that it still has to install anything.
    if others_are_newer(record, node, forced=world.forced):
        await asyncio.to_thread(world.installs.begin)

    def claimed(before: Record) -> Record:
        mine = record is not None and before.active == node
        taken = before.taken() if mine else before.claimed_by(node)
        return replace(taken, counter=taken.counter + AHEAD) if world.forced else taken

    claim = await asyncio.to_thread(store.update, record or Record(0, node), claimed)
    return f"record {claim.counter}"


STEP = Step("claim", run, essential=True, timeout=10)
