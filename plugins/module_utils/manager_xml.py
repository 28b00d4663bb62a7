# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The Manager's files: which roles a server runs, and which systemd units a role is. Pure functions over bytes.

A role file, Commander/module.xml or commander_passive_module.xml::

    <module name="Commander"><init><roles><role name="HA" enabled="1"/></roles></init></module>

and manager.conf.xml::

    <manager><role name="HA"><unit name="ha_manager.service"/></role></manager>

The files belong to others too: what an edit does not speak of stays as it is, byte by byte, and so does what is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .xml_document import Document, Element, InvalidXml, Problem

HA = "HA"

_NEW_ROLES = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<module name="Commander" type="module">\n  <init>\n    <roles/>\n  </init>\n</module>\n'
)
_NEW_UNITS = b'<?xml version="1.0" encoding="UTF-8"?>\n<manager/>\n'
_ROLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
# Of the kinds of units, those that one starts and stops.
_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(?:service|socket|timer|path|target|mount|automount)")


def parse_roles(data: bytes) -> dict[str, bool]:
    """The roles of a role file, in its order, and whether each is enabled. Raises InvalidXml."""
    document = Document(data)
    problems: list[Problem] = []
    roles: dict[str, bool] = {}
    for element in _role_elements(_roles_of(document)):
        name = _role_name(document, element, roles, problems)
        enabled = element.attributes.get("enabled")
        if enabled not in ("0", "1"):
            said = "missing" if enabled is None else repr(enabled)
            problems.append(Problem(f"<role name={name!r}> enabled is {said}: must be 0 or 1", document.line(element, "enabled")))
        roles[name] = enabled == "1"
    if problems:
        raise InvalidXml(problems)
    return roles


def parse_units(data: bytes) -> dict[str, tuple[str, ...]]:
    """The roles of manager.conf.xml, in its order, with their units in the order in which they start. Raises InvalidXml."""
    document = Document(data)
    problems: list[Problem] = []
    roles: dict[str, tuple[str, ...]] = {}
    for element in _role_elements(_manager(document)):
        name = _role_name(document, element, roles, problems)
        for unit in element.named("unit"):
            if problem := unit_problem(unit.attributes.get("name", "")):
                problems.append(Problem(problem, document.line(unit, "name")))
        roles[name] = tuple(dict.fromkeys(unit.attributes.get("name", "") for unit in element.named("unit")))
    if problems:
        raise InvalidXml(problems)
    return roles


def role_problem(name: str) -> str | None:
    """What is wrong with the name of a role."""
    return None if _ROLE_NAME.fullmatch(name) else f"the role name {name!r}: must be letters, digits, blanks, '.', '_' and '-'"


def unit_problem(name: str) -> str | None:
    """What is wrong with the name of a unit."""
    return None if _UNIT_NAME.fullmatch(name) else f"the unit name {name!r}: must be that of a systemd unit, such as 'name.service'"


def choice_problems(roles: Mapping[str, object], **lists: Sequence[str]) -> list[str]:
    """What is wrong with the names of roles, with their units (roles), and with lists of roles, which are called by their keywords."""
    problems = [f"{option}: {problem}" for option, names in lists.items() for name in names if (problem := role_problem(name))]
    for name, units in roles.items():
        if problem := role_problem(name):
            problems.append(f"roles: {problem}")
        if isinstance(units, list) and all(isinstance(unit, str) for unit in units):
            problems += [f"roles.{name}: {problem}" for unit in units if (problem := unit_problem(unit))]
        else:
            problems.append(f"roles.{name} is {units!r}: must be a list of unit names")
    return problems


def edit_roles(data: bytes | None, wanted: Mapping[str, bool]) -> bytes:
    """The role file with these roles enabled or not; a role that it lacks is added, others stay. None: there is no file. Raises InvalidXml."""
    data = _NEW_ROLES if data is None else data
    before = parse_roles(data)
    document = Document(data)
    for path in (("init",), ("init", "roles")):
        parent = _find(document.root, path[:-1])
        if parent is not None and not parent.named(path[-1]):
            document = document.with_children(parent, path[-1], [{}])
    elements = {element.attributes["name"]: element for element in _role_elements(_roles_of(document))}
    changed = {elements[name]: {"enabled": _flag(on)} for name, on in wanted.items() if name in before and before[name] != on}
    document = document.with_attributes(changed)
    added = [{"name": name, "enabled": _flag(on)} for name, on in wanted.items() if name not in before]
    roles = _roles_of(document)
    if added and roles is not None:
        document = document.with_children(roles, "role", added)
    return document.data


def edit_units(data: bytes | None, wanted: Mapping[str, Sequence[str]]) -> bytes:
    """manager.conf.xml with these units for these roles; other roles stay. None: there is no file. Raises InvalidXml."""
    data = _NEW_UNITS if data is None else data
    before = parse_units(data)
    document = Document(data)
    for name, units in wanted.items():
        if before.get(name) == tuple(units):
            continue
        if name not in before:
            document = document.with_children(document.root, "role", [{"name": name}])
        document = document.without(_role(document, name).named("unit"))
        if units:
            document = document.with_children(_role(document, name), "unit", [{"name": unit} for unit in units])
    return document.data


def _flag(on: bool) -> str:
    return "1" if on else "0"


def _find(element: Element, path: Sequence[str]) -> Element | None:
    for name in path:
        found = element.named(name)
        if not found:
            return None
        element = found[0]
    return element


def _roles_of(document: Document) -> Element | None:
    if document.root.name != "module":
        raise InvalidXml([Problem(f"the outermost element is <{document.root.name}>: must be <module>", document.line(document.root))])
    return _find(document.root, ("init", "roles"))


def _manager(document: Document) -> Element:
    if document.root.name != "manager":
        raise InvalidXml([Problem(f"the outermost element is <{document.root.name}>: must be <manager>", document.line(document.root))])
    return document.root


def _role_elements(parent: Element | None) -> list[Element]:
    return parent.named("role") if parent is not None else []


def _role(document: Document, name: str) -> Element:
    return next(element for element in document.root.named("role") if element.attributes["name"] == name)


def _role_name(document: Document, element: Element, known: Mapping[str, object], problems: list[Problem]) -> str:
    name = element.attributes.get("name", "")
    problem = role_problem(name) or (f"the role {name!r} is there twice: must be there once" if name in known else None)
    if problem:
        problems.append(Problem(problem, document.line(element, "name")))
    return name
