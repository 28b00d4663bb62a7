# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action part of swg.ha.preflight_info: judges on the controller what was seen on the servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action import ActionBase

from ansible_collections.swg.ha.plugins.module_utils import preflight
from ansible_collections.swg.ha.plugins.module_utils.clock import pair_offset
from ansible_collections.swg.ha.plugins.module_utils.heartbeat import timing_problems
from ansible_collections.swg.ha.plugins.module_utils.manager_xml import HA, choice_problems
from ansible_collections.swg.ha.plugins.module_utils.module_xml import SKELETON, edit, parse
from ansible_collections.swg.ha.plugins.module_utils.xml_document import InvalidXml

ROLES = Path(__file__).parents[2] / "roles"
PROFILES = yaml.safe_load((ROLES / "heartbeat/vars/main.yml").read_text(encoding="utf-8"))["__heartbeat_profiles"]
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
    """Tells the problems that speak against a pair, and which server is to be its primary."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _dummy, arguments = self.validate_argument_spec(ARGUMENTS)
        everyone = variables["hostvars"]
        observed = arguments["observed"]
        problems = list(variables["topology_problems"])
        specifications = role_specifications()
        for host in observed:
            problems += preflight.variable_problems(host, everyone[host], specifications)
            problems += preflight.port_clashes(host, everyone[host], specifications)
            problems += self._timing(host, everyone[host])
            problems += self._roles(host, everyone[host])
        problems += preflight.application_problems({host: everyone[host] for host in observed})
        problems += preflight.reachability_problems(observed)
        primary = None
        if len(observed) == 2 and all(seen.get("reachable") for seen in observed.values()):
            problems += preflight.version_problems(observed, arguments["same_packages"])
            problems += preflight.address_problems(observed, str(variables.get("ha_virtual_ip", "")))
            problems += preflight.name_problems(observed)
            problems += self._clock(observed, arguments["clock_offset_max"])
            problems += self._configuration(observed, everyone)
            active, passive = variables["topology_hosts"]
            primary, found = preflight.choose_primary(
                {host: seen.get("postgres", {}) for host, seen in observed.items()}, active, passive, variables.get("ha_data_source")
            )
            problems += found
        return {**result, "changed": False, "primary": primary, "problems": list(dict.fromkeys(problems))}

    @staticmethod
    def _clock(observed: dict[str, Any], limit_s: float) -> list[str]:
        clocks = [seen.get("clock") for seen in observed.values()]
        if not all(clocks):
            return []
        return preflight.clock_problems(pair_offset(*clocks), limit_s)

    @staticmethod
    def _configuration(observed: dict[str, Any], everyone: dict[str, Any]) -> Iterator[str]:
        for host, seen in observed.items():
            files = everyone[host].get("ha_config_files_to_replicate")
            # Another form is told by the argument specifications.
            if isinstance(files, list) and all(isinstance(file, dict) for file in files):
                try:
                    edit(SKELETON, {"files_to_replicate": files})
                except InvalidXml as error:
                    yield from (f"{host}: ha_config_{text}" for text in error.problems)
            if seen.get("module_xml") is not None:
                try:
                    # As Ansible decoded it: a file in another encoding than UTF-8 comes back byte by byte.
                    parse(seen["module_xml"].encode(errors="surrogateescape"))
                except InvalidXml as error:
                    yield from (f"{host}: {seen['module_xml_path']}: {text}" for text in error.problems)

    @staticmethod
    def _roles(host: str, variables: dict[str, Any]) -> Iterator[str]:
        """The roles of the Manager, as far as the inventory has any."""
        roles = variables.get("manager_roles") or {}
        lists = {name: variables.get(f"manager_roles_{name}") or [] for name in ("active", "passive")}
        # Another form is told by the argument specifications.
        if not isinstance(roles, dict) or not all(isinstance(names, list) for names in lists.values()):
            return
        for problem in choice_problems(roles, **{f"roles_{name}": [str(role) for role in names] for name, names in lists.items()}):
            yield f"{host}: manager_{problem}"
        if roles and HA not in roles:
            yield f"{host}: manager_roles has no role {HA}: it must have one, with the units that decide over the pair"

    @staticmethod
    def _timing(host: str, variables: dict[str, Any]) -> Iterator[str]:
        """The times of ha.cf: the profile's, with what the inventory says otherwise."""
        name = variables.get("heartbeat_timing_profile") or variables.get("ha_timing_profile") or "balanced"
        own = variables.get("heartbeat_timing") or {}
        # A profile or a form that does not exist is told by the argument specifications; its own times are judged all the same.
        if isinstance(name, str) and isinstance(own, dict):
            profile = PROFILES.get(name, {})
            for problem in timing_problems(**{key: own.get(key, profile.get(key)) for key in PROFILES["balanced"]}):
                yield f"{host}: heartbeat_timing (profile {name}): {problem}"
