# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from swg_ha.settings import SettingsError, load, parse_ha_cf

RUNTIME: dict[str, Any] = {
    "node": "ps2",
    "peer_node": "ps1",
    "links": [
        {"interface": "eth0", "address": "192.0.2.12", "prefix": 24, "peer_address": "192.0.2.11"},
        {"interface": "eth1", "address": "198.51.100.12", "prefix": 24, "peer_address": "198.51.100.11"},
    ],
    "postgresql": {
        "version": "15",
        "cluster": "main",
        "data_directory": "/srv/main",
        "port": 5432,
        "user": "ha_replication",
        "passfile": "/srv/pass",
        "slot": "ha_ps2",
        "peer_slot": "ha_ps1",
    },
}
MODULE = """<module name="HA"><init>
<ha enabled="1"/><virtual_ip ip="192.0.2.10"/>
<default_active ip="192.0.2.11" name="{active}"/><default_passive ip="192.0.2.12" name="{passive}"/>
<ha_manager_configuration connection_timeout="300" ha_manager_port="4589" heartbeat_cmd_interval="7" passive_status_interval="9"/>
</init></module>"""
HA_CF = "keepalive 200ms\ndeadtime 1 # short\ninitdead 10\nping 192.0.2.1\nping 198.51.100.1 198.51.100.2\nnode ps1 ps2\n"


class Files:
    """The three files, in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.runtime, self.module, self.ha_cf = folder / "runtime.json", folder / "module.xml", folder / "ha.cf"
        self.say(RUNTIME)
        self.module.write_text(MODULE.format(active="ps1", passive="ps2"))
        self.ha_cf.write_text(HA_CF)

    def say(self, runtime: dict[str, Any]) -> None:
        self.runtime.write_text(json.dumps(runtime))

    def problems(self) -> list[str]:
        with pytest.raises(SettingsError) as raised:
            load(self.runtime, self.module, self.ha_cf)
        return raised.value.problems


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_all_three_files_are_heard(files: Files) -> None:
    settings = load(files.runtime, files.module, files.ha_cf)
    assert settings.virtual_ip == IPv4Interface("192.0.2.10/24")
    assert (settings.default_active, settings.is_default_active) == ("ps1", False)
    assert (settings.heartbeat_interval, settings.passive_interval, settings.peer_port) == (7, 9, 4589)
    assert settings.times.deadtime == 1.0
    assert settings.times.keepalive == 0.2
    assert settings.times.ping_nodes == ("192.0.2.1", "198.51.100.1", "198.51.100.2")
    assert settings.limits.max_lag == 16 * 2**20
    assert settings.commands.manager_active == ()


def test_a_module_xml_that_knows_addresses_alone_is_enough(files: Files) -> None:
    files.module.write_text(MODULE.format(active="", passive="").replace(' name=""', ""))
    assert load(files.runtime, files.module, files.ha_cf).default_active == "ps1"


def test_every_problem_of_every_file_is_told_at_once(files: Files) -> None:
    files.runtime.write_text("{")
    files.module.unlink()
    files.ha_cf.write_text("deadtime soon\n")
    problems = files.problems()
    assert len(problems) == 3
    assert [str(path) in problem for path, problem in zip((files.runtime, files.module, files.ha_cf), problems, strict=True)] == [True] * 3
    assert "enable_ha" in problems[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "blue"}, "colour: not a setting"),
        ({"links": []}, "at least one link"),
        ({"links": [{**RUNTIME["links"][0], "address": "192.0.2.300"}]}, "192.0.2.300"),
        ({"links": [{"interface": "eth0"}]}, "links"),
        ({"node": ""}, "node"),
        ({"limits": {"max_lag": "much"}}, "limits.max_lag is 'much': must be a number"),
        ({"limits": {"max_lag": -1}}, "must not be negative"),
        ({"limits": {"max_leg": 1}}, "limits.max_leg: not a setting"),
        ({"postgresql": {**RUNTIME["postgresql"], "port": True}}, "postgresql.port is True"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(files: Files, change: dict[str, Any], words: str) -> None:
    files.say({**RUNTIME, **change})
    [problem] = files.problems()
    assert words in problem
    assert str(files.runtime) in problem


def test_files_of_two_pairs_are_not_mixed(files: Files) -> None:
    files.module.write_text(MODULE.format(active="ps7", passive="ps8"))
    [problem] = files.problems()
    assert "ps7" in problem
    assert "ps1" in problem


def test_heartbeat_s_own_defaults_count_where_ha_cf_is_silent() -> None:
    times = parse_ha_cf(b"# nothing\n")
    assert (times.keepalive, times.deadtime, times.initdead, times.ping_nodes) == (1.0, 30.0, 60.0, ())
