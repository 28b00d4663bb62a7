# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The kernel's interfaces and their IPv4 addresses, through rtnetlink(7): no process is started for it.

Every call is one exchange with the kernel and takes well below a millisecond.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface

# <linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_addr.h>, <linux/if.h>: not in Python's socket module.
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP_INTR, _NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
_NLM_F_EXCL, _NLM_F_CREATE = 0x200, 0x400
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR = 0x1, 0x10
_IFLA_IFNAME, _IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 3, 1, 2, 4
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, changed flags
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ERROR = struct.Struct("=i")
_ATTRIBUTE_TYPE = 0x3FFF  # without the flags of nested and of big-endian attributes
_ANSWER_BYTES = 1 << 18
_PATIENCE = 5.0
_ATTEMPTS = 10


@dataclass(frozen=True)
class Link:
    """An interface; carrier: it is up and a frame could leave it."""

    index: int
    name: str
    carrier: bool


@dataclass(frozen=True)
class Held:
    """An address on the interface with this index."""

    index: int
    address: IPv4Interface


def links() -> list[Link]:
    """Every interface of this network namespace."""
    return [_link(body) for kind, body in _dump(_RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)) if kind == _RTM_NEWLINK]


def holders(address: IPv4Address) -> list[Held]:
    """Where this network namespace has the address."""
    dump = _dump(_RTM_GETADDR, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0))
    # Most of an answer is about other addresses: those are not taken apart.
    found = [_held(body) for kind, body in dump if kind == _RTM_NEWADDR and address.packed in body]
    return [held for held in found if held is not None and held.address.ip == address]


def add_address(index: int, address: IPv4Interface) -> None:
    """Give an interface an address. That it has it already is no error; raises OSError for everything else."""
    attributes = {_IFA_LOCAL: address.packed, _IFA_ADDRESS: address.packed}
    if address.network.prefixlen < 31:
        attributes[_IFA_BROADCAST] = address.network.broadcast_address.packed
    with suppress(FileExistsError):
        _change(_RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_EXCL, index, address, attributes)


def delete_address(index: int, address: IPv4Interface) -> None:
    """Take an address off an interface. That neither is there is no error; raises OSError for everything else."""
    try:
        _change(_RTM_DELADDR, 0, index, address, {_IFA_LOCAL: address.packed})
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
            raise


class Monitor:
    """Tells of interfaces that change, and of IPv4 addresses that come and go, from the moment that it is made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def changes(self) -> list[Link | Held] | None:
        """What has changed, oldest first: interfaces as they are now, one that is gone without a carrier, and addresses, there now or not.

        None: too much to tell, ask for links() and holders().
        """
        found: list[Link | Held] = []
        while True:
            try:
                data = self._socket.recv(_ANSWER_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                return None
            for kind, _flags, body in _messages(data):
                # A bridge tells of its ports in messages of another family, which say nothing of a carrier.
                if kind in (_RTM_NEWLINK, _RTM_DELLINK) and body[0] == socket.AF_UNSPEC:
                    link = _link(body)
                    found.append(link if kind == _RTM_NEWLINK else replace(link, carrier=False))
                elif kind in (_RTM_NEWADDR, _RTM_DELADDR) and (held := _held(body)) is not None:
                    found.append(held)

    def close(self) -> None:
        self._socket.close()


def _link(body: bytes) -> Link:
    _family, _type, index, flags, _changed = _LINK.unpack_from(body)
    name = _attributes(body[_LINK.size :]).get(_IFLA_IFNAME, b"").rstrip(b"\0")
    return Link(index, os.fsdecode(name), flags & (_IFF_UP | _IFF_LOWER_UP) == _IFF_UP | _IFF_LOWER_UP)


def _held(body: bytes) -> Held | None:
    """None for one that is no address: 0.0.0.0 is told without any."""
    _family, prefix, _flags, _scope, index = _ADDRESS.unpack_from(body)
    attributes = _attributes(body[_ADDRESS.size :])
    # On a point-to-point interface _IFA_ADDRESS is the other end's.
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    return Held(index, IPv4Interface((IPv4Address(packed), prefix))) if packed else None


def _change(kind: int, flags: int, index: int, address: IPv4Interface, attributes: dict[int, bytes]) -> None:
    body = _ADDRESS.pack(socket.AF_INET, address.network.prefixlen, 0, 0, index)
    for name, value in attributes.items():
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), name) + value
    for _answer in _exchange(kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, body):
        pass


def _dump(kind: int, body: bytes) -> list[tuple[int, bytes]]:
    for _attempt in range(_ATTEMPTS):
        answer = list(_exchange(kind, _NLM_F_REQUEST | _NLM_F_DUMP, body))
        # Something changed while the kernel was listing: what it told may be neither the old nor the new.
        if not any(flags & _NLM_F_DUMP_INTR for _kind, flags, _body in answer):
            break
    return [(answered, its_body) for answered, _flags, its_body in answer]


def _exchange(kind: int, flags: int, body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Ask the kernel; (type, flags, body) of what it answers. Raises OSError as it says."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(_PATIENCE)
        sock.bind((0, 0))
        sock.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        while True:
            for answered, its_flags, its_body in _messages(sock.recv(_ANSWER_BYTES)):
                if answered == _NLMSG_ERROR:
                    (code,) = _ERROR.unpack_from(its_body)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield answered, its_flags, its_body
                if answered == _NLMSG_DONE:
                    return


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, flags, body) of every message in a datagram."""
    while len(data) >= _HEADER.size:
        length, kind, flags, _number, _port = _HEADER.unpack_from(data)
        yield kind, flags, data[_HEADER.size : length]
        data = data[_aligned(length) :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        found[kind & _ATTRIBUTE_TYPE] = data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]
    return found


def _aligned(length: int) -> int:
    return (length + 3) & ~3
