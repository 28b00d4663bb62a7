#!/usr/bin/python

# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: arp_probe_info
short_description: Find out which machines answer ARP for an address
version_added: 0.1.0
description:
  - Asks by ARP who holds given IPv4 addresses on the networks that given interfaces are connected to.
  - Needs nothing on the host but Python; in particular no C(arping).
  - All addresses are asked for at the same time, so that many take no longer than one.
options:
  probes:
    description:
      - What to ask for, and where.
    type: list
    elements: dict
    required: true
    suboptions:
      address:
        description:
          - The IPv4 address that is asked for.
        type: str
        required: true
      interface:
        description:
          - The Ethernet interface to ask on. A VLAN, a bond or a bridge is one, too. A part of a bond or of a
            bridge is not, as what it receives goes there.
          - Only machines in its own broadcast domain are heard. What is heard in a VLAN does not count
            for the interface below it.
        type: str
        required: true
  source:
    description:
      - The address to ask from.
      - V(probe) asks from 0.0.0.0, as RFC 5227 wants it. No neighbour changes its cache because of it.
      - V(interface) asks from the interface's own address, for machines that do not answer a V(probe).
        Neighbours may learn that address from it.
    type: str
    choices: [probe, interface]
    default: probe
  timeout:
    description:
      - How long it takes at most, in seconds, for all O(probes) together. At most 60.
    type: float
    default: 1.0
  count:
    description:
      - How many times to ask, evenly within the O(timeout), while nobody has answered. At most 100.
    type: int
    default: 3
  wait_for_all:
    description:
      - If V(false), return as soon as every address has been answered.
      - If V(true), always ask O(count) times and listen until the O(timeout), so that every machine that
        holds an address is heard.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and return the same as without.
    support: full
  diff_mode:
    description: Returns what has changed, in diff mode.
    support: none
    details: Nothing is changed.
  platform:
    description: The operating systems that it runs on.
    platforms: linux
    support: full
notes:
  - Needs C(root), or the capability C(CAP_NET_RAW).
  - A Linux host does not hear its own questions, so that it does not answer for an address on the interface
    that it asks on. It does hear them where another of its interfaces is in the same broadcast domain, and
    answers there. Such answers are told apart in RV(probes[].own_macs).
  - Besides answers, announcements and questions of a machine that holds the address count, as in RFC 5227.
author:
  - The swg.ha authors (@swg)
"""

EXAMPLES = r"""
- name: See who holds the virtual address, both servers included if they do
  swg.ha.arp_probe_info:
    probes:
      - address: 192.0.2.10
        interface: eth0
    wait_for_all: true
  register: virtual_address

- name: Refuse an address that another machine has
  ansible.builtin.assert:
    that: not item.answered and item.error is none
    fail_msg: >-
      {{ item.address }} on {{ item.interface }}: {{ item.error or 'answered by ' ~ item.macs | join(', ') }}
  loop: "{{ virtual_address.probes }}"

- name: Look for the peer on both links
  swg.ha.arp_probe_info:
    probes:
      - {address: 192.0.2.2, interface: eth0}
      - {address: 198.51.100.2, interface: eth1}
    timeout: 2
"""

RETURN = r"""
probes:
  description: What was heard, in the order of the option O(probes).
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: The address that was asked for.
      type: str
      sample: 192.0.2.10
    interface:
      description: The interface that was asked on.
      type: str
      sample: eth0
    answered:
      description:
        - Whether another machine holds the address.
        - That it is V(false) means that nobody does only while RV(probes[].error) is V(null).
      type: bool
    macs:
      description: The hardware addresses of the other machines that hold the address, sorted, in lower case.
      type: list
      elements: str
      sample: ["00:00:5e:00:53:23"]
    own_macs:
      description: The hardware addresses of this host's other interfaces that answered for the address.
      type: list
      elements: str
      sample: []
    error:
      description:
        - Why this interface could not be asked, or not until the end. It is missing, down or without
          carrier, or part of a bridge, for example.
        - V(null) if it could.
      type: str
      sample: interface eth0 has no carrier
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.swg.ha.plugins.module_utils.arp import Answer, ArpError, Probe, ask, parse_address

ARGUMENT_SPEC: dict[str, Any] = {
    "probes": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "address": {"type": "str", "required": True},
            "interface": {"type": "str", "required": True},
        },
    },
    "source": {"type": "str", "choices": ["probe", "interface"], "default": "probe"},
    "timeout": {"type": "float", "default": 1.0},
    "count": {"type": "int", "default": 3},
    "wait_for_all": {"type": "bool", "default": False},
}
LONGEST = 60.0
MOST = 100


def parse(params: dict[str, Any]) -> list[Probe]:
    """The probes that the options ask for. Raises `ArpError` with everything that is wrong with them."""
    probes, wrong = [], []
    if not 0 < params["timeout"] <= LONGEST:
        wrong.append(f"timeout: {params['timeout']} is not more than 0 and at most {LONGEST:g} seconds")
    if not 1 <= params["count"] <= MOST:
        wrong.append(f"count: {params['count']} is not between 1 and {MOST}")
    for number, probe in enumerate(params["probes"]):
        try:
            probes.append(Probe(parse_address(probe["address"]), probe["interface"]))
        except ArpError as error:
            wrong.append(f"probes[{number}].address: {error}")
    if wrong:
        raise ArpError("; ".join(wrong))
    return probes


def shown(answer: Answer) -> dict[str, Any]:
    """One answer in the shape that RETURN describes."""
    return {
        "address": str(answer.probe.address),
        "interface": answer.probe.interface,
        "answered": bool(answer.macs),
        "macs": answer.macs,
        "own_macs": answer.own_macs,
        "error": answer.error,
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    try:
        answers = ask(
            parse(params),
            timeout=params["timeout"],
            count=params["count"],
            from_interface=params["source"] == "interface",
            wait_for_all=params["wait_for_all"],
        )
    except ArpError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, probes=[shown(answer) for answer in answers])


if __name__ == "__main__":
    main()
