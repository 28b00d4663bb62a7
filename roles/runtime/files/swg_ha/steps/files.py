# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Have the files beside the database copied to the other server, by the active one alone."""

from __future__ import annotations

from ..plan import Skip, Step
from .world import World

# What has changed just before a hand-over gets so many seconds.
PATIENCE = 3.0
NOT_HERE = "no files are replicated here"


async def start(world: World) -> str:
    if not world.files.installed:
        raise Skip(NOT_HERE)
    return f"{await world.files.start()} are copied to {world.settings.peer_node} when they change"


async def stop(world: World) -> str:
    if not world.files.installed:
        raise Skip(NOT_HERE)
    return "stopped" if await world.files.stop() else "it did not run"


async def finish(world: World) -> str:
    """The other server is about to serve: it is to have what was changed up to now."""
    if not world.files.installed:
        raise Skip(NOT_HERE)
    drained = await world.files.drain(PATIENCE)
    await world.files.stop()
    return "stopped, with everything copied" if drained else f"stopped: what was to be copied took longer than {PATIENCE:g} s"


# What the other server had staged here comes first: what this one had before is older.
START = Step("files", start, needs=("address", "staged_files"), timeout=45)
FINISH = Step("files", finish, timeout=30)
STOP = Step("files", stop, timeout=25)
