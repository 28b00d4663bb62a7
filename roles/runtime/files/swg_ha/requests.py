# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What people ask of ha_manager, by the command ha or a playbook."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from . import pause, plan, status
from .control import Refused
from .events import Event, tell
from .peer import PeerError
from .role import ACTIVE, FENCE, HAND_OVER, PASSIVE, Verdict
from .steps import graphs

if TYPE_CHECKING:
    from .manager import Manager

_log = logging.getLogger("swg_ha.requests")

HAND_OVER_PATIENCE = 120.0
# Seconds after which whoever asked is told of the steps that have ended meanwhile.
TELLING = 0.1
# A disk that has not taken a small file by then is not waited for: the loop has an address to watch.
DISK_PATIENCE = 2.0
# What is acknowledged by the name of the step that told of it.
STAGED_FILES = "staged_files"


class Requests:
    """Answers requests. Raises Refused with a code and one line that says why and what to do."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def answer(self, request: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
        """What the control socket asks. Raises Refused."""
        match request.get("do"):
            case "gate":
                return await self._manager.gate(str(request.get("action")))
            case "status":
                return {"status": self._manager.document()}
            case "why":
                return {"why": status.why(self._manager.document())}
            case "timeline":
                return {"transitions": self._manager.timeline.told(self._manager.transition)}
            case "failover":
                return await self.fail_over(bool(request.get("force")), progress, leaving=bool(request.get("leaving")))
            case "replicate":
                name = request.get("file")
                return await self._manager.files.replicate(None if name is None else str(name), bool(request.get("accept")), progress)
            case "pause":
                return await self._pause(request)
            case "resume":
                return await self._resume()
            case "acknowledge":
                return await self._acknowledge(str(request.get("name")))
            case "start":
                return await self._start()
            case "stop":
                return await self._stop(bool(request.get("force")), progress)
            case "restart":
                progress("Heartbeat restarts; the role stays where it is")
                await self._manager.heartbeat.restart()
                return {"role": self._manager.role}
            case other:
                raise Refused("UNKNOWN", f"{other!r} is not something that ha_manager does")

    async def fail_over(self, force: bool, progress: Callable[[str], None], *, leaving: bool = False) -> dict[str, Any]:
        """Hand the active role to the other server, or, on the passive, have it handed over, or with force take it.

        leaving: this server is going down, and cannot go on where anything is not as it should be.
        """
        self._require_idle()
        if self._manager.role == ACTIVE:
            return await self._hand_over(force, progress, leaving)
        if self._manager.senses.peer_active():
            progress(f"{self._manager.settings.peer_node} is active: it is asked to hand over")
            try:
                return await self._manager.link.request("hand_over", {"force": force}, HAND_OVER_PATIENCE)
            except PeerError as error:
                raise Refused(error.reason or error.code, str(error)) from error
        if not force:
            raise Refused(
                "PEER_SILENT",
                f"{self._manager.settings.peer_node} cannot be asked to hand over ({self._manager.verdict.reason}); '--force' takes over without it",
            )
        return await self._force(progress)

    def _require_idle(self) -> None:
        if self._manager.changing is not None:
            raise Refused("BUSY", "a change of role is under way: 'ha status --watch' shows it")

    async def _hand_over(self, force: bool, progress: Callable[[str], None], leaving: bool = False) -> dict[str, Any]:
        if not self._manager.senses.peer_present():
            raise Refused("PEER_SILENT", f"{self._manager.settings.peer_node} cannot be heard: there is nobody to hand over to")
        peer = self._manager.situation().peer
        assert peer is not None
        lost = 0
        if not peer.ready:
            if not force:
                raise Refused("NOT_READY", f"{self._manager.settings.peer_node} is not ready: {peer.not_ready}")
            lost = self._manager.keeper.database.lag if self._manager.keeper.database.lag is not None else -1
            progress(
                f"{self._manager.settings.peer_node} is not ready ({peer.not_ready}); {'an unknown amount' if lost < 0 else f'{lost} bytes'} may be lost"
            )
        verdict = Verdict(PASSIVE, "FORCED" if force else "REQUESTED", "an operator asked for it", HAND_OVER)
        world = self._manager.world()
        world.forced = force
        graph = graphs.HAND_OVER if force or leaving else graphs.PLANNED
        self._manager.change(PASSIVE, "forced" if force else "planned", verdict, graph, world)
        return await self._followed_by(progress, lost)

    async def _force(self, progress: Callable[[str], None]) -> dict[str, Any]:
        lag = self._manager.lag()
        progress(
            f"taking over without {self._manager.settings.peer_node}; {'an unknown amount' if lag is None else f'{lag} bytes'} of its last writes may be lost"
        )
        if self._manager.stopped:
            raise Refused("STOPPED", "'ha stop' took this server out of the pair: 'ha start' brings it back")
        if not self._manager.keeper.database.complete:
            raise Refused("INCOMPLETE_COPY", "the copy of the databases here is not complete: it cannot serve")
        self._manager.change(
            ACTIVE, "forced", Verdict(ACTIVE, "FORCED", f"an operator asked for it: {self._manager.verdict.code} was overridden")
        )
        return await self._followed_by(progress, lag)

    async def _followed_by(self, progress: Callable[[str], None], lost: int | None) -> dict[str, Any]:
        changing, transition = self._manager.changing, self._manager.transition
        assert changing is not None and transition is not None
        told: set[str] = set()

        def tell_steps() -> None:
            for step in transition["steps"]:
                if step["name"] not in told and step["state"] in (plan.DONE, plan.FAILED):
                    told.add(step["name"])
                    progress(f"{step['name']}: {step['reason'] or step['state']} ({step['seconds']} s)")

        async def follow(work: asyncio.Task[Any]) -> None:
            while True:
                tell_steps()
                if work.done():
                    return
                await asyncio.wait({work}, timeout=TELLING)

        await follow(changing)
        if changing.result() and (finishing := self._manager.finishing) is not None:
            await follow(finishing)
        if not changing.result():
            raise Refused("FAILED", " failed: ".join(plan.failure(transition) or ("?", "?")))
        return {"transition": transition, "lost_bytes": None if lost is not None and lost < 0 else lost}

    async def _start(self) -> dict[str, Any]:
        (self._manager.run_folder / "stopped").unlink(missing_ok=True)
        self._manager.stopped = False
        await self._manager.heartbeat.start()
        self._manager.wake()
        return {"role": self._manager.role}

    async def _stop(self, force: bool, progress: Callable[[str], None]) -> dict[str, Any]:
        self._require_idle()
        if self._manager.role == ACTIVE:
            try:
                await self._hand_over(False, progress)
            except Refused as refused:
                if not force:
                    raise Refused(refused.code, f"the service would end: {refused.text}; 'ha stop --force' ends it") from refused
                await self._end_service(progress)
        self._take_out()
        await self._manager.heartbeat.stop()
        self._manager.wake()
        return {"role": self._manager.role}

    def _take_out(self) -> None:
        (self._manager.run_folder / "stopped").touch()
        self._manager.stopped = True

    async def _end_service(self, progress: Callable[[str], None]) -> None:
        # A hand-over that failed is being undone.
        while (changing := self._manager.changing) is not None:
            await asyncio.wait({changing})
        # First: once the service has ended, the record still names this server, which would begin again.
        self._take_out()
        if self._manager.role == ACTIVE:
            self._manager.change(PASSIVE, "forced", Verdict(PASSIVE, "STOPPED", "an operator stopped the pair here", FENCE))
            await self._followed_by(progress, None)

    async def _acknowledge(self, name: str) -> dict[str, Any]:
        installs = self._manager.installs
        known = {one["name"] for one in self._manager.quarantine} | ({STAGED_FILES} if installs.problems else set())
        names = sorted(known) if name == "--all" else [name]
        for one in names:
            if one not in known:
                raise Refused("UNKNOWN", f"{one!r} is nothing to acknowledge; there are: {', '.join(sorted(known)) or 'none'}")
            await asyncio.to_thread(installs.acknowledge if one == STAGED_FILES else partial(self._manager.postgres.acknowledge, one))
            tell(Event.ACKNOWLEDGED, name=one, by="root")
        await self._manager.look_at_quarantine()
        return {"acknowledged": names}

    async def _pause(self, request: dict[str, Any]) -> dict[str, Any]:
        minutes = request.get("minutes", 60)
        if not isinstance(minutes, int) or not 1 <= minutes <= pause.LONGEST:
            raise Refused("USAGE", f"pause: {minutes!r} is not a number of minutes from 1 to {pause.LONGEST}")
        begun = pause.begin(minutes, by=str(request.get("by") or "root"), reason=str(request.get("reason") or ""))
        self._manager.pause.set(begun)
        return {"paused": begun, "peer": await self._spread(begun)}

    async def _resume(self) -> dict[str, Any]:
        self._manager.pause.set(None)
        return {"peer": await self._spread(None)}

    async def _spread(self, begun: dict[str, str] | None) -> bool:
        # At the same time: an active server that does not know yet says that there is no pause, with every beat.
        told, _kept = await asyncio.gather(self._tell_peer(begun), self._manager.pause.kept(DISK_PATIENCE))
        return told

    async def _tell_peer(self, begun: dict[str, str] | None) -> bool:
        try:
            await self._manager.link.request("pause", {"pause": begun}, 3)
        except PeerError as error:
            _log.warning("%s was not told of the pause: %s", self._manager.settings.peer_node, error)
            return False
        return True
