# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action part of swg.ha.topology_info: computes on the controller, asks no host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.swg.ha.plugins.module_utils.topology import pair_topology

SETTINGS = ("ha_default_active", "ha_link_interfaces", "ha_ping_nodes", "ha_virtual_ip")


class ActionModule(ActionBase):
    """Tells the facts of the pair that the host belongs to."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _dummy, arguments = self.validate_argument_spec({"pair": {"type": "str", "default": "policy_servers"}})
        pair = arguments["pair"]
        hosts = list(variables["groups"].get(pair, []))
        this = variables["inventory_hostname"]
        everyone = variables["hostvars"]
        topology = pair_topology(
            pair,
            hosts,
            {host: everyone[host].get("ansible_facts", {}) for host in hosts},
            {host: {name: everyone[host].get(name) for name in SETTINGS} for host in hosts},
        )
        problems = list(topology["problems"])
        if hosts and this not in hosts:
            problems.append(
                f"ha_pair of {this} is {pair!r}, but {this} is not in that inventory group: name the group that holds "
                "this server and its peer"
            )
        return {**result, "changed": False, "problems": problems, "pair": topology["hosts"].get(this, {})}
