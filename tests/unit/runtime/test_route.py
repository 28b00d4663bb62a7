# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from swg_ha.route import reordered

CONNINFO = "host=192.0.2.11,198.51.100.11 port=5432 user=ha_replication passfile='/etc/a b' application_name=ps2"


def test_the_link_that_lives_comes_first() -> None:
    assert reordered(CONNINFO, {"192.0.2.11"}) == CONNINFO.replace("192.0.2.11,198.51.100.11", "198.51.100.11,192.0.2.11")


@pytest.mark.parametrize("dead", [set(), {"198.51.100.11"}, {"192.0.2.11", "198.51.100.11"}, {"203.0.113.1"}])
def test_nothing_is_changed_where_that_would_not_help(dead: set[str]) -> None:
    assert reordered(CONNINFO, dead) is None
