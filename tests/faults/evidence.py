# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the probe's and the samplers' lines prove. No input or output; all times are seconds of CLOCK_MONOTONIC."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Between two looks of one sampler that are further apart than this, nothing is known.
BLIND = 0.5


@dataclass(frozen=True)
class Acknowledged:
    """A commit that the client was told of."""

    number: int
    sent: float
    at: float
    server: str
    timeline: int


@dataclass(frozen=True)
class Story:
    """What one run of the probe saw. unknown: sent, and nobody knows whether it was committed; refused: the server said no."""

    acknowledged: Sequence[Acknowledged] = field(repr=False)
    unknown: Sequence[int]
    refused: Sequence[int]
    failed_attempts: int
    begun: float
    ended: float

    def longest_gap(self, since: float = float("-inf"), until: float = float("inf")) -> float:
        """The longest time without an acknowledged commit that touches the time from `since` to `until`; infinity for none after it."""
        begin, end = self.longest(since, until)
        return end - begin

    def longest(self, since: float = float("-inf"), until: float = float("inf")) -> tuple[float, float]:
        """When that time began, and when it ended."""
        return max(self.gaps(since, until), key=lambda gap: gap[1] - gap[0], default=(float("-inf"), float("inf")))

    def gaps(self, since: float = float("-inf"), until: float = float("inf")) -> list[tuple[float, float]]:
        """The times between consecutive acknowledged commits that touch the time from `since` to `until`.

        What is open when the probe ends has no end.
        """
        times = sorted(commit.at for commit in self.acknowledged)
        if not times:
            return [(self.begun, float("inf"))]
        pairs = list(itertools.pairwise(times))
        if self.ended - times[-1] > 1:
            pairs.append((times[-1], float("inf")))
        return [(begin, end) for begin, end in pairs if end >= since and begin <= until]

    def next_after(self, moment: float) -> Acknowledged | None:
        """The first commit that was acknowledged after the moment and also sent after it."""
        later = [commit for commit in self.acknowledged if commit.sent > moment]
        return min(later, key=lambda commit: commit.at, default=None)

    def servers(self) -> list[str]:
        """Who acknowledged, in the order of the first time."""
        return list(dict.fromkeys(commit.server for commit in sorted(self.acknowledged, key=lambda commit: commit.at)))


def story(lines: Iterable[str]) -> Story:
    """Read the probe's lines. A last line that is cut off is left out."""
    acknowledged, unknown, refused = [], [], []
    failed = 0
    times: list[float] = []
    for event in records(lines):
        times.append(event["at"])
        match event["event"]:
            case "acknowledged":
                acknowledged.append(Acknowledged(event["n"], event["sent"], event["at"], event["server"], event["timeline"]))
            case "unknown":
                unknown.append(event["n"])
            case "refused":
                refused.append(event["n"])
            case "failed":
                failed += 1
    return Story(acknowledged, unknown, refused, failed, min(times, default=0.0), max(times, default=0.0))


def lost(acknowledged: Iterable[Acknowledged], present: Collection[int]) -> list[Acknowledged]:
    """The acknowledged commits whose rows are not there."""
    return [commit for commit in acknowledged if commit.number not in present]


def dual_writes(acknowledged: Iterable[Acknowledged]) -> list[tuple[Acknowledged, Acknowledged]]:
    """Commits that a server took although another one had begun: each with the earlier one that shows it.

    A promotion begins a new timeline. So whoever has seen a commit of a timeline sees none of an older one that was sent later, and
    none of the same timeline from the other server.
    """
    newest: Acknowledged | None = None
    found = []
    for commit in sorted(acknowledged, key=lambda commit: commit.at):
        if newest is None or commit.timeline > newest.timeline:
            newest = commit
        elif commit.sent > newest.at and (commit.timeline < newest.timeline or commit.server != newest.server):
            found.append((commit, newest))
    return found


@dataclass(frozen=True)
class Look:
    """One sample of a server: see sampler.py. The database was asked at ``at``, and has answered at ``answered``."""

    at: float
    answered: float
    address: bool
    database: str
    timeline: int | None = None


def looks(lines: Iterable[str]) -> list[Look]:
    """Read a sampler's lines. One that is cut off, as a power cut does, is left out."""
    found = [Look(line["at"], line["answered"], line["address"], line["database"], line["timeline"]) for line in records(lines)]
    return sorted(found, key=lambda look: look.at)


def records(lines: Iterable[str]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "at" in entry:
            found.append(entry)
    return found


Span = tuple[float, float]


def spans(samples: Sequence[Look], holds: Iterable[bool]) -> list[Span]:
    """The times for which something surely held: from the answer to the first look of a row of them to the question of the last."""
    found: list[Span] = []
    before: float | None = None
    for look, held in zip(samples, holds, strict=True):
        if held:
            if before is not None and look.at - before <= BLIND:
                found[-1] = (found[-1][0], look.at)
            else:
                found.append((look.answered, look.at))
            before = look.at
        else:
            before = None
    return found


def overlaps(one: Iterable[Span], other: Sequence[Span]) -> list[Span]:
    """The times that are in both, those without a length left out."""
    both = [(max(a[0], b[0]), min(a[1], b[1])) for a in one for b in other]
    return sorted(span for span in both if span[1] > span[0])


def two_primaries(one: Sequence[Look], other: Sequence[Look]) -> list[Span]:
    """When both databases took writes."""
    return overlaps(*(spans(samples, [look.database == "primary" for look in samples]) for samples in (one, other)))


def address_without_writes(samples: Sequence[Look]) -> list[Span]:
    """When the server had the virtual IP and its database took no writes."""
    return [span for span in spans(samples, [look.address and look.database != "primary" for look in samples]) if span[1] > span[0]]


def two_addresses(one: Sequence[Look], other: Sequence[Look]) -> list[Span]:
    """When both servers had the virtual IP."""
    return overlaps(*(spans(samples, [look.address for look in samples]) for samples in (one, other)))
