# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Brings what is known together, has the role decided, and makes the server follow: one transition at a time.

Everything that may matter wakes the same loop, which looks at the whole situation anew. So it does not matter
what was missed, nor in which order things are heard.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from . import manager_ctl, metrics, plan, record, role, status, units
from .answers import Answers
from .books import Books
from .control import Refused
from .document import document
from .events import Event, tell
from .files import Files, ageless
from .heartbeat import Heartbeat
from .installs import Installs
from .keeper import Keeper, Wanted
from .network import Network, NetworkError
from .pause import Pause
from .peer import PeerError, PeerLink
from .postgres import Postgres
from .record import newest
from .requests import DISK_PATIENCE, Requests
from .role import ACTIVE, FENCE, GIVE, HAND_OVER, LEASE_MARGIN, PASSIVE, Situation, Verdict, judge, readiness
from .senses import CARRIER_GONE, Senses
from .settings import Settings, SettingsError, load
from .shared.postgres import lsn
from .steps import graphs
from .steps.world import World
from .synchronous import Synchronous
from .timeline import Timeline
from .units import UnitError

_log = logging.getLogger("swg_ha.manager")

RUN = Path("/run/ha_manager")
STATE = Path("/var/lib/ha_manager")

# A refused gate is answered at once; one that is granted, when the address is here, or after so many seconds.
GATE_PATIENCE = 9.0
# Between two tries of what failed.
RETRY, LONGEST_RETRY = 2.0, 30.0
# Between two looks at whether a unit of a role has failed, which systemd restarts by itself in most cases.
ROLES = 30.0
# What is the service, and what follows from it (the Manager, the policy server), which may take its time.
ROLE_IS_THERE = {ACTIVE: ("address",), PASSIVE: ("release_address", "marker")}
SERVICE = {ACTIVE: ("epoch", "marker"), PASSIVE: ("stop_database", "hand_over")}
# ha_manager is away for so many seconds when it is started again, and nothing comes of that.
RESTART_TIME = 1.0
# While all is calm, everything is looked at again after so many seconds.
REVIEW = 5.0
# One that is older (seconds) is written anew by a review that finds nothing new.
STATUS_AGE = 4.0
# Between two times that an address that somebody takes away is raised again.
RAISE_AGAIN = 0.5


@dataclass
class Absence:
    """A time in which this active server stood still, of gap seconds.

    held: it had the address then. asking: what finds out whether the other one took over meanwhile.
    """

    gap: float = 0.0
    held: bool = False
    asking: asyncio.Task[None] | None = None

    def end(self) -> bool:
        """Ask no more: it has stood still anew, and what is answered was said before that. Whether it still was asked."""
        return self.asking is not None and self.asking.cancel()


class Manager:
    """ha_manager without its signals and sockets. Public attributes are what the status file tells of."""

    def __init__(self, settings: Settings, run: Path = RUN, state: Path = STATE) -> None:
        self.settings = settings
        self.loaded = record.now()
        self.settings_error: str | None = None
        self.started = record.now()
        self.run_folder = run
        self.state_folder = state
        self.store = record.Store(state / "record.json")
        self.installs = Installs(state / "staged.json")
        self.journal = plan.Journal(run / "journal.json")
        self.timeline = Timeline(state / "timeline.json")
        self.role: str | None = None
        self.since = record.now()
        self.verdict = Verdict(None, "STARTING", "ha_manager has just started")
        self.transition: dict[str, Any] | None = None
        self.transitions = 0
        self.failures: dict[str, int] = {}
        self.pause = Pause(state / "pause.json", self.wake)
        self.stopped = False
        self.quarantine: list[dict[str, Any]] = []
        self.redundant: bool | None = None
        self.failed_units: list[str] = []
        self.unreadable_roles: list[str] = []

        self.requests = Requests(self)
        self.answers = Answers(self)
        self.postgres = Postgres(settings)
        self.heartbeat = Heartbeat(settings.node, settings.peer_node, [link.interface for link in settings.links])
        self.network = Network(settings.links, settings.virtual_ip, settings.times.ping_nodes)
        self.keeper = Keeper(settings, self.postgres, self._wanted, self.wake, self.look_at_quarantine)
        beat = min(max(settings.times.deadtime / 4, 0.1), 0.5)
        self.link = PeerLink(
            node=settings.node,
            peer_node=settings.peer_node,
            pairs=[(link.address, link.peer_address) for link in settings.links],
            port=settings.peer_port,
            trust=Path(settings.paths.trust),
            dial=not settings.is_default_active,
            beat=beat,
            patience=min(settings.connection_timeout, 3.0),
            status=self._beat,
            handle=self.answers.answer,
            heard=self._heard,
        )
        self.files = Files(settings, self.link, self.wake)
        self.senses = Senses(settings, self.network, self.link, self.keeper, tick=beat)
        self.synchronous = Synchronous(
            lambda: self.settings,
            self.keeper,
            self.senses,
            self.link,
            self.store,
            tick=beat,
            wake=self.wake,
            spawn=self._spawn,
            complain=partial(self._complain, "synchronous"),
        )
        self.books = Books(
            self.heartbeat,
            self.senses,
            self.link,
            interval=lambda: self.settings.heartbeat_interval,
            wake=self.wake,
            spawn=self._spawn,
        )
        self._tick = self._pause = beat
        self._contact_before: float | None = None
        self._record_heard_in: Mapping[str, Any] | None = None
        self._record_heard: record.Record | None = None
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self.settled = asyncio.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.changing: asyncio.Task[bool] | None = None
        self.finishing: asyncio.Task[None] | None = None
        self._failed_in_a_row = {ACTIVE: 0, PASSIVE: 0, HAND_OVER: 0}
        self._disk_work: dict[str, asyncio.Task[None]] = {}
        self._complaints: dict[str, str] = {}
        self.plan: plan.Plan[World] | None = None
        self._steps_told: set[str] = set()
        self._decisions = 0
        self._dead_links: frozenset[str] = frozenset()
        self._decided = self._looked = self._raised_at = -60.0
        self._looking: asyncio.TimerHandle | None = None
        # A hand-over that fails delays the next one, not the end of a service that the other server has taken over.
        self._not_before = {ACTIVE: 0.0, PASSIVE: 0.0, HAND_OVER: 0.0}
        self._lost_redundancy: float | None = None
        self._away = False
        self._absence = Absence()
        self._doubting: asyncio.Task[None] | None = None
        self._was_connected = self._peer_receives = False
        self._told_refusal: str | None = None
        self._written = ""
        self._unwritten = False
        self._status_at = 0.0
        self._closing = False

    # Life

    async def start(self) -> None:
        """Take up the work where the files say that it stands."""
        self.run_folder.mkdir(mode=0o755, exist_ok=True)
        if not self.state_folder.is_dir():
            self.state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.store.load()
        self.installs.load()
        self.timeline.load()
        self.pause.load()
        self.stopped = (self.run_folder / "stopped").exists()
        self.books.holding = self._read(self.run_folder / "gate").strip() == "start"
        unwatched = self.senses.start(self.run_folder / "contact")
        said = self._read(self.run_folder / "role").strip()
        # A transition that was cut off is carried on by deciding anew: its steps find what is done already.
        if said in (ACTIVE, PASSIVE) and self.journal.load() is None:
            self.role = said
        if self.role is None:
            await asyncio.wait({self._aside("marker", lambda: status.mark(None))}, timeout=DISK_PATIENCE)
        await self.network.start(self._carrier_changed, self.wake)
        self._drop_former_address()
        await self.link.start()
        await self.look_at_quarantine()
        if self.store.record is None:
            # What the playbook moved aside when it made the pair went with an operator's word.
            for kept in self.quarantine:
                await asyncio.to_thread(self.postgres.acknowledge, kept["name"])
            await self.look_at_quarantine()
        await self.keeper.look()
        # The server may have stood still, and the watchdog killed what would have noticed: the other one may have taken over. Where
        # the address is gone, an ha_manager before this one had a reason to drop it.
        if unwatched is not None and unwatched > self.settings.times.deadtime + RESTART_TIME:
            self._was_away(unwatched)
        elif self.settings.virtual_ip is not None and not self.network.holds():
            self._was_away(self.settings.times.deadtime, "this server had dropped the address")
        self._spawn(self.keeper.run(), "keeper")
        self._spawn(self.books.run(), "poll")
        self._spawn(self._look_at_roles(), "look at roles")
        self._spawn(self.files.run(), "files")
        self._spawn(self.heartbeat.watch(self.books.told), "listen to Heartbeat")
        self._spawn(self._decide(), "decide")
        self._looked = self._loop.time()
        self._looking = self._loop.call_later(self._tick, self._look_around)
        self.wake()

    async def close(self) -> None:
        """Let go of everything, and leave the server in its role."""
        self._closing = True
        # The end of the program waits for its threads.
        self.keeper.give_up_following()
        if self._looking:
            self._looking.cancel()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            # What waits for a disk may never end.
            await asyncio.wait(list(self._tasks), timeout=DISK_PATIENCE)
        self.senses.stop()
        await self.link.close()
        await self.network.close()

    async def look_at_quarantine(self) -> list[dict[str, Any]]:
        self.quarantine = await asyncio.to_thread(self.postgres.quarantined)
        self.wake()
        return self.quarantine

    def _spawn(self, work: Any, name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._closing:
            _log.error("%s has ended: %s", task.get_name(), error, exc_info=error)
            # The log is written by a thread. Then systemd starts it again, and it takes up the work.
            time.sleep(0.2)
            os._exit(1)

    def _aside(self, name: str, work: Callable[[], None]) -> asyncio.Task[None]:
        """Have a thread work with the disk, which may hang; the next work of this name does not begin before."""
        self._disk_work = {other: task for other, task in self._disk_work.items() if not task.done()}
        running = self._disk_work.get(name)
        if running is None:
            running = self._disk_work[name] = self._spawn(self._on_disk(name, work), f"write {name}")
        return running

    async def _on_disk(self, name: str, work: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(work)
        except (OSError, ValueError) as error:
            self._complain(name, f"{name} cannot be written: {error}")
        else:
            self._complain(name, None)

    def _complain(self, about: str, text: str | None) -> None:
        """Log it when it is new; None: it is over."""
        if text is None:
            self._complaints.pop(about, None)
        elif self._complaints.get(about) != text:
            self._complaints[about] = text
            _log.error("%s", text)

    def reload(self) -> None:
        """Read the settings anew. Those that cannot be used are refused, and the old ones stay; what needs a restart says so."""
        try:
            settings = load()
        except SettingsError as error:
            self.settings_error = str(error)
            tell(Event.SETTINGS_REFUSED, reason=str(error))
        else:
            fixed = ("node", "peer_node", "links", "postgresql", "virtual_ip", "peer_port", "times", "limits", "paths", "default_active")
            changed = [name for name in fixed if getattr(settings, name) != getattr(self.settings, name)]
            self.settings_error = f"{', '.join(changed)} changed: 'systemctl restart ha_manager' takes it up" if changed else None
            self.settings = replace(settings, **{name: getattr(self.settings, name) for name in fixed})
            self.keeper.settings = self.settings
            self.files.take(self.settings)
            self.loaded = record.now()
            tell(Event.SETTINGS_LOADED)
        self.wake()

    # What is known

    def wake(self) -> None:
        """Something may have changed: decide anew."""
        self._wake.set()
        self.link.outdate()

    def _heard(self) -> None:
        """The peer link came, went, or brought news."""
        said = self.link.peer_status or {}
        receives = self.link.connected and said.get("role") == PASSIVE
        if receives != self._peer_receives:
            self._peer_receives = receives
            self.files.peer_changed(receives)
        if self.link.connected != self._was_connected:
            self._was_connected = self.link.connected
            if self.link.connected:
                tell(Event.PEER_CONNECTED, peer=self.settings.peer_node)
            else:
                tell(Event.PEER_UNREACHABLE, peer=self.settings.peer_node, reason=self.link.problem or "no beat on any link")
        theirs = self._their_record()
        self.store.adopt(theirs, of_its_active=theirs is not None and theirs.active == self.settings.peer_node)
        self._keep_record()
        # Who serves says whether there is a pause: one that was ended while this server was away is over here too.
        if said.get("role") == ACTIVE != self.role and "paused" in said and said["paused"] != self.pause.current:
            with suppress(OSError, ValueError, TypeError, KeyError):
                self.pause.set(said["paused"])
        self.wake()
        self.keeper.wake()

    def _keep_record(self) -> None:
        """It counts already; a restart is to know it too."""
        if self.store.unsaved:
            self._aside("record", self.store.keep)

    def _carrier_changed(self, interface: str, carrier: bool) -> None:
        self.senses.carrier_changed(interface, carrier)
        if carrier:
            self.link.poke()
        else:
            self._loop.call_later(CARRIER_GONE, self.wake)
        self.link.tell()
        self.wake()

    def _wanted(self) -> Wanted:
        present = self.senses.peer_present()
        latest = self._latest()
        # One that serves by an older record is about to give way: to follow it would discard what this server has.
        superseded = latest is not None and latest.active == self.settings.node
        return Wanted(
            role=None if self.changing else self.role,
            peer_active=self.senses.peer_active() and not superseded,
            peer_heard=present,
            peer_ready=present and bool((self.link.peer_status or {}).get("ready")),
        )

    def _their_record(self) -> record.Record | None:
        said = self.link.peer_status
        # Asked for several times a second, while the other server tells the same.
        if said is not self._record_heard_in:
            self._record_heard_in, self._record_heard = said, _record_in(said or {})
        return self._record_heard

    def _latest(self) -> record.Record | None:
        """The newer of the two servers' records."""
        return newest(self.store.record, self._their_record())

    def lag(self) -> int | None:
        """How many bytes this standby is behind what the active said last; None: not known."""
        database, theirs = self.keeper.database, (self.link.peer_status or {}).get("lsn")
        if database.state != "standby":
            return None
        if self.keeper.stream_seen is None:
            return None
        if not theirs or not database.received:
            return database.lag
        return max(0, lsn(theirs) - lsn(database.received))

    def situation(self) -> Situation:
        said = self.link.peer_status
        peer = None
        # One that has said nothing yet is nobody to agree with: without its record an old one here would look like the newest.
        if said is not None and self.senses.peer_present():
            peer = role.Peer(
                role=self.senses.peer_role(),
                record=self._their_record(),
                ready=bool(said.get("ready")),
                not_ready=str(said.get("not_ready") or ""),
                service_link=bool(said.get("service_link", True)),
                pings=said.get("pings"),
                system_id=said.get("system_id"),
                database=said.get("database"),
            )
        database = self.keeper.database
        return Situation(
            node=self.settings.node,
            peer_node=self.settings.peer_node,
            default_active=self.settings.default_active,
            role=self.role,
            deadtime=self.settings.times.deadtime,
            record=self.store.record,
            peer=peer,
            silent=self.senses.silent(),
            holding=self.books.gives,
            heartbeat_gone=self.books.gone_for,
            data=role.Data(
                state=database.state,
                complete=database.complete and not self.keeper.following,
                lag=self.lag(),
                system_id=database.system_id,
                trouble=self.keeper.trouble,
            ),
            service_link=self.senses.service_link(CARRIER_GONE if self.role == ACTIVE else 0.0),
            pings=self.senses.pings(),
            served_elsewhere=self.senses.served_elsewhere,
            claimed_elsewhere=self.senses.claimed_elsewhere(),
            sees_less=self.senses.sees_less(),
            synchronous=self.settings.synchronous or bool((said or {}).get("synchronous")),
            looked=self.senses.looked(),
            paused=self.pause.current is not None,
            stopped=self.stopped,
            max_lag=self.settings.limits.max_lag,
            heartbeat_grace=self.settings.limits.heartbeat_grace,
        )

    def _beat(self) -> dict[str, Any]:
        now = self.situation()
        ready, why = readiness(now) if self.role != ACTIVE else (False, "it is active")
        database = self.keeper.database
        return {
            "role": self.role,
            "state": self.state(),
            "record": record.told(self.store.record),
            "ready": ready,
            "not_ready": why,
            "service_link": now.service_link,
            "down": self.senses.down_here(),
            "pings": now.pings,
            "holding": self.books.holding,
            "system_id": database.system_id,
            "lsn": database.lsn,
            "database": database.state,
            "streaming": database.streaming,
            "synchronous": self.settings.synchronous,
            "following": self.keeper.following,
            "quarantined": sum(not kept["acknowledged"] for kept in self.quarantine),
            "paused": self.pause.current,
        }

    def state(self) -> str:
        if self.transition and self.transition["outcome"] == "running":
            return str(self.transition["kind"])
        if self.keeper.following:
            return "following"
        if self.role == PASSIVE and self.verdict.code == "ISOLATED":
            return "fenced"
        if self._refuses():
            return "refusing"
        return "steady"

    def _refuses(self) -> bool:
        """Heartbeat gave its resources to this server, nobody else is known to serve, and this server does not."""
        return self.role != ACTIVE and self.books.holding and not self.senses.peer_active()

    # The decision

    async def _decide(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._decide_once()

    def _look_around(self) -> None:
        """A few times in deadtime: is somebody silent, and did this server stand still?"""
        now = self._loop.time()
        gap, self._looked = now - self._looked - self._pause, now
        if gap > 0.6 * self.settings.times.deadtime:
            if self.role != ACTIVE:
                # What waited in the sockets meanwhile says nothing of now.
                if self._doubting is not None:
                    # What is answered to that was said before this.
                    self._doubting.cancel()
                self._doubting = self._spawn(self._ask_whether_heard(self._contact_before), "ask anew")
            else:
                self._was_away(gap)
        self._contact_before = self.senses.look(self.role, self._away)
        self._pause = self._until_next_look()
        self._looking = self._loop.call_later(self._pause, self._look_around)
        if not self._calm():
            self.wake()

    def _until_next_look(self) -> float:
        """Seconds. Where there is time, together with a beat: at rest a wake-up costs more than the look."""
        pause, beat, now = self.senses.next_look(), self.link.next_beat, self._loop.time()
        return beat - now if pause == self._tick and beat is not None and 0 < beat - now <= self._tick else pause

    def _was_away(self, gap: float, why: str | None = None) -> None:
        """Nobody is served from an active server that did not look around for so long until it is known whether the other one took over."""
        if self.role == ACTIVE and self.pause.current is None:
            before, self._absence = self._absence, Absence(gap, self._drop_address())
            if before.end():
                self._absence = Absence(max(gap, before.gap), self._absence.held or before.held)
            self._away = True
            why = why or f"this server stood still for {gap:.1f} s"
            self._absence.asking = self._spawn(self._stood_still(self._absence, why), "stood still")

    def _calm(self) -> bool:
        """Nothing has come up, and nothing that time alone brings can: no need to look at everything again."""
        settled = self.role is not None and self.role == self.verdict.role and self.changing is None
        reviewed = self._loop.time() - min(self._decided, self._status_at) < REVIEW
        return settled and reviewed and self.redundant is not False and not self.senses.evidence.running

    async def _decide_once(self) -> None:
        self._decided = self._loop.time()
        # Once more where it could not be written, or came while another one was.
        self._keep_record()
        self._route()
        if not self._away:
            # Who may have been superseded lets no commit go on alone.
            self.synchronous.follow(self.role == ACTIVE and self.changing is None, self._their_record())
        if self.changing is None:
            await self._act(judge(self.situation()))
            self._decisions += 1
            self._keep_address()
        elif self.role == ACTIVE and (verdict := judge(self.situation())).act == FENCE:
            self._fence_at_once(verdict)
        # The steps that follow a change of role install the files that came from the other server: before that none goes there.
        busy = self.changing is not None or (self.finishing is not None and not self.finishing.done())
        self.files.follow(None if busy else self.role)
        self.books.follow(self.role, changing=self.changing is not None, stopped=self.stopped)
        self._write()
        async with self.settled:
            self.settled.notify_all()

    def _fence_at_once(self, verdict: Verdict) -> None:
        """The change that is under way ends the service soon, or is judged when it has ended: that may be too late."""
        if self._drop_address():
            tell(Event.FENCED, node=self.settings.node, code=verdict.code, reason=verdict.reason)
        running = self.plan
        # Once the address is released nothing waits for the other server any more, and the database is stopped next.
        handing_over = running is not None and "hand_over" in running.steps and not running.begun("release_address")
        if running is not None and handing_over and running.given_up is None:
            # It waits for a server that cannot be heard, with a database that takes writes.
            running.give_up(f"{verdict.code}: {verdict.reason}")

    def _keep_address(self) -> None:
        """The active server has the address, whoever took it away."""
        address = self.settings.virtual_ip
        serves = self.role == ACTIVE == self.verdict.role and self.changing is None and self.keeper.database.state == "primary"
        if address is None or not serves or self._away or self.network.holds():
            return
        if (wait := self._raised_at + RAISE_AGAIN - self._loop.time()) > 0:
            self._loop.call_later(wait, self.wake)
            return
        self._raised_at = self._loop.time()
        _log.warning("%s was taken away from this active server: it is raised again", address)
        try:
            self.network.raise_address()
        except NetworkError as error:
            _log.error("%s cannot be raised: %s", address, error)
        else:
            self.network.announce()

    def _route(self) -> None:
        dead = self.senses.dead_links()
        if dead - self._dead_links:
            self._spawn(self.keeper.route(dead, self.role == ACTIVE), "route")
        self._dead_links = dead

    async def _act(self, verdict: Verdict) -> None:
        if (verdict.role, verdict.code) != (self.verdict.role, self.verdict.code):
            self.since = record.now()
        self.verdict = verdict
        self._tell_refusal(verdict)
        if verdict.code == "INCOMPLETE_COPY" and self.keeper.following and not self.senses.peer_present():
            self.keeper.give_up_following()
        if verdict.act == GIVE:
            await self._give()
            if self.changing is not None:
                # An operator's word has come meanwhile.
                return
        if verdict.role is None or verdict.role == self.role:
            return
        if verdict.act != FENCE and self._loop.time() < self._not_before[_attempt(verdict)]:
            return
        if verdict.role == ACTIVE:
            trigger = {"TAKE_OVER": "take_over", "FIRST_START": "boot"}.get(verdict.code, "boot" if self.role is None else "resume")
            self.change(ACTIVE, trigger, verdict)
        elif self.role == ACTIVE and verdict.act == HAND_OVER:
            self.change(PASSIVE, "planned", verdict, graphs.ABANDON if verdict.code == "DISK_HANGS" else graphs.HAND_OVER)
        else:
            self.change(PASSIVE, "fence" if verdict.act == FENCE else "boot" if self.role is None else "peer", verdict)

    async def _give(self) -> None:
        """This server is the one to serve and cannot: the other one shall."""
        mine = self._latest()
        if mine is not None and mine.active == self.settings.node:
            peer = self.settings.peer_node
            await self._put_down("gift", mine, lambda now: now.claimed_by(peer) if now.given else now.given_to(peer, None))
            self.link.tell()

    def _drop_address(self) -> bool:
        try:
            return self.network.drop_address()
        except NetworkError as error:
            _log.error("%s", error)
            return False

    def _tell_refusal(self, verdict: Verdict) -> None:
        code = verdict.code if self._refuses() and verdict.role != ACTIVE else None
        if code and code != self._told_refusal:
            tell(Event.REFUSED, node=self.settings.node, code=verdict.code, reason=verdict.reason)
        self._told_refusal = code

    def change(
        self, to: str, trigger: str, verdict: Verdict, graph: graphs.Graph | None = None, world: World | None = None
    ) -> plan.Plan[World]:
        """Begin a transition. Nothing is awaited here, so that no two can begin."""
        assert self.changing is None
        if self.finishing is not None:
            self.finishing.cancel()
        kind = "becoming_active" if to == ACTIVE else "becoming_passive"
        steps = graph or (graphs.BECOME_ACTIVE if to == ACTIVE else graphs.FENCE)
        transition = plan.begin(
            node=self.settings.node,
            kind=kind,
            trigger=trigger,
            code=verdict.code,
            reason=verdict.reason,
            counter=self.store.record.counter if self.store.record else 0,
            steps=steps,
        )
        unfinished = self.journal.load()
        if unfinished and unfinished.get("kind") == kind:
            transition |= {name: unfinished[name] for name in ("id", "trigger", "started", "reason", "code")}
            transition["resumed"] = int(unfinished.get("resumed", 0)) + 1
            tell(Event.TRANSITION_RESUMED, node=self.settings.node, kind=kind, resumed=transition["resumed"])
        self.transition = transition
        self._steps_told = set()
        self.transitions += 1
        self.plan = plan.Plan(steps, transition, self.journal, self._step_told)
        if world is None:
            world = self.world()
            world.forced = trigger == "forced"
            mine = self.store.record
            if to == ACTIVE and trigger != "forced" and mine is not None and mine.active == self.settings.node and mine.unfinished:
                world.lsn = mine.switch_lsn
        self.changing = self._spawn(self._carry_out(self.plan, to, verdict, world), kind)
        return self.plan

    def world(self) -> World:
        return World(
            settings=self.settings,
            postgres=self.postgres,
            network=self.network,
            heartbeat=self.heartbeat,
            link=self.link,
            store=self.store,
            files=self.files,
            installs=self.installs,
            mark=status.mark,
            objection=self._objection,
            dead_links=self.senses.dead_links(),
        )

    def _doubt(self, verdict: Verdict) -> None:
        """When this server can be heard of again and the other one cannot, that one may have served meanwhile."""
        now, mine = self.situation(), self.store.record
        could = now.silent is not None and now.silent <= now.patience + self._tick + LEASE_MARGIN
        if mine is None or mine.active != self.settings.node or not could or (self.settings.synchronous and not mine.in_sync):
            return
        if verdict.code != "STOPPED":
            # No disk is waited for: until PostgreSQL has ended, it takes writes.
            self.store.doubt(mine)
            self._keep_record()

    async def _put_down(self, name: str, mine: record.Record, change: Callable[[record.Record], record.Record]) -> None:
        def write() -> None:
            self.store.update(mine, change)

        await asyncio.wait({self._aside(name, write)}, timeout=DISK_PATIENCE)

    def _objection(self) -> str | None:
        """Why this server would have to be fenced at once if it began to serve now, or not be the only one that serves."""
        now = self.situation()
        if now.peer and now.peer.role == ACTIVE and not (now.peer.record and now.peer.record.active == self.settings.node):
            return f"PEER_ACTIVE: {self.settings.peer_node} still serves"
        verdict = judge(replace(now, role=ACTIVE))
        return f"{verdict.code}: {verdict.reason}" if verdict.act == FENCE else None

    async def _carry_out(self, running: plan.Plan[World], to: str, verdict: Verdict, world: World) -> bool:
        transition = running.transition
        previous = self.role
        kind = transition["kind"]
        names = {"node": self.settings.node, "kind": kind, "code": verdict.code, "reason": verdict.reason}
        tell(Event.TRANSITION_STARTED, trigger=transition["trigger"], **names)
        if verdict.act == FENCE:
            tell(Event.FENCED, node=self.settings.node, code=verdict.code, reason=verdict.reason)
        # The address first, whatever PostgreSQL is busy with.
        if to == PASSIVE and verdict.act == FENCE:
            self._drop_address()
            self._doubt(verdict)
        try:
            async with self.keeper.hands_off():
                work = self._spawn(running.run(world), "plan")
                good = await self._reached(running, ROLE_IS_THERE[to])
                if good:
                    self._became(to, previous, verdict)
                good = await self._reached(running, SERVICE[to]) and good
                if not good:
                    await self.keeper.look()
                    work.cancel()
                    await asyncio.wait({work})
                    running.end("failed")
                    if to == ACTIVE and self.role != ACTIVE:
                        await self._give_up_claim(world)
        finally:
            self.changing = None
            self.plan = None
            self.wake()
        if good:
            self._failed_in_a_row[_attempt(verdict)] = 0
            # What comes after the role is there (the Manager, the policy server) may take its time, and must not keep this
            # server from being judged, nor its PostgreSQL from being looked after.
            self.finishing = self._spawn(self._finish(running, work, names), f"finish {kind}")
            # Only then files are copied.
            self.finishing.add_done_callback(lambda _finished: self.wake())
            return True
        # Each kind by itself: a server that serves again after a hand-over that failed has not handed over.
        kind_of_attempt, moment = _attempt(verdict), self._loop.time()
        before = 0 if moment - self._not_before[kind_of_attempt] > 2 * LONGEST_RETRY else self._failed_in_a_row[kind_of_attempt]
        self._failed_in_a_row[kind_of_attempt] = before + 1
        self._not_before[kind_of_attempt] = moment + min(RETRY * 2**before, LONGEST_RETRY)
        reason = ": ".join(plan.failure(transition) or ("?", "?"))
        tell(Event.TRANSITION_FAILED, node=names["node"], kind=kind, seconds=transition["seconds"], reason=reason)
        # Whatever it is now, it is decided anew. One that was given up for a fence is still active, for the fence to end it.
        if self.role == previous and running.given_up is None:
            self._set_role(None)
        await self._keep_in_mind(transition)
        return False

    async def _reached(self, running: plan.Plan[World], names: tuple[str, ...]) -> bool:
        """Wait for the end of these steps; False where one fails that the service cannot do without."""
        good = True
        for name in names:
            if name in running.steps:
                good = (await running.reached(name) or not running.steps[name].essential) and good
        return good

    async def _finish(self, running: plan.Plan[World], work: asyncio.Task[bool], names: dict[str, Any]) -> None:
        """The end of a change of role whose service is there, or away. Cancelled when the next change begins."""
        transition = running.transition
        try:
            await asyncio.wait({work})
        finally:
            if not work.done():
                work.cancel()
                # With this ha_manager its journal stays, by which the next one carries it on.
                if not self._closing:
                    running.end("interrupted")
                    self._add_to_timeline(transition)
            if transition["outcome"] != "running":
                seconds, outcome = transition["seconds"], transition["outcome"]
                tell(Event.TRANSITION_ENDED, node=names["node"], kind=names["kind"], outcome=outcome, seconds=seconds)
        await self._see_to_installs(transition)
        await self._keep_in_mind(transition)

    async def _see_to_installs(self, transition: dict[str, Any]) -> None:
        """What could not be installed is an operator's from now on."""
        for step in transition["steps"]:
            name, state, reason = step["name"], step["state"], step["reason"]
            if state == plan.FAILED and name in self.installs.due:
                await asyncio.to_thread(
                    self.installs.failed, name, f"{name}: {reason}: what {self.settings.peer_node} had left here is not in its place"
                )
                self.wake()

    async def _keep_in_mind(self, transition: dict[str, Any]) -> None:
        await asyncio.wait({self._add_to_timeline(transition)}, timeout=DISK_PATIENCE)

    def _add_to_timeline(self, transition: dict[str, Any]) -> asyncio.Task[None]:
        # The next one may come while a slow disk still works on this one.
        return self._aside(f"timeline ({transition['id']})", lambda: self.timeline.add(transition))

    def _became(self, to: str, previous: str | None, verdict: Verdict) -> None:
        self._set_role(to)
        tell(
            Event.ROLE_CHANGED, node=self.settings.node, role=to, previous=previous or "undecided", code=verdict.code, reason=verdict.reason
        )
        self.link.tell()
        self.wake()

    def _set_role(self, to: str | None) -> None:
        self.role = to
        if to:
            (self.run_folder / "role").write_text(to)
            if to == ACTIVE and self.settings.virtual_ip:
                (self.run_folder / "address").write_text(str(self.settings.virtual_ip))
        else:
            (self.run_folder / "role").unlink(missing_ok=True)

    def _drop_former_address(self) -> None:
        """Where the pair was given another virtual IP, the old one goes."""
        former = self._read(self.run_folder / "address").strip()
        if former and former != str(self.settings.virtual_ip):
            Network(self.settings.links, IPv4Interface(former), ()).drop_address()
            if self.role == ACTIVE:
                self._set_role(ACTIVE)

    async def _give_up_claim(self, world: World) -> None:
        """A server that could not become active takes its word back, counting on: the other one may go by it."""
        self._drop_address()
        mine, previous = self.store.record, world.previous
        if mine is None or mine.active != self.settings.node or previous is None:
            return
        if previous.given:
            # The other one waits for the answer, and goes on then: this one must not, whatever it has become.
            await self._put_down("claim", mine, lambda now: now.claimed_by(self.settings.peer_node))
        elif self.keeper.database.state != "primary":
            await self._put_down("claim", mine, lambda now: replace(previous, counter=now.counter + 1, changed=record.now()))

    def _step_told(self) -> None:
        transition = self.transition
        if transition is None:
            return
        for step in transition["steps"]:
            if step["state"] in (plan.DONE, plan.SKIPPED, plan.FAILED) and step["name"] not in self._steps_told:
                self._steps_told.add(step["name"])
                event = {plan.DONE: Event.STEP_DONE, plan.SKIPPED: Event.STEP_SKIPPED, plan.FAILED: Event.STEP_FAILED}[step["state"]]
                if event is Event.STEP_FAILED:
                    self.failures[step["name"]] = self.failures.get(step["name"], 0) + 1
                tell(event, kind=transition["kind"], step=step["name"], seconds=step["seconds"], reason=step["reason"])
        self.wake()

    # What is asked and watched over

    async def _look_at_roles(self) -> None:
        """systemd watches over what the Manager runs; what has failed for good is told, and files that nobody could go by at the next change."""
        while True:
            await asyncio.sleep(ROLES)
            mode, failed = self.role or manager_ctl.WAITING, self.failed_units
            unreadable = await asyncio.to_thread(manager_ctl.unreadable)
            try:
                failed = await units.failed(await asyncio.to_thread(manager_ctl.units_to_run, mode))
            except (UnitError, manager_ctl.ManagerError) as error:
                _log.debug("the units of the roles: %s", error)
            if (failed, unreadable) != (self.failed_units, self.unreadable_roles):
                self.failed_units, self.unreadable_roles = failed, unreadable
                self.wake()

    async def gate(self, action: str) -> dict[str, Any]:
        if action not in ("start", "stop"):
            raise Refused("USAGE", f"gate: {action!r} is not an action: start or stop")
        self.books.holding = action == "start"
        self.wake()
        self.link.tell()
        if action == "stop":
            # The address stays where the service is: Heartbeat's word alone does not move it.
            return {"role": self.role}

        decided = self._decisions

        def settled() -> bool:
            answered = self._told_refusal is not None or self.senses.peer_active()
            return self.role == ACTIVE or (self._decisions > decided and self.changing is None and answered)

        with suppress(TimeoutError):
            async with asyncio.timeout(GATE_PATIENCE), self.settled:
                await self.settled.wait_for(settled)
        return {"role": self.role, "code": self.verdict.code, "reason": self.verdict.reason}

    # Time

    async def _stood_still(self, absence: Absence, why: str) -> None:
        await self._ask_who_serves(absence.gap, why, absence.held)
        self._away = False
        self.wake()

    async def _ask_who_serves(self, gap: float, why: str, held: bool) -> None:
        _log.warning("%s: the address is away until %s is asked", why, self.settings.peer_node)
        # Within deadtime nobody took over; after it, the other one may be about to, and be heard only when the link is there again.
        until = self._loop.time() + (0.0 if gap < self.settings.times.deadtime else 3.0)
        answer: dict[str, Any] = {}
        elsewhere = False
        while not answer and not elsewhere:
            try:
                answer = await self.link.request("role", {}, 0.5)
            except PeerError:
                # Nobody to ask: whoever serves at the address answers for it.
                elsewhere = self.settings.virtual_ip is not None and bool(await self.network.holders(0.3))
                if self._loop.time() > until:
                    break
        latest = newest(self.store.record, _record_in(answer))
        superseded = latest is not None and latest.active != self.settings.node
        serving = not superseded and not elsewhere and answer.get("role") != ACTIVE
        if serving and self.role == ACTIVE and self.changing is None:
            if held:
                self.network.raise_address()
                self.network.announce()
        elif self.role == ACTIVE and self.changing is None:
            self.change(
                PASSIVE,
                "fence",
                Verdict(PASSIVE, "STOOD_STILL", f"{why}, and the other one took over", FENCE),
            )

    async def _ask_whether_heard(self, before: float | None) -> None:
        """This server, which does not serve, stood still: only an answer to a question of now tells that the other one is there."""
        self.senses.doubt(before)
        while self.senses.doubted:
            with suppress(PeerError):
                await self.link.request("role", {}, 1.0)
                self.senses.trust()
                return
            await asyncio.sleep(self._tick)

    # What is told

    def redundancy(self) -> list[str]:
        """Why the other server could not take over right now with everything; empty: it could."""
        peer, present = self.link.peer_status or {}, self.senses.peer_present()
        name = self.settings.peer_node
        if not present:
            return [f"{name} cannot be heard"]
        if self.role == ACTIVE:
            because = [] if self.keeper.database.streaming else [f"{name} does not replicate"]
            return because or ([] if peer.get("ready") else [f"{name} is not ready: {peer.get('not_ready') or 'it does not say why'}"])
        if self.role == PASSIVE and peer.get("role") == ACTIVE:
            ready, why = readiness(self.situation())
            return [] if ready else [f"this server is not ready: {why}"]
        return ["nobody is active"]

    def document(self) -> dict[str, Any]:
        return document(self)

    def _write(self) -> None:
        said = self.document()
        because = said["not_redundant_because"]
        now = self._loop.time()
        if self.role != ACTIVE:
            self._lost_redundancy = None
        elif because and self._lost_redundancy is None:
            self._lost_redundancy = now
            tell(Event.REDUNDANCY_LOST, reason="; ".join(because))
        elif not because and self._lost_redundancy is not None:
            tell(Event.REDUNDANCY_REGAINED, seconds=round(now - self._lost_redundancy, 1))
            self._lost_redundancy = None
        self.redundant = not because
        # The clocks in it go on by themselves; what they belong to is worth a write.
        comparable = json.dumps(
            {
                **said,
                "time": None,
                "peer": {**said["peer"], "silent_seconds": None},
                "postgresql": {**said["postgresql"], "lsn": None},
                "files": ageless(said["files"]),
            }
        )
        if comparable == self._written and now - self._status_at < STATUS_AGE:
            return
        if (writing := self._disk_work.get("status")) is not None and not writing.done():
            self._unwritten = True
            return
        self._written, self._status_at = comparable, now
        folder = self.settings.paths.textfile
        # As it is now, for a thread: JSON copies it in a tenth of deepcopy's time.
        text = json.dumps(said)

        def write() -> None:
            copy = json.loads(text)
            status.write(copy)
            if folder:
                metrics.write(metrics.render(copy), Path(folder))

        self._aside("status", write).add_done_callback(self._status_written)

    def _status_written(self, _task: asyncio.Task[None]) -> None:
        if self._unwritten:
            self._unwritten = False
            self.wake()

    @staticmethod
    def _read(path: Path) -> str:
        try:
            return path.read_text()
        except OSError:
            return ""


def _attempt(verdict: Verdict) -> str:
    """What a verdict has done, of what may fail and be tried again later."""
    return HAND_OVER if verdict.act == HAND_OVER else str(verdict.role)


def _record_in(said: Mapping[str, Any]) -> record.Record | None:
    """The record that the other server told, if it told one."""
    with suppress(ValueError, TypeError):
        return record.parse(said["record"]) if said.get("record") else None
    return None
