# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest

from ansible_collections.swg.ha.plugins.module_utils import arp

MAC = bytes.fromhex("00005e005323")
OTHER = bytes.fromhex("00005e005342")
ADDRESS = IPv4Address("192.0.2.10")
ASKER = IPv4Address("192.0.2.1")

# Written down by hand from RFC 826, with nothing taken from the code under test.
PROBE_ON_THE_WIRE = bytes.fromhex("""
    ffffffffffff 00005e005323 0806
    0001 0800 06 04 0001
    00005e005323 00000000
    000000000000 c000020a
    000000000000000000000000000000000000
""")
REPLY_ON_THE_WIRE = bytes.fromhex("""
    00005e005323 00005e005342 0806
    0001 0800 06 04 0002
    00005e005342 c000020a
    00005e005323 00000000
""")
CLAIM = arp.Claim(ADDRESS, OTHER)


def changed(frame: bytes, position: int, value: str) -> bytes:
    new = bytes.fromhex(value)
    return frame[:position] + new + frame[position + len(new) :]


def test_probe_is_what_rfc_5227_says():
    assert arp.request_frame(MAC, arp.NOBODY, ADDRESS) == PROBE_ON_THE_WIRE


def test_request_from_an_address_claims_it():
    frame = arp.request_frame(MAC, ASKER, ADDRESS)
    assert len(frame) == 60
    assert arp.parse_claim(frame) == arp.Claim(ASKER, MAC)


def test_reply_claims_its_sender():
    assert arp.parse_claim(REPLY_ON_THE_WIRE) == CLAIM


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(REPLY_ON_THE_WIRE + bytes(18), id="padded with zeros"),
        pytest.param(REPLY_ON_THE_WIRE + b"\xa5" * 18, id="padded with what lay in memory"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 0, "ffffffffffff"), id="broadcast"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 20, "0001"), id="request"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 38, "c000020a"), id="announcement"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 6, "00005e005399"), id="relayed by another bridge port"),
    ],
)
def test_claims(frame):
    assert arp.parse_claim(frame) == CLAIM


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="empty"),
        pytest.param(PROBE_ON_THE_WIRE, id="probe of another machine"),
        pytest.param(REPLY_ON_THE_WIRE[:12] + bytes.fromhex("81000064") + REPLY_ON_THE_WIRE[12:], id="VLAN tag"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 12, "0800"), id="IPv4"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 12, "8035"), id="RARP"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 14, "0006"), id="hardware is not Ethernet"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 16, "86dd"), id="protocol is not IPv4"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 18, "08"), id="hardware address of eight bytes"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 19, "10"), id="protocol address of sixteen bytes"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 20, "0003"), id="reverse request"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 20, "0000"), id="operation 0"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 22, "000000000000"), id="no hardware address"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 22, "ffffffffffff"), id="broadcast as hardware address"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 22, "01005e00530a"), id="multicast as hardware address"),
        pytest.param(changed(REPLY_ON_THE_WIRE, 28, "00000000"), id="no protocol address"),
    ],
)
def test_no_claims(frame):
    assert arp.parse_claim(frame) is None


def test_every_truncation_is_refused():
    assert [arp.parse_claim(REPLY_ON_THE_WIRE[:end]) for end in range(42)] == [None] * 42


def test_built_requests_are_read_back():
    chance = random.Random(5227)
    for _turn in range(2000):
        mac = bytes([chance.randrange(256) & 0xFE, *chance.randbytes(4), chance.randrange(1, 256)])
        sender = IPv4Address(chance.randrange(1, 2**32))
        target = IPv4Address(chance.randrange(2**32))
        frame = arp.request_frame(mac, sender, target)
        assert len(frame) == 60
        assert frame[38:42] == target.packed
        assert arp.parse_claim(frame) == arp.Claim(sender, mac)


def test_garbage_never_raises_and_claims_only_what_is_in_it():
    chance = random.Random(826)
    claims = 0
    for _turn in range(20000):
        frame = bytearray(REPLY_ON_THE_WIRE + chance.randbytes(chance.randrange(19)))
        for _bit in range(chance.randrange(1, 4)):
            frame[chance.randrange(len(frame))] ^= 1 << chance.randrange(8)
        frame = bytes(frame[: chance.choice([len(frame), chance.randrange(len(frame))])])
        claim = arp.parse_claim(frame)
        if claim is not None:
            claims += 1
            assert frame[12:20] == REPLY_ON_THE_WIRE[12:20]
            assert frame[22:32] == claim.mac + claim.address.packed
    assert claims > 1000


def test_pure_noise_is_no_claim():
    chance = random.Random(1)
    assert not any(arp.parse_claim(chance.randbytes(chance.randrange(1600))) for _turn in range(5000))


@pytest.mark.parametrize(
    ("timeout", "count", "expected"),
    [(1.0, 1, [0.0]), (1.0, 4, [0.0, 0.25, 0.5, 0.75]), (0.5, 2, [0.0, 0.25])],
)
def test_send_times(timeout, count, expected):
    assert arp.send_times(timeout, count) == expected


@pytest.mark.parametrize("count", [1, 3, 7, 100])
@pytest.mark.parametrize("timeout", [0.001, 0.3, 1.0, 60.0])
def test_the_last_question_leaves_time_for_an_answer(timeout, count):
    times = arp.send_times(timeout, count)
    assert len(times) == count
    assert times == sorted(set(times))
    assert times[0] == 0.0
    assert timeout - times[-1] == pytest.approx(timeout / count)


@pytest.mark.parametrize("text", ["192.0.2.10", "192.0.2.255", "10.0.0.0"])
def test_addresses(text):
    assert str(arp.parse_address(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2",
        "192.0.2.256",
        "192.0.2.010",
        " 192.0.2.1",
        "192.0.2.1/24",
        "2001:db8::1",
        "ps1",
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.18",
        "255.255.255.255",
    ],
)
def test_addresses_that_arp_cannot_ask_for(text):
    with pytest.raises(arp.ArpError, match="^" + repr(text).replace(".", r"\.")):
        arp.parse_address(text)


def test_hardware_addresses_are_shown_in_lower_case():
    assert arp.mac_text(bytes.fromhex("0000AB00CDEF")) == "00:00:ab:00:cd:ef"


def test_no_probes_no_answers():
    assert arp.ask([], timeout=60.0, count=3, wait_for_all=True) == []


def test_an_interface_that_does_not_exist_is_an_error_of_its_own_probe():
    probes = [arp.Probe(ADDRESS, name) for name in ("", "nowhere", "far.too.long.for.the.kernel", "a b", "nul\0")]
    answers = arp.ask(probes, timeout=60.0, count=3, wait_for_all=True)
    assert [answer.probe for answer in answers] == probes
    assert [answer.error for answer in answers] == [f"there is no interface {probe.interface!r}" for probe in probes]
    assert not any(answer.macs or answer.own_macs for answer in answers)


def test_loopback_is_no_ethernet():
    (answer,) = arp.ask([arp.Probe(ADDRESS, "lo")], timeout=60.0, count=3)
    assert answer == arp.Answer(arp.Probe(ADDRESS, "lo"), [], [], "interface lo is no Ethernet interface with ARP")
