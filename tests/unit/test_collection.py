# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What must agree between the collection's files, and what none of them may say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tools.ansible_test import below, project_files
from tools.environment import ROOT

FILES = project_files()
ROLES = sorted({Path(name).parts[1] for name in below(FILES, ["roles"])})
PLAYBOOKS = [name for name in below(FILES, ["playbooks"]) if name.endswith(".yml")]
SCENARIOS = [name for name in below(FILES, ["molecule"]) if name.endswith("/molecule.yml")]
APPLIED = [name for name in below(FILES, ["roles", "playbooks", "molecule"]) if name.endswith((".yml", ".j2"))]
PLUGINS = [name for name in below(FILES, ["plugins"]) if name.endswith(".py")]

ROLE_FILES = ("README.md", "defaults/main.yml", "meta/argument_specs.yml", "meta/main.yml", "tasks/main.yml")

# Variables that are Ansible's own, and no facts of a host.
MAGIC = {
    "ansible_become",
    "ansible_check_mode",
    "ansible_collections",
    "ansible_connection",
    "ansible_control_path_dir",
    "ansible_diff_mode",
    "ansible_facts",
    "ansible_failed_result",
    "ansible_failed_task",
    "ansible_host",
    "ansible_index_var",
    "ansible_limit",
    "ansible_loop",
    "ansible_loop_var",
    "ansible_managed",
    "ansible_pipelining",
    "ansible_play_batch",
    "ansible_play_hosts",
    "ansible_play_hosts_all",
    "ansible_play_name",
    "ansible_python_interpreter",
    "ansible_role_name",
    "ansible_run_tags",
    "ansible_skip_tags",
    "ansible_user",
    "ansible_version",
}

# The same for how a host is reached.
CONNECTION = ("ansible_become_", "ansible_remote_tmp", "ansible_shell_", "ansible_ssh_")


def facts_as_variables(pattern: str, name: str) -> list[str]:
    """What a file takes for variables of Ansible's, and is neither magic nor about the connection."""
    found = set(re.findall(pattern, (ROOT / name).read_text())) - MAGIC
    return sorted(variable for variable in found if not variable.startswith(CONNECTION))


# Put together here, so that this file does not hold what it looks for.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("registry", "npmjs", "org"),
        ("proxy", "golang", "org"),
        ("galaxy", "ansible", "com"),
    )
]


def load(name: str | Path) -> Any:
    return yaml.safe_load((ROOT / name).read_text()) or {}


def entry_points(role: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The options of each entry point of a role."""
    specs = load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]
    return {name: spec.get("options") or {} for name, spec in specs.items()}


def every_option(options: Mapping[str, Mapping[str, Any]], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, option in options.items():
        yield f"{prefix}{name}", option
        yield from every_option(option.get("options") or {}, f"{prefix}{name}.")


def is_template(value: object) -> bool:
    return "{{" in json.dumps(value)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_its_files(role: str) -> None:
    assert [name for name in ROLE_FILES if f"roles/{role}/{name}" not in FILES] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_in_both_argument_specs_and_defaults(role: str) -> None:
    """A variable without a default stands in defaults/main.yml as a comment, so that the file shows them all."""
    text = (ROOT / f"roles/{role}/defaults/main.yml").read_text()
    commented = set(re.findall(r"^# ?([a-z_0-9]+):", text, re.MULTILINE))
    defaults = load(f"roles/{role}/defaults/main.yml")
    options = {name: option for entry in entry_points(role).values() for name, option in entry.items()}
    assert sorted({*defaults, *commented}) == sorted(options)
    assert [name for name in commented if "default" in options[name]] == []
    assert [name for name in defaults if options[name].get("required")] == []


@pytest.mark.parametrize("role", ROLES)
def test_argument_specs_tell_the_defaults(role: str) -> None:
    """A template may be left out, as a type other than text does not allow for one: then the description says what it is."""
    defaults = load(f"roles/{role}/defaults/main.yml")
    for entry in entry_points(role).values():
        told = {name: option["default"] for name, option in entry.items() if "default" in option}
        untold = {name for name in entry if name in defaults} - set(told)
        assert told == {name: defaults.get(name) for name in told}
        assert {name for name in untold if not is_template(defaults[name])} == set()


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_described(role: str) -> None:
    named = {name: option for entry in entry_points(role).values() for name, option in every_option(entry)}
    assert [name for name, option in named.items() if not option.get("description")] == []
    assert [name for name, option in named.items() if "type" not in option] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_has_its_tasks(role: str) -> None:
    assert [name for name in entry_points(role) if f"roles/{role}/tasks/{name}.yml" not in FILES] == []


def test_every_module_is_in_the_action_group() -> None:
    modules = [Path(name).stem for name in PLUGINS if name.startswith("plugins/modules/")]
    assert load("meta/runtime.yml")["action_groups"]["ha"] == sorted(modules)


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_play_names_name_the_playbook(playbook: str) -> None:
    """So that the output of several playbooks in one run can be told apart."""
    names = [str(play.get("name")) for play in load(playbook) if "hosts" in play]
    assert [name for name in names if f"swg.ha.{Path(playbook).stem}" not in name] == []


# Steps of a scenario that have a playbook, and which; Molecule only warns when it is missing.
STEP_PLAYBOOKS = {"check": "converge", "idempotence": "converge", "syntax": "converge"}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_step_of_a_scenario_has_its_playbook(scenario: str) -> None:
    shared, own = load(".config/molecule/config.yml"), load(scenario)
    sequence = (own.get("scenario") or shared["scenario"]).get("test_sequence", shared["scenario"]["test_sequence"])
    named = (own.get("ansible") or {}).get("playbooks") or {}
    missing = []
    for step in sequence:
        action, *arguments = step.split()
        playbook = STEP_PLAYBOOKS.get(action, action)
        # A step with a file of its own still runs only where the scenario has the playbook that the step is named after.
        for file in (named.get(playbook, f"{playbook}.yml"), *arguments):
            if not (ROOT / scenario).parent.joinpath(file).is_file():
                missing.append(f"{step}: {file}")
    assert missing == []


@pytest.mark.parametrize("name", APPLIED)
def test_facts_are_read_from_ansible_facts(name: str) -> None:
    """Facts as variables of their own are on their way out of Ansible."""
    assert facts_as_variables(r"(?<![\w.-])ansible_[a-z_0-9]+", name) == []


@pytest.mark.parametrize("name", PLUGINS)
def test_plugins_read_facts_from_ansible_facts(name: str) -> None:
    assert facts_as_variables(r"[\"'](ansible_[a-z_0-9]+)[\"']", name) == []


@pytest.mark.parametrize("registry", REGISTRIES)
def test_no_file_names_a_package_registry(registry: str) -> None:
    """Where packages come from is the machine's own business: its pip, its apt."""
    wanted = registry.encode()
    assert [name for name in FILES if (ROOT / name).is_file() and wanted in (ROOT / name).read_bytes()] == []


def test_the_bundle_brings_what_galaxy_yml_asks_for() -> None:
    import ansible_collections

    wanted = load("galaxy.yml")["dependencies"]
    found = {}
    for name in wanted:
        manifests = [Path(root, *name.split("."), "MANIFEST.json") for root in ansible_collections.__path__]
        [manifest] = [path for path in manifests if path.exists()]
        found[name] = json.loads(manifest.read_text())["collection_info"]["version"]
    assert {name: version for name, version in found.items() if version not in SpecifierSet(wanted[name])} == {}
