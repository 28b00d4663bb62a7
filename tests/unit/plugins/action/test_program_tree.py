# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.swg.ha.plugins.action import program_tree
from ansible_collections.swg.ha.plugins.module_utils.program_archive import unpacked


class Action(program_tree.ActionModule):
    """Finds src itself, and keeps what would be sent to the host."""

    def __init__(self, args):
        super().__init__(
            SimpleNamespace(args=args, action="program_tree", async_val=0, check_mode=False, diff=False, no_log=False, delegate_to=None),
            SimpleNamespace(_shell=SimpleNamespace(tmpdir=None)),
            SimpleNamespace(check_mode=False, remote_user=None),
            None,
            None,
            None,
        )
        self.sent = []

    def _find_needle(self, dirname, needle):
        assert dirname == "files"
        return needle

    def _execute_module(self, module_name=None, module_args=None, task_vars=None):
        self.sent.append((module_name, module_args))
        return {"changed": True, "files": []}


def test_the_files_are_sent_at_once(tmp_path):
    (tmp_path / "steps").mkdir()
    for name in ("daemon.py", "steps/promote.py", "README.md"):
        (tmp_path / name).write_text(f"# {name}\n")
    action = Action({"src": str(tmp_path), "include": ["*.py", "steps/*.py"], "dest": "/usr/lib/it"})
    assert action.run(task_vars={})["changed"] is True
    [(module, arguments)] = action.sent
    assert (module, arguments["dest"]) == ("swg.ha.program_tree", "/usr/lib/it")
    assert unpacked(arguments["archive"]) == {"daemon.py": b"# daemon.py\n", "steps/promote.py": b"# steps/promote.py\n"}


def test_what_fits_nothing_is_told_before_anything_is_sent(tmp_path):
    action = Action({"src": str(tmp_path), "include": ["missing.py"], "dest": "/usr/lib/it"})
    with pytest.raises(AnsibleActionFail, match="no file fits missing.py"):
        action.run(task_vars={})
    assert action.sent == []
