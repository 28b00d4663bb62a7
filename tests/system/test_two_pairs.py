# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two pairs, in one run, with the same addresses in two networks that know nothing of each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.pair import MODULE_XML, SERVERS, Lab, playbook, refused, status

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def other() -> Iterator[Lab]:
    lab = Lab("system2")
    lab("down")
    lab("up")
    yield lab
    lab("down")


@pytest.fixture(scope="module")
def inventories(bare: Lab, other: Lab) -> list[Path]:
    return [bare.inventory(qualified=True), other.inventory(qualified=True)]


def test_a_problem_of_one_pair_stops_both(other: Lab, inventories: list[Path]) -> None:
    other.sh("ps1", f"mkdir --parents $(dirname {MODULE_XML}); echo '<module' > {MODULE_XML}")
    problems = refused("enable_ha", *inventories)
    assert problems and all(problem.startswith(f"system2-ps1: {MODULE_XML}: ") for problem in problems), problems
    other.sh("ps1", f"rm {MODULE_XML}")


def test_both_become_pairs_of_their_own(bare: Lab, other: Lab, inventories: list[Path]) -> None:
    playbook("enable_ha", *inventories, timeout=300)
    secrets = {lab.name: {lab.sh(host, "sha256sum < /etc/ha_manager/trust/secret") for host in SERVERS} for lab in (bare, other)}
    assert all(len(found) == 1 for found in secrets.values()) and secrets["system"] != secrets["system2"]
    for lab in (bare, other):
        assert lab.sh("ps1", "cat /etc/ha_manager/trust/peer.crt") == lab.sh("ps2", "cat /etc/ha_manager/trust/tls.crt")
        lab.sql("ps1", f"CREATE TABLE own AS SELECT '{lab.name}' AS word")


def test_the_second_run_changes_nothing(inventories: list[Path]) -> None:
    again = playbook("enable_ha", *inventories)
    assert set(again.stats) == {"system-ps1", "system-ps2", "system2-ps1", "system2-ps2"}
    assert not any(again.changed.values()), again.changes()


def test_the_status_has_a_report_for_each(bare: Lab, other: Lab, inventories: list[Path]) -> None:
    reports = {report["pair"]: report for report in status(*inventories)}
    assert set(reports) == {"system", "system2"}
    for lab in (bare, other):
        report = reports[lab.name]
        assert report["redundant"], report["problems"]
        assert set(report["servers"]) == {f"{lab.name}-ps1", f"{lab.name}-ps2"}
        assert report["active"] == report["primary"] == f"{lab.name}-ps1"
        assert lab.sql("ps2", "SELECT word FROM own") == lab.name
