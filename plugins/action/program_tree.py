# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action part of swg.ha.program_tree: packs the files on the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.swg.ha.plugins.module_utils.program_archive import collected, packed


class ActionModule(ActionBase):
    """Sends all files in one go."""

    TRANSFERS_FILES = False
    _requires_connection = True
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            {
                "src": {"type": "str", "required": True},
                "include": {"type": "list", "elements": "str", "default": ["*.py"]},
                "dest": {"type": "path", "required": True},
            }
        )
        try:
            files = collected(Path(self._find_needle("files", args["src"])), args["include"])
        except (OSError, ValueError) as error:
            raise AnsibleActionFail(f"src {args['src']}: {error}") from error
        answer = self._execute_module(
            module_name="swg.ha.program_tree", module_args={**args, "archive": packed(files)}, task_vars=task_vars
        )
        return {**result, **answer}
