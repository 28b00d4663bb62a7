# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What the policy server is told, and what may be a name or a document."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from policy_server import names, settings

GOOD: dict[str, Any] = {
    "device_id": "ps1",
    "account": "policyserver",
    "sockets": "/var/run/postgresql",
    "postgresql_port": 5432,
    "base": "/var/policyserver/configuration/base",
    "port": 8080,
    "clients": ["192.0.2.0/24"],
}


def test_the_settings_are_read(tmp_path: Path) -> None:
    file = tmp_path / "policy_server.json"
    file.write_text(json.dumps(GOOD))
    found = settings.load(file)
    assert (found.device_id, found.port, found.base) == ("ps1", 8080, Path(GOOD["base"]))
    assert found.clients == (IPv4Network("192.0.2.0/24"),)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device_id": "../etc"}, "device_id: '../etc' is no device id"),
        ({"device_id": "global"}, "device_id is 'global': that is the name"),
        ({"device_id": ""}, "device_id is '': must be a text"),
        ({"port": 0}, "port is 0: must be a port"),
        ({"port": True}, "port is True"),
        ({"postgresql_port": "5432"}, "postgresql_port is '5432'"),
        ({"clients": ["192.0.2.1/24"]}, "192.0.2.1/24 has host bits set"),
        ({"colour": "blue"}, "colour: unknown or missing"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    file = tmp_path / "policy_server.json"
    file.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(settings.SettingsError) as raised:
        settings.load(file)
    assert str(raised.value).startswith(f"{file}: ") and words in str(raised.value)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_what_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "policy_server.json"
    file.write_text(content)
    with pytest.raises(settings.SettingsError):
        settings.load(file)
    with pytest.raises(settings.SettingsError, match="run the playbook"):
        settings.load(tmp_path / "none")


@pytest.mark.parametrize("device", ["ps1", "global", "42", "vs-166", "a" * 63, "a.b_c"])
def test_device_ids(device: str) -> None:
    assert names.device_problem(device) is None


@pytest.mark.parametrize("device", ["", ".", "..", ".hidden", "-rf", "a/b", "a\0", "a b", "ä", "a\n", "a" * 64, "~", "ps1~"])
def test_what_is_no_device_id(device: str) -> None:
    assert "is no device id" in str(names.device_problem(device))


@pytest.mark.parametrize("name", ["module.xml", "a.json", "a.tar.json"])
def test_names(name: str) -> None:
    assert names.configuration_problem(name) is None


@pytest.mark.parametrize("name", ["", ".json", "a", "a.txt", "../a.json", "a.json/", "a.json\n", ".a.json", "a.JSON", "x" * 60 + ".json"])
def test_what_is_no_name(name: str) -> None:
    assert "is no name of a configuration" in str(names.configuration_problem(name))


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", b'{"a": [1, null]}'), ("a.json", b'\xef\xbb\xbf"x"'[3:]), ("a.xml", b"<a><b c='d'/></a>")]
)
def test_documents(name: str, content: bytes) -> None:
    assert names.content_problem(name, content) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b""),
        ("a.json", b"{'a': 1}"),
        ("a.json", b"\xff\xfe"),
        ("a.json", b"[" * 100_000),
        ("a.json", b"1" * 5000),
        ("a.xml", b""),
        ("a.xml", b"<a>"),
        ("a.xml", b"<a/><b/>"),
        ("a.xml", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'),
        ("a.xml", b"<a>" * 50_000),
    ],
    ids=range(10),
)
def test_what_is_no_document(name: str, content: bytes) -> None:
    assert names.content_problem(name, content)
