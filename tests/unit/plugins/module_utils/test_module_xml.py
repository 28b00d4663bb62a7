# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.swg.ha.plugins.module_utils.module_xml import (
    MERGE,
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

# In the form of the manual's example: wrapped tags, <device_undef>, a file with and one without an interval.
EXAMPLE = b"""\
<?xml version="1.0" encoding="UTF-8"?>
<module id="174" name="HA" hide_local="0" type="module" local="1" active="1" display_name="HA"
  show_module_config="1">
  <init>
    <ha enabled="1"/>
    <default_active ip="192.0.2.11"/>
    <default_passive ip="192.0.2.12"/>
    <virtual_ip ip="192.0.2.10"/>
    <device_undef port="5333" timeout="21"/>
    <ha_manager_configuration connection_timeout="301" ha_manager_port="4590"
  heartbeat_cmd_interval="11" passive_status_interval="12"/>
    <files_to_replicate>
      <file inotify="1" name="/etc/shadow" permissions="root:shadow"/>
      <file inotify="0" interval="60" name="/var/logserver/archive" permissions="root:root"/>
    </files_to_replicate>
  </init>
</module>
"""
SHADOW = ReplicatedFile("/etc/shadow", True, None, "root:shadow")
ARCHIVE = ReplicatedFile("/var/logserver/archive", False, 60, "root:root")
SETTINGS = Settings(
    enabled=True,
    virtual_ip="192.0.2.10",
    default_active=Server("192.0.2.11"),
    default_passive=Server("192.0.2.12"),
    device_uname=DeviceUname(5333, 21),
    ha_manager=HaManager(port=4590, connection_timeout=301, heartbeat_cmd_interval=11, passive_status_interval=12),
    files_to_replicate=(SHADOW, ARCHIVE),
)

# Everything that an edit could spoil.
NASTY = (
    b"\xef\xbb\xbf<?xml version='1.0' encoding='utf-8' standalone=\"yes\" ?>\r\n"
    b"<!-- <module name='HA'> & <ha enabled='9'/> -->\r\n"
    b"<?editor keep='this'?>\r\n"
    b"<module  name='HA' \xc3\xa4=\"&#228;\" note='a > b &amp; \"c\"'\r\n"
    b'\tid = "174" >\r\n'
    b"\t<ha enabled='9'/><!-- not below init -->\r\n"
    b"\t<init\r\n\t>\r\n"
    b"\t\t<!-- first -->\r\n"
    b"\t\t<ha  extra='&lt;1&gt;' enabled = '0' ></ha >\r\n"
    b"\t\t<other><virtual_ip ip='none'/></other>\r\n"
    b"\t\t<default_active name='ps1' ip=\"192.0.2.11\" /> <default_passive ip='192.0.2.12'><![CDATA[<x>]]></default_passive>\r\n"
    b"\t\t<virtual_ip ip=''/>\r\n"
    b"\t\t<files_to_replicate>text\r\n"
    b"\t\t\t<file permissions='root:shadow' name='/etc/shadow' inotify='1'/> <!-- of shadow -->\r\n"
    b"\r\n"
    b"\t\t\t<dir name='../..'/>\r\n"
    b"\t\t\t<file inotify='0' interval='60' name='/srv/a &amp; b/' permissions='root:root'><note/></file>\r\n"
    b"\t\t</files_to_replicate>\r\n"
    b"\t</init>\r\n"
    b"</module><!-- end, and no newline -->"
)
NASTY_SETTINGS = Settings(
    default_active=Server("192.0.2.11", "ps1"),
    default_passive=Server("192.0.2.12"),
    files_to_replicate=(SHADOW, ReplicatedFile("/srv/a & b", False, 60, "root:root")),
)


def in_init(content):
    return b'<module name="HA">\n  <init>\n    ' + content + b"\n  </init>\n</module>\n"


def with_file(attributes):
    return in_init(b"<files_to_replicate><file " + attributes + b"/></files_to_replicate>")


def problems_of(action, *arguments):
    with pytest.raises(InvalidXml) as caught:
        action(*arguments)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        (EXAMPLE, SETTINGS),
        (NASTY, NASTY_SETTINGS),
        (b'<module name="HA"/>', Settings()),
        (in_init(b""), Settings()),
        (in_init(b'<ha enabled="0"/>'), Settings()),
        (in_init(b'<virtual_ip ip="2001:DB8::0:10"/>'), Settings(virtual_ip="2001:db8::10")),
        (in_init(b'<device_uname port="05222"/>'), Settings()),
        (
            with_file(b"inotify='1' interval='60' name='/etc//x/./y/' permissions='www-data:adm'"),
            Settings(files_to_replicate=(ReplicatedFile("/etc/x/y", True, None, "www-data:adm"),)),
        ),
    ],
)
def test_parse(data, settings):
    assert parse(data) == settings


ADDRESS = "must be an IP address, such as 192.0.2.11"
SECONDS = "must be a whole number of seconds from 1 to 86400"
PORT = "must be a port number from 1 to 65535"
PATH = "must be an absolute path below / without '..' and without control characters, such as /etc/shadow"
OWNER = "must be owner:group, such as root:shadow"
UNAME = "must be a host name of at most 64 letters, digits, dots, hyphens and underscores, as 'uname -n' prints it"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"<modules/>", 'line 1: the root element is <modules>: must be <module name="HA">'),
        (b"\n<module name='LOG'/>", 'line 2: the root element is <module name="LOG">: must be <module name="HA">'),
        (b"<module/>", 'line 1: the root element is <module>: must be <module name="HA">'),
        (in_init(b'<ha enabled="yes"/>'), "line 3: <ha> enabled is 'yes': must be 1 or 0"),
        (in_init(b'<ha enabled=""/>'), "line 3: <ha> enabled is '': must be 1 or 0"),
        (in_init(b'<default_active ip=""/>'), f"line 3: <default_active> ip is '': {ADDRESS}"),
        (in_init(b'<default_active ip="192.0.2.256"/>'), f"line 3: <default_active> ip is '192.0.2.256': {ADDRESS}"),
        (in_init(b'<default_passive ip="192.0.2.1/24"/>'), f"line 3: <default_passive> ip is '192.0.2.1/24': {ADDRESS}"),
        (in_init(b'<default_passive name="p s"/>'), f"line 3: <default_passive> name is 'p s': {UNAME}"),
        (
            in_init(b'<virtual_ip ip=" 192.0.2.10"/>'),
            "line 3: <virtual_ip> ip is ' 192.0.2.10': must be an IP address, such as 192.0.2.10, or empty for none",
        ),
        (in_init(b'<device_uname port="0"/>'), f"line 3: <device_uname> port is '0': {PORT}"),
        (in_init(b'<device_undef port="65536"/>'), f"line 3: <device_undef> port is '65536': {PORT}"),
        (in_init(b'<device_uname port="+5"/>'), f"line 3: <device_uname> port is '+5': {PORT}"),
        (in_init(b'<device_uname\n timeout="1.5"/>'), f"line 4: <device_uname> timeout is '1.5': {SECONDS}"),
        (
            in_init(b'<ha_manager_configuration passive_status_interval="86401"/>'),
            f"line 3: <ha_manager_configuration> passive_status_interval is '86401': {SECONDS}",
        ),
        (
            in_init(b"<ha enabled='0'/>\n\n<ha enabled='1'/>"),
            "line 5: <ha> is one too many: must be there once, as on line 3",
        ),
        (
            in_init(b"<device_undef/><device_uname/>"),
            "line 3: <device_uname> is one too many: must be there once, as on line 3",
        ),
        (in_init(b"</init><init>"), "line 3: <init> is one too many: must be there once, as on line 2"),
        (
            in_init(b"<files_to_replicate/><files_to_replicate/>"),
            "line 3: <files_to_replicate> is one too many: must be there once, as on line 3",
        ),
        (with_file(b"inotify='1' name='etc/x' permissions='a:b'"), f"line 3: <file> name is 'etc/x': {PATH}"),
        (with_file(b"inotify='1' name='/' permissions='a:b'"), f"line 3: <file> name is '/': {PATH}"),
        (with_file(b"inotify='1' name='/a/../b' permissions='a:b'"), f"line 3: <file> name is '/a/../b': {PATH}"),
        (with_file(b"inotify='1' name='/a&#10;b' permissions='a:b'"), f"line 3: <file> name is '/a\\nb': {PATH}"),
        (with_file(b"inotify='1' permissions='a:b'"), f"line 3: <file> name is missing: {PATH}"),
        (with_file(b"name='/a' permissions='a:b'"), "line 3: <file> inotify of '/a' is missing: must be 1 or 0"),
        (with_file(b"inotify='1' name='/a'"), f"line 3: <file> permissions of '/a' is missing: {OWNER}"),
        (with_file(b"inotify='1' name='/a' permissions='root'"), f"line 3: <file> permissions of '/a' is 'root': {OWNER}"),
        (with_file(b"inotify='1' name='/a' permissions='a:b:c'"), f"line 3: <file> permissions of '/a' is 'a:b:c': {OWNER}"),
        (
            with_file(b"inotify='0' name='/a' permissions='a:b'"),
            f"line 3: <file> interval of '/a' is missing: {SECONDS}, because inotify is 0",
        ),
        (with_file(b"inotify='0' interval='0' name='/a' permissions='a:b'"), f"line 3: <file> interval of '/a' is '0': {SECONDS}"),
        (
            with_file(b"inotify='1' name='/a' permissions='a:b'/>\n<file inotify='1' name='/a/' permissions='a:b'"),
            "line 4: <file> name is '/a', which is there already: must be there once",
        ),
        (
            with_file(b"inotify='1' name='/a/b/c' permissions='a:b'/>\n<file inotify='1' name='/a' permissions='a:b'"),
            "line 3: <file> name is '/a/b/c': must not lie in '/a', which is replicated with all that is in it",
        ),
        (
            in_init(b"<default_active ip='192.0.2.11'/><default_passive ip='192.0.2.11'/>"),
            "line 3: <default_passive> ip is '192.0.2.11': must differ from <default_active> ip",
        ),
        (
            in_init(b"<default_passive name='ps1'/>\n<default_active name='ps1'/>"),
            "line 3: <default_passive> name is 'ps1': must differ from <default_active> name",
        ),
        (
            in_init(b"<virtual_ip ip='2001:db8::1'/><default_active ip='2001:DB8::0:1'/>"),
            "line 3: <virtual_ip> ip is '2001:db8::1': must differ from <default_active> ip",
        ),
        (
            in_init(b"<default_passive ip='192.0.2.10'/><virtual_ip ip='192.0.2.10'/>"),
            "line 3: <virtual_ip> ip is '192.0.2.10': must differ from <default_passive> ip",
        ),
        (
            in_init(b"<ha_manager_configuration ha_manager_port='5222'/>"),
            "line 3: <ha_manager_configuration> ha_manager_port is '5222': must differ from <device_uname> port",
        ),
        (
            in_init(b"<device_uname port='4589'/>"),
            "line 3: <ha_manager_configuration> ha_manager_port is '4589': must differ from <device_uname> port",
        ),
        (
            in_init(b"<ha_manager_configuration ha_manager_port='x'/><device_uname port='4589'/>"),
            f"line 3: <ha_manager_configuration> ha_manager_port is 'x': {PORT}",
        ),
        (
            in_init(b"<ha enabled='1'/>\n<default_active ip='192.0.2.11'/><default_passive name='ps2'/>"),
            f"line 3: <default_passive> ip is missing: {ADDRESS}, because ha is enabled",
        ),
        (b"<!DOCTYPE module><module name='HA'/>", "line 1: the document has a DOCTYPE: must have none, because it could declare entities"),
    ],
)
def test_parse_tells_what_is_wrong(data, problem):
    assert problems_of(parse, data) == [problem]


def test_parse_tells_everything_that_is_wrong():
    data = EXAMPLE.replace(b'enabled="1"', b'enabled="on"').replace(b"5333", b"70000").replace(b'interval="60" ', b"")
    assert problems_of(parse, data.replace(b"root:shadow", b"root").replace(b"192.0.2.12", b"ps2")) == [
        "line 5: <ha> enabled is 'on': must be 1 or 0",
        f"line 7: <default_passive> ip is 'ps2': {ADDRESS}",
        f"line 9: <device_undef> port is '70000': {PORT}",
        f"line 13: <file> permissions of '/etc/shadow' is 'root': {OWNER}",
        f"line 14: <file> interval of '/var/logserver/archive' is missing: {SECONDS}, because inotify is 0",
    ]


@pytest.mark.parametrize("data", [EXAMPLE, NASTY])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"enabled": None, "default_active": None, "ha_manager": {"port": None}, "files_to_replicate": None},
        {"default_active": {"ip": "192.0.2.11"}},
        {"files_to_replicate": "the same"},
    ],
)
def test_an_edit_that_changes_nothing_gives_the_same_bytes(data, changes):
    if changes.get("files_to_replicate"):
        changes = {"files_to_replicate": as_changes(parse(data))["files_to_replicate"]}
    assert edit(data, changes) == data
    assert edit(data, changes, MERGE) == data


# (changes, what the nasty document has, what it then has): everything else must be as it was.
EDITS = [
    ({"enabled": True}, [(b"enabled = '0' >", b"enabled = '1' >")]),
    ({"virtual_ip": "192.0.2.10"}, [(b"<virtual_ip ip=''/>", b"<virtual_ip ip='192.0.2.10'/>")]),
    ({"default_active": {"ip": "192.0.2.21"}}, [(b'ip="192.0.2.11" />', b'ip="192.0.2.21" />')]),
    ({"default_passive": {"name": "ps2"}}, [(b"<default_passive ip='192.0.2.12'>", b"<default_passive ip='192.0.2.12' name='ps2'>")]),
    (
        {"device_uname": {"port": 5223}, "ha_manager": {"connection_timeout": 5, "port": 4590}},
        [
            (
                b"<virtual_ip ip=''/>\r\n",
                b"<virtual_ip ip=''/>\r\n"
                b'\t\t<device_uname port="5223"/>\r\n'
                b'\t\t<ha_manager_configuration connection_timeout="5" ha_manager_port="4590"/>\r\n',
            )
        ],
    ),
    (
        {"files_to_replicate": [{"name": "/etc/shadow"}, {"name": "/srv/a & b", "interval": 5}]},
        [(b"interval='60'", b"interval='5'")],
    ),
    (
        {"files_to_replicate": [{"name": "/srv/a & b", "inotify": True}]},
        [
            (b"<file permissions='root:shadow' name='/etc/shadow' inotify='1'/>", b""),
            (b"<file inotify='0' interval='60'", b"<file inotify='1' interval='60'"),
        ],
    ),
    (
        {
            "files_to_replicate": [
                {"name": "/etc/shadow"},
                {"name": "/<&\"'>", "inotify": False, "interval": 1, "permissions": "0:0"},
            ]
        },
        [
            (
                b"\t\t\t<file inotify='0' interval='60' name='/srv/a &amp; b/' permissions='root:root'><note/></file>\r\n",
                b"",
            ),
            (
                b"<!-- of shadow -->\r\n",
                b'<!-- of shadow -->\r\n\t\t\t<file inotify="0" interval="1" name="/&lt;&amp;&quot;\'>" permissions="0:0"/>\r\n',
            ),
        ],
    ),
]


@pytest.mark.parametrize(("changes", "replacements"), EDITS)
def test_an_edit_changes_what_is_asked_for_and_no_other_byte(changes, replacements):
    expected = NASTY
    for old, new in replacements:
        assert expected.count(old) == 1
        expected = expected.replace(old, new)
    edited = edit(NASTY, changes)
    assert edited == expected
    assert edit(edited, changes) == edited


def test_device_undef_is_renamed_when_device_uname_is_given():
    assert edit(EXAMPLE, {"ha_manager": {"port": 4600}}).count(b"<device_undef ") == 1
    expected = EXAMPLE.replace(b"<device_undef ", b"<device_uname ")
    assert edit(EXAMPLE, {"device_uname": {"port": 5333}}) == expected
    assert edit(EXAMPLE.replace(b'"21"/>', b'"21"></device_undef>'), {"device_uname": {"port": 5333}}) == expected.replace(
        b'"21"/>', b'"21"></device_uname>'
    )


def test_merge_keeps_the_other_files():
    changes = {"files_to_replicate": [{"name": "/etc/new", "inotify": True, "permissions": "root:root"}]}
    new = ReplicatedFile("/etc/new", True, None, "root:root")
    assert parse(edit(EXAMPLE, changes, MERGE)).files_to_replicate == (SHADOW, ARCHIVE, new)
    assert parse(edit(EXAMPLE, changes)).files_to_replicate == (new,)


def test_all_files_can_be_removed():
    assert edit(EXAMPLE, {"files_to_replicate": []}) == EXAMPLE.replace(
        b'      <file inotify="1" name="/etc/shadow" permissions="root:shadow"/>\n'
        b'      <file inotify="0" interval="60" name="/var/logserver/archive" permissions="root:root"/>\n',
        b"",
    )
    assert edit(in_init(b""), {"files_to_replicate": []}) == in_init(b"")


def test_elements_are_made_in_the_manuals_order():
    expected = b"""\
<module name='HA'>
  <init>
    <ha enabled="0"/>
    <default_active name="ps1"/>
    <default_passive ip="192.0.2.12"/>
    <files_to_replicate>
      <file inotify="1" name="/a" permissions="root:root"/>
    </files_to_replicate>
  </init>
</module>
"""
    changes = {
        "files_to_replicate": [{"name": "/a", "inotify": True, "permissions": "root:root"}],
        "default_passive": {"ip": "192.0.2.12"},
        "default_active": {"name": "ps1"},
        "enabled": False,
    }
    assert edit(b"<module name='HA'/>\n", changes) == expected
    partly = expected.replace(b'    <default_active name="ps1"/>\n', b"")
    assert edit(partly, {"default_active": {"name": "ps1"}}) == expected


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (b'enabled="1"', b'enabled="perhaps"'),
        (b"192.0.2.12", b""),
        (b"5333", b"99999"),
        (b'interval="60"', b""),
        (b'name="/var/logserver/archive"', b'name="/etc/shadow"'),
        (b'name="/var/logserver/archive"', b'name="var"'),
        (b"root:shadow", b"nobody"),
    ],
)
def test_an_edit_repairs_a_wrong_file(wrong, right):
    broken = EXAMPLE.replace(wrong, right)
    assert problems_of(parse, broken)
    assert parse(edit(broken, as_changes(SETTINGS))) == SETTINGS


def test_an_edit_of_a_wrong_file_that_does_not_repair_it_is_refused():
    broken = EXAMPLE.replace(b"5333", b"99999")
    assert problems_of(edit, broken, {"enabled": False}) == [f"line 9: <device_undef> port is '99999': {PORT}"]


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"enabled": "yes"}, ["enabled is 'yes': must be 1 or 0"]),
        ({"default_active": {"ip": "ps1"}}, [f"default_active.ip is 'ps1': {ADDRESS}"]),
        (
            {"ha_manager": {"port": 0, "connection_timeout": -1}, "device_uname": {"port": "http"}},
            [
                f"ha_manager.port is 0: {PORT}",
                f"ha_manager.connection_timeout is -1: {SECONDS}",
                f"device_uname.port is 'http': {PORT}",
            ],
        ),
        (
            {
                "files_to_replicate": [
                    {"name": "etc"},
                    {"name": "/a/b", "permissions": "root"},
                    {"name": "/a", "inotify": True, "interval": 5},
                    {"name": "/a/"},
                    {"inotify": True},
                    {"name": "/\ud800"},
                ]
            },
            [
                f"files_to_replicate[0].name is 'etc': {PATH}",
                f"files_to_replicate[1].permissions is 'root': {OWNER}",
                "files_to_replicate[2].interval is 5: must be left out, because inotify is on",
                f"files_to_replicate[4].name is missing: {PATH}",
                f"files_to_replicate[5].name is '/\\ud800': {PATH}",
                "files_to_replicate[3].name is '/a', which is there already: must be there once",
                "files_to_replicate[1].name is '/a/b': must not lie in '/a', which is replicated with all that is in it",
            ],
        ),
        (
            {"virtual_ip": "192.0.2.12"},
            ["line 8: <virtual_ip> ip is '192.0.2.12': must differ from <default_passive> ip"],
        ),
        (
            {"files_to_replicate": [{"name": "/etc/new"}]},
            [
                "line 13: <file> inotify of '/etc/new' is missing: must be 1 or 0",
                f"line 13: <file> permissions of '/etc/new' is missing: {OWNER}",
            ],
        ),
    ],
)
def test_wrong_changes_are_refused(changes, problems):
    assert problems_of(edit, EXAMPLE, changes) == problems


@pytest.mark.parametrize("changes", [{"enable": True}, {"ha_manager": {"timeout": 1}}, {"files_to_replicate": [{"path": "/a"}]}])
def test_fields_that_do_not_exist_are_a_programming_error(changes):
    with pytest.raises(TypeError, match="is not a field"):
        edit(EXAMPLE, changes)


def test_render_gives_the_manuals_shape():
    expected = EXAMPLE.replace(b"\n  show", b" show").replace(b"\n  heartbeat", b" heartbeat").replace(b"device_undef", b"device_uname")
    assert render(SETTINGS) == expected


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        SETTINGS,
        NASTY_SETTINGS,
        replace(SETTINGS, enabled=False, default_active=Server(name="ps1"), default_passive=Server()),
    ],
)
def test_what_is_rendered_says_the_same(settings):
    assert parse(render(settings)) == settings


def test_what_is_wrong_is_not_rendered():
    assert problems_of(render, Settings(enabled=True, default_active=Server("192.0.2.11"))) == [
        f"line 4: <default_passive> ip is missing: {ADDRESS}, because ha is enabled"
    ]


def test_a_thousand_files():
    files = tuple(ReplicatedFile(f"/srv/{number}", False, 60, "root:root") for number in range(1000))
    assert parse(render(Settings(files_to_replicate=files))).files_to_replicate == files
