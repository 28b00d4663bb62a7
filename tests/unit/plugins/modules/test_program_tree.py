# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.swg.ha.plugins.module_utils.program_archive import packed
from ansible_collections.swg.ha.plugins.modules import program_tree

FILES = {"__init__.py": "", "daemon.py": "WORD = 'old'\n", "steps/__init__.py": "", "steps/promote.py": "STEP = 1\n"}


def run(capsys, dest, files, check=False):
    arguments = {"src": "swg_ha", "dest": str(dest), "archive": packed(files), "_ansible_check_mode": check}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        program_tree.main()
    return json.loads(capsys.readouterr().out)


def tree(folder):
    """Every file below the folder with its mode and contents, the compiled ones by name alone."""
    return {
        str(path.relative_to(folder)): None if path.suffix == ".pyc" else (stat.S_IMODE(path.stat().st_mode), path.read_text())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(name="dest")
def installed(tmp_path, capsys):
    dest = tmp_path / "lib" / "swg_ha"
    assert run(capsys, dest, FILES)["changed"] is True
    return dest


def test_what_is_shipped_is_there_and_compiled(dest, capsys):
    found = tree(dest)
    assert {name: entry for name, entry in found.items() if entry} == {name: (0o644, text) for name, text in FILES.items()}
    assert len([name for name, entry in found.items() if entry is None]) == len(FILES)
    # Python takes the compiled forms for current: it writes none anew, though it could.
    before = {path: path.stat().st_mtime_ns for path in dest.rglob("*.pyc")}
    argv = [sys.executable, "-c", "import swg_ha.daemon, swg_ha.steps.promote; print(swg_ha.daemon.WORD, swg_ha.daemon.__cached__)"]
    told = subprocess.run(
        argv, cwd=dest.parent, env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""}, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["old", str(next(path for path in before if path.name.startswith("daemon.")))]
    assert {path: path.stat().st_mtime_ns for path in dest.rglob("*.pyc")} == before
    again = run(capsys, dest, FILES)
    assert (again["changed"], again["written"], again["removed"]) == (False, [], [])
    assert sorted(again["files"]) == sorted(str(dest / name) for name in FILES)


@pytest.mark.parametrize(
    ("damage", "written"),
    [
        (lambda dest: (dest / "daemon.py").write_text("WORD = 'new'\n"), ["daemon.py"]),
        (lambda dest: (dest / "daemon.py").chmod(0o666), ["daemon.py"]),
        (lambda dest: (dest / "daemon.py").unlink(), ["daemon.py"]),
        (lambda dest: os.utime(dest / "daemon.py", (1, 1)), ["daemon.py"]),
        (lambda dest: [path.unlink() for path in dest.rglob("promote.*.pyc")], ["steps/promote.py"]),
        (lambda dest: [path.write_bytes(b"") for path in dest.rglob("promote.*.pyc")], ["steps/promote.py"]),
    ],
)
def test_what_differs_is_put_right(dest, capsys, damage, written):
    before = tree(dest)
    damage(dest)
    damaged = tree(dest)
    foretold = run(capsys, dest, FILES, check=True)
    assert (foretold["changed"], foretold["written"]) == (True, written)
    assert tree(dest) == damaged
    assert run(capsys, dest, FILES)["written"] == written
    assert tree(dest) == before
    assert not run(capsys, dest, FILES)["changed"]


def test_a_link_is_replaced_and_its_target_left_alone(dest, capsys, tmp_path):
    target = tmp_path / "target.py"
    target.write_text(FILES["daemon.py"])
    (dest / "daemon.py").unlink()
    (dest / "daemon.py").symlink_to(target)
    assert run(capsys, dest, {**FILES, "daemon.py": "WORD = 'new'\n"})["written"] == ["daemon.py"]
    assert (target.read_text(), (dest / "daemon.py").is_symlink()) == (FILES["daemon.py"], False)


def test_an_older_version_leaves_nothing_behind(dest, capsys):
    (dest / "steps" / "more").mkdir()
    (dest / "steps" / "more" / "x.py").write_text("")
    (dest / "link.py").symlink_to("daemon.py")
    (dest / "old").symlink_to("steps")
    newer = {name: text for name, text in FILES.items() if name != "daemon.py"}
    removed = run(capsys, dest, newer)["removed"]
    assert [name for name in removed if not name.endswith(".pyc")] == ["daemon.py", "link.py", "old", "steps/more"]
    assert not list(dest.rglob("daemon.*"))
    assert (dest / "steps" / "promote.py").read_text() == FILES["steps/promote.py"]
    assert not run(capsys, dest, newer)["changed"]


def test_compiled_forms_of_another_python_stay(dest, capsys):
    other = dest / "__pycache__" / "daemon.cpython-399.pyc"
    other.write_bytes(b"")
    assert not run(capsys, dest, FILES)["changed"]
    assert other.exists()


def test_what_is_no_python_is_told(dest, capsys):
    told = run(capsys, dest, {**FILES, "daemon.py": "def\n"})
    assert told["failed"] and "daemon.py" in told["msg"]
