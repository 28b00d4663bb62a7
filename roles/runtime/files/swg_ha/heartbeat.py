# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Linux-HA Heartbeat on this server: what it says, and moving its resources to where the service is."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import struct
from collections.abc import Callable, Collection
from pathlib import Path

from . import processes, units
from .shared import heartbeat as said

UNIT = "heartbeat.service"
CL_STATUS = "/usr/bin/cl_status"
PID_FILE = Path("/run/heartbeat.pid")
# Where Heartbeat's own shell scripts hb_standby and hb_takeover write what they want of it.
FIFO = Path("/var/lib/heartbeat/fifo")

# Where its clients sign on. A message is its length and a fixed number, four bytes each as the processor has them, and then
# lines of name=value between two lines that mark its ends, and a zero byte.
REGISTER = Path("/run/heartbeat/register")

log = logging.getLogger(__name__)

_HEADER = struct.Struct("=II")
_MAGIC = 0xABCD
_LONGEST_MESSAGE = 1 << 20
_BEGIN, _END = ">>>", "<<<"
_BETWEEN_ATTEMPTS = (0.1, 1.0)

# cl_status ends itself after 5 s.
_PATIENCE = 5.5
_BETWEEN_QUESTIONS = 0.1


class Heartbeat:
    """Heartbeat on this server, the one of node; peer_node is the other one. Both are names as `uname -n` prints them.

    interfaces: those over which the two Heartbeats speak.
    """

    def __init__(self, node: str, peer_node: str, interfaces: Collection[str]) -> None:
        self.node = node
        self.peer_node = peer_node
        self._interfaces = frozenset(interfaces)
        # Nothing has come from the peer over any link for deadtime.
        self._silent = False
        # While it is listened to; and the answer that it owes there.
        self._connection: asyncio.StreamWriter | None = None
        self._answer: asyncio.Future[str | None] | None = None

    async def rscstatus(self) -> str | None:
        """all, local, foreign, none or transition; None: no answer."""
        return _rscstatus(await self._ask("rscstatus"))

    async def poll(self) -> str | None:
        """As rscstatus, but asked where ``watch`` listens: no process is begun for it. Heartbeat may let its keepalive pass before it answers.

        Where it owes an answer for longer, or nobody listens, cl_status asks.
        """
        if self._connection is None or self._answer is not None:
            return await self.rscstatus()
        self._answer = answer = asyncio.get_running_loop().create_future()
        self._connection.write(_packed({**self._request(), "reqtype": "getrsc"}))
        done, _pending = await asyncio.wait([answer], timeout=_PATIENCE)
        return _rscstatus(answer.result()) if done else await self.rscstatus()

    async def peer(self) -> str | None:
        """What Heartbeat calls the other server: active, up, init or dead; None: no answer. One that ``watch`` found silent is dead."""
        word = await self._ask("nodestatus", self.peer_node)
        return None if word is None else self._called(word)

    def pid(self) -> int | None:
        """The number of Heartbeat's master process; None: it does not run."""
        try:
            pid = int(PID_FILE.read_text(encoding="ascii"))
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except (OSError, ValueError):
            return None
        # The number of one that was killed may be another process's by now. After the name, in brackets, comes the state.
        name, _end, rest = state.rpartition(")")
        alive = rest.split()[0] not in ("Z", "X")
        return pid if alive and name.endswith("(heartbeat") else None

    def running(self) -> bool:
        return self.pid() is not None

    async def give(self, timeout: float = 15.0) -> bool:
        """Have the other server hold all resources. False: not within timeout seconds, or Heartbeat cannot be asked now."""
        return await self._move({"t": "ask_resources", "rsc_hold": "all", "info": "me"}, "none", timeout)

    async def take(self, timeout: float = 15.0) -> bool:
        """Have this server hold all resources. False: not within timeout seconds, or Heartbeat cannot be asked now."""
        return await self._move({"t": "hb_takeover", "rsc_hold": "all"}, "all", timeout)

    def complete_takeover(self) -> bool:
        """Tell Heartbeat once more that it has taken over what the peer held. False: it cannot be told now.

        Its scripts write their messages in pieces (ha_clustermsg in shellfuncs), and two at a time spoil each other's. Without the one of
        mach_down a take-over never ends, and nor does the peer's return.
        """
        return _send({"t": "resource", "rsc_hold": "foreign", "info": "mach_down"})

    async def start(self) -> None:
        """Raises UnitError."""
        await units.start(UNIT)

    async def stop(self) -> None:
        """Stop it for good, until it is started again or the server boots. It tells the peer that it goes. Raises UnitError."""
        await units.stop(UNIT)

    async def restart(self) -> None:
        """Start it anew, with its resources where they are; start it where it does not run. Raises UnitError."""
        if not self.running():
            await units.start(UNIT)
        elif await self.rscstatus() is not None:
            await units.reload(UNIT)
        else:
            # It hangs, and would not hear a request to stop either.
            await self.begin_anew()

    async def begin_anew(self) -> None:
        """End it as a crash would, whatever it is busy with; systemd starts it before the peer notices. Raises UnitError."""
        await units.kill(UNIT)

    async def watch(self, told: Callable[[str, str], None]) -> None:
        """Tell for ever what Heartbeat tells its clients, at once: told(node, what).

        what is what Heartbeat calls the node from now on - active, up, init, dead, or ping for a ping node that answers - or
        "resources" when what the node holds has changed. Of this server it is also "started" and "stopped", as its Heartbeat is there or
        not; after "started" the peer's status is told. That the peer is dead is known here a tenth of a second and more before Heartbeat's
        scripts have got as far as the gate.

        A peer that is silent on all links for deadtime is dead. Heartbeat says so later where the peer's Heartbeat has asked it for
        patience: two seconds more for its first five seconds, 30 when it is about to restart.
        """
        patience = _BETWEEN_ATTEMPTS[0]
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(REGISTER)
                with contextlib.closing(writer):
                    await self._sign_on(reader, writer)
                    patience = _BETWEEN_ATTEMPTS[0]
                    self._connection = writer
                    told(self.node, "started")
                    try:
                        await self._listen(reader, told)
                    except (asyncio.IncompleteReadError, OSError, ValueError):
                        told(self.node, "stopped")
                        raise
                    finally:
                        self._connection = None
                        self._answered(None)
            except (asyncio.IncompleteReadError, OSError, ValueError) as error:
                log.debug("Heartbeat cannot be listened to: %s", error)
            await asyncio.sleep(patience)
            patience = min(2 * patience, _BETWEEN_ATTEMPTS[1])

    async def _sign_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Become a client, and ask for the peer's status. Raises IncompleteReadError, OSError, ValueError."""
        request = self._request()
        writer.write(_packed({**request, "reqtype": "signon", "uid": str(os.getuid()), "gid": str(os.getgid())}))
        async with asyncio.timeout(_PATIENCE):
            answer = await _message(reader)
        if answer.get("result") != "OK":
            raise ValueError(f"it does not let ha_manager sign on: {answer}")
        writer.write(_packed({**request, "reqtype": "nodestatus", "node": self.peer_node}))

    def _request(self) -> dict[str, str]:
        client = str(os.getpid())
        return {"t": "hbapi-req", "dest": self.node, "pid": client, "from_id": client}

    def _answered(self, word: str | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(word)
        self._answer = None

    async def _listen(self, reader: asyncio.StreamReader, told: Callable[[str, str], None]) -> None:
        status: str | None = None
        dead: frozenset[str] = frozenset()
        try:
            while True:
                before = self._called(status)
                match await _message(reader):
                    case {"t": "hbapi-resp", "reqtype": "nodestatus", "st": word}:
                        status, before = word, None
                    case {"t": "hbapi-resp", "reqtype": "getrsc", **answer}:
                        self._answered(answer.get("rsc_hold"))
                    case {"t": "status", "src": self.peer_node, "st": word}:
                        status, before = word, None
                    case {"t": "status", "src": node, "st": word}:
                        told(node, word)
                    case {"t": "resource", "src": node}:
                        told(node, "resources")
                    case {"t": "ifstat", "node": self.peer_node, "ifname": interface, "st": word} if interface in self._interfaces:
                        dead = dead | {interface} if word == "dead" else dead - {interface}
                        self._silent = dead == self._interfaces
                if (called := self._called(status)) is not None and called != before:
                    told(self.peer_node, called)
        finally:
            # What it said of its links is old from now on.
            self._silent = False

    def _called(self, status: str | None) -> str | None:
        # One that was never heard since Heartbeat's start is given its time (initdead): it may be booting as well.
        return "dead" if self._silent and status in ("up", "active") else status

    async def _ask(self, *question: str) -> str | None:
        answer = await processes.run([CL_STATUS, *question], _PATIENCE)
        try:
            return said.ask(lambda _argv: answer, CL_STATUS, *question)
        except said.NoAnswer:
            return None

    async def _move(self, message: dict[str, str], wanted: str, timeout: float) -> bool:
        """Ask for a move of the resources once they rest, and wait until it is done."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                # Heartbeat ignores what it is asked while it moves something.
                while (now := await self.rscstatus()) in ("transition", "foreign"):
                    await asyncio.sleep(_BETWEEN_QUESTIONS)
                if now == wanted:
                    return True
                if now is None or not _send(message):
                    return False
                while await self.rscstatus() != wanted:
                    await asyncio.sleep(_BETWEEN_QUESTIONS)
                return True
        return False


def _rscstatus(word: str | None) -> str | None:
    return word if word in said.RESOURCE_STATUSES else None


def _send(message: dict[str, str]) -> bool:
    """Put a message where Heartbeat reads its own commands. False: nobody reads there."""
    try:
        fifo = os.open(FIFO, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):
            return False
        raise
    try:
        # Less than PIPE_BUF, and so in one piece.
        os.write(fifo, _text(message).encode())
    except (BlockingIOError, BrokenPipeError):
        return False
    finally:
        os.close(fifo)
    return True


def _text(message: dict[str, str]) -> str:
    return "\n".join([_BEGIN, *(f"{name}={value}" for name, value in message.items()), _END, ""])


def _packed(message: dict[str, str]) -> bytes:
    body = _text(message).encode() + b"\0"
    return _HEADER.pack(len(body), _MAGIC) + body


async def _message(reader: asyncio.StreamReader) -> dict[str, str]:
    """The next message; one of another form is empty. Raises IncompleteReadError at the end, OSError, ValueError."""
    length, magic = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if magic != _MAGIC or length > _LONGEST_MESSAGE:
        raise ValueError(f"a message of {length} bytes marked {magic:#x}")
    begin, *lines = (await reader.readexactly(length)).decode(errors="replace").rstrip("\0").splitlines() or [""]
    return dict(line.split("=", 1) for line in lines if "=" in line) if begin == _BEGIN else {}
