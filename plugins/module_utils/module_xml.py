# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The shape of HA/module.xml: the one place that knows its elements, types, defaults and rules.

Needs the standard library alone: a module writes the file with it, and what runs on the
servers reads the file with it. Three functions matter: ``parse``, ``edit`` and ``render``.

An edit splices bytes: what it does not change stays as it was, byte by byte.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any

from .xml_document import Document, Element, InvalidXml, Problem

EXACT = "exact"
MERGE = "merge"


@dataclass(frozen=True)
class Server:
    """A policy server. name: as ``uname -n`` prints it."""

    ip: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class DeviceUname:
    """The handler that tells a device's name. timeout: seconds."""

    port: int = 5222
    timeout: int = 20


@dataclass(frozen=True)
class HaManager:
    """ha_manager's own settings; timeout and intervals in seconds."""

    port: int = 4589
    connection_timeout: int = 300
    heartbeat_cmd_interval: int = 10
    passive_status_interval: int = 10


@dataclass(frozen=True)
class ReplicatedFile:
    """A file or directory that is copied to the passive server.

    name: absolute path. inotify: copied when it changes; otherwise every interval seconds
    (None with inotify). permissions: ``owner:group`` of the copy.
    """

    name: str
    inotify: bool
    interval: int | None
    permissions: str


@dataclass(frozen=True)
class Settings:
    """Everything that HA/module.xml says. virtual_ip: None where there is none."""

    enabled: bool = False
    virtual_ip: str | None = None
    default_active: Server = Server()
    default_passive: Server = Server()
    device_uname: DeviceUname = DeviceUname()
    ha_manager: HaManager = HaManager()
    files_to_replicate: tuple[ReplicatedFile, ...] = ()


@dataclass(frozen=True)
class Kind:
    """How a value is written in an attribute. read raises ValueError for what is not expected."""

    read: Callable[[str], Any]
    expected: str
    write: Callable[[Any], str] = str


def _read_flag(text: str) -> bool:
    return {"0": False, "1": True}[_matching("[01]", text)]


def _read_number(smallest: int, largest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(_matching("[0-9]{1,9}", text))
        if not smallest <= number <= largest:
            raise ValueError
        return number

    return read


def _read_address(text: str) -> str:
    return str(ipaddress.ip_address(text))


def _read_path(text: str) -> str:
    if not text.startswith("/") or ".." in text.split("/") or re.search("[\0-\x1f\x7f\ud800-\udfff\ufffe\uffff]", text):
        raise ValueError
    path = posixpath.normpath(text.lstrip("/"))
    if path == ".":
        raise ValueError
    return f"/{path}"


def _matching(pattern: str, text: str) -> str:
    if re.fullmatch(pattern, text) is None:
        raise ValueError
    return text


_ACCOUNT = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}\$?"
FLAG = Kind(_read_flag, "1 or 0", lambda value: str(int(value)) if isinstance(value, bool) else str(value))
PORT = Kind(_read_number(1, 65535), "a port number from 1 to 65535")
SECONDS = Kind(_read_number(1, 86400), "a whole number of seconds from 1 to 86400")
ADDRESS = Kind(_read_address, "an IP address, such as 192.0.2.11")
OPTIONAL_ADDRESS = Kind(
    lambda text: _read_address(text) if text else None,
    "an IP address, such as 192.0.2.10, or empty for none",
    lambda value: value or "",
)
NODE_NAME = Kind(
    lambda text: _matching(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?", text),
    "a host name of at most 64 letters, digits, dots, hyphens and underscores, as 'uname -n' prints it",
)
PATH = Kind(_read_path, "an absolute path below / without '..' and without control characters, such as /etc/shadow")
OWNER = Kind(lambda text: _matching(f"{_ACCOUNT}:{_ACCOUNT}", text), "owner:group, such as root:shadow")


@dataclass(frozen=True)
class Attribute:
    """An attribute, and the path of its field in Settings or in ReplicatedFile."""

    name: str
    path: str
    kind: Kind


@dataclass(frozen=True)
class Part:
    """An element below ``<module><init>``. former: a name that is read as well and never written."""

    element: str
    attributes: tuple[Attribute, ...]
    former: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.element,) if self.former is None else (self.element, self.former)


SHAPE = (
    Part("ha", (Attribute("enabled", "enabled", FLAG),)),
    Part(
        "default_active",
        (Attribute("ip", "default_active.ip", ADDRESS), Attribute("name", "default_active.name", NODE_NAME)),
    ),
    Part(
        "default_passive",
        (Attribute("ip", "default_passive.ip", ADDRESS), Attribute("name", "default_passive.name", NODE_NAME)),
    ),
    Part("virtual_ip", (Attribute("ip", "virtual_ip", OPTIONAL_ADDRESS),)),
    Part(
        "device_uname",
        (Attribute("port", "device_uname.port", PORT), Attribute("timeout", "device_uname.timeout", SECONDS)),
        former="device_undef",
    ),
    Part(
        "ha_manager_configuration",
        (
            Attribute("connection_timeout", "ha_manager.connection_timeout", SECONDS),
            Attribute("ha_manager_port", "ha_manager.port", PORT),
            Attribute("heartbeat_cmd_interval", "ha_manager.heartbeat_cmd_interval", SECONDS),
            Attribute("passive_status_interval", "ha_manager.passive_status_interval", SECONDS),
        ),
    ),
)
FILES = "files_to_replicate"
FILE = Part(
    "file",
    (
        Attribute("inotify", "inotify", FLAG),
        Attribute("interval", "interval", SECONDS),
        Attribute("name", "name", PATH),
        Attribute("permissions", "permissions", OWNER),
    ),
)
SECTIONS: dict[str, type] = {
    "default_active": Server,
    "default_passive": Server,
    "device_uname": DeviceUname,
    "ha_manager": HaManager,
}
# Values that must not be the same: each is told at the first of the two.
MUST_DIFFER = (
    ("default_passive.ip", "default_active.ip"),
    ("default_passive.name", "default_active.name"),
    ("virtual_ip", "default_active.ip"),
    ("virtual_ip", "default_passive.ip"),
    ("ha_manager.port", "device_uname.port"),
)
_LABELS = {attribute.path: f"<{part.element}> {attribute.name}" for part in SHAPE for attribute in part.attributes}
SKELETON = b"""\
<?xml version="1.0" encoding="UTF-8"?>
<module id="174" name="HA" hide_local="0" type="module" local="1" active="1" display_name="HA" show_module_config="1">
  <init/>
</module>
"""


def parse(data: bytes) -> Settings:
    """What the file says, with the defaults for what it does not say.

    Raises InvalidXml with every problem: each names the element, the value and what would be right.
    """
    return _read(Document(data))


def edit(data: bytes, changes: Mapping[str, Any], files_mode: str = EXACT) -> bytes:
    """The file with the changes made and all else as it was.

    changes: fields of Settings, as ``as_changes`` gives them; what is left out or None stays.
    files_to_replicate is a list of mappings with a name and what is to change of it; a file
    not in the list is removed with files_mode exact, and stays with merge.
    Raises InvalidXml for changes that are wrong and for a result that would be wrong.
    """
    document = Document(data)
    _require_module(document)
    wanted, wanted_files = _check_changes(changes)
    for part in SHAPE:
        document = _edit_part(document, part, wanted)
    if wanted_files is not None:
        document = _edit_files(document, wanted_files, remove_others=files_mode == EXACT)
    _read(document)
    return document.data


def render(settings: Settings) -> bytes:
    """A new file that says what settings say. Raises InvalidXml."""
    return edit(SKELETON, as_changes(settings))


def as_changes(settings: Settings) -> dict[str, Any]:
    """settings as plain values: nested dicts and lists. An address that there is none of is an empty string."""
    changes = asdict(settings)
    changes["virtual_ip"] = settings.virtual_ip or ""
    changes["files_to_replicate"] = list(changes["files_to_replicate"])
    return changes


def decode(data: bytes) -> str:
    """The file as text, in its own encoding. Raises InvalidXml."""
    return Document(data).text


# Reading


def _require_module(document: Document) -> None:
    root = document.root
    if root.name != "module" or root.attributes.get("name") != "HA":
        name = root.attributes.get("name")
        found = f"<{root.name}>" if name is None else f'<{root.name} name="{name}">'
        raise InvalidXml([Problem(f'the root element is {found}: must be <module name="HA">', document.line(root))])


def _read(document: Document) -> Settings:
    _require_module(document)
    reading = _Reading(document)
    values: dict[str, Any] = {}
    init = reading.only(document.root, "init")
    for part in SHAPE:
        element = reading.only(init, *part.names)
        if element is not None:
            values.update(reading.values(element, part))
    files = tuple(reading.files(reading.only(init, FILES)))
    reading.compare(values)
    if reading.problems:
        raise InvalidXml(sorted(reading.problems, key=lambda problem: problem.line or 0))
    return _settings(values, files)


def _settings(values: Mapping[str, Any], files: tuple[ReplicatedFile, ...]) -> Settings:
    fields: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        section, _dot, name = path.rpartition(".")
        (sections.setdefault(section, {}) if section else fields)[name] = value
    for section, section_fields in sections.items():
        fields[section] = SECTIONS[section](**section_fields)
    return Settings(**fields, files_to_replicate=files)


class _Reading:
    """One reading of a document, which goes on after a problem to find all of them."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.places: dict[str, tuple[Element, str]] = {}

    def report(self, text: str, element: Element, attribute: str | None = None) -> None:
        self.problems.append(Problem(text, self.document.line(element, attribute)))

    def only(self, parent: Element | None, *names: str) -> Element | None:
        """The one child with one of the names, if any; a second one is a problem."""
        found = parent.named(*names) if parent is not None else []
        for other in found[1:]:
            first = self.document.line(found[0])
            self.report(f"<{other.name}> is one too many: must be there once, as on line {first}", other)
        return found[0] if found else None

    def values(self, element: Element, part: Part) -> dict[str, Any]:
        """The values of the element's attributes by their paths, without those that are missing or wrong."""
        values = {}
        for attribute in part.attributes:
            text = element.attributes.get(attribute.name)
            if text is None:
                continue
            self.places[attribute.path] = (element, attribute.name)
            try:
                values[attribute.path] = attribute.kind.read(text)
            except ValueError:
                wrong = f"{_in_the_file(element, attribute)} is {text!r}: must be {attribute.kind.expected}"
                self.report(wrong, element, attribute.name)
        return values

    def files(self, parent: Element | None) -> Iterator[ReplicatedFile]:
        elements = parent.named(FILE.element) if parent is not None else []
        readings = []
        for element in elements:
            values = self.values(element, FILE)
            readings.append(values)
            for attribute in FILE.attributes:
                if attribute.name in element.attributes:
                    continue
                missing = f"{_in_the_file(element, attribute)} is missing: must be {attribute.kind.expected}"
                if attribute.path != "interval":
                    self.report(missing, element)
                elif values.get("inotify") is False:
                    self.report(f"{missing}, because inotify is 0", element)
        for index, text in _overlaps([values.get("name") for values in readings]):
            self.report(f"<file> name {text}", elements[index], "name")
        for values in readings:
            if {"name", "inotify", "permissions"} <= values.keys():
                interval = None if values["inotify"] else values.get("interval")
                yield ReplicatedFile(values["name"], values["inotify"], interval, values["permissions"])

    def compare(self, values: Mapping[str, Any]) -> None:
        """The rules between values."""
        for path in ("default_active.ip", "default_passive.ip"):
            if values.get("enabled") and path not in self.places:
                missing = f"{_LABELS[path]} is missing: must be {ADDRESS.expected}, because ha is enabled"
                self.report(missing, *self.places["enabled"])
        for path, other in MUST_DIFFER:
            value = self.value(path, values)
            if value is not None and value == self.value(other, values):
                # One of the two may be a default, but not both.
                place = self.places.get(path) or self.places[other]
                self.report(f"{_LABELS[path]} is {str(value)!r}: must differ from {_LABELS[other]}", *place)

    def value(self, path: str, values: Mapping[str, Any]) -> Any:
        """The value, the default for one that is missing, or None for one that is wrong."""
        return values.get(path) if path in self.places else attrgetter(path)(Settings())


def _in_the_file(element: Element, attribute: Attribute) -> str:
    name = element.attributes.get("name")
    of = f" of {name!r}" if element.name == FILE.element and attribute.path != "name" and name else ""
    return f"<{element.name}> {attribute.name}{of}"


def _overlaps(names: Sequence[str | None]) -> Iterator[tuple[int, str]]:
    """(index, what is wrong) for each name that is there already, or lies in another; None is no name."""
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if name is not None and first.setdefault(name, index) != index:
            yield index, f"is {name!r}, which is there already: must be there once"
    for index, name in enumerate(names):
        for outer in _directories_above(name or "/"):
            if outer in first:
                yield index, f"is {name!r}: must not lie in {outer!r}, which is replicated with all that is in it"


def _directories_above(path: str) -> Iterator[str]:
    while (path := posixpath.dirname(path)) != "/":
        yield path


# Editing


def _check_changes(changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
    """(wanted values by path, wanted files' values by path or None). Raises InvalidXml, and TypeError for no field."""
    problems: list[Problem] = []
    flat: dict[str, Any] = {}
    for name, value in changes.items():
        if name in SECTIONS:
            flat.update({f"{name}.{inner}": inner_value for inner, inner_value in (value or {}).items()})
        elif name != FILES:
            flat[name] = value
    known = tuple(attribute for part in SHAPE for attribute in part.attributes)
    wanted = _check_values(flat, known, "", problems)
    files: list[dict[str, Any]] | None = None
    if changes.get(FILES) is not None:
        files = list(_check_files(changes[FILES], problems))
    if problems:
        raise InvalidXml(problems)
    return wanted, files


def _check_files(files: Sequence[Mapping[str, Any]], problems: list[Problem]) -> Iterator[dict[str, Any]]:
    names: list[str | None] = []
    for index, file in enumerate(files):
        label = f"{FILES}[{index}]."
        values = _check_values(file, FILE.attributes, label, problems)
        names.append(values.get("name"))
        if file.get("name") is None:
            problems.append(Problem(f"{label}name is missing: must be {PATH.expected}"))
        if values.get("inotify") and values.get("interval") is not None:
            problems.append(Problem(f"{label}interval is {values['interval']}: must be left out, because inotify is on"))
        yield values
    for index, text in _overlaps(names):
        problems.append(Problem(f"{FILES}[{index}].name {text}"))


def _check_values(given: Mapping[str, Any], attributes: Sequence[Attribute], label: str, problems: list[Problem]) -> dict[str, Any]:
    by_path = {attribute.path: attribute for attribute in attributes}
    values = {}
    for path, value in given.items():
        if path not in by_path:
            raise TypeError(f"{label}{path} is not a field of HA/module.xml")
        if value is None:
            continue
        kind = by_path[path].kind
        try:
            values[path] = kind.read(kind.write(value))
        except ValueError:
            problems.append(Problem(f"{label}{path} is {value!r}: must be {kind.expected}"))
    return values


def _written(part: Part, wanted: Mapping[str, Any]) -> dict[str, str]:
    """The wanted values that belong to the part, as its attributes."""
    return {each.name: each.kind.write(wanted[each.path]) for each in part.attributes if each.path in wanted}


def _differences(element: Element, part: Part, wanted: Mapping[str, Any]) -> dict[str, str]:
    """The attributes that have to be set for the element to say what is wanted."""

    def says(attribute: Attribute) -> bool:
        try:
            return bool(attribute.kind.read(element.attributes[attribute.name]) == wanted[attribute.path])
        except (KeyError, ValueError):
            return False

    said = {attribute.name for attribute in part.attributes if says(attribute)}
    return {name: text for name, text in _written(part, wanted).items() if name not in said}


def _init(document: Document) -> tuple[Document, Element]:
    if not document.root.named("init"):
        document = document.with_children(document.root, "init", [{}])
    return document, document.root.named("init")[0]


def _with_part(document: Document, element: str, attributes: Mapping[str, str]) -> Document:
    """Add an element to <init>, behind the one that comes before it in SHAPE."""
    document, init = _init(document)
    order = [part.names for part in SHAPE] + [(FILES,)]
    before = order[: [names[0] for names in order].index(element)]
    predecessors = [child for names in before for child in init.named(*names)]
    return document.with_children(init, element, [attributes], after=predecessors[-1] if predecessors else None)


def _edit_part(document: Document, part: Part, wanted: Mapping[str, Any]) -> Document:
    if not _written(part, wanted):
        return document
    document, init = _init(document)
    elements = init.named(*part.names)
    if not elements:
        return _with_part(document, part.element, _written(part, wanted))
    if elements[0].name != part.element:
        document = document.renamed(elements[0], part.element)
    element = _init(document)[1].named(part.element)[0]
    return document.with_attributes({element: _differences(element, part, wanted)})


def _edit_files(document: Document, wanted: Sequence[Mapping[str, Any]], *, remove_others: bool) -> Document:
    if remove_others:
        document = document.without(_other_files(document, {values["name"] for values in wanted}))
    present = {name: element for name, element in _file_elements(document) if name is not None}
    document = document.with_attributes(
        {present[values["name"]]: _differences(present[values["name"]], FILE, values) for values in wanted if values["name"] in present}
    )
    return _with_files(document, [_written(FILE, values) for values in wanted if values["name"] not in present])


def _file_elements(document: Document) -> Iterator[tuple[str | None, Element]]:
    """(name, element) of every file; None for a name that is missing or wrong."""
    for init in document.root.named("init")[:1]:
        for parent in init.named(FILES)[:1]:
            for element in parent.named(FILE.element):
                try:
                    yield PATH.read(element.attributes["name"]), element
                except (KeyError, ValueError):
                    yield None, element


def _other_files(document: Document, names: set[str]) -> Iterator[Element]:
    """The elements of files with other names, and of those that are there again."""
    seen: set[str | None] = set()
    for name, element in _file_elements(document):
        if name not in names or name in seen:
            yield element
        seen.add(name)


def _with_files(document: Document, files: Sequence[Mapping[str, str]]) -> Document:
    if not files:
        return document
    if not _init(document)[1].named(FILES):
        document = _with_part(document, FILES, {})
    parent = _init(document)[1].named(FILES)[0]
    neighbours = parent.named(FILE.element)
    return document.with_children(parent, FILE.element, files, after=neighbours[-1] if neighbours else None)
