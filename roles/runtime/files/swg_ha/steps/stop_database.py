# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Stop PostgreSQL: no commit is accepted here any more, and a standby that streams has everything."""

from __future__ import annotations

import asyncio

from ..plan import Skip, Step, StepFailed
from ..shared.postgres import PostgresError
from .world import World

DEADLINE = 10.0
LOOK = 4.0
NOT_CLEANLY = "it did not end cleanly"


async def run(world: World) -> str:
    try:
        async with asyncio.timeout(LOOK):
            state = (await asyncio.to_thread(world.postgres.observe)).state
    except (TimeoutError, OSError, PostgresError):
        # Where nobody can look, as the disk hangs: it must not go on when the disk does.
        return await abandon(world)
    if state == "standby":
        raise Skip("it is a standby, which accepts no commits")
    world.lsn = await asyncio.to_thread(world.postgres.stop, DEADLINE)
    return f"it ended at {world.lsn}" if world.lsn else NOT_CLEANLY


async def run_planned(world: World) -> str:
    """Nobody is in need: without an end that the other server can be held to, this one goes on."""
    serves = (await asyncio.to_thread(world.postgres.observe)).state == "primary"
    said = await run(world)
    if serves and world.lsn is None:
        raise StepFailed(
            f"{NOT_CLEANLY} within {DEADLINE:g} s: {world.settings.peer_node} may not have everything; '--force' hands over all the same"
        )
    return said


STEP = Step("stop_database", run, needs=("release_address",), essential=True, timeout=DEADLINE + 20)
PLANNED = Step("stop_database", run_planned, needs=("release_address",), essential=True, timeout=DEADLINE + 20)


async def abandon(world: World) -> str:
    await asyncio.to_thread(world.postgres.kill)
    return "its processes were killed"


# For a disk that takes no writes: nothing can be stopped cleanly, and what waits for the disk ends when it comes back.
ABANDON = Step("abandon_database", abandon, needs=("release_address",), timeout=5)
