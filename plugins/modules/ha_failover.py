#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ha_failover
short_description: Move the active role to the other server of a pair
version_added: 0.1.0
author:
  - The swg.ha authors (@swg)
description:
  - Asks C(ha_manager) on this host to move the active role, waits until it is moved, and returns what was done when.
  - A planned hand-over loses nothing. C(ha_manager) refuses it, with the reason, while the other server is not ready.
  - A forced one is done with whatever the other server has. What it lacks is lost to the pair. Where it can still be saved, it is put
    into quarantine.
  - It may run on either server. Where one cannot be reached, it runs on the one that shall be active, and has to be forced.
options:
  state:
    description:
      - V(planned) moves the role without losing anything, or not at all.
      - V(forced) moves it in any case.
    type: str
    choices: [planned, forced]
    default: planned
  to:
    description:
      - Host name (C(uname -n)) of the server that shall be active. Nothing is done when it is so already.
      - By default the one that is not active now, so that each run moves the role.
    type: str
  confirm:
    description:
      - Needed for O(state=forced) - the host name (C(uname -n)) of the server that is to become active, as C(ha failover --force) wants to
        hear it. What the other one has not sent to it is lost.
    type: str
  timeout:
    description:
      - For how many seconds to wait. What was asked for goes on when the time is over.
    type: float
    default: 120
  control_socket:
    description:
      - Where C(ha_manager) listens.
    type: path
    default: /run/ha_manager/control.sock
attributes:
  check_mode:
    description: Can run in check mode and return what it would otherwise.
    support: full
    details: Fails where a planned hand-over would be refused, as far as the status of this server tells.
  diff_mode:
    description: Shows differences.
    support: full
  platform:
    description: The operating systems that it runs on.
    support: full
    platforms: linux
seealso:
  - module: swg.ha.ha_manager_info
"""

EXAMPLES = r"""
- name: Let the other server be active
  swg.ha.ha_failover:

- name: Let ps1 be active, if it is not
  swg.ha.ha_failover:
    to: ps1

- name: Take over from ps1, which burns
  swg.ha.ha_failover:
    state: forced
    confirm: ps2
"""

RETURN = r"""
active:
  description: Host name of the server that is active now; in check mode, that would be.
  returned: success
  type: str
  sample: ps2
gave_up:
  description: Host name of the other one.
  returned: success
  type: str
  sample: ps1
transition:
  description: What this server did when - C(kind), C(trigger), C(started), C(seconds), C(outcome), and C(steps), each with C(name), C(state),
    C(at) and C(seconds). Null when there was nothing to do.
  returned: success
  type: dict
  sample: {kind: becoming_passive, trigger: planned, outcome: done, seconds: 0.412, steps: [{name: checkpoint, state: done, at: 0.0, seconds: 0.03}]}
lost_bytes:
  description: How many bytes of WAL the new active server lacks; null where nobody can know.
  returned: success
  type: int
  sample: 0
code:
  description: Why it was refused, as a word that does not change with versions.
  returned: failure
  type: str
  sample: LAGGING
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.swg.ha.plugins.module_utils.control_client import ControlError, ask
from ansible_collections.swg.ha.plugins.module_utils.failover import FailoverError, Plan, not_ready, plan

STATUS_TIMEOUT_S = 10.0


def done(params: dict[str, Any], found: Plan, answer: dict[str, Any] | None) -> dict[str, Any]:
    """The result."""
    said = answer or {}
    active, other = found.to, found.gives_up
    return {
        "changed": not found.done,
        "active": active,
        "gave_up": other,
        "transition": said.get("transition"),
        "lost_bytes": said.get("lost_bytes", 0 if found.done else None),
        "diff": {"before": f"active: {active if found.done else other}\n", "after": f"active: {active}\n"},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["planned", "forced"], "default": "planned"},
            "to": {"type": "str"},
            "confirm": {"type": "str"},
            "timeout": {"type": "float", "default": 120},
            "control_socket": {"type": "path", "default": "/run/ha_manager/control.sock"},
        },
        required_if=[("state", "forced", ["confirm"])],
        supports_check_mode=True,
    )
    params = module.params
    if not params["timeout"] > 0:
        module.fail_json(msg=f"timeout is {params['timeout']:g}: must be more than 0 seconds")
    forced = params["state"] == "forced"
    try:
        status = ask({"do": "status"}, timeout=min(STATUS_TIMEOUT_S, params["timeout"]), path=Path(params["control_socket"]))["status"]
        found = plan(status, params["to"] or "", forced, params["confirm"] or "")
        if found.done:
            module.exit_json(**done(params, found, None))
        reasons = not_ready(status)
        if module.check_mode and not forced and reasons:
            raise FailoverError(f"{found.to} would not be made active: {'; '.join(reasons)}")
        answer = None
        if not module.check_mode:
            answer = ask({"do": "failover", "force": forced}, timeout=params["timeout"], path=Path(params["control_socket"]))
        module.exit_json(**done(params, found, answer))
    except ControlError as refusal:
        module.fail_json(msg=str(refusal), code=refusal.code)
    except FailoverError as error:
        module.fail_json(msg=str(error), code="REFUSED")


if __name__ == "__main__":
    main()
