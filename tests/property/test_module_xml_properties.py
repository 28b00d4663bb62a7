# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds for every module.xml, however it is written, and for every change of it."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ansible_collections.swg.ha.plugins.module_utils.module_xml import (
    EXACT,
    FILE,
    MERGE,
    SHAPE,
    DeviceUname,
    HaManager,
    ReplicatedFile,
    Server,
    Settings,
    as_changes,
    edit,
    parse,
    render,
)
from ansible_collections.swg.ha.plugins.module_utils.xml_document import InvalidXml

thorough = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ports = st.integers(1, 65535)
seconds = st.integers(1, 86400)
# What has a meaning in XML, and what an encoding may not have, as often as all else.
awkward = st.sampled_from("&<>'\"= ;\u00e4\u20ac\U0001f4be")
letters = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/\ufffe\uffff")
names = st.text(awkward | letters, min_size=1, max_size=6)
paths = st.lists(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
accounts = st.from_regex(r"[a-z_][a-z0-9_-]{0,7}", fullmatch=True)
addresses = st.ip_addresses().map(str)
files = st.builds(
    lambda name, interval, permissions: ReplicatedFile(name, interval is None, interval, permissions),
    paths,
    st.none() | seconds,
    st.builds("{}:{}".format, accounts, accounts),
)
host_names = st.from_regex(r"[a-z]([a-z0-9.-]{0,5}[a-z0-9])?", fullmatch=True)
servers = st.builds(Server, st.none() | addresses, st.none() | host_names)


def is_valid(wanted):
    """Whether settings, each valid by itself, go together."""
    active, passive = wanted.default_active, wanted.default_passive
    must_differ = [
        (active.ip, passive.ip),
        (active.name, passive.name),
        (wanted.virtual_ip, active.ip),
        (wanted.virtual_ip, passive.ip),
        (wanted.ha_manager.port, wanted.device_uname.port),
    ]
    listed = [file.name for file in wanted.files_to_replicate]
    return (
        all(one is None or one != other for one, other in must_differ)
        and not any(inner.startswith(f"{outer}/") for inner in listed for outer in listed)
        and len(set(listed)) == len(listed)
        and not (wanted.enabled and None in (active.ip, passive.ip))
    )


valid_settings = st.builds(
    Settings,
    enabled=st.booleans(),
    virtual_ip=st.none() | addresses,
    default_active=servers,
    default_passive=servers,
    device_uname=st.builds(DeviceUname, ports, seconds),
    ha_manager=st.builds(HaManager, ports, seconds, seconds, seconds),
    files_to_replicate=st.lists(files, max_size=4).map(tuple),
).filter(is_valid)


@st.composite
def documents(draw, of=valid_settings):
    """(a file that says some settings, written in some strange way; the settings)."""
    says = draw(of)
    newline = draw(st.sampled_from(["\n", "\r\n", "\r", ""]))
    indentation = draw(st.sampled_from(["", " ", "    ", "\t"]))
    strange = st.sampled_from(["", "", "<!-- ha enabled='2' -->", "<other virtual_ip='x'><ha enabled='7'/></other>", "<?pi <ha?>", "<x/>"])

    def attribute(name, value):
        quoted = quoteattr(value, {"\u20ac": "&#8364;"})
        if draw(st.booleans()) and quoted.startswith('"') and "'" not in value:
            quoted = f"'{quoted[1:-1]}'"
        space = draw(st.sampled_from(["", "", " "]))
        return draw(st.sampled_from([" ", " ", "  ", "\t", newline or " "])) + name + space + "=" + space + quoted

    def element(name, attributes):
        attributes = [(key, value) for key, value in attributes if value is not None]
        if draw(st.booleans()):
            attributes.append(("unknown", draw(names)))
        inner = "".join(attribute(key, value) for key, value in draw(st.permutations(attributes)))
        return f"<{name}{inner}" + draw(st.sampled_from(["/>", " />", f"></{name}>", f"><!-- in {name} --></{name} >"]))

    def block(name, children, depth, attributes=""):
        lines = [part for child in children for part in (draw(strange), child) if part]
        inner = "".join(newline + indentation * (depth + 1) + line for line in lines)
        return f"<{name}{attributes}>{inner}{newline}{indentation * depth}</{name}>"

    changes = as_changes(says)
    parts = []
    for part in SHAPE:
        attributes = []
        for each in part.attributes:
            section, _dot, field = each.path.rpartition(".")
            value = (changes[section] if section else changes)[field]
            attributes.append((each.name, None if value is None else each.kind.write(value)))
        if any(value is not None for _name, value in attributes):
            parts.append(element(draw(st.sampled_from(part.names)), attributes))
    listed = [
        element("file", [(each.name, None if file[each.path] is None else each.kind.write(file[each.path])) for each in FILE.attributes])
        for file in changes["files_to_replicate"]
    ]
    if listed or draw(st.booleans()):
        parts.append(block("files_to_replicate", listed, 2))
    body = block("module", [block("init", draw(st.permutations(parts)), 1)], 0, attribute("name", "HA"))
    encoding = draw(st.sampled_from(["", "UTF-8", "utf-8", "US-ASCII", "ISO-8859-1"]))
    declaration = f"<?xml version='1.0' encoding='{encoding}'?>{newline}" if encoding else ""
    text = declaration + draw(strange.filter(lambda part: part.startswith(("<!", "<?")) or not part)) + newline + body
    text += draw(st.sampled_from(["", newline, "<!-- end -->"]))
    data = text.encode(encoding or "utf-8", "xmlcharrefreplace")
    if encoding in ("", "UTF-8") and draw(st.booleans()):
        data = b"\xef\xbb\xbf" + data
    return data, says


@st.composite
def changes_and_results(draw, says):
    """(some of the changes from ``says`` to other settings, the mode for files, the settings that must come out)."""
    wanted = draw(valid_settings)
    result = says
    changes = {}
    for field, value in as_changes(wanted).items():
        if not draw(st.booleans()):
            continue
        changes[field] = value
        if field == "virtual_ip":
            result = replace(result, virtual_ip=wanted.virtual_ip)
        elif isinstance(value, dict):
            kept = {name: inner for name, inner in value.items() if inner is not None and draw(st.booleans())}
            changes[field] = kept
            result = replace(result, **{field: replace(getattr(result, field), **kept)})
        else:
            result = replace(result, **{field: getattr(wanted, field)})
    mode = draw(st.sampled_from([EXACT, MERGE]))
    if "files_to_replicate" in changes and mode == MERGE:
        merged = {file.name: file for file in (*says.files_to_replicate, *wanted.files_to_replicate)}
        result = replace(result, files_to_replicate=tuple(merged.values()))
    return changes, mode, result


def without_order(some):
    return replace(some, files_to_replicate=frozenset(some.files_to_replicate))


@thorough
@given(documents())
def test_what_is_written_is_read(document):
    data, says = document
    assert parse(data) == says


@thorough
@given(documents())
def test_no_change_gives_the_same_bytes(document):
    data, _says = document
    assert edit(data, {}) == data
    assert edit(data, {"files_to_replicate": as_changes(parse(data))["files_to_replicate"]}) == data


@thorough
@given(st.data())
def test_an_edit_gives_what_is_wanted_and_then_rests(data):
    before, says = data.draw(documents())
    changes, mode, result = data.draw(changes_and_results(says))
    if not is_valid(result):
        with pytest.raises(InvalidXml):
            edit(before, changes, mode)
        return
    after = edit(before, changes, mode)
    assert without_order(parse(after)) == without_order(result)
    assert edit(after, changes, mode) == after


@thorough
@given(st.data())
def test_an_edit_keeps_comments_unknown_elements_and_line_ends(data):
    before, says = data.draw(documents())
    changes, mode, result = data.draw(changes_and_results(says))
    assume(is_valid(result))
    after = edit(before, changes, mode)
    kept = re.compile(rb"<!-- (?!in file).*?-->|<\?.*?\?>|<other.*?</other>|<x/>")
    assert kept.findall(after) == kept.findall(before)
    line_ends = re.compile(rb"\r\n|\r|\n")
    assert set(line_ends.findall(after)) <= set(line_ends.findall(before))
    assert after.startswith(b"\xef\xbb\xbf") == before.startswith(b"\xef\xbb\xbf")


@thorough
@given(valid_settings)
def test_what_is_rendered_is_read(wanted):
    assert parse(render(wanted)) == wanted


@thorough
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda data: b"<module name='HA'><init>" + data + b"</init></module>"))
def test_any_bytes_are_read_or_refused(data):
    for action in (parse, lambda data: edit(data, {"enabled": False, "files_to_replicate": []})):
        try:
            action(data)
        except InvalidXml as error:
            assert error.problems and str(error)


@thorough
@given(st.data())
def test_a_damaged_file_is_read_or_refused(data):
    document, _says = data.draw(documents())
    damaged = bytearray(document)
    for _time in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(damaged)))
        end = start + data.draw(st.sampled_from([0, 1, 1, 5, 40]))
        damaged[start:end] = data.draw(st.sampled_from([b"", b"<", b">", b"&", b'"', b"/>", b"\0", b"\xff", b"]]>", b"<!DOCTYPE a>", b"1"]))
    for action in (parse, lambda broken: edit(broken, {"device_uname": {"port": 1}, "files_to_replicate": []})):
        try:
            action(bytes(damaged))
        except InvalidXml as error:
            assert error.problems
