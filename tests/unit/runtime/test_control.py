# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import threading
import time

import pytest

from swg_ha import control
from swg_ha.control import ControlError, Refused, Server, ask
from swg_ha.shared import control_client

from .serving import serving


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


async def echo(request, progress):
    return {"request": request}


def raw(path, data, *, half_close=False):
    """Everything that the server says to these bytes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        with contextlib.suppress(BrokenPipeError):
            client.sendall(data)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while received := client.recv(65536):
                said += received
        return said


def refused_with(code, path, **more):
    with pytest.raises(ControlError) as refused:
        ask({"do": "status"}, path=path, timeout=more.pop("timeout", 5), **more)
    assert refused.value.code == code
    assert "\n" not in refused.value.text
    return refused.value.text


def test_a_request_gets_its_answer(path):
    with serving(path, echo):
        assert ask({"do": "status", "word": "Grüße"}, path=path, timeout=5) == {"ok": True, "request": {"do": "status", "word": "Grüße"}}


def test_only_the_owner_may_connect_and_nothing_else_is_left_behind(path):
    with serving(path, echo):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert os.listdir(path.parent) == ["control.sock"]
    assert os.listdir(path.parent) == []


def test_progress_comes_in_order_and_before_the_answer_whichever_thread_it_is_from(path):
    async def handle(request, progress):
        progress("one")
        await asyncio.to_thread(progress, "two")
        progress("three\nand four")
        return {}

    heard = []
    with serving(path, handle):
        assert ask({"do": "failover"}, path=path, timeout=5, progress=heard.append) == {"ok": True}
    assert heard == ["one", "two", "three\nand four"]


def test_progress_is_told_as_it_comes(path):
    go_on = threading.Event()

    async def handle(request, progress):
        progress("begun")
        assert await asyncio.to_thread(go_on.wait, 10)
        return {}

    with serving(path, handle):
        ask({"do": "failover"}, path=path, timeout=10, progress=lambda text: go_on.set())
    assert go_on.is_set()


def test_a_refusal_has_its_code_and_its_reason_in_one_line(path):
    async def handle(request, progress):
        raise Refused("LAGGING", "ps2 is behind:\n  wait")

    with serving(path, handle):
        assert refused_with("LAGGING", path) == "ps2 is behind: wait"


def test_a_handler_that_breaks_is_an_answer_and_not_the_end(path, caplog):
    async def handle(request, progress):
        if request["do"] == "status":
            raise ZeroDivisionError("no way")
        return {}

    with serving(path, handle):
        assert "ZeroDivisionError: no way" in refused_with("INTERNAL", path)
        assert ask({"do": "why"}, path=path, timeout=5) == {"ok": True}
    assert "request 'status' failed" in caplog.text


@pytest.mark.parametrize(
    "data",
    [b"garbage\n", b"\n", b"[]\n", b"{}\n", b'{"do": 1}\n', b"\xff\xfe\n", b"[" * 60000 + b"\n", b"x" * (control.MAX_REQUEST + 1024)],
    ids=["no JSON", "nothing", "a list", "without do", "do is a number", "not UTF-8", "deep", "too long"],
)
def test_what_is_no_request_is_refused(path, data):
    with serving(path, echo):
        answer = json.loads(raw(path, data).splitlines()[-1])
        assert (answer["ok"], answer["code"]) == (False, "BAD_REQUEST")
        assert ask({"do": "status"}, path=path, timeout=5)["ok"]


def test_a_request_that_was_cut_off_is_not_done(path):
    done = []

    async def handle(request, progress):
        done.append(request)
        return {}

    with serving(path, handle):
        assert raw(path, b'{"do": "failover"}', half_close=True) == b""
        ask({"do": "status"}, path=path, timeout=5)
    assert done == [{"do": "status"}]


def test_a_client_without_a_request_is_sent_away(path, monkeypatch):
    monkeypatch.setattr(control, "PATIENCE", 0.1)
    with serving(path, echo):
        assert json.loads(raw(path, b""))["code"] == "BAD_REQUEST"


def test_what_was_asked_for_goes_on_when_the_client_is_gone(path):
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    async def handle(request, progress):
        begun.set()
        await asyncio.to_thread(go_on.wait, 10)
        progress("nobody hears this")
        done.set()
        return {}

    with serving(path, handle):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b'{"do": "failover"}\n')
            assert begun.wait(10)
        go_on.set()
        assert done.wait(10)


def test_silent_clients_make_room_for_one_that_asks(path):
    with serving(path, echo), contextlib.ExitStack() as stack:
        for _ in range(3 * control.MAX_CLIENTS):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        begun = time.monotonic()
        assert ask({"do": "gate"}, path=path, timeout=5)["ok"]
        assert time.monotonic() - begun < control.PATIENCE / 2


def test_more_clients_than_can_be_served_are_told_so(path):
    go_on = threading.Event()
    begun = threading.Semaphore(0)

    async def handle(request, progress):
        begun.release()
        await asyncio.to_thread(go_on.wait, 10)
        return {}

    with serving(path, handle), contextlib.ExitStack() as stack:
        for _ in range(control.MAX_CLIENTS):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(path))
            client.sendall(b'{"do": "status"}\n')
        try:
            for _ in range(control.MAX_CLIENTS):
                assert begun.acquire(timeout=10)
            assert str(control.MAX_CLIENTS) in refused_with("BUSY", path)
        finally:
            go_on.set()


def test_a_client_that_does_not_read_costs_neither_memory_nor_time(path):
    flooded = threading.Event()

    async def handle(request, progress):
        if request["do"] == "flood":
            for _ in range(400):
                progress("x" * 10000)
                await asyncio.sleep(0)
            flooded.set()
        return {}

    with serving(path, handle), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b'{"do": "flood"}\n')
        assert ask({"do": "status"}, path=path, timeout=5)["ok"]
        assert flooded.wait(10)
        client.settimeout(10)
        read = 0
        with contextlib.suppress(ConnectionResetError):
            while received := client.recv(65536):
                read += len(received)
        assert read < 400 * 10000 / 2


def test_a_large_answer_arrives_whole(path):
    async def handle(request, progress):
        return {"transitions": ["x" * 1000] * 3000}

    with serving(path, handle):
        assert len(ask({"do": "timeline"}, path=path, timeout=10)["transitions"]) == 3000


def test_closing_tells_those_who_wait(path):
    begun = threading.Event()

    async def handle(request, progress):
        begun.set()
        await asyncio.sleep(60)
        return {}

    codes = []

    def wait_for_answer():
        try:
            ask({"do": "failover"}, path=path, timeout=10)
        except ControlError as error:
            codes.append(error.code)

    with serving(path, handle) as there:
        client = threading.Thread(target=wait_for_answer)
        client.start()
        assert begun.wait(10)
        there.run(there.server.close())
        client.join(10)
    assert codes == ["STOPPING"]


def test_a_socket_that_a_killed_server_left_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    (path.parent / ".control.sock.new").touch()
    with serving(path, echo):
        assert ask({"do": "status"}, path=path, timeout=5)["ok"]
        assert os.listdir(path.parent) == ["control.sock"]


def test_a_second_server_does_not_take_the_socket_of_one_that_answers(path):
    with serving(path, echo):
        with pytest.raises(OSError, match="another ha_manager answers here"):
            asyncio.run(Server(path, echo).start())
        assert ask({"do": "status"}, path=path, timeout=5)["ok"]


def test_closing_leaves_the_socket_of_a_successor_alone(path):
    with serving(path, echo) as there:
        path.unlink()
        with serving(path, echo):
            there.run(there.server.close())
            assert ask({"do": "status"}, path=path, timeout=5)["ok"]


def test_nobody_there(path):
    assert "systemctl start ha_manager" in refused_with("NOT_RUNNING", path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    refused_with("NOT_RUNNING", path)


@pytest.fixture
def answering(path):
    """Answers the next client with these bytes, and then hangs or hangs up."""
    with contextlib.ExitStack() as stack:

        def answer(data, *, hang=False):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen(1)

            def serve():
                client, _ = listener.accept()
                client.recv(65536)
                with contextlib.suppress(OSError):
                    client.sendall(data)
                    if hang:
                        client.recv(1)
                client.close()

            thread = threading.Thread(target=serve)
            thread.start()
            stack.callback(thread.join, 10)

        yield answer


def test_no_answer_in_time(path, answering):
    answering(b"", hang=True)
    begun = time.monotonic()
    assert "0.2 s" in refused_with("TIMEOUT", path, timeout=0.2)
    assert time.monotonic() - begun < 10


def test_progress_does_not_make_the_time_longer(path, answering):
    answering(b'{"progress": "x"}\n' * 3, hang=True)
    heard = []
    refused_with("TIMEOUT", path, timeout=3, progress=heard.append)
    assert heard == ["x"] * 3


@pytest.mark.parametrize("data", [b"", b'{"progress": "x"}\n', b'{"ok": tr'], ids=["at once", "after progress", "in the answer"])
def test_an_answer_that_is_cut_off(path, answering, data):
    answering(data)
    assert "before it answered" in refused_with("LOST", path)


@pytest.mark.parametrize("data", [b"hello\n", b"[]\n"])
def test_an_answer_that_is_none(path, answering, data):
    answering(data)
    refused_with("GARBLED", path)


def test_an_endless_answer(path, answering, monkeypatch):
    monkeypatch.setattr(control_client, "MAX_ANSWER", 1000)
    answering(b"x" * 5000, hang=True)
    refused_with("GARBLED", path)
