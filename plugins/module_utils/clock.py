# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How far apart two clocks are, when one can only be read over a connection. No I/O.

A host that is asked for its time answers at some moment between the question and the answer. So its
offset lies within half the round trip of what one gets by assuming the middle (as in NTP, RFC 5905, 8).
All times are whole nanoseconds; results are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# Prints the time and sets nothing. The mark tells its line from what a login shell may print.
COMMAND = "date +swg.ha.clock:%s.%N"
_PRINTED = re.compile(r"^swg\.ha\.clock:(\d{1,11})\.(\d{9})\s*$", re.MULTILINE)

# The controller's two clocks are read one after the other. What passes in between on a busy machine is no step.
STEP_TOLERANCE_NS = 2_000_000


class ClockError(Exception):
    """No offset can be told. The text says why."""


class Reading(NamedTuple):
    """Both clocks of the controller, read together: `wall` since the epoch, `steady` since any fixed moment."""

    wall: int
    steady: int


class Round(NamedTuple):
    """One question: the controller before and after it, and the time `host` that the host answered."""

    before: Reading
    after: Reading
    host: int

    @property
    def round_trip(self) -> int:
        return self.after.steady - self.before.steady

    @property
    def step(self) -> int:
        """How far the controller's wall clock was set during the round (0: it was not)."""
        apart = (self.after.wall - self.before.wall) - self.round_trip
        return apart if abs(apart) > STEP_TOLERANCE_NS else 0

    @property
    def offset(self) -> int:
        """The host's clock less the controller's wall clock."""
        return self.host - (self.before.wall + self.after.wall) // 2

    @property
    def steady_offset(self) -> int:
        """The host's clock less the controller's steady clock, which nobody can set."""
        return self.host - (self.before.steady + self.after.steady) // 2


class Offset(NamedTuple):
    """The offset is `offset_s`, give or take `uncertainty_s`, in seconds."""

    offset_s: float
    uncertainty_s: float

    def beyond(self, limit_s: float) -> bool:
        """Whether it is over the limit beyond doubt, wherever in the uncertainty it lies."""
        return abs(self.offset_s) - self.uncertainty_s > limit_s


def parse_time(printed: str) -> int:
    """Nanoseconds since the epoch, from what `COMMAND` printed. Raises `ClockError`."""
    found = _PRINTED.findall(printed)
    if len(found) != 1:
        raise ClockError(f"the host should print its time once, as seconds with nine decimals; it printed {printed!r}")
    seconds, nanoseconds = found[0]
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def best_round(rounds: Iterable[Round]) -> Round:
    """The round with the smallest round trip, of those in which the controller's clock was not set.

    Raises `ClockError` if there is none.
    """
    good = [one for one in rounds if not one.step]
    if not good:
        raise ClockError("the controller's own clock was set in every round: measure again when it has settled")
    return min(good, key=lambda one: one.round_trip)


def pair_offset(a: Mapping[str, Any], b: Mapping[str, Any]) -> Offset:
    """The clock of host `a` less the clock of host `b`, from two results of `swg.ha.clock_offset_info`.

    Both must come from the same controller, in the same run. That the controller's clock was set in
    between does no harm. There is a problem only if the offset is beyond doubt over the limit:
    `pair_offset(a, b).beyond(limit_s)`.
    """
    return Offset(
        round(a["steady_offset_s"] - b["steady_offset_s"], 6),
        round(a["uncertainty_s"] + b["uncertainty_s"], 6),
    )
