# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""ha_manager as systemd runs it: signals, the watchdog, the control socket. It runs until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import queue
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from systemd import daemon, journal

from . import control
from .manager import Manager
from .settings import SettingsError, load

_log = logging.getLogger("swg_ha")

# How long a failover that a signal asked for may take.
FAIL_OVER_PATIENCE = 20.0
REPAIR = 5.0
# Some may be stuck in a disk that hangs; the others have a failover to do.
THREADS = 32
UNLOGGED = 1000


async def run() -> None:
    """Until SIGTERM or SIGINT. Raises SettingsError."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="work"))
    manager = Manager(load())
    stop = asyncio.Event()
    server = control.Server(control.SOCKET, manager.requests.answer)
    requested: set[asyncio.Task[None]] = set()

    def fail_over() -> None:
        task = asyncio.create_task(_fail_over(manager))
        requested.add(task)
        task.add_done_callback(requested.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, manager.reload)
    loop.add_signal_handler(signal.SIGUSR1, fail_over)
    await manager.start()
    await server.start()
    daemon.notify("READY=1")
    await _watch(stop)
    daemon.notify("STOPPING=1")
    await server.close()
    await manager.close()


async def _watch(stop: asyncio.Event) -> None:
    """Tell systemd that the loop is alive, until it must stop."""
    while not stop.is_set():
        daemon.notify("WATCHDOG=1")
        try:
            async with asyncio.timeout(2):
                await stop.wait()
        except TimeoutError:
            continue


async def _fail_over(manager: Manager) -> None:
    try:
        async with asyncio.timeout(FAIL_OVER_PATIENCE):
            await manager.requests.fail_over(False, _log.info)
    except control.Refused as refused:
        _log.warning("no failover: %s: %s", refused.code, refused.text)
    except TimeoutError:
        _log.warning("no failover within %g s", FAIL_OVER_PATIENCE)


class _Queue(logging.handlers.QueueHandler):
    """Never waits for the log, which may be stuck behind a disk that is: what it cannot take is lost."""

    def handleError(self, record: logging.LogRecord) -> None:
        return


def main() -> int:
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(UNLOGGED)
    logging.basicConfig(level=logging.INFO, handlers=[_Queue(waiting)], format="%(message)s")
    listener = logging.handlers.QueueListener(waiting, journal.JournalHandler(SYSLOG_IDENTIFIER="ha_manager"))
    listener.start()
    try:
        asyncio.run(run())
    except SettingsError as error:
        for problem in error.problems:
            print(f"ha_manager: {problem}", file=sys.stderr)
        # systemd tries again at once, and it is for people to repair this.
        time.sleep(REPAIR)
        return 1
    finally:
        end = time.monotonic() + 1
        while not waiting.empty() and time.monotonic() < end:
            time.sleep(0.01)
    return 0
