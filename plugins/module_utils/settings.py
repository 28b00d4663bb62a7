# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The variables that an operator sets for a pair as a whole, in the form of an argument specification.

Everything else belongs to one role, is prefixed with its name and stands in its meta/argument_specs.yml.
"""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "ha_pair": {
        "type": "str",
        "default": "policy_servers",
        "description": "The inventory group that holds the two servers of the pair.",
    },
    "ha_virtual_ip": {
        "type": "str",
        "required": True,
        "description": "The address of the service, in the network of the first link. No machine has it as its own.",
    },
    "ha_default_active": {
        "type": "str",
        "description": "Inventory name of the server that is active at first. By default the first of the group.",
    },
    "ha_link_interfaces": {
        "type": "list",
        "elements": "str",
        "description": "Interfaces of the links, the one of the service first. By default found by the networks "
        "that both servers have an address in.",
    },
    "ha_ping_nodes": {
        "type": "list",
        "elements": "str",
        "description": "Addresses that answer a ping while the network is there. By default the default gateway.",
    },
    "ha_timing_profile": {
        "type": "str",
        "choices": ["fast", "balanced", "wan"],
        "default": "balanced",
        "description": "How quickly a silent server is called dead. See role heartbeat.",
    },
    "ha_synchronous_mode": {
        "type": "bool",
        "default": False,
        "description": "Whether a commit waits for the passive server, while that is streaming.",
    },
    "ha_data_source": {
        "type": "str",
        "description": "Inventory name of the server whose databases live on, where the other has some too. The other's are moved aside.",
    },
    "ha_apt_update_cache": {
        "type": "bool",
        "default": True,
        "description": "Whether apt may refresh its lists, at most once a day.",
    },
}
