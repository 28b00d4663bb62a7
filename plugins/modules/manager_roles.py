#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: manager_roles
short_description: The Manager's files, which say what roles a server has
version_added: 0.2.0
author:
  - The swg.ha authors (@swg)
description:
  - Writes which roles run on an active and on a passive server, and which systemd units a role is.
  - The files may hold more than that. Roles that none of the options names, and everything else, stay as they are, byte by byte.
  - Each file is replaced in one step and is on the disk when the module returns. A power cut leaves the old file or the new one.
options:
  active:
    description:
      - The roles that run on an active server.
    type: list
    elements: str
    required: true
  passive:
    description:
      - The roles that run on a passive server.
    type: list
    elements: str
    required: true
  roles:
    description:
      - What the roles are, a list of systemd units for each, in the order in which they start.
      - A role that is named here is switched off in a file whose option does not name it.
    type: dict
    default: {}
  active_path:
    description:
      - The file with the active roles.
    type: path
    default: /var/wasp/conf/commander/current/module.xml
  passive_path:
    description:
      - The file with the passive roles.
    type: path
    default: /etc/Manager/commander_passive_module.xml
  units_path:
    description:
      - The file with their units.
    type: path
    default: /etc/Manager/manager.conf.xml
attributes:
  check_mode:
    description: Can run in check mode and return what it would otherwise.
    support: full
  diff_mode:
    description: Shows differences.
    support: full
  platform:
    description: The operating systems that it runs on.
    support: full
    platforms: posix
notes:
  - Missing files and folders are created, for root alone to write and for all to read.
seealso:
  - module: swg.ha.ha_module_xml
"""

EXAMPLES = r"""
- name: Run the report service on the active server alone
  swg.ha.manager_roles:
    active: [HA, Reports]
    passive: [HA]
    roles:
      HA: [ha_manager.service, heartbeat.service]
      Reports: [reports.service]
"""

RETURN = r"""
changed_files:
  description: The files that were written.
  returned: success
  type: list
  elements: str
  sample: [/etc/Manager/manager.conf.xml]
problems:
  description: What is wrong, one sentence for each problem, with the line where a file is wrong.
  returned: failure because of wrong options or a wrong file
  type: list
  elements: str
  sample: ["/etc/Manager/manager.conf.xml: line 9: the role 'HA' is there twice: must be there once"]
"""

import os
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.swg.ha.plugins.module_utils import durable, manager_xml
from ansible_collections.swg.ha.plugins.module_utils.xml_document import InvalidXml

ARGUMENT_SPEC = {
    "active": {"type": "list", "elements": "str", "required": True},
    "passive": {"type": "list", "elements": "str", "required": True},
    "roles": {"type": "dict", "default": {}},
    "active_path": {"type": "path", "default": "/var/wasp/conf/commander/current/module.xml"},
    "passive_path": {"type": "path", "default": "/etc/Manager/commander_passive_module.xml"},
    "units_path": {"type": "path", "default": "/etc/Manager/manager.conf.xml"},
}


class Wrong(Exception):
    """Holds every problem that was found."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def check(params: dict[str, Any]) -> None:
    """Raises Wrong for options that make no role or no unit."""
    problems = manager_xml.choice_problems(params["roles"], active=params["active"], passive=params["passive"])
    if problems:
        raise Wrong(problems)


def read(path: str) -> bytes | None:
    """The file; None: there is none. Raises OSError."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def edited(path: str, before: bytes | None, edit: Callable[[bytes | None], bytes]) -> bytes:
    """Raises Wrong."""
    try:
        return edit(before)
    except InvalidXml as error:
        raise Wrong([f"{path}: {problem}" for problem in error.problems]) from error


def enabled(params: dict[str, Any], option: str) -> dict[str, bool]:
    """The roles that this option speaks of, and whether it names them."""
    return {name: name in params[option] for name in [*params["roles"], *params[option]]}


def plan(params: dict[str, Any]) -> list[tuple[str, bytes | None, bytes]]:
    """(path, contents before, contents after) of each file. Nothing is written before all of them are known. Raises Wrong, OSError."""
    edits: list[tuple[str, Callable[[bytes | None], bytes]]] = [
        (params["units_path"], lambda data: manager_xml.edit_units(data, params["roles"])),
        (params["passive_path"], lambda data: manager_xml.edit_roles(data, enabled(params, "passive"))),
        (params["active_path"], lambda data: manager_xml.edit_roles(data, enabled(params, "active"))),
    ]
    files = []
    for named, edit in edits:
        path = os.path.realpath(named)
        before = read(path)
        files.append((path, before, edited(path, before, edit)))
    defined = manager_xml.parse_units(files[0][2])
    unknown = sorted({*params["active"], *params["passive"]} - defined.keys())
    if unknown:
        raise Wrong([f"the role {name!r} has no units: name them in roles, or in {files[0][0]}" for name in unknown])
    return files


def write(path: str, content: bytes) -> None:
    """Raises OSError."""
    folder = os.path.dirname(path)
    durable.make_folders(folder)
    with durable.locked(folder):
        durable.replace(path, content, lambda new: os.chmod(new, 0o644))


def difference(path: str, before: bytes | None, after: bytes) -> dict[str, str]:
    return {
        "before_header": path,
        "after_header": path,
        "before": (before or b"").decode(errors="replace"),
        "after": after.decode(errors="replace"),
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    changed: list[str] = []
    try:
        check(module.params)
        differing = [(path, before, after) for path, before, after in plan(module.params) if before != after]
        for path, _before, after in differing:
            changed.append(path)
            if not module.check_mode:
                write(path, after)
    except Wrong as error:
        module.fail_json(msg=f"Nothing was changed. {error}", problems=error.problems)
    except OSError as error:
        module.fail_json(msg=str(error), changed_files=changed)
    else:
        module.exit_json(changed=bool(differing), changed_files=changed, diff=[difference(*file) for file in differing])


if __name__ == "__main__":
    main()
