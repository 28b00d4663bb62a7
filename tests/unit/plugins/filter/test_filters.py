# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.swg.ha.plugins.filter import disable_plan, failover, preflight, status

FILTERS = {
    name: function for module in (disable_plan, failover, preflight, status) for name, function in module.FilterModule().filters().items()
}
DOCUMENTATION = Path(disable_plan.__file__).parent


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_a_filter_takes_what_is_documented(name):
    text = yaml.safe_load((DOCUMENTATION / f"{name}.yml").read_text(encoding="utf-8"))["DOCUMENTATION"]
    options = [option for option in text["options"] if option != "_input"]
    code = FILTERS[name].__code__
    assert text["name"] == name
    assert list(code.co_varnames[1 : code.co_argcount]) == options


def test_every_documented_filter_exists():
    assert {path.stem for path in DOCUMENTATION.glob("*.yml")} == set(FILTERS)


def test_link_probes_in_the_words_of_the_module_that_takes_them():
    links = [{"interface": "eth0", "peer_address": "192.0.2.12", "network": "192.0.2.0/24"}]
    assert FILTERS["link_probes"](links, "192.0.2.10") == [
        {"address": "192.0.2.10", "interface": "eth0"},
        {"address": "192.0.2.12", "interface": "eth0"},
    ]
