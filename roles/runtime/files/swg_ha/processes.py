# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Run a program to its end, within bounds, while the loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

from .shared.heartbeat import RC_CANNOT_RUN, RC_NOT_FOUND, RC_TIMEOUT

# Seconds for what is over already to be noticed; and what is kept of what a program prints, in bytes.
GRACE = 0.2
LONGEST = 1 << 20


class _Program(asyncio.SubprocessProtocol):
    """Collects what a program prints, and knows when it has ended."""

    def __init__(self) -> None:
        self.printed = {1: bytearray(), 2: bytearray()}
        self.ended, self.silent = asyncio.Event(), asyncio.Event()
        self._open = set(self.printed)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.printed[fd] += data
        del self.printed[fd][:-LONGEST]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open:
            self.silent.set()

    def process_exited(self) -> None:
        self.ended.set()


async def finished(argv: Sequence[str], timeout: float, env: Mapping[str, str] | None = None) -> tuple[int, bytes, bytes]:
    """(exit code, standard output, standard error) of a program that gets no input and timeout seconds. Raises OSError, TimeoutError.

    It has ended when it has itself, whoever of what it began still holds its output. One that takes longer, or that nobody waits for any
    more, is killed with what it began. An exit code is negative for a signal.
    """
    transport, program = await asyncio.get_running_loop().subprocess_exec(
        _Program,
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        # With a process group of its own.
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout):
            await program.ended.wait()
        # What it printed last is on its way.
        await _within(GRACE, program.silent)
    finally:
        if not program.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
        try:
            await _within(GRACE, program.ended)
        finally:
            transport.close()
    code = transport.get_returncode()
    assert code is not None
    return code, bytes(program.printed[1]), bytes(program.printed[2])


async def _within(seconds: float, event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def run(argv: Sequence[str], timeout: float) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a program that gets no input and timeout seconds.

    As with shared.heartbeat.runner: one that takes longer is killed and ends with RC_TIMEOUT, one that does not exist with
    RC_NOT_FOUND, one that cannot be started with RC_CANNOT_RUN; one that a signal ended has its negative number. It raises
    nothing for these. When it is cancelled the program is killed.
    """
    try:
        code, out, err = await finished(argv, timeout, {**os.environ, "LC_ALL": "C"})
    except TimeoutError:
        return RC_TIMEOUT, "", f"no answer within {timeout:g} s"
    except (FileNotFoundError, NotADirectoryError) as error:
        return RC_NOT_FOUND, "", str(error)
    except OSError as error:
        return RC_CANNOT_RUN, "", str(error)
    return code, out.decode(errors="replace"), err.decode(errors="replace")
