# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action plugin over real connections. A host with another time has a `date` of its own: no clock is set."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.swg.ha.plugins.module_utils.clock import Offset, pair_offset
from tests.net.namespaces import PATIENCE, Network

PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - swg.ha.clock_offset_info:
        count: "{{ rounds | default(5) }}"
      register: clock
      ignore_errors: true
      ignore_unreachable: true
    - ansible.builtin.copy:
        content: "{{ clock | to_json }}"
        dest: "{{ results }}/{{ inventory_hostname }}"
      delegate_to: localhost
      become: false
      vars:
        ansible_connection: local
        ansible_shell_executable: /bin/sh
        ansible_python_interpreter: "{{ ansible_playbook_python }}"
      check_mode: false
"""


class Servers:
    """Hosts of an inventory that are measured from one namespace."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.controller = network.host("controller")
        self.folder = folder
        self.inventory: dict[str, dict[str, Any]] = {}

    def add(self, name: str, date: str | None = None) -> None:
        """A host on the local connection; `date` is a shell script that stands there for the program."""
        variables = {"ansible_connection": "local"}
        if date is not None:
            home = self.folder / name
            home.mkdir()
            for program, script in {
                "date": date,
                "shell": f'PATH="{home}:$PATH" exec /bin/sh "$@"',
            }.items():
                (home / program).write_text(f"#!/bin/sh\n{script}\n")
                (home / program).chmod(0o755)
            variables["ansible_shell_executable"] = str(home / "shell")
        self.inventory[name] = variables

    def measure(self, *options: str, **variables: Any) -> dict[str, dict[str, Any]]:
        """What the module returns for every host."""
        results = self.folder / "results"
        results.mkdir()
        playbook, inventory = self.folder / "playbook.yml", self.folder / "inventory.json"
        playbook.write_text(PLAYBOOK)
        inventory.write_text(json.dumps({"all": {"hosts": self.inventory}}))
        process = self.controller.start(
            sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), str(playbook), *options,
            "-e", json.dumps({"results": str(results), **variables}),
        )  # fmt: skip
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, out + err
        return {path.name: json.loads(path.read_text()) for path in results.iterdir()}


@pytest.fixture
def servers(network: Network, tmp_path: Path) -> Servers:
    return Servers(network, tmp_path)


@pytest.mark.parametrize("mode", [(), ("--check",), ("--become", "--become-user", "nobody")], ids=" ".join)
def test_the_own_clock_is_right(servers: Servers, mode: tuple[str, ...]) -> None:
    servers.add("here")
    result = servers.measure(*mode, rounds=3)["here"]
    assert abs(result["offset_s"]) <= result["uncertainty_s"]
    assert 0 < result["uncertainty_s"] < PATIENCE
    assert result["uncertainty_s"] == pytest.approx(min(one["round_trip_s"] for one in result["rounds"]) / 2, abs=1e-6)
    assert len(result["rounds"]) == 3
    assert result["changed"] is False


def test_two_servers_an_hour_apart(servers: Servers) -> None:
    servers.add("ahead", "exec /bin/date -d '+40 minutes' \"$@\"")
    servers.add("behind", "exec /bin/date -d '-20 minutes' \"$@\"")
    results = servers.measure()
    assert results["ahead"]["offset_s"] == pytest.approx(2400, abs=results["ahead"]["uncertainty_s"])
    assert results["behind"]["offset_s"] == pytest.approx(-1200, abs=results["behind"]["uncertainty_s"])
    pair = pair_offset(results["ahead"], results["behind"])
    assert pair.offset_s == pytest.approx(3600, abs=pair.uncertainty_s)
    assert pair.beyond(3600 - 2 * pair.uncertainty_s - 0.001)
    assert not pair.beyond(3600)
    assert isinstance(pair, Offset)


def test_a_slow_connection_makes_the_result_uncertain_not_wrong(servers: Servers) -> None:
    servers.add("slow", 'date=$(/bin/date "$@"); sleep 0.5; echo "$date"')
    result = servers.measure(rounds=2)["slow"]
    assert result["uncertainty_s"] >= 0.25
    assert abs(result["offset_s"]) <= result["uncertainty_s"]


def test_what_a_login_prints_does_no_harm(servers: Servers) -> None:
    servers.add("chatty", 'echo "It is $(/bin/date)"; /bin/date "$@"; echo bye')
    result = servers.measure()["chatty"]
    assert abs(result["offset_s"]) <= result["uncertainty_s"]


@pytest.mark.parametrize(
    ("date", "message"),
    [
        ("echo swg.ha.clock:1790000000.%N", "it printed 'swg.ha.clock:1790000000.%N\\n'"),
        ("echo no clock here >&2; exit 3", "ended with 3: no clock here"),
        ("exit 127", "ended with 127"),
    ],
)
def test_a_host_that_tells_no_time_fails(servers: Servers, date: str, message: str) -> None:
    servers.add("mute", date)
    result = servers.measure()["mute"]
    assert result["failed"] is True
    assert "cannot tell the offset of the host's clock" in result["msg"]
    assert message in result["msg"]
    assert "offset_s" not in result


@pytest.mark.parametrize("count", [0, 101])
def test_the_number_of_rounds_is_bounded(servers: Servers, count: int) -> None:
    servers.add("here")
    result = servers.measure(rounds=count)["here"]
    assert result["failed"] is True
    assert f"count: {count} is not between 1 and 100" in result["msg"]


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh client here")
def test_a_host_that_cannot_be_reached_is_unreachable(servers: Servers) -> None:
    servers.inventory["gone"] = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    result = servers.measure()["gone"]
    assert result["unreachable"] is True
    assert "offset_s" not in result
