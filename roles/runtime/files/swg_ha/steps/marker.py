# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Tell everybody on this server which role it has."""

from __future__ import annotations

import asyncio

from ..plan import Step
from .world import World


async def become_active(world: World) -> str:
    await asyncio.to_thread(world.mark, "active")
    return "active"


async def become_passive(world: World) -> str:
    await asyncio.to_thread(world.mark, "passive")
    return "passive"


ACTIVE = Step("marker", become_active, needs=("address",), timeout=10)
PASSIVE = Step("marker", become_passive, needs=("release_address",), timeout=10)
