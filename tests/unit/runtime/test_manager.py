# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Two real managers, with a real peer link between them, on machines whose PostgreSQL, network and Heartbeat are made up."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swg_ha import keeper as keeper_module
from swg_ha import manager as manager_module
from swg_ha import senses as senses_module
from swg_ha import status
from swg_ha.control import Refused
from swg_ha.manager import Manager
from swg_ha.plan import Step, StepFailed
from swg_ha.postgres import Database, DatabaseTrouble, Followed, PostgresError
from swg_ha.role import ACTIVE, FENCE, HAND_OVER, PASSIVE, Verdict
from swg_ha.settings import Link, Paths, Postgresql, Settings, Times
from swg_ha.shared import module_xml
from swg_ha.shared.module_xml import ReplicatedFile
from swg_ha.steps import graphs, staged_files

from .test_peer import introduce, make_identity

DEADTIME = 0.8
PORT = 45890


class Machine:
    """A server: its disk, and a PostgreSQL of which only the position in the WAL is real. other is set by the pair."""

    def __init__(self, node: str, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        self.other: Machine
        self.state = "stopped"
        self.lsn = 100
        self.timeline = 1
        self.waits = False
        self.checkpointer_rests = True
        self.ends_cleanly = True
        self.promotion: Exception | None = None
        self.disk = threading.Event()
        self.disk.set()
        self.pings: int | None = None
        self.held = False
        self.address_elsewhere = False
        self.manager: Manager

    @property
    def streams(self) -> bool:
        pair = {self.state, self.other.state}
        return pair == {"primary", "standby"} and self.timeline == self.other.timeline

    def flow(self) -> None:
        if self.state == "standby" and self.streams:
            self.lsn = self.other.lsn


def text(lsn: int) -> str:
    return f"0/{lsn:X}"


class FakePostgres:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.cluster = SimpleNamespace(standby_signal=machine.data / "standby.signal")
        self.dead_links: frozenset[str] = frozenset()

    def observe(self, deadline: float = 2) -> Database:
        machine = self.machine
        machine.flow()
        streams = machine.streams
        return Database(
            machine.state,
            system_id="42",
            timeline=machine.timeline,
            lsn=text(machine.lsn),
            received=text(machine.lsn) if machine.state == "standby" else None,
            streaming=streams,
            heard=0.0 if streams else None,
            lag=machine.lsn - machine.other.lsn if machine.state == "primary" and streams else 0,
            synchronous=machine.waits,
            complete=True,
        )

    def postmaster(self) -> None:
        return None

    def check(self, deadline: float) -> None:
        return

    probe_disk = checkpoint = check

    def start(self, role: str, deadline: float) -> None:
        self.machine.state = role

    def promote(self, deadline: float) -> tuple[int, str]:
        if self.machine.promotion:
            raise self.machine.promotion
        self.machine.timeline += 1
        self.machine.state = "primary"
        self.cluster.standby_signal.unlink(missing_ok=True)
        return self.machine.timeline, text(self.machine.lsn)

    def wait_replayed(self, position: str, deadline: float) -> None:
        self.machine.flow()
        if text(self.machine.lsn) != position:
            raise PostgresError(f"it has replayed up to {text(self.machine.lsn)}, and not to {position}")

    def stop(self, deadline: float) -> str | None:
        self.machine.other.flow()
        self.machine.state = "stopped"
        return text(self.machine.lsn) if self.machine.ends_cleanly else None

    def kill(self) -> None:
        self.machine.state = "stopped"

    def name_standby(self, wait: bool) -> None:
        self.machine.waits = wait

    def waits_from(self, deadline: float) -> str | None:
        return text(self.machine.lsn) if self.machine.checkpointer_rests else None

    def follow(self, progress: Callable[[str], None], cancel: threading.Event) -> Followed:
        if self.machine.other.state != "primary":
            raise PostgresError("nobody to follow")
        self.cluster.standby_signal.touch()
        self.machine.state, self.machine.timeline, self.machine.lsn = "standby", self.machine.other.timeline, self.machine.other.lsn
        return Followed("rewind")

    def quarantined(self) -> list[dict[str, Any]]:
        return []

    def prune(self) -> list[str]:
        return []


class FakeNetwork:
    def __init__(self, machine: Machine, links: tuple[Link, ...]) -> None:
        self.machine = machine
        self.virtual_ip = IPv4Interface("192.0.2.10/24")
        self.carriers = {link.interface: True for link in links}

    async def start(self, changed: Callable[[str, bool], None], moved: Callable[[], None]) -> None:
        return

    async def close(self) -> None:
        return

    def holds(self) -> bool:
        return self.machine.held

    def raise_address(self) -> None:
        self.machine.held = True

    def drop_address(self) -> bool:
        held, self.machine.held = self.machine.held, False
        return held

    def announce(self) -> None:
        return

    defend = announce

    def neighbour(self, address: str) -> None:
        return None

    async def holders(self, timeout: float) -> set[str]:
        await asyncio.sleep(0.05)
        return {"00:00:5e:00:53:02"} if self.machine.other.held else set()


class FakeEvidence:
    def __init__(self, network: FakeNetwork) -> None:
        self.network = network
        self.running = False
        self.announced: set[str] = set()
        self.held_by: set[str] = set()

    def start(self, period: float, patience: float) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    @property
    def sees(self) -> bool | None:
        return None if self.network.machine.pings is None else self.network.machine.pings > 0

    @property
    def held(self) -> bool:
        return self.network.machine.address_elsewhere

    def seen_nodes(self) -> set[str]:
        return {f"192.0.2.{number}" for number in range(self.network.machine.pings or 0)}


class FakeHeartbeat:
    def __init__(self, node: str, peer_node: str, interfaces: list[str]) -> None:
        self.node, self.peer_node = node, peer_node
        self.holds: str | None = None

    async def rscstatus(self) -> str | None:
        return self.holds

    poll = rscstatus

    async def peer(self) -> None:
        return None

    async def take(self) -> bool:
        self.holds = "all"
        return True

    async def give(self) -> bool:
        self.holds = "none"
        return True

    start = stop = restart = give

    def running(self) -> bool:
        return True

    async def watch(self, told: Callable[[str, str], None]) -> None:
        await asyncio.Event().wait()


class Pair:
    def __init__(self, folder: Path, identities: dict[str, Path], synchronous: bool) -> None:
        self.one, self.two = Machine("ps1", folder / "ps1"), Machine("ps2", folder / "ps2")
        self.one.other, self.two.other = self.two, self.one
        self.synchronous = synchronous
        for machine in (self.one, self.two):
            introduce(machine.folder / "trust", identities[machine.node], identities[machine.other.node])

    def settings(self, machine: Machine) -> Settings:
        mine, theirs = ("127.0.0.2", "127.0.0.3") if machine is self.one else ("127.0.0.3", "127.0.0.2")
        return Settings(
            enabled=True,
            node=machine.node,
            peer_node=machine.other.node,
            default_active="ps1",
            virtual_ip=IPv4Interface("192.0.2.10/24"),
            peer_port=PORT + os.getpid() % 4000,
            connection_timeout=1,
            heartbeat_interval=60,
            passive_interval=1,
            links=(Link("eth0", mine, 8, theirs),),
            postgresql=Postgresql("15", "main", str(machine.data), 5432, "u", "p", "a", "b"),
            times=Times(0.2, DEADTIME, 5.0, ("192.0.2.1",)),
            synchronous=self.synchronous,
            paths=Paths(trust=str(machine.folder / "trust"), conf_ready="/nonexistent", staged=str(machine.folder / "ha")),
        )

    async def start(self, machine: Machine) -> None:
        manager = machine.manager = Manager(self.settings(machine), machine.folder / "run", machine.folder / "state")
        await manager.start()

    async def begin(self) -> None:
        """ps1 active, ps2 its standby."""
        for machine in (self.one, self.two):
            await self.start(machine)
        self.two.manager.keeper.database = replace(self.two.manager.keeper.database, state="stopped")
        await until(lambda: self.one.manager.role == ACTIVE and self.one.held, "ps1 is active", 20)
        await until(lambda: self.two.state == "standby" and self.two.manager.role == PASSIVE, "ps2 follows", 20)
        await until(lambda: self.one.manager.redundant and self.one.manager.store.record.in_sync, "redundant", 20)  # type: ignore[union-attr]

    async def redundant_by(self, machine: Machine) -> None:
        await until(lambda: machine.manager.redundant, "redundant again", 20)

    async def kill_first_one(self) -> None:
        """ps1 drops its address, its ha_manager is killed, and ps2 takes over; PostgreSQL on ps1 goes on."""
        await asyncio.sleep(0.6)
        await self.one.manager.close()
        self.one.held = False
        self.two.manager.books.told("ps1", "dead")
        await until(lambda: self.two.held, "ps2 serves")

    async def lose(self, machine: Machine) -> None:
        """Power cut: nothing of it is left but its disk, and its address is nowhere."""
        await machine.manager.close()
        machine.state, machine.held = "stopped", False
        for left in (machine.folder / "run").iterdir():
            left.unlink()


async def until(condition: Callable[[], object], what: str, within: float = 10.0) -> None:
    end = asyncio.get_running_loop().time() + within
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"not within {within} s: {what}"
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("identities")
    return {node: make_identity(folder / node, node) for node in ("ps1", "ps2")}


Test = Callable[[Pair], Awaitable[None]]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in which to sync takes no time, whatever else the disk is busy with."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)


@pytest.fixture
def run(memory: Path, identities: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    machines: dict[str, Machine] = {}
    monkeypatch.setattr(manager_module, "Postgres", lambda settings: FakePostgres(machines[settings.node]))
    monkeypatch.setattr(
        manager_module,
        "Network",
        lambda links, address, pings: FakeNetwork(next(m for m in machines.values() if address_of(m) == links[0].address), links),
    )
    monkeypatch.setattr(manager_module, "Heartbeat", FakeHeartbeat)
    monkeypatch.setattr(senses_module, "Evidence", FakeEvidence)
    monkeypatch.setattr(senses_module, "serves", lambda address, port, deadline: True)
    monkeypatch.setattr(status, "write", lambda document: None)
    monkeypatch.setattr(status, "mark", lambda role: None)
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)

    def address_of(machine: Machine) -> str:
        return "127.0.0.2" if machine.node == "ps1" else "127.0.0.3"

    @asynccontextmanager
    async def pair_of(synchronous: bool) -> AsyncIterator[Pair]:
        pair = Pair(memory, identities, synchronous)
        machines.update(ps1=pair.one, ps2=pair.two)
        try:
            await pair.begin()
            yield pair
        finally:
            for machine in machines.values():
                machine.disk.set()
                if not machine.manager._closing:
                    await machine.manager.close()

    def runner(test: Test, *, synchronous: bool = False) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(120), pair_of(synchronous) as pair:
                await test(pair)

        asyncio.run(bounded())
        assert not exits, "a task of ha_manager has ended"

    return runner


def test_the_passive_takes_over_and_the_old_active_follows(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        pair.one.lsn += 10
        await asyncio.sleep(0.6)
        await pair.lose(pair.one)
        pair.two.manager.books.told("ps1", "dead")
        await until(lambda: pair.two.held, "ps2 serves")
        assert pair.two.manager.store.record is not None
        counter = pair.two.manager.store.record.counter
        await pair.start(pair.one)
        await until(lambda: pair.two.manager.redundant, "redundant again", 20)
        assert pair.one.manager.role == PASSIVE
        assert pair.one.manager.store.record is not None
        assert (pair.one.manager.store.record.counter, pair.one.manager.store.record.active) == (counter, "ps2")

    run(test)


def test_a_hand_over_moves_everything_and_back(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        for old, new in ((pair.one, pair.two), (pair.two, pair.one)):
            old.lsn += 10
            done = await old.manager.requests.fail_over(False, lambda text: None)
            assert done["transition"]["outcome"] == "done"
            assert (new.manager.role, new.held, old.held, new.lsn, new.state) == (ACTIVE, True, False, old.lsn, "primary")
            assert new.manager.store.record is not None
            assert not new.manager.store.record.given
            await pair.redundant_by(new)

    run(test)


def test_a_hand_over_to_a_server_that_is_lost_ends_at_once_when_this_one_is_cut_off(run: Callable[..., None]) -> None:
    """It waits for the replication, with a database that takes writes, while the other server may take over."""

    async def test(pair: Pair) -> None:
        # Its PostgreSQL hangs, while its manager is still there to say that it is ready.
        pair.two.timeline = 0
        handing_over = asyncio.create_task(pair.one.manager.requests.fail_over(False, lambda text: None))
        await until(lambda: pair.one.manager.plan is not None and pair.one.manager.plan.begun("stream"), "it waits for the replication")
        assert pair.one.state == "primary"
        pair.one.pings = 0
        await pair.two.manager.link.close()
        # Much sooner than the step would give up, and than a failed change of role is tried again.
        await until(lambda: pair.one.state == "stopped" and not pair.one.held, "it serves no more", 1.9)
        with pytest.raises(Refused, match="ISOLATED"):
            await handing_over
        await until(lambda: pair.one.manager.role == PASSIVE, "it is passive", 10)
        kinds = [(each["kind"], each["trigger"], each["outcome"]) for each in pair.one.manager.timeline.transitions[:2]]
        assert ("becoming_passive", "planned", "failed") in kinds

    run(test)


def test_only_who_takes_over_installs_what_is_staged(run: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    license, other = tmp_path / "place/license", tmp_path / "place/other"
    listed = (ReplicatedFile(str(license), True, None, "root:root"), ReplicatedFile(str(other), True, None, "nobody-here:root"))
    (tmp_path / "module.xml").write_bytes(module_xml.render(module_xml.Settings(files_to_replicate=listed)))
    monkeypatch.setattr(staged_files, "MODULE_XML", tmp_path / "module.xml")

    def stage(machine: Machine, content: str) -> None:
        for path in (license, other):
            staged = machine.folder / "ha" / path.relative_to("/")
            staged.parent.mkdir(parents=True, exist_ok=True)
            staged.write_text(content)

    def problems(machine: Machine) -> list[str]:
        return [problem["code"] for problem in machine.manager.document()["problems"]]

    async def test(pair: Pair) -> None:
        stage(pair.one, "staged at ps1")
        stage(pair.two, "staged at ps2")
        assert not license.exists()
        await pair.one.manager.requests.fail_over(False, lambda text: None)
        await until(lambda: "staged_files" not in pair.two.manager.installs.due, "installed")
        assert license.read_text() == "staged at ps2" and not other.exists()
        await until(lambda: problems(pair.two) == ["STAGED_FILE_REFUSED"], "the status tells it")

        # A boot is no takeover, and the problem is still one after it.
        license.write_text("written since")
        await pair.redundant_by(pair.two)
        await pair.lose(pair.two)
        await pair.start(pair.two)
        await until(lambda: pair.two.manager.role == ACTIVE and pair.two.held, "ps2 serves again")
        await pair.redundant_by(pair.two)
        assert license.read_text() == "written since"
        assert problems(pair.two) == ["STAGED_FILE_REFUSED"]
        await pair.two.manager.requests.answer({"do": "acknowledge", "name": "staged_files"}, lambda text: None)
        assert problems(pair.two) == []
        with pytest.raises(Refused, match="nothing to acknowledge"):
            await pair.two.manager.requests.answer({"do": "acknowledge", "name": "staged_files"}, lambda text: None)

        await pair.two.manager.requests.fail_over(False, lambda text: None)
        await until(lambda: "staged_files" not in pair.one.manager.installs.due, "installed")
        assert license.read_text() == "staged at ps1"

    run(test)


@pytest.mark.parametrize("leaving", [False, True])
def test_without_a_clean_end_only_a_server_that_goes_down_hands_over(run: Callable[..., None], leaving: bool) -> None:
    async def test(pair: Pair) -> None:
        pair.one.ends_cleanly = False
        handing_over = pair.one.manager.requests.fail_over(False, lambda text: None, leaving=leaving)
        if leaving:
            await handing_over
            await until(lambda: pair.two.held, "ps2 serves")
            return
        with pytest.raises(Refused, match="did not end cleanly"):
            await handing_over
        await until(lambda: pair.one.held and pair.one.state == "primary", "ps1 serves on", 20)
        assert not pair.two.held

    run(test)


def test_what_could_not_be_installed_at_a_takeover_is_not_installed_at_a_boot(
    run: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staged_files, "MODULE_XML", tmp_path)

    async def test(pair: Pair) -> None:
        (pair.two.folder / "ha").mkdir()
        await pair.one.manager.requests.fail_over(False, lambda text: None)
        await until(lambda: "STAGED_NOT_INSTALLED" in str(pair.two.manager.document()["problems"]), "the status tells it")
        assert pair.two.manager.installs.due == frozenset()

    run(test)


def test_whoever_stops_watching_a_hand_over_stops_nothing_else(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        manager = pair.one.manager
        # Its PostgreSQL hangs: the replication is waited for.
        pair.two.timeline = 0
        handing_over = asyncio.create_task(manager.requests.fail_over(False, lambda text: None))
        await until(lambda: manager.plan is not None and manager.plan.begun("stream"), "it waits for the replication")
        handing_over.cancel()
        await asyncio.wait({handing_over})
        for _turn in range(3):
            before = manager._decided
            manager.wake()
            await until(lambda before=before: manager._decided != before, "it still decides", 20)
        pair.two.timeline = pair.one.timeline
        await until(lambda: manager.changing is None, "the hand-over has ended", 20)

    run(test)


def test_one_that_is_about_to_follow_a_server_that_is_lost_takes_over(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has is whole, and it waits for a stream that will not come."""

    def follow(postgres: FakePostgres, progress: Callable[[str], None], cancel: threading.Event) -> Followed:
        postgres.machine.timeline = postgres.machine.other.timeline
        cancel.wait(20)
        raise PostgresError("called off")

    async def test(pair: Pair) -> None:
        monkeypatch.setattr(FakePostgres, "follow", follow)
        pair.two.timeline = 0
        await until(lambda: pair.two.manager.keeper.following, "it follows")
        await pair.lose(pair.one)
        pair.two.manager.books.told("ps1", "dead")
        await until(lambda: pair.two.held and pair.two.state == "primary", "ps2 serves", 12)

    run(test)


def test_after_a_hand_over_that_failed_the_old_active_serves_and_the_other_one_knows(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        pair.two.promotion = PostgresError("no room")
        with pytest.raises(Refused, match="no room"):
            await pair.one.manager.requests.fail_over(False, lambda text: None)
        record = pair.two.manager.store.record
        assert record is not None
        assert record.active == "ps1"
        await until(lambda: pair.one.held and pair.one.state == "primary", "ps1 serves again", 20)
        assert not pair.two.held

    run(test)


def test_a_server_is_fenced_while_what_follows_from_its_role_is_still_under_way(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(world: Any) -> str:
        await asyncio.Event().wait()
        return ""

    steps = tuple(
        Step("manager", never, needs=("promote",), timeout=60) if step.name == "manager" else step for step in graphs.BECOME_ACTIVE
    )
    monkeypatch.setattr(graphs, "BECOME_ACTIVE", steps)

    async def test(pair: Pair) -> None:
        assert pair.one.manager.transition is not None
        assert pair.one.manager.transition["outcome"] == "running"
        assert pair.one.manager.changing is None
        pair.one.pings = 0
        await pair.two.manager.close()
        await until(lambda: not pair.one.held and pair.one.state == "stopped", "ps1 is fenced", 10)

        def interrupted() -> bool:
            done = [one["outcome"] for one in pair.one.manager.timeline.transitions if one["kind"] == "becoming_active"]
            return done == ["interrupted"]

        await until(interrupted, "it is on the record")

    run(test)


def test_one_that_was_killed_while_the_other_one_took_over_never_serves_again_by_itself(run: Callable[..., None]) -> None:
    """The watchdog kills an ha_manager that stood still with its server, before it can notice that."""

    async def test(pair: Pair) -> None:
        await pair.kill_first_one()
        await asyncio.sleep(DEADTIME + manager_module.RESTART_TIME)
        raised = []
        starting = asyncio.create_task(pair.start(pair.one))
        while pair.one.manager.role != PASSIVE or not starting.done():
            raised.append(pair.one.held)
            await asyncio.sleep(0.001)
        assert not any(raised)
        await pair.redundant_by(pair.two)

    run(test)


def test_one_that_dropped_the_address_and_was_killed_asks_before_it_serves(run: Callable[..., None]) -> None:
    """Thawed, it noticed that it had stood still; the watchdog killed it before it knew that the other one serves."""

    async def test(pair: Pair) -> None:
        await pair.kill_first_one()
        # By this file somebody has looked around all the time.
        contact = pair.one.folder / "run" / "contact"
        heard, _looked = contact.read_text().split()
        contact.write_text(f"{heard} {asyncio.get_running_loop().time():020.6f}")
        seen = []
        starting = asyncio.create_task(pair.start(pair.one))
        while pair.one.manager.role != PASSIVE or not starting.done():
            seen.append((pair.one.held, pair.one.waits, pair.two.state))
            await asyncio.sleep(0.001)
        assert set(seen) == {(False, True, "primary")}, "no address, no commit alone, and the other one serves on"
        await pair.redundant_by(pair.two)
        assert pair.two.held

    run(test, synchronous=True)


def test_what_was_answered_before_a_second_standstill_raises_no_address(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(pair: Pair) -> None:
        manager = pair.one.manager
        asked = asyncio.Event()
        answers: list[asyncio.Future[dict[str, Any]]] = []

        async def request(kind: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
            answers.append(asyncio.get_running_loop().create_future())
            asked.set()
            return await answers[-1]

        monkeypatch.setattr(manager.link, "request", request)
        for _standstill in range(2):
            asked.clear()
            manager._was_away(0.7)
            await asyncio.wait_for(asked.wait(), 10)
        assert manager._away and not pair.one.held
        if not answers[0].done():
            answers[0].set_result({"role": PASSIVE})
        await asyncio.sleep(0.1)
        assert manager._away and not pair.one.held, "that was said before the second one"
        for answer in answers[1:]:
            if not answer.done():
                answer.set_result({"role": PASSIVE})
        await until(lambda: pair.one.held and not manager._away, "the address is there again", 10)

    run(test)


def test_who_does_not_know_yet_what_happened_meanwhile_leaves_that_to_the_next_one(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        await asyncio.sleep(0.6)
        manager = pair.one.manager
        contact = pair.one.folder / "run" / "contact"
        manager._away = True
        before = contact.read_text()
        await asyncio.sleep(0.6)
        assert contact.read_text() == before
        manager._away = False
        await until(lambda: contact.read_text() != before, "it is written again", 10)

    run(test)


def test_nobody_follows_a_server_that_serves_by_an_older_record(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        await until(lambda: pair.two.manager._wanted().peer_active, "it is heard")
        mine = pair.two.manager.store.record
        assert mine is not None
        pair.two.manager.store.record = mine.claimed_by("ps2")
        assert not pair.two.manager._wanted().peer_active

    run(test)


def test_one_that_is_started_again_after_a_while_serves_on_where_nobody_took_over(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        await asyncio.sleep(0.6)
        await pair.one.manager.close()
        await asyncio.sleep(DEADTIME + manager_module.RESTART_TIME)
        await pair.start(pair.one)
        assert not pair.one.held
        await until(lambda: pair.one.held, "ps1 serves on", 20)
        assert pair.one.manager.role == ACTIVE

    run(test)


def test_the_passive_is_in_sync_only_once_commits_were_seen_to_wait_for_it(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        pair.one.checkpointer_rests = False
        await pair.lose(pair.two)
        await until(lambda: not pair.one.waits, "ps1 goes on alone", 20)
        await pair.start(pair.two)
        await until(lambda: pair.one.waits and pair.one.streams, "commits are to wait again", 20)
        await asyncio.sleep(1.5)
        assert pair.one.manager.store.record is not None and not pair.one.manager.store.record.in_sync
        pair.one.checkpointer_rests = True
        await until(lambda: pair.one.manager.store.record.in_sync, "ps2 is in sync", 20)  # type: ignore[union-attr]

    run(test, synchronous=True)


def test_one_that_was_cut_off_does_not_go_on_alone_when_the_other_one_may_have_served(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        pair.one.pings = 0
        await pair.lose(pair.two)
        await until(lambda: not pair.one.held and pair.one.manager.role == PASSIVE, "ps1 is fenced", 10)
        pair.one.pings = 1
        pair.one.manager.books.holding = True
        await until(lambda: pair.one.manager.verdict.code == "MAYBE_SUPERSEDED", "it says why")
        assert not pair.one.held
        await pair.start(pair.two)
        await until(lambda: pair.one.held and pair.one.manager.redundant, "ps2 says that it did not", 20)
        assert pair.one.manager.store.record is not None
        assert not pair.one.manager.store.record.doubtful

    run(test)


def test_a_hand_over_that_takes_its_time_ends_with_the_address_when_this_server_is_cut_off(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(world: Any) -> str:
        await asyncio.sleep(30)
        raise StepFailed("it took too long")

    steps = tuple(Step("checkpoint", slow, timeout=60) if step.name == "checkpoint" else step for step in graphs.PLANNED)
    monkeypatch.setattr(graphs, "PLANNED", steps)

    async def test(pair: Pair) -> None:
        handing = asyncio.create_task(pair.one.manager.requests.fail_over(False, lambda text: None))
        await until(lambda: pair.one.manager.changing is not None, "it begins")
        pair.one.pings = 0
        await pair.two.manager.close()
        await until(lambda: not pair.one.held, "the address is away", 10)
        with pytest.raises(Refused, match="checkpoint failed: ISOLATED"):
            await asyncio.wait_for(handing, 10)

    run(test)


def test_commits_go_on_alone_only_when_the_passive_cannot_take_over_any_more(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        await until(lambda: pair.one.waits, "commits wait", 20)
        heard: list[float] = []
        loop = asyncio.get_running_loop()
        await asyncio.sleep(2.5)
        await pair.lose(pair.two)
        heard.append(pair.one.manager.link.last_heard or 0)
        patience = pair.two.manager.situation().patience
        await until(lambda: not pair.one.waits, "commits go on", 20)
        assert loop.time() - heard[0] > patience + 0.2
        assert loop.time() - heard[0] < DEADTIME + 4.2
        assert pair.one.manager.store.record is not None
        assert not pair.one.manager.store.record.in_sync

    run(test, synchronous=True)


def test_a_full_or_hanging_disk_ends_nothing(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(pair: Pair) -> None:
        hang = threading.Event()

        def stuck(*arguments: Any) -> None:
            hang.wait(20)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(status, "write", stuck)
        for write in ("update", "keep"):
            monkeypatch.setattr(type(pair.one.manager.store), write, stuck)
        monkeypatch.setattr(type(pair.one.manager.timeline), "add", lambda timeline, transition: stuck())
        pair.one.pings = 0
        await pair.two.manager.close()
        await until(lambda: not pair.one.held, "ps1 is fenced", DEADTIME + 1.0)
        await until(lambda: pair.one.state == "stopped", "and takes no more writes", manager_module.DISK_PATIENCE / 2)
        assert pair.one.manager.store.record.doubtful, "it is decided anew by what the disk says"
        hang.set()
        await until(lambda: pair.one.manager.role == PASSIVE and pair.one.manager.changing is None, "it has settled")

    run(test)


def test_what_was_heard_is_written_though_that_came_to_nothing_at_first(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "REVIEW", 0.3)

    async def test(pair: Pair) -> None:
        store = pair.two.manager.store
        assert store.record is not None
        # As when the disk is full, or another record is being written, at the moment when it comes.
        assert store.adopt(replace(store.record, changed="later"), of_its_active=True)
        await until(lambda: not store.unsaved, "it is on the disk", 20)

    run(test)


def test_ha_stop_by_force_does_not_begin_again(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        await pair.lose(pair.two)
        await until(lambda: not pair.one.manager.senses.peer_present(), "ps2 is away")
        with pytest.raises(Refused, match="--force"):
            await pair.one.manager.requests.answer({"do": "stop"}, lambda text: None)
        assert pair.one.held
        await pair.one.manager.requests.answer({"do": "stop", "force": True}, lambda text: None)
        await asyncio.sleep(0.3)
        assert (pair.one.manager.role, pair.one.held, pair.one.manager.transitions) == (PASSIVE, False, 2)

    run(test)


def test_a_server_that_cannot_serve_gives_the_role_to_the_one_that_can(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        manager = pair.one.manager
        manager.keeper._set_trouble("DATABASE_DOWN", "PostgreSQL does not start")
        manager.change(PASSIVE, "fence", Verdict(PASSIVE, "ISOLATED", "it was cut off", FENCE))
        await until(lambda: pair.two.held and pair.two.manager.role == ACTIVE, "ps2 serves", 20)
        assert not pair.one.held

    run(test)


def test_what_was_given_up_is_told_before_the_pair_is_redundant(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"name": "diverged", "path": "/quarantine/diverged", "transactions": 3, "acknowledged": False}
    follow, tidied = FakePostgres.follow, threading.Event()

    async def test(pair: Pair) -> None:
        rewound: list[Machine] = []

        def rewind(postgres: FakePostgres, progress: Callable[[str], None], cancel: threading.Event) -> Followed:
            follow(postgres, progress, cancel)
            rewound.append(postgres.machine)
            return Followed("rewind", Path(kept["path"]))

        monkeypatch.setattr(FakePostgres, "follow", rewind)
        monkeypatch.setattr(FakePostgres, "quarantined", lambda postgres: [kept] if postgres.machine in rewound else [])
        # Which takes its time: it reads all that was given up.
        monkeypatch.setattr(FakePostgres, "prune", lambda postgres: tidied.wait(60) and [])
        await asyncio.sleep(0.6)
        await pair.lose(pair.one)
        pair.two.manager.books.told("ps1", "dead")
        await until(lambda: pair.two.held, "ps2 serves")
        await pair.start(pair.one)
        await pair.redundant_by(pair.two)
        tidying = not tidied.is_set()
        told = pair.one.manager.quarantine
        tidied.set()
        assert tidying and told == [kept]

    run(test)


def test_files_are_copied_anew_to_a_server_that_takes_them_and_not_before(run: Callable[..., None]) -> None:
    async def test(pair: Pair) -> None:
        seen: list[tuple[bool, str | None]] = []
        await asyncio.sleep(0.6)
        await pair.lose(pair.one)
        pair.two.manager.books.told("ps1", "dead")
        await until(lambda: pair.two.held, "ps2 serves")
        pair.two.manager.files.peer_changed = lambda receives: seen.append((receives, pair.one.manager.role))  # type: ignore[method-assign]
        await pair.start(pair.one)
        await pair.redundant_by(pair.two)
        assert [one for one in seen if one[0]] == [(True, PASSIVE)]

    run(test)


def test_the_active_is_told_of_a_pause_while_the_passive_s_disk_still_takes_it(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(pair: Pair) -> None:
        released = asyncio.Event()

        async def kept(seconds: float) -> bool:
            async with asyncio.timeout(20):
                return await released.wait()

        monkeypatch.setattr(pair.two.manager.pause, "kept", kept)
        pausing = asyncio.create_task(pair.two.manager.requests.answer({"do": "pause", "minutes": 5}, lambda text: None))
        await until(lambda: pair.one.manager.pause.current is not None, "ps1 knows of it", 10)
        assert not pausing.done()
        released.set()
        assert (await pausing)["peer"] is True
        assert pair.two.manager.pause.current == pair.one.manager.pause.current

    run(test)


@pytest.mark.parametrize("hangs", [True, False])
def test_a_quarantine_that_cannot_be_looked_at_keeps_nobody_from_following(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    follow, released, tidied = FakePostgres.follow, threading.Event(), threading.Event()
    monkeypatch.setattr(keeper_module, "LOOK_DEADLINE", 1.0)

    async def test(pair: Pair) -> None:
        rewound: list[Machine] = []

        def rewind(postgres: FakePostgres, progress: Callable[[str], None], cancel: threading.Event) -> Followed:
            follow(postgres, progress, cancel)
            rewound.append(postgres.machine)
            return Followed("rewind", Path("/quarantine/diverged"))

        def unreadable(postgres: FakePostgres) -> list[dict[str, Any]]:
            if postgres.machine in rewound:
                if hangs:
                    released.wait(60)
                raise OSError(5, "Input/output error")
            return []

        monkeypatch.setattr(FakePostgres, "follow", rewind)
        monkeypatch.setattr(FakePostgres, "quarantined", unreadable)
        monkeypatch.setattr(FakePostgres, "prune", lambda postgres: tidied.set())
        await asyncio.sleep(0.6)
        await pair.lose(pair.one)
        pair.two.manager.books.told("ps1", "dead")
        await until(lambda: pair.two.held, "ps2 serves")
        await pair.start(pair.one)
        await until(lambda: rewound and not pair.one.manager.keeper.following, "ps1 has followed", 20)
        assert pair.one.manager.keeper.trouble is None
        await until(tidied.is_set, "it tidies up", 20)
        released.set()
        await pair.redundant_by(pair.two)

    run(test)


@pytest.mark.parametrize("kind", ["becoming_active", "becoming_passive"])
def test_what_follows_a_change_of_role_is_carried_on_by_the_next_ha_manager(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One that is stopped, as for an upgrade, leaves it to the next one just as one that is killed."""
    begun: list[str] = []
    hold = asyncio.Event()

    def held(node: str) -> Callable[[Any], Any]:
        async def wait(world: Any) -> str:
            begun.append(world.settings.node)
            if world.settings.node == node:
                await hold.wait()
            return "done"

        return wait

    async def test(pair: Pair) -> None:
        stays = pair.two if kind == "becoming_active" else pair.one
        for graph in ("BECOME_ACTIVE", "FENCE", "PLANNED"):
            steps = getattr(graphs, graph)
            slow = tuple(
                Step("manager", held(stays.node), needs=step.needs, timeout=60) if step.name == "manager" else step for step in steps
            )
            monkeypatch.setattr(graphs, graph, slow)
        pair.one.lsn += 10
        await asyncio.sleep(0.6)
        # Whoever asked for it watches all steps.
        asking = asyncio.create_task(pair.one.manager.requests.fail_over(False, lambda text: None))
        await until(lambda: stays.node in begun, "the slow step has begun", 20)
        await until(lambda: stays.manager.changing is None and stays.manager.role is not None, "the role is there", 20)
        asking.cancel()
        await stays.manager.close()
        before = begun.count(stays.node)
        hold.set()
        await pair.start(stays)
        await until(lambda: begun.count(stays.node) > before, "it is carried on", 20)
        await until(lambda: (stays.manager.transition or {}).get("outcome") == "done", "it is done", 20)
        assert stays.manager.transition is not None and stays.manager.transition["resumed"] == 1

    run(test)


def test_a_database_that_recovers_is_not_killed_for_it(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "CALM", 0.3)

    async def test(pair: Pair) -> None:
        killed: list[str] = []
        checked = 0

        def check(postgres: FakePostgres, deadline: float) -> None:
            nonlocal checked
            if postgres.machine is pair.one and pair.one.state == "starting":
                checked += 1
                raise DatabaseTrouble("STARTING", "the database system is starting up")

        monkeypatch.setattr(FakePostgres, "check", check)
        monkeypatch.setattr(FakePostgres, "kill", lambda postgres: killed.append(postgres.machine.node))
        pair.one.state = "starting"
        await until(lambda: checked > 4, "it is asked again and again", 20)
        assert killed == [] and pair.one.manager.role == ACTIVE
        pair.one.state = "primary"
        await until(lambda: pair.one.manager.keeper.trouble is None and pair.one.manager.redundant, "it is well again", 20)
        assert killed == [] and pair.one.held

    run(test)


def test_hand_overs_that_fail_become_rarer(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that would rather not serve, and one that cannot: each attempt costs the clients some seconds."""
    monkeypatch.setattr(manager_module, "RETRY", 0.3)

    async def test(pair: Pair) -> None:
        def full(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        pair.two.manager.books.told("ps2", "started")
        monkeypatch.setattr(pair.two.manager.store, "update", full)
        monkeypatch.setattr(pair.one.manager.senses, "service_link", lambda gone_for=0.0: False)
        await until(lambda: pair.one.manager._failed_in_a_row[HAND_OVER] >= 3, "it has tried three times", 40)
        assert pair.two.manager.role != ACTIVE

    run(test)
