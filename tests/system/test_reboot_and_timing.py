# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A pair at work: a server that comes back, and times that are changed while clients are served."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.system.conftest import wait_for_pair
from tests.system.pair import SERVERS, VIRTUAL_IP, Lab, becomes_redundant, enable, longest_gap

ADDRESSES = "echo begin; exec ip -oneline -4 monitor address"
PING = f"exec ping -n -D -i 0.1 -W 1 {VIRTUAL_IP}"


def test_a_passive_server_that_was_reset_streams_again_by_itself(pair: Lab, inventory: Path) -> None:
    pair("power", "reset", "ps2")
    wait_for_pair(pair)
    becomes_redundant(inventory)


@pytest.mark.long
@pytest.mark.parametrize(("profile", "keepalive", "deadtime"), [("fast", "200ms", "1"), ("balanced", "500ms", "3")])
def test_other_times_leave_the_virtual_ip_where_it_is(pair: Lab, inventory: Path, profile: str, keepalive: str, deadtime: str) -> None:
    with pair.watching("ps1", ADDRESSES) as active, pair.watching("ps2", ADDRESSES) as passive, pair.watching("client1", PING) as answers:
        play = enable(inventory, ha_timing_profile=profile)
        moves = [line for line in (*active(), *passive()) if VIRTUAL_IP in line]
        times = [float(found[1]) for line in answers() if (found := re.match(r"\[([\d.]+)\] 64 bytes from", line))]
    assert all(play.changed.values())
    assert moves == []
    assert longest_gap(times) < 1
    for host in SERVERS:
        assert pair.sh(host, "cl_status hbparameter -p keepalive; cl_status hbparameter -p deadtime").split() == [keepalive, deadtime]
