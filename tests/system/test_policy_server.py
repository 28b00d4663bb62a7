# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The policy server follows the active role: what a client sees at the virtual IP. The tests follow each other."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.pair import VIRTUAL_IP, Lab, eventually, playbook

BASE = "/var/policyserver/configuration/base"
URL = f"http://{VIRTUAL_IP}:8080"
# Heartbeat's deadtime in the profile of these tests, and what a busy machine may take for all the rest.
DEADTIME, SLACK = 3.0, 45.0


def ask(lab: Lab, path: str, *options: str) -> tuple[int, str]:
    """Ask from another machine, over the virtual IP; status 0 where nothing answers."""
    done = lab.try_run(
        "exec",
        "client1",
        "--",
        "curl",
        "--silent",
        "--connect-timeout",
        "2",
        "--max-time",
        "10",
        "--write-out",
        r"\n%{http_code}",
        *options,
        URL + path,
    )
    body, _newline, status = done.stdout.rpartition("\n")
    return int(status or 0), body


def write(lab: Lab, path: str, value: Any) -> int:
    return ask(
        lab, f"/configurations/{path}", "--request", "PUT", "--header", "Content-Type: application/json", "--data", json.dumps(value)
    )[0]


def forget(lab: Lab, path: str) -> None:
    """Have no such configuration; an answer that is lost is followed by one that it is not there."""
    eventually(lambda: ask(lab, f"/configurations/{path}", "--request", "DELETE")[0] in (200, 404), 30, f"{path} is deleted")


def tree(lab: Lab, host: str) -> str:
    """Names, owners, modes and contents of the configurations on a server's disk."""
    found = lab.sh(host, f"cd {BASE}; find . -printf '%p %u %g %m\\n'; find . -type f ! -name '.*' -exec sha256sum {{}} +")
    return "\n".join(sorted(found.splitlines()))


def unit(lab: Lab, host: str) -> tuple[str, str]:
    said = lab.sh(host, "systemctl is-active policy_server || true; systemctl is-enabled policy_server || true").split()
    return said[0], said[1]


def renamed(found: str) -> str:
    """The tree with the ids of both devices exchanged."""
    return "\n".join(sorted(found.replace("/ps1", "/PS").replace("/ps2", "/ps1").replace("/PS", "/ps2").splitlines()))


@pytest.fixture(scope="module")
def written(pair: Lab) -> Lab:
    """The pair, with a configuration for everybody and one for each device, also on the disk."""
    eventually(lambda: ask(pair, "/health")[0] == 200, 60, "the policy server is up at the virtual IP")
    eventually(lambda: all_done(pair, "ps1"), 60, "all steps are done")
    eventually(lambda: json.loads(pair.sh("ps1", "ha status --json"))["redundant"], 60, "the pair is redundant")
    assert write(pair, "global/policy.json", {"rules": [1, 2, 3]}) == 201
    assert write(pair, "ps1/network.json", "of the active") == 201
    assert write(pair, "ps2/network.json", "of the passive") == 201
    assert write(pair, "scanner1/network.json", "of a scanner") == 201
    pair.sh("ps1", "full_replicate")
    return pair


def test_it_runs_where_the_service_is_and_nothing_starts_it_at_boot(written: Lab) -> None:
    assert unit(written, "ps1") == ("active", "disabled")
    assert unit(written, "ps2") == ("inactive", "disabled")


# Of the normal run in Molecule's default scenario, which has the policy server too.
@pytest.mark.long
def test_a_second_run_changes_nothing_and_a_dry_one_foretells_nothing(written: Lab, inventory: Path) -> None:
    for check in (False, True):
        again = playbook("enable_ha", inventory, check=check)
        assert not any(again.changed.values()), again.changes()


@pytest.mark.parametrize("command", ["active_request_cli", "full_replicate", "policy_server_databases"])
def test_the_passive_server_refuses_in_one_line(written: Lab, command: str) -> None:
    done = written.try_run("exec", "ps2", "--", command)
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1 and "not the active one" in done.stderr


def test_strangers_are_not_answered(written: Lab) -> None:
    """From the other link, whose network is not named."""
    address = written.sh("ps1", "ip -4 -oneline address show dev eth1 | awk '{print $4}' | cut -d/ -f1")
    done = written.try_run("exec", "ps2", "--", "curl", "--silent", "--show-error", "--max-time", "5", f"http://{address}:8080/health")
    assert done.returncode != 0 and done.stdout == ""


def test_a_planned_failover_takes_it_along(written: Lab) -> None:
    before = tree(written, "ps1")
    written.sh("ps1", "ha failover", timeout=120)
    eventually(lambda: write(written, "global/after.json", 1) in (200, 201), SLACK, "the other server takes a write")
    eventually(lambda: unit(written, "ps1")[0] == "inactive", 30, "it is stopped on the old active")
    assert unit(written, "ps2") == ("active", "disabled")
    forget(written, "global/after.json")
    eventually(lambda: all_done(written, "ps2"), 60, "all steps are done")
    written.sh("ps2", "full_replicate")
    assert tree(written, "ps2") == renamed(before)
    assert ask(written, "/configurations/ps2/network.json") == (200, '"of the active"')
    assert ask(written, "/configurations/ps1/network.json") == (200, '"of the passive"')
    assert ask(written, "/configurations/scanner1/network.json") == (200, '"of a scanner"')


def steps(lab: Lab, host: str) -> dict[str, dict[str, Any]]:
    """Those of the last change of role."""
    [last, *_] = json.loads(lab.sh(host, "ha timeline --json"))
    return {step["name"]: step for step in last["steps"]}


def all_done(lab: Lab, host: str) -> bool:
    return steps(lab, host).get("full_replicate", {}).get("state") == "done"


def test_the_steps_came_in_their_order(written: Lab) -> None:
    found = steps(written, "ps2")
    assert [found[name]["state"] for name in ("policy_server", "active_request_cli", "full_replicate")] == ["done"] * 3
    assert "up after" in found["policy_server"]["reason"]
    ended = {name: step["at"] + step["seconds"] for name, step in found.items() if step["seconds"] is not None}
    assert ended["address"] <= found["policy_server"]["at"] + 0.01
    assert ended["policy_server"] <= found["active_request_cli"]["at"] + 0.01
    assert ended["active_request_cli"] <= found["full_replicate"]["at"] + 0.01


def test_a_power_cut_of_the_active_server(written: Lab) -> None:
    eventually(lambda: json.loads(written.sh("ps2", "ha status --json"))["redundant"], 60, "the pair is redundant")
    before = tree(written, "ps2")
    written("power", "off", "ps2")
    cut = time.monotonic()
    eventually(lambda: write(written, "global/after.json", 2) in (200, 201), DEADTIME + SLACK, "the other server takes a write")
    print(f"a write was answered {time.monotonic() - cut:.2f} s after the power cut")
    assert ask(written, "/health")[0] == 200
    forget(written, "global/after.json")
    eventually(lambda: all_done(written, "ps1"), 60, "all steps are done")
    written.sh("ps1", "full_replicate")
    assert tree(written, "ps1") == renamed(before)
    assert ask(written, "/configurations/ps1/network.json") == (200, '"of the active"')


def test_what_comes_back_does_not_start_it(written: Lab) -> None:
    written("power", "on", "ps2")
    eventually(lambda: written.try_run("exec", "ps2", "--", "ha", "amIactive").stdout.strip() == "0", 120, "ps2 is the passive server")
    assert unit(written, "ps2") == ("inactive", "disabled")
    eventually(lambda: json.loads(written.sh("ps1", "ha status --json"))["redundant"], 120, "the pair is redundant")


def test_a_killed_one_is_back_at_once(written: Lab) -> None:
    written.sh("ps1", "systemctl kill --signal=KILL policy_server")
    eventually(lambda: ask(written, "/health")[0] == 200, 30, "it answers again")


@pytest.mark.long
def test_taken_apart_it_goes_on_as_an_ordinary_service(written: Lab, inventory: Path) -> None:
    playbook("disable_ha", inventory)
    assert unit(written, "ps1") == ("active", "enabled")
    assert unit(written, "ps2") == ("inactive", "disabled")
    assert written.sh("ps1", "curl --silent --fail http://127.0.0.1:8080/configurations/ps1/network.json") == '"of the active"'
    written.sh("ps1", "systemctl reboot --no-block || true")
    eventually(
        lambda: written.try_run("exec", "ps1", "--", "curl", "--silent", "--fail", "http://127.0.0.1:8080/health").returncode == 0,
        90,
        "after a boot it is up by itself",
    )
    again = playbook("disable_ha", inventory)
    assert not any(again.changed.values()), again.changes()
