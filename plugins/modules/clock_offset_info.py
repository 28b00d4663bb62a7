#!/usr/bin/python

# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: clock_offset_info
short_description: Measure how far the host's clock is from the controller's
version_added: 0.1.0
description:
  - Asks the host for its time over the connection that Ansible has, several times, and keeps the answer that
    came back fastest.
  - The host's time was read at some moment between the question and the answer. So the offset is certain to
    half the round trip, RV(uncertainty_s).
  - Two hosts that were measured in the same run can be compared with each other by RV(steady_offset_s). Their
    uncertainties add up. A difference is beyond doubt over a limit only if it is so without them.
  - No clock is ever set.
options:
  count:
    description:
      - How many times to ask, at most 100.
      - With V(1) the time that it takes to connect may count as round trip.
    type: int
    default: 5
attributes:
  action:
    description: Has an action plugin, which measures on the controller.
    support: full
  async:
    description: Supports being used with the C(async) keyword.
    support: none
  become:
    description: Is usable alongside become keywords.
    support: full
    details: They have no effect, as anybody may read a clock.
  bypass_host_loop:
    description: Forces a global task that does not execute per host.
    support: none
  check_mode:
    description: Can run in check mode and return the same as without.
    support: full
  connection:
    description: Uses the connection that is configured for the host.
    support: full
  delegation:
    description: Can be used in conjunction with C(delegate_to) and related keywords.
    support: full
  diff_mode:
    description: Returns what has changed, in diff mode.
    support: none
    details: Nothing is changed.
  platform:
    description: The operating systems that it measures.
    platforms: linux
    support: full
    details: Any with a C(date) that prints nanoseconds, as that of GNU does. Python is not needed there.
notes:
  - Rounds during which the controller's own clock was set are left out. If that is all of them, it fails.
author:
  - The swg.ha authors (@swg)
"""

EXAMPLES = r"""
- name: Measure the clock of each server
  swg.ha.clock_offset_info:
  register: clock

- name: Refuse a clock that is beyond doubt more than a second away from the controller's
  ansible.builtin.assert:
    that: (clock.offset_s | abs) - clock.uncertainty_s <= 1
    fail_msg: >-
      The clock of {{ inventory_hostname }} is {{ clock.offset_s }} s away from the controller's
      (give or take {{ clock.uncertainty_s }} s), which is more than 1 s.
"""

RETURN = r"""
offset_s:
  description: The host's clock less the controller's, in seconds. Positive if the host is ahead.
  returned: success
  type: float
  sample: -0.001723
uncertainty_s:
  description: By how much RV(offset_s) and RV(steady_offset_s) can be wrong at most, in seconds. Half the round trip.
  returned: success
  type: float
  sample: 0.004106
steady_offset_s:
  description:
    - The host's clock less a clock of the controller that nobody can set, in seconds.
    - It says nothing by itself. That of one host less that of another, from the same run, is how far their clocks
      are apart, even when the controller's clock was set between the two measurements.
  returned: success
  type: float
  sample: 1790000000.123456
host_time:
  description: The time that the host told in the round that was kept, in UTC (ISO 8601).
  returned: success
  type: str
  sample: "2026-01-31T12:00:00.123456Z"
rounds:
  description: Every round, in the order in which they were done.
  returned: success
  type: list
  elements: dict
  contains:
    offset_s:
      description: The offset by this round alone, in seconds.
      type: float
      sample: -0.001723
    round_trip_s:
      description: The time from the question to the answer, in seconds.
      type: float
      sample: 0.008212
    controller_step_s:
      description: By how much the controller's clock was set during the round, in seconds. If not V(0.0), the round is left out.
      type: float
      sample: 0.0
"""
