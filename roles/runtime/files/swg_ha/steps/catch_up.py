# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Wait until everything is here that the server that hands over has written."""

from __future__ import annotations

import asyncio

from ..plan import Skip, Step
from .world import World

DEADLINE = 8.0


async def run(world: World) -> str:
    if world.lsn is None:
        raise Skip("the other server did not hand over")
    state = (await asyncio.to_thread(world.postgres.observe)).state
    if state == "primary" or (state != "standby" and not world.postgres.cluster.standby_signal.exists()):
        raise Skip("it is no standby")
    # After a boot it does not run yet, and what it has received may be enough.
    if state in ("stopped", "starting", "unresponsive"):
        await asyncio.to_thread(world.postgres.start, "standby", DEADLINE)
    await asyncio.to_thread(world.postgres.wait_replayed, world.lsn, DEADLINE)
    return f"replayed up to {world.lsn}"


STEP = Step("catch_up", run, essential=True, timeout=2 * DEADLINE + 3)
