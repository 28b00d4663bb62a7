# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The question for a server's name, ``GET /device_uname``, and what an answer means."""

from __future__ import annotations

import re
import socket
import time

PATH = "/device_uname"
LARGEST = 4096
# What Linux takes for a host name, and what Heartbeat can put into a line of its own.
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


class NoName(Exception):
    """Nobody told a name; the text says who was asked, and why not."""


def question(address: str) -> bytes:
    """The request, in the form after whose answer the connection is closed."""
    return f"GET {PATH} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode()


def name_in(answer: bytes) -> str:
    """The name in a whole answer. Raises ValueError that says what it is instead."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3} ?[ -~]*)", head)
    if not status:
        raise ValueError("the answer is not HTTP")
    if not status[1].startswith(b"200"):
        raise ValueError(f"the answer is {status[1].decode()}")
    text = body.decode("ascii", errors="replace").removesuffix("\n")
    if not separator or len(answer) > LARGEST or not NAME.fullmatch(text):
        raise ValueError(f"the answer is {text[:80]!r}, which is no host name")
    return text


def ask(address: str, port: int, timeout: float) -> str:
    """The name that the server at this address tells within ``timeout`` seconds in all. Raises NoName."""
    deadline = time.monotonic() + timeout
    answer = b""
    try:
        with socket.create_connection((address, port), timeout) as connection:
            connection.sendall(question(address))
            while len(answer) <= LARGEST:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                if not (more := connection.recv(LARGEST)):
                    break
                answer += more
        return name_in(answer)
    except TimeoutError:
        raise NoName(f"{address} port {port} has told no name within {timeout:g} s") from None
    except (OSError, ValueError) as error:
        raise NoName(f"{address} port {port} tells no name: {getattr(error, 'strerror', None) or error}") from error
