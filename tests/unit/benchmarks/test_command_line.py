# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.__main__ import SUITES, measure, parse
from tests.benchmarks.bench import Bench, NotMeasured, Options, Suite
from tests.benchmarks.sheet import Figure

ONE, TWO = Figure("one", "s", 1), Figure("two", "s", 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing is named nothing; the names are pair, failover, files"),
        (["pair", "--only", "planned"], "no measurement is named planned; the names are none"),
        (["failover", "--only", "power_cut,nothing"], "no measurement is named nothing; the names are at_rest, power_cut, "),
        (["pair", "--runs", "0"], "'0' is not a whole number above 0"),
        (["--lab", "Bench"], "'Bench' must be a small letter"),
    ],
)
def test_wrong_arguments_are_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_help_lists_every_suite(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    assert all(name in text and suite.summary in text for name, suite in SUITES.items())


def test_a_part_that_fails_does_not_stop_the_next_and_is_not_met(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(bench: Bench) -> None:
        raise NotMeasured("the lab is gone")

    def whole(bench: Bench) -> None:
        for run in bench.runs():
            bench.add(TWO, run / 10, 0.0)

    suite = Suite("", lambda options: [ONE, TWO], lambda options: [broken, whole])
    rows = measure("some", suite, Options(runs=3, lab="bench"), tmp_path)
    assert [(row["figure"], row["runs"], row["met"]) for row in rows] == [("one", 0, False), ("two", 3, True)]
    assert "some: broken cannot go on: the lab is gone" in capsys.readouterr().err


def test_empty_caches_are_measured_only_when_asked_for() -> None:
    suite = SUITES["pair"]
    usual, fresh = Options(3, "bench"), Options(3, "bench", fresh=True)
    assert {figure.name for figure in suite.figures(usual)} < {figure.name for figure in suite.figures(fresh)}
    assert len(suite.parts(usual)) + 1 == len(suite.parts(fresh))
