#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: preflight_info
short_description: What speaks against a pair, and which server is to be its primary
version_added: 0.1.0
author:
  - The swg.ha authors (@swg)
description:
  - Judges on the controller what role P(swg.ha.preflight#role) has seen on the two servers of a pair, and the variables of
    all roles of this collection against their argument specifications.
  - Tells every problem at once. It is the role that fails for them.
options:
  observed:
    description:
      - What was seen, by inventory name.
    type: dict
    required: true
  clock_offset_max:
    description:
      - By how many seconds the servers' clocks may differ.
    type: float
    required: true
  same_packages:
    description:
      - Packages of which both servers must have, or be about to get, the same version.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    description: Can run in check mode and return what it would otherwise.
    support: full
  diff_mode:
    description: Shows differences.
    support: none
  platform:
    description: Judges on the controller, and asks no host.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Judge what was seen
  swg.ha.preflight_info:
    observed: "{{ observed }}"
    clock_offset_max: 1.0
    same_packages: [heartbeat]
  register: preflight
"""

RETURN = r"""
problems:
  description: What speaks against the pair, a sentence for each.
  type: list
  elements: str
  returned: always
  sample: ["ha_virtual_ip is '192.0.2': it must be one IPv4 address without a prefix length, like 192.0.2.10"]
primary:
  description: Inventory name of the server whose databases live on.
  type: str
  returned: where both servers could be looked at
  sample: ps1
"""
