# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Be sure that the other server receives what this one writes, over a link that lives, before it stops."""

from __future__ import annotations

import asyncio

from ..plan import Skip, Step, StepFailed
from ..route import cut
from .world import World

DEADLINE = 3.0
BETWEEN = 0.03


async def run(world: World) -> str:
    if world.forced:
        raise Skip("an operator forced the failover")
    if world.dead_links:
        # What still seems to stream there does not, and holds the place of what could.
        await asyncio.to_thread(cut, world.postgres.cluster, world.dead_links, DEADLINE)
    until = asyncio.get_running_loop().time() + DEADLINE
    while True:
        database = await asyncio.to_thread(world.postgres.observe)
        if database.state != "primary":
            raise Skip(f"PostgreSQL is {database.state}: there is nothing more to come")
        if database.streaming:
            return f"{database.lag or 0} bytes behind"
        if asyncio.get_running_loop().time() > until:
            raise StepFailed(f"{world.settings.peer_node} does not replicate")
        await asyncio.sleep(BETWEEN)


STEP = Step("stream", run, needs=("checkpoint",), essential=True, timeout=DEADLINE + 5)
