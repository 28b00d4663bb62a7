# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The control socket: how the command ha and Heartbeat's gate speak with ha_manager.

A client sends one JSON object as a line. It gets any number of lines {"progress": text} and at last one
that has "ok": true with the answer, or false with "code" and "error". Then the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from .shared.control_client import SOCKET, ControlError, Progress, ask

__all__ = ["SOCKET", "ControlError", "Handle", "Progress", "Refused", "Server", "ask"]

MAX_REQUEST = 64 * 1024
MAX_CLIENTS = 16
MAX_UNREAD = 256 * 1024
# A client sends its request as soon as it is connected, and reads as soon as there is something.
PATIENCE = 5.0

Handle = Callable[[dict[str, Any], Progress], Awaitable[dict[str, Any]]]

_log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is not done. code never changes; text is one line that says why and what to do."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Server:
    """Answers on a socket that root alone can reach.

    handle(request, progress) returns the answer, to which "ok" is added, or raises Refused. progress may be
    called from any thread. What a client does (hang, vanish, flood) has no effect on handle, which runs to its
    end even when nobody reads the answer any more.
    """

    def __init__(self, path: Path, handle: Handle) -> None:
        self._path = path
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._silent: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises OSError, with EADDRINUSE when somebody answers at the path already."""
        listener = _listen(self._path)
        self._inode = os.stat(self._path).st_ino
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_REQUEST)

    async def close(self) -> None:
        """Stop listening; requests that are still being handled are cancelled and answered with STOPPING."""
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(writer)
        try:
            if len(self._clients) >= MAX_CLIENTS and not self._make_room():
                await connection.finish(_refusal("BUSY", f"ha_manager already serves {MAX_CLIENTS} clients: try again"))
                return
            self._clients.add(task)
            self._silent[task] = writer
            answer = await self._converse(task, reader, connection)
            if answer is not None:
                await connection.finish(answer)
        except asyncio.CancelledError:
            connection.say(_refusal("STOPPING", "ha_manager is being stopped: see 'systemctl status ha_manager'"))
        except OSError:
            pass  # The client is gone.
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(self, task: asyncio.Task[None], reader: asyncio.StreamReader, connection: _Connection) -> dict[str, Any] | None:
        try:
            request = await _read(reader)
        except Refused as refused:
            return _refusal(refused.code, refused.text)
        finally:
            self._silent.pop(task, None)
        return None if request is None else await self._answer(request, connection.progress)

    def _make_room(self) -> bool:
        """Send the client away that has been connected longest without a request. False: there is none."""
        if not self._silent:
            return False
        task = next(iter(self._silent))
        self._silent.pop(task).transport.abort()
        self._clients.discard(task)
        return True

    async def _answer(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        try:
            return {**await self._handle(request, progress), "ok": True}
        except Refused as refused:
            return _refusal(refused.code, refused.text)
        except Exception as error:
            _log.exception("request %r failed", request.get("do"))
            return _refusal("INTERNAL", f"{type(error).__name__}: {error}: see 'journalctl -u ha_manager'")


class _Connection:
    """What is said to one client: progress in order, then the end."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._progress: deque[str] = deque()

    def progress(self, text: str) -> None:
        self._progress.append(text)
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody is left to be told.
            self._loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        while self._progress:
            self.say({"progress": self._progress.popleft()})

    def say(self, line: dict[str, Any]) -> None:
        transport = self._writer.transport
        if transport.get_write_buffer_size() > MAX_UNREAD:
            transport.abort()
        if not transport.is_closing():
            self._writer.write(json.dumps(line).encode() + b"\n")

    async def finish(self, answer: dict[str, Any]) -> None:
        self._flush()
        self.say(answer)
        try:
            async with asyncio.timeout(PATIENCE):
                # drain() is content with a half-full buffer; the answer is wanted out.
                self._writer.transport.set_write_buffer_limits(0)
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()


def _listen(path: Path) -> socket.socket:
    """A listening socket that appears at path complete, with its mode, in place of what was there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        probe.settimeout(1)
        probe.connect(str(path))
        raise OSError(errno.EADDRINUSE, "another ha_manager answers here: see 'systemctl status ha_manager'", str(path))
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(str(new))
        os.chmod(new, 0o600)
        listener.listen(4 * MAX_CLIENTS)
        os.replace(new, path)
    except BaseException:
        listener.close()
        new.unlink(missing_ok=True)
        raise
    return listener


async def _read(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The request; None when the client left without one. Raises Refused."""
    try:
        async with asyncio.timeout(PATIENCE):
            line = await reader.readline()
    except TimeoutError:
        raise Refused("BAD_REQUEST", f"no request within {PATIENCE:g} s") from None
    except ValueError:
        raise Refused("BAD_REQUEST", f"the request is longer than {MAX_REQUEST} bytes") from None
    if not line.endswith(b"\n"):
        return None
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise Refused("BAD_REQUEST", "the request is not a line of JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("do"), str):
        raise Refused("BAD_REQUEST", 'the request is not a JSON object with "do"')
    return request


def _refusal(code: str, text: str) -> dict[str, Any]:
    return {"ok": False, "code": code, "error": " ".join(text.split())}
