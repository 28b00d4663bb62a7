# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The other server's system log, as its service logrelay hands it out: systemd-journal-gatewayd's own protocol over the pair's TLS."""

from __future__ import annotations

import heapq
import io
import json
import queue
import re
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

from .settings import Link
from .text import one_line, plain
from .trust import Trust

EXPORT = "application/vnd.fdo.journal"
# More than any log has.
ALL = 2**62
LARGEST_FIELD = 2**26
# A link that does not answer within this time is passed over.
LONGEST_CONNECT = 3.0
# For how long the other server may be gone before a log that is followed ends.
SILENT_MS = 15_000
BETWEEN_ATTEMPTS = 1.0

UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]+")
SUFFIXES = (".service", ".socket", ".target", ".timer", ".path", ".mount", ".slice", ".scope", ".swap", ".automount", ".device")
STATUS = {
    400: "it does not accept this server's certificate: run the playbook enable_ha, which introduces the servers to each other",
    403: "it does not know this server's address: run the playbook enable_ha",
    404: "it serves no log there: run the playbook enable_ha",
    429: "it has too many readers already",
    502: "its journal cannot be read: see 'systemctl status logrelay_journal' there",
}

Entry = dict[str, bytes]
Match = tuple[str, str]


class LogError(Exception):
    """The log cannot be read; the text says why and what to do."""


def port(path: Path) -> int:
    """The TCP port of the service. Raises LogError, and OSError where there is no such file."""
    try:
        said = json.loads(path.read_bytes())["port"]
        if isinstance(said, bool) or not 1 <= int(said) <= 65535:
            raise ValueError(f"port is {said!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise LogError(f"{path}: {one_line(error)}: run the playbook enable_ha") from error
    return int(said)


def moment(text: str, now: datetime) -> datetime:
    """What --since means: a date, a time of today, both, or so many seconds, minutes, hours or days ago. Raises ValueError."""
    if ago := re.fullmatch(r"-?(\d{1,6})(s|m|min|h|d)", text):
        unit = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}[ago[2]]
        return now - timedelta(**{unit: int(ago[1])})
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    for form in ("%H:%M:%S", "%H:%M"):
        try:
            return datetime.combine(now.date(), datetime.strptime(text, form).time())
        except ValueError:
            continue
    raise ValueError(f"{text!r} is no time such as '2026-01-31 21:55', '21:55' or '15m'")


def unit_name(text: str) -> str:
    """The full name of a unit. Raises LogError for what is none, patterns among it."""
    if not UNIT.fullmatch(text):
        raise LogError(f"{text!r} is no unit's name: the other server's log can be read by whole names only, such as heartbeat.service")
    return text if text.endswith(SUFFIXES) else f"{text}.service"


def queries(units: Sequence[str]) -> list[list[Match]]:
    """What to ask for, each by fields that must all match; several values of one field are alternatives.

    What a unit says is one thing, what systemd says of it another, and the gateway does not know "or".
    """
    names = [unit_name(unit) for unit in units]
    if not names:
        return [[]]
    return [[("_SYSTEMD_UNIT", name) for name in names], [("_PID", "1"), *(("UNIT", name) for name in names)]]


def parse(stream: BinaryIO) -> Iterator[Entry]:
    """The entries of a stream in journald's export format; of a field with several values, the first. Raises ValueError."""
    entry: Entry = {}
    while line := stream.readline():
        if line == b"\n":
            if "__CURSOR" in entry:
                yield entry
            entry = {}
            continue
        name, equals, value = line.removesuffix(b"\n").partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", _exactly(stream, 8))
            if length > LARGEST_FIELD:
                raise ValueError(f"a field of {length} bytes")
            value = _exactly(stream, length + 1)[:-1]
        entry.setdefault(name.decode("ascii", errors="replace"), value)
    if entry:
        raise ValueError("the log ends within an entry")


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := stream.read(count - len(data))):
            raise ValueError("the log ends within a field")
        data += more
    return data


class _Body(io.RawIOBase):
    """An answer whose end, where it is not marked as such, is an error. HTTPResponse.readline takes a cut for the end."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int:
        data = self._response.read1(len(room))
        room[: len(data)] = data
        return len(data)


def _body(response: HTTPResponse) -> io.BufferedReader:
    return io.BufferedReader(_Body(response))


def at(entry: Entry) -> int:
    """When the entry was written, in microseconds since the epoch."""
    return int(entry.get("__REALTIME_TIMESTAMP", b"0"))


def short(entry: Entry) -> str:
    """The entry as journalctl shows it, in this server's time, without anything that a terminal would obey."""

    def text(*names: str) -> str:
        return plain(next((entry[name].decode(errors="replace") for name in names if name in entry), ""))

    when = time.strftime("%b %d %H:%M:%S", time.localtime(at(entry) / 1e6))
    number = text("_PID", "SYSLOG_PID")
    who = text("SYSLOG_IDENTIFIER", "_COMM") or "unknown"
    start = f"{when} {text('_HOSTNAME')} {who}{f'[{number}]' if number else ''}: "
    lines = entry.get("MESSAGE", b"").decode(errors="replace").split("\n")
    return f"\n{' ' * len(start)}".join([start + plain(lines[0]), *map(plain, lines[1:])])


class Relay:
    """The other server's log. Its links are tried in their order, from the one that answered last."""

    def __init__(self, peer_node: str, links: Sequence[Link], port: int, trust: Path, timeout: float) -> None:
        self._peer_node = peer_node
        self._links = deque(links)
        self._port = port
        self._timeout = timeout
        # Who may not read the key is told so by the name of its file.
        (trust / "tls.key").open("rb").close()
        self._trust = Trust(trust, server_side=False)

    def read(self, units: Sequence[str], show: Callable[[Entry], None], *, lines: int | None, since: float | None, follow: bool) -> None:
        """Show the newest lines, or, where lines is None, all; since: only what is that new, in seconds since the epoch.

        follow: then what comes, until the other server is gone. Raises LogError.
        """
        asked = queries(units)
        # Where to go on if nothing matches: it is asked first, so that nothing falls between.
        end = [entry["__CURSOR"] for entry in self._entries([], ":-1:2")] if follow else []
        cursors = [end[-1] if end else b""] * len(asked)

        def remembered(number: int, entries: Iterator[Entry]) -> Iterator[Entry]:
            for entry in entries:
                cursors[number] = entry["__CURSOR"]
                yield entry

        first = f":{-lines}:{lines + 1}" if lines else f"t={int((since or 0) * 1e6):x}:0:{ALL}"
        streams = [remembered(number, self._entries(matches, first)) for number, matches in enumerate(asked)]
        found = (entry for entry in heapq.merge(*streams, key=at) if since is None or at(entry) >= since * 1e6)
        for entry in deque(found, lines) if lines else found:
            show(entry)
        if follow:
            for entry in _as_they_come([self._followed(matches, cursor) for matches, cursor in zip(asked, cursors, strict=True)]):
                show(entry)

    def _entries(self, matches: list[Match], wanted: str) -> Iterator[Entry]:
        """What there is. Raises LogError."""
        try:
            with closing(self._ask(matches, wanted, follow=False)) as response:
                yield from parse(_body(response))
        except (OSError, HTTPException, ValueError) as error:
            raise LogError(f"the log of {self._peer_node} ended too soon: {one_line(error)}: try again") from error

    def _followed(self, matches: list[Match], cursor: bytes) -> Iterator[Entry]:
        """What comes after the cursor. A connection that ends is made anew; raises LogError when that cannot be done."""
        while True:
            try:
                with closing(self._ask(matches, f"{cursor.decode()}:0:{ALL}", follow=True)) as response:
                    for entry in parse(_body(response)):
                        # The first one is the cursor's own.
                        if entry["__CURSOR"] != cursor:
                            yield entry
                        cursor = entry["__CURSOR"]
            except (OSError, HTTPException, ValueError):
                pass
            time.sleep(BETWEEN_ATTEMPTS)

    def _ask(self, matches: list[Match], wanted: str, *, follow: bool) -> HTTPResponse:
        """The answer of the first link that gives one. Raises LogError."""
        reasons = []
        for _turn in range(len(self._links)):
            link = self._links[0]
            try:
                return self._ask_over(link, matches, wanted, follow)
            except ssl.SSLCertVerificationError:
                reasons.append(f"{link.peer_address} shows another certificate than the pinned one (run the playbook enable_ha)")
            except (OSError, HTTPException) as error:
                reasons.append(f"{link.peer_address}: {getattr(error, 'strerror', None) or one_line(error)}")
            self._links.rotate(-1)
        raise LogError(
            f"{self._peer_node} cannot be asked for its log: {'; '.join(reasons)}: is it up, and does logrelay run there "
            "('systemctl status logrelay')?"
        )

    def _ask_over(self, link: Link, matches: list[Match], wanted: str, follow: bool) -> HTTPResponse:
        self._trust.refresh()
        if self._trust.context is None:
            raise LogError(str(self._trust.problem))
        connection = HTTPConnection(link.peer_address, self._port)
        raw = socket.create_connection((link.peer_address, self._port), min(self._timeout, LONGEST_CONNECT), (link.address, 0))
        try:
            connection.sock = self._trust.context.wrap_socket(raw)
            if connection.sock.getpeercert(binary_form=True) != self._trust.pin:
                raise ssl.SSLCertVerificationError(1, "not the pinned certificate")
            connection.sock.settimeout(self._timeout)
            question = urlencode([("follow", ""), *matches] if follow else matches)
            connection.request("GET", f"/entries?{question}", headers={"Accept": EXPORT, "Range": f"entries={wanted}"})
            if follow:
                # Silence is no sign of anything then, but unanswered probes are.
                _probe_when_silent(connection.sock)
            response = connection.getresponse()
        except BaseException:
            raw.close()
            connection.close()
            raise
        if response.status != 200:
            connection.close()
            why = STATUS.get(response.status, f"its answer is {response.status} {plain(response.reason)}")
            raise LogError(f"{self._peer_node} does not show its log: {why}")
        return response


def _probe_when_silent(connection: socket.socket) -> None:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 5),
        (socket.TCP_KEEPINTVL, 2),
        (socket.TCP_KEEPCNT, 5),
        (socket.TCP_USER_TIMEOUT, SILENT_MS),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _as_they_come(streams: Sequence[Iterator[Entry]]) -> Iterator[Entry]:
    """The entries of all streams, until one of them fails."""
    arrived: queue.SimpleQueue[Entry | Exception] = queue.SimpleQueue()

    def forward(stream: Iterator[Entry]) -> None:
        try:
            for entry in stream:
                arrived.put(entry)
        except Exception as error:
            arrived.put(error)

    for stream in streams:
        threading.Thread(target=forward, args=(stream,), daemon=True).start()
    while True:
        one = arrived.get()
        if isinstance(one, Exception):
            raise one
        yield one
