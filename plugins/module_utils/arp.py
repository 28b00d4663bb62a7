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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import AddressValueError, IPv4Address
from typing import NamedTuple

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
_PACKET_HOST, _PACKET_BROADCAST = 0, 1
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


def announcement_frames(mac: bytes, address: IPv4Address) -> list[bytes]:
    """Broadcast Ethernet frames that tell every neighbour: `address` is at `mac`.

    The two forms of a gratuitous ARP, request and reply: some neighbours heed only the one, some only the other.
    """
    return [
        (_ETHERNET.pack(_BROADCAST, mac, ETH_P_ARP) + body).ljust(_SHORTEST, b"\0")
        for body in (
            _ARP.pack(*_ARP_HEADER, _REQUEST, mac, address.packed, bytes(6), address.packed),
            _ARP.pack(*_ARP_HEADER, _REPLY, mac, address.packed, mac, address.packed),
        )
    ]


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


def is_announcement(frame: bytes) -> bool:
    """Whether a claim was made unasked, by somebody who takes the address: its sender and its target are the same."""
    *_header, _mac, sender, _target_mac, target = _ARP.unpack_from(frame, _ETHERNET.size)
    return bool(sender == target)


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


def _sysfs(name: str, attribute: str) -> str | None:
    """What the kernel says in /sys about the interface `name`, None if nothing."""
    try:
        with open(f"/sys/class/net/{name}/{attribute}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def _master(name: str) -> str | None:
    """The bridge or bond that the interface `name` is a part of."""
    try:
        return os.path.basename(os.readlink(f"/sys/class/net/{name}/master"))
    except OSError:
        return None


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
            self._socket.bind((self.name, ETH_P_ARP))
        except OSError as error:
            self._socket.close()
            raise self._trouble(error) from error
        self.mac = mac

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def _trouble(self, error: OSError) -> LinkError:
        """What is wrong with the interface, in the words of `check` if it knows: the kernel's are vague."""
        try:
            self.check()
        except LinkError as better:
            return better
        return LinkError(f"interface {self.name}: {error.strerror}")

    def check(self) -> bytes:
        """Raise `LinkError` unless a frame could be sent and answered now. Returns the hardware address."""
        carrier = _sysfs(self.name, "carrier")
        try:
            (flags,) = struct.unpack_from("=H", _ioctl(_SIOCGIFFLAGS, self.name))
            mac = _ethernet_mac(self.name)
        except OSError as error:
            raise LinkError(f"interface {self.name}: {error.strerror}") from error
        if mac is None or flags & _IFF_NOARP:
            raise LinkError(f"interface {self.name} is no Ethernet interface with ARP")
        if not flags & _IFF_UP:
            raise LinkError(f"interface {self.name} is down")
        # The flag follows the carrier up to a second later, the file at once.
        if carrier == "0" or not flags & _IFF_RUNNING:
            raise LinkError(f"interface {self.name} has no carrier")
        if (master := _master(self.name)) is not None:
            raise LinkError(f"interface {self.name} is a part of {master}, which gets what it receives: ask on {master}")
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
            raise self._trouble(error) from error

    def receive(self) -> Iterator[bytes]:
        """The frames that are waiting, but only so many that a flood cannot outlast a deadline."""
        for _turn in range(_FRAMES_AT_ONCE):
            try:
                frame, (name, _protocol, kind, *_rest) = self._socket.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError as error:
                raise self._trouble(error) from error
            # A frame of a VLAN is another segment's. It is heard here too, without its tag, but either under the
            # name of the VLAN's interface or, where there is none, as one for another host.
            if name == self.name and kind in (_PACKET_HOST, _PACKET_BROADCAST):
                yield frame


class _Search:
    """What is known about each probe, while it is asked."""

    def __init__(self, probes: Sequence[Probe], wait_for_all: bool) -> None:
        self._heard: dict[Probe, set[bytes]] = {probe: set() for probe in probes}
        self._errors: dict[Probe, str] = {}
        self._mine = own_macs()
        self._wait_for_all = wait_for_all

    def on(self, interface: str) -> list[Probe]:
        return [probe for probe in self._heard if probe.interface == interface]

    def waiting(self) -> list[Probe]:
        """The probes that may still get an answer that is wanted."""
        left = [probe for probe in self._heard if probe not in self._errors]
        return left if self._wait_for_all else [probe for probe in left if not self._heard[probe] - self._mine]

    @contextmanager
    def ends_at_trouble(self, *probes: Probe) -> Iterator[None]:
        """Take the first `LinkError` as the error of these probes."""
        try:
            yield
        except LinkError as error:
            for probe in probes:
                self._errors.setdefault(probe, str(error))

    def hear(self, interface: str, link: Link) -> None:
        with self.ends_at_trouble(*self.on(interface)):
            for frame in link.receive():
                claim = parse_claim(frame)
                if claim is not None and (probe := Probe(claim.address, interface)) in self._heard:
                    self._heard[probe].add(claim.mac)

    def answer(self, probe: Probe) -> Answer:
        heard = self._heard[probe]
        others, own = (sorted(map(mac_text, macs)) for macs in (heard - self._mine, heard & self._mine))
        return Answer(probe, others, own, self._errors.get(probe))


def ask(
    probes: Sequence[Probe],
    timeout: float,
    count: int,
    from_interface: bool = False,
    wait_for_all: bool = False,
) -> list[Answer]:
    """Ask for all `probes` at the same time, within `timeout` seconds in all; one answer a probe, in their order.

    Each is sent `count` times while nobody has answered it. It returns as soon as another machine has
    answered every probe; with `wait_for_all` it asks `count` times and listens until the end, so that a
    second machine with the same address is heard too. `from_interface` asks from the interface's own
    address, not from 0.0.0.0. Raises `ArpError` when nothing can be asked.
    """
    search = _Search(probes, wait_for_all)
    links: dict[str, Link] = {}
    frames: dict[Probe, bytes] = {}
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for interface in {probe.interface for probe in probes}:
            with search.ends_at_trouble(*search.on(interface)):
                links[interface] = stack.enter_context(Link(interface))
                selector.register(links[interface], selectors.EVENT_READ, interface)
        for probe in search.waiting():
            link = links[probe.interface]
            with search.ends_at_trouble(probe):
                sender = link.address_towards(probe.address) if from_interface else NOBODY
                frames[probe] = request_frame(link.mac, sender, probe.address)

        start = time.monotonic()
        due = send_times(timeout, count)
        while (now := time.monotonic() - start) < timeout and search.waiting():
            if due and due[0] <= now:
                due = [moment for moment in due if moment > now]
                for probe in search.waiting():
                    with search.ends_at_trouble(probe):
                        links[probe.interface].send(frames[probe])
            for key, _events in selector.select(min([*due, timeout]) - now):
                search.hear(key.data, links[key.data])
        for interface, link in links.items():
            search.hear(interface, link)
            # Silence proves something only if the question could be heard.
            with search.ends_at_trouble(*search.on(interface)):
                link.check()
    return [search.answer(probe) for probe in probes]
