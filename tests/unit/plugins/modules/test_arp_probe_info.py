# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
import yaml

from ansible_collections.swg.ha.plugins.module_utils.arp import Answer, ArpError, Probe
from ansible_collections.swg.ha.plugins.modules import arp_probe_info


def params(**changes):
    given = {"probes": [{"address": "192.0.2.10", "interface": "eth0"}], "timeout": 1.0, "count": 3}
    return {**given, **changes}


def test_options_become_probes():
    assert arp_probe_info.parse(params()) == [Probe(IPv4Address("192.0.2.10"), "eth0")]


def test_everything_wrong_is_told_at_once():
    probes = [{"address": address, "interface": "eth0"} for address in ("192.0.2.300", "192.0.2.1", "127.0.0.1")]
    with pytest.raises(ArpError) as error:
        arp_probe_info.parse(params(probes=probes, timeout=0.0, count=0))
    text = str(error.value)
    assert [part.split(":")[0] for part in text.split("; ")] == [
        "timeout",
        "count",
        "probes[0].address",
        "probes[2].address",
    ]
    assert "'192.0.2.300'" in text and "'127.0.0.1'" in text


@pytest.mark.parametrize(
    "changes",
    [{"timeout": value} for value in (-1.0, 60.1, float("nan"), float("inf"))] + [{"count": 101}, {"count": -1}],
)
def test_limits(changes):
    with pytest.raises(ArpError, match="^" + next(iter(changes)) + ": "):
        arp_probe_info.parse(params(**changes))


@pytest.mark.parametrize(
    ("macs", "own", "error", "answered"),
    [
        (["00:00:5e:00:53:23"], [], None, True),
        ([], ["00:00:5e:00:53:23"], None, False),
        ([], [], "interface eth0 is down", False),
        (["00:00:5e:00:53:23"], [], "interface eth0 is down", True),
    ],
)
def test_only_other_machines_answer(macs, own, error, answered):
    shown = arp_probe_info.shown(Answer(Probe(IPv4Address("192.0.2.10"), "eth0"), macs, own, error))
    assert shown == {
        "address": "192.0.2.10",
        "interface": "eth0",
        "answered": answered,
        "macs": macs,
        "own_macs": own,
        "error": error,
    }


def test_what_is_returned_is_what_is_documented():
    documented = yaml.safe_load(arp_probe_info.RETURN)["probes"]["contains"]
    shown = arp_probe_info.shown(Answer(Probe(IPv4Address("192.0.2.10"), "eth0"), [], [], None))
    assert set(shown) == set(documented)
