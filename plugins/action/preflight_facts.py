# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action part of swg.ha.preflight_facts: judges on the controller what was seen on the servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action import ActionBase

from ansible_collections.swg.ha.plugins.module_utils import preflight
from ansible_collections.swg.ha.plugins.module_utils.clock import pair_offset
from ansible_collections.swg.ha.plugins.module_utils.module_xml import ModuleXmlError, parse

ROLES = Path(__file__).parents[2] / "roles"
ARGUMENTS = {
    "observed": {"type": "dict", "required": True},
    "clock_offset_max": {"type": "float", "required": True},
    "same_packages": {"type": "list", "elements": "str", "required": True},
}


def role_specifications() -> dict[str, Any]:
    """The options of every role of the collection, by variable name."""
    options: dict[str, Any] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        options |= yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"].get("options", {})
    return options


class ActionModule(ActionBase):
    """Sets the problems that speak against a pair, and which server is to be its primary."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _dummy, arguments = self.validate_argument_spec(ARGUMENTS)
        everyone = variables["hostvars"]
        observed = arguments["observed"]
        problems = list(variables["ha_topology_problems"])
        specifications = role_specifications()
        for host in observed:
            problems += preflight.variable_problems(host, everyone[host], specifications)
        problems += preflight.reachability_problems(observed)
        facts: dict[str, Any] = {}
        if len(observed) == 2 and all(seen.get("reachable") for seen in observed.values()):
            problems += preflight.version_problems(observed, arguments["same_packages"])
            problems += preflight.address_problems(observed, str(variables.get("ha_virtual_ip", "")))
            problems += self._clock(observed, arguments["clock_offset_max"])
            problems += self._configuration(observed)
            facts["ha_primary"], found = preflight.choose_primary(
                {host: seen.get("postgres", {}) for host, seen in observed.items()},
                *variables["ha_pair_hosts"],
                variables.get("ha_data_source"),
            )
            problems += found
        facts["ha_preflight_problems"] = list(dict.fromkeys(problems))
        return {**result, "changed": False, "ansible_facts": facts}

    @staticmethod
    def _clock(observed: dict[str, Any], limit_s: float) -> list[str]:
        clocks = [seen.get("clock") for seen in observed.values()]
        if not all(clocks):
            return []
        return preflight.clock_problems(pair_offset(*clocks), limit_s)

    @staticmethod
    def _configuration(observed: dict[str, Any]) -> list[str]:
        problems = []
        for host, seen in observed.items():
            if seen.get("module_xml") is None:
                continue
            try:
                parse(seen["module_xml"].encode())
            except ModuleXmlError as error:
                problems += [f"{host}: {seen['module_xml_path']}: {text}" for text in error.problems]
        return problems
