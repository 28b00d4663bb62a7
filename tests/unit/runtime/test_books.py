# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What Heartbeat says, and its resources, with a Heartbeat that answers what a test wants."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from swg_ha import books as books_module
from swg_ha.books import Books
from swg_ha.role import ACTIVE, PASSIVE


class Heartbeat:
    def __init__(self):
        self.node, self.peer_node = "ps1", "ps2"
        self.answers = {"rscstatus": "none", "peer": "active"}
        self.asked = []
        self.done = []

    async def rscstatus(self):
        self.asked.append("rscstatus")
        return self.answers["rscstatus"]

    async def poll(self):
        self.asked.append("poll")
        return self.answers["rscstatus"]

    async def peer(self):
        self.asked.append("peer")
        return self.answers["peer"]

    async def give(self):
        self.done.append("give")
        self.answers["rscstatus"] = "none"
        return True

    async def take(self):
        self.done.append("take")
        self.answers["rscstatus"] = "all"
        return True

    def complete_takeover(self):
        self.done.append("complete")
        return False

    async def begin_anew(self):
        self.done.append("begin anew")


class World:
    """Books with everything around it. peer_role, present, theirs: of the other server."""

    def __init__(self):
        self.heartbeat = Heartbeat()
        self.peer_role, self.present = PASSIVE, True
        self.woken = 0
        self.tasks = []
        self.link = SimpleNamespace(peer_status={})
        senses = SimpleNamespace(peer_present=lambda: self.present, peer_role=lambda: self.peer_role)
        self.books = Books(self.heartbeat, senses, self.link, interval=lambda: 60, wake=self.wake, spawn=self.spawn)

    def wake(self):
        self.woken += 1

    def spawn(self, work, name):
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.append(task)
        return task

    async def rest(self):
        await asyncio.gather(*self.tasks)
        self.tasks.clear()

    async def hear(self, node, what):
        self.books.told(node, what)
        await self.rest()


def play(test):
    async def whole():
        await test(World())

    asyncio.run(whole())


def test_what_heartbeat_tells_is_not_asked_for():
    async def test(world):
        await world.hear("ps1", "started")
        await world.hear("ps2", "active")
        await world.hear("ps1", "resources")
        # The first question came before Heartbeat had told anything.
        assert world.heartbeat.asked == ["rscstatus", "peer", "rscstatus"]
        assert (world.books.peer, world.books.rscstatus, world.books.holding, world.books.gone_for) == ("active", "none", False, 0.0)

    play(test)


def test_an_answer_from_before_does_not_undo_that_the_peer_is_dead():
    async def test(world):
        await world.hear("ps1", "started")
        world.books.told("ps1", "resources")
        world.books.told("ps2", "dead")
        await world.rest()
        assert world.books.peer == "dead" and world.books.gives

    play(test)


@pytest.mark.parametrize("rscstatus, heard", [(None, True), ("none", False)], ids=["it hangs", "nobody listens"])
def test_the_peer_is_asked_for_where_nothing_is_told(rscstatus, heard):
    async def test(world):
        if heard:
            await world.hear("ps1", "started")
        await world.hear("ps2", "dead")
        world.heartbeat.answers = {"rscstatus": rscstatus, "peer": None}
        await world.hear("ps1", "resources")
        assert world.books.peer is None and not world.books.gives

    play(test)


@pytest.mark.parametrize("answer, asked_again", [("transition", True), (None, True), ("all", False)])
def test_one_that_has_not_settled_is_asked_again_soon(answer, asked_again, monkeypatch):
    async def test(world):
        monkeypatch.setattr(books_module, "SOON", 0.01)
        running = asyncio.create_task(world.books.run())
        await asyncio.sleep(0.05)
        # Nobody listens: one that does not run is asked now and then.
        assert world.heartbeat.asked.count("poll") == 1 and "rscstatus" not in world.heartbeat.asked
        world.heartbeat.answers["rscstatus"] = answer
        await world.hear("ps1", "started")
        assert "rscstatus" in world.heartbeat.asked, "what is told is asked for without delay"
        for _ in range(1000 if asked_again else 30):
            await asyncio.sleep(0.01)
            if asked_again and world.heartbeat.asked.count("poll") > 4:
                break
        assert (world.heartbeat.asked.count("poll") > 4) == asked_again
        world.heartbeat.answers["rscstatus"] = "none"
        await asyncio.sleep(0.3)
        asked = len(world.heartbeat.asked)
        await asyncio.sleep(0.05)
        assert (len(world.heartbeat.asked), world.books.rscstatus) == (asked, "none" if asked_again else answer)
        running.cancel()

    play(test)


def test_an_answer_to_a_question_from_before_is_not_believed():
    async def test(world):
        asked, answered = asyncio.Event(), asyncio.Event()

        async def peer():
            asked.set()
            await answered.wait()
            return "active"

        world.heartbeat.peer = peer
        world.books.told("ps1", "resources")
        await asked.wait()
        world.books.told("ps1", "started")
        world.books.told("ps2", "dead")
        answered.set()
        await world.rest()
        assert world.books.peer == "dead"

    play(test)


def test_a_heartbeat_that_ends_is_gone_and_its_word_is_old():
    async def test(world):
        await world.hear("ps1", "started")
        await world.hear("ps2", "dead")
        await world.hear("ps1", "stopped")
        await asyncio.sleep(0.02)
        assert world.books.peer is None and 0 < world.books.gone_for < 10

    play(test)


@pytest.mark.parametrize(
    "role, peer_role, holding, theirs, done",
    [
        (PASSIVE, ACTIVE, "all", {}, ["give"]),
        (ACTIVE, PASSIVE, "none", {}, ["take"]),
        (ACTIVE, PASSIVE, "none", {"holding": True}, []),
        (ACTIVE, PASSIVE, "all", {}, []),
        (PASSIVE, ACTIVE, "none", {}, []),
        (PASSIVE, PASSIVE, "all", {}, []),
        (None, ACTIVE, "all", {}, []),
    ],
)
def test_the_resources_go_where_the_service_is(role, peer_role, holding, theirs, done):
    async def test(world):
        await world.hear("ps1", "started")
        world.heartbeat.answers["rscstatus"] = holding
        await world.hear("ps1", "resources")
        world.peer_role, world.link.peer_status = peer_role, theirs
        for _ in range(2):
            world.books.follow(role, changing=False, stopped=False)
            await world.rest()
        assert world.heartbeat.done == done

    play(test)


@pytest.mark.parametrize(
    "changing, stopped, present, peer",
    [(True, False, True, "active"), (False, True, True, "active"), (False, False, False, "active"), (False, False, True, "dead")],
)
def test_nothing_is_moved_while_something_is_open(changing, stopped, present, peer):
    async def test(world):
        await world.hear("ps1", "started")
        world.present, world.heartbeat.answers["peer"] = present, peer
        world.books.follow(ACTIVE, changing=changing, stopped=stopped)
        await world.rest()
        assert world.heartbeat.done == []

    play(test)


@pytest.mark.parametrize("role, done", [(ACTIVE, ["complete"] * 2), (PASSIVE, [])])
def test_a_takeover_whose_end_was_lost_is_ended_once_each_time(role, done, monkeypatch):
    async def test(world):
        monkeypatch.setattr(books_module, "LOST", 0.0)
        world.link.peer_status = {"holding": True}
        await world.hear("ps1", "started")
        world.books.follow(role, changing=False, stopped=False)
        for _ in range(2):
            for answer in ("transition",) * 3 + ("all",):
                world.heartbeat.answers["rscstatus"] = answer
                await world.hear("ps1", "resources")
        assert world.heartbeat.done == done

    play(test)


@pytest.mark.parametrize("stopped, present, done", [(False, True, ["begin anew"]), (True, True, []), (False, False, [])])
def test_a_move_that_never_ends_is_ended(stopped, present, done, monkeypatch):
    async def test(world):
        monkeypatch.setattr(books_module, "UNSETTLED", {ACTIVE: 0.0, PASSIVE: 60.0})
        await world.hear("ps1", "started")
        world.heartbeat.answers["rscstatus"] = "transition"
        world.present, world.link.peer_status = present, {"holding": True}
        for role in (PASSIVE, ACTIVE):
            world.books.follow(role, changing=False, stopped=stopped)
            for _ in range(2):
                await world.hear("ps1", "resources")
        assert world.heartbeat.done == done

    play(test)
