# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Every order in which two servers, the network between them, their power and their clients can act, up to a depth.

The decision and the rules of the record are the real ones. The rest is as abstract as can be:

- A step of a change of role that puts something on a disk, or that the other server sees, is an event; power may fail between
  any two of them.
- In a partition at most one side sees a ping node (``sighted``). Time is in two promises, which other tests hold the managers to:
  who sees nobody is fenced before anybody takes over, and commits go on alone only after the passive's patience.
- A commit is a number; a server's data is the set of those it has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import pytest

from swg_ha.record import Record, newest
from swg_ha.role import ACTIVE, FENCE, GIVE, PASSIVE, Data, Peer, Situation, judge, readiness

NODES = ("ps1", "ps2")
COMMITS = 3
STATES = 25_000


@dataclass(frozen=True)
class Server:
    """doing: the change of role that is under way: claimed (the record is on disk, the promotion is to come), stopped (the service has
    ended, the hand-over is to come), asking (the record is given away, the answer is to come). heard: fresh, old, or None since boot.
    waits: commits wait for the other one. primary: the data are of one that was promoted and has followed nobody since.
    """

    up: bool = True
    role: str | None = PASSIVE
    record: Record | None = None
    data: frozenset[int] = frozenset()
    primary: bool = False
    doing: str = ""
    heard: str | None = "fresh"
    waits: bool = False
    broken: bool = False

    @property
    def serves(self) -> bool:
        return self.up and self.role == ACTIVE and not self.doing


@dataclass(frozen=True)
class World:
    servers: tuple[Server, Server]
    joined: bool = True
    sighted: int = 0
    acknowledged: frozenset[int] = frozenset()
    commits: int = 0
    handovers: int = 0

    def but(self, me: int, **changes: object) -> World:
        changed = replace(self.servers[me], **changes)  # type: ignore[arg-type]
        return replace(self, servers=(changed, self.servers[1]) if me == 0 else (self.servers[0], changed))

    def hears(self, me: int) -> bool:
        return self.joined and self.servers[0].up and self.servers[1].up

    def streams(self, me: int) -> bool:
        """From me to the other one."""
        mine, other = self.servers[me], self.servers[1 - me]
        return self.hears(me) and mine.serves and not other.primary and not other.broken and other.doing != "claimed"


def situation(world: World, me: int, synchronous: bool) -> Situation:
    other = world.servers[1 - me]

    def seen_by(which: int, peer: Peer | None) -> Situation:
        server, opposite = world.servers[which], world.servers[1 - which]
        return Situation(
            node=NODES[which],
            peer_node=NODES[1 - which],
            default_active="ps1",
            role=server.role,
            deadtime=1.0,
            record=server.record,
            peer=peer,
            silent={"fresh": 1.5, "old": 100.0, None: None}[server.heard],
            holding=True,
            data=Data(
                state="standby" if not server.primary else "stopped",
                lag=0 if server.heard and not server.primary else None,
                system_id="42",
                trouble=("BROKEN", "its database does not start") if server.broken else None,
            ),
            pings=1 if world.joined or world.sighted == which else 0,
            served_elsewhere=opposite.serves,
            synchronous=synchronous,
        )

    peer = None
    if world.hears(me):
        ready, why = readiness(seen_by(1 - me, None))
        peer = Peer(other.role, other.record, ready=ready and other.role != ACTIVE, not_ready=why, pings=1, system_id="42")
    return seen_by(me, peer)


def fenced(world: World, me: int, synchronous: bool) -> World:
    mine = world.servers[me]
    could = mine.heard == "fresh" and mine.serves and mine.record is not None and mine.record.active == NODES[me]
    if could and mine.record is not None and (mine.record.in_sync or not synchronous):
        mine = replace(mine, record=replace(mine.record, doubtful=True))
    return world.but(me, record=mine.record, role=PASSIVE, doing="", waits=False)


def decide(world: World, me: int, synchronous: bool) -> Iterator[World]:
    """What the manager of one server does next, if it is not in the middle of something."""
    mine, node, other = world.servers[me], NODES[me], NODES[1 - me]
    if not mine.up or mine.doing:
        return
    verdict = judge(situation(world, me, synchronous))
    if verdict.act == GIVE and mine.record is not None:
        latest = newest(mine.record, world.servers[1 - me].record)
        assert latest is not None
        yield world.but(me, record=latest.claimed_by(other) if latest.given else latest.given_to(other, None), role=PASSIVE)
    elif verdict.role == mine.role or verdict.role is None:
        return
    elif verdict.role == ACTIVE:
        # By promise, whoever is cut off has been fenced by the time that anybody may take over.
        if not world.hears(me) and world.servers[1 - me].serves:
            return
        record = mine.record
        if record is not None and record.active == node:
            claimed = record.taken() if record.given or record.doubtful else record
        else:
            claimed = (newest(record, None) or Record(0, node)).claimed_by(node)
        yield world.but(me, record=replace(claimed, changed=""), doing="claimed")
    elif verdict.act == FENCE or mine.role is None:
        yield fenced(world, me, synchronous)
    elif mine.role == ACTIVE:
        yield world.but(me, doing="stopped", waits=False)
    else:
        yield world.but(me, role=PASSIVE)


def carry_on(world: World, me: int, synchronous: bool) -> Iterator[World]:
    """The next step of a change of role."""
    mine, other, node, peer = world.servers[me], world.servers[1 - me], NODES[me], NODES[1 - me]
    if not mine.up:
        return
    if mine.doing == "claimed":
        if mine.record is None or judge(replace(situation(world, me, synchronous), role=ACTIVE)).act == FENCE:
            yield world.but(me, doing="", role=None)
        elif not world.hears(me) or other.role != ACTIVE or (other.record is not None and other.record.active == node):
            done = replace(mine.record, timeline=mine.record.counter, switch_lsn=None, changed="")
            yield world.but(me, doing="", role=ACTIVE, record=done, primary=True, waits=False)
    elif mine.doing == "stopped":
        # A clean stop, after it was seen that the other one receives, sends it everything.
        sent = world.hears(me) and not other.primary and not other.broken
        world = world.but(1 - me, data=mine.data) if sent else world
        record = (mine.record or Record(0, node)).given_to(peer, str(sorted(mine.data)))
        yield world.but(me, doing="asking", role=PASSIVE, record=replace(record, changed=""))
    elif mine.doing == "asking":
        # No answer.
        yield world.but(me, doing="")
        if not world.hears(me) or mine.record is None:
            return
        if other.record is not None and other.record.counter == mine.record.counter and not other.record.given:
            # It is about it, and the answer is still to come; or ha_manager there was killed meanwhile, and there is none.
            return
        refuses = other.doing or other.broken or other.primary or str(sorted(other.data)) != mine.record.switch_lsn
        if refuses and other.role != ACTIVE:
            yield world.but(me, doing="", record=replace(mine.record.claimed_by(node), changed=""))
        elif newest(other.record, mine.record) == mine.record and mine.record.active == peer:
            yield world.but(1 - me, doing="claimed", record=replace(mine.record, given=False, in_sync=False)).but(me, doing="")


def speak(world: World, me: int) -> Iterator[World]:
    """A beat of the other one arrives here."""
    mine, other = world.servers[me], world.servers[1 - me]
    if not world.hears(me):
        return
    record = mine.record
    same = (
        record is not None and other.record is not None and (record.counter, record.active) == (other.record.counter, other.record.active)
    )
    if other.record is not None and (
        (same and other.record.active == NODES[1 - me]) or (not same and newest(record, other.record) == other.record)
    ):
        record = other.record
    heard = world.but(me, record=record, heard="fresh")
    if other.serves and mine.role == PASSIVE and not mine.doing and not mine.broken and record is not None and record.active != NODES[me]:
        # It follows; what only it had is in quarantine.
        heard = heard.but(me, data=other.data, primary=False)
    yield heard


def synchronize(world: World, me: int) -> Iterator[World]:
    """The active has commits wait, or go on alone."""
    mine, other = world.servers[me], world.servers[1 - me]
    if not mine.serves or mine.record is None or mine.record.active != NODES[me]:
        return
    if world.streams(me):
        yield world.but(me, waits=True, record=replace(mine.record, in_sync=other.data >= mine.data)).but(1 - me, data=mine.data)
    elif not other.up or (other.heard != "fresh" and not world.hears(me)) or (world.joined and other.record and not other.record.in_sync):
        yield world.but(me, waits=False, record=replace(mine.record, in_sync=False))
    elif world.hears(me):
        yield world.but(me, record=replace(mine.record, in_sync=False))


def commit(world: World, me: int, synchronous: bool) -> Iterator[World]:
    mine = world.servers[me]
    if not mine.serves or world.commits == COMMITS:
        return
    number = world.commits
    after = replace(world.but(me, data=mine.data | {number}), commits=number + 1)
    if world.streams(me) and world.servers[1 - me].data == mine.data:
        after = after.but(1 - me, data=mine.data | {number})
    elif synchronous and mine.waits:
        # Nobody is told that it is there.
        yield after
        return
    yield replace(after, acknowledged=world.acknowledged | {number})


def fate(world: World, me: int) -> Iterator[World]:
    """Power, disks, and people."""
    mine = world.servers[me]
    if mine.up:
        yield world.but(me, up=False, doing="")
        # ha_manager is killed: the record and what was heard stay, a change of role that is under way is decided anew.
        if mine.doing:
            yield world.but(me, doing="", role=None)
        # By promise, the passive's patience is over sooner than the active counts on that.
        first = not mine.serves or not world.servers[1 - me].up or world.servers[1 - me].heard != "fresh"
        if not world.hears(me) and mine.heard == "fresh" and first:
            yield world.but(me, heard="old")
    else:
        yield world.but(me, up=True, role=None, heard=None, waits=False)
    if not mine.serves:
        yield world.but(me, broken=not mine.broken)
    if mine.serves and world.handovers < 2 and world.streams(me):
        yield replace(world.but(me, doing="stopped", waits=False), handovers=world.handovers + 1)


def nexts(world: World, synchronous: bool) -> Iterator[World]:
    for me in (0, 1):
        yield from decide(world, me, synchronous)
        yield from carry_on(world, me, synchronous)
        yield from speak(world, me)
        yield from synchronize(world, me)
        yield from commit(world, me, synchronous)
        yield from fate(world, me)
    if world.joined:
        for sighted in (0, 1):
            # By promise, the side that sees nobody is fenced before anything else happens.
            blind = world.servers[1 - sighted]
            cut = replace(world, joined=False, sighted=sighted)
            yield fenced(cut, 1 - sighted, synchronous) if blind.serves else cut
    else:
        yield replace(world, joined=True)


def cannot_know(world: World, me: int) -> bool:
    """A server that comes back alone cannot know that the other one, which is gone, was made active after it."""
    latest = newest(world.servers[0].record, world.servers[1].record)
    return not world.hears(me) and latest is not None and latest != world.servers[me].record and latest.active != NODES[me]


@cache
def explore(start: World, synchronous: bool) -> dict[World, World | None]:
    """All worlds that can come about, the nearest first, each with the one before it."""
    came: dict[World, World | None] = {start: None}
    queue = deque([start])
    while queue and len(came) < STATES:
        world = queue.popleft()
        for after in nexts(world, synchronous):
            if after in came:
                continue
            began = [me for me in (0, 1) if after.servers[me].doing == "claimed" != world.servers[me].doing]
            if any(cannot_know(world, me) and situation(world, me, synchronous).silent is None for me in began):
                continue
            came[after] = world
            queue.append(after)
    return came


def story(came: dict[World, World | None], world: World | None) -> str:
    lines = []
    while world is not None:
        lines.append(str(world))
        world = came[world]
    return "\n".join(reversed(lines))


RECORD = Record(1, "ps1", "42", 1, in_sync=True)
START = World((Server(role=ACTIVE, record=RECORD, primary=True, waits=True), Server(record=RECORD)))


@pytest.mark.parametrize("synchronous", [True, False])
def test_whatever_happens(synchronous: bool) -> None:
    """Never two that serve; in the synchronous mode, nobody serves without all that was acknowledged."""
    came = explore(START, synchronous)
    assert len(came) >= STATES
    for world in came:
        serving = [server for server in world.servers if server.serves]
        assert len(serving) < 2, story(came, world)
        if synchronous:
            assert all(server.data >= world.acknowledged for server in serving), story(came, world)


@pytest.mark.parametrize("synchronous", [True, False])
def test_once_all_is_well_one_serves(synchronous: bool) -> None:
    came = explore(START, synchronous)
    for number, world in enumerate(came):
        if number % 5:
            continue
        well = replace(world, joined=True)
        for me in (0, 1):
            well = well.but(me, broken=False, **({} if well.servers[me].up else {"up": True, "role": None, "heard": None}))
        for _turn in range(12):
            for me in (0, 1):
                well = next(speak(well, me), well)
                well = next(carry_on(well, me, synchronous), well)
                well = next(decide(well, me, synchronous), well)
        assert sum(server.serves for server in well.servers) == 1, f"{story(came, world)}\nends in {well}"
        serving = next(server for server in well.servers if server.serves)
        assert all(server.data == serving.data for server in well.servers), story(came, world)
