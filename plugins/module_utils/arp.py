# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask who holds an IPv4 address on an Ethernet segment: ARP (RFC 826) with probes as in RFC 5227.

The frames are pure functions of their arguments. `Link` is the only part that touches an interface,
`ask` the only one that waits.
"""

from __future__ import annotations

import errno
import fcntl
import os
import selectors
import socket
import struct
import time
from contextlib import ExitStack
from ipaddress import AddressValueError, IPv4Address
from typing import Callable, Iterable, Iterator, NamedTuple, Sequence

ETH_P_ARP = 0x0806
NOBODY = IPv4Address(0)

_BROADCAST = b"\xff" * 6
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_HEADER = (1, 0x0800, 6, 4)  # Ethernet, IPv4, and the lengths of their addresses
_REQUEST, _REPLY = 1, 2
# The shortest Ethernet frame without its checksum. A network card pads by itself, a veth or a tap does not.
_SHORTEST = 60

# <linux/sockios.h>, <linux/if.h>, <linux/if_arp.h>, <linux/if_packet.h>: not in Python's socket module.
_SIOCGIFFLAGS, _SIOCGIFADDR, _SIOCGIFHWADDR = 0x8913, 0x8915, 0x8927
_IFF_UP, _IFF_RUNNING, _IFF_NOARP = 0x1, 0x40, 0x80
_ARPHRD_ETHER = 1
_SOL_PACKET, _PACKET_AUXDATA, _TP_STATUS_VLAN_VALID = 263, 8, 0x10
_AUXDATA = struct.Struct("=IIIHHHH")
_VLAN_ID = 0x0FFF
_INTERFACE_NAME_BYTES = 15
_FRAMES_AT_ONCE = 64


class ArpError(Exception):
    """Nothing can be asked at all: the input is wrong or this process may not send ARP."""


class LinkError(Exception):
    """One interface cannot be asked, or no longer. The text names it and says what is wrong with it."""


class Probe(NamedTuple):
    """Who holds `address` on the segment that `interface` is connected to?"""

    address: IPv4Address
    interface: str


class Claim(NamedTuple):
    """Somebody says: `address` is at `mac` (six bytes)."""

    address: IPv4Address
    mac: bytes


class Answer(NamedTuple):
    """What was heard about one probe.

    `macs` are other machines', `own_macs` are of interfaces of this machine; both sorted, lower case.
    With an `error` (text) that nobody answered proves nothing.
    """

    probe: Probe
    macs: list[str]
    own_macs: list[str]
    error: str | None


def parse_address(text: str) -> IPv4Address:
    """The address of one machine on an Ethernet segment. Raises `ArpError` for anything else."""
    try:
        address = IPv4Address(text)
    except AddressValueError:
        raise ArpError(f"{text!r} is not an IPv4 address") from None
    if address.is_unspecified or address.is_loopback or address.is_multicast or int(address) == 0xFFFFFFFF:
        raise ArpError(f"{text!r} is not the address of a machine on a network: ARP cannot ask for it")
    return address


def mac_text(mac: bytes) -> str:
    """Six bytes as `00:00:5e:00:53:23`."""
    return mac.hex(":")


def request_frame(sender_mac: bytes, sender: IPv4Address, target: IPv4Address) -> bytes:
    """A broadcast Ethernet frame that asks who has `target`.

    With `NOBODY` as sender it is an RFC 5227 probe, which no neighbour puts into its cache.
    """
    body = _ARP.pack(*_ARP_HEADER, _REQUEST, sender_mac, sender.packed, bytes(6), target.packed)
    return (_ETHERNET.pack(_BROADCAST, sender_mac, ETH_P_ARP) + body).ljust(_SHORTEST, b"\0")


def parse_claim(frame: bytes) -> Claim | None:
    """What an untagged Ethernet frame claims, or None if it is no claim, cut short or not sensible.

    A request claims its sender's address as much as a reply does (RFC 5227, 2.1.1). A probe, whose
    sender is 0.0.0.0, claims nothing: two machines may ask for the same address at the same time.
    """
    if len(frame) < _ETHERNET.size + _ARP.size:
        return None
    if _ETHERNET.unpack_from(frame)[2] != ETH_P_ARP:
        return None
    *header, operation, mac, sender, _target_mac, _target = _ARP.unpack_from(frame, _ETHERNET.size)
    if tuple(header) != _ARP_HEADER or operation not in (_REQUEST, _REPLY):
        return None
    if not any(mac) or mac[0] & 1 or not any(sender):
        return None
    return Claim(IPv4Address(sender), mac)


def send_times(timeout: float, count: int) -> list[float]:
    """When to send, in seconds from the start: at once, then evenly, the last one with time left for its answer."""
    return [timeout * turn / count for turn in range(count)]


def _ioctl(request: int, name: str) -> bytes:
    """The part of `struct ifreq` after the name, for the interface `name`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return fcntl.ioctl(sock, request, struct.pack("16s24x", os.fsencode(name)))[16:]


def _ethernet_mac(name: str) -> bytes | None:
    family, mac = struct.unpack_from("=H6s", _ioctl(_SIOCGIFHWADDR, name))
    return mac if family == _ARPHRD_ETHER else None


def own_macs() -> set[bytes]:
    """The hardware addresses of every Ethernet interface in this network namespace."""
    found = set()
    for _index, name in socket.if_nameindex():
        try:
            found.add(_ethernet_mac(name))
        except OSError as error:
            if error.errno != errno.ENODEV:  # gone since it was listed
                raise
    return {mac for mac in found if mac is not None}


class Link:
    """An Ethernet interface (also a VLAN, a bond or a bridge), opened to send and hear ARP.

    Raises `LinkError` when it is not there, not usable or goes away, `ArpError` without the right to
    open a packet socket.
    """

    def __init__(self, name: str) -> None:
        try:
            if len(os.fsencode(name)) > _INTERFACE_NAME_BYTES:
                raise OSError(errno.ENODEV, "name too long")
            # The kernel's own name, as `name` may also be an alternative name or a label such as eth0:1.
            self.name = socket.if_indextoname(socket.if_nametoindex(name))
        except (OSError, ValueError):
            raise LinkError(f"there is no interface {name!r}") from None
        mac = self.check()
        try:
            # Protocol 0 hears nothing: bound later, the socket never sees a frame of another interface.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except OSError as error:
            raise ArpError(f"cannot open a packet socket, which needs root or CAP_NET_RAW: {error.strerror}") from error
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            self._socket.bind((self.name, ETH_P_ARP))
        except OSError as error:
            self._socket.close()
            raise self._error(error) from error
        self.mac = mac

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def _error(self, error: OSError) -> LinkError:
        return LinkError(f"interface {self.name}: {error.strerror}")

    def check(self) -> bytes:
        """Raise `LinkError` unless a frame could be sent and answered now. Returns the hardware address."""
        try:
            (flags,) = struct.unpack_from("=H", _ioctl(_SIOCGIFFLAGS, self.name))
            mac = _ethernet_mac(self.name)
        except OSError as error:
            raise self._error(error) from error
        if mac is None or flags & _IFF_NOARP:
            raise LinkError(f"interface {self.name} is no Ethernet interface with ARP")
        if not flags & _IFF_UP:
            raise LinkError(f"interface {self.name} is down")
        if not flags & _IFF_RUNNING:
            raise LinkError(f"interface {self.name} has no carrier")
        return mac

    def address_towards(self, target: IPv4Address) -> IPv4Address:
        """The address of this interface that the kernel would use to speak to `target`. Sends nothing."""
        try:
            _ioctl(_SIOCGIFADDR, self.name)
        except OSError as error:
            raise LinkError(f"interface {self.name} has no IPv4 address to ask from") from error
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(self.name))
                sock.connect((str(target), 9))
                source = IPv4Address(sock.getsockname()[0])
        except OSError as error:
            raise LinkError(f"interface {self.name} has no address to ask for {target} from: {error.strerror}") from error
        if source == target:
            raise LinkError(f"this machine holds {target} itself: asking from it would announce it")
        return source

    def send(self, frame: bytes) -> None:
        try:
            self._socket.send(frame)
        except OSError as error:
            raise self._error(error) from error

    def receive(self) -> Iterator[bytes]:
        """The untagged frames that are waiting, but only so many that a flood cannot outlast a deadline."""
        for _turn in range(_FRAMES_AT_ONCE):
            try:
                frame, ancillary, _flags, _address = self._socket.recvmsg(2048, socket.CMSG_SPACE(_AUXDATA.size))
            except BlockingIOError:
                return
            except OSError as error:
                raise self._error(error) from error
            if not any(_is_tagged(*item) for item in ancillary):
                yield frame


def _is_tagged(level: int, kind: int, data: bytes) -> bool:
    """Whether the kernel took a VLAN tag off this frame: it then belongs to another segment.

    Such frames reach a socket on the parent interface too, looking like untagged ones.
    """
    if (level, kind) != (_SOL_PACKET, _PACKET_AUXDATA) or len(data) < _AUXDATA.size:
        return False
    status, tci = _AUXDATA.unpack_from(data)[0], _AUXDATA.unpack_from(data)[5]
    return bool(status & _TP_STATUS_VLAN_VALID and tci & _VLAN_ID)


def ask(
    probes: Sequence[Probe],
    timeout: float,
    count: int,
    from_interface: bool = False,
    wait_for_all: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> list[Answer]:
    """Ask for all `probes` at the same time, within `timeout` seconds in all; one answer a probe, in their order.

    Each is sent `count` times while nobody has answered it. It returns as soon as another machine has
    answered every probe; with `wait_for_all` it asks `count` times and listens until the end, so that a
    second machine with the same address is heard too. `from_interface` asks from the interface's own
    address, not from 0.0.0.0. Raises `ArpError` when nothing can be asked.
    """
    heard: dict[Probe, set[bytes]] = {probe: set() for probe in probes}
    errors: dict[Probe, str] = {}
    mine = own_macs()

    def give_up(interface: str, error: LinkError) -> None:
        for probe in heard:
            if probe.interface == interface:
                errors.setdefault(probe, str(error))

    def waiting() -> list[Probe]:
        return [probe for probe in heard if probe not in errors and (wait_for_all or not heard[probe] - mine)]

    def listen(links: Iterable[tuple[str, Link]]) -> None:
        for interface, link in links:
            try:
                for claim in filter(None, map(parse_claim, link.receive())):
                    probe = Probe(claim.address, interface)
                    if probe in heard:
                        heard[probe].add(claim.mac)
            except LinkError as error:
                give_up(interface, error)
                selector.unregister(link)
                del open_links[interface]

    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        open_links: dict[str, Link] = {}
        for interface in dict.fromkeys(probe.interface for probe in heard):
            try:
                open_links[interface] = stack.enter_context(Link(interface))
                selector.register(open_links[interface], selectors.EVENT_READ, interface)
            except LinkError as error:
                give_up(interface, error)
        frames: dict[Probe, bytes] = {}
        for probe in waiting():
            link = open_links[probe.interface]
            try:
                sender = link.address_towards(probe.address) if from_interface else NOBODY
            except LinkError as error:
                errors[probe] = str(error)
            else:
                frames[probe] = request_frame(link.mac, sender, probe.address)

        start = clock()
        due = send_times(timeout, count)
        while (now := clock() - start) < timeout and waiting():
            if due and due[0] <= now:
                due = [moment for moment in due if moment > now]
                for probe in waiting():
                    try:
                        open_links[probe.interface].send(frames[probe])
                    except LinkError as error:
                        errors[probe] = str(error)
            ready = selector.select(min(due + [timeout]) - now)
            listen([(key.data, open_links[key.data]) for key, _events in ready])
        listen(list(open_links.items()))
        for interface, link in open_links.items():
            try:
                link.check()
            except LinkError as error:
                give_up(interface, error)

    def texts(macs: set[bytes]) -> list[str]:
        return sorted(mac_text(mac) for mac in macs)

    return [
        Answer(probe, texts(heard[probe] - mine), texts(heard[probe] & mine), errors.get(probe)) for probe in probes
    ]
