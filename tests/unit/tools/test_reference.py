# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from tools.reference import applied_roles, code, markup, option_table


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("C(ha.cf) and V(false)", "`ha.cf` and `false`"),
        ("O(probes[].address) of M(swg.ha.arp_probe_info)", "`probes[].address` of `swg.ha.arp_probe_info`"),
        ("see RV(probes[].error) and P(swg.ha.preflight#role)", "see `probes[].error` and `swg.ha.preflight`"),
        ("L(the manual, https://example.com/m)", "[the manual](https://example.com/m)"),
        ("B(never) I(ever)", "*never* *ever*"),
        ("nothing (to do)", "nothing (to do)"),
    ],
)
def test_markup(text: str, becomes: str) -> None:
    assert markup(text) == becomes


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (["a", "b"], "`[a, b]`"),
        ({}, "`{}`"),
        (True, "`true`"),
        (1.0, "`1.0`"),
        ("", '`""`'),
        ("{{ topology_links }}", "`{{ topology_links }}`"),
    ],
)
def test_a_default_is_one_line_of_yaml(value: object, shown: str) -> None:
    assert code(value) == shown


def test_a_table_of_options() -> None:
    options = {
        "links": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "description": "All.",
            "options": {"mac": {"description": ["Its."]}},
        },
        "mode": {"choices": ["a", "b"], "description": ["One|two."]},
    }
    assert option_table("variable", options, {"mode": "b"}).splitlines()[2:] == [
        "| `links` | list of dict | **required** | All. |",
        "| `links[].mac` | str |  | Its. |",
        "| `mode` | str | `b` | One\\|two. One of `a`, `b`. |",
    ]


def test_roles_are_found_wherever_a_playbook_applies_them() -> None:
    playbook = [
        {"hosts": "all", "roles": [{"role": "swg.ha.trust"}]},
        {"hosts": "all", "tasks": [{"block": [{"ansible.builtin.include_role": {"name": "swg.ha.status", "tasks_from": "x"}}]}]},
        {"ansible.builtin.import_playbook": "swg.ha.preflight"},
    ]
    assert list(applied_roles(playbook)) == ["swg.ha.trust", "swg.ha.status"]
