# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""manager-ctl: what it decides, and what it does to files and asks of systemd. tests/system has it work with systemd itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swg_ha import manager_ctl
from swg_ha.manager_ctl import ACTIVE, PASSIVE, WAITING, Difference, Unit, difference, problems_of, state_of, told, units_of, wanted_roles
from swg_ha.shared.durable import locked

FILES = Path(__file__).resolve().parents[3] / "roles/runtime/files"
RUNS = Unit("loaded", "active", "running", "disabled")
RESTS = Unit("loaded", "inactive", "dead", "disabled")
FAILED = Unit("loaded", "failed", "failed", "disabled")
ABSENT = Unit("not-found", "inactive", "dead", "")
ENABLED = Unit("loaded", "active", "running", "enabled")
DEFINED = {
    "HA": ("ha_manager.service", "heartbeat.service"),
    "Web": ("cache.service", "web.service"),
    "Both": ("cache.service", "log.timer"),
}
ALL = ("ha_manager.service", "heartbeat.service", "cache.service", "web.service", "log.timer")


@pytest.mark.parametrize(
    ("ha", "role", "passive_device", "mode"),
    [
        (False, "", False, ACTIVE),
        # Whatever was left behind: a server without HA is an ordinary one.
        (False, "passive", True, ACTIVE),
        (True, "active", False, ACTIVE),
        # The newest word counts: passive_device is removed when the change of role gets there.
        (True, "active", True, ACTIVE),
        (True, "passive", False, PASSIVE),
        (True, "", True, PASSIVE),
        (True, "", False, WAITING),
        (True, "nonsense", False, WAITING),
    ],
)
def test_what_a_server_is(ha: bool, role: str, passive_device: bool, mode: str) -> None:
    assert told(ha, role, passive_device).mode == mode


@pytest.mark.parametrize(
    ("mode", "listed", "ha", "roles"),
    [
        (ACTIVE, {"HA": True, "Web": True, "Both": False}, True, {"HA", "Web"}),
        # Role HA follows HA/module.xml alone.
        (ACTIVE, {"HA": False, "Web": True}, True, {"HA", "Web"}),
        (ACTIVE, {"HA": True, "Web": True}, False, {"Web"}),
        (WAITING, {"Web": True}, True, {"HA"}),
        (PASSIVE, {}, True, {"HA"}),
    ],
)
def test_the_roles_that_are_to_run(mode: str, listed: dict[str, bool], ha: bool, roles: set[str]) -> None:
    assert wanted_roles(mode, listed, ha) == roles


def test_units_are_in_the_order_of_the_file_and_each_there_once() -> None:
    assert units_of({"Both", "Web", "HA"}, DEFINED) == list(ALL)


@pytest.mark.parametrize(
    ("roles", "running", "stop", "start"),
    [
        ({"Web"}, set(ALL) - {"log.timer"}, (), ()),
        ({"Web"}, {"ha_manager.service"}, (), ("cache.service", "web.service")),
        # The one that both roles have goes on.
        ({"Both"}, {"cache.service", "web.service"}, ("web.service",), ("log.timer",)),
        # In the opposite order of the start, and never role HA.
        (set(), set(ALL), ("log.timer", "web.service", "cache.service"), ()),
        ({"HA"}, set(), (), ("ha_manager.service", "heartbeat.service")),
    ],
)
def test_only_the_difference_is_stopped_and_started(
    roles: set[str], running: set[str], stop: tuple[str, ...], start: tuple[str, ...]
) -> None:
    seen = {name: RUNS if name in running else RESTS for name in ALL}
    assert difference(roles, DEFINED, seen) == Difference(stop, start)
    assert difference(roles, DEFINED, seen, stops=False) == Difference((), start)


def test_what_is_about_to_start_or_has_not_ended_is_stopped_as_well() -> None:
    """A unit that waits for a slow one, or for the end of the boot, would start on a server of the other role."""
    queued, ending = Unit("loaded", "inactive", "dead", "disabled", "17"), Unit("loaded", "deactivating", "final-sigterm", "disabled")
    seen = dict.fromkeys(ALL, RESTS) | {"web.service": queued, "log.timer": ending}
    assert difference({"HA"}, DEFINED, seen).stop == ("log.timer", "web.service")
    assert [problem.split(",")[0] for problem in problems_of(set(), DEFINED, seen, stopped=False)] == [
        "web.service is about to start or has not ended",
        "log.timer is about to start or has not ended",
    ]


@pytest.mark.parametrize(("line", "job"), [("", ""), ("Job=\n", ""), ("Job=17\n", "17")])
def test_a_job_is_read_where_there_is_one(line: str, job: str) -> None:
    text = f"LoadState=loaded\nActiveState=inactive\nSubState=dead\nUnitFileState=disabled\n{line}"
    assert manager_ctl.parse_show(["a.service"], text)["a.service"].job == job


def test_a_failed_unit_is_started_and_one_that_is_not_there_is_named() -> None:
    seen = dict.fromkeys(ALL, RESTS) | {"cache.service": FAILED, "web.service": ABSENT}
    assert difference({"Web"}, DEFINED, seen) == Difference((), ("cache.service",), ("web.service",))


@pytest.mark.parametrize(
    ("units", "state"), [((RUNS, RUNS), "running"), ((RUNS, RESTS), "degraded"), ((FAILED, RESTS), "degraded"), ((RESTS, RESTS), "stopped")]
)
def test_the_state_of_a_role(units: tuple[Unit, ...], state: str) -> None:
    names = [f"{number}.service" for number in range(len(units))]
    assert state_of(names, dict(zip(names, units, strict=True))) == state


def test_what_differs_is_told() -> None:
    seen = {"ha_manager.service": ENABLED, "heartbeat.service": FAILED, "cache.service": RUNS, "web.service": RUNS, "log.timer": ABSENT}
    problems = problems_of({"HA", "Both", "Ghost"}, DEFINED, seen, stopped=False)
    assert [problem.split(":")[0] for problem in problems] == [
        "role Ghost has no units",
        "ha_manager.service is enabled in systemd",
        "heartbeat.service does not run (failed)",
        "web.service runs, and no role of this server has it",
        "log.timer is not installed",
    ]
    # What `ha stop` has stopped is as it is to be.
    assert not any("heartbeat" in problem for problem in problems_of({"HA", "Both"}, DEFINED, seen, stopped=True))


SYSTEMCTL = """#!/bin/sh
# A stand-in that keeps a unit's state in a file: what is asked of systemd is the matter here.
cd {folder}/units
echo "$*" >> ../asked
verb=$1
for word; do case $word in *.service) names="$names $word";; esac; done
case $verb in
  show) for name in $names; do
      [ -n "$later" ] && echo; later=1
      printf 'LoadState=%s\\nActiveState=%s\\nSubState=x\\nUnitFileState=%s\\n' \\
        "$([ -e $name ] && echo loaded || echo not-found)" "$(cat $name 2>/dev/null || echo inactive)" "$(cat $name.file 2>/dev/null || echo disabled)"
    done;;
  is-system-running) cat ../system;;
  start) for name in $names; do [ -e $name.broken ] && {{ echo failed > $name; rc=1; }} || echo active > $name; done; exit $rc;;
  stop) for name in $names; do echo inactive > $name; done;;
  enable) for name in $names; do echo enabled > $name.file; done;;
  disable) for name in $names; do echo disabled > $name.file; done;;
esac
"""


class Server:
    """The files of a server in a folder, and a systemctl that remembers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "units").mkdir()
        (folder / "Manager").mkdir()
        (folder / "system").write_text("running\n")
        script = folder / "systemctl"
        script.write_text(SYSTEMCTL.format(folder=folder))
        script.chmod(0o755)
        places = {
            "ACTIVE_ROLES": "module.xml",
            "PASSIVE_ROLES": "Manager/commander_passive_module.xml",
            "UNITS": "Manager/manager.conf.xml",
            "PASSIVE_DEVICE": "Manager/passive_device",
            "MODULE_XML": "ha.xml",
            "TOLD": "role",
            "STOPPED": "stopped",
            "SYSTEMCTL": "systemctl",
        }
        for name, place in places.items():
            monkeypatch.setattr(manager_ctl, name, str(folder / place))
        self.write("module.xml", '<module><init><roles><role name="HA" enabled="1"/><role name="Web" enabled="1"/></roles></init></module>')
        self.write("Manager/commander_passive_module.xml", '<module><init><roles><role name="Look" enabled="1"/></roles></init></module>')
        self.write(
            "Manager/manager.conf.xml",
            '<manager><role name="HA"><unit name="ha_manager.service"/><unit name="heartbeat.service"/></role>'
            '<role name="Web"><unit name="web.service"/></role><role name="Look"><unit name="look.service"/></role></manager>',
        )
        self.switch_ha(on=True)
        for name in ("ha_manager", "heartbeat", "web", "look"):
            self.set(name, "inactive")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def switch_ha(self, *, on: bool) -> None:
        servers = '<default_active ip="192.0.2.11"/><default_passive ip="192.0.2.12"/><virtual_ip ip="192.0.2.10"/>'
        self.write("ha.xml", f'<module name="HA"><init><ha enabled="{int(on)}"/>{servers}</init></module>')

    def set(self, unit: str, state: str) -> None:
        self.write(f"units/{unit}.service", f"{state}\n")

    @property
    def running(self) -> set[str]:
        return {path.stem for path in (self.folder / "units").glob("*.service") if path.read_text() == "active\n"}

    @property
    def passive_device(self) -> bool:
        return (self.folder / "Manager/passive_device").exists()

    def asked(self) -> list[str]:
        """What systemctl was asked since the last time, without the options."""
        path = self.folder / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [" ".join(word for word in line.split() if not word.startswith("-")) for line in lines]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path, monkeypatch)


def run(*arguments: str) -> int:
    return manager_ctl.main(list(arguments))


def test_a_former_active_starts_role_ha_alone_until_it_is_told(server: Server) -> None:
    assert run("boot") == 0
    assert (server.running, server.passive_device) == ({"ha_manager", "heartbeat"}, False)
    server.write("role", "active")
    assert run("reload") == 0
    assert server.running == {"ha_manager", "heartbeat", "web"}


def test_a_server_whose_roles_cannot_be_read_boots_with_what_decides(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.write("Manager/manager.conf.xml", "<manager><role")
    assert manager_ctl.unreadable() and "manager.conf.xml" in manager_ctl.unreadable()[0]
    assert run("boot") == 1
    assert server.running == {"ha_manager", "heartbeat"}
    assert "manager.conf.xml" in capsys.readouterr().err
    assert run("reload") == 1 and server.running == {"ha_manager", "heartbeat"}


def test_files_that_nobody_could_go_by_are_told_before_anybody_has_to(server: Server) -> None:
    assert manager_ctl.unreadable() == []
    server.write("Manager/commander_passive_module.xml", "")
    (server.folder / "module.xml").unlink()
    wrong = manager_ctl.unreadable()
    assert ["module.xml" in text for text in wrong] == [True, True] and len({text.split(":")[0] for text in wrong}) == 2
    for name in ("commander_passive_module.xml", "manager.conf.xml"):
        (server.folder / "Manager" / name).unlink()
    assert manager_ctl.unreadable() == [], "it is not installed"


def test_a_passive_server_starts_its_roles_at_boot(server: Server) -> None:
    server.write("Manager/passive_device", "")
    assert run("boot") == 0
    assert server.running == {"ha_manager", "heartbeat", "look"}


def test_an_ordinary_server_starts_the_active_roles_at_boot(server: Server) -> None:
    server.switch_ha(on=False)
    server.write("Manager/passive_device", "")
    assert run("boot") == 0
    assert (server.running, server.passive_device) == ({"web"}, False)


def test_ha_that_cannot_be_read_starts_nothing_but_role_ha(server: Server) -> None:
    server.write("ha.xml", "<module")
    assert run("boot") == 0
    assert server.running == {"ha_manager", "heartbeat"}


def test_from_passive_to_active_and_back(server: Server) -> None:
    server.set("ha_manager", "active")
    assert run("reload", "passive") == 0
    # Heartbeat is ha_manager's, which calls: it was stopped by somebody, and stays so.
    assert (server.running, server.passive_device) == ({"ha_manager", "look"}, True)
    assert run("reload") == 0
    assert (server.running, server.passive_device) == ({"ha_manager", "web"}, False)
    assert [line for line in server.asked() if not line.startswith(("show", "is-system-running"))] == [
        "start look.service",
        "stop look.service",
        "start web.service",
    ]


def test_a_reload_with_nothing_to_do_asks_once(server: Server) -> None:
    server.set("ha_manager", "active")
    server.set("web", "active")
    assert run("reload") == 0
    assert server.asked() == ["show ha_manager.service heartbeat.service web.service look.service"]


def test_what_ha_stop_has_stopped_is_not_started(server: Server) -> None:
    server.write("stopped", "")
    assert run("boot") == 0
    assert run("reload", "passive") == 0
    assert server.running == {"look"}


def test_passive_device_is_there_before_anything_starts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what must not run has been stopped by then. The power fails at each of the calls."""
    seen = []
    act = manager_ctl._act

    def watched(verb: str, names: list[str], *rest: object) -> list[str]:
        if names:
            seen.append((verb, list(names), server.passive_device))
        return act(verb, names, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(manager_ctl, "_act", watched)
    server.set("ha_manager", "active")
    server.set("web", "active")
    assert run("reload", "passive") == 0
    assert seen == [("stop", ["web.service"], False), ("start", ["look.service"], True)]
    seen.clear()
    assert run("reload") == 0
    assert seen == [("stop", ["look.service"], True), ("start", ["web.service"], False)]


def test_a_passive_server_gives_up_the_active_roles_even_where_its_file_is_broken(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.set("ha_manager", "active")
    server.set("web", "active")
    server.write("Manager/commander_passive_module.xml", "<module>")
    assert run("reload", "passive") == 1
    assert (server.running, server.passive_device) == ({"ha_manager"}, True)
    [line] = capsys.readouterr().err.splitlines()
    assert "commander_passive_module.xml" in line and "not well-formed" in line


@pytest.mark.parametrize("text", ["<module", "<manager/>", '<module><init><roles><role name="Web" enabled="yes"/></roles></init></module>'])
def test_a_broken_file_of_an_active_server_changes_nothing(server: Server, capsys: pytest.CaptureFixture[str], text: str) -> None:
    server.set("look", "active")
    server.write("module.xml", text)
    assert run("reload") == 1
    assert server.running == {"look"}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("manager-ctl: reload: ") and "module.xml" in line


def test_a_unit_that_does_not_start_is_named_and_the_others_run(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.write("units/heartbeat.service.broken", "")
    server.write("role", "active")
    assert run("reload") == 1
    assert server.running == {"ha_manager", "web"}
    [line] = capsys.readouterr().err.splitlines()
    assert "heartbeat.service did not start (failed): see 'journalctl -u heartbeat.service -n 20'" in line
    (server.folder / "units/heartbeat.service.broken").unlink()
    server.asked()
    assert run("boot") == 0
    assert "reset-failed heartbeat.service" in server.asked()


def test_nothing_is_started_while_the_server_stops(server: Server) -> None:
    server.write("system", "stopping\n")
    server.set("ha_manager", "active")
    server.set("web", "active")
    assert run("reload", "passive") == 0
    assert (server.running, server.passive_device) == ({"ha_manager"}, True)


def test_what_systemd_would_start_by_itself_it_does_not_any_more(server: Server) -> None:
    server.write("units/web.service.file", "enabled\n")
    assert run("status") == 1
    assert run("boot") == 0
    assert "disable web.service" in server.asked()
    assert run("status") == 0


def test_leaving_gives_the_active_roles_to_systemd(server: Server) -> None:
    server.write("Manager/passive_device", "")
    server.set("ha_manager", "active")
    server.set("look", "active")
    assert run("leave") == 0
    assert (server.running, server.passive_device) == ({"ha_manager", "web"}, False)
    assert (server.folder / "units/web.service.file").read_text() == "enabled\n"
    server.asked()
    assert run("leave") == 0
    assert not [line for line in server.asked() if line.startswith(("start", "stop"))]


def test_status_for_programs(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.write("role", "active")
    assert run("boot") == 0
    server.set("web", "failed")
    capsys.readouterr()
    assert run("status", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["mode"], said["passive_device"]) == ("active", False)
    assert [(role["name"], role["wanted"], role["state"]) for role in said["roles"]] == [
        ("HA", True, "running"),
        ("Web", True, "degraded"),
        ("Look", False, "stopped"),
    ]
    assert said["problems"] == ["web.service does not run (failed): see 'journalctl -u web.service -n 20'"]
    assert run("status") == 1
    assert "problem: web.service" in capsys.readouterr().out


def test_list(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["HA", "on", "-", "ha_manager.service", "heartbeat.service"],
        ["Web", "on", "-", "web.service"],
        ["Look", "-", "on", "look.service"],
    ]


def test_two_at_once_work_one_after_the_other(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(manager_ctl, "_LOCK", 0.1)
    with locked(str(server.folder / "Manager")):
        assert run("reload") == 1
    assert "another manager-ctl has been at work" in capsys.readouterr().err
    assert server.running == set()


@pytest.mark.parametrize(
    "arguments", [[], ["reload", "active"], ["reload", "passive", "now"], ["status", "json"], ["stop"], ["boot", "now"]]
)
def test_what_it_does_not_know_gets_usage_and_2(server: Server, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith("usage: manager-ctl")
    assert server.asked() == []


def test_it_needs_no_site_packages() -> None:
    program = "import sys; sys.path.insert(0, sys.argv[1]); from swg_ha.manager_ctl import main; sys.exit(main(['list', 'too much']))"
    done = subprocess.run([sys.executable, "-IS", "-c", program, str(FILES)], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 2, done.stderr
