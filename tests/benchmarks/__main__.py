"""bin/bench: the command line."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks import failover, files, pair
from tests.benchmarks.bench import Bench, NotMeasured, Options, Suite
from tests.benchmarks.sheet import Row, Sheet, table
from tools.environment import ROOT, EnvironmentFailed
from tools.steps import execute

SUITES: Mapping[str, Suite] = {
    "pair": pair.SUITE,
    "failover": failover.SUITE,
    "files": files.SUITE,
}


def measure(name: str, suite: Suite, options: Options, logs: Path) -> list[Row]:
    """Take every part's measurements; a part that cannot go on says why, and what it still owed is not met."""
    bench = Bench(options, Sheet(suite.figures(options)), logs)
    for part in suite.parts(options):
        try:
            part(bench)
        except (NotMeasured, EnvironmentFailed) as error:
            bench.say(f"{name}: {part.__name__} cannot go on: {error}")
    return bench.sheet.rows()


def described(name: str, suite: Suite) -> list[str]:
    parts = [f"{'':<12} --only: {', '.join(suite.measurements)}"] if suite.measurements else []
    return [f"  {name:<10} {suite.summary}", *parts]


def parse(words: Sequence[str]) -> argparse.Namespace:
    names = ", ".join(SUITES)
    parser = argparse.ArgumentParser(
        prog="bin/bench",
        description="Measures what the project promises. Exit status 0: every run of every figure was within its bound.",
        epilog="\n".join(["names:", *(line for name, suite in SUITES.items() for line in described(name, suite))]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure (default: everything)")
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    parser.add_argument("--runs", type=positive, default=3, metavar="N", help="runs of each measurement (default: 3)")
    parser.add_argument("--fresh", action="store_true", help="also measure what starts with empty caches (once, minutes long)")
    parser.add_argument(
        "--lab", type=lab_name, default="bench", metavar="N", help="name of the lab (default: bench); a lab of this name is removed"
    )
    parser.add_argument("--only", metavar="PART[,PART...]", default="", help="take these measurements alone")
    parser.add_argument("--long", action="store_true", help="what runs under load runs for 30 minutes instead of 3")
    options = parser.parse_args(words)
    options.only = tuple(options.only.split(",")) if options.only else ()
    if unknown := [name for name in options.names if name not in SUITES]:
        parser.error(f"nothing is named {', '.join(unknown)}; the names are {names}")
    known = [part for name in options.names or SUITES for part in SUITES[name].measurements]
    if unknown := [part for part in options.only if part not in known]:
        parser.error(f"no measurement is named {', '.join(unknown)}; the names are {', '.join(known) or 'none'}")
    return options


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def lab_name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]{0,10}", text):
        raise argparse.ArgumentTypeError(f"'{text}' must be a small letter and at most 10 small letters or digits")
    return text


def main(words: Sequence[str]) -> int:
    asked = parse(words)
    if os.geteuid() != 0:
        print("bin/bench: needs root, as its labs do: become root and run it again", file=sys.stderr)
        return 1
    # So that the labs are removed when the run is ended from outside.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    logs = ROOT / ".cache/bench" / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    logs.mkdir(parents=True)
    needed = execute(["bin/lab", "requirements", "--install"], minutes=15)
    if needed.status:
        print(needed.output, end="", file=sys.stderr)
        return 1
    options = Options(asked.runs, asked.lab, asked.fresh, asked.only, asked.long)
    rows = [row for name in asked.names or SUITES for row in measure(name, SUITES[name], options, logs)]
    text = json.dumps(rows, indent=2) + "\n" if asked.json else table(rows)
    print(text, end="")
    print(f"What Ansible and the demo printed is in {logs.relative_to(ROOT)}", file=sys.stderr)
    return 0 if all(row["met"] is not False for row in rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
