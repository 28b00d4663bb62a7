# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What the other server asks of ha_manager, over the peer link."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from . import plan, record
from .control import Refused
from .peer import PeerRefused
from .role import ACTIVE, Verdict

if TYPE_CHECKING:
    from .manager import Manager
    from .steps.world import World


class Answers:
    """Answers the other server's requests. Raises PeerRefused with a code and one line that says why."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def answer(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """A request that came over the peer link. Raises PeerRefused."""
        manager = self._manager
        match kind:
            case "role":
                return {"role": manager.role, "record": record.told(manager.store.record)}
            case "follow":
                manager.keeper.wake()
                return {}
            case "take_over":
                return await self._take_over(body)
            case "hand_over":
                try:
                    return await manager.requests.fail_over(bool(body.get("force")), lambda text: None)
                except Refused as refused:
                    raise PeerRefused(refused.code, refused.text) from refused
            case "pause":
                manager.pause.set(body.get("pause"))
                return {}
            case "files":
                if await manager.files.listen(body):
                    manager.reload()
                return {}
        raise PeerRefused("UNKNOWN", f"{kind!r} is not a request of this version")

    async def _take_over(self, body: dict[str, Any]) -> dict[str, Any]:
        """The active server has stopped and hands over."""
        manager = self._manager
        try:
            given = record.parse(body["record"])
        except (ValueError, TypeError, KeyError) as error:
            raise PeerRefused("GARBLED", str(error)) from error
        if manager.changing is not None:
            return await self._taken_over(self._under_way())
        async with manager.keeper.hands_off():
            pass
        database = await asyncio.to_thread(manager.postgres.observe)
        if database.state != "standby" or not database.complete:
            raise PeerRefused("NOT_READY", f"its PostgreSQL is {database.state}")
        manager.store.adopt(given, of_its_active=False)
        mine = manager.store.record
        if mine is None or mine.active != manager.settings.node:
            raise PeerRefused("SUPERSEDED", f"{mine.active if mine else 'nobody'} was made active after that (it asks too late)")
        if manager.stopped:
            raise PeerRefused("STOPPED", "'ha stop' took it out of the pair")
        if manager.role == ACTIVE:
            return {"role": ACTIVE}
        # It may have begun by itself meanwhile.
        if manager.changing is not None:
            return await self._taken_over(self._under_way())
        world = manager.world()
        world.lsn = body.get("lsn")
        verdict = Verdict(ACTIVE, "HANDED_OVER", f"{manager.settings.peer_node} handed over")
        return await self._taken_over(manager.change(ACTIVE, "planned", verdict, world=world))

    def _under_way(self) -> plan.Plan[World]:
        """The change to active that is under way. Raises PeerRefused where it is another one."""
        running = self._manager.plan
        if running is None or running.transition["kind"] != "becoming_active":
            raise PeerRefused("BUSY", "a change of role is under way")
        return running

    async def _taken_over(self, running: plan.Plan[World]) -> dict[str, Any]:
        changing = self._manager.changing
        if await running.reached("address"):
            return {"role": ACTIVE}
        if changing is not None:
            # The other one goes on when it hears this: by then this server has put down that it does not.
            await asyncio.wait({changing})
        raise PeerRefused("FAILED", ": ".join(plan.failure(running.transition) or ("it failed",)))
