# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from tests.benchmarks.sheet import Figure, Sample, Sheet, met, number, row, table

TIME = Figure("enable", "s", 15)
COUNT = Figure("changes", "tasks", 0)
FREE = Figure("tar", "s")


def samples(*values: float) -> list[Sample]:
    return [Sample(value, 1.0) for value in values]


@pytest.mark.parametrize(
    ("figure", "values", "verdict"),
    [
        (TIME, [14.0, 15.0], True),
        (TIME, [1.0, 1.0, 15.001], False),
        (COUNT, [0, 0], True),
        (COUNT, [0, 1], False),
        (FREE, [1000.0], None),
        (TIME, [], False),
        (FREE, [], False),
    ],
)
def test_a_bound_holds_for_every_sample_and_not_for_none(figure: Figure, values: list[float], verdict: bool | None) -> None:
    assert met(figure, samples(*values)) is verdict


def test_a_verdict_is_of_what_was_measured_not_of_what_is_shown() -> None:
    found = row(TIME, samples(15.0004))
    assert (found["max"], found["met"]) == (15.0, False)


def test_a_row_tells_the_spread_and_the_highest_load() -> None:
    assert row(TIME, [Sample(9.0, 0.5), Sample(3.0, 4.26), Sample(4.0, 1.0), Sample(5.0, 0.1)]) == {
        "figure": "enable",
        "unit": "s",
        "runs": 4,
        "min": 3.0,
        "median": 4.5,
        "max": 9.0,
        "bound": 15,
        "met": True,
        "load": 4.3,
        "values": [9.0, 3.0, 4.0, 5.0],
    }


def test_what_was_not_measured_has_a_row_too() -> None:
    sheet = Sheet([TIME, COUNT])
    sheet.add(COUNT, 0, 0.0)
    first, second = sheet.rows()
    assert (first["runs"], first["median"], first["load"], first["met"]) == (0, None, None, False)
    assert (second["runs"], second["met"]) == (1, True)


def test_a_figure_of_another_suite_is_refused() -> None:
    with pytest.raises(ValueError, match="'tar' is not on this sheet"):
        Sheet([TIME]).add(FREE, 1.0, 0.0)


def test_the_table_lines_up() -> None:
    text = table([row(TIME, samples(12.5, 16)), row(COUNT, samples(0)), row(FREE, samples(7.126))])
    assert text.splitlines() == [
        "figure   unit   runs   min  median   max  bound  met  load",
        "enable   s         2  12.5   14.25    16     15   NO     1",
        "changes  tasks     1     0       0     0      0  yes     1",
        "tar      s         1  7.13    7.13  7.13      -    -     1",
    ]


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (0, "0"), (10, "10"), (100.0, "100"), (0.5, "0.5"), (1.005, "1"), (1.236, "1.24")]
)
def test_number(value: float | None, shown: str) -> None:
    assert number(value) == shown
