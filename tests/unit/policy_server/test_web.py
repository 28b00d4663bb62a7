# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""HTTP from clients that are slow, rude, too many or strangers. The server is the real one; its PostgreSQL is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from policy_server import web
from policy_server.api import Api, Refused
from policy_server.names import MAX_CONTENT
from policy_server.session import Database, Session
from policy_server.settings import Settings
from policy_server.web import Server, parse_head

PUT = b"PUT /configurations/global/a.json HTTP/1.1\r\nContent-Type: application/json\r\n"
Ask = Callable[..., Awaitable[bytes]]


def served(use: Callable[[Ask, int], Awaitable[None]], folder: Path, receive: float = 1.0, strangers: bool = False) -> None:
    """Run a server and a test against it, in one loop."""

    async def run() -> None:
        settings = Settings("ps1", "nobody", str(folder), 1, folder, 1, ())
        server = Server(Api(Database(lambda: Session(settings))), (), receive)
        if strangers:
            server.admits = lambda address: False  # type: ignore[method-assign]
        listening = await asyncio.start_server(server.connected, "127.0.0.1", 0, limit=web.MAX_HEAD)
        port = listening.sockets[0].getsockname()[1]

        async def ask(*parts: bytes, end: bool = False) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for part in parts:
                writer.write(part)
                await writer.drain()
            if end:
                writer.write_eof()
            try:
                return await asyncio.wait_for(reader.read(), 5)
            finally:
                writer.transport.abort()

        async with listening:
            await asyncio.wait_for(use(ask, port), 20)
            # Whatever was sent, it still answers.
            if not strangers:
                assert (await ask(b"GET /none HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
            await server.finish(5)
            assert not server._open

    asyncio.run(run())


def status(answer: bytes) -> int:
    return int(answer.split(b" ")[1]) if answer else 0


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 503),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /health/ HTTP/1.1\r\n\r\n", 404),
        (b"GET /configurations/../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET /configurations/global/%2e%2e HTTP/1.1\r\n\r\n", 404),
        (b"GET //health HTTP/1.1\r\n\r\n", 404),
        (b"POST /health HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"DELETE /configurations/global HTTP/1.1\r\n\r\n", 405),
        (b"OPTIONS /configurations/global/a.json HTTP/1.1\r\nOrigin: http://evil.test\r\n\r\n", 405),
        (PUT + b"Content-Length: 2\r\n\r\n{}", 503),
        (PUT + b"Content-Length: 2\r\n\r\n{]", 400),
        (PUT + b"\r\n", 411),
        (PUT + b"Content-Length: -1\r\n\r\n", 400),
        (PUT + b"Content-Length: 1e3\r\n\r\n", 400),
        (PUT + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (PUT + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 501),
        (PUT + b"Content-Length: %d\r\n\r\n" % (MAX_CONTENT + 1), 413),
        (PUT + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
        (PUT.replace(b"application/json", b"text/plain") + b"Content-Length: 2\r\n\r\n{}", 415),
        (PUT.replace(b"Content-Type: application/json\r\n", b"") + b"Content-Length: 2\r\n\r\n{}", 415),
        (PUT.replace(b"a.json", b"a.exe") + b"Content-Length: 2\r\n\r\n{}", 404),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
        (b"GET /health\r\n\r\n", 400),
        (b"GET /health HTTP/2.0\r\n\r\n", 400),
        (b"GET http://x/health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nA: b\nX: y\r\n\r\n", 400),
        (b"GET /hea\x00lth HTTP/1.1\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n" + b"A: " + b"x" * web.MAX_HEAD + b"\r\n\r\n", 431),
        (b"x" * (4 * web.MAX_HEAD), 431),
        (b"GET /health HTTP/1.1\r\nA: never ends", 408),
        (PUT + b"Content-Length: 100\r\n\r\n{", 408),
    ],
)
def test_each_gets_its_answer(request_: bytes, expected: int, tmp_path: Path) -> None:
    async def use(ask: Ask, _port: int) -> None:
        answer = await ask(request_)
        assert status(answer) == expected, answer
        assert answer.count(b"HTTP/1.1 ") == 1 and b'{"error": "' in answer

    served(use, tmp_path, receive=0.3 if expected == 408 else 2.0)


def test_who_goes_away_gets_none(tmp_path: Path) -> None:
    async def use(ask: Ask, _port: int) -> None:
        for part in (b"", b"GET /hea", PUT + b"Content-Length: 100\r\n\r\n{"):
            assert await ask(part, end=True) == b""

    served(use, tmp_path)


def test_who_sends_too_much_still_sees_why(tmp_path: Path) -> None:
    async def use(ask: Ask, _port: int) -> None:
        answer = await ask(PUT + b"Content-Length: 2000000\r\n\r\n", b"x" * 2_000_000)
        assert status(answer) == 413

    served(use, tmp_path)


def test_a_body_that_is_asked_for_comes_after_the_word(tmp_path: Path) -> None:
    async def use(ask: Ask, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PUT + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()

    served(use, tmp_path)


def test_who_drips_is_cut_off_in_time_however_often_it_drips(tmp_path: Path) -> None:
    async def use(ask: Ask, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = asyncio.get_running_loop().time()
        answer = asyncio.ensure_future(reader.read())
        for byte in b"GET /health HTTP/1.1\r\nA: " + b"x" * 100:
            writer.write(bytes([byte]))
            done, _pending = await asyncio.wait([answer], timeout=0.05)
            if done:
                break
        assert status(await answer) == 408
        assert asyncio.get_running_loop().time() - began < 5
        writer.transport.abort()

    served(use, tmp_path, receive=0.5)


def test_only_so_many_at_a_time_and_there_is_room_again(tmp_path: Path) -> None:
    async def use(ask: Ask, port: int) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(web.CONNECTIONS)]
        # All have been taken in before the next one comes: connections are accepted in their order.
        with pytest.raises(OSError):
            answer = await ask(b"GET /none HTTP/1.1\r\n\r\n")
            raise ConnectionResetError if answer == b"" else AssertionError(answer)
        for reader, _writer in held:
            assert status(await reader.read()) == 408
        for _reader, writer in held:
            writer.transport.abort()

    served(use, tmp_path, receive=1.5)


def test_strangers_get_nothing(tmp_path: Path) -> None:
    async def use(ask: Ask, _port: int) -> None:
        try:
            answer = await ask(b"GET /health HTTP/1.1\r\n\r\n")
        except OSError:
            answer = b""
        assert answer == b""

    served(use, tmp_path, strangers=True)


@pytest.mark.parametrize(
    ("address", "admitted"), [("127.0.0.1", True), ("127.9.9.9", True), ("192.0.2.31", True), ("192.0.3.1", False), ("0.0.0.0", False)]
)
def test_who_is_admitted(address: str, admitted: bool) -> None:
    api = Api(Database(lambda: Session(Settings("ps1", "nobody", "/none", 1, Path("/none"), 1, ()))))
    assert Server(api, [IPv4Network("192.0.2.0/24")]).admits(address) is admitted


def test_a_head_is_taken_apart() -> None:
    found = parse_head(b"GET /health?verbose=1 HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Blank:  b c \t")
    assert (found.method, found.path, found.headers) == ("GET", "/health", {"host": "a", "x-empty": "", "x-blank": "b c"})


def test_a_head_that_takes_long_to_judge_does_not_exist() -> None:
    """No expression of the parser goes back and forth over what it was sent."""
    began = asyncio.new_event_loop().time()
    for hostile in (b"GET /" + b"!" * 16_000, b"GET / HTTP/1.1\r\nA:" + b" \t" * 8000 + b"\x01", b"GET / HTTP/1.1\r\n" + b"a" * 16_000):
        with pytest.raises(Refused):
            parse_head(hostile)
    assert asyncio.new_event_loop().time() - began < 5


def test_a_line_of_the_log_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    web.log("GET /a\u2028b 404")
    assert capsys.readouterr().err == "GET /a\\u2028b 404\n"
