# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from ansible_collections.swg.ha.plugins.module_utils.device_uname import LARGEST, NoName, ask, name_in

OK = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/plain\r\n\r\n"


@contextlib.contextmanager
def serving(pieces, pause=0.0):
    """A server for one question: it sends the pieces, so many seconds apart, and closes. Gives its port and what it was asked."""
    asked = []
    ended = threading.Event()

    def serve():
        with contextlib.suppress(OSError):
            connection, _address = listening.accept()
            with connection:
                asked.append(connection.recv(1000))
                for piece in pieces:
                    if ended.wait(pause):
                        return
                    connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1], asked
        finally:
            ended.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize("name", ["ps1", "PS-1", "ps1.example.net", "p", "a_b", "x" * 64])
def test_a_name_is_told(name):
    assert name_in(OK + f"{name}\n".encode()) == name_in(OK + name.encode()) == name


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "not HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"HTTP/1.1 404 Not Found\r\n\r\nps1\n", "404 Not Found"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden"),
        (b"HTTP/1.1 200 OK\r\nServer: nginx", "no host name"),
        (OK, "no host name"),
        (OK + b"ps1\nps2\n", "no host name"),
        (OK + b"<html>", "no host name"),
        (OK + b"-ps1\n", "no host name"),
        (OK + "pé".encode(), "no host name"),
        (OK + b"x" * 65, "no host name"),
        (OK + b" " * LARGEST + b"ps1", "no host name"),
    ],
)
def test_what_is_no_name_is_refused(answer, said):
    with pytest.raises(ValueError, match=said):
        name_in(answer)


def test_the_question_is_asked_and_an_answer_in_pieces_is_put_together():
    with serving([OK[:20], OK[20:] + b"p", b"s2\n"], 0.05) as (port, asked):
        assert ask("127.0.0.1", port, 10) == "ps2"
    assert asked == [b"GET /device_uname HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"]


def test_who_does_not_listen_is_named():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(NoName, match=f"^127.0.0.1 port {port} tells no name: Connection refused$"):
            ask("127.0.0.1", port, 10)


def test_who_answers_ever_so_slowly_is_given_up_in_time():
    with serving([OK[:1]] * 100, 0.1) as (port, _asked):
        begin = time.monotonic()
        with pytest.raises(NoName, match="has told no name within 0.5 s"):
            ask("127.0.0.1", port, 0.5)
        assert 0.4 < time.monotonic() - begin < 8


def test_who_never_stops_is_not_heard_out():
    with serving([OK + b"x" * 1000] * 1000) as (port, _asked), pytest.raises(NoName, match="no host name|reset"):
        ask("127.0.0.1", port, 10)
