# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The other server's log, over real sockets and real TLS. Addresses of the loopback network stand for the two links.

What speaks for the gateway here follows a script; systemd's own is asked by tests/system/test_relay.py.
"""

from __future__ import annotations

import io
import json
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from swg_ha import logs
from swg_ha.logs import Entry, LogError, Relay, moment, parse, queries, short
from swg_ha.settings import Link

from .test_peer import identities, introduce  # noqa: F401

NOW = datetime(2026, 1, 31, 21, 55, 30)
LINKS = [Link("eth0", "127.0.0.2", 8, "127.0.0.3"), Link("eth1", "127.0.1.2", 8, "127.0.1.3")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5)),
        ("2026-01-02 03:04", datetime(2026, 1, 2, 3, 4)),
        ("2026-01-02", datetime(2026, 1, 2)),
        ("03:04:05", datetime(2026, 1, 31, 3, 4, 5)),
        ("03:04", datetime(2026, 1, 31, 3, 4)),
        ("30s", datetime(2026, 1, 31, 21, 55)),
        ("-30s", datetime(2026, 1, 31, 21, 55)),
        ("55m", datetime(2026, 1, 31, 21, 0, 30)),
        ("55min", datetime(2026, 1, 31, 21, 0, 30)),
        ("2h", datetime(2026, 1, 31, 19, 55, 30)),
        ("31d", datetime(2025, 12, 31, 21, 55, 30)),
    ],
)
def test_a_moment(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "now", "5", "5 m", "-5", "2026-02-30", "25:00", "1w", "9" * 30 + "d"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="is no time such as"):
        moment(text, NOW)


def test_what_to_ask_for() -> None:
    assert queries([]) == [[]]
    assert queries(["heartbeat", "dbus.socket"]) == [
        [("_SYSTEMD_UNIT", "heartbeat.service"), ("_SYSTEMD_UNIT", "dbus.socket")],
        [("_PID", "1"), ("UNIT", "heartbeat.service"), ("UNIT", "dbus.socket")],
    ]


@pytest.mark.parametrize("unit", ["postgresql@*", "", "a b", "a&b=c", "a\nb", "[ab]"])
def test_what_is_no_unit(unit: str) -> None:
    with pytest.raises(LogError, match="no unit's name"):
        queries([unit])


def export(number: int, message: bytes | None = None, **more: str) -> bytes:
    """An entry as journald exports it."""
    fields = {
        "__CURSOR": f"c{number}",
        "__REALTIME_TIMESTAMP": str(number * 1_000_000),
        "_HOSTNAME": "ps1",
        "SYSLOG_IDENTIFIER": "it",
        "_PID": "7",
        **more,
    }
    text = b"".join(f"{name}={value}\n".encode() for name, value in fields.items())
    message = f"line {number}".encode() if message is None else message
    if b"\n" in message:
        return text + b"MESSAGE\n" + struct.pack("<Q", len(message)) + message + b"\n\n"
    return text + b"MESSAGE=" + message + b"\n\n"


def test_entries_are_read_also_those_of_several_lines() -> None:
    entries = list(parse(io.BytesIO(export(1) + export(2, b"a\n\nMESSAGE=b\n") + export(3, b"a=b", MESSAGE="first"))))
    assert [entry["MESSAGE"] for entry in entries] == [b"line 1", b"a\n\nMESSAGE=b\n", b"first"]
    assert [entry["__CURSOR"] for entry in entries] == [b"c1", b"c2", b"c3"]


@pytest.mark.parametrize("length", range(1, len(export(1, b"a\nb")) - 1))
def test_half_an_entry_is_none(length: int) -> None:
    with pytest.raises((ValueError, struct.error)):
        list(parse(io.BytesIO(export(1, b"a\nb")[:length])))


def test_a_field_that_does_not_end_is_not_waited_for() -> None:
    with pytest.raises(ValueError, match="a field of 18446744073709551615 bytes"):
        list(parse(io.BytesIO(b"MESSAGE\n" + b"\xff" * 8)))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "ps1 it[7]: line 1"),
        ({"MESSAGE": b"a\x1b[31m\xff\tb"}, "ps1 it[7]: a [31m\N{REPLACEMENT CHARACTER} b"),
        ({"MESSAGE": b""}, "ps1 it[7]: "),
        ({"SYSLOG_IDENTIFIER": b"x\x07"}, "ps1 x [7]: line 1"),
    ],
)
def test_an_entry_is_shown_as_journalctl_does(fields: Entry, expected: str) -> None:
    [entry] = parse(io.BytesIO(export(1)))
    stamp = datetime.fromtimestamp(1).strftime("%b %d %H:%M:%S")
    assert short(entry | fields) == f"{stamp} {expected}"


def test_other_names_of_who_speaks() -> None:
    [entry] = parse(io.BytesIO(export(1)))
    del entry["SYSLOG_IDENTIFIER"], entry["_PID"]
    assert short(entry).endswith(" ps1 unknown: line 1")
    assert short(entry | {"_COMM": b"cat", "SYSLOG_PID": b"8"}).endswith(" ps1 cat[8]: line 1")


def test_more_lines_stand_below_the_first() -> None:
    [entry] = parse(io.BytesIO(export(1, b"one\ntwo")))
    first, second = short(entry).split("\n")
    assert second == " " * (len(first) - 3) + "two"


class Gateway:
    """The other server: answers by the unit that is asked for; asked holds (address, matches, range)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status = 200
        self.cut = False
        self.logs: dict[str, list[bytes]] = {"": [export(number) for number in range(1, 6)]}
        self.later: list[list[bytes]] = []
        self.asked: list[tuple[str, dict[str, str], str]] = []

    @contextmanager
    def listening(self, *addresses: str, port: int = 0, certificate: Path | None = None) -> Iterator[int]:
        servers: list[ThreadingHTTPServer] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                gateway.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        folder = certificate or self.folder
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        context.load_verify_locations(self.folder / "peer.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            for address in addresses:
                server = ThreadingHTTPServer((address, port), Handler, bind_and_activate=False)
                server.daemon_threads = True
                server.allow_reuse_address = True
                server.server_bind()
                server.server_activate()
                server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
                port = server.server_address[1]
                servers.append(server)
                threading.Thread(target=server.serve_forever, args=(0.01,)).start()
            yield port
        finally:
            for server in servers:
                server.shutdown()
                server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        where = urlsplit(request.path)
        matches = dict(parse_qsl(where.query, keep_blank_values=True))
        wanted = request.headers["Range"].removeprefix("entries=")
        self.asked.append((str(request.connection.getsockname()[0]), matches, wanted))
        assert where.path == "/entries" and request.headers["Accept"] == logs.EXPORT
        request.send_response(self.status)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.close_connection = True
        pieces = self.logs.get(matches.get("_SYSTEMD_UNIT") or matches.get("UNIT") or "", [])
        if "follow" in matches:
            pieces = self.later.pop(0) if self.later else []
        elif wanted.startswith(":-"):
            pieces = pieces[-int(wanted.split(":")[2]) :]
        for piece in pieces:
            request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if not self.cut:
            request.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def gateway(tmp_path: Path, identities: dict[str, Path]) -> Gateway:  # noqa: F811
    introduce(tmp_path / "ps2", identities["ps2"], identities["ps1"])
    return Gateway(introduce(tmp_path / "ps1", identities["ps1"], identities["ps2"]))


def read(gateway: Gateway, port: int, *units: str, **options: Any) -> list[str]:
    """The messages that the reader on ps2 shows."""
    shown: list[str] = []
    relay = Relay("ps1", LINKS, port, gateway.folder.parent / "ps2", 5)
    options = {"lines": None, "since": None, "follow": False, **options}
    relay.read(units, lambda entry: shown.append(entry["MESSAGE"].decode()), **options)
    return shown


def test_the_newest_lines(gateway: Gateway) -> None:
    with gateway.listening("127.0.0.3") as port:
        assert read(gateway, port, lines=2) == ["line 4", "line 5"]
        assert read(gateway, port, lines=1) == ["line 5"]
        assert read(gateway, port, lines=9) == [f"line {number}" for number in range(1, 6)]
        assert read(gateway, port, lines=9, since=3.0) == ["line 3", "line 4", "line 5"]
    assert [asked[2] for asked in gateway.asked[:2]] == [":-2:3", ":-1:2"]


def test_all_since_a_moment_is_looked_for_by_its_time(gateway: Gateway) -> None:
    with gateway.listening("127.0.0.3") as port:
        assert read(gateway, port, since=3.5) == ["line 4", "line 5"]
    assert gateway.asked[-1][2] == f"t={3_500_000:x}:0:{logs.ALL}"


def test_a_unit_is_what_it_says_and_what_systemd_says_of_it(gateway: Gateway) -> None:
    gateway.logs = {"heartbeat.service": [export(1), export(4)]}
    with gateway.listening("127.0.0.3") as port:
        assert read(gateway, port, "heartbeat", lines=9) == ["line 1", "line 1", "line 4", "line 4"]
    assert {frozenset(matches) for _address, matches, _wanted in gateway.asked} == {
        frozenset({"_SYSTEMD_UNIT"}),
        frozenset({"_PID", "UNIT"}),
    }


def test_a_link_that_is_down_is_passed_over_and_not_tried_again(gateway: Gateway) -> None:
    with gateway.listening("127.0.1.3") as port:
        assert len(read(gateway, port, "heartbeat", lines=9)) == 0
        assert read(gateway, port, lines=1) == ["line 5"]
    assert {address for address, *_ in gateway.asked} == {"127.0.1.3"}


def test_a_server_that_is_down_is_told_with_both_links(gateway: Gateway) -> None:
    with gateway.listening("127.0.0.3") as port:
        pass
    with pytest.raises(
        LogError, match=r"^ps1 cannot be asked for its log: 127.0.0.3: Connection refused; 127.0.1.3: Connection refused: is it up"
    ):
        read(gateway, port, lines=1)


@pytest.mark.parametrize("who", ["stranger", "expired", "new", "ps2"])
def test_another_certificate_is_not_taken_for_the_other_server(gateway: Gateway, identities: dict[str, Path], who: str) -> None:  # noqa: F811
    with (
        gateway.listening("127.0.0.3", "127.0.1.3", certificate=identities[who]) as port,
        pytest.raises(LogError, match="127.0.0.3 shows another certificate than the pinned one"),
    ):
        read(gateway, port, lines=1)
    assert gateway.asked == []


def test_one_that_does_not_know_this_server_is_told(gateway: Gateway, identities: dict[str, Path]) -> None:  # noqa: F811
    introduce(gateway.folder, identities["ps1"], identities["stranger"])
    with gateway.listening("127.0.0.3", "127.0.1.3") as port, pytest.raises(LogError, match="ps1 cannot be asked for its log"):
        read(gateway, port, lines=1)
    assert gateway.asked == []


@pytest.mark.parametrize(
    ("status", "said"),
    [(400, "does not accept this server's certificate"), (429, "too many readers"), (502, "logrelay_journal"), (500, "its answer is 500")],
)
def test_a_refusal_says_why_and_is_not_asked_for_again(gateway: Gateway, status: int, said: str) -> None:
    gateway.status = status
    with gateway.listening("127.0.0.3", "127.0.1.3") as port, pytest.raises(LogError, match=said):
        read(gateway, port, lines=1)
    assert len(gateway.asked) == 1


def test_a_log_that_is_cut_off_is_not_taken_for_whole(gateway: Gateway) -> None:
    gateway.cut = True
    with gateway.listening("127.0.0.3") as port, pytest.raises(LogError, match="the log of ps1 ended too soon"):
        read(gateway, port)


def test_following_goes_on_after_a_cut_without_a_gap_or_a_line_twice(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BETWEEN_ATTEMPTS", 0.01)
    gateway.later = [[export(5), export(6)], [], [export(6), export(7)]]
    shown: list[str] = []

    class Enough(Exception):
        pass

    def show(entry: Entry) -> None:
        shown.append(entry["MESSAGE"].decode())
        if shown[-1] == "line 7":
            raise Enough

    with gateway.listening("127.0.0.3") as port, pytest.raises(Enough):
        Relay("ps1", LINKS, port, gateway.folder.parent / "ps2", 5).read([], show, lines=2, since=None, follow=True)
    assert shown == ["line 4", "line 5", "line 6", "line 7"]
    followed = [wanted for _address, matches, wanted in gateway.asked if "follow" in matches]
    assert followed[:3] == [f"c5:0:{logs.ALL}", f"c6:0:{logs.ALL}", f"c6:0:{logs.ALL}"]


def test_following_what_has_said_nothing_yet_begins_where_the_log_ends(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BETWEEN_ATTEMPTS", 0.01)
    with pytest.raises(LogError, match="ps1 cannot be asked for its log"), gateway.listening("127.0.0.3") as port:

        def end_once_it_follows() -> None:
            end = time.monotonic() + 20
            while not any("follow" in matches for _address, matches, _wanted in gateway.asked) and time.monotonic() < end:
                time.sleep(0.05)
            gateway.status = 502

        stop = threading.Thread(target=end_once_it_follows)
        stop.start()
        try:
            read(gateway, port, "silent", lines=5, follow=True)
        except LogError as error:
            assert "logrelay_journal" in str(error)
            raise LogError("ps1 cannot be asked for its log") from error
        finally:
            stop.join()
    assert {wanted for _address, matches, wanted in gateway.asked if "follow" in matches} == {f"c5:0:{logs.ALL}"}


def test_where_there_is_no_key_its_file_is_named(tmp_path: Path) -> None:
    trust = tmp_path / "trust"
    trust.mkdir()
    with pytest.raises(FileNotFoundError) as error:
        Relay("ps1", LINKS, 1, trust, 1)
    assert error.value.filename == str(trust / "tls.key")


def test_the_port(tmp_path: Path) -> None:
    (file := tmp_path / "logrelay.json").write_text(json.dumps({"port": 19531}))
    assert logs.port(file) == 19531
