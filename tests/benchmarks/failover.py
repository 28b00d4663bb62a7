# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Suite `failover`: what clients of a pair notice when something fails, and what the pair costs while nothing does.

A client writes through the virtual IP every 10 ms and records what is acknowledged: tests/faults/probe.py.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.bench import Bench, Lab, NotMeasured, Options, Suite, load
from tests.benchmarks.first_copy import DATABASE_BYTES
from tests.benchmarks.first_copy import LOAD as BIG_DATABASE
from tests.benchmarks.pair import controller
from tests.benchmarks.sheet import Figure
from tests.faults import rig
from tests.faults.evidence import lost
from tests.faults.invariants import timeline
from tests.faults.rig import DEADTIME, SAMPLER, Pair, Probing, Status
from tests.system import pair as system
from tests.system.pair import SERVERS

SNAPSHOT = "measured"
# Seconds that the pair gets to be redundant again between two runs.
PATIENCE = 90.0
# Bytes of WAL that a write every 10 ms makes while the other server answers.
A_FEW_ROWS = 16384

POWER_CUT = Figure("power cut of the active, fast: no writes for", "s", 2.5)
POWER_CUT_MEDIAN = Figure("power cut of the active, fast: median", "s", 1.8)
ASYNCHRONOUS_LOST = Figure("power cut of the active, asynchronous: commits lost", "commits")
BALANCED = Figure("power cut of the active, balanced: no writes for", "s", DEADTIME["balanced"] + 0.8)
ADDED, BALANCED_ADDED, SYNCHRONOUS_ADDED = (
    Figure(f"power cut of the active, {kind}: from Heartbeat's word to the next write", "s", 0.8)
    for kind in ("fast", "balanced", "synchronous, fast")
)
SYNCHRONOUS = Figure("power cut of the active, synchronous, fast: no writes for", "s")
SYNCHRONOUS_LOST = Figure("power cut of the active, synchronous: commits lost", "commits", 0)
PLANNED = Figure("planned failover: no writes for", "s")
PLANNED_MEDIAN = Figure("planned failover: median", "s", 0.5)
PLANNED_LOST = Figure("planned failover: commits lost", "commits", 0)
KILLED = Figure("PostgreSQL of the active killed: no writes for", "s", 1)
SERVICE_LINK = Figure("service link of the active cut: no writes for", "s", 1.5)
HEALED = Figure("partition healed: no writes on the serving side for", "s", 0.2)
STALL = Figure("synchronous, fast, the passive loses power: no writes for", "s", 2 + DEADTIME["fast"])
RETURN = Figure("old active back with 1.5 GB, from ready to redundant", "s", 5)
RETURN_ALL = Figure("old active back with 1.5 GB, from power on to redundant", "s")
MEMORY = Figure("ha_manager at rest: resident memory", "MiB", 40)
CPU = Figure("ha_manager at rest, fast: share of a core", "%", 0.5)
CPU_BALANCED = Figure("ha_manager at rest, balanced: share of a core", "%", 0.5)
SPAWNED = Figure("server at rest: processes and threads begun a second", "1/s")
LOADED_BALANCED = Figure("full load, balanced: false failovers", "moves", 0)
LOADED_FAST = Figure("full load, fast: false failovers", "moves")


@dataclass(frozen=True)
class Measurement:
    """`take` adds the figures' samples. It begins with a redundant pair with these times in this mode."""

    take: Callable[[Bench, Pair], None]
    figures: Sequence[Figure]
    profile: str = "fast"
    synchronous: bool = False

    @property
    def name(self) -> str:
        return self.take.__name__


def outage(probe: Probing, since: float, what: str) -> float:
    """The longest time without an acknowledged commit since the moment, once commits are acknowledged again."""
    probe.resumes(60, what)
    return probe.story().longest_gap(since)


def called_dead(pair: Pair, host: str, since: float) -> float | None:
    """When Heartbeat called the other server dead, after the moment; both by the kernel's clock, which the lab's hosts share."""
    said = pair.lab.sh(host, "journalctl --boot --identifier=heartbeat --grep='is dead$' --output=json --output-fields=MESSAGE || true")
    moments = [int(json.loads(line)["__MONOTONIC_TIMESTAMP"]) / 1e6 for line in said.splitlines()]
    return max((moment for moment in moments if moment > since), default=None)


def lost_commits(pair: Pair, probe: Probing) -> int:
    """How many acknowledged commits the pair does not have, once it is redundant."""
    seen = probe.end()
    return len(lost(seen.acknowledged, pair.rows(probe.client)))


def cuts(bench: Bench, pair: Pair, gap: Figure, added: Figure, gone: Figure | None, median: Figure | None = None) -> None:
    """Cut the active server's power, once a run; the two take turns in being it."""
    gaps = []
    for run in bench.runs():
        bench.say(f"power cut of {pair.active}, run {run} of {bench.options.runs}")
        before = load()
        with pair.probing() as probe:
            other, cut = pair.passive, time.monotonic()
            pair.lab("power", "off", pair.active)
            probe.resumes(60, "after the power cut")
            begun, ended = probe.story().longest(cut)
            dead = called_dead(pair, other, cut)
            pair.settle(PATIENCE)
            missing = lost_commits(pair, probe)
        gaps.append(ended - begun)
        bench.add(gap, gaps[-1], before)
        # Where it tells that by its links, the word comes later.
        if dead is not None and dead < ended:
            bench.add(added, ended - dead, before)
        if gone is not None:
            bench.add(gone, missing, before)
    if median is not None:
        bench.add(median, statistics.median(gaps), load())


def power_cut(bench: Bench, pair: Pair) -> None:
    cuts(bench, pair, POWER_CUT, ADDED, ASYNCHRONOUS_LOST, POWER_CUT_MEDIAN)


def power_cut_balanced(bench: Bench, pair: Pair) -> None:
    cuts(bench, pair, BALANCED, BALANCED_ADDED, None)


def power_cut_synchronous(bench: Bench, pair: Pair) -> None:
    cuts(bench, pair, SYNCHRONOUS, SYNCHRONOUS_ADDED, SYNCHRONOUS_LOST)


def planned(bench: Bench, pair: Pair) -> None:
    gaps = []
    for run in bench.runs():
        bench.say(f"planned failover from {pair.active}, run {run} of {bench.options.runs}")
        before = load()
        with pair.probing() as probe:
            begin = time.monotonic()
            pair.failover()
            gaps.append(outage(probe, begin, "after the failover"))
            pair.wait_redundant(PATIENCE)
            missing = lost_commits(pair, probe)
        bench.add(PLANNED, gaps[-1], before)
        bench.add(PLANNED_LOST, missing, before)
    bench.add(PLANNED_MEDIAN, statistics.median(gaps), load())


def killed(bench: Bench, pair: Pair) -> None:
    for run in bench.runs():
        bench.say(f"PostgreSQL killed on {pair.active}, run {run} of {bench.options.runs}")
        before = load()
        with pair.probing() as probe:
            begin = time.monotonic()
            pair.lab.sh(pair.active, f"kill -KILL {pair.postmaster(pair.active)}")
            bench.add(KILLED, outage(probe, begin, "after PostgreSQL was killed"), before)
        pair.settle(PATIENCE)


def service_link(bench: Bench, pair: Pair) -> None:
    for run in bench.runs():
        bench.say(f"service link of {pair.active} cut, run {run} of {bench.options.runs}")
        before = load()
        with pair.probing() as probe:
            begin = time.monotonic()
            pair.lab("cable", "out", pair.active, "eth0")
            bench.add(SERVICE_LINK, outage(probe, begin, "after the link was cut"), before)
        pair.settle(PATIENCE)


def healed(bench: Bench, pair: Pair) -> None:
    """Both cables of the active are out for 10 s; what the other one's clients notice when they are back."""
    for run in bench.runs():
        bench.say(f"partition of {pair.active}, run {run} of {bench.options.runs}")
        before = load()
        with pair.probing() as probe:
            active = pair.active
            pair.lab("cable", "out", active, "eth1")
            cut = time.monotonic()
            pair.lab("cable", "out", active, "eth0")
            outage(probe, cut, "on the other side of the partition")
            rig.pause(10)
            back = time.monotonic()
            pair.together(("cable", "in", active, "eth0"), ("cable", "in", active, "eth1"))
            pair.wait_redundant(PATIENCE)
            bench.add(HEALED, outage(probe, back, "after the partition"), before)


def stall(bench: Bench, pair: Pair) -> None:
    for run in bench.runs():
        bench.say(f"power cut of {pair.passive}, run {run} of {bench.options.runs}")
        before = load()
        with pair.probing() as probe:
            cut = time.monotonic()
            pair.lab("power", "off", pair.passive)
            bench.add(STALL, outage(probe, cut, "without the passive"), before)
        pair.settle(PATIENCE)


def streams(active: Status) -> bool:
    """Whether the passive server has everything, but what the probe has written a moment ago."""
    lag = active["postgresql"]["lag_bytes"]
    return bool(active["redundant"] and active["postgresql"]["streaming"] and lag is not None and lag < A_FEW_ROWS)


def old_active_returns(bench: Bench, pair: Pair) -> None:
    size = pair.lab.sql(pair.active, "SELECT coalesce(pg_database_size((SELECT oid FROM pg_database WHERE datname = 'bench')), 0)")
    if int(size or 0) < DATABASE_BYTES:
        bench.say("making a database of 1.5 GB on the active server")
        pair.lab.sh(pair.active, BIG_DATABASE, timeout=600)
        pair.wait_redundant(300)
    for run in bench.runs():
        bench.say(f"return of {pair.active}, run {run} of {bench.options.runs}")
        before = load()
        with pair.probing() as probe:
            active, passive = pair.active, pair.passive
            begin = time.monotonic()
            pair.lab("power", "off", active)
            outage(probe, begin, "after the power cut")
            on = time.monotonic()
            pair.lab("power", "on", active)
            ready = time.monotonic()
            # Heartbeat says later that it has settled, and nothing waits for that.
            pair.wait_status(passive, streams, PATIENCE, "redundant, with nothing behind")
            bench.add(RETURN, time.monotonic() - ready, before)
            bench.add(RETURN_ALL, time.monotonic() - on, before)
            pair.wait_redundant(PATIENCE)


REST_SECONDS = 60
# Resident kB, clock ticks of processor time, and the last process id of the host, which counts all that were begun.
REST = """
pid=$(systemctl show --property=MainPID --value ha_manager)
for turn in 1 2; do
    awk '/^VmRSS:/ { printf "%s ", $2 }' "/proc/$pid/status"
    awk '{ printf "%s ", $14 + $15 + $16 + $17 }' "/proc/$pid/stat"
    cut -d ' ' -f 5 /proc/loadavg
    [ $turn = 2 ] || sleep SECONDS
done
getconf CLK_TCK
"""


def resting(bench: Bench, pair: Pair, share: Figure) -> None:
    """On one server after the other, without a client. The samplers are off; what PostgreSQL begins is counted as well."""
    seconds = REST_SECONDS
    for host in SERVERS:
        pair.lab.sh(host, f"systemctl stop {SAMPLER}")
    bench.say(f"ha_manager at rest, {seconds} s")
    before = load()
    for host in SERVERS:
        first, second, [tick] = (
            line.split() for line in pair.lab.sh(host, REST.replace("SECONDS", str(seconds)), timeout=120).splitlines()
        )
        bench.add(MEMORY, int(second[0]) / 1024, before)
        bench.add(share, 100 * (int(second[1]) - int(first[1])) / int(tick) / seconds, before)
        # Less the shell's own: awk, awk, cut, sleep.
        bench.add(SPAWNED, (int(second[2]) - int(first[2]) - 4) / seconds, before)
    for host in SERVERS:
        pair.lab.sh(host, f"systemctl start {SAMPLER}")


def at_rest(bench: Bench, pair: Pair) -> None:
    resting(bench, pair, CPU)


def at_rest_balanced(bench: Bench, pair: Pair) -> None:
    resting(bench, pair, CPU_BALANCED)


# As many processes as cores that only compute, and two that write and sync without a pause.
BURDEN = """
echo begin
for _ in $(seq $(nproc)); do (while :; do :; done) & done
for n in 1 2; do (while :; do dd if=/dev/zero of=/opt/finjan/burden.$n bs=1M count=64 conv=fsync status=none; done) & done
wait
"""


def loaded(bench: Bench, pair: Pair, figure: Figure) -> None:
    """Full load of processors and disks on both servers; how many roles changed."""
    minutes = 30 if bench.options.long else 3
    bench.say(f"{minutes} minutes of full load, {pair.profile}")
    before = load()
    begun = sum(len(timeline(pair, host)) for host in SERVERS)
    active = pair.active
    with pair.lab.watching(SERVERS[0], BURDEN), pair.lab.watching(SERVERS[1], BURDEN):
        rig.pause(60 * minutes)
    pair.settle(PATIENCE)
    moves = sum(len(timeline(pair, host)) for host in SERVERS) - begun
    bench.add(figure, max(moves, int(pair.active != active)), before)
    for host in SERVERS:
        pair.lab.sh(host, "rm -f /opt/finjan/burden.*")


def full_load(bench: Bench, pair: Pair) -> None:
    loaded(bench, pair, LOADED_FAST)


def full_load_balanced(bench: Bench, pair: Pair) -> None:
    loaded(bench, pair, LOADED_BALANCED)


# Those that want the same pair follow each other.
MEASUREMENTS = (
    Measurement(at_rest, [MEMORY, CPU, SPAWNED]),
    Measurement(power_cut, [POWER_CUT, POWER_CUT_MEDIAN, ADDED, ASYNCHRONOUS_LOST]),
    Measurement(planned, [PLANNED, PLANNED_MEDIAN, PLANNED_LOST]),
    Measurement(killed, [KILLED]),
    Measurement(service_link, [SERVICE_LINK]),
    Measurement(healed, [HEALED]),
    Measurement(full_load, [LOADED_FAST]),
    Measurement(old_active_returns, [RETURN, RETURN_ALL]),
    Measurement(power_cut_synchronous, [SYNCHRONOUS, SYNCHRONOUS_ADDED, SYNCHRONOUS_LOST], synchronous=True),
    Measurement(stall, [STALL], synchronous=True),
    Measurement(at_rest_balanced, [CPU_BALANCED], profile="balanced"),
    Measurement(power_cut_balanced, [BALANCED, BALANCED_ADDED], profile="balanced"),
    Measurement(full_load_balanced, [LOADED_BALANCED], profile="balanced"),
)


def chosen(options: Options) -> list[Measurement]:
    return [measurement for measurement in MEASUREMENTS if not options.only or measurement.name in options.only]


@contextmanager
def measurable(what: str) -> Iterator[None]:
    """What the pair did not do is no failure of the benchmark: the measurement is not taken."""
    try:
        yield
    except AssertionError as error:
        raise NotMeasured(f"{what}: {error}") from error


def failing_over(bench: Bench) -> None:
    """One pair for all measurements; one that cannot be taken is told, and the next one begins with the pair as it was made."""
    with Lab(bench.options.lab).up() as own:
        lab = system.Lab(own.name)
        ansible = controller(bench, own)

        def enable(**variables: Any) -> None:
            ansible.must_play("swg.ha.enable_ha", f"--extra-vars={json.dumps(variables)}")

        wanted = chosen(bench.options)
        with measurable("making the pair"):
            pair = rig.make(lab, enable, profile=wanted[0].profile, synchronous=wanted[0].synchronous)
            pair.settle(PATIENCE)
            made = (pair.profile, pair.synchronous)
            lab("snapshot", SNAPSHOT)
            pair.settle(PATIENCE)
        for measurement in wanted:
            try:
                with measurable(measurement.name):
                    rig.change(pair, enable, profile=measurement.profile, synchronous=measurement.synchronous)
                    pair.settle(PATIENCE)
                    measurement.take(bench, pair)
            except NotMeasured as error:
                bench.say(f"failover: {error}")
                with measurable("going back to the pair as it was made"):
                    lab("rollback", SNAPSHOT)
                    pair.profile, pair.synchronous = made
                    pair.settle(PATIENCE)


def figures(options: Options) -> Sequence[Figure]:
    return [figure for measurement in chosen(options) for figure in measurement.figures]


SUITE = Suite(
    "what clients notice of a failover, and what the pair costs",
    figures,
    lambda options: [failing_over],
    [measurement.name for measurement in MEASUREMENTS],
)
