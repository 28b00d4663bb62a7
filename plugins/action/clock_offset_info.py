# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.swg.ha.plugins.module_utils.clock import (
    COMMAND,
    ClockError,
    Reading,
    Round,
    best_round,
    parse_time,
)

MOST = 100
# CLOCK_MONOTONIC stands still while a Linux machine sleeps, the wall clock does not.
STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def seconds(nanoseconds: float) -> float:
    return round(nanoseconds / 1e9, 6)


def shown(rounds: list[Round]) -> dict[str, Any]:
    """The measurement in the shape that RETURN of the module describes. Raises `ClockError`."""
    best = best_round(rounds)
    host_time = datetime.fromtimestamp(best.host // 1_000_000_000, UTC)
    return {
        "offset_s": seconds(best.offset),
        "uncertainty_s": seconds(best.round_trip / 2),
        "steady_offset_s": seconds(best.steady_offset),
        "host_time": host_time.strftime("%Y-%m-%dT%H:%M:%S") + f".{best.host % 1_000_000_000 // 1000:06d}Z",
        "rounds": [
            {
                "offset_s": seconds(one.offset),
                "round_trip_s": seconds(one.round_trip),
                "controller_step_s": seconds(one.step),
            }
            for one in rounds
        ],
    }


class ActionModule(ActionBase):
    """Measure over the connection that is there, without starting Python on the host."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec({"count": {"type": "int", "default": 5}})
        if not 1 <= args["count"] <= MOST:
            raise AnsibleActionFail(f"count: {args['count']} is not between 1 and {MOST}")
        try:
            result.update(shown([self._round() for _turn in range(args["count"])]), changed=False)
        except ClockError as error:
            raise AnsibleActionFail(f"cannot tell the offset of the host's clock: {error}") from error
        return result

    def _round(self) -> Round:
        # In this order, what passes between the two readings makes the round trip longer, never too short.
        steady_before = time.clock_gettime_ns(STEADY)
        wall_before = time.time_ns()
        # Reading a clock needs no privileges, so that no time goes by in becoming another user.
        answer = self._low_level_execute_command(COMMAND, sudoable=False)
        wall_after = time.time_ns()
        steady_after = time.clock_gettime_ns(STEADY)
        if answer["rc"] != 0:
            raise ClockError(f"{COMMAND!r} ended with {answer['rc']}: {(answer['stderr'] or answer['stdout']).strip()}")
        return Round(Reading(wall_before, steady_before), Reading(wall_after, steady_after), parse_time(answer["stdout"]))
