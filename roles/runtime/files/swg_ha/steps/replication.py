# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Have the other server replicate from this one, if it is there; ha_manager sees to it whenever it comes."""

from __future__ import annotations

from ..peer import PeerError
from ..plan import Skip, Step
from .world import World


async def run(world: World) -> str:
    if not world.link.connected:
        raise Skip(f"{world.settings.peer_node} is not there; it is told when it comes")
    try:
        await world.link.request("follow", {}, 5)
    except PeerError as error:
        raise Skip(f"{error}; it is told again") from error
    return f"{world.settings.peer_node} was told"


STEP = Step("replication", run, needs=("address",), timeout=10)
