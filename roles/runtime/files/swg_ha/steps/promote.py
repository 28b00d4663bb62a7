# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Have PostgreSQL take writes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ..plan import Step
from .world import World

DEADLINE = 60.0
# What was received is replayed first, and all of it: to give up while that goes on would leave nobody who serves.
REPLAYED_WITHIN = 6 * 3600.0


async def run(world: World) -> str:
    postgres = world.postgres
    database = await asyncio.to_thread(postgres.observe)
    if database.state == "primary":
        return "it is a primary already"
    if database.state in ("stopped", "starting", "unresponsive"):
        # A standby's data become a primary's only by a promotion, which begins a timeline of its own.
        standby = (Path(world.settings.postgresql.data_directory) / "standby.signal").exists()
        await asyncio.to_thread(postgres.start, "standby" if standby else "primary", DEADLINE)
        if not standby:
            return "it was started as the primary that it was"
    timeline, lsn = await asyncio.to_thread(postgres.promote, DEADLINE)
    world.results["promoted"] = (timeline, lsn)
    return f"timeline {timeline} from {lsn}"


STEP = Step("promote", run, needs=("claim", "catch_up"), essential=True, timeout=REPLAYED_WITHIN)
