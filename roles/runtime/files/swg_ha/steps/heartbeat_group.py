# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Have Heartbeat keep its books alike: the server that serves holds the resources."""

from __future__ import annotations

from ..plan import Skip, Step, StepFailed
from .world import World


async def run(world: World) -> str:
    if await world.heartbeat.rscstatus() == "all":
        raise Skip("it holds them already")
    if await world.heartbeat.peer() != "active":
        # It would wait for the dead one's answer for ever.
        raise Skip(f"Heartbeat does not call {world.settings.peer_node} active, and takes them by itself")
    if not await world.heartbeat.take():
        raise StepFailed("it did not take them yet; ha_manager asks again until it does")
    return "it took them"


STEP = Step("heartbeat_group", run, needs=("address",), timeout=30)
