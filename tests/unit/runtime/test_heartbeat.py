# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from swg_ha import heartbeat
from swg_ha.heartbeat import Heartbeat

# Stands for cl_status: answers what a file with the question's name says, and with 1 where there is none.
CL_STATUS = """#!/bin/sh
cd "$(dirname "$0")" || exit 13
echo "$@" >> calls
cat "$*" 2>/dev/null
"""


class Master:
    """The files of a Heartbeat, and its answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fifo = folder / "fifo"
        program = folder / "cl_status"
        program.write_text(CL_STATUS)
        program.chmod(0o755)

    def says(self, question: str, answer: str) -> None:
        new = self.folder / "new"
        new.write_text(f"{answer}\n")
        new.replace(self.folder / question)

    def on_message(self, act: Callable[[str], None]) -> threading.Thread:
        """Read one message from the FIFO and act on it, as Heartbeat does."""
        os.mkfifo(self.fifo)
        # Open at both ends, so that a writer finds somebody at once.
        reader = os.open(self.fifo, os.O_RDWR)

        def read() -> None:
            message = os.read(reader, 4096).decode()
            act(message)
            os.close(reader)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Master:
    master = Master(tmp_path)
    monkeypatch.setattr(heartbeat, "CL_STATUS", str(tmp_path / "cl_status"))
    monkeypatch.setattr(heartbeat, "FIFO", master.fifo)
    monkeypatch.setattr(heartbeat, "PID_FILE", tmp_path / "heartbeat.pid")
    monkeypatch.setattr(heartbeat, "_BETWEEN_QUESTIONS", 0.01)
    return master


@pytest.fixture
def process(master: Master) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is called heartbeat, and is in the PID file."""
    program = master.folder / "heartbeat"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "3600"]) as process:
        comm = Path(f"/proc/{process.pid}/comm")
        while comm.read_text() != "heartbeat\n":
            time.sleep(0.001)
        heartbeat.PID_FILE.write_text(f"{process.pid:10d}\n")
        yield process
        process.kill()


PS1 = Heartbeat("ps1", "ps2", ["eth0", "eth1"])


@pytest.mark.parametrize("word", ["all", "local", "foreign", "none", "transition"])
def test_rscstatus(master: Master, word: str) -> None:
    master.says("rscstatus", word)
    assert asyncio.run(PS1.rscstatus()) == word


def test_no_answer(master: Master) -> None:
    assert asyncio.run(PS1.rscstatus()) is None
    assert asyncio.run(PS1.peer()) is None
    master.says("rscstatus", "(null)")
    assert asyncio.run(PS1.rscstatus()) is None


def test_a_heartbeat_that_hangs_gives_no_answer_in_bounded_time(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_PATIENCE", 0.2)
    (master.folder / "cl_status").write_text("#!/bin/sh\nexec sleep 3600\n")
    began = time.monotonic()
    assert asyncio.run(PS1.rscstatus()) is None
    assert time.monotonic() - began < 5


def test_the_peer(master: Master) -> None:
    master.says("nodestatus ps2", "dead")
    assert asyncio.run(PS1.peer()) == "dead"


def test_the_master_process(process: subprocess.Popen[bytes]) -> None:
    assert PS1.pid() == process.pid
    assert PS1.running()
    process.kill()
    # It is not waited for yet, and so still has its number.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert PS1.pid() is None
    assert not PS1.running()


@pytest.mark.parametrize("text", [None, "", "none\n", "0\n", "-1\n", "4194305\n"])
def test_no_master_process(master: Master, text: str | None) -> None:
    if text is not None:
        heartbeat.PID_FILE.write_text(text)
    assert PS1.pid() is None


def test_the_number_of_a_dead_master_that_another_process_has(master: Master) -> None:
    heartbeat.PID_FILE.write_text(f"{os.getpid()}\n")
    assert PS1.pid() is None


@pytest.mark.parametrize(
    ("move", "before", "message", "after"),
    [
        (PS1.give, "all", ">>>\nt=ask_resources\nrsc_hold=all\ninfo=me\n<<<\n", "none"),
        (PS1.give, "local", ">>>\nt=ask_resources\nrsc_hold=all\ninfo=me\n<<<\n", "none"),
        (PS1.take, "none", ">>>\nt=hb_takeover\nrsc_hold=all\n<<<\n", "all"),
        (PS1.take, "local", ">>>\nt=hb_takeover\nrsc_hold=all\n<<<\n", "all"),
    ],
)
def test_moving_the_resources(master: Master, move: Callable[..., Awaitable[bool]], before: str, message: str, after: str) -> None:
    master.says("rscstatus", "transition")
    heard: list[str] = []

    def act(text: str) -> None:
        heard.append(text)
        master.says("rscstatus", "transition")
        time.sleep(0.1)
        master.says("rscstatus", after)

    acting = master.on_message(act)

    async def run() -> bool:
        moving = asyncio.ensure_future(move(10))
        await asyncio.sleep(0.2)
        # It is not asked while it moves something.
        assert heard == []
        master.says("rscstatus", before)
        return await moving

    assert asyncio.run(run()) is True
    acting.join(10)
    assert heard == [message]


def test_nothing_is_asked_where_it_is_so_already(master: Master) -> None:
    master.says("rscstatus", "all")
    assert asyncio.run(PS1.take()) is True
    master.says("rscstatus", "none")
    assert asyncio.run(PS1.give()) is True


def test_a_heartbeat_that_does_not_run_is_not_waited_for(master: Master) -> None:
    began = time.monotonic()
    assert asyncio.run(PS1.take()) is False
    master.says("rscstatus", "none")
    assert asyncio.run(PS1.take()) is False
    os.mkfifo(master.fifo)
    assert asyncio.run(PS1.take()) is False
    assert time.monotonic() - began < 5


def test_a_move_that_does_not_happen_is_waited_for_only_so_long(master: Master) -> None:
    master.says("rscstatus", "none")
    master.on_message(lambda _message: None)
    assert asyncio.run(PS1.take(0.3)) is False
    master.says("rscstatus", "transition")
    assert asyncio.run(PS1.give(0.3)) is False


HEADER = struct.Struct("=II")


def packed(text: str) -> bytes:
    body = text.encode() + b"\0"
    return HEADER.pack(len(body), 0xABCD) + body


class Daemon:
    """The end of Heartbeat's own clients: it says what it is given, after the client has signed on and asked for the peer."""

    def __init__(self, sayings: list[bytes], signing_on: str = ">>>\nt=hbapi-resp\nreqtype=signon\nresult=OK\nnode=ps1\n<<<\n") -> None:
        self.sayings = sayings
        self.signing_on = signing_on
        self.heard: list[dict[str, str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._hear(reader)
        writer.write(packed(self.signing_on))
        if "OK" in self.signing_on:
            await self._hear(reader)
            for saying in self.sayings:
                writer.write(saying)
                await writer.drain()
        writer.close()

    async def _hear(self, reader: asyncio.StreamReader) -> dict[str, str]:
        length, magic = HEADER.unpack(await reader.readexactly(HEADER.size))
        text = (await reader.readexactly(length)).decode()
        assert magic == 0xABCD
        begin, *lines, end, zero = text.split("\n")
        assert (begin, end, zero) == (">>>", "<<<", "\0")
        self.heard.append(dict(line.split("=") for line in lines))
        return self.heard[-1]


def watched(path: Path, *daemons: Daemon) -> list[tuple[str, str]]:
    """What is told while one Heartbeat after the other runs."""

    async def run() -> list[tuple[str, str]]:
        told: list[tuple[str, str]] = []
        watching = asyncio.create_task(PS1.watch(lambda node, what: told.append((node, what))))
        for daemon in daemons:
            served = asyncio.Event()

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, daemon: Daemon = daemon, served: asyncio.Event = served
            ) -> None:
                await daemon.serve(reader, writer)
                served.set()

            server = await asyncio.start_unix_server(serve, path)
            async with asyncio.timeout(10):
                await served.wait()
            server.close()
            path.unlink()
            # It notices the end and comes back.
            await asyncio.sleep(0.3)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        return told

    return asyncio.run(run())


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(heartbeat, "REGISTER", tmp_path / "register")
    monkeypatch.setattr(heartbeat, "_BETWEEN_ATTEMPTS", (0.01, 0.02))
    return tmp_path / "register"


def test_what_heartbeat_tells_is_told(register: Path) -> None:
    said = [
        packed(">>>\nt=hbapi-resp\nreqtype=nodestatus\nst=active\nresult=OK\n<<<\n"),
        packed(">>>\nt=ifstat\nnode=ps2\nifname=eth0\nst=dead\n<<<\n"),
        packed(">>>\nt=status\nseq=1\nts=6b036b53\nsrc=ps2\nst=dead\n<<<\n"),
        packed(">>>\nt=status\nst=ping\nsrc=192.0.2.1\n<<<\n"),
        packed(">>>\nt=resource\nrsc_hold=all\nrtype=full\nisstable=1\nsrc=ps1\n(1)srcuuid=ou5eleYyQseBdsFDoMEsqw==\nauth=1 c0a0\n<<<\n"),
        packed("###\n(12)(0)(0)(1)t=status,(0)(3)(0)(4)st=dead,%%%\n"),
        packed(""),
        packed(">>>\nnot a field\n<<<\n"),
    ]
    # Whatever the pieces are in which it comes.
    stream = b"".join(said)
    daemon = Daemon([stream[at : at + 7] for at in range(0, len(stream), 7)])
    told = watched(register, daemon)
    assert told == [
        ("ps1", "started"), ("ps2", "active"), ("ps2", "dead"), ("192.0.2.1", "ping"), ("ps1", "resources"), ("ps1", "stopped"),
    ]  # fmt: skip
    client = str(os.getpid())
    signing_on, question = daemon.heard
    assert signing_on == {
        "t": "hbapi-req", "reqtype": "signon", "dest": "ps1", "pid": client, "from_id": client, "uid": str(os.getuid()), "gid": str(os.getgid()),
    }  # fmt: skip
    assert question == {"t": "hbapi-req", "reqtype": "nodestatus", "dest": "ps1", "pid": client, "from_id": client, "node": "ps2"}


def test_a_heartbeat_that_comes_back_is_listened_to_again(register: Path) -> None:
    dead = packed(">>>\nt=status\nsrc=ps2\nst=dead\n<<<\n")
    told = watched(register, Daemon([]), Daemon([dead]))
    assert told == [("ps1", "started"), ("ps1", "stopped"), ("ps1", "started"), ("ps2", "dead"), ("ps1", "stopped")]


def test_a_peer_is_dead_when_the_last_link_is(register: Path) -> None:
    def link(node: str, interface: str, status: str) -> bytes:
        return packed(f">>>\nt=ifstat\nnode={node}\nifname={interface}\nst={status}\n<<<\n")

    def node(status: str) -> bytes:
        return packed(f">>>\nt=status\nsrc=ps2\nst={status}\n<<<\n")

    def told(*said: bytes) -> list[str]:
        # What the Heartbeat before it said of its links is old.
        before = Daemon([link("ps2", "eth0", "dead")])
        return [what for whose, what in watched(register, before, Daemon(list(said))) if whose == "ps2"]

    one, other = link("ps2", "eth0", "dead"), link("ps2", "eth1", "dead")
    assert told(one, link("192.0.2.1", "eth1", "dead"), link("ps2", "192.0.2.1", "dead"), one) == []
    assert told(other) == []
    assert told(node("init"), one, other, node("active")) == ["init", "dead"]
    assert told(node("active"), one, other, link("ps2", "eth1", "up"), link("ps2", "eth0", "up")) == ["active", "dead", "active"]
    # As it is when nobody has asked for patience, and when it comes back.
    assert told(node("active"), node("dead"), one, other, link("ps2", "eth1", "up"), node("up")) == ["active", "dead", "up"]
    assert told(node("active"), one, other, node("dead")) == ["active", "dead", "dead"]


@pytest.mark.parametrize("nonsense", [HEADER.pack(1 << 21, 0xABCD), HEADER.pack(5, 1) + b"12345", packed("\n")[:9], b"\0\0"])
def test_nonsense_ends_the_connection_and_nothing_else(register: Path, nonsense: bytes) -> None:
    told = watched(register, Daemon([nonsense]), Daemon([]))
    assert told == [("ps1", "started"), ("ps1", "stopped")] * 2


def test_a_heartbeat_that_refuses_is_asked_again(register: Path) -> None:
    refusing = Daemon([], signing_on=">>>\nt=hbapi-resp\nreqtype=signon\nresult=fail\n<<<\n")
    assert watched(register, refusing, Daemon([])) == [("ps1", "started"), ("ps1", "stopped")]


class Asked(Daemon):
    """One that goes on, and answers what is asked once it is told what; None: by its end."""

    def __init__(self) -> None:
        super().__init__([])
        self.answers: asyncio.Queue[str | None] = asyncio.Queue()
        self.questions = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._hear(reader)
        writer.write(packed(self.signing_on))
        assert (await self._hear(reader))["reqtype"] == "nodestatus"
        with contextlib.closing(writer):
            while (await self._hear(reader))["reqtype"] == "getrsc":
                self.questions += 1
                if (answer := await self.answers.get()) is None:
                    return
                writer.write(packed(f">>>\nt=hbapi-resp\nreqtype=getrsc\n{answer}\n<<<\n"))


def polled(path: Path, test: Callable[[Asked], Awaitable[None]]) -> None:
    async def run() -> None:
        daemon, listening = Asked(), asyncio.Event()
        server = await asyncio.start_unix_server(daemon.serve, path)
        watching = asyncio.create_task(PS1.watch(lambda _node, _what: listening.set()))
        async with asyncio.timeout(20):
            await listening.wait()
            await test(daemon)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        server.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "rscstatus"),
    [("rsc_hold=local\nresult=OK", "local"), ("rsc_hold=(null)\nresult=OK", None), ("result=fail\nfailreason=crm", None)],
)
def test_the_poll_is_asked_where_it_is_listened(master: Master, register: Path, answer: str, rscstatus: str | None) -> None:
    async def test(daemon: Asked) -> None:
        for asked in (1, 2):
            daemon.answers.put_nowait(answer)
            assert (await PS1.poll(), daemon.questions) == (rscstatus, asked)

    polled(register, test)
    assert not (master.folder / "calls").exists(), "a process was begun for it"


def test_the_poll_where_nobody_listens(master: Master) -> None:
    master.says("rscstatus", "none")
    assert asyncio.run(PS1.poll()) == "none"


def test_a_poll_that_stays_without_an_answer(master: Master, register: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is bounded, cl_status asks as long as the answer is owed, and the late one is not taken for that to the next question."""
    monkeypatch.setattr(heartbeat, "_PATIENCE", 0.5)
    master.says("rscstatus", "none")

    async def test(daemon: Asked) -> None:
        assert await PS1.poll() == "none"
        monkeypatch.setattr(heartbeat, "_PATIENCE", 10.0)
        assert (await PS1.poll(), daemon.questions) == ("none", 1)
        daemon.answers.put_nowait("rsc_hold=all\nresult=OK")
        while PS1._answer is not None:
            await asyncio.sleep(0.01)
        daemon.answers.put_nowait("rsc_hold=local\nresult=OK")
        assert (await PS1.poll(), daemon.questions) == ("local", 2)

    polled(register, test)


def test_a_poll_ends_with_the_heartbeat_that_was_asked(master: Master, register: Path) -> None:
    async def test(daemon: Asked) -> None:
        daemon.answers.put_nowait(None)
        began = time.monotonic()
        assert await PS1.poll() is None
        assert time.monotonic() - began < heartbeat._PATIENCE / 2

    polled(register, test)
