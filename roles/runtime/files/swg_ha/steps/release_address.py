# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Take the virtual IP away: no client is answered from here any more."""

from __future__ import annotations

from ..plan import Step
from .world import World


async def run(world: World) -> str:
    return "it is gone" if world.network.drop_address() else "it was not here"


FENCE = Step("release_address", run, essential=True, timeout=5)
HAND_OVER = Step("release_address", run, needs=("stream",), essential=True, timeout=5)
# What has changed is copied while this server still serves: what the other one gets after it has looked, it does not install.
PLANNED = Step("release_address", run, needs=("stream", "files"), essential=True, timeout=5)
