"""bin/test: runs the stages that are asked for, tells how each step went, and counts."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence

from tools.environment import EnvironmentFailed
from tools.stages import STAGES, Stage
from tools.steps import Outcome, StageBroken, Step

USAGE = """\
usage: bin/test [--list] [STAGE [NAME...]]...

Without a stage: everything. Names narrow a stage down (see --list). Exit status 0: all passed.
"""


class BadArguments(Exception):
    """The command line names something that is not there."""


def parse(words: Sequence[str], stages: Mapping[str, Stage]) -> dict[str, list[str]]:
    """Stage names, each followed by names within it; nothing means every stage, whole."""
    asked: dict[str, list[str]] = {}
    stage = ""
    for word in words:
        if word in stages:
            stage = word
            asked.setdefault(stage, [])
        elif not stage:
            raise BadArguments(f"no stage is named {word!r}; the stages are {', '.join(stages)}")
        else:
            known = stages[stage].names
            if known is not None and word not in known():
                raise BadArguments(f"stage {stage} has nothing named {word!r}; it has {', '.join(known()) or 'no names'}")
            asked[stage].append(word)
    return asked or {name: [] for name in stages}


def listing(stages: Mapping[str, Stage]) -> str:
    """One line for each stage, with the names that narrow it down."""
    lines = []
    for name, stage in stages.items():
        within = ["folders, files or tests"] if stage.names is None else stage.names()
        lines.append(f"{name:<9} {stage.summary}{' [' + ' '.join(within) + ']' if within else ''}\n")
    return "".join(lines)


def plural(outcome: Outcome) -> str:
    counts = f"{outcome.passed} passed, {outcome.failed} failed"
    return f"{counts}, {outcome.skipped} skipped" if outcome.skipped else counts


def describe(outcome: Outcome) -> str:
    """A step's verdict, for its line."""
    if outcome.ran + outcome.skipped == 0:
        verdict = "done"
    elif outcome.ran == 0:
        verdict = "skipped"
    elif outcome.ran + outcome.skipped == 1:
        verdict = "failed" if outcome.failed else "passed"
    else:
        verdict = plural(outcome)
    return f"{verdict} ({outcome.note})" if outcome.note else verdict


def run_step(stage: str, step: Step) -> Outcome:
    """Run one step, on one line of its own; a failed step's whole output follows it."""
    print(f"{stage:<9} {step.name:<34} ", end="", flush=True)
    started = time.monotonic()
    outcome = step.run()
    print(f"{time.monotonic() - started:6.1f} s  {describe(outcome)}", flush=True)
    if outcome.failed:
        print(f"----- {stage} {step.name}\n{outcome.output.rstrip()}\n----- end of {stage} {step.name}", flush=True)
    return outcome


def run_stage(name: str, stage: Stage, names: Sequence[str]) -> Outcome:
    """Run a stage to its end, whatever fails in it; one that ran nothing has failed."""
    total = Outcome()
    try:
        with contextlib.closing(stage.steps(names)) as steps:
            for step in steps:
                total += run_step(name, step)
    except (StageBroken, EnvironmentFailed) as error:
        print(f"{name:<9} cannot go on: {error}", flush=True)
        total += Outcome(failed=1)
    except Exception:
        # A fault of the tools themselves: told like a failed test, so that the other stages still run and are counted.
        print(f"{name:<9} broke down:\n{traceback.format_exc()}", flush=True)
        total += Outcome(failed=1)
    if total.ran + total.skipped == 0:
        print(f"{name:<9} ran nothing", flush=True)
        total += Outcome(failed=1)
    return total


def main(words: Sequence[str]) -> int:
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    if list(words) == ["--list"]:
        print(listing(STAGES), end="")
        return 0
    try:
        asked = parse(words, STAGES)
    except BadArguments as error:
        print(f"bin/test: {error}\n{USAGE}", end="", file=sys.stderr)
        return 2
    # So that what a stage has started is tidied up when the run is ended from outside.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.monotonic()
    total = Outcome()
    for name, names in asked.items():
        total += run_stage(name, STAGES[name], names)
    print(f"{time.monotonic() - started:.0f} seconds", flush=True)
    print(plural(total), flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
