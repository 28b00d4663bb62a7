# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Run a program to its end, within bounds, while the loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence

from .shared.heartbeat import RC_CANNOT_RUN, RC_NOT_FOUND, RC_TIMEOUT


async def run(argv: Sequence[str], timeout: float) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a program that gets no input and timeout seconds.

    As with shared.heartbeat.runner: one that takes longer is killed and ends with RC_TIMEOUT, one that does not exist with
    RC_NOT_FOUND, one that cannot be started with RC_CANNOT_RUN; one that a signal ended has its negative number. It raises
    nothing for these. When it is cancelled the program is killed.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        return RC_NOT_FOUND, "", str(error)
    except OSError as error:
        return RC_CANNOT_RUN, "", str(error)
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate()
    except TimeoutError:
        return RC_TIMEOUT, "", f"no answer within {timeout:g} s"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
