# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.runner import BadArguments, parse, run_stage
from tools.stages import Stage
from tools.steps import Outcome, StageBroken, Step, Steps, check, command, execute, only_trouble, reports


def stage(*steps: Step, broken: str = "") -> Stage:
    def made(names: Sequence[str]) -> Steps:
        yield from steps
        if broken:
            raise StageBroken(broken)

    return Stage("", made, lambda: ["one", "two"])


def program(name: str, code: str, **more: object) -> Step:
    return command(name, [sys.executable, "-c", code], **more)  # type: ignore[arg-type]


STAGES = {"lint": stage(), "pytest": Stage("", lambda names: stage().steps(names), None)}


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], {"lint": [], "pytest": []}),
        (["lint"], {"lint": []}),
        (["lint", "two", "one"], {"lint": ["two", "one"]}),
        (["pytest", "tests/unit", "lint", "one"], {"pytest": ["tests/unit"], "lint": ["one"]}),
    ],
)
def test_stages_with_names_within_them(words: list[str], asked: dict[str, list[str]]) -> None:
    assert parse(words, STAGES) == asked


@pytest.mark.parametrize(("words", "said"), [(["nope"], "'nope'"), (["lint", "three"], "'three'"), (["--verbose"], "'--verbose'")])
def test_a_word_that_means_nothing_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(BadArguments, match=said):
        parse(words, STAGES)


def test_a_failed_step_shows_its_output_and_the_next_one_still_runs(capfd: pytest.CaptureFixture[str]) -> None:
    total = run_stage("x", stage(program("bad", "print('the reason'); raise SystemExit(3)"), program("good", "")), [])
    assert (total.passed, total.failed, total.skipped) == (1, 1, 0)
    said = capfd.readouterr().out
    assert "the reason" in said
    assert said.index("the reason") < said.index("good")


def test_a_stage_that_runs_nothing_has_failed() -> None:
    assert run_stage("x", stage(), []).failed == 1
    assert run_stage("x", stage(program("prepare", "", count=only_trouble)), []).failed == 1


def test_a_stage_that_cannot_go_on_has_failed(capfd: pytest.CaptureFixture[str]) -> None:
    total = run_stage("x", stage(program("good", ""), broken="no such package"), [])
    assert (total.passed, total.failed) == (1, 1)
    assert "no such package" in capfd.readouterr().out


def test_a_fault_of_the_tools_is_a_failure_that_ends_the_stage_only(capfd: pytest.CaptureFixture[str]) -> None:
    def stumble() -> Outcome:
        raise ValueError("a bug")

    total = run_stage("x", stage(program("good", ""), Step("bad", stumble)), [])
    assert (total.passed, total.failed) == (1, 1)
    assert "ValueError: a bug" in capfd.readouterr().out


def test_a_skipped_step_is_counted_and_told(capfd: pytest.CaptureFixture[str]) -> None:
    total = run_stage("x", stage(Step("2.21", lambda: Outcome(skipped=1, note="no Python 3.12"))), [])
    assert (total.passed, total.failed, total.skipped) == (0, 0, 1)
    assert "skipped (no Python 3.12)" in capfd.readouterr().out


def gone_within(pid: int, seconds: float) -> bool:
    """A process that was killed takes its time on a busy machine; one that nobody waits for stays as a zombie."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_a_program_is_ended_with_its_children_when_its_time_is_over(tmp_path: Path) -> None:
    child = tmp_path / "child"
    finished = execute(["sh", "-c", f"sleep 600 & echo $! > {child}; wait"], minutes=0.04)
    assert finished.status == 124
    assert "its bound is 0.04 minutes" in finished.output
    assert gone_within(int(child.read_text()), 10)


def test_a_program_that_is_not_there_is_a_failure_that_names_it() -> None:
    finished = execute(["/nonexistent/program"])
    assert finished.status == 127
    assert "/nonexistent/program" in finished.output


def test_a_check_fails_with_the_problems_that_it_finds() -> None:
    assert check("x", lambda: ["a is wrong", "b is wrong"]).run() == Outcome(failed=1, output="a is wrong\nb is wrong\n")
    assert check("x", list).run() == Outcome(passed=1)


REPORT = """<testsuites><testsuite>
<testcase name="a"/><testcase name="b"><failure>x</failure></testcase>
<testcase name="c"><error>x</error></testcase><testcase name="d"><skipped/></testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("report", "status", "counts"),
    [
        (REPORT, 1, (1, 2, 1)),
        ("<testsuite><testcase name='a'/></testsuite>", 0, (1, 0, 0)),
        # An error outside of every test, such as one in a conftest.py.
        ("<testsuite><testcase name='a'/></testsuite>", 2, (1, 1, 0)),
        ("<testsuite/>", 0, (0, 1, 0)),
        (None, 1, (0, 1, 0)),
    ],
)
def test_tests_are_counted_from_the_reports(tmp_path: Path, report: str | None, status: int, counts: tuple[int, int, int]) -> None:
    if report:
        (tmp_path / "report.xml").write_text(report)
    outcome = program("x", f"raise SystemExit({status})", count=reports(tmp_path)).run()
    assert (outcome.passed, outcome.failed, outcome.skipped) == counts
