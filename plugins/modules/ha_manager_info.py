#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ha_manager_info
short_description: What ha_manager says of its server
version_added: 0.1.0
author:
  - The swg.ha authors (@swg)
description:
  - Asks C(ha_manager) on this host for its status. Where it does not answer, the status is the last one that it has written down.
  - Works on a host without C(ha_manager).
options:
  patience:
    description:
      - For how many seconds to wait until the pair is redundant. Then the status is returned as it is.
    type: float
    default: 0
  timeout:
    description:
      - For how many seconds to wait for an answer.
    type: float
    default: 5
  control_socket:
    description:
      - Where C(ha_manager) listens.
    type: path
    default: /run/ha_manager/control.sock
  status_file:
    description:
      - Where it writes its status.
    type: path
    default: /etc/ha_manager/ha_manager_status
  settings_file:
    description:
      - What it is told. Where the file does not exist, C(ha_manager) counts as not installed.
    type: path
    default: /etc/ha_manager/runtime.json
attributes:
  check_mode:
    description: Can run in check mode and return what it would otherwise.
    support: full
  diff_mode:
    description: Shows differences.
    support: none
  platform:
    description: The operating systems that it runs on.
    support: full
    platforms: linux
notes:
  - Changes nothing.
seealso:
  - module: swg.ha.ha_failover
"""

EXAMPLES = r"""
- name: Ask ha_manager
  swg.ha.ha_manager_info:
  register: manager

- name: See who is active
  ansible.builtin.debug:
    msg: "{{ manager.status.role }}, because {{ manager.status.decision.reason }}"
  when: manager.status is not none
"""

RETURN = r"""
installed:
  description: Whether the host has a C(ha_manager).
  returned: success
  type: bool
  sample: true
running:
  description: Whether it answered.
  returned: success
  type: bool
  sample: true
problem:
  description: Why it did not; null when it did.
  returned: success
  type: str
  sample: "ha_manager does not run: see 'systemctl status ha_manager'"
status:
  description: The status, as C(ha status --json) prints it; null where there is none.
  returned: success
  type: dict
  sample: {node: ps1, role: active, state: steady, redundant: true}
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.swg.ha.plugins.module_utils.control_client import ControlError, ask

INTERVAL_S = 0.5


def look(params: dict[str, Any]) -> dict[str, Any]:
    """What is so now."""
    if not os.path.exists(params["settings_file"]):
        return {"installed": False, "running": False, "problem": "ha_manager is not installed", "status": None}
    try:
        status = ask({"do": "status"}, timeout=params["timeout"], path=Path(params["control_socket"]))["status"]
    except ControlError as refusal:
        return {"installed": True, "running": False, "problem": str(refusal), "status": written(params["status_file"])}
    return {"installed": True, "running": True, "problem": None, "status": status}


def written(path: str) -> Any:
    """What stands in the status file; None if it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            said = json.load(file)
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "patience": {"type": "float", "default": 0},
            "timeout": {"type": "float", "default": 5},
            "control_socket": {"type": "path", "default": "/run/ha_manager/control.sock"},
            "status_file": {"type": "path", "default": "/etc/ha_manager/ha_manager_status"},
            "settings_file": {"type": "path", "default": "/etc/ha_manager/runtime.json"},
        },
        supports_check_mode=True,
    )
    if not module.params["timeout"] > 0:
        module.fail_json(msg=f"timeout is {module.params['timeout']:g}: must be more than 0 seconds")
    deadline = time.monotonic() + module.params["patience"]
    found = look(module.params)
    while found["installed"] and not (found["running"] and found["status"].get("redundant")) and time.monotonic() < deadline:
        time.sleep(INTERVAL_S)
        found = look(module.params)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
