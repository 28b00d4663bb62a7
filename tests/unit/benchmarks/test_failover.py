# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import itertools

from tests.benchmarks.bench import Options
from tests.benchmarks.failover import MEASUREMENTS, SUITE, chosen


def test_every_figure_belongs_to_one_measurement() -> None:
    names = [figure.name for measurement in MEASUREMENTS for figure in measurement.figures]
    assert len(names) == len(set(names))
    assert [figure.name for figure in SUITE.figures(Options(1, "bench"))] == names


def test_only_what_is_asked_for_is_measured() -> None:
    options = Options(1, "bench", only=("planned", "killed"))
    assert [measurement.name for measurement in chosen(options)] == ["planned", "killed"]
    assert all("planned" in figure.name or "killed" in figure.name for figure in SUITE.figures(options))


def test_the_pair_is_changed_as_seldom_as_can_be() -> None:
    kinds = [(measurement.profile, measurement.synchronous) for measurement in MEASUREMENTS]
    assert len(list(itertools.groupby(kinds))) == len(set(kinds))
