# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Manager with systemd: what runs on which server, at a change of role, after a boot, and without HA.

The tests follow each other: each begins where the one before ended.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.system.pair import SERVERS, Lab, enable, eventually, playbook

ROLES = {
    "HA": ["ha_manager.service", "heartbeat.service", "logrelay.service"],
    "Reports": ["demo_reports.service"],
    "Shared": ["demo_shared.service"],
    "Watch": ["demo_watch.service"],
}
VARIABLES = {
    "manager_roles": ROLES,
    "manager_roles_active": ["HA", "Reports", "Shared"],
    "manager_roles_passive": ["HA", "Shared", "Watch"],
}
DEMOS = ("demo_reports", "demo_shared", "demo_watch")
KEPT = ("ha_manager", "heartbeat", "demo_shared")
RUN = {"active": {"demo_reports", "demo_shared"}, "passive": {"demo_shared", "demo_watch"}, "waiting": set()}


def manager(lab: Lab, host: str) -> dict[str, Any]:
    """What manager-ctl says; nothing while the host boots."""
    done = lab.try_run("exec", host, "--", "manager-ctl", "status", "--json")
    said: dict[str, Any] = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return said


def running(lab: Lab, host: str) -> set[str]:
    return set(
        lab.try_run(
            "exec", host, "--", "bash", "-c", f"for u in {' '.join(DEMOS)}; do systemctl -q is-active $u && echo $u; done"
        ).stdout.split()
    )


def pids(lab: Lab, host: str) -> list[str]:
    return lab.sh(host, f"systemctl show --property=MainPID --value {' '.join(KEPT)}").split()


def is_as_it_should_be(lab: Lab, host: str, mode: str) -> bool:
    said = manager(lab, host)
    return (
        said.get("mode") == mode
        and said["problems"] == []
        and said["passive_device"] == (mode == "passive")
        and running(lab, host) == RUN[mode]
    )


def wait_for_roles(lab: Lab, active: str) -> None:
    passive = next(host for host in SERVERS if host != active)
    eventually(lambda: is_as_it_should_be(lab, active, "active"), 60, f"{active} runs the active roles: {manager(lab, active)}")
    eventually(lambda: is_as_it_should_be(lab, passive, "passive"), 60, f"{passive} runs the passive roles: {manager(lab, passive)}")


def wait_redundant(lab: Lab, active: str) -> None:
    def redundant() -> bool:
        done = lab.try_run("exec", active, "--", "ha", "status", "--json")
        said = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        return bool(said.get("role") == "active" and said.get("redundant"))

    eventually(redundant, 120, f"the pair is redundant, {active} the active one")


def journal(lab: Lab, host: str, *matches: str) -> list[dict[str, Any]]:
    """What the journal has of this boot."""
    lines = lab.sh(host, f"journalctl --boot --output=json --no-pager {' '.join(matches)}").splitlines()
    return [json.loads(line) for line in lines]


def begun(lab: Lab, host: str, unit: str) -> list[int]:
    """When the unit was started since the boot, in µs of the monotonic clock."""
    return [
        int(line["__MONOTONIC_TIMESTAMP"])
        for line in journal(lab, host, f"UNIT={unit}.service")
        if line.get("JOB_TYPE") == "start" and line.get("JOB_RESULT") == "done"
    ]


def became(lab: Lab, host: str) -> list[tuple[int, str]]:
    """When ha_manager made the server what, since the boot."""
    return [(int(line["__MONOTONIC_TIMESTAMP"]), line["SWG_HA_ROLE"]) for line in journal(lab, host, "SWG_HA_EVENT=ROLE_CHANGED")]


@pytest.fixture(scope="module")
def demos(pair: Lab, inventory: Path) -> Lab:
    """A pair with three more roles, each a unit that sleeps. The operator had them start at boot."""
    for host in SERVERS:
        for unit in DEMOS:
            text = "[Unit]\nDescription=Demo\n[Service]\nExecStart=/bin/sleep infinity\nRestart=no\n[Install]\nWantedBy=multi-user.target\n"
            pair.sh(host, f"cat > /etc/systemd/system/{unit}.service; systemctl enable --quiet {unit}", input=text)
    enable(inventory, **VARIABLES)
    return pair


def test_each_server_runs_its_roles_and_systemd_starts_none_of_them(demos: Lab, inventory: Path) -> None:
    wait_for_roles(demos, "ps1")
    for host in SERVERS:
        states = demos.sh(host, f"systemctl is-enabled ha_manager heartbeat {' '.join(DEMOS)} manager || true").split()
        assert states == ["static", *["disabled"] * 4, "enabled"]
    again = playbook("enable_ha", inventory, **VARIABLES)
    assert not any(again.changed.values()), again.changes()


def test_a_reload_with_nothing_to_do_does_nothing(demos: Lab) -> None:
    for host, words in (("ps1", "reload"), ("ps2", "reload passive")):
        before = pids(demos, host)
        for verb in (words, "boot"):
            assert demos.sh(host, f"manager-ctl {verb}") == ""
        assert pids(demos, host) == before
        assert demos.sh(host, "systemctl reload manager; systemctl is-active manager") == "active"


def test_a_change_of_role_changes_the_difference_alone(demos: Lab) -> None:
    before = {host: pids(demos, host) for host in SERVERS}
    demos.sh("ps1", "ha failover", timeout=120)
    wait_for_roles(demos, "ps2")
    assert {host: pids(demos, host) for host in SERVERS} == before
    wait_redundant(demos, "ps2")


def test_what_is_changed_in_the_files_is_taken_up_while_all_runs(demos: Lab) -> None:
    before = pids(demos, "ps1")
    for enabled, runs in (("0", {"demo_shared"}), ("1", RUN["passive"])):
        edit = f'sed -i \'s/name="Watch" enabled="."/name="Watch" enabled="{enabled}"/\' /etc/Manager/commander_passive_module.xml'
        demos.sh("ps1", f"{edit}; systemctl reload manager")
        eventually(lambda runs=runs: running(demos, "ps1") == runs, 30, f"ps1 runs {runs}")
    assert pids(demos, "ps1") == before
    wait_for_roles(demos, "ps2")


@pytest.mark.long
def test_a_unit_that_fails_is_told(demos: Lab) -> None:
    demos.sh("ps2", "systemctl kill --signal=KILL demo_reports")
    eventually(lambda: manager(demos, "ps2")["problems"], 10, "manager-ctl tells it")
    [problem] = manager(demos, "ps2")["problems"]
    assert problem.startswith("demo_reports.service does not run (failed)")
    assert demos.try_run("exec", "ps2", "--", "manager-ctl", "status").returncode == 1

    def told() -> bool:
        codes = [problem["code"] for problem in json.loads(demos.sh("ps2", "ha status --json"))["problems"]]
        return "MANAGER_UNIT_FAILED" in codes

    eventually(told, 60, "ha status tells it")
    demos.sh("ps2", "manager-ctl reload")
    eventually(lambda: not told(), 60, "ha status tells that it is over")
    assert running(demos, "ps2") == RUN["active"]


def test_a_former_active_never_starts_as_the_active_one(demos: Lab) -> None:
    demos("power", "off", "ps2")
    wait_roles = {"demo_reports", "demo_shared"}
    eventually(lambda: running(demos, "ps1") == wait_roles, 60, "the other server has taken over")
    demos("power", "on", "ps2")
    wait_for_roles(demos, "ps1")
    assert begun(demos, "ps2", "demo_reports") == []
    # Nor does it start as anything else before it was told.
    [first, *_] = begun(demos, "ps2", "demo_watch")
    assert min(at for at, role in became(demos, "ps2") if role == "passive") < first
    wait_redundant(demos, "ps1")


def test_after_a_power_cut_of_both_the_active_waits_to_be_told_and_the_passive_knows(demos: Lab) -> None:
    # The passive one first: it would take over from an active one that is gone for deadtime.
    for host in ("ps2", "ps1"):
        demos("power", "off", host)
    demos("power", "on", "ps1")
    eventually(lambda: manager(demos, "ps1").get("mode"), 30, "ps1 boots")
    demos("power", "on", "ps2")
    wait_for_roles(demos, "ps1")
    told = {host: min(at for at, _role in became(demos, host)) for host in SERVERS}
    assert min(begun(demos, "ps1", "demo_reports")) > told["ps1"]
    assert min(begun(demos, "ps1", "ha_manager")) < told["ps1"]
    assert min(begun(demos, "ps2", "demo_watch")) < told["ps2"]
    wait_redundant(demos, "ps1")


@pytest.mark.long
def test_without_ha_the_active_roles_go_on_and_systemd_starts_them(demos: Lab, inventory: Path) -> None:
    before = demos.sh("ps1", "systemctl show --property=MainPID --value demo_reports demo_shared").split()
    playbook("disable_ha", inventory)
    assert demos.sh("ps1", "systemctl show --property=MainPID --value demo_reports demo_shared").split() == before
    left = "ls /usr/bin/manager-ctl /etc/systemd/system/manager.service /etc/Manager/passive_device 2>/dev/null || true; systemctl is-active manager || true"
    for host in SERVERS:
        assert running(demos, host) == RUN["active"]
        assert demos.sh(host, left) == "inactive"
        assert demos.sh(host, f"systemctl is-enabled {' '.join(DEMOS)} || true").split() == ["enabled", "enabled", "disabled"]
        assert demos.sh(host, 'grep -c \'name="HA" enabled="0"\' /etc/Manager/commander_passive_module.xml') == "1"
