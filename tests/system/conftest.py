# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A lab of the tests' own (`system`), put back for every module to what its tests begin with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.pair import Lab, enable, eventually

STREAMING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also the tests that take minutes and are not of the normal run")
    parser.addoption("--all-cuts", action="store_true", help="cut enable_ha off at every one of its tasks (takes an hour)")
    parser.addoption("--kept-lab", metavar="NAME", help="use this lab with a pair as it is, and keep it: to try one test again and again")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; runs with --long, not in the normal run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    left = [item for item in items if item.get_closest_marker("long")]
    if left:
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="session")
def running() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.fail("tests/system needs root")
    lab = Lab("system")
    lab("down")
    lab("up")
    lab("snapshot", "bare")
    yield lab
    lab("down")


@pytest.fixture(scope="session")
def inventory(running: Lab) -> Path:
    return running.inventory()


@pytest.fixture(scope="module")
def bare(running: Lab) -> Lab:
    """The lab with two servers that are no pair yet."""
    running("rollback", "bare")
    return running


@pytest.fixture(scope="session")
def enabled(running: Lab, inventory: Path) -> str:
    """The name of a snapshot of the lab with a pair."""
    running("rollback", "bare")
    enable(inventory)
    # The servers are shut down together, and neither is to go to the other one meanwhile. At the next boot that is forgotten.
    running.sh("ps2", "ha stop", timeout=120)
    running("snapshot", "enabled")
    return "enabled"


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Lab:
    """The lab with a pair that has found itself again after a power cut of both servers, ps1 the active one."""
    if name := request.config.getoption("--kept-lab"):
        return Lab(str(name))
    running: Lab = request.getfixturevalue("running")
    running("rollback", request.getfixturevalue("enabled"))
    wait_for_pair(running)
    return running


def wait_for_pair(lab: Lab) -> None:
    """Heartbeat has settled on both servers, ps1 holds the virtual IP, ps2 streams."""

    def settled() -> bool:
        return (
            lab.try_run("exec", "ps1", "--", "cl_status", "rscstatus").stdout.strip() in ("all", "local")
            and lab.try_run("exec", "ps2", "--", "cl_status", "rscstatus").stdout.strip() in ("none", "local")
            and lab.try_run("exec", "ps1", "--", "runuser", "--user=postgres", "--", "psql", "-XAtc", STREAMING).stdout.strip() == "1"
        )

    eventually(settled, 180, "both servers have settled after their start")
