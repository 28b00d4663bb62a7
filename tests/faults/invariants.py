# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What must hold whatever happens to a pair, watched around every case.

I1  never two databases that take writes
I2  no acknowledged commit is lost (synchronous mode; in asynchronous mode they are counted)
I3  the virtual IP is never for more than a second where the database takes no writes, nor on both servers
I4  every decision has a reason code, in the log and in the timeline
I5  the pair is redundant again by itself
I6  no file in a final place is half-written, and no copy of the database was left behind
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.evidence import Acknowledged, Look, Span, Story, address_without_writes, dual_writes, lost, two_addresses, two_primaries
from tests.faults.rig import Pair, Probing
from tests.system.pair import DATA, SERVERS

# The events that decide something, by name (swg_ha/events.py).
DECISIONS = ("ROLE_CHANGED", "TRANSITION_STARTED", "REFUSED", "FENCED")

FILES = rf"""
import json, os
from pathlib import Path
for folder in ("/etc/ha_manager", "/var/lib/ha_manager", "/run/ha_manager"):
    for path in [Path("/etc/ha_manager/ha_manager_status"), *Path(folder).glob("*.json")]:
        try:
            json.loads(path.read_bytes())
        except FileNotFoundError:
            pass
        except ValueError as error:
            print(f"{{path}} is no JSON: {{error}}")
if all(os.path.exists(f"/etc/ha_manager/{{role}}") for role in ("active", "passive")):
    print("/etc/ha_manager/active and passive are both there")
for left in ("{DATA}.new", "{DATA}.rewind"):
    if os.path.exists(left):
        print(f"{{left}} was left behind")
"""


@dataclass
class Watch:
    """A case that is being watched. `seen`: the probe's story, there once the case has ended."""

    pair: Pair
    probe: Probing
    began: float
    # The wall clock, for the journal alone.
    began_wall: float
    seen: Story | None = None
    lost: list[Acknowledged] = field(default_factory=list)
    redundant_after: float | None = None

    @property
    def story(self) -> Story:
        assert self.seen is not None, "the case has not ended"
        return self.seen

    def violations(self, samples: dict[str, list[Look]], present: set[int], *, both_for: float, stale_for: float) -> list[str]:
        """What did not hold of I1 to I3."""
        one, other = (samples[host] for host in SERVERS)
        said = []
        for late, newest in dual_writes(self.story.acknowledged)[:1]:
            said.append(
                f"I1: {late.server} acknowledged row {late.number} on timeline {late.timeline} although {newest.server} had begun "
                f"timeline {newest.timeline} {late.sent - newest.at:.3f} s before"
            )
        said += [f"I1: both databases took writes {self.when(span)}" for span in longer(two_primaries(one, other), both_for)]
        self.lost = lost(self.story.acknowledged, present)
        if self.lost and self.pair.synchronous:
            first = min(self.lost, key=lambda commit: commit.at)
            said.append(
                f"I2: {len(self.lost)} acknowledged commits are lost, the first of {first.server}, timeline {first.timeline}, "
                f"acknowledged {first.at - self.began:.3f} s after the begin"
            )
        said += [f"I3: both servers had the virtual IP {self.when(span)}" for span in longer(two_addresses(one, other), stale_for)]
        for host, looks in samples.items():
            spans = longer(address_without_writes(looks), stale_for)
            said += [f"I3: {host} had the virtual IP without a database that takes writes {self.when(span)}" for span in spans]
        return said

    def when(self, span: Span) -> str:
        return f"for {span[1] - span[0]:.2f} s, from {span[0] - self.began:.2f} s after the begin"


def longer(spans: Sequence[Span], seconds: float) -> list[Span]:
    return [span for span in spans if span[1] - span[0] > seconds]


def undecided(pair: Pair, host: str, since: float) -> list[str]:
    """The decisions of a server since a moment of the wall clock that have no reason code, in the journal and in the timeline."""
    said = []
    journal = pair.lab.sh(host, f"journalctl --unit=ha_manager --since=@{since:.3f} --output=json --all")
    for entry in map(json.loads, journal.splitlines()):
        if entry.get("SWG_HA_EVENT") in DECISIONS and not str(entry.get("SWG_HA_CODE", "")).strip("?"):
            said.append(f"I4: {host}: no code in the log: {entry.get('SWG_HA_EVENT')}: {entry.get('MESSAGE')}")
    for transition in timeline(pair, host):
        if not (transition.get("code") and transition.get("reason")):
            said.append(f"I4: {host}: no code or reason in the timeline: {transition.get('kind')} of {transition.get('started')}")
    return said


def timeline(pair: Pair, host: str) -> list[dict[str, Any]]:
    """A server's transitions, newest first."""
    done = pair.ha(host, "timeline", "--json", "50")
    assert done.returncode == 0, f"{host}: ha timeline --json: {done.returncode}\n{done.stdout}{done.stderr}"
    found = json.loads(done.stdout)
    transitions: list[dict[str, Any]] = found["transitions"] if isinstance(found, dict) else found
    return transitions


def half_written(pair: Pair, host: str) -> list[str]:
    return [f"I6: {host}: {line}" for line in pair.lab.sh(host, "python3 -", input=FILES).splitlines()]


@contextlib.contextmanager
def watched(
    pair: Pair, *, redundant_within: float = 60, both_for: float = 0.0, stale_for: float = 1.0, every: float = 0.01
) -> Iterator[Watch]:
    """Run the probe and the samplers around a case, heal every fault at its end, and check every invariant.

    redundant_within: seconds from the healing to a redundant pair. both_for, stale_for: the longest time that two databases may take
    writes, and that the virtual IP may be where none does.
    """
    wall = time.time()
    pair.forget_samples()
    with pair.probing(every) as probe:
        watch = Watch(pair, probe, time.monotonic(), wall)
        yield watch
        pair.lab("heal")
        watch.redundant_after = pair.wait_redundant(redundant_within)
        probe.resumes(10, "with the redundant pair")
        watch.seen = probe.end()
    samples = {host: pair.samples(host) for host in SERVERS}
    violations = watch.violations(samples, pair.rows(probe.client), both_for=both_for, stale_for=stale_for)
    for host in SERVERS:
        violations += undecided(pair, host, wall) + half_written(pair, host)
    assert not violations, "\n".join(violations) + f"\n{pair.diagnosis()}"
