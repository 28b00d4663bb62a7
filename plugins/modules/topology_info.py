#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: topology_info
short_description: Who is whose peer, over which links
version_added: 0.1.0
author:
  - The swg.ha authors (@swg)
description:
  - Computes who is whose peer, over which links, and by which node names, from the inventory and from the facts that
    M(ansible.builtin.setup) gathered of both servers of a pair.
  - Role P(swg.ha.topology#role) makes facts of them, from which every other role takes its view of the pair.
  - What does not fit is told in RV(problems), not by failing, so that a preflight can show all problems at once.
options:
  pair:
    description:
      - The inventory group that holds the two servers.
    type: str
    default: policy_servers
attributes:
  check_mode:
    description: Can run in check mode and return what it would otherwise.
    support: full
  diff_mode:
    description: Shows differences.
    support: none
  platform:
    description: Computes on the controller, and asks no host.
    support: full
    platforms: posix
notes:
  - Reads the variables O(pair), C(ha_virtual_ip), C(ha_default_active), C(ha_link_interfaces) and C(ha_ping_nodes) of both servers.
"""

EXAMPLES = r"""
- name: Gather the networks of both servers
  ansible.builtin.setup:
    gather_subset: [network]

- name: Compute the facts of the pair
  swg.ha.topology_info:
    pair: "{{ ha_pair | default('policy_servers') }}"
"""

RETURN = r"""
problems:
  description: What does not fit, a sentence for each. Empty where all is well.
  type: list
  elements: str
  returned: always
  sample: []
pair:
  description: The pair, seen from this server. Empty where the group does not hold two servers.
  type: dict
  returned: always
  contains:
    hosts:
      description: Inventory names of the default active and of the default passive.
      type: list
      elements: str
      returned: success
      sample: [ps1, ps2]
    peer:
      description: Inventory name of the other server.
      type: str
      returned: success
      sample: ps2
    node:
      description: Host name (C(uname -n)) of this server.
      type: str
      returned: success
      sample: ps1
    peer_node:
      description: Host name (C(uname -n)) of the other server.
      type: str
      returned: success
      sample: ps2
    nodes:
      description: Host names of the default active and of the default passive.
      type: list
      elements: str
      returned: success
      sample: [ps1, ps2]
    is_default_active:
      description: Is this the server that is active at first?
      type: bool
      returned: success
      sample: true
    links:
      description: The links to the peer, the one that carries the service first.
      type: list
      elements: dict
      returned: success
      sample:
        - interface: eth0
          address: 192.0.2.11
          prefix: 24
          network: 192.0.2.0/24
          mac: 00:00:5e:00:53:11
          peer_interface: eth0
          peer_address: 192.0.2.12
          peer_mac: 00:00:5e:00:53:12
    ping_nodes:
      description: The addresses that tell whether a server still sees the network.
      type: list
      elements: str
      returned: success
      sample: [192.0.2.1]
"""
