"""How long bin/demo takes, with its caches and without."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.bench import Bench, NotMeasured, load
from tests.benchmarks.sheet import Figure
from tools.steps import execute

CACHED = Figure("bin/demo, image and environment cached", "s", 90)
FRESH = Figure("bin/demo, nothing cached", "s", 300)


def timed(bench: Bench, environment: Mapping[str, str]) -> float:
    """The seconds of one run without a lab before it; the lab is removed afterwards."""
    argv = ["bin/demo", "--name", f"{bench.options.lab}demo"]

    def run(*arguments: str) -> None:
        finished = execute([*argv, *arguments], env=environment, minutes=15)
        (bench.logs / "demo.log").write_text(finished.output)
        if finished.status:
            raise NotMeasured(f"bin/demo {' '.join(arguments)} failed with {finished.status}:\n{finished.output}")

    run("--down")
    began = time.monotonic()
    try:
        run()
        return time.monotonic() - began
    finally:
        execute([*argv, "--down"], env=environment)


def demo(bench: Bench) -> None:
    """The caches are filled when this begins: the lab and the environment have been used."""
    for run in bench.runs():
        bench.say(f"demo, run {run} of {bench.options.runs}")
        before = load()
        bench.add(CACHED, timed(bench, os.environ), before)


def fresh_demo(bench: Bench) -> None:
    """Once, with caches of its own that are empty. The Debian packages of this machine stay as they are."""
    bench.say("demo with empty caches")
    with tempfile.TemporaryDirectory(prefix="swg-ha-bench-", dir="/var/tmp") as folder:
        lab, user = Path(folder, "lab"), Path(folder, "user")
        before = load()
        seconds = timed(bench, os.environ | {"SWG_HA_LAB_CACHE": str(lab), "XDG_CACHE_HOME": str(user)})
        if not (lab.is_dir() and user.is_dir()):
            raise NotMeasured(f"the caches {lab} and {user} were not both used")
        bench.add(FRESH, seconds, before)
