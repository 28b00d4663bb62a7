# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.swg.ha.plugins.module_utils import manager_xml
from ansible_collections.swg.ha.plugins.module_utils.xml_document import InvalidXml

# As an operator has it: a role, attributes, an element and comments of his own.
ROLES = b"""<?xml version="1.0" encoding="ISO-8859-1"?>
<!-- K\xfche -->
<module name='Commander' id='9'>
  <init>
    <other level="3"/>
    <roles>
      <role name='Scanner' enabled='0' weight='7'/> <!-- later -->
      <role name='HA' enabled='0'/>
    </roles>
  </init>
</module>
"""
UNITS = b"""<manager version="2">
\t<role name="Scanner">
\t\t<!-- first -->
\t\t<unit name="scanner.service" nice="5"/>
\t</role>
\t<role name="HA"/>
</manager>
"""


def test_what_a_role_file_says():
    assert manager_xml.parse_roles(ROLES) == {"Scanner": False, "HA": False}
    assert manager_xml.parse_roles(b"<module/>") == {}


def test_what_the_roles_are():
    assert manager_xml.parse_units(UNITS) == {"Scanner": ("scanner.service",), "HA": ()}


def test_an_edit_changes_what_it_names_and_no_byte_more():
    assert manager_xml.edit_roles(ROLES, {"HA": True}) == ROLES.replace(b"'HA' enabled='0'", b"'HA' enabled='1'")
    added = manager_xml.edit_roles(ROLES, {"HA": False, "Web": True})
    assert added == ROLES.replace(b"enabled='0'/>\n    </roles>", b'enabled=\'0\'/>\n      <role name="Web" enabled="1"/>\n    </roles>')
    assert manager_xml.edit_roles(added, {"HA": False, "Web": True}) == added


def test_an_edit_of_units():
    edited = manager_xml.edit_units(UNITS, {"HA": ["a.service", "b.timer"]})
    written = b'\t<role name="HA">\n\t\t<unit name="a.service"/>\n\t\t<unit name="b.timer"/>\n\t</role>\n'
    assert edited == UNITS.replace(b'\t<role name="HA"/>\n', written)
    assert manager_xml.edit_units(edited, {"HA": ["a.service", "b.timer"]}) == edited
    # The order is the one in which they start.
    assert manager_xml.parse_units(manager_xml.edit_units(edited, {"HA": ["b.timer", "a.service"]}))["HA"] == ("b.timer", "a.service")
    assert manager_xml.parse_units(manager_xml.edit_units(edited, {"HA": []})) == {"Scanner": ("scanner.service",), "HA": ()}


def test_files_that_are_not_there():
    assert manager_xml.parse_roles(manager_xml.edit_roles(None, {"HA": True, "Web": False})) == {"HA": True, "Web": False}
    assert manager_xml.parse_units(manager_xml.edit_units(None, {"HA": ["a.service"]})) == {"HA": ("a.service",)}


def test_a_file_of_the_module_without_roles_gets_its_place():
    edited = manager_xml.edit_roles(b'<module name="Commander">\n  <other/>\n</module>\n', {"HA": True})
    assert manager_xml.parse_roles(edited) == {"HA": True}
    assert b"<other/>" in edited


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<module><init><roles><role name='HA'/></roles></init></module>", "line 1: <role name='HA'> enabled is missing: must be 0 or 1"),
        ("<module><init><roles><role name='HA' enabled='yes'/></roles></init></module>", "enabled is 'yes': must be 0 or 1"),
        ("<module><init><roles><role enabled='1'/></roles></init></module>", "the role name '': must be letters"),
        (
            "<module><init><roles><role name='a' enabled='1'/>\n<role name='a' enabled='1'/></roles></init></module>",
            "line 2: the role 'a' is there twice",
        ),
        ("<manager/>", "the outermost element is <manager>: must be <module>"),
        ("<module", "not well-formed"),
    ],
)
def test_role_files_that_are_refused(text, words):
    with pytest.raises(InvalidXml, match=words.replace("[", r"\[")):
        manager_xml.parse_roles(text.encode())
    with pytest.raises(InvalidXml):
        manager_xml.edit_roles(text.encode(), {"HA": True})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<module/>", "the outermost element is <module>: must be <manager>"),
        ("<manager><role name='a'><unit/></role></manager>", "the unit name '': must be that of a systemd unit"),
        ("<manager><role name='a'><unit name='-x.service; rm'/></role></manager>", "must be that of a systemd unit"),
        ("<manager><role name='a'><unit name='../x.service'/></role></manager>", "must be that of a systemd unit"),
        ("<manager><role name='a'/><role name='a'/></manager>", "is there twice"),
    ],
)
def test_files_of_units_that_are_refused(text, words):
    with pytest.raises(InvalidXml, match=words):
        manager_xml.parse_units(text.encode())
