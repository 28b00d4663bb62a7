# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What of the network engine needs no network; tests/net has the rest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from ipaddress import IPv4Address, IPv4Interface

import pytest

from swg_ha import network, rtnetlink
from swg_ha.network import Evidence, Network, NetworkError, reaches
from swg_ha.settings import Link
from swg_ha.shared import arp

LINKS = [Link("nothing0", "192.0.2.11", 24, "192.0.2.12"), Link("nothing1", "198.51.100.11", 24, "198.51.100.12")]
MAC = bytes.fromhex("00005e005323")
ADDRESS = IPv4Address("192.0.2.10")

# Ethernet: to all, from MAC, ARP. Ethernet and IPv4, the operation, who sends, whom it is about; padded to 60 bytes.
REQUEST_ON_THE_WIRE = "ffffffffffff 00005e005323 0806 0001080006040001 00005e005323 c000020a 000000000000 c000020a" + " 00" * 18
REPLY_ON_THE_WIRE = "ffffffffffff 00005e005323 0806 0001080006040002 00005e005323 c000020a 00005e005323 c000020a" + " 00" * 18


def test_announcements_on_the_wire() -> None:
    request, reply = arp.announcement_frames(MAC, ADDRESS)
    assert request == bytes.fromhex(REQUEST_ON_THE_WIRE)
    assert reply == bytes.fromhex(REPLY_ON_THE_WIRE)
    assert arp.parse_claim(request) == arp.parse_claim(reply) == arp.Claim(ADDRESS, MAC)


def test_an_echo_on_the_wire() -> None:
    # The checksum by hand: 0800 + 0102 + 0005 + 0102 + 0304 + 0506 + 0708 = 191b, complemented.
    assert network._echo(5, bytes.fromhex("0102030405060708")) == bytes.fromhex("0800 e6e4 0102 0005 0102030405060708")


@pytest.mark.parametrize("number", [0, 1, 0x8000, 0xFFFF])
@pytest.mark.parametrize("mark", [bytes(8), b"\xff" * 8, os.urandom(8)], ids=["zeros", "ones", "random"])
def test_every_echo_has_a_right_checksum(number: int, mark: bytes) -> None:
    echo = network._echo(number, mark)
    total = sum(int.from_bytes(echo[at : at + 2], "big") for at in range(0, len(echo), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_the_kernel_tells_of_the_loopback_interface() -> None:
    (lo,) = (link for link in rtnetlink.links() if link.name == "lo")
    assert lo.index == 1
    assert all(held.index > 0 for held in rtnetlink.holders(IPv4Address("127.0.0.1")))


def test_an_address_for_an_interface_that_is_not_there() -> None:
    nowhere = 2**31 - 1
    with pytest.raises(OSError):
        rtnetlink.add_address(nowhere, IPv4Interface("192.0.2.10/24"))


def test_a_pair_without_a_virtual_ip() -> None:
    async def run() -> None:
        pair = Network(LINKS, None, [])
        await pair.start(lambda _interface, _carrier: None, lambda: None)
        assert pair.holds() is False
        assert pair.drop_address() is False
        with pytest.raises(NetworkError, match="set virtual_ip in HA/module.xml"):
            pair.raise_address()
        pair.defend()
        assert await pair.ping(10) == set()
        assert Evidence(pair).running is False
        await pair.close()

    asyncio.run(run())


def test_a_kernel_that_refuses_is_reached_and_one_that_says_nothing_is_not() -> None:
    with contextlib.ExitStack() as stack:
        listening, free, full = (stack.enter_context(socket.socket()) for _turn in range(3))
        for sock in (listening, free, full):
            sock.bind(("127.0.0.1", 0))
        listening.listen(1)
        closed = free.getsockname()[1]
        free.close()
        assert reaches("127.0.0.1", (listening.getsockname()[1],), 1)
        assert reaches("127.0.0.1", (closed,), 1)
        # With its backlog full, the kernel answers no more connections there.
        full.listen(0)
        for _turn in range(3):
            waiting = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            waiting.connect_ex(full.getsockname())
        began = time.monotonic()
        assert not reaches("127.0.0.1", (full.getsockname()[1],), 0.2)
        assert time.monotonic() - began < 5
        assert reaches("127.0.0.1", (full.getsockname()[1], closed), 2)
