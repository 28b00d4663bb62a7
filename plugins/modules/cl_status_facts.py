#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: cl_status_facts
short_description: State of Heartbeat as facts
version_added: 0.1.0
description:
  - Asks Linux-HA Heartbeat with C(cl_status) for its state on this host, and returns it as facts.
  - Tells the role, active or passive, that this state means, with the reason.
  - Works on a host without Heartbeat, and for any user.
author:
  - The swg.ha authors (@swg)
options:
  cl_status_path:
    description:
      - The C(cl_status) program. Where it does not exist, Heartbeat counts as not installed.
    type: path
    default: /usr/bin/cl_status
  timeout:
    description:
      - How many seconds one question to Heartbeat, or to C(ip), may take.
      - C(cl_status) itself gives up after 5 seconds, so that more than 6 has no effect.
      - When Heartbeat leaves the first question without an answer, no other is asked. All others are asked at once.
    type: float
    default: 6
  virtual_ip:
    description:
      - The address that the active server holds. When given, the facts say whether an interface of this host has it.
    type: str
  default_active:
    description:
      - Whether this host is the pair's default active server, the first name in C(haresources).
      - When given, the facts hold the role that Heartbeat's state means.
    type: bool
  previous_role:
    description:
      - The role that this host had before, where it is known.
    type: str
    choices: [active, passive]
  peer_role:
    description:
      - The role that the pair's other server has, where it is known.
    type: str
    choices: [active, passive]
attributes:
  check_mode:
    description: Can run in check mode, and changes nothing in any mode.
    support: full
  diff_mode:
    description: Returns what has changed when in diff mode.
    support: none
    details: Nothing is ever changed.
  facts:
    description: Returns ansible_facts.
    support: full
  platform:
    description: The platforms that it supports.
    platforms: debian
    support: full
seealso:
  - module: swg.ha.ha_module_xml
"""

EXAMPLES = r"""
- name: Read the state of Heartbeat
  swg.ha.cl_status_facts:

- name: Read the state of Heartbeat, the role and who holds the virtual IP
  swg.ha.cl_status_facts:
    virtual_ip: 192.0.2.10
    default_active: "{{ topology_is_default_active }}"

- name: Wait until Heartbeat has settled
  swg.ha.cl_status_facts:
  until: ansible_facts.ha_heartbeat.rscstatus in ['all', 'local', 'none']
  retries: 60
  delay: 1
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to ansible_facts.
  returned: always
  type: complex
  contains:
    ha_heartbeat:
      description: The state of Heartbeat on this host.
      returned: always
      type: complex
      contains:
        installed:
          description: Whether C(cl_status) is there.
          returned: always
          type: bool
          sample: true
        running:
          description: Whether Heartbeat runs. One that hangs runs too, and C(problem) says so.
          returned: always
          type: bool
          sample: true
        problem:
          description: Why Heartbeat did not answer; null when it answered everything.
          returned: always
          type: str
          sample: Heartbeat is stopped on this machine
        rscstatus:
          description: >-
            The resources that Heartbeat holds here: V(all), V(local), V(foreign), V(none) or V(transition);
            null when it did not answer.
          returned: always
          type: str
          sample: all
        parameters:
          description: What C(ha.cf) says, as written there, and the defaults that Heartbeat filled in.
          returned: always
          type: dict
          sample: {keepalive: "1", deadtime: "5", auto_failback: "off", udpport: "694"}
        nodes:
          description: >-
            Every node by its name, ping nodes included: C(status) is V(active), V(up), V(init), V(dead), V(ping) or
            V(unknown), C(type) is V(normal), V(ping) or V(unknown), and C(links) tells for every link whether it is
            V(up), V(dead) or V(unknown).
          returned: always
          type: dict
          sample:
            ps2: {status: active, type: normal, links: {eth0: up, eth1: dead}}
        virtual_ip_held:
          description: Whether an interface of this host has the virtual IP; null when O(virtual_ip) is not given.
          returned: always
          type: bool
          sample: true
        virtual_ip_interface:
          description: The interface that has the virtual IP, or null.
          returned: always
          type: str
          sample: eth0
        role:
          description: >-
            The role that all this means: V(active), V(passive), or V(unchanged), which is to keep the present one until
            Heartbeat has settled. Null when O(default_active) is not given.
          returned: always
          type: str
          sample: active
        reason_code:
          description: Why, as a word that does not change with versions; null when there is no role.
          returned: always
          type: str
          sample: RSC_ALL
        reason:
          description: Why, for people; null when there is no role.
          returned: always
          type: str
          sample: Heartbeat holds all resources here
"""

import ipaddress
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.swg.ha.plugins.module_utils import heartbeat


class FactsError(Exception):
    """Says what could not be read, and what to do."""


def virtual_ip_interface(run: heartbeat.Run, ip_path: str, virtual_ip: str) -> str | None:
    """The interface of this host that has virtual_ip, or None. Raises FactsError."""
    try:
        ipaddress.ip_address(virtual_ip)
    except ValueError as error:
        raise FactsError(f"virtual_ip is {virtual_ip!r}: must be an IP address, such as 192.0.2.10") from error
    rc, out, err = run([ip_path, "-j", "addr"])
    if rc != 0:
        raise FactsError(f"{ip_path} -j addr failed with exit code {rc}: {err.strip()}")
    try:
        return heartbeat.interface_holding(virtual_ip, out)
    except ValueError as error:
        raise FactsError(f"{ip_path} -j addr: {error}") from error


def gather(run: heartbeat.Run, ip_path: str, params: dict[str, Any]) -> dict[str, Any]:
    """The fact ha_heartbeat. Raises FactsError."""
    state = heartbeat.read_state(run, params["cl_status_path"])
    facts = asdict(state)
    virtual_ip = params["virtual_ip"]
    interface = virtual_ip_interface(run, ip_path, virtual_ip) if virtual_ip else None
    facts["virtual_ip_held"] = interface is not None if virtual_ip else None
    facts["virtual_ip_interface"] = interface
    facts.update(role=None, reason_code=None, reason=None)
    if params["default_active"] is not None:
        decision = heartbeat.decide(
            state.rscstatus,
            default_active=params["default_active"],
            previous=params["previous_role"],
            peer=params["peer_role"],
        )
        facts.update(role=decision.role, reason_code=decision.code, reason=decision.reason)
    return facts


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "cl_status_path": {"type": "path", "default": "/usr/bin/cl_status"},
            "timeout": {"type": "float", "default": 6},
            "virtual_ip": {"type": "str"},
            "default_active": {"type": "bool"},
            "previous_role": {"type": "str", "choices": list(heartbeat.ROLES)},
            "peer_role": {"type": "str", "choices": list(heartbeat.ROLES)},
        },
        supports_check_mode=True,
    )
    timeout = module.params["timeout"]
    if not timeout > 0:
        module.fail_json(msg=f"timeout is {timeout:g}: must be more than 0 seconds")
    try:
        ip_path = module.get_bin_path("ip", required=True) if module.params["virtual_ip"] else ""
        facts = gather(heartbeat.runner(timeout), ip_path, module.params)
    except FactsError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, ansible_facts={"ha_heartbeat": facts})


if __name__ == "__main__":
    main()
