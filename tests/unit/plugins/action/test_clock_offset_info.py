# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest
import yaml

from ansible_collections.swg.ha.plugins.action import clock_offset_info
from ansible_collections.swg.ha.plugins.module_utils.clock import ClockError, Reading, Round
from ansible_collections.swg.ha.plugins.modules import clock_offset_info as documentation

S = 1_000_000_000


def one(trip, host_ahead=0, step=0):
    return Round(Reading(1000 * S, 50 * S), Reading(1000 * S + trip + step, 50 * S + trip), 1000 * S + trip // 2 + host_ahead)


def test_shape():
    rounds = [one(4_000_000, -1500), one(2_000_000, -2_000_000_000), one(1000, step=-3600 * S)]
    assert clock_offset_info.shown(rounds) == {
        "offset_s": -2.0,
        "uncertainty_s": 0.001,
        "steady_offset_s": 948.0,
        "host_time": "1970-01-01T00:16:38.001000Z",
        "rounds": [
            {"offset_s": -0.000002, "round_trip_s": 0.004, "controller_step_s": 0.0},
            {"offset_s": -2.0, "round_trip_s": 0.002, "controller_step_s": 0.0},
            {"offset_s": 1800.0, "round_trip_s": 0.000001, "controller_step_s": -3600.0},
        ],
    }


def test_what_is_returned_is_what_is_documented():
    shown = clock_offset_info.shown([one(1000)])
    documented = yaml.safe_load(documentation.RETURN)
    assert set(shown) == set(documented)
    assert set(shown["rounds"][0]) == set(documented["rounds"]["contains"])


def test_a_clock_that_was_set_all_the_time_tells_nothing():
    with pytest.raises(ClockError):
        clock_offset_info.shown([one(1000, step=S)])
