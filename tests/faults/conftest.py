# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One pair in a lab of the tests' own (`fault`), hurt again and again, and the choice of cases by their ids."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.faults.rig import Pair, make
from tests.system.pair import Lab, enable

SNAPSHOT = "enabled"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--faults", metavar="ID[,ID...]", default="", help="the cases to run (default: those of the normal run)")
    group.addoption("--all-faults", action="store_true", help="every case (takes about an hour)")
    group.addoption("--fault-lab", metavar="N", default="fault", help="name of the lab (default: fault); a lab of this name is removed")
    group.addoption("--keep-fault-lab", action="store_true", help="use the lab as an earlier run has left it, and leave it")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(id, normal=False): a fault case by its id; normal: of the run without a choice")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = {word for word in re.split(r"[,\s]+", config.getoption("--faults")) if word}
    here = {item: item.get_closest_marker("fault") for item in items if Path(__file__).parent in item.path.parents}
    cases = {item: marker for item, marker in here.items() if marker is not None}
    known = {str(marker.args[0]) for marker in cases.values()}
    if unknown := sorted(asked - known):
        raise pytest.UsageError(f"no fault case is named {', '.join(unknown)}; there are {', '.join(sorted(known))}")

    def wanted(marker: pytest.Mark) -> bool:
        if asked:
            return marker.args[0] in asked
        return bool(config.getoption("--all-faults") or marker.kwargs.get("normal"))

    left = [item for item, marker in cases.items() if not wanted(marker)]
    if left:
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="session")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The pair, synchronous and with the fastest times, kept as a snapshot for what a failed case leaves."""
    if os.geteuid() != 0:
        pytest.fail("tests/faults needs root")
    lab = Lab(request.config.getoption("--fault-lab"))
    password = Path(f"/var/lib/swg-ha-lab/{lab.name}/swg_probe.password")
    if request.config.getoption("--keep-fault-lab") and password.exists():
        yield Pair(lab, password.read_text())
        return
    lab("down")
    lab("up")
    pair = make(lab, partial(enable, lab.inventory()))
    pair.settle()
    lab("snapshot", SNAPSHOT)
    password.touch(0o600)
    password.write_text(pair.password)
    yield pair
    if not request.config.getoption("--keep-fault-lab"):
        lab("down")


@pytest.fixture
def pair(made: Pair) -> Pair:
    """The pair without a fault and redundant; from the snapshot when it does not get there by itself."""
    try:
        made.settle(40)
    except AssertionError:
        made.lab("rollback", SNAPSHOT)
        made.wait_redundant(90)
    return made
