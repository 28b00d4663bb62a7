"""bin/docs: writes the roles' READMEs and docs/reference.md from the documentation that the code carries."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.environment import ROOT

Options = Mapping[str, Mapping[str, Any]]

NOTE = "<!-- Made by bin/docs from {source}: change that, then run bin/docs. -->"

# Ansible's semantic markup, and what it becomes in Markdown.
MARKUP = (
    (re.compile(r"\b[BI]\(([^)]*)\)"), r"*\1*"),
    (re.compile(r"\b[CVOE]\(((?:\\.|[^)\\])*)\)"), r"`\1`"),
    (re.compile(r"\b(?:RV)\(([^)]*)\)"), r"`\1`"),
    (re.compile(r"\bM\(([^)]*)\)"), r"`\1`"),
    (re.compile(r"\bP\(([^)#]*)#[a-z]+\)"), r"`\1`"),
    (re.compile(r"\bL\(([^,)]*),\s*([^)]*)\)"), r"[\1](\2)"),
    (re.compile(r"\bU\(([^)]*)\)"), r"<\1>"),
)


def markup(text: str) -> str:
    """Ansible's documentation markup as Markdown."""
    for pattern, replacement in MARKUP:
        text = pattern.sub(replacement, text)
    return text.strip()


def paragraphs(description: str | Sequence[str] | None) -> list[str]:
    return [markup(text) for text in ([description] if isinstance(description, str) else description or [])]


def bullets(description: str | Sequence[str] | None) -> str:
    return "\n".join(f"- {text}" for text in paragraphs(description))


def code(value: Any) -> str:
    """A value as one line of YAML, in the table's code style."""
    text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    text = text.removesuffix("\n").removesuffix("\n...").replace("\n", " ")
    return f"`{text}`" if text else '`""`'


def type_of(option: Mapping[str, Any]) -> str:
    kind = str(option.get("type", "str"))
    return f"{kind} of {option['elements']}" if "elements" in option else kind


def default_of(name: str, option: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The cell that says what an option is when nobody sets it."""
    if option.get("required"):
        return "**required**"
    default = defaults.get(name, option.get("default"))
    return "" if default is None else code(default)


def meaning_of(option: Mapping[str, Any]) -> str:
    choices = option.get("choices")
    return " ".join([*paragraphs(option.get("description")), *(["One of " + ", ".join(map(code, choices)) + "."] if choices else [])])


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def table(*titles: str, rows: Iterable[str]) -> str:
    return "\n".join([row(*titles), "|---" * len(titles) + "|", *rows])


def flattened(options: Options, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each option with its whole name, followed by the options within it."""
    for name, option in options.items():
        yield f"{prefix}{name}", option
        below = option.get("options") or option.get("suboptions") or option.get("contains") or {}
        dots = "[]." if option.get("type") == "list" else "."
        yield from flattened(below, f"{prefix}{name}{dots}")


def option_table(title: str, options: Options, defaults: Mapping[str, Any]) -> str:
    """A table of options; the defaults given here outrank the options' own."""
    rows = (
        row(f"`{name}`", type_of(option), default_of(name, option, defaults), meaning_of(option)) for name, option in flattened(options)
    )
    return table(title, "type", "default", "meaning", rows=rows)


def return_table(returned: Options) -> str:
    rows = (row(f"`{name}`", type_of(value), meaning_of(value)) for name, value in flattened(returned))
    return table("returned", "type", "meaning", rows=rows)


def playbooks() -> list[Path]:
    return sorted((ROOT / "playbooks").glob("*.yml"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) or {}


def example(role: str, entry_points: Sequence[str], required: Sequence[str]) -> str:
    """A playbook that applies the role, with a line for every variable that has no default."""
    before = [] if role == "topology" else ["    - role: swg.ha.topology"]
    variables = ["  vars:", *(f"    {name}: ..." for name in required)] if required else []
    lines = ["- hosts: policy_servers", "  become: true", *variables, "  roles:", *before, f"    - role: swg.ha.{role}"]
    for entry in entry_points:
        lines += ["", f"# Another entry point: {entry}", "- hosts: policy_servers", "  become: true", *variables]
        lines += ["  roles:", *before] if before else []
        lines += ["  tasks:", "    - ansible.builtin.include_role:", f"        name: swg.ha.{role}", f"        tasks_from: {entry}"]
    return "\n".join(["```yaml", *lines, "```"])


def applied_roles(node: Any) -> Iterator[str]:
    """The names of the roles that a playbook, or a part of one, applies."""
    if isinstance(node, list):
        for item in node:
            yield from applied_roles(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "role":
                yield value
            elif key in {"ansible.builtin.include_role", "ansible.builtin.import_role"}:
                yield value["name"]
            else:
                yield from applied_roles(value)


def used_by(role: str) -> list[str]:
    """The playbooks that apply the role."""
    return [f"`swg.ha.{path.stem}`" for path in playbooks() if f"swg.ha.{role}" in applied_roles(load(path))]


def role_readme(folder: Path) -> str:
    """A role's README, from its argument_specs.yml, defaults/main.yml and meta/main.yml."""
    entries = load(folder / "meta/argument_specs.yml")["argument_specs"]
    defaults = load(folder / "defaults/main.yml")
    licence = load(folder / "meta/main.yml")["galaxy_info"]["license"]
    main, others = entries["main"], {name: entry for name, entry in entries.items() if name != "main"}
    options = main.get("options") or {}
    required = [name for name, option in options.items() if option.get("required")]
    parts = [
        NOTE.format(source="meta/argument_specs.yml and defaults/main.yml"),
        f"# swg.ha.{folder.name}",
        f"{markup(main['short_description'])}.",
        *([f"Playbooks that apply it: {', '.join(users)}."] if (users := used_by(folder.name)) else []),
        f"## What it does\n\n{bullets(main.get('description'))}",
        f"## Variables\n\n{option_table('variable', options, defaults) if options else 'None.'}",
    ]
    for name, entry in others.items():
        text = f"## Entry point `{name}`\n\n{markup(entry['short_description'])}.\n\n{bullets(entry.get('description'))}"
        own = {key: option for key, option in (entry.get("options") or {}).items() if key not in options}
        parts.append(f"{text}\n\n{option_table('variable', own, defaults)}" if own else text)
    parts += [f"## Example\n\n{example(folder.name, list(others), required)}", f"## Licence\n\n{licence}"]
    return "\n\n".join(parts) + "\n"


def documentation() -> dict[str, dict[str, Any]]:
    """What ansible-doc knows of this collection: kind of plugin, then full name, then its documentation."""
    program = str(Path(sys.executable).with_name("ansible-doc"))
    done = subprocess.run([program, "--metadata-dump", "swg.ha"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bin/docs: ansible-doc failed:\n{done.stderr}{done.stdout}")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)["all"]
    return found


def plugin_section(name: str, plugin: Mapping[str, Any]) -> str:
    doc = plugin["doc"]
    parts = [f"### {name}", f"{markup(doc['short_description'])}.", bullets(doc.get("description"))]
    if options := doc.get("options"):
        parts.append(option_table("option", dict(sorted(options.items())), {}))
    if returned := plugin.get("return"):
        parts.append(return_table(returned))
    if examples := (plugin.get("examples") or "").strip():
        parts.append(f"```yaml\n{examples}\n```")
    return "\n\n".join(parts)


def playbook_rows() -> Iterator[str]:
    """One row for each playbook: its plays' names, without the prefix that they share."""
    for path in playbooks():
        name = f"swg.ha.{path.stem}"
        plays = [re.sub(rf"^{name} \| | \| {name}$", "", play["name"]) for play in load(path) if "hosts" in play]
        yield row(f"`{name}`", "; ".join(plays))


def reference(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of docs/reference.md."""
    roles = (
        row(f"[{name}](../roles/{name.removeprefix('swg.ha.')}/README.md)", markup(role["entry_points"]["main"]["short_description"]))
        for name, role in sorted(found["role"].items())
    )
    parts = [
        NOTE.format(source="the documentation in plugins/, roles/ and playbooks/"),
        "# Reference",
        f"## Playbooks\n\n{table('playbook', 'its plays', rows=playbook_rows())}",
        f"## Roles\n\n{table('role', 'what it does', rows=roles)}",
    ]
    for kind in sorted(set(found) - {"role", "keyword"}, key=lambda kind: (kind != "module", kind)):
        if plugins := found[kind]:
            title = "Modules" if kind == "module" else f"{kind.capitalize()} plugins"
            parts += [f"## {title}", *(plugin_section(name, plugin) for name, plugin in sorted(plugins.items()))]
    return "\n\n".join(parts) + "\n"


def pages() -> dict[Path, str]:
    """Every page that is made, with its text."""
    roles = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
    return {role / "README.md": role_readme(role) for role in roles} | {ROOT / "docs/reference.md": reference(documentation())}


def write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)


def main(words: Sequence[str]) -> int:
    if words not in ([], ["--check"]):
        print("usage: bin/docs [--check]", file=sys.stderr)
        return 2
    stale = {path: text for path, text in pages().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if words:
            print(f"{path.relative_to(ROOT)} is stale: run bin/docs")
        else:
            write(path, text)
            print(path.relative_to(ROOT))
    return 1 if words and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
