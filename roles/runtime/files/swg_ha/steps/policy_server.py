# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Start the policy server, with what it must be told on a new active server, or stop it."""

from __future__ import annotations

from .. import health
from ..plan import Step, StepFailed
from .world import World, command


async def start(world: World) -> str:
    """Until it is up, not only until systemd has started it: what comes next speaks to it."""
    commands = world.settings.commands
    said = await command(commands.policy_server_start, 60)
    if not commands.policy_server_health:
        return said
    limit = world.settings.limits.health_timeout
    try:
        seconds = await health.wait(commands.policy_server_health, limit)
    except health.NotHealthy as error:
        raise StepFailed(f"the policy server was started, and is not up after {limit} s: {error}") from None
    return f"{said}, up after {seconds:.2f} s"


async def stop(world: World) -> str:
    return await command(world.settings.commands.policy_server_stop, 60)


async def request_cli(world: World) -> str:
    return await command(world.settings.commands.active_request_cli, 120)


async def replicate(world: World) -> str:
    return await command(world.settings.commands.full_replicate, 600)


# The health check ends by its own limit, which an operator may set.
START = Step("policy_server", start, needs=("manager", "address"), timeout=3600)
STOP = Step("policy_server", stop, needs=("manager",), timeout=65)
ACTIVE_REQUEST_CLI = Step("active_request_cli", request_cli, needs=("policy_server",), timeout=125)
FULL_REPLICATE = Step("full_replicate", replicate, needs=("active_request_cli",), timeout=605)
