# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Which role this server must have, and why: a pure function of what is known.

Heartbeat says who holds the resources, but it forgets, and after a partition it prefers a node and not the newer data. So its
word makes a server active only while the other cannot be asked. Whenever the two can talk, the record decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .record import Record, newest

ACTIVE = "active"
PASSIVE = "passive"

# What a verdict asks for beside the role.
HAND_OVER = "hand_over"
FENCE = "fence"
# For so many seconds Heartbeat may be away: it restarts.
RESTART = 5.0
GIVE = "give"


FORCE = "'ha failover --force' overrides"
# The active may have heard the passive up to a beat earlier than that one it, and both are late now and then (seconds).
LEASE_MARGIN = 0.2


def patience(deadtime: float) -> float:
    """For how long after it last heard the active a passive may take over in synchronous mode (seconds)."""
    return deadtime + 1.2


@dataclass(frozen=True)
class Peer:
    """What the other server said last, while it can be heard. role: None until it has decided.

    ready: it could take over now; not_ready says why not. pings: how many ping nodes it sees (None: it has not looked).
    database: the state of its PostgreSQL.
    """

    role: str | None
    record: Record | None
    ready: bool = False
    not_ready: str = ""
    service_link: bool = True
    pings: int | None = None
    system_id: str | None = None
    database: str | None = None


@dataclass(frozen=True)
class Data:
    """This server's databases. state as postgres.Database has it; lag in bytes behind the active at last sight; None: not known.

    trouble: a code and a text for what keeps them from serving, or None.
    """

    state: str = "stopped"
    complete: bool = True
    lag: int | None = None
    system_id: str | None = None
    trouble: tuple[str, str] | None = None


@dataclass(frozen=True)
class Situation:
    """All that a decision needs. Times are in seconds.

    role: what this server is; None: it has not decided since its start. peer: None: it cannot be heard. silent: since it was last heard,
    by its manager or by its replication; None: never since this boot. holding: Heartbeat gave its resources to this server, or is about to.
    pings: how many ping nodes answer; None: nobody looked, or there are none. served_elsewhere: somebody else serves at the virtual IP.
    claimed_elsewhere: the other server has announced, unheard in any other way, that it takes the virtual IP. sees_less: for how long it has
    seen more ping nodes. looked: there was time to look for ping nodes and for who has the virtual IP, and for their answers.
    """

    node: str
    peer_node: str
    default_active: str
    role: str | None
    deadtime: float
    record: Record | None = None
    peer: Peer | None = None
    silent: float | None = None
    holding: bool = False
    heartbeat_gone: float = 0.0
    data: Data = Data()
    service_link: bool = True
    pings: int | None = None
    served_elsewhere: bool = False
    claimed_elsewhere: bool = False
    sees_less: float = 0.0
    looked: bool = True
    synchronous: bool = False
    paused: bool = False
    stopped: bool = False
    max_lag: int = 16 * 2**20
    heartbeat_grace: float = 30.0

    @property
    def patience(self) -> float:
        """For how long after it was last heard the active server's data are surely as this server knows them.

        In the synchronous mode the active lets commits go on alone no sooner than LEASE_MARGIN after that.
        """
        return patience(self.deadtime) if self.synchronous else self.deadtime + 10.0


@dataclass(frozen=True)
class Verdict:
    """role: active, passive, or None to stay undecided. code never changes; reason is for people. act: how a change is made."""

    role: str | None
    code: str
    reason: str
    act: str | None = None


def judge(now: Situation) -> Verdict:
    """The role that this server must have now."""
    if now.role == ACTIVE:
        return _as_active(now)
    if now.stopped:
        return Verdict(PASSIVE, "STOPPED", "'ha stop' took this server out of the pair: 'ha start' brings it back")
    verdict = _with_peer(now) if now.peer else _alone(now)
    if now.paused and verdict.role == ACTIVE and now.role == PASSIVE and verdict.code not in ("RECORD_MINE", "FIRST_START"):
        return Verdict(PASSIVE, "PAUSED", f"automatic failover is paused ('ha resume' ends that); otherwise: {verdict.reason}")
    return verdict


def _as_active(now: Situation) -> Verdict:
    peer = now.peer
    latest = newest(now.record, peer.record if peer else None)
    if latest and latest.active != now.node:
        return Verdict(PASSIVE, "SUPERSEDED", f"{now.peer_node} was made active after this server (record {latest.counter})", FENCE)
    if now.paused:
        return Verdict(ACTIVE, "PAUSED", "automatic failover is paused: it stays active")
    if not peer:
        return _active_alone(now)
    because = _better_there(now, peer)
    if because is None:
        return Verdict(ACTIVE, "STEADY", f"this server was made active (record {now.record.counter if now.record else 0})")
    code, reason = because
    if peer.ready:
        return Verdict(PASSIVE, code, f"{reason}; {now.peer_node} is ready to take over", HAND_OVER)
    return Verdict(ACTIVE, code, f"{reason}, but {now.peer_node} is not ready: {peer.not_ready}")


def _active_alone(now: Situation) -> Verdict:
    lost = now.silent is None or now.silent >= 0.6 * now.deadtime
    if now.claimed_elsewhere:
        return Verdict(
            PASSIVE, "ADDRESS_CLAIMED", f"{now.peer_node} has announced that it takes the virtual IP, and cannot be asked", FENCE
        )
    if lost and now.pings == 0:
        return Verdict(
            PASSIVE, "ISOLATED", f"neither {now.peer_node} nor any ping node can be heard: the other server may take over", FENCE
        )
    if lost and not now.service_link:
        return Verdict(PASSIVE, "NO_SERVICE_LINK", f"the service link is down, and {now.peer_node} cannot be asked to take over", FENCE)
    return Verdict(ACTIVE, "PEER_SILENT", f"{now.peer_node} cannot be heard; this server sees the network and goes on alone")


def _better_there(now: Situation, peer: Peer) -> tuple[str, str] | None:
    """Why the other server would serve better, as a code and a reason; None: it would not."""
    if now.data.trouble:
        return now.data.trouble
    if not now.service_link and peer.service_link:
        return "NO_SERVICE_LINK", "the service link is down here and up there"
    if now.sees_less >= 2 * now.deadtime:
        return "FEWER_PING_NODES", f"this server sees {now.pings} ping nodes, the other {peer.pings}"
    if now.heartbeat_gone > now.heartbeat_grace:
        return "HEARTBEAT_GONE", f"Heartbeat has not run here for {now.heartbeat_gone:.0f} s"
    return None


def _with_peer(now: Situation) -> Verdict:
    """Passive or undecided, and the other server can be heard: the record decides."""
    peer = now.peer
    assert peer is not None
    if peer.role == ACTIVE:
        return Verdict(PASSIVE, "PEER_ACTIVE", f"{now.peer_node} is active")
    if now.data.system_id and peer.system_id and now.data.system_id != peer.system_id and now.record and peer.record:
        text = f"the databases have different identifiers (here {now.data.system_id}, there {peer.system_id}): run swg.ha.enable_ha with ha_data_source"
        return Verdict(PASSIVE, "DIFFERENT_DATA", text)
    record = newest(now.record, peer.record)
    rightful = record.active if record else _first(now, peer)
    if rightful != now.node:
        return Verdict(
            PASSIVE, "RECORD_PEER", f"{rightful} was made active last (record {record.counter if record else 0}) and is about to serve"
        )
    return _rightful(now, record)


def _first(now: Situation, peer: Peer) -> str:
    """Who begins where nobody was ever active: whoever has the databases that the other one copied."""
    if (now.data.state == "primary") != (peer.database == "primary"):
        return now.node if now.data.state == "primary" else now.peer_node
    return now.default_active


def _begins_alone(now: Situation) -> bool:
    return now.data.state == "primary" or (now.node == now.default_active and now.data.state != "standby")


def _rightful(now: Situation, record: Record | None) -> Verdict:
    if unable := _unable(now):
        # Otherwise the other one would wait for this one for ever.
        other_can = now.peer is not None and record is not None and (record.given or (record.in_sync and now.peer.ready))
        return replace(unable, act=GIVE) if other_can else unable
    if record is None:
        return Verdict(ACTIVE, "FIRST_START", "nobody was ever made active, and this server has the databases or is the default active")
    return Verdict(ACTIVE, "RECORD_MINE", f"this server was made active last (record {record.counter})")


def _unable(now: Situation) -> Verdict | None:
    """What keeps this server's databases from serving, whoever is entitled to."""
    if not now.data.complete or now.data.state == "missing":
        return Verdict(PASSIVE, "INCOMPLETE_COPY", "the copy of the databases here is not complete")
    if now.data.trouble:
        code, text = now.data.trouble
        return Verdict(PASSIVE, code, text)
    return None


def _alone(now: Situation) -> Verdict:
    """Passive or undecided, and the other server cannot be heard: Heartbeat's word counts, unless something speaks against it."""
    record = now.record
    if not now.holding:
        waiting = f"{now.peer_node} cannot be heard, and Heartbeat has not given the resources to this server"
        return Verdict(now.role, "WAITING", waiting)
    if now.claimed_elsewhere:
        return Verdict(PASSIVE, "ADDRESS_CLAIMED", f"{now.peer_node} has announced that it takes the virtual IP, and cannot be asked")
    if not now.looked:
        return Verdict(now.role, "WAITING", f"{now.peer_node} cannot be heard: it is being looked for")
    if now.served_elsewhere:
        return Verdict(PASSIVE, "VIRTUAL_IP_SERVED", f"{now.peer_node} cannot be heard, but somebody serves at the virtual IP")
    if not now.service_link:
        return Verdict(PASSIVE, "NO_SERVICE_LINK", "the service link is down: nobody could reach the virtual IP here")
    if now.pings == 0:
        return Verdict(
            PASSIVE,
            "ISOLATED",
            f"no ping node answers: this server may be the one that is cut off, and {now.peer_node} the one that serves",
        )
    if unable := _unable(now):
        return unable
    if record is None or (record.active == now.node and not record.given):
        if record is None and not _begins_alone(now):
            return Verdict(PASSIVE, "NO_RECORD", f"this server has never heard of {now.peer_node}: it cannot know who has the data")
        if record is not None and record.doubtful:
            text = f"this server gave up the service while {now.peer_node} could take over, and has not heard of it since; {FORCE}"
            return Verdict(PASSIVE, "MAYBE_SUPERSEDED", text)
        if record is not None and now.synchronous and record.in_sync and now.silent is None:
            # What the other one may have acknowledged by itself is promised to be kept. Asynchronous, the newer record wins when it is back.
            text = f"{now.peer_node} had everything at last contact, and may have taken over while this server was off; {FORCE}"
            return Verdict(PASSIVE, "MAYBE_SUPERSEDED", text)
        return _rightful(now, record)
    return _take_over(now, record)


def _take_over(now: Situation, record: Record) -> Verdict:
    """The other server was made active last, or was about to hand over, is not heard any more, and Heartbeat says that it is dead."""
    if record.given and record.active != now.node:
        text = f"this server was handing over to {record.active}, which is not heard since: it may have gone on; {FORCE}"
        return Verdict(PASSIVE, "HANDED_OVER", text)
    last = now.peer_node
    if now.silent is None:
        return Verdict(
            PASSIVE,
            "STALE_EPOCH",
            f"{last} was active last and was not heard since this server's boot: it may have newer data; {FORCE}",
        )
    if now.silent > now.patience:
        text = f"{last} was last heard {now.silent:.1f} s ago, more than {now.patience:.1f} s: it may have gone on alone; {FORCE}"
        return Verdict(PASSIVE, "STALE_CONTACT", text)
    if now.synchronous and not record.in_sync:
        return Verdict(PASSIVE, "NOT_IN_SYNC", f"{last} went on alone before it was lost: it has newer data; {FORCE}")
    if now.data.lag is None or now.data.lag > now.max_lag:
        behind = "an unknown amount" if now.data.lag is None else f"{now.data.lag} bytes"
        return Verdict(PASSIVE, "LAGGING", f"the copy here was {behind} behind, more than the limit of {now.max_lag} bytes; {FORCE}")
    return Verdict(
        ACTIVE, "TAKE_OVER", f"{last} has not been heard for {now.silent:.1f} s, and Heartbeat gave its resources to this server"
    )


def readiness(now: Situation) -> tuple[bool, str]:
    """Whether this passive server could take over from an active one that hands over to it, and why not."""
    if now.stopped:
        return False, "'ha stop' took it out of the pair"
    if unable := _unable(now):
        return False, unable.reason
    if now.record and now.record.given and now.record.active != now.node:
        return False, f"it has not heard yet that {now.record.active}, to which it handed over, goes on"
    if now.heartbeat_gone > RESTART:
        return False, f"its Heartbeat has not run for {now.heartbeat_gone:.0f} s: it would not take over by itself"
    if now.data.state != "standby":
        return False, f"its PostgreSQL is {now.data.state}"
    if now.data.lag is None:
        return False, "it does not stream from the active server"
    if now.data.lag > now.max_lag:
        return False, f"it is {now.data.lag} bytes behind, more than the limit of {now.max_lag}"
    if not now.service_link:
        return False, "its service link is down"
    return True, ""
