"""One step of a test run: a program that runs within a bound, and how many tests its run counted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tools.environment import ROOT


@dataclass(frozen=True)
class Outcome:
    """Counts of tests, a short note for the step's line, and what to show when something failed."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""
    output: str = ""

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    @property
    def ran(self) -> int:
        return self.passed + self.failed


@dataclass(frozen=True)
class Finished:
    """A program that has ended: its exit status (negative: the signal that ended it) and all that it printed."""

    status: int
    output: str


@dataclass(frozen=True)
class Step:
    name: str
    run: Callable[[], Outcome]


Steps = Generator[Step, None, None]


class StageBroken(Exception):
    """A stage cannot go on; the text says why."""


def end_group(process: subprocess.Popen[str], patience: float = 20.0) -> None:
    """End a program with all its children: asked first, so that it can tidy up, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue


def execute(argv: Sequence[str], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None, minutes: float = 10.0) -> Finished:
    """Run a program to its end, or end it when its time is over; its output comes back in one piece."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        started = time.monotonic()
        try:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        except OSError as error:
            return Finished(127, f"{argv[0]}: {error}\n")
        try:
            status = process.wait(minutes * 60)
        except subprocess.TimeoutExpired:
            end_group(process)
            status = 124
            output.seek(0, os.SEEK_END)
            output.write(f"\nEnded after {time.monotonic() - started:.0f} seconds: its bound is {minutes:g} minutes.\n")
        finally:
            end_group(process)
        output.seek(0)
        return Finished(status, output.read())


def need(*packages: str) -> None:
    """Have the Debian packages installed."""
    done = execute([str(ROOT / "bin/need"), *packages], minutes=15)
    if done.status:
        raise StageBroken(done.output)


def need_lab() -> None:
    """Have on this machine what the lab needs of it, and the images of its hosts: tests give a lab less time than these take."""
    for words in (["requirements", "--install"], ["image"], ["image", "--release", "trixie"]):
        done = execute([str(ROOT / "bin/lab"), *words], minutes=15)
        if done.status:
            raise StageBroken(done.output)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="swg-ha-test-") as folder:
        yield Path(folder)


def one(finished: Finished) -> Outcome:
    """The program itself is the test."""
    return Outcome(failed=1, output=finished.output) if finished.status else Outcome(passed=1)


def only_trouble(finished: Finished) -> Outcome:
    """The program prepares something: it counts only when it fails."""
    return Outcome(failed=1, output=finished.output) if finished.status else Outcome()


def count_reports(folder: Path) -> Outcome:
    """Add up the test cases of every JUnit report in a folder."""
    cases = [case for file in sorted(folder.glob("**/*.xml")) for case in ElementTree.parse(file).iter("testcase")]
    failed = sum(1 for case in cases if case.find("failure") is not None or case.find("error") is not None)
    skipped = sum(1 for case in cases if case.find("skipped") is not None)
    return Outcome(len(cases) - failed - skipped, failed, skipped)


def reports(folder: Path) -> Callable[[Finished], Outcome]:
    """The tests are those in the JUnit reports that the program leaves in the folder; to have run none is a failure."""

    def count(finished: Finished) -> Outcome:
        counted = count_reports(folder)
        if counted.failed == 0 and (finished.status or counted.ran == 0):
            counted += Outcome(failed=1)
        return Outcome(counted.passed, counted.failed, counted.skipped, output=finished.output)

    return count


def command(
    name: str,
    argv: Sequence[str],
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    minutes: float = 10.0,
    count: Callable[[Finished], Outcome] = one,
) -> Step:
    """A step that runs one program."""
    return Step(name, lambda: count(execute(argv, cwd=cwd, env=env, minutes=minutes)))


def check(name: str, problems: Callable[[], Sequence[str]]) -> Step:
    """A step that passes when the function finds no problem."""

    def run() -> Outcome:
        found = problems()
        return Outcome(failed=1, output="\n".join(found) + "\n") if found else Outcome(passed=1)

    return Step(name, run)
