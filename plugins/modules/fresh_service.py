#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fresh_service
short_description: Run a systemd service with the configuration that is on the disk
version_added: 0.1.0
author:
  - The swg.ha authors (@swg)
description:
  - Starts a service, has it start at boot, and restarts or reloads it if one of its files has changed since it last did so.
  - It compares times instead of being told by a handler. A run that was cut off between writing a file and restarting the
    service is made good by the next run, where a handler would have been forgotten.
  - Units that changed on the disk are read again (C(systemctl daemon-reload)).
  - Fails, with what the journal says, if the service does not run afterwards.
options:
  name:
    description:
      - The service, with or without C(.service).
    type: str
    required: true
  files:
    description:
      - Files and folders that the service reads when it starts or is reloaded. Those that do not exist are passed over.
      - A folder counts as changed when an entry was added, replaced or removed.
    type: list
    elements: path
    default: []
  on_change:
    description:
      - What to do with the running service when one of O(files) is newer.
    type: str
    choices: [reloaded, restarted]
    default: restarted
  enabled:
    description:
      - Whether systemd starts the service at boot by itself. With V(false), something else does, such as C(ha_manager).
    type: bool
    default: true
  state:
    description:
      - Whether it is to run now. A service that is to be stopped need not exist.
    type: str
    choices: [started, stopped]
    default: started
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
    platforms: linux
notes:
  - Times are those of the file system (C(st_ctime)) and of systemd, both from the machine's wall clock.
"""

EXAMPLES = r"""
- name: Run Heartbeat, and let it take up what changed
  swg.ha.fresh_service:
    name: heartbeat
    files: [/etc/ha.d/ha.cf, /etc/ha.d/haresources, /etc/ha.d/authkeys]
    on_change: reloaded

- name: Run ha_manager, which the Manager starts at boot
  swg.ha.fresh_service:
    name: ha_manager
    enabled: false
"""

RETURN = r"""
done:
  description: What was done, in the words of systemctl.
  returned: success
  type: list
  elements: str
  sample: [daemon-reload, restart]
newer:
  description: The files that had changed since the service last took them up.
  returned: success
  type: list
  elements: str
  sample: [/etc/ha.d/ha.cf]
running:
  description: Whether the service was running before.
  returned: success
  type: bool
  sample: true
"""

import glob
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.swg.ha.plugins.module_utils.units import (
    DROP_INS,
    PROPERTIES,
    Unit,
    UnitError,
    newer_files,
    parse_show,
    stale_definition,
    verbs,
)


def look(module: AnsibleModule, name: str) -> Unit:
    """Ask systemd for the unit."""
    argv = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(PROPERTIES)}", "--", name]
    rc, out, err = module.run_command(argv)
    if rc != 0:
        raise UnitError(f"systemctl show {name} failed: {err.strip() or out.strip()}")
    return parse_show(out)


def change_times(paths: list[str]) -> dict[str, float]:
    """When each of the existing paths was last written, replaced, or given other attributes."""
    times = {}
    for path in paths:
        try:
            times[path] = os.stat(path).st_ctime
        except FileNotFoundError:
            continue
    return times


def drop_ins(name: str) -> list[str]:
    """The unit's drop-ins that an administrator, or a role, has put on the disk."""
    unit = name if "." in name else f"{name}.service"
    return sorted(glob.glob(f"{DROP_INS}/{glob.escape(unit)}.d/*.conf"))


def apply(module: AnsibleModule, name: str, words: list[str], state: str = "started") -> None:
    """Do it, and fail with the end of the journal where systemd refuses."""
    for word in words:
        rc, out, err = module.run_command(["systemctl", word, *([] if word == "daemon-reload" else ["--", name])])
        if rc != 0:
            _rc, journal, _err = module.run_command(["journalctl", "--no-pager", "--lines=20", f"--unit={name}"])
            raise UnitError(f"systemctl {word} {name} failed: {err.strip() or out.strip()}\n{journal}")
    # systemctl calls it a success when a condition of the unit kept it from starting.
    if words and state == "started" and not look(module, name).running:
        _rc, status, _err = module.run_command(["systemctl", "status", "--no-pager", "--full", "--", name])
        raise UnitError(f"{name} does not run after systemctl {', '.join(words)}:\n{status}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "on_change": {"type": "str", "choices": ["reloaded", "restarted"], "default": "restarted"},
            "enabled": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
        },
        supports_check_mode=True,
    )
    name = module.params["name"]
    try:
        unit = look(module, name)
        added = drop_ins(name)
        newer = newer_files(unit, change_times([*module.params["files"], *unit.files, *added]))
        options = {option: module.params[option] for option in ("on_change", "enabled", "state")}
        words = verbs(unit, newer, stale_definition(unit, added), **options)
        if not module.check_mode:
            apply(module, name, words, options["state"])
    except UnitError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(
            changed=bool(words),
            done=words,
            newer=newer,
            running=unit.running,
            diff={
                "before": f"{name}: {unit.active_state}{''.join(f', older than {path}' for path in newer)}\n",
                "after": f"{name}: {unit.active_state if not words else {'started': 'active', 'stopped': 'inactive'}[options['state']]}\n",
            },
        )


if __name__ == "__main__":
    main()
