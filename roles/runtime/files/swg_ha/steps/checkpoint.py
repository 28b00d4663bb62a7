# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Have most of what the stop will write on disk before the service is interrupted."""

from __future__ import annotations

import asyncio

from ..plan import Step
from .world import World

DEADLINE = 60.0


async def run(world: World) -> str:
    await asyncio.to_thread(world.postgres.checkpoint, DEADLINE)
    return "done"


STEP = Step("checkpoint", run, timeout=DEADLINE + 5)
