# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import random
import subprocess
import time

import pytest

from ansible_collections.swg.ha.plugins.module_utils import clock

MS = 1_000_000
S = 1000 * MS


def one(at=0, out=MS, back=MS, host_ahead=0, step=0):
    """A round that starts `at`, whose question takes `out` and whose answer takes `back` nanoseconds."""
    wall, steady = 1_790_000_000 * S + at, 5000 * S + at
    return clock.Round(
        clock.Reading(wall, steady),
        clock.Reading(wall + out + back + step, steady + out + back),
        wall + out + host_ahead,
    )


def result(round_):
    """What the action plugin returns of a round, as far as `pair_offset` needs it."""
    return {"steady_offset_s": round_.steady_offset / S, "uncertainty_s": round_.round_trip / 2 / S}


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("swg.ha.clock:1790000000.000000001\n", 1_790_000_000 * S + 1),
        ("swg.ha.clock:0.999999999", 999_999_999),
        ("Welcome to ps1\r\nswg.ha.clock:7.000000000\r\nbye\r\n", 7 * S),
    ],
)
def test_parse_time(printed, expected):
    assert clock.parse_time(printed) == expected


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "swg.ha.clock:1790000000.%N",
        "swg.ha.clock:1790000000.N",
        "swg.ha.clock:1790000000",
        "swg.ha.clock:-5.000000000",
        "swg.ha.clock:1790000000,000000000",
        "1790000000.000000000",
        "x swg.ha.clock:1790000000.000000000",
        "swg.ha.clock:999999999999999.000000000",
        "swg.ha.clock:1.000000000\nswg.ha.clock:2.000000000\n",
    ],
)
def test_parse_time_refuses_and_shows(printed):
    with pytest.raises(clock.ClockError) as error:
        clock.parse_time(printed)
    assert repr(printed) in str(error.value)


def test_the_command_prints_the_time():
    before = time.time_ns()
    printed = subprocess.run(["/bin/sh", "-c", clock.COMMAND], check=True, capture_output=True, text=True).stdout
    assert before <= clock.parse_time(printed) <= time.time_ns()


def test_the_command_only_prints():
    program, *operands = clock.COMMAND.split()
    assert program == "date"
    assert len(operands) == 1 and operands[0].startswith("+")


def test_offset_and_round_trip():
    fair = one(out=3 * MS, back=3 * MS, host_ahead=2 * S)
    assert (fair.offset, fair.round_trip, fair.step) == (2 * S, 6 * MS, 0)


def test_the_true_offset_is_always_within_half_the_round_trip():
    chance = random.Random(5905)
    for _turn in range(2000):
        ahead = chance.randrange(-3600 * S, 3600 * S)
        measured = one(out=chance.randrange(1, S), back=chance.randrange(1, S), host_ahead=ahead)
        assert abs(measured.offset - ahead) <= measured.round_trip / 2


@pytest.mark.parametrize("step", [-3600 * S, -3 * MS, 3 * MS, 3600 * S])
def test_a_step_of_the_controllers_clock_is_noticed(step):
    assert one(step=step).step == step


@pytest.mark.parametrize("jitter", [-MS, 0, MS])
def test_jitter_between_the_two_readings_is_no_step(jitter):
    assert one(step=jitter).step == 0


def test_the_fastest_round_is_kept():
    rounds = [one(at=turn * S, out=trip, back=trip) for turn, trip in enumerate([9 * MS, 2 * MS, 4 * MS])]
    assert clock.best_round(rounds) is rounds[1]


def test_a_fast_round_with_a_step_is_not_kept():
    rounds = [one(out=9 * MS), one(at=S, step=-60 * S), one(at=2 * S, out=5 * MS)]
    assert clock.best_round(rounds) is rounds[2]


@pytest.mark.parametrize("rounds", [[], [one(step=S), one(step=-S)]])
def test_without_a_good_round_nothing_is_told(rounds):
    with pytest.raises(clock.ClockError, match="measure again"):
        clock.best_round(rounds)


def test_pair_offset():
    a, b = one(out=MS, back=MS, host_ahead=S), one(at=30 * S, out=2 * MS, back=2 * MS, host_ahead=-S)
    assert clock.pair_offset(result(a), result(b)) == clock.Offset(2.0, 0.003)
    assert clock.pair_offset(result(b), result(a)) == clock.Offset(-2.0, 0.003)


def test_pair_offset_when_the_controllers_clock_was_set_between_the_two():
    stepped = one(at=30 * S, host_ahead=S)
    stepped = stepped._replace(
        before=stepped.before._replace(wall=stepped.before.wall - 3600 * S),
        after=stepped.after._replace(wall=stepped.after.wall - 3600 * S),
    )
    assert stepped.step == 0
    assert stepped.offset == 3601 * S
    assert clock.pair_offset(result(stepped), result(one())) == clock.Offset(1.0, 0.002)


def test_pair_offset_is_right_within_its_uncertainty():
    chance = random.Random(9)
    for _turn in range(500):
        ahead = [chance.randrange(-5 * S, 5 * S) for _host in "ab"]
        a, b = (one(at=chance.randrange(60 * S), out=chance.randrange(S), back=chance.randrange(S), host_ahead=offset) for offset in ahead)
        pair = clock.pair_offset(result(a), result(b))
        assert abs(pair.offset_s - (ahead[0] - ahead[1]) / S) <= pair.uncertainty_s + 2e-6


@pytest.mark.parametrize(
    ("offset", "uncertainty", "limit", "expected"),
    [
        (1.5, 0.1, 1.0, True),
        (-1.5, 0.1, 1.0, True),
        (1.05, 0.1, 1.0, False),
        (-1.05, 0.1, 1.0, False),
        (0.5, 0.0, 0.5, False),
        (0.0, 2.0, 1.0, False),
    ],
)
def test_only_what_is_beyond_doubt_is_beyond_the_limit(offset, uncertainty, limit, expected):
    assert clock.Offset(offset, uncertainty).beyond(limit) is expected
