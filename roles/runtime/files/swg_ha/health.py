# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Whether an application is up: asked by HTTP, or by a program, again and again until it is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from . import processes

# Between two questions: little beside what an application takes to start, much beside what a question costs.
PAUSE = 0.05
# The last question gets this much time, so that it is told what is wrong.
LEAST = 0.5
# Of one question. An application that does not answer one may answer the next.
QUESTION = 5.0
# Nobody needs to read more of an answer than its first line.
MAX_LINE = 4096

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: .*)?\r?\n")


class NotHealthy(Exception):
    """It is not up; the text tells what the last question got."""


async def wait(check: Sequence[str], limit: float) -> float:
    """Ask until the answer is good; how many seconds that took. Raises NotHealthy when it is not within limit seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        left = began + limit - loop.time()
        try:
            await ask(check, min(QUESTION, max(left, LEAST)))
            return loop.time() - began
        except NotHealthy:
            if left <= PAUSE:
                raise
        await asyncio.sleep(PAUSE)


async def ask(check: Sequence[str], seconds: float) -> None:
    """Ask once. Raises NotHealthy."""
    if is_url(check):
        await _get(check[0], seconds)
        return
    rc, out, err = await processes.run(check, seconds)
    if rc != 0:
        said = (out + err).strip().splitlines()[-1:] or ["it printed nothing"]
        raise NotHealthy(f"{check[0]} ended with {rc}: {said[0]}")


def is_url(check: Sequence[str]) -> bool:
    return len(check) == 1 and check[0].startswith("http://")


async def _get(url: str, seconds: float) -> None:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=MAX_LINE)
            try:
                writer.write(request.encode())
                line = await reader.readline()
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise NotHealthy(f"{url} has not answered within {seconds:.1f} s") from None
    except (OSError, ValueError) as error:
        raise NotHealthy(f"{url}: {error}") from None
    status = _STATUS.fullmatch(line)
    if status is None:
        raise NotHealthy(f"{url} does not speak HTTP")
    if not status[1].startswith(b"2"):
        raise NotHealthy(f"{url} answers with {status[1].decode()}")
