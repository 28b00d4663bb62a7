# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Have the Manager run the roles of an active or of a passive server."""

from __future__ import annotations

from ..plan import Step
from .world import World, command


async def become_active(world: World) -> str:
    return await command(world.settings.commands.manager_active, 60)


async def become_passive(world: World) -> str:
    return await command(world.settings.commands.manager_passive, 60)


ACTIVE = Step("manager", become_active, needs=("promote", "conf_ready", "staged_files"), timeout=65)
PASSIVE = Step("manager", become_passive, needs=("marker",), timeout=65)
