# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.swg.ha.plugins.module_utils import manager_xml
from ansible_collections.swg.ha.plugins.modules import manager_roles


class Ended(Exception):
    """The module has answered."""


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the module on files in a folder that is not there yet; gives what it answers."""
    places = {f"{name}_path": str(tmp_path / "deep" / name) for name in ("active", "passive", "units")}

    def run(check_mode=False, active=("HA",), passive=("HA",), roles=None):
        class Module:
            def __init__(self, **_specification):
                self.check_mode = check_mode
                self.params = {"active": list(active), "passive": list(passive), "roles": roles or {}, **places}

            def exit_json(self, **result):
                self.result = result
                raise Ended

            def fail_json(self, **result):
                self.result = {"failed": True, **result}
                raise Ended

        made = []
        monkeypatch.setattr(manager_roles, "AnsibleModule", lambda **options: made.append(Module(**options)) or made[0])
        with pytest.raises(Ended):
            manager_roles.main()
        return made[0].result

    run.folder = tmp_path / "deep"
    return run


HA = {"HA": ["ha_manager.service"]}


def test_three_files_come_of_it_and_nothing_of_a_second_run(run):
    result = run(roles={**HA, "Web": ["web.service"]}, active=["HA", "Web"])
    assert (result["changed"], [path.rpartition("/")[2] for path in result["changed_files"]]) == (True, ["units", "passive", "active"])
    assert manager_xml.parse_roles((run.folder / "active").read_bytes()) == {"HA": True, "Web": True}
    # A role that is known and not named is off.
    assert manager_xml.parse_roles((run.folder / "passive").read_bytes()) == {"HA": True, "Web": False}
    assert manager_xml.parse_units((run.folder / "units").read_bytes()) == {"HA": ("ha_manager.service",), "Web": ("web.service",)}
    assert (run.folder / "units").stat().st_mode & 0o777 == 0o644
    assert run(roles={**HA, "Web": ["web.service"]}, active=["HA", "Web"])["changed"] is False


def test_check_mode_tells_and_writes_nothing(run):
    result = run(check_mode=True, roles=HA)
    assert result["changed"] is True
    assert "ha_manager.service" in result["diff"][0]["after"]
    assert not run.folder.exists()


def test_what_an_operator_added_stays(run):
    run(roles=HA)
    own = manager_xml.edit_units((run.folder / "units").read_bytes(), {"Own": ["own.service"]})
    (run.folder / "units").write_bytes(own)
    (run.folder / "active").write_bytes(manager_xml.edit_roles((run.folder / "active").read_bytes(), {"Own": True}))
    assert run(roles=HA)["changed"] is False
    # It may be named without its units, which the file has.
    assert run(roles=HA, passive=["HA", "Own"])["changed"] is True
    assert manager_xml.parse_roles((run.folder / "active").read_bytes()) == {"HA": True, "Own": True}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"active": ["HA", "Ghost"], "roles": HA}, "the role 'Ghost' has no units: name them in roles, or in "),
        ({"roles": {"HA": ["ha manager"]}}, "roles.HA: the unit name 'ha manager': must be that of a systemd unit"),
        ({"roles": {"HA": "ha_manager.service"}}, "roles.HA is 'ha_manager.service': must be a list of unit names"),
        ({"roles": {"": []}}, "roles: the role name ''"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_written(run, options, words):
    result = run(**options)
    assert result["failed"] and result["msg"].startswith("Nothing was changed. ")
    assert any(words in problem for problem in result["problems"])
    assert not run.folder.exists()


def test_a_broken_file_is_named_and_no_other_is_written(run):
    run.folder.mkdir()
    (run.folder / "active").write_text("<module")
    result = run(roles=HA)
    assert result["problems"][0].startswith(f"{run.folder}/active: line 1: ")
    assert [path.name for path in run.folder.iterdir()] == ["active"]
