# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The example of docs/own-application.md, word for word: the files and the variables that it shows, in a pair."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.pair import ROOT, SERVERS, VIRTUAL_IP, Lab, enable, eventually, playbook

DOCUMENT = ROOT / "docs/own-application.md"
# ```kind, then a comment with the path of the file that the block is.
BLOCK = re.compile(r"^```\w+\n((?:#!\S+\n)?# (\S+)\n.*?)^```$", re.MULTILINE | re.DOTALL)


def example() -> dict[str, str]:
    """The files that the document shows, by path."""
    return {path: text for text, path in BLOCK.findall(DOCUMENT.read_text())}


def variables() -> dict[str, Any]:
    return dict(yaml.safe_load(example()["inventory/group_vars/policy_servers.yml"]))


def page(lab: Lab) -> list[str]:
    """Who served, as the page tells another machine at the virtual IP."""
    done = lab.try_run("exec", "client1", "--", "curl", "--silent", "--fail", "--max-time", "2", f"http://{VIRTUAL_IP}:8000/")
    return [line.split()[-1] for line in done.stdout.splitlines()]


def running(lab: Lab, host: str) -> str:
    return lab.sh(host, "systemctl is-active greeter || true")


@pytest.fixture(scope="module")
def served(bare: Lab, inventory: Path) -> Lab:
    for host in SERVERS:
        for path, text in example().items():
            if path.startswith("/"):
                mode = "755" if text.startswith("#!") else "644"
                bare.sh(host, f"cat > {path}; chmod {mode} {path}", input=text)
    enable(inventory, **variables())
    return bare


def test_it_runs_on_the_active_server_alone_and_its_commands_were_run(served: Lab) -> None:
    assert [running(served, host) for host in SERVERS] == ["active", "inactive"]
    eventually(lambda: page(served) == ["ps1"], 30, "the page names ps1")
    for host in SERVERS:
        assert served.sh(host, "ls -d /usr/lib/policy_server /usr/sbin/policy_server || true") == "", "the example is not installed"


@pytest.mark.long
def test_a_second_run_changes_nothing(served: Lab, inventory: Path) -> None:
    again = playbook("enable_ha", inventory, **variables())
    assert not any(again.changed.values()), again.changes()


def test_a_takeover_stops_it_here_and_starts_it_there(served: Lab) -> None:
    eventually(lambda: json.loads(served.sh("ps1", "ha status --json"))["redundant"], 60, "the pair is redundant")
    served.sh("ps1", "ha failover", timeout=120)
    # The page is what the second command made of what the first one wrote: both were run, in their order, on the new active server.
    eventually(lambda: page(served) == ["ps1", "ps2"], 60, "the page names ps2 last")
    eventually(lambda: running(served, "ps1") == "inactive", 60, "it is stopped on ps1")
    assert running(served, "ps2") == "active"
    [last, *_] = json.loads(served.sh("ps2", "ha timeline --json"))
    found = {step["name"]: step for step in last["steps"]}
    assert "up after" in found["policy_server"]["reason"]
    assert found["policy_server"]["at"] < found["active_request_cli"]["at"] < found["full_replicate"]["at"]


def test_a_power_cut_does_the_same(served: Lab) -> None:
    eventually(lambda: json.loads(served.sh("ps2", "ha status --json"))["redundant"], 60, "the pair is redundant")
    served("power", "off", "ps2")
    eventually(lambda: page(served) == ["ps1", "ps2", "ps1"], 90, "the page names ps1 last")
    served("power", "on", "ps2")
    eventually(lambda: served.try_run("exec", "ps2", "--", "ha", "amIactive").stdout.strip() == "0", 120, "ps2 is the passive server")
    assert running(served, "ps2") == "inactive"


@pytest.mark.long
def test_taken_apart_it_goes_on_where_it_was(served: Lab, inventory: Path) -> None:
    eventually(lambda: json.loads(served.sh("ps1", "ha status --json"))["redundant"], 60, "the pair is redundant")
    playbook("disable_ha", inventory, **variables())
    said = [served.sh(host, "systemctl is-active greeter || true; systemctl is-enabled greeter || true").split() for host in SERVERS]
    assert said == [["active", "enabled"], ["inactive", "disabled"]]
