# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os

import pytest

from ansible_collections.swg.ha.plugins.module_utils.units import UnitError
from ansible_collections.swg.ha.plugins.modules import fresh_service


def shown(active_state="active", **changes):
    values = {
        "ReloadResult": "success",
        "LoadState": "loaded",
        "ActiveState": active_state,
        "FragmentPath": "",
        "DropInPaths": "",
        "UnitFileState": "enabled",
        "StateChangeTimestamp": "Sun 2026-11-22 18:32:27.578203 UTC",
        "NeedDaemonReload": "no",
        **changes,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


class Ended(Exception):
    """The module has answered."""


class Module:
    """AnsibleModule with its parameters; answers: (exit status, output, errors) by the first two words of a command."""

    def __init__(self, answers, check_mode=False, **params):
        self.params = {"name": "heartbeat", "files": [], "on_change": "reloaded", "enabled": True, "state": "started", **params}
        self.answers, self.check_mode = answers, check_mode
        self.commands = []

    def run_command(self, argv):
        self.commands.append(argv)
        answer = self.answers.get(" ".join(argv[:2]), (0, "", ""))
        return answer.pop(0) if isinstance(answer, list) else answer

    def exit_json(self, **result):
        self.result = result
        raise Ended

    def fail_json(self, msg):
        self.result = {"failed": True, "msg": msg}
        raise Ended

    @property
    def done(self):
        return [argv for argv in self.commands if argv[:2] != ["systemctl", "show"]]


def main(monkeypatch, answers, **params):
    module = Module(answers, **params)
    monkeypatch.setattr(fresh_service, "AnsibleModule", lambda **_specification: module)
    with pytest.raises(Ended):
        fresh_service.main()
    return module


SHOW = "systemctl show"


@pytest.fixture(autouse=True)
def no_drop_ins(monkeypatch, tmp_path):
    monkeypatch.setattr(fresh_service, "DROP_INS", str(tmp_path / "etc"))


def test_a_service_that_is_fresh_is_left_alone(monkeypatch, tmp_path):
    module = main(monkeypatch, {SHOW: (0, shown(), "")}, files=[str(tmp_path / "missing")])
    assert module.result["changed"] is False
    assert (module.result["done"], module.result["newer"], module.result["running"]) == ([], [], True)
    assert module.done == []
    assert module.result["diff"] == {"before": "heartbeat: active\n", "after": "heartbeat: active\n"}


@pytest.mark.parametrize(("on_change", "verb"), [("reloaded", "reload"), ("restarted", "restart")])
def test_a_file_that_is_newer(monkeypatch, tmp_path, on_change, verb):
    path = tmp_path / "ha.cf"
    path.write_text("new\n")
    old = shown(StateChangeTimestamp="Sun 2001-01-07 00:00:00 UTC")
    module = main(monkeypatch, {SHOW: (0, old, "")}, files=[str(path)], on_change=on_change)
    assert (module.result["done"], module.result["newer"]) == ([verb], [str(path)])
    assert module.done == [["systemctl", verb, "--", "heartbeat"]]
    assert f"older than {path}" in module.result["diff"]["before"]


def test_a_reload_that_failed_is_made_good_by_what_is_to_be_done_on_a_change(monkeypatch, tmp_path):
    module = main(monkeypatch, {SHOW: (0, shown(ReloadResult="exit-code"), "")}, on_change="restarted")
    assert module.result["done"] == ["restart"]


def test_a_service_that_does_not_run(monkeypatch):
    stopped = shown("inactive", UnitFileState="disabled", StateChangeTimestamp="")
    module = main(monkeypatch, {SHOW: [(0, stopped, ""), (0, shown(), "")]})
    assert module.result["running"] is False
    assert module.done == [["systemctl", "enable", "--", "heartbeat"], ["systemctl", "start", "--", "heartbeat"]]


def test_a_service_that_something_else_starts_is_disabled_and_started(monkeypatch):
    module = main(monkeypatch, {SHOW: [(0, shown("inactive"), ""), (0, shown(UnitFileState="disabled"), "")]}, enabled=False)
    assert module.done == [["systemctl", "disable", "--", "heartbeat"], ["systemctl", "start", "--", "heartbeat"]]
    assert main(monkeypatch, {SHOW: (0, shown(UnitFileState="disabled"), "")}, enabled=False).done == []


def test_a_service_that_is_to_be_stopped(monkeypatch):
    module = main(monkeypatch, {SHOW: (0, shown(), "")}, enabled=False, state="stopped")
    assert module.done == [["systemctl", "disable", "--", "heartbeat"], ["systemctl", "stop", "--", "heartbeat"]]
    assert module.result["diff"] == {"before": "heartbeat: active\n", "after": "heartbeat: inactive\n"}
    missing = shown("inactive", LoadState="not-found", UnitFileState="", StateChangeTimestamp="")
    assert main(monkeypatch, {SHOW: (0, missing, "")}, enabled=False, state="stopped").result["changed"] is False


def test_check_mode_tells_and_does_nothing(monkeypatch):
    module = main(monkeypatch, {SHOW: (0, shown("inactive"), "")}, check_mode=True)
    assert (module.result["changed"], module.result["done"], module.done) == (True, ["start"], [])


def test_a_new_drop_in_is_read_and_taken_up(monkeypatch, tmp_path):
    folder = tmp_path / "etc/heartbeat.service.d"
    folder.mkdir(parents=True)
    (folder / "swg_ha.conf").write_text("[Service]\n")
    (folder / "swg_ha.conf.dpkg-old").write_text("[Service]\n")
    module = main(monkeypatch, {SHOW: (0, shown(StateChangeTimestamp="Sun 2001-01-07 00:00:00 UTC"), "")}, on_change="restarted")
    assert module.result["newer"] == [str(folder / "swg_ha.conf")]
    assert module.done == [["systemctl", "daemon-reload"], ["systemctl", "restart", "--", "heartbeat"]]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("heartbeat", "heartbeat.service.d"),
        ("heartbeat.service", "heartbeat.service.d"),
        ("postgresql@15-main", "postgresql@15-main.service.d"),
        ("a[b]", "a[b].service.d"),
    ],
)
def test_where_drop_ins_are(tmp_path, name, folder):
    (tmp_path / "etc" / folder).mkdir(parents=True)
    (tmp_path / "etc" / folder / "x.conf").touch()
    assert fresh_service.drop_ins(name) == [str(tmp_path / "etc" / folder / "x.conf")]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({SHOW: (1, "", "Failed to connect to bus\n")}, ["systemctl show heartbeat failed: Failed to connect to bus"]),
        ({SHOW: (0, "", "")}, ["did not tell", "is systemd running as process 1?"]),
        (
            {
                SHOW: (0, shown("inactive"), ""),
                "systemctl start": (1, "", "Job for heartbeat.service failed\n"),
                "journalctl --no-pager": (0, "ha.cf: unknown directive\n", ""),
            },
            ["systemctl start heartbeat failed: Job for heartbeat.service failed", "ha.cf: unknown directive"],
        ),
        # systemctl start succeeds, though a condition kept the unit from starting.
        (
            {SHOW: (0, shown("inactive"), ""), "systemctl status": (3, "Condition: start condition failed\n", "")},
            ["heartbeat does not run after systemctl start", "start condition failed"],
        ),
    ],
)
def test_failures_say_why(monkeypatch, answers, words):
    result = main(monkeypatch, answers).result
    assert result["failed"] is True
    assert [word for word in words if word not in result["msg"]] == []


def test_nothing_is_done_after_a_failure():
    module = Module({"systemctl enable": (1, "", "no such unit")})
    with pytest.raises(UnitError, match="systemctl enable heartbeat failed: no such unit"):
        fresh_service.apply(module, "heartbeat", ["daemon-reload", "enable", "start"])
    assert [argv[:2] for argv in module.done] == [["systemctl", "daemon-reload"], ["systemctl", "enable"], ["journalctl", "--no-pager"]]


def test_a_file_that_was_replaced_by_an_older_one_counts(tmp_path):
    """rsync and cp --archive keep the time of the content; the time of the change is st_ctime."""
    path = tmp_path / "file"
    path.write_text("x")
    os.utime(path, (0, 0))
    times = fresh_service.change_times([str(path), str(tmp_path / "missing")])
    assert list(times) == [str(path)]
    assert times[str(path)] > 1e9


def test_an_entry_of_a_folder_counts(tmp_path):
    folder = tmp_path / "conf.d"
    folder.mkdir()
    before = fresh_service.change_times([str(folder)])
    # Two changes within one tick of the kernel's clock have the same time.
    for number in range(10_000):
        (folder / f"{number}.conf").touch()
        if fresh_service.change_times([str(folder)]) != before:
            break
    else:
        pytest.fail("new files in a folder did not count as a change")
