# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The links of the pair and the virtual IP: hold it, let it go, tell the neighbours, and see who else is there.

Nothing here waits without letting the loop run, starts a process, or sends a packet at rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from types import TracebackType
from typing import cast

from . import rtnetlink
from .settings import Link
from .shared import arp

log = logging.getLogger(__name__)

# Seconds after the address was raised. A neighbour that has just changed its entry ignores what comes within the next second,
# and a switch may not forward at first: that is what the later ones are for.
ANNOUNCEMENTS = (0.0, 0.2, 0.5, 1.2, 2.0, 5.0, 10.0)

# <linux/icmp.h>
_SOL_RAW, _ICMP_FILTER = 255, 1
_ECHO_REPLY, _ECHO_REQUEST = 0, 8
_ECHO = struct.Struct("!BBHHH")
_DATAGRAMS_AT_ONCE = 64


class NetworkError(Exception):
    """The virtual IP cannot be raised or dropped. The text names the interface and says what is wrong and what to do."""


class Network:
    """The links of this server, the service link first, and the virtual IP (None: the pair has none).

    ping_nodes: addresses that answer as long as the network is there. From `start` on everything belongs to the loop that runs then; before it,
    `holds`, `raise_address` and `drop_address` need none.
    """

    def __init__(self, links: Sequence[Link], virtual_ip: IPv4Interface | None, ping_nodes: Sequence[str]) -> None:
        self.virtual_ip = virtual_ip
        self.carriers = dict.fromkeys((link.interface for link in links), False)
        self._links = tuple(links)
        self._ping_nodes = tuple(ping_nodes)
        self._service = links[0].interface
        self._monitor: rtnetlink.Monitor | None = None
        self._changed: Callable[[str, bool], None] = lambda interface, carrier: None
        self._moved: Callable[[], None] = lambda: None
        # Whether the virtual IP is here; None: the kernel has to be asked.
        self._known: bool | None = None
        self._announcing: asyncio.Task[None] | None = None

    async def start(self, changed: Callable[[str, bool], None], moved: Callable[[], None]) -> None:
        """Keep `carriers` current from now on.

        changed(interface, carrier) is called after each change, moved() when the virtual IP has come or gone.
        """
        self._monitor = rtnetlink.Monitor()
        self._changed, self._moved, self._known = changed, moved, None
        for link in rtnetlink.links():
            if link.name in self.carriers:
                self.carriers[link.name] = link.carrier
        asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._hear_links)

    def look(self) -> None:
        """Ask for the carriers: the kernel tells of a change up to a second late when it has just told of another one."""
        self._adopt(rtnetlink.links())

    async def close(self) -> None:
        """Stop everything that was started. The virtual IP stays where it is."""
        self._stop_announcing()
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None

    @staticmethod
    def neighbour(address: str) -> str | None:
        """The hardware address that the kernel knows, or has known, a neighbour by."""
        for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[0] == address and fields[3] != "00:00:00:00:00:00":
                return fields[3].lower()
        return None

    def holds(self) -> bool:
        """Whether any interface of this server has the virtual IP."""
        if self._monitor is None:
            return bool(self._held())
        if self._known is None:
            self._known = bool(self._held())
        return self._known

    def raise_address(self) -> None:
        """Have the virtual IP on the service link, and nowhere else. Raises NetworkError."""
        if self.virtual_ip is None:
            raise NetworkError("the pair has no virtual IP: set virtual_ip in HA/module.xml (variable ha_virtual_ip)")
        self._known = None
        try:
            index = socket.if_nametoindex(self._service)
            rtnetlink.add_address(index, self.virtual_ip)
            for held in self._held():
                if held != rtnetlink.Held(index, self.virtual_ip):
                    rtnetlink.delete_address(held.index, held.address)
        except OSError as error:
            raise NetworkError(
                f"cannot give {self.virtual_ip} to {self._service}: {error.strerror}: look at 'ip link show dev {self._service}'"
            ) from error

    def drop_address(self) -> bool:
        """Take the virtual IP off every interface and announce it no more. Whether it was there. Raises NetworkError."""
        self._stop_announcing()
        self._known = None
        everywhere = self._held()
        for held in everywhere:
            try:
                rtnetlink.delete_address(held.index, held.address)
            except OSError as error:
                raise NetworkError(
                    f"cannot take {held.address} off the interface with the index {held.index}: {error.strerror}: look at 'ip address'"
                ) from error
        return bool(everywhere)

    def announce(self) -> None:
        """Tell all neighbours on the service link that the virtual IP is here: at once, and again at each of ANNOUNCEMENTS."""
        self._stop_announcing()
        self.defend()
        self._announcing = asyncio.create_task(self._announce_again(asyncio.get_running_loop().time()))

    def defend(self) -> None:
        """Tell them once."""
        if self.virtual_ip is None:
            return
        try:
            link = arp.Link(self._service)
            try:
                for frame in arp.announcement_frames(link.mac, self.virtual_ip.ip):
                    link.send(frame)
            finally:
                _close_aside(link)
        except (arp.ArpError, arp.LinkError) as error:
            log.warning("nobody was told that %s is here: %s", self.virtual_ip.ip, error)

    async def ping(self, timeout: float) -> set[str]:
        """The ping nodes that answer one echo within timeout seconds; returns as soon as all have."""
        answered: set[str] = set()
        everybody = asyncio.Event()

        def heard(node: str) -> None:
            answered.add(node)
            if answered == set(self._ping_nodes):
                everybody.set()

        with self._pinger(heard) as pinger:
            if pinger.send():
                await _within(timeout, everybody)
        return answered

    async def holders(self, timeout: float) -> set[str]:
        """The hardware addresses, as 00:00:5e:00:53:23, of other machines that say within timeout seconds that they have the virtual IP.

        They are asked for on every link that has a carrier, three times; it returns as soon as one is found.
        """
        found: set[str] = set()
        somebody = asyncio.Event()

        def heard(mac: str, _announced: bool) -> None:
            found.add(mac)
            somebody.set()

        with self._asker(heard) as asker:
            for _turn in range(3):
                asker.send()
                await _within(timeout / 3, somebody)
                if found:
                    break
        return found

    def _held(self) -> list[rtnetlink.Held]:
        if self.virtual_ip is None:
            return []
        return rtnetlink.holders(self.virtual_ip.ip)

    def _pinger(self, heard: Callable[[str], None]) -> _Pinger:
        def link_to(node: str) -> Link | None:
            near = (link for link in self._links if IPv4Address(node) in IPv4Network((link.address, link.prefix), strict=False))
            return next(near, None)

        return _Pinger({node: link_to(node) for node in self._ping_nodes}, heard)

    def _asker(self, heard: Callable[[str, bool], None]) -> _Asker:
        return _Asker([link.interface for link in self._links], self.virtual_ip.ip if self.virtual_ip else None, heard)

    def _hear_links(self) -> None:
        assert self._monitor is not None
        changes = self._monitor.changes()
        moved = [change for change in changes or () if isinstance(change, rtnetlink.Held)]
        if changes is None or any(self.virtual_ip is not None and held.address.ip == self.virtual_ip.ip for held in moved):
            self._known = None
            self._moved()
        self._adopt(rtnetlink.links() if changes is None else [change for change in changes if isinstance(change, rtnetlink.Link)])

    def _adopt(self, links: Sequence[rtnetlink.Link]) -> None:
        for link in links:
            if self.carriers.get(link.name, link.carrier) == link.carrier:
                continue
            self.carriers[link.name] = link.carrier
            self._changed(link.name, link.carrier)
            # The switch behind it may be another one, or have forgotten where the address is.
            if link.carrier and link.name == self._service and self.holds():
                self.announce()

    async def _announce_again(self, since: float) -> None:
        loop = asyncio.get_running_loop()
        for moment in ANNOUNCEMENTS[1:]:
            await asyncio.sleep(since + moment - loop.time())
            self.defend()

    def _stop_announcing(self) -> None:
        if self._announcing is not None:
            self._announcing.cancel()
            self._announcing = None


class Evidence:
    """Who is there, asked again and again between `start` and `stop`, so that the answer is known when it is needed.

    sees: whether a ping node answers; held: whether another machine has the virtual IP. Both None while that cannot be known:
    not yet asked for `patience` seconds, no ping node, or, for held, no way to ask on the service link.
    answered, claimed: the loop's time of the last answer of each ping node, and of each machine (hardware address) with the virtual IP;
    announced: of the last time that a machine said unasked that it has it.
    """

    def __init__(self, network: Network) -> None:
        self.answered: dict[str, float] = {}
        self.claimed: dict[str, float] = {}
        self.announced: dict[str, float] = {}
        self._network = network
        self._patience = 0.0
        self._pinging_since: float | None = None
        self._asking_since: float | None = None
        self._probing: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._probing is not None

    def start(self, period: float = 0.1, patience: float = 0.3) -> None:
        """Ask every period seconds from now on; an answer counts for patience seconds. Does nothing while it runs."""
        if self._probing is None:
            self._patience = patience
            self._probing = asyncio.create_task(self._probe(period))

    def stop(self) -> None:
        """Ask no more, and forget what was answered."""
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None
        self._pinging_since = self._asking_since = None
        self.answered.clear()
        self.claimed.clear()
        self.announced.clear()

    @property
    def sees(self) -> bool | None:
        return self._judge(self.answered, self._pinging_since)

    @property
    def held(self) -> bool | None:
        return self._judge(self.claimed, self._asking_since)

    @property
    def held_by(self) -> set[str]:
        """The hardware addresses of the other machines that have the virtual IP."""
        return {mac for mac, moment in self.claimed.items() if self._counts(moment)}

    def seen_nodes(self) -> set[str]:
        """The ping nodes that answer."""
        return {node for node, moment in self.answered.items() if self._counts(moment)}

    def _counts(self, moment: float) -> bool:
        return asyncio.get_running_loop().time() - moment <= self._patience

    def _judge(self, answers: Mapping[str, float], since: float | None) -> bool | None:
        if any(map(self._counts, answers.values())):
            return True
        return None if since is None or self._counts(since) else False

    async def _probe(self, period: float) -> None:
        loop = asyncio.get_running_loop()

        def heard_node(node: str) -> None:
            self.answered[node] = loop.time()

        def heard_holder(mac: str, announced: bool) -> None:
            self.claimed[mac] = loop.time()
            if announced:
                self.announced[mac] = loop.time()

        with self._network._pinger(heard_node) as pinger, self._network._asker(heard_holder) as asker:
            began = loop.time()
            for turn in itertools.count(1):
                now = loop.time()
                self._network.look()
                pinger.send()
                if self._pinging_since is None and pinger.nodes:
                    self._pinging_since = now
                if not asker.send():
                    self._asking_since = None
                elif self._asking_since is None:
                    self._asking_since = now
                # By the clock, so that a slow turn does not make all that follow later.
                await asyncio.sleep(max(0.0, began + turn * period - loop.time()))


class _Pinger:
    """Sends echoes to the ping nodes, each over the link that it is a neighbour on; heard(node) is called for each answer."""

    def __init__(self, nodes: Mapping[str, Link | None], heard: Callable[[str], None]) -> None:
        self.nodes = tuple(nodes)
        self._heard = heard
        self._ways = nodes
        self._sockets: dict[Link | None, socket.socket] = {}
        self._mark = os.urandom(8)
        self._number = itertools.count()

    def __enter__(self) -> _Pinger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for link in list(self._sockets):
            self._close(link)

    def send(self) -> bool:
        """One echo to each. False: to none of them, and so nobody can answer."""
        frame = _echo(next(self._number) & 0xFFFF, self._mark)
        sent = False
        for node, link in self._ways.items():
            try:
                self._open(link).sendto(frame, (node, 0))
                sent = True
            except BlockingIOError:
                pass
            except OSError:
                # The interface or its address is gone, or it is down: a new socket may find it again.
                self._close(link)
        return sent

    def _open(self, link: Link | None) -> socket.socket:
        if (known := self._sockets.get(link)) is not None:
            return known
        with ExitStack() as on_error:
            sock = on_error.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP))
            sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF & ~(1 << _ECHO_REPLY)))
            if link is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(link.interface))
                # Not from the virtual IP, whose answers may go to another server.
                sock.bind((link.address, 0))
            on_error.pop_all()
        self._sockets[link] = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._receive, link, sock)
        return sock

    def _close(self, link: Link | None) -> None:
        if (sock := self._sockets.pop(link, None)) is not None:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()

    def _receive(self, link: Link | None, sock: socket.socket) -> None:
        for _turn in range(_DATAGRAMS_AT_ONCE):
            try:
                packet, (sender, _port) = sock.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError:
                self._close(link)
                return
            payload = packet[(packet[0] & 0xF) * 4 :]
            if payload[:1] == bytes([_ECHO_REPLY]) and payload[_ECHO.size :] == self._mark and sender in self.nodes:
                self._heard(sender)


class _Asker:
    """Asks on every interface who has an address; heard(hardware address, unasked) is called for each other machine that says so."""

    def __init__(self, interfaces: Sequence[str], address: IPv4Address | None, heard: Callable[[str, bool], None]) -> None:
        self._interfaces = tuple(interfaces)
        self._address = address
        self._heard = heard
        self._links: dict[str, arp.Link] = {}
        self._own = arp.own_macs()

    def __enter__(self) -> _Asker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for interface in list(self._links):
            self._close(interface)

    def send(self) -> bool:
        """One probe on each. False: the question cannot be heard on the first, the service link, and so silence proves nothing."""
        if self._address is None:
            return False
        for interface in self._interfaces:
            try:
                link = self._open(interface)
                # An interface without a carrier takes frames and drops them.
                link.check()
                link.send(arp.request_frame(link.mac, arp.NOBODY, self._address))
            except (arp.LinkError, arp.ArpError):
                self._close(interface)
        return self._interfaces[0] in self._links

    def _open(self, interface: str) -> arp.Link:
        if (known := self._links.get(interface)) is not None:
            return known
        link = self._links[interface] = arp.Link(interface)
        asyncio.get_running_loop().add_reader(link.fileno(), self._receive, interface, link)
        return link

    def _close(self, interface: str) -> None:
        if (link := self._links.pop(interface, None)) is not None:
            asyncio.get_running_loop().remove_reader(link.fileno())
            _close_aside(link)

    def _receive(self, interface: str, link: arp.Link) -> None:
        try:
            for frame in link.receive():
                claim = arp.parse_claim(frame)
                if claim is not None and claim.address == self._address and claim.mac not in self._own:
                    self._heard(arp.mac_text(claim.mac), arp.is_announcement(frame))
        except arp.LinkError:
            self._close(interface)


def _echo(number: int, mark: bytes) -> bytes:
    """An ICMP echo request (RFC 792) that carries mark."""

    def pack(checksum: int) -> bytes:
        return _ECHO.pack(_ECHO_REQUEST, 0, checksum, int.from_bytes(mark[:2], "big"), number) + mark

    total = sum(struct.unpack(f"!{_ECHO.size // 2 + len(mark) // 2}H", pack(0)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return pack(~total & 0xFFFF)


def _close_aside(link: arp.Link) -> None:
    """Close it in a thread: until all processors have let go of a packet socket, tens of milliseconds, the caller waits."""
    asyncio.get_running_loop().run_in_executor(None, link.close)


def reaches(address: str, ports: Sequence[int], deadline: float) -> bool:
    """Whether the kernel at the address answers a TCP connection to any of the ports within ``deadline`` seconds, if only by refusing it."""
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as waiting:
        for port in ports:
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            error = sock.connect_ex((address, port))
            if error in (0, errno.ECONNREFUSED):
                return True
            if error == errno.EINPROGRESS:
                waiting.register(sock, selectors.EVENT_WRITE)
        until = time.monotonic() + deadline
        while waiting.get_map() and (left := until - time.monotonic()) > 0:
            for key, _events in waiting.select(left):
                sock = cast(socket.socket, key.fileobj)
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNREFUSED):
                    return True
                waiting.unregister(sock)
    return False


async def _within(timeout: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        pass
