# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""HTTP over TCP, as little of it as is needed: one request a connection, and nobody holds one for long."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Iterable
from http import HTTPStatus
from ipaddress import IPv4Address

from .api import Answer, Api, Refused, Request, check
from .names import MAX_CONTENT
from .settings import Network

CONNECTIONS = 64
# Of one request, head and body, and of its answer, in seconds.
RECEIVE, SEND = 10.0, 10.0
MAX_HEAD = 16 * 1024
# How long, and how much of it, a client may go on sending what nobody reads any more: were the connection closed at once, it would not see why.
LINGER, MAX_LINGER = 1.0, 4 * MAX_CONTENT

_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
_LENGTH = re.compile(r"[0-9]{1,12}")


def parse_head(head: bytes) -> Request:
    """The request line and the headers, names in small letters. Raises Refused."""
    line, *lines = head.decode("latin-1").split("\r\n")
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise Refused(400, "this is no request of HTTP/1.1")
    headers: dict[str, str] = {}
    for text in lines:
        header = _HEADER.fullmatch(text)
        if header is None or header[1].lower() in headers:
            raise Refused(400, "a header is malformed, or there twice")
        headers[header[1].lower()] = header[2].strip(" \t")
    return Request(found[1], found[2].partition("?")[0], headers)


def body_length(request: Request) -> int:
    """How long the body is going to be. Raises Refused."""
    if "transfer-encoding" in request.headers:
        raise Refused(501, "a body needs a Content-Length; there is no Transfer-Encoding here")
    text = request.headers.get("content-length")
    if text is None:
        if request.method == "PUT":
            raise Refused(411, "a body needs a Content-Length")
        return 0
    if not _LENGTH.fullmatch(text):
        raise Refused(400, f"Content-Length is {text!r}: must be a number")
    if int(text) > MAX_CONTENT:
        raise Refused(413, f"a configuration has {MAX_CONTENT} bytes at most")
    return int(text)


def rendered(answer: Answer) -> bytes:
    headers = {
        "Content-Type": answer.kind,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **answer.headers,
    }
    head = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
    return (head + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n").encode("latin-1", "replace") + answer.body


def log(text: str) -> None:
    """One line for the journal; what came from outside can neither break it nor look like another."""
    print(text.encode("ascii", "backslashreplace").decode(), file=sys.stderr, flush=True)


class Server:
    """Hears and answers. clients: the networks that may, besides this machine itself."""

    def __init__(self, api: Api, clients: Iterable[Network], receive: float = RECEIVE) -> None:
        self._api = api
        self._clients = tuple(clients)
        self._receive = receive
        self._open: set[asyncio.Task[None]] = set()

    def admits(self, address: str) -> bool:
        found = IPv4Address(address)
        return found.is_loopback or any(found in network for network in self._clients)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its begin to its end."""
        peer = writer.get_extra_info("peername")
        # A stranger costs nothing: no reading, no answer, no place.
        if peer is None or not self.admits(peer[0]) or len(self._open) >= CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._serve(reader, writer, peer[0])
        except OSError:
            # It has gone. What it asked for was carried out, or not: it will ask again.
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        request = None
        unread = False
        try:
            async with asyncio.timeout(self._receive):
                request = parse_head((await reader.readuntil(b"\r\n\r\n"))[:-4])
                check(request)
                length = body_length(request)
                if length and request.headers.get("expect", "").lower() == "100-continue":
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(length)
            answer = await self._api.answer(Request(request.method, request.path, request.headers, body))
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            answer, unread = Refused(431, f"the head of a request has {MAX_HEAD} bytes at most").answer, True
        except TimeoutError:
            answer, unread = Refused(408, f"the request was not complete within {self._receive:g} s").answer, True
        except Refused as refused:
            answer, unread = refused.answer, True
        if answer.status >= 400 or (request and request.method != "GET"):
            log(f"{address} {request.method if request else '?'} {request.path if request else '?'} {answer.status}")
        writer.write(rendered(answer))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEND):
                await writer.drain()
                writer.write_eof()
        if unread:
            await self._linger(reader)
        # Whoever reads slowly keeps its place no longer than this.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEND):
                writer.close()
                await writer.wait_closed()

    @staticmethod
    async def _linger(reader: asyncio.StreamReader) -> None:
        left = MAX_LINGER
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while left > 0 and (data := await reader.read(64 * 1024)):
                    left -= len(data)

    async def finish(self, seconds: float) -> None:
        """Let what is under way come to its end, for so long."""
        if self._open:
            await asyncio.wait(self._open, timeout=seconds)
