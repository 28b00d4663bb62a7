"""What every suite stands on: a lab of its own, its sheet, the machine's load."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.sheet import Figure, Sheet, number
from tools.environment import ROOT
from tools.steps import execute


class NotMeasured(Exception):
    """A measurement could not be taken; the text says why."""


@dataclass(frozen=True)
class Options:
    """``lab`` is the name of the lab, and the beginning of the name of any other one; ``fresh``: with empty caches as well.

    ``only``: the measurements to take of a suite that lets one choose, all if empty; ``long``: what takes minutes takes its full time.
    """

    runs: int
    lab: str
    fresh: bool = False
    only: tuple[str, ...] = ()
    long: bool = False


@dataclass
class Bench:
    options: Options
    sheet: Sheet
    logs: Path
    _began: float = field(default_factory=time.monotonic)

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {line}", file=sys.stderr, flush=True)

    def add(self, figure: Figure, value: float, load: float) -> None:
        self.sheet.add(figure, value, load)
        bound = "" if figure.bound is None else f" (at most {number(figure.bound)})"
        self.say(f"{figure.name}: {number(value)} {figure.unit}{bound}, load {load:.1f}")

    def runs(self) -> range:
        return range(1, self.options.runs + 1)


@dataclass(frozen=True)
class Suite:
    """Figures that are measured together; each part stands for itself, so that one that fails does not stop the others."""

    summary: str
    figures: Callable[[Options], Sequence[Figure]]
    parts: Callable[[Options], Sequence[Callable[[Bench], None]]]
    # What Options.only may name.
    measurements: Sequence[str] = ()


def load() -> float:
    return os.getloadavg()[0]


class Lab:
    """One lab, by its command."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, *arguments: str, minutes: float = 5) -> str:
        """The verb's output; NotMeasured when it fails."""
        finished = execute(["bin/lab", "--name", self.name, *arguments], cwd=ROOT, minutes=minutes)
        if finished.status:
            raise NotMeasured(f"bin/lab {' '.join(arguments)} failed with {finished.status}:\n{finished.output.rstrip()}")
        return finished.output

    def shell(self, host: str, script: str, minutes: float = 15) -> str:
        """Run a script in a host, under `set -eu`."""
        return self.run("exec", host, "--", "bash", "-c", f"set -euo pipefail\n{script}", minutes=minutes)

    @contextmanager
    def up(self) -> Iterator[Lab]:
        """The lab, fresh, and gone afterwards."""
        self.run("down")
        try:
            self.run("up", minutes=25)
            yield self
        finally:
            self.run("down")
