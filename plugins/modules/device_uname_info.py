#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: device_uname_info
short_description: Ask another server for its name
version_added: 0.1.0
author:
  - The swg.ha authors (@swg)
description:
  - Asks the handler C(device_uname) of another server for what C(uname -n) prints there, as C(GET /device_uname).
  - Fails where there is no answer in time, or where the answer is no host name.
options:
  address:
    description:
      - The address to ask.
    type: str
    required: true
  port:
    description:
      - Its TCP port.
    type: int
    default: 5222
  timeout:
    description:
      - How many seconds the whole question may take.
    type: float
    default: 20
  expected:
    description:
      - The name that it should be. Fails where it is another one.
    type: str
attributes:
  check_mode:
    description: Can run in check mode, and changes nothing in any mode.
    support: full
  diff_mode:
    description: Returns what has changed when in diff mode.
    support: none
    details: Nothing is ever changed.
  platform:
    description: The operating systems that it runs on.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Ask the peer for its name
  swg.ha.device_uname_info:
    address: "{{ topology_links[0].peer_address }}"
  register: peer

- name: Show it
  ansible.builtin.debug:
    var: peer.name
"""

RETURN = r"""
name:
  description: The host name that was told.
  returned: success, and where it is not the one that O(expected) names
  type: str
  sample: ps2
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.swg.ha.plugins.module_utils.device_uname import NoName, ask


def problem(told: str, expected: str | None, address: str) -> str | None:
    """What is wrong with a name, if anything."""
    if expected is None or told == expected:
        return None
    return (
        f"{address} tells the name {told}, but it is {expected} by its facts: restart the service device_uname there if "
        f"{expected} is right, or give the server its name {told} back"
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "default": 5222},
            "timeout": {"type": "float", "default": 20},
            "expected": {"type": "str"},
        },
        supports_check_mode=True,
    )
    address, port, timeout, expected = (module.params[name] for name in ("address", "port", "timeout", "expected"))
    if not 0 < timeout <= 3600:
        module.fail_json(msg=f"timeout is {timeout:g}: must be more than 0 and at most 3600 seconds")
    if not 1 <= port <= 65535:
        module.fail_json(msg=f"port is {port}: must be a port number from 1 to 65535")
    try:
        told = ask(address, port, timeout)
    except NoName as error:
        module.fail_json(msg=str(error))
    if wrong := problem(told, expected, address):
        module.fail_json(msg=wrong, name=told)
    module.exit_json(changed=False, name=told)


if __name__ == "__main__":
    main()
