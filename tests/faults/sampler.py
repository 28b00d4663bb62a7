# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a policy server is, seen from inside it, every 50 ms: has it the virtual IP, does its database take writes?

It runs in the server as a service of its own, from its boot on, as PostgreSQL's owner. Usage: sampler.py ADDRESS FILE. It adds lines of
JSON to the file:

    {"at": 1.0, "address": true, "database": "primary"|"standby"|"read-only"|"silent"|"down", "timeline": 2}

at: CLOCK_MONOTONIC, which the machine shares with all hosts of its lab; silent: no answer within 200 ms. timeline: of a primary.
"""

from __future__ import annotations

import itertools
import json
import select
import sys
import time
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions as pq

EVERY, DEADLINE = 0.05, 0.2
DSN = "dbname=postgres application_name=swg_probe_sampler"
QUERY = """
SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' WHEN current_setting('default_transaction_read_only')::bool THEN 'read-only'
            ELSE 'primary' END,
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END
"""


class Database:
    """PostgreSQL, asked over one connection that is never waited for longer than DEADLINE."""

    def __init__(self) -> None:
        self.link: Any = None

    def ask(self) -> tuple[str, int | None]:
        end = time.monotonic() + DEADLINE
        try:
            if self.link is None:
                self.link = psycopg2.connect(DSN, async_=1)
                self.wait(end)
            cursor = self.link.cursor()
            cursor.execute(QUERY)
            self.wait(end)
            state, timeline = cursor.fetchone()
            return state, timeline
        except TimeoutError:
            self.drop()
            return "silent", None
        except psycopg2.Error:
            self.drop()
            return "down", None

    def wait(self, end: float) -> None:
        while (wants := self.link.poll()) != pq.POLL_OK:
            reads, writes = ([self.link], []) if wants == pq.POLL_READ else ([], [self.link])
            if not any(select.select(reads, writes, [], max(0.0, end - time.monotonic()))):
                raise TimeoutError

    def drop(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None


def has_address(address: str) -> bool:
    """Whether the kernel takes packets for it. Read from /proc: no process for every look."""
    lines = Path("/proc/net/fib_trie").read_text().splitlines()
    return any(line.endswith(f"-- {address}") and "host LOCAL" in after for line, after in itertools.pairwise(lines))


def main() -> None:
    address, file = sys.argv[1:]
    database = Database()
    with open(file, "a", buffering=1) as out:
        while True:
            # The address before and after: what it was while the database was asked.
            held = has_address(address)
            at = time.monotonic()
            state, timeline = database.ask()
            answered = time.monotonic()
            print(
                json.dumps(
                    {"at": at, "answered": answered, "address": held and has_address(address), "database": state, "timeline": timeline}
                ),
                file=out,
            )
            time.sleep(max(0.0, at + EVERY - time.monotonic()))


if __name__ == "__main__":
    main()
