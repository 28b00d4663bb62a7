# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""ha_manager's end of the control socket, for tests of what asks it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swg_ha.control import Handle, Server


class Serving:
    """A server on a loop of its own; run(coroutine) runs something there."""

    def __init__(self, path: Path, handle: Handle) -> None:
        self.server = Server(path, handle)
        self.loop = asyncio.new_event_loop()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)


@contextlib.contextmanager
def serving(path: Path, handle: Handle) -> Iterator[Serving]:
    here = Serving(path, handle)
    thread = threading.Thread(target=here.loop.run_forever)
    thread.start()
    try:
        here.run(here.server.start())
        yield here
    finally:
        here.run(here.server.close())
        here.loop.call_soon_threadsafe(here.loop.stop)
        thread.join(10)
        here.loop.close()
