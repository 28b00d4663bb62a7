# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The service: listens at every address, as the virtual IP comes and goes, until systemd ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

from .api import Api
from .session import Database, Session
from .settings import Settings, SettingsError, load
from .web import MAX_HEAD, Server, log

# What is under way at the end gets so long.
FINISH = 2.0


def notify(text: str) -> None:
    """Tell systemd, where it has started this."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(text.encode(), f"\0{path[1:]}" if path.startswith("@") else path)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM. Raises OSError where the port cannot be had."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    database = Database(lambda: Session(settings))
    server = Server(Api(database), settings.clients)
    listening = await asyncio.start_server(server.connected, "0.0.0.0", settings.port, limit=MAX_HEAD, backlog=128)
    notify("READY=1")
    log(f"port {settings.port}, for {', '.join(map(str, settings.clients)) or 'nobody'} and this machine itself")
    await ended.wait()
    notify("STOPPING=1")
    listening.close()
    await server.finish(FINISH)
    database.close()


def main() -> int:
    try:
        settings = load()
        asyncio.run(serve(settings))
    except (SettingsError, OSError) as error:
        print(f"policy_server: {error}", file=sys.stderr)
        return 1
    return 0
