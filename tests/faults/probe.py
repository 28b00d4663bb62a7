# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The client that measures: it commits numbered rows through the virtual IP and writes down what was acknowledged, and when.

It runs in a host of the lab, which needs no more than python3-psycopg2. Usage: probe.py '{"dsn": ..., "client": ..., "every": ...}', with
the password in $PGPASSWORD. It prints a line of JSON for everything that happens and ends when its standard input does. Times are
CLOCK_MONOTONIC, which the machine shares with all hosts of its lab. The lines:

    {"event": "acknowledged", "n": 7, "sent": 1.0, "at": 1.002, "server": "ps1", "timeline": 1}
    {"event": "unknown", "n": 8, "sent": 1.1, "at": 1.4, "why": "..."}      sent, and nobody knows whether it was committed
    {"event": "refused", "n": 9, "sent": 1.2, "at": 1.2, "why": "..."}      the server said that it did not commit it
    {"event": "connected", "at": 1.5, "seconds": 0.02}
    {"event": "failed", "at": 1.5, "seconds": 0.1, "why": "..."}            an attempt to connect came to nothing
    {"event": "ended", "at": 9.9, "sent": 900}
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Any

import psycopg2
import psycopg2.extensions as pq

# Seconds. A connection that is silent for SPARE gets a rival; it is left for the rival after RIVALLED, and without one after SILENT.
SPARE, RIVALLED, SILENT = 0.1, 0.15, 0.3
# Every one that follows without an acknowledgement gets twice as long, up to this, so that a server whose commits wait is not flooded.
LONGEST = 2.0
# A new attempt to connect begins every ATTEMPT, so that no lost packet's second of patience is measured; one that has got nowhere after
# PATIENCE is given up.
ATTEMPT, PATIENCE, ATTEMPTS = 0.1, 1.0, 10
# What was left may still answer: so many connections are listened to, the oldest is closed for the next one.
LEFT = 8

INSERT = "INSERT INTO swg_probe.rows (client, n) VALUES (%s, %s) RETURNING server, timeline"


class Connection:
    """A connection, from its first packet on. `number`: of the row that it is committing."""

    def __init__(self, dsn: str, now: float) -> None:
        self.begun = self.last = now
        self.ready = False
        self.number: int | None = None
        self.sent = now
        self.link = psycopg2.connect(dsn, async_=1)
        self.wants = pq.POLL_WRITE
        self.cursor: Any = None

    def fileno(self) -> int:
        return int(self.link.fileno())

    def advance(self) -> bool:
        """Go on with whatever it is at; whether that is done. Raises psycopg2.Error."""
        self.wants = self.link.poll()
        return bool(self.wants == pq.POLL_OK)

    def insert(self, client: str, number: int, now: float) -> None:
        self.number, self.sent = number, now
        self.cursor = self.link.cursor()
        self.cursor.execute(INSERT, (client, number))
        self.wants = pq.POLL_READ

    def close(self) -> None:
        self.link.close()


class Probe:
    def __init__(self, dsn: str, client: str, every: float) -> None:
        self.dsn, self.client, self.every = dsn, client, every
        self.current: Connection | None = None
        self.attempts: list[Connection] = []
        self.left: list[Connection] = []
        self.number = 0
        self.due = self.attempted = 0.0
        self.patience = 1.0

    def tell(self, event: str, **what: Any) -> None:
        print(json.dumps({"event": event, **what}), flush=True)

    def run(self) -> None:
        """Until standard input ends."""
        while True:
            now = time.monotonic()
            self.begin(now)
            if self.wait(now):
                break
        for connection in [*self.left, *([self.current] if self.current else [])]:
            self.lose(connection, "the probe was told to end")
        self.tell("ended", at=time.monotonic(), sent=self.number)

    def begin(self, now: float) -> None:
        """Start what is due: a commit, an attempt to connect, leaving what is silent."""
        current = self.current
        if current is not None and current.number is not None:
            silent = now - current.sent
            spare = next((attempt for attempt in self.attempts if attempt.ready), None)
            if silent > min(LONGEST, self.patience * (SILENT if spare is None else RIVALLED)):
                self.patience *= 2
                self.left.append(current)
                self.current = current = None
                while len(self.left) > LEFT:
                    self.lose(self.left.pop(0), "given up: too many connections are silent")
        if current is None:
            self.current = current = next((attempt for attempt in self.attempts if attempt.ready), None)
            if current is not None:
                self.attempts.remove(current)
                self.due = now
        if current is not None and current.number is None and now >= self.due:
            self.due = max(self.due + self.every, now)
            self.number += 1
            try:
                current.insert(self.client, self.number, now)
            except psycopg2.Error as error:
                self.lose(current, text(error))
                self.current = None
        for attempt in [attempt for attempt in self.attempts if not attempt.ready and now - attempt.begun > PATIENCE]:
            self.give_up(attempt, "no answer")
        silent_for = 0.0 if current is None or current.number is None else now - current.sent
        wanted = current is None or silent_for > SPARE
        if (
            wanted
            and not any(attempt.ready for attempt in self.attempts)
            and now - self.attempted >= ATTEMPT
            and len(self.attempts) < ATTEMPTS
        ):
            self.attempted = now
            try:
                self.attempts.append(Connection(self.dsn, now))
            except psycopg2.Error as error:
                self.tell("failed", at=now, seconds=0.0, why=text(error))

    def wait(self, now: float) -> bool:
        """Until something can go on, or is due; whether the probe is to end."""
        busy = [attempt for attempt in self.attempts if not attempt.ready] + self.left
        if self.current is not None and self.current.number is not None:
            busy.append(self.current)
        readers = [connection for connection in busy if connection.wants == pq.POLL_READ]
        writers = [connection for connection in busy if connection.wants == pq.POLL_WRITE]
        idle = self.current is not None and self.current.number is None
        timeout = max(0.0, self.due - now) if idle else 0.02
        told: list[Any] = [0, *readers]
        readable, writable, _ = select.select(told, writers, [], timeout)
        if 0 in readable and not os.read(0, 4096):
            return True
        for connection in busy:
            if (connection in readable or connection in writable) and not connection.link.closed:
                self.go_on(connection)
        return False

    def go_on(self, connection: Connection) -> None:
        connecting = connection in self.attempts
        try:
            done = connection.advance()
            at = time.monotonic()
            if connecting:
                if done:
                    connection.ready = True
                    self.tell("connected", at=at, seconds=at - connection.begun)
                return
            if done:
                [(server, timeline)] = connection.cursor.fetchall()
                self.tell("acknowledged", n=connection.number, sent=connection.sent, at=at, server=server, timeline=timeline)
                connection.number = None
                self.patience = 1.0
                if connection is not self.current:
                    self.left.remove(connection)
                    connection.close()
                    return
                # The rivals of one that answers after all are not kept: a connection counts when it is made in time.
                for attempt in self.attempts:
                    attempt.close()
                self.attempts = []
        except psycopg2.Error as error:
            if connecting:
                self.give_up(connection, text(error))
                return
            # PostgreSQL's own word for a statement that failed; without one the connection broke and nobody knows.
            self.lose(connection, text(error), refused=bool(error.pgcode) and not str(error.pgcode).startswith("57P"))
            if connection is self.current:
                self.current = None
            else:
                self.left.remove(connection)

    def give_up(self, attempt: Connection, why: str) -> None:
        self.attempts.remove(attempt)
        now = time.monotonic()
        self.tell("failed", at=now, seconds=now - attempt.begun, why=why)
        attempt.close()

    def lose(self, connection: Connection, why: str, refused: bool = False) -> None:
        if connection.number is not None:
            event = "refused" if refused else "unknown"
            self.tell(event, n=connection.number, sent=connection.sent, at=time.monotonic(), why=why)
        connection.close()


def text(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    Probe(**json.loads(sys.argv[1])).run()
