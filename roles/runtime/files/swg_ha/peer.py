# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The peer link: what the two servers' managers tell and ask each other, over every network that joins them.

One full-duplex TLS connection a link. A frame is a length of 4 bytes (big endian) and a JSON object of at most LARGEST bytes:

    {"hello": {"version", "from", "to", "life", "beat"}}   the first one each way; life names the run of the program
    {"beat": n, "status": {...}}                           n grows when the status changes
    {"request": n, "kind": "...", "body": {...}}
    {"reply": n, "body": {...}} or {"reply": n, "code": "...", "text": "..."}

A request and its reply travel over every live link, and the first copy counts: one link's silent death delays nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import secrets
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from .text import one_line
from .trust import Trust

VERSION = 1
LARGEST = 64 * 1024
# More than this unsent means that the other side does not read.
UNSENT = 4 * LARGEST
NEWCOMERS = 4
SERVED_AT_ONCE = 16
ANSWERS_KEPT = 32
SILENT_BEATS = 3
# Seconds after which a beat tells the status anew although nobody said that it may have changed.
REFRESH = 2.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
# A lost SYN is sent again after one second: a new attempt is quicker than its next one after three.
LONGEST_CONNECT = 1.0
COMPLAINTS_APART = 5.0

IP_FREEBIND = 15
LENGTH = struct.Struct("!I")

log = logging.getLogger("swg_ha.peer")


class PeerError(Exception):
    """A request brought no answer.

    code: NOT_CONNECTED (it was not sent), TIMEOUT and LOST (it may have been carried out), REFUSED (it was answered: reason is the
    code of the peer's PeerRefused, BUSY for too many requests at once, or ERROR when its handler failed). The text is for people.
    """

    def __init__(self, code: str, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason


class PeerRefused(Exception):
    """What a handler raises to refuse the peer's request: a code for programs and one line for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def _frame(message: dict[str, Any]) -> bytes:
    """The message as it travels. ValueError or TypeError when it cannot."""
    text = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    if len(text) > LARGEST:
        raise ValueError(f"{len(text)} bytes do not fit into a message of the peer link, {LARGEST} do")
    return LENGTH.pack(len(text)) + text


def _refusal(number: int, code: str, text: str) -> bytes:
    return _frame({"reply": number, "code": code, "text": text})


class _Connection(asyncio.BufferedProtocol):
    """One TLS connection, cut into frames. It is the owner who understands them."""

    def __init__(self, owner: PeerLink, link: _Link) -> None:
        loop = asyncio.get_running_loop()
        self._owner = owner
        self._room = bytearray(LENGTH.size + LARGEST)
        self._view = memoryview(self._room)
        self._filled = 0
        self._transport: asyncio.Transport | None = None
        self.link = link
        self.certificate = b""
        self.life = ""
        # The reason why not, or None for a proper hello.
        self.greeted: asyncio.Future[str | None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.dropped = False
        self.heard_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self.dropped:
            transport.abort()
            return
        self.certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self._owner._made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        start = 0
        while not self.dropped and self._filled - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._room, start)
            if size > LARGEST:
                self.drop(f"sent a message of {size} bytes, {LARGEST} are allowed")
                return
            end = start + LENGTH.size + size
            if end > self._filled:
                break
            frame = bytes(self._view[start + LENGTH.size : end])
            start = end
            self._owner._take(self, frame)
        if start:
            self._view[: self._filled - start] = self._room[start : self._filled]
            self._filled -= start

    def send(self, frame: bytes) -> None:
        if self.dropped or self._transport is None:
            return
        self._transport.write(frame)
        if self._transport.get_write_buffer_size() > UNSENT:
            self.drop("does not read what it is sent")

    def drop(self, reason: str) -> None:
        """End the connection now, whatever state it is in."""
        if self.dropped:
            return
        self.dropped = True
        if not self.greeted.done():
            self.greeted.set_result(reason)
        if self._transport is not None:
            self._transport.abort()
        self._owner._dropped(self, reason)

    def eof_received(self) -> None:
        self.drop("closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop(one_line(exc) if exc else "closed the connection")
        if not self.gone.done():
            self.gone.set_result(None)


class _Link:
    """A network that joins the servers, with the connection over it while that lives."""

    def __init__(self, address: str, peer_address: str) -> None:
        self.address = address
        self.peer_address = peer_address
        self.connection: _Connection | None = None
        self.keeper: asyncio.Task[None] | None = None
        self.newcomers: list[asyncio.Task[None]] = []
        self.problem: str | None = None
        self._logged: str | None = None
        self._quiet_until = 0.0

    def complain(self, text: str) -> None:
        """Keep a reason that needs people; log it when it is new, and seldom, because a stranger can provoke it."""
        self.problem = text
        now = asyncio.get_running_loop().time()
        if text != self._logged and now >= self._quiet_until:
            self._logged, self._quiet_until = text, now + COMPLAINTS_APART
            log.warning("peer link %s - %s: %s", self.address, self.peer_address, text)

    def good(self) -> None:
        """What was wrong is over."""
        self.problem = self._logged = None


class PeerLink:
    """The connections to the peer's manager. To be made and used in one running event loop.

    pairs: (own address, the peer's address), one a link. dial: whether this side connects or listens.
    beat: seconds between two messages; a link that is silent for 3 of the peer's beats is down.
    patience: seconds that a handshake may last. status: what a beat carries; handle: answers the peer's requests, by kind and body,
    or raises PeerRefused. heard: is called after a link came up or went down and after a new status.
    """

    def __init__(
        self,
        *,
        node: str,
        peer_node: str,
        pairs: Sequence[tuple[str, str]],
        port: int,
        trust: Path,
        dial: bool,
        beat: float,
        patience: float,
        status: Callable[[], dict[str, Any]],
        handle: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]],
        heard: Callable[[], None],
    ) -> None:
        self._node = node
        self._peer_node = peer_node
        self._links = [_Link(*pair) for pair in pairs]
        self._port = port
        self._trust = Trust(trust, server_side=not dial)
        self._dial = dial
        self._beat = beat
        self._patience = patience
        self._status = status
        self._handle = handle
        self._heard = heard

        self._life = secrets.token_hex(8)
        self._hello = _frame({"hello": {"version": VERSION, "from": node, "to": peer_node, "life": self._life, "beat": beat}})
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[_Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._running = False

        self._said = ""
        self._said_number = 0
        self._said_frame = _frame({"beat": 0, "status": None})
        self._unsaid = ""
        self._asked_at = -REFRESH
        self._asked_number = 0
        self._pending: dict[int, tuple[bytes, asyncio.Future[dict[str, Any]], str]] = {}

        self._peer_life = ""
        self._peer_number = -1
        self._peer_frame = b""
        self._peer_beat = beat
        self._serving = 0
        self._answers: dict[int, bytes | None] = {}
        self._forgotten = 0

        self.last_heard: float | None = None
        self.peer_status: dict[str, Any] | None = None

    @property
    def links(self) -> dict[str, bool]:
        """By the peer's address: is the connection of this link up."""
        return {link.peer_address: link.connection is not None for link in self._links}

    @property
    def next_beat(self) -> float | None:
        """When it is due, by the loop's clock; None before the start."""
        return None if self._timer is None else self._timer.when()

    @property
    def connected(self) -> bool:
        """Is any link up."""
        return any(link.connection for link in self._links)

    @property
    def problem(self) -> str | None:
        """What keeps links down and needs people, or None. A peer that is merely away is no problem of the link."""
        down = [f"{link.peer_address} {link.problem}" for link in self._links if link.problem and not link.connection]
        return "; ".join(filter(None, [self._trust.problem, *down])) or None

    async def start(self) -> None:
        """Begin to connect or to listen, and to beat. Nothing that is missing now is an error: it is tried again."""
        self._running = True
        self._trust.refresh()
        for link in self._links:
            self._keep(link)
        self._tick()
        # The keepers' first step: after it, this side listens.
        await asyncio.sleep(0)

    async def close(self) -> None:
        """End every connection and every task, with what they wait for."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        for connection in list(self._open):
            connection.drop("is no longer wanted")
        if waiting := [*self._tasks, *(connection.gone for connection in self._open)]:
            await asyncio.wait(waiting, timeout=self._patience)

    def poke(self) -> None:
        """Try at once what is down: a carrier has come back."""
        if self._running and self._dial:
            for link in self._links:
                if link.connection is None:
                    self._keep(link)

    def tell(self) -> None:
        """Send the status now. The next beat does not wait for it."""
        self._asked_at = asyncio.get_running_loop().time()
        self._send(self._beat_frame())

    def outdate(self) -> None:
        """The status may have changed: the next beat asks for it. To ask for each would be most of the work of a server at rest."""
        self._asked_at = -REFRESH

    def _beat_frame(self) -> bytes:
        """The status as it is now, or the former one if that cannot be told: a link without beats counts as dead."""
        try:
            said = json.dumps(status := self._status(), separators=(",", ":"), sort_keys=True)
            if said != self._said:
                frame = _frame({"beat": self._said_number + 1, "status": status})
                self._said, self._said_number, self._said_frame = said, self._said_number + 1, frame
            self._unsaid = ""
        except Exception as error:
            if (text := f"{type(error).__name__}: {one_line(error)}") != self._unsaid:
                self._unsaid = text
                log.exception("cannot tell the peer the status; it gets the former one")
        return self._said_frame

    async def request(self, kind: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The peer's answer. PeerError when there is none within timeout seconds; ValueError for a body that is too large.

        The peer carries it out at most once, over however many links it gets it.
        """
        self._asked_number += 1
        number = self._asked_number
        frame = _frame({"request": number, "kind": kind, "body": body})
        if not self.connected:
            raise PeerError(
                "NOT_CONNECTED",
                f"{self._peer_node} was not asked to {kind}: no peer link is up. "
                f"{self.problem or f'See whether ha_manager runs there and port {self._port} is open between the servers'}",
            )
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[number] = frame, future, kind
        try:
            self._send(frame)
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            text = f"{self._peer_node} has not answered {kind} within {timeout:g} s and may still do it: see `ha status` there"
            raise PeerError("TIMEOUT", text) from None
        finally:
            del self._pending[number]

    # Connections: how they come about

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _keep(self, link: _Link) -> None:
        if link.keeper is not None:
            link.keeper.cancel()
        link.keeper = self._spawn(self._kept(link))

    async def _kept(self, link: _Link) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while True:
            begun = loop.time()
            try:
                await (self._call(link) if self._dial else self._listen(link))
            except OSError as error:
                log.debug("peer link %s - %s: %s", link.address, link.peer_address, one_line(error))
            except Exception:
                log.exception("peer link %s - %s", link.address, link.peer_address)
            if loop.time() - begun > 2 * LONGEST_CONNECT:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _call(self, link: _Link) -> None:
        """Connect, and return when that connection has ended. OSError when the peer cannot be reached."""
        sock = self._socket()
        try:
            try:
                sock.bind((link.address, 0))
            except OSError as error:
                link.complain(f"cannot be called from {link.address}: {one_line(error)}. Give this server that address")
                raise
            async with asyncio.timeout(LONGEST_CONNECT):
                await asyncio.get_running_loop().sock_connect(sock, (link.peer_address, self._port))
        except BaseException:
            sock.close()
            raise
        if connection := await self._meet(link, sock):
            await asyncio.wait([connection.gone])

    async def _listen(self, link: _Link) -> None:
        """Accept connections over the link until that fails with OSError."""
        loop = asyncio.get_running_loop()
        with self._socket() as listener:
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # An address that is not there yet must not keep the manager from starting.
                listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
                listener.bind((link.address, self._port))
                listener.listen(128)
            except OSError as error:
                link.complain(f"cannot reach this server: listening at {link.address}:{self._port} fails: {one_line(error)}")
                raise
            link.good()
            while True:
                sock, (address, _port) = await loop.sock_accept(listener)
                if address == link.peer_address:
                    self._admit(link, sock)
                else:
                    log.debug("peer link %s - %s: %s turned away", link.address, link.peer_address, address)
                    # No state is kept for a stranger: a reset leaves no TIME_WAIT.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.close()
                # With connections waiting, accepting never waits by itself: a flood would have the loop for itself.
                await asyncio.sleep(0)

    def _admit(self, link: _Link, sock: socket.socket) -> None:
        """Let it prove that it is the peer's manager. The oldest of too many gives way: the peer itself needs milliseconds."""
        if len(link.newcomers) >= NEWCOMERS:
            link.newcomers.pop(0).cancel()
        newcomer = self._spawn(self._welcome(link, sock))
        link.newcomers.append(newcomer)
        newcomer.add_done_callback(lambda done: link.newcomers.remove(done) if done in link.newcomers else None)

    async def _welcome(self, link: _Link, sock: socket.socket) -> None:
        await self._meet(link, sock)

    def _socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        for option, value in {
            socket.TCP_NODELAY: 1,
            socket.TCP_KEEPIDLE: 1,
            socket.TCP_KEEPINTVL: 1,
            socket.TCP_USER_TIMEOUT: int(1000 * SILENT_BEATS * self._beat),
        }.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock

    async def _meet(self, link: _Link, sock: socket.socket) -> _Connection | None:
        """TLS and the greetings over a new TCP connection; None, with the reason in the link's problem, when that fails."""
        loop = asyncio.get_running_loop()
        self._trust.refresh()
        context = self._trust.context
        if context is None:
            sock.close()
            return None
        connection = _Connection(self, link)
        reason: str | None = "is no longer wanted"
        try:
            async with asyncio.timeout(self._patience):
                if self._dial:
                    # A bare address makes no SNI, and check_hostname is off: the certificate is pinned.
                    await loop.create_connection(
                        lambda: connection,
                        sock=sock,
                        ssl=context,
                        server_hostname=link.peer_address,
                        ssl_handshake_timeout=self._patience,
                        ssl_shutdown_timeout=self._patience,
                    )
                else:
                    await loop.connect_accepted_socket(
                        lambda: connection,
                        sock,
                        ssl=context,
                        ssl_handshake_timeout=self._patience,
                        ssl_shutdown_timeout=self._patience,
                    )
                reason = await connection.greeted
        except TimeoutError:
            reason = f"did not finish TLS and the greeting within {self._patience:g} s"
        except ssl.SSLCertVerificationError:
            reason = self._stranger()
        except ssl.SSLError as error:
            reason = f"failed in TLS: {one_line(error)}"
        except OSError:
            reason = self._left()
        finally:
            if reason is not None:
                connection.drop(reason)
                # asyncio forgets a socket whose handshake is cancelled before it has begun.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        if reason is not None:
            link.complain(reason)
            return None
        return connection

    def _stranger(self) -> str:
        return (
            f"shows a certificate that is not {self._trust.folder / 'peer.crt'}. "
            "Run the playbook enable_ha again: it introduces the servers to each other"
        )

    def _left(self) -> str:
        return f"left before it greeted: its log says why. Does it have this server's certificate as its {self._trust.folder / 'peer.crt'}?"

    # Connections: what happens on them

    def _made(self, connection: _Connection) -> None:
        self._open.add(connection)
        connection.gone.add_done_callback(lambda _: self._open.discard(connection))
        if connection.certificate != self._trust.pin:
            connection.drop(self._stranger())
        connection.send(self._hello)

    def _dropped(self, connection: _Connection, reason: str) -> None:
        link = connection.link
        if link.connection is not connection:
            return
        link.connection = None
        if self._running:
            log.warning("peer link %s - %s is down: %s %s", link.address, link.peer_address, self._peer_node, reason)
        if not self.connected:
            self._lose("no peer link is left")
        self._report()

    def _drop_the_silent(self) -> None:
        limit, now = SILENT_BEATS * self._peer_beat, asyncio.get_running_loop().time()
        for link in self._links:
            if link.connection and now >= link.connection.heard_at + limit:
                link.connection.drop(f"is silent for {limit:g} s")

    def _report(self) -> None:
        if self._running:
            try:
                self._heard()
            except Exception:
                log.exception("what is to be done with the peer's news has failed")

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._beat, self._tick)
        # With every beat, as each wake-up of its own would cost more than the look.
        self._drop_the_silent()
        if loop.time() < self._asked_at + REFRESH:
            self._send(self._said_frame)
            return
        self._trust.refresh()
        if all(link.connection for link in self._links):
            # One at a time, and only while the others carry on: a renewal is no outage.
            for link in self._links:
                if link.connection and link.connection.certificate != self._trust.pin:
                    link.connection.drop("has a new certificate: connecting anew")
                    break
        self.tell()

    def _send(self, frame: bytes) -> None:
        for link in self._links:
            if link.connection:
                link.connection.send(frame)

    # Messages

    def _take(self, connection: _Connection, frame: bytes) -> None:
        """One message of the connection. Whatever does not belong to the protocol ends it."""
        now = asyncio.get_running_loop().time()
        live = connection.link.connection is connection
        connection.heard_at = now
        if live:
            self.last_heard = now
            if frame == self._peer_frame:
                return
        try:
            message = json.loads(frame.decode())
        except (ValueError, RecursionError):
            message = None
        match message:
            case {"hello": dict() as hello} if not live:
                self._greeted(connection, hello)
            case {"beat": int() as number, "status": dict() | None as status} if live:
                # Each link keeps its order, but an old beat on one may come after a new one on the other.
                if status is not None and number > self._peer_number:
                    self._peer_number, self._peer_frame, self.peer_status = number, frame, status
                    self._report()
            case {"request": int() as number, "kind": str() as kind, "body": dict() as body} if live:
                self._asked(connection, number, kind, body)
            case {"reply": int() as number, "body": dict() as body} if live:
                if future := self._expected(number):
                    future.set_result(body)
            case {"reply": int() as number, "code": str() as code, "text": str() as text} if live:
                if future := self._expected(number):
                    future.set_exception(PeerError("REFUSED", f"{self._peer_node} refused to {self._pending[number][2]}: {text}", code))
            case _:
                connection.drop("sent a message that is not part of the protocol")

    def _greeted(self, connection: _Connection, hello: dict[str, Any]) -> None:
        version, life, beat = hello.get("version"), hello.get("life"), hello.get("beat")
        names = hello.get("from"), hello.get("to")
        if version != VERSION:
            connection.drop(f"speaks version {str(version)[:20]} of the peer link, this server version {VERSION}: upgrade the older one")
            return
        if names != (self._peer_node, self._node):
            connection.drop(
                f"is {str(names[0])[:80]!r} and looks for {str(names[1])[:80]!r}, this is {self._node!r} and looks for {self._peer_node!r}. "
                "Run the playbook enable_ha again, for the servers of this pair"
            )
            return
        if not (isinstance(life, str) and life and isinstance(beat, (int, float)) and 0 < beat <= 60):
            connection.drop("sent a message that is not part of the protocol")
            return

        self._peer_beat = beat
        connection.life = life
        if life != self._peer_life or not self.connected:
            # What it said before it was out of sight is no news any more.
            self._peer_number, self._peer_frame, self.peer_status = -1, b"", None
        if life != self._peer_life:
            self._peer_life = life
            self._answers.clear()
            self._forgotten = 0
            self._lose("it has started anew")
            for link in self._links:
                if link.connection and link is not connection.link:
                    link.connection.drop("has started anew")
        link = connection.link
        link.good()
        former, link.connection = link.connection, connection
        self.last_heard = connection.heard_at
        connection.greeted.set_result(None)
        if former:
            former.drop("has connected anew")
        log.info("peer link %s - %s is up", link.address, link.peer_address)
        connection.send(self._beat_frame())
        for frame, _waiting, _kind in list(self._pending.values()):
            connection.send(frame)
        self._report()

    def _expected(self, number: int) -> asyncio.Future[dict[str, Any]] | None:
        """Who waits for this answer, if anybody still does."""
        if number in self._pending and not (future := self._pending[number][1]).done():
            return future
        return None

    def _lose(self, why: str) -> None:
        for number, (_frame, _waiting, kind) in self._pending.items():
            if future := self._expected(number):
                text = f"{self._peer_node} may or may not have done {kind}: {why}. See `ha status` there"
                future.set_exception(PeerError("LOST", text))

    def _asked(self, connection: _Connection, number: int, kind: str, body: dict[str, Any]) -> None:
        if number in self._answers:
            if answer := self._answers[number]:
                connection.send(answer)
        elif number > self._forgotten:
            self._answers[number] = None
            if self._serving < SERVED_AT_ONCE:
                self._serving += 1
                self._spawn(self._serve(number, kind, body))
            else:
                self._reply(number, _refusal(number, "BUSY", f"it works on {SERVED_AT_ONCE} requests already: ask again later"))

    async def _serve(self, number: int, kind: str, body: dict[str, Any]) -> None:
        life = self._peer_life
        try:
            answer = _frame({"reply": number, "body": await self._handle(kind, body)})
        except PeerRefused as refused:
            answer = _refusal(number, refused.code, one_line(refused))
        except Exception as error:
            log.exception("the peer's request %s has failed", kind[:80])
            answer = _refusal(number, "ERROR", f"{type(error).__name__}: {one_line(error)}")
        finally:
            self._serving -= 1
        # Another run of the peer's manager counts its requests from 1 again.
        if life == self._peer_life:
            self._reply(number, answer)

    def _reply(self, number: int, frame: bytes) -> None:
        self._answers[number] = frame
        for known in [known for known, kept in self._answers.items() if kept][:-ANSWERS_KEPT]:
            del self._answers[known]
            self._forgotten = max(self._forgotten, known)
        self._send(frame)
