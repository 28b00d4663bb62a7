# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The peer link over real sockets and real TLS. Addresses of the loopback network stand for the two links."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from swg_ha import peer
from swg_ha.peer import PeerError, PeerLink, PeerRefused

BEAT = 0.2
SILENCE = 3 * BEAT
LINKS = [("127.0.0.2", "127.0.0.3"), ("127.0.1.2", "127.0.1.3")]
STRANGER = "127.0.0.9"


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=10)


def make_identity(folder: Path, node: str, *extensions: str, days: int = 3650) -> Path:
    """A key and a self-signed certificate like those of role trust: P-256, both usages, the addresses, no authority."""
    folder.mkdir(parents=True)
    key, request, certificate = (str(folder / name) for name in ("tls.key", "request", "tls.crt"))
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    extensions = ("extendedKeyUsage=serverAuth,clientAuth", f"subjectAltName=DNS:{node},IP:192.0.2.11", *extensions)
    openssl("req", "-new", "-key", key, "-subj", f"/CN={node}", *(f"-addext={extension}" for extension in extensions), "-out", request)
    openssl("x509", "-req", "-in", request, "-signkey", key, "-copy_extensions", "copyall", "-days", str(days), "-out", certificate)
    return folder


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("identities")
    days = {"expired": 0}
    return {name: make_identity(folder / name, "ps1", days=days.get(name, 3650)) for name in ("ps1", "ps2", "stranger", "new", "expired")}


def replace(source: Path, target: Path) -> None:
    shutil.copy(source, temporary := target.with_suffix(".new"))
    os.replace(temporary, target)


def introduce(folder: Path, own: Path, other: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for source, name in [(own / "tls.key", "tls.key"), (own / "tls.crt", "tls.crt"), (other / "tls.crt", "peer.crt")]:
        replace(source, folder / name)
    return folder


async def until(condition: Callable[[], object], what: str, within: float = 4 * peer.REFRESH + 4) -> None:
    end = asyncio.get_running_loop().time() + within
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"not within {within} s: {what}"
        await asyncio.sleep(0.005)


class Server:
    """One end of the pair, with all that its link told and asked it."""

    def __init__(self, node: str, trust: Path, port: int, links: list[tuple[str, str]], **other: Any) -> None:
        self.status: dict[str, Any] = {"role": "passive"}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.gate = asyncio.Event()
        self.news: list[dict[str, bool]] = []
        settings = {"peer_node": "ps2" if node == "ps1" else "ps1", "dial": node == "ps2", "beat": BEAT, "patience": 1.0, **other}
        self.link = PeerLink(
            node=node,
            pairs=links,
            port=port,
            trust=trust,
            status=lambda: self.status,
            handle=self.handle,
            heard=lambda: self.news.append(self.link.links),
            **settings,
        )

    async def handle(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        self.requests.append((kind, body))
        match kind:
            case "refuse":
                raise PeerRefused("LAGGING", "it lags 3 MiB behind:\nwait")
            case "fail":
                raise RuntimeError("no such luck")
            case "wait":
                await self.gate.wait()
            case "much":
                return {"text": "x" * peer.LARGEST}
        return {"kind": kind, **body}

    def connection(self, index: int) -> peer._Connection:
        connection = self.link._links[index].connection
        assert connection is not None
        return connection


class Pair:
    """Makes servers, and ends them."""

    def __init__(self, folder: Path, identities: dict[str, Path]) -> None:
        self.identities = identities
        self.trust = {
            "ps1": introduce(folder / "ps1", identities["ps1"], identities["ps2"]),
            "ps2": introduce(folder / "ps2", identities["ps2"], identities["ps1"]),
        }
        with socket.socket() as probe:
            probe.bind((LINKS[0][0], 0))
            self.port: int = probe.getsockname()[1]
        self.stack = AsyncExitStack()

    async def server(self, node: str, links: list[tuple[str, str]] | None = None, **other: Any) -> Server:
        if links is None:
            links = LINKS if node == "ps1" else [(there, here) for here, there in LINKS]
        server = Server(node, self.trust[node], self.port, links, **other)
        self.stack.push_async_callback(server.link.close)
        await server.link.start()
        return server

    async def both(self) -> tuple[Server, Server]:
        one, two = await self.server("ps1"), await self.server("ps2")
        await up(one, two)
        return one, two

    def context(self, identity: str | None) -> ssl.SSLContext:
        """What a client that wants in would use."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if identity:
            context.load_cert_chain(self.identities[identity] / "tls.crt", self.identities[identity] / "tls.key")
        return context

    async def client(
        self, identity: str | None = "ps2", source: str | None = None, link: int = 0, tls: bool = True
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = self.context(identity) if tls else None
        here, there = LINKS[link]
        reader, writer = await asyncio.open_connection(here, self.port, ssl=context, local_addr=(source or there, 0))
        self.stack.callback(writer.transport.abort)
        return reader, writer


async def up(*servers: Server) -> None:
    await until(lambda: all(all(server.link.links.values()) and server.link.peer_status for server in servers), "every link is up")


Test = Callable[[Pair], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path, identities: dict[str, Path], caplog: pytest.LogCaptureFixture) -> Callable[[Test], None]:
    """Runs a test in a loop, bounded, and sees that nothing stays behind: no task, no socket, no complaint of asyncio."""
    caplog.set_level(logging.INFO)

    async def bounded(test: Test) -> None:
        pair = Pair(tmp_path, identities)
        async with asyncio.timeout(60):
            async with pair.stack:
                await test(pair)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    def runner(test: Test) -> None:
        before = set(os.listdir("/proc/self/fd"))
        asyncio.run(bounded(test))
        assert len(os.listdir("/proc/self/fd")) <= len(before)
        assert [record.getMessage() for record in caplog.records if record.name == "asyncio" and record.levelno > logging.INFO] == []

    return runner


def frame(message: object) -> bytes:
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack("!I", len(text)) + text


def hello(**other: Any) -> bytes:
    return frame({"hello": {"version": peer.VERSION, "from": "ps2", "to": "ps1", "life": "1", "beat": BEAT, **other}})


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that comes before the other side closes."""
    seen = b""
    with suppress(ConnectionError, ssl.SSLError):
        while more := await asyncio.wait_for(reader.read(65536), 10):
            seen += more
    return seen


async def quick(request: Awaitable[dict[str, Any]], within: float = 2.0) -> dict[str, Any]:
    begun = asyncio.get_running_loop().time()
    answer = await request
    assert asyncio.get_running_loop().time() - begun < within
    return answer


def test_both_tell_their_status_over_both_links(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1")
        assert (one.link.connected, one.link.last_heard, one.link.peer_status) == (False, None, None)
        one.status = {"role": "active", "name": "é"}
        two = await pair.server("ps2")
        await up(one, two)
        assert one.link.links == {"127.0.0.3": True, "127.0.1.3": True}
        assert two.link.links == {"127.0.0.2": True, "127.0.1.2": True}
        assert (one.link.peer_status, two.link.peer_status) == ({"role": "passive"}, {"role": "active", "name": "é"})
        assert one.link.problem is None and two.link.problem is None
        for index in range(2):
            assert two.connection(index)._transport.get_extra_info("ssl_object").version() == "TLSv1.3"

        one.status = {"role": "passive"}
        one.link.tell()
        await until(lambda: two.link.peer_status == {"role": "passive"}, "the new status is told", peer.REFRESH / 2)
        known = len(two.news)
        heard = two.link.last_heard
        await asyncio.sleep(4 * BEAT)
        assert two.link.last_heard > heard
        assert len(two.news) == known, "beats without news are no news"
        one.status = {"role": "active"}
        await until(lambda: two.link.peer_status == {"role": "active"}, "the next beat tells it")

    run(test)


def test_an_old_status_does_not_follow_a_newer_one(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1")
        _, writer = await pair.client()
        writer.write(hello() + frame({"beat": 7, "status": {"n": 7}}) + frame({"beat": 6, "status": {"n": 6}}))
        writer.write(frame({"request": 1, "kind": "echo", "body": {}}))
        await until(lambda: one.requests, "what came after the beats was read")
        assert one.link.peer_status == {"n": 7}

    run(test)


def test_a_status_that_cannot_be_told_leaves_the_link_alive(run: Callable[[Test], None], caplog: pytest.LogCaptureFixture) -> None:
    async def test(pair: Pair) -> None:
        one, two = await pair.both()
        one.status = {"text": "x" * peer.LARGEST}
        one.link.outdate()
        await asyncio.sleep(2 * SILENCE)
        assert two.link.connected and two.link.peer_status == {"role": "passive"}
        assert len([record for record in caplog.records if "cannot tell the peer the status" in record.getMessage()]) == 1
        one.status = {"role": "active"}
        one.link.outdate()
        await until(lambda: two.link.peer_status == {"role": "active"}, "a good status is told again")

    run(test)


def test_requests_are_answered_refused_or_fail_both_ways(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one, two = await pair.both()
        for asking, asked in ((one, two), (two, one)):
            asked.requests.clear()
            assert await quick(asking.link.request("echo", {"lsn": "0/3"}, 3)) == {"kind": "echo", "lsn": "0/3"}
            for kind, reason, text in [
                ("refuse", "LAGGING", "it lags 3 MiB behind: wait"),
                ("fail", "ERROR", "RuntimeError: no such luck"),
                ("much", "ERROR", "ValueError: .* do not fit"),
            ]:
                with pytest.raises(PeerError, match=f"refused to {kind}: {text}") as error:
                    await asking.link.request(kind, {}, 3)
                assert (error.value.code, error.value.reason) == ("REFUSED", reason)
            with pytest.raises(ValueError, match="do not fit"):
                await asking.link.request("echo", {"text": "x" * peer.LARGEST}, 3)
            with pytest.raises(PeerError, match="has not answered wait within 0.05 s") as error:
                await asking.link.request("wait", {}, 0.05)
            assert error.value.code == "TIMEOUT"
            assert (await quick(asking.link.request("echo", {"text": "x" * (peer.LARGEST - 100)}, 3)))["kind"] == "echo"
            # Two links carry two copies of each; one counts.
            assert [kind for kind, _ in asked.requests] == ["echo", "refuse", "fail", "much", "wait", "echo"]

    run(test)


def test_without_the_peer_a_request_fails_at_once(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        two = await pair.server("ps2")
        with pytest.raises(PeerError, match="ps1 was not asked to echo.*port") as error:
            await quick(two.link.request("echo", {}, 3))
        assert error.value.code == "NOT_CONNECTED"

    run(test)


def test_no_more_requests_than_bearable_are_worked_on(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one, two = await pair.both()
        asked = [asyncio.create_task(two.link.request("wait", {"n": n}, 3)) for n in range(peer.SERVED_AT_ONCE + 1)]
        with pytest.raises(PeerError, match="ask again later") as error:
            await asked[-1]
        assert error.value.reason == "BUSY"
        one.gate.set()
        assert [(await task)["n"] for task in asked[:-1]] == list(range(peer.SERVED_AT_ONCE))
        for n in range(2 * peer.ANSWERS_KEPT):
            await two.link.request("echo", {"n": n}, 3)
        assert len(one.link._answers) == peer.ANSWERS_KEPT
        assert len(one.requests) == peer.SERVED_AT_ONCE + 2 * peer.ANSWERS_KEPT

    run(test)


def test_a_lost_link_neither_disconnects_nor_costs_a_request_and_comes_back(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one, two = await pair.both()
        request = asyncio.create_task(two.link.request("wait", {}, 3))
        await until(lambda: one.requests, "the request has arrived")
        one.connection(0).drop("is cut by the test")
        assert one.link.links == {"127.0.0.3": False, "127.0.1.3": True}
        await until(lambda: not two.link.links["127.0.0.2"], "the other side sees it", SILENCE)
        assert one.link.connected and two.link.connected
        one.gate.set()
        await quick(request)
        assert [kind for kind, _ in one.requests] == ["wait"]
        await up(one, two)
        assert [news for news in one.news if news == {"127.0.0.3": False, "127.0.1.3": True}]

        one.gate.clear()
        request = asyncio.create_task(two.link.request("wait", {}, 3))
        await until(lambda: len(one.requests) == 2, "the request has arrived")
        for index in range(2):
            two.connection(index).drop("is cut by the test")
        with pytest.raises(PeerError, match="may or may not have done wait") as error:
            await quick(request)
        assert error.value.code == "LOST"
        assert two.link.peer_status == {"role": "passive"}
        await up(one, two)

    run(test)


def test_a_request_waits_for_a_link_that_comes_back_while_another_is_up(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one, two = await pair.both()
        request = asyncio.create_task(two.link.request("wait", {}, 3))
        await until(lambda: one.requests, "the request has arrived")
        for index in range(2):
            one.connection(index).drop("is cut by the test")
            await until(lambda index=index: not list(two.link.links.values())[index], "the other side sees it")
            await up(one, two)
        one.gate.set()
        await quick(request)
        assert len(one.requests) == 1

    run(test)


async def message(reader: asyncio.StreamReader, key: str) -> dict[str, Any]:
    """The next message with that key."""
    async with asyncio.timeout(3):
        while True:
            (size,) = struct.unpack("!I", await reader.readexactly(4))
            if key in (found := json.loads(await reader.readexactly(size))):
                return found


def test_a_request_is_asked_again_over_a_link_that_comes_up(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1")
        _, writer = await pair.client(link=1)
        writer.write(hello(beat=10))
        reader, writer = await pair.client()
        writer.write(hello(beat=10))
        await until(lambda: all(one.link.links.values()), "both links are up")
        request = asyncio.create_task(one.link.request("echo", {"n": 1}, 3))
        asked = await message(reader, "request")
        reader, writer = await pair.client()
        writer.write(hello(beat=10))
        assert await message(reader, "request") == asked
        writer.write(frame({"reply": asked["request"], "body": {"n": 2}}) + frame({"reply": asked["request"], "body": {"n": 3}}))
        assert await request == {"n": 2}

    run(test)


def test_a_request_that_was_answered_long_ago_is_not_carried_out_again(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1")
        reader, writer = await pair.client()
        writer.write(hello(beat=10))
        last = peer.ANSWERS_KEPT + 2
        for number in [*range(1, last + 1), 1, last]:
            writer.write(frame({"request": number, "kind": "echo", "body": {"n": number}}))
            if number > 1 or not one.requests:
                assert await message(reader, "reply") == {"reply": number, "body": {"kind": "echo", "n": number}}
        assert [body["n"] for _, body in one.requests] == list(range(1, last + 1))

    run(test)


def test_a_new_run_of_the_peer_starts_afresh(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one, two = await pair.both()
        await two.link.request("echo", {"run": 1}, 3)
        await two.link.close()
        await until(lambda: not one.link.connected, "the end is seen", BEAT)
        three = await pair.server("ps2")
        await up(one, three)
        assert await three.link.request("echo", {"run": 2}, 3) == {"kind": "echo", "run": 2}

        waiting = asyncio.create_task(one.link.request("wait", {}, 3))
        await until(lambda: three.requests, "the request has arrived")
        await pair.server("ps2")
        with pytest.raises(PeerError, match="started anew") as error:
            await waiting
        assert error.value.code == "LOST"

    run(test)


@asynccontextmanager
async def proxy(address: str, source: str, target: str, port: int) -> AsyncIterator[asyncio.Event]:
    """Forwards between address and target, until the event is cleared: then everything stays open and nothing passes."""
    forward = asyncio.Event()
    forward.set()
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await forward.wait()
                writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forward.wait()
        try:
            there = await asyncio.open_connection(target, port, local_addr=(source, 0))
        except OSError:
            writer.close()
            return
        writers.extend([writer, there[1]])
        tasks.add(asyncio.create_task(pump(reader, there[1])))
        tasks.add(asyncio.create_task(pump(there[0], writer)))

    server = await asyncio.start_server(accept, address, port)
    try:
        yield forward
    finally:
        server.close()
        forward.set()
        for writer in writers:
            writer.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_a_link_that_falls_silent_is_down_after_three_beats_and_delays_no_request(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        loop = asyncio.get_running_loop()
        async with proxy("127.0.0.4", "127.0.0.3", "127.0.0.2", pair.port) as forward:
            one = await pair.server("ps1")
            two = await pair.server("ps2", [("127.0.0.3", "127.0.0.4"), ("127.0.1.3", "127.0.1.2")])
            await up(one, two)
            forward.clear()
            begun = loop.time()
            assert await quick(two.link.request("echo", {"n": 1}, 3), BEAT) == {"kind": "echo", "n": 1}
            assert await quick(one.link.request("echo", {"n": 1}, 3), BEAT) == {"kind": "echo", "n": 1}
            await until(lambda: not two.link.links["127.0.0.4"] and not one.link.links["127.0.0.3"], "both see it")
            assert SILENCE - BEAT < loop.time() - begun < SILENCE + 3 * BEAT
            assert one.link.connected and two.link.connected
            assert all(any(links.values()) for links in one.news + two.news)
            forward.set()
            await up(one, two)
            assert len(one.requests) == len(two.requests) == 1

    run(test)


def test_a_client_that_greets_and_never_beats_is_down_after_three_of_its_beats(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1")
        reader, writer = await pair.client()
        writer.write(hello())
        await until(lambda: one.link.connected, "it is let in")
        await asyncio.wait_for(ended(reader), SILENCE + 3 * BEAT)
        assert not one.link.connected

    run(test)


def test_a_peer_that_does_not_read_is_dropped(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1")
        _, writer = await pair.client()
        writer.write(hello(beat=10))
        await until(lambda: one.link.connected, "it is let in")
        writer.transport.pause_reading()
        for n in range(1000):
            one.status = {"n": n, "text": "x" * (peer.LARGEST // 2)}
            one.link.tell()
            if not one.link.connected:
                break
            await asyncio.sleep(0)
        assert not one.link.connected

    run(test)


def test_a_newer_connection_of_the_peer_replaces_the_one_of_its_link(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1")
        reader, writer = await pair.client()
        writer.write(hello(beat=10))
        await until(lambda: one.link.connected, "it is let in")
        _, writer = await pair.client()
        writer.write(hello(beat=10))
        await ended(reader)
        assert one.link.connected and all(any(links.values()) for links in one.news)

    run(test)


@pytest.mark.parametrize("identity", ["stranger", "ps1", None])
def test_nobody_gets_in_without_the_certificate_of_the_peer(run: Callable[[Test], None], identity: str | None) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1")
        with suppress(ssl.SSLError, ConnectionError):
            reader, writer = await pair.client(identity)
            writer.write(hello() + frame({"request": 1, "kind": "echo", "body": {}}))
            assert await ended(reader) == b""
        await until(lambda: one.link.problem, "the reason is told")
        assert "peer.crt" in one.link.problem or "TLS" in one.link.problem
        assert not one.link.connected and one.link.last_heard is None and one.requests == []

    run(test)


def test_the_side_that_connects_trusts_nobody_else_either(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        introduce(pair.trust["ps1"], pair.identities["stranger"], pair.identities["ps2"])
        one, two = await pair.server("ps1"), await pair.server("ps2")
        await until(lambda: two.link.problem, "the reason is told")
        assert f"not {pair.trust['ps2'] / 'peer.crt'}" in two.link.problem
        assert not one.link.connected and not two.link.connected

    run(test)


def test_a_certificate_that_the_pinned_one_has_signed_is_not_the_pinned_one(run: Callable[[Test], None], tmp_path: Path) -> None:
    async def test(pair: Pair) -> None:
        authority = make_identity(tmp_path / "authority", "ps2", "basicConstraints=critical,CA:TRUE")
        introduce(pair.trust["ps1"], pair.identities["ps1"], authority)
        signed = make_identity(tmp_path / "signed", "ps2")
        openssl(
            "x509", "-req", "-in", str(signed / "request"), "-CA", str(authority / "tls.crt"), "-CAkey", str(authority / "tls.key"),
            "-CAcreateserial", "-CAserial", str(tmp_path / "serial"), "-copy_extensions", "copyall", "-out", str(signed / "tls.crt"),
        )  # fmt: skip
        pair.identities = {**pair.identities, "authority": authority, "signed": signed}
        one = await pair.server("ps1")
        reader, writer = await pair.client("signed")
        writer.write(hello())
        assert await ended(reader) == b""
        await until(lambda: one.link.problem, "the reason is told")
        assert "peer.crt" in one.link.problem and not one.link.connected
        _, writer = await pair.client("authority")
        writer.write(hello())
        await until(lambda: one.link.connected, "the pinned one itself is let in")

    run(test)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(100), bytes(100_000)], ids=["HTTP", "TLS", "zeros"]
)
def test_plain_garbage_is_turned_away(run: Callable[[Test], None], garbage: bytes) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1")
        reader, writer = await pair.client(tls=False)
        writer.write(garbage)
        assert len(await ended(reader)) < 100
        assert not one.link.connected
        await up(one, await pair.server("ps2"))
        assert one.link.problem is None

    run(test)


NOT_THE_PROTOCOL = {
    "one byte too large": struct.pack("!I", peer.LARGEST + 1),
    "as large as can be said": struct.pack("!I", 2**32 - 1),
    "not UTF-8": frame(b"\xff\xfe"),
    "empty": frame(b""),
    "a list": frame([]),
    "an empty object": frame({}),
    "nested too deep": frame(b"[" * peer.LARGEST),
    "a beat before the greeting": frame({"beat": 1, "status": {}}),
    "a request before the greeting": frame({"request": 1, "kind": "echo", "body": {}}),
    "too large after the greeting": hello(beat=10) + struct.pack("!I", peer.LARGEST + 1),
    "a second greeting": hello(beat=10) + hello(beat=10),
    "a number that is none": hello(beat=10) + frame({"request": "1", "kind": "echo", "body": {}}),
    "an unknown message": hello(beat=10) + frame({"shell": "sh"}),
    "no life": hello(life=""),
    "no beat": hello(beat=0),
    "a beat that is no number": hello(beat="soon"),
}


@pytest.mark.parametrize("messages", NOT_THE_PROTOCOL.values(), ids=NOT_THE_PROTOCOL)
def test_what_is_not_the_protocol_ends_the_connection(run: Callable[[Test], None], messages: bytes) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1", patience=5.0)
        reader, writer = await pair.client()
        writer.write(messages)
        await asyncio.wait_for(ended(reader), 3)
        assert not one.link.connected and one.requests == []
        await up(one, await pair.server("ps2"))

    run(test)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"from": "ps3"}, "is 'ps3' and looks for 'ps1', this is 'ps1' and looks for 'ps2'"),
        ({"to": "ps3"}, "looks for 'ps3'"),
        ({"version": 2}, "speaks version 2 of the peer link, this server version 1"),
        ({"from": None}, "is 'None'"),
    ],
    ids=["from", "to", "version", "no name"],
)
def test_a_wrong_name_or_version_is_told(run: Callable[[Test], None], other: dict[str, Any], reason: str) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1")
        reader, writer = await pair.client()
        writer.write(hello(**other))
        await ended(reader)
        await until(lambda: one.link.problem, "the reason is told")
        assert one.link.problem.startswith("127.0.0.3 ") and reason in one.link.problem
        assert not one.link.connected and one.news == []
        await up(one, await pair.server("ps2"))
        assert one.link.problem is None

    run(test)


def test_both_sides_tell_that_they_are_not_each_others_peer(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1", peer_node="ps9")
        two = await pair.server("ps2")
        await until(lambda: one.link.problem and two.link.problem, "both have a reason")
        assert "'ps9'" in one.link.problem and "'ps9'" in two.link.problem

    run(test)


def test_floods_and_half_open_connections_do_not_slow_a_request_or_keep_the_peer_out(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one, two = await pair.server("ps1", patience=3.0), await pair.server("ps2")
        await up(one, two)
        strangers = await asyncio.gather(*(pair.client(tls=False, source=STRANGER) for _ in range(50)), return_exceptions=True)
        sleepers = [reader for reader, _ in await asyncio.gather(*(pair.client(tls=False) for _ in range(50)))]
        assert await quick(two.link.request("echo", {}, 3)) == {"kind": "echo"}
        assert all(one.link.links.values())
        # A stranger may be reset before it knows that it was connected.
        turned_away = [found[0] for found in strangers if not isinstance(found, BaseException)]
        await asyncio.wait_for(asyncio.gather(*map(ended, turned_away)), 2.0)
        await until(lambda: sum(not reader.at_eof() for reader in sleepers) == 4, "all but the newest are closed", 2.0)

        one.connection(0).drop("is cut by the test")
        await until(lambda: all(one.link.links.values()), "the peer comes in beside the sleepers", 2.5)
        assert sum(not reader.at_eof() for reader in sleepers) == 3
        await asyncio.wait_for(asyncio.gather(*map(ended, sleepers)), 5)
        await until(lambda: one.link._links[0].newcomers == [], "there is room again")

    run(test)


def test_the_right_certificate_from_another_address_is_a_stranger(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1")
        for source in (STRANGER, LINKS[1][1]):
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await pair.client("ps2", source)
        assert one.link.problem is None

    run(test)


def test_new_certificates_are_taken_over_link_by_link(run: Callable[[Test], None], caplog: pytest.LogCaptureFixture) -> None:
    async def test(pair: Pair) -> None:
        one, two = await pair.both()
        former = [two.connection(index) for index in range(2)]
        new, trust = pair.identities["new"], pair.trust
        replace(new / "tls.key", trust["ps2"] / "tls.key")
        # A key and a certificate that do not fit: what was there before stays in use.
        await until(lambda: two.link.problem, "the misfit is told")
        assert "tls.key" in two.link.problem
        replace(new / "tls.crt", trust["ps2"] / "tls.crt")
        await until(lambda: two.link.problem is None, "the pair of files is taken over")
        assert [two.connection(index) for index in range(2)] == former
        replace(new / "tls.crt", trust["ps1"] / "peer.crt")
        await until(
            lambda: all(link.connection and link.connection not in former for link in two.link._links), "both links have been made anew"
        )
        await up(one, two)
        pin = ssl.PEM_cert_to_DER_cert((new / "tls.crt").read_text())
        assert [one.connection(index).certificate for index in range(2)] == [pin, pin]
        assert all(any(links.values()) for links in one.news + two.news), "never without a link"

    run(test)


def test_a_renewal_that_has_gone_half_way_costs_one_link_and_is_told(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one, two = await pair.both()
        new = pair.identities["new"]
        replace(new / "tls.crt", pair.trust["ps1"] / "peer.crt")
        await until(lambda: one.link.problem, "the old certificate is refused")
        await asyncio.sleep(4 * BEAT)
        assert one.link.links == {"127.0.0.3": False, "127.0.1.3": True}
        assert await two.link.request("echo", {}, 3) == {"kind": "echo"}
        introduce(pair.trust["ps2"], new, pair.identities["ps1"])
        await up(one, two)
        assert one.link.problem is None

    run(test)


def test_keys_that_come_later_are_found(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        for path in pair.trust["ps1"].iterdir():
            path.unlink()
        one, two = await pair.server("ps1"), await pair.server("ps2")
        await until(lambda: one.link.problem and two.link.problem, "both tell that something is wrong")
        assert "enable_ha" in one.link.problem
        introduce(pair.trust["ps1"], pair.identities["ps1"], pair.identities["ps2"])
        await up(one, two)
        assert one.link.problem is None and two.link.problem is None

    run(test)


def test_the_pinned_certificate_holds_whatever_the_clock_says(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        introduce(pair.trust["ps1"], pair.identities["expired"], pair.identities["ps2"])
        introduce(pair.trust["ps2"], pair.identities["ps2"], pair.identities["expired"])
        await pair.both()

    run(test)


def test_an_address_that_is_not_there_harms_no_other_link(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one = await pair.server("ps1", [("192.0.2.11", "192.0.2.12"), LINKS[1]])
        two = await pair.server("ps2", [("192.0.2.12", "192.0.2.11"), ("127.0.1.3", "127.0.1.2")])
        await until(lambda: one.link.connected and two.link.connected, "the good link is up")
        await until(lambda: two.link.problem, "the missing address is told")
        assert "cannot be called from 192.0.2.12" in two.link.problem
        assert one.link.problem is None
        assert one.link.links == {"192.0.2.12": False, "127.0.1.3": True}

    run(test)


def test_a_port_that_is_taken_is_told_and_tried_again(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        with socket.socket() as other:
            other.bind((LINKS[0][0], pair.port))
            other.listen()
            one, two = await pair.server("ps1"), await pair.server("ps2")
            await until(lambda: one.link.problem and one.link.connected, "the one link is told, the other is up")
            assert f"127.0.0.2:{pair.port}" in one.link.problem
        await up(one, two)
        assert one.link.problem is None

    run(test)


def test_a_poke_ends_the_pause(run: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "FIRST_PAUSE", 60.0)
    monkeypatch.setattr(peer, "LONGEST_PAUSE", 60.0)

    async def test(pair: Pair) -> None:
        two = await pair.server("ps2")
        await until(lambda: all(link.keeper for link in two.link._links), "it has begun")
        await asyncio.sleep(0.05)
        one = await pair.server("ps1")
        await asyncio.sleep(0.05)
        assert not one.link.connected
        two.link.poke()
        await up(one, two)
        held = [two.connection(index) for index in range(2)]
        two.link.poke()
        await asyncio.sleep(0.05)
        assert [two.connection(index) for index in range(2)] == held

    run(test)


def test_closing_ends_what_is_under_way(run: Callable[[Test], None]) -> None:
    async def test(pair: Pair) -> None:
        one, two = await pair.both()
        request = asyncio.create_task(two.link.request("wait", {}, 3))
        await until(lambda: one.requests, "the request has arrived")
        await asyncio.gather(*(pair.client(tls=False) for _ in range(3)))
        await one.link.close()
        assert not one.link.connected
        with pytest.raises(PeerError):
            await quick(request)
        await two.link.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(PeerError) as error:
            await two.link.request("echo", {}, 1)
        assert error.value.code == "NOT_CONNECTED"

    run(test)
