# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ha_manager and the command ha on a pair: signals, wrong settings, what is asked of them, a stop and a reboot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.pair import CLUSTER, DATA, MODULE_XML, SERVERS, Lab, eventually

RUNTIME = "/etc/ha_manager/runtime.json"


def document(lab: Lab, host: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(lab.sh(host, "ha status --json"))
    return said


def redundant(lab: Lab, active: str) -> bool:
    done = lab.try_run("exec", active, "--", "ha", "status", "--json")
    if done.returncode:
        return False
    said = json.loads(done.stdout)
    return said["role"] == "active" and said["redundant"]


def newest_transition(lab: Lab, host: str) -> dict[str, Any]:
    newest: dict[str, Any] = json.loads(lab.sh(host, "ha timeline --json 1"))[0]
    return newest


def active_of(lab: Lab) -> str:
    [active] = [host for host in SERVERS if lab.sh(host, "ha amIactive") == "1"]
    return active


@pytest.fixture
def roles(pair: Lab) -> Iterator[tuple[str, str]]:
    """(active, passive) of a redundant pair, which must be redundant again after the test."""
    eventually(lambda: any(redundant(pair, host) for host in SERVERS), 120, "the pair is redundant")
    active = active_of(pair)
    yield active, next(host for host in SERVERS if host != active)
    eventually(lambda: any(redundant(pair, host) for host in SERVERS), 120, "the pair is redundant after the test")


def test_each_server_says_its_role_everywhere_alike(pair: Lab, roles: tuple[str, str]) -> None:
    active, passive = roles
    for host, role, other in ((active, "active", "passive"), (passive, "passive", "active")):
        assert document(pair, host)["role"] == role
        assert (
            pair.sh(
                host, f"test -e /etc/ha_manager/{role}; ! test -e /etc/ha_manager/{other}; stat -c %a /etc/ha_manager/ha_manager_status"
            )
            == "644"
        )
        assert pair.sh(host, "ha status") == "1"
        assert pair.sh(host, "ha amIactive") == ("1" if role == "active" else "0")
        assert document(pair, host)["replication_status"] == "running"


@pytest.mark.parametrize("arguments", [["nonsense"], ["failover", "now"], ["pause", "soon"], ["timeline", "-1"], []])
def test_what_ha_does_not_know_gets_usage_and_2(pair: Lab, arguments: list[str]) -> None:
    done = pair.try_run("exec", "ps1", "--", "ha", *arguments)
    assert done.returncode == 2
    assert "usage: ha" in done.stderr.lower()
    assert done.stdout == ""


def test_settings_that_cannot_be_used_are_refused_and_the_old_ones_stay(pair: Lab, roles: tuple[str, str]) -> None:
    active, _ = roles
    pid = pair.sh(active, "systemctl show --property=MainPID --value ha_manager")
    broken = f"cp -a {MODULE_XML} /root/module.xml; echo '<module' > {MODULE_XML}; systemctl reload ha_manager"
    try:
        pair.sh(active, broken)
        eventually(lambda: document(pair, active)["settings"]["error"], 30, "the error is in the status")
        assert MODULE_XML in document(pair, active)["settings"]["error"]
        told = "journalctl --unit=ha_manager SWG_HA_EVENT=SETTINGS_REFUSED --output=cat --no-pager"
        eventually(lambda: MODULE_XML in pair.sh(active, told), 30, "it is in the log")
        assert document(pair, active)["role"] == "active"
    finally:
        pair.sh(active, f"cp -a /root/module.xml {MODULE_XML}; rm /root/module.xml; systemctl reload ha_manager")
    eventually(lambda: document(pair, active)["settings"]["error"] is None, 30, "the settings are accepted again")
    assert pair.sh(active, "systemctl show --property=MainPID --value ha_manager") == pid


def test_sigusr1_fails_over(pair: Lab, roles: tuple[str, str]) -> None:
    active, passive = roles
    pair.sh(active, "systemctl kill --signal=USR1 --kill-whom=main ha_manager")
    eventually(lambda: redundant(pair, passive), 120, "the other server is active")
    assert newest_transition(pair, passive)["kind"] == "becoming_active"
    eventually(lambda: newest_transition(pair, passive)["outcome"] == "done", 90, "what follows from the role is done")
    assert newest_transition(pair, passive)["trigger"] == "planned"


def test_ha_stop_hands_over_and_ha_start_brings_the_server_back(pair: Lab, roles: tuple[str, str]) -> None:
    active, passive = roles
    pair.sh(active, "ha stop", timeout=180)
    assert pair.sh(passive, "ha amIactive") == "1"
    assert pair.sh(active, "ha status; ha amIactive").split() == ["0", "0"]
    done = pair.try_run("exec", passive, "--", "ha", "failover")
    assert done.returncode == 1, done.stdout
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("ha: failover: ") and active in line
    pair.sh(active, "ha start")
    eventually(lambda: pair.sh(active, "ha status") == "1", 30, "its Heartbeat runs")
    eventually(lambda: redundant(pair, passive), 120, "the pair is redundant again")


def test_a_pause_is_known_to_both_and_ends_when_asked(pair: Lab, roles: tuple[str, str]) -> None:
    active, passive = roles
    pair.sh(passive, "ha pause 30 --reason 'new disks'")
    for host in (active, passive):
        eventually(lambda host=host: (document(pair, host)["paused"] or {}).get("reason") == "new disks", 30, f"{host} knows of the pause")
    pair.sh(active, "systemctl restart ha_manager")
    assert document(pair, active)["paused"]["reason"] == "new disks"
    pair.sh(active, "ha resume")
    for host in (active, passive):
        eventually(lambda host=host: document(pair, host)["paused"] is None, 30, f"{host} knows of its end")


def test_a_reboot_of_the_active_is_a_planned_failover(pair: Lab, roles: tuple[str, str]) -> None:
    active, passive = roles
    pair.sh(passive, "rm -f /run/before; date +%s > /run/before")
    pair.try_run("exec", active, "--", "systemctl", "reboot", "--no-block")
    eventually(lambda: pair.sh(passive, "ha amIactive") == "1", 60, "the other server is active")
    assert newest_transition(pair, passive)["trigger"] == "planned"
    eventually(lambda: newest_transition(pair, passive)["outcome"] == "done", 90, "what follows from the role is done")
    eventually(lambda: redundant(pair, passive), 180, "the rebooted server is the passive one")


def test_postgresql_never_starts_as_a_primary_by_itself(pair: Lab, roles: tuple[str, str]) -> None:
    active, passive = roles
    pair.sh(passive, f"systemctl stop ha_manager; systemctl stop {CLUSTER}; rm -f {DATA}/standby.signal; systemctl start {CLUSTER}")
    try:
        assert pair.sql(passive, "SELECT pg_is_in_recovery()") == "t"
        assert pair.sql(active, "SELECT pg_is_in_recovery()") == "f"
    finally:
        pair.sh(passive, "systemctl start ha_manager")
