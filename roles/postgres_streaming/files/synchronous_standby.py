# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let commits wait for the passive server while it is streaming, and not when it is gone.

PostgreSQL itself waits for ever for a synchronous standby that has gone. This program names the standby in a file of
its own beside the cluster's settings as soon as it streams, and takes the name away when it has been gone for the time
of grace. It runs on both servers and does nothing on the one that is not the primary.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

INTERVAL_S = 0.5
QUESTION = """
SELECT pg_is_in_recovery(),
       EXISTS (SELECT FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'),
       current_setting('synchronous_standby_names')
"""


class Seen(NamedTuple):
    """What PostgreSQL says: is it a standby itself, does the other one stream, whom do commits wait for?"""

    in_recovery: bool
    streaming: bool
    names: str


def quoted(standby: str) -> str:
    """The name as synchronous_standby_names takes it, whatever characters it holds."""
    return '"' + standby.replace('"', '""') + '"'


def wanted(seen: Seen, standby: str, gone_for_s: float, grace_s: float) -> str | None:
    """Whom commits are to wait for; None: leave it as it is."""
    if seen.in_recovery:
        return None
    if seen.streaming:
        return quoted(standby)
    return "" if gone_for_s >= grace_s else None


def write_settings(path: Path, names: str) -> None:
    """Replace the file of settings, so that a power cut leaves the old or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    value = names.replace("'", "''")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(f"# Written by ha_synchronous_standby.\nsynchronous_standby_names = '{value}'\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Watcher:
    """Looks once per step(), and remembers since when the standby has been gone."""

    def __init__(
        self,
        look: Callable[[], Seen],
        apply: Callable[[str], None],
        standby: str,
        grace_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.look, self.apply, self.standby, self.grace_s, self.clock = look, apply, standby, grace_s, clock
        self.last_streaming = clock()

    def step(self) -> None:
        seen = self.look()
        now = self.clock()
        if seen.streaming or seen.in_recovery:
            self.last_streaming = now
        names = wanted(seen, self.standby, now - self.last_streaming, self.grace_s)
        if names is not None and names != seen.names:
            print(f"commits wait for {names or 'nobody'} (before: {seen.names or 'nobody'})", flush=True)
            self.apply(names)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--standby", required=True, help="application_name of the passive server")
    parser.add_argument("--grace", type=float, required=True, help="seconds that the standby may be gone")
    parser.add_argument("--settings", type=Path, required=True, help="the file to write, in conf.d")
    options = parser.parse_args()

    # Imported here, so that the decision above can be tested without a database driver.
    import psycopg2

    connection = psycopg2.connect(dbname="postgres", port=options.port, connect_timeout=5, options="-c statement_timeout=5000")
    connection.autocommit = True
    cursor = connection.cursor()

    def look() -> Seen:
        cursor.execute(QUESTION, (options.standby,))
        return Seen(*cursor.fetchone())

    def apply(names: str) -> None:
        write_settings(options.settings, names)
        cursor.execute("SELECT pg_reload_conf()")

    watcher = Watcher(look, apply, options.standby, options.grace)
    while True:
        try:
            watcher.step()
        except psycopg2.Error as error:
            # The service starts this program again, with a new connection.
            print(f"PostgreSQL does not answer: {error}", file=sys.stderr)
            return 1
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    sys.exit(main())
