# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Raise the virtual IP, once the databases take writes, and tell the neighbours."""

from __future__ import annotations

import asyncio

from ..plan import Skip, Step, StepFailed
from .world import World

# Who hears that it is superseded lets go at once.
PATIENCE = 3.0


async def run(world: World) -> str:
    if world.settings.virtual_ip is None:
        raise Skip("the pair has no virtual IP")
    # A promotion may take a minute, in which much can happen.
    until = asyncio.get_running_loop().time() + PATIENCE
    while objection := world.objection():
        if asyncio.get_running_loop().time() > until:
            raise StepFailed(objection)
        await asyncio.sleep(0.02)
    held = world.network.holds()
    world.network.raise_address()
    world.network.announce()
    return f"{world.settings.virtual_ip} {'was here already' if held else 'is here'}"


STEP = Step("address", run, needs=("promote",), essential=True, timeout=10)
