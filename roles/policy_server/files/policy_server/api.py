# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What is asked over HTTP, and the answers. Knows nothing of sockets."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from . import names
from .session import Database, Unavailable

HEALTH = "INSERT INTO health (asked) VALUES (now()) ON CONFLICT (single) DO UPDATE SET asked = now()"
DEVICES = """
    SELECT d.id, d.active, d.since::text, count(c.name) FROM device AS d LEFT JOIN configuration AS c ON c.device = d.key
    GROUP BY d.key ORDER BY d.id
"""
LIST = """
    SELECT c.name, c.version, c.changed::text FROM configuration AS c JOIN device AS d ON d.key = c.device
    WHERE d.id = %s ORDER BY c.name
"""
READ = "SELECT c.content, c.version FROM configuration AS c JOIN device AS d ON d.key = c.device WHERE d.id = %s AND c.name = %s"
# A device is known from its first configuration on. No row comes back where somebody else has just made the same device.
WRITE = """
    WITH known AS (SELECT key FROM device WHERE id = %s),
      made AS (INSERT INTO device (id) SELECT %s WHERE NOT EXISTS (SELECT FROM known) ON CONFLICT (id) DO NOTHING RETURNING key)
    INSERT INTO configuration (device, name, content) SELECT key, %s, %s FROM (SELECT key FROM known UNION ALL SELECT key FROM made) AS d
    ON CONFLICT (device, name) DO UPDATE SET content = EXCLUDED.content, version = configuration.version + 1, changed = now()
    RETURNING version
"""
DELETE = "DELETE FROM configuration AS c USING device AS d WHERE d.key = c.device AND d.id = %s AND c.name = %s RETURNING c.version"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A request that cannot be carried out, with the status and the text of the answer."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers

    @property
    def answer(self) -> Answer:
        return Answer(self.status, _json({"error": str(self)}), headers=self.headers)


def _json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def check(request: Request) -> None:
    """Refuse what can be told from the head alone, before a body is read. Raises Refused."""
    parts = request.path.split("/")[1:]
    if parts not in (["health"], ["configurations"]):
        if parts[0] != "configurations" or len(parts) > 3:
            raise Refused(404, "there are /health, /configurations, /configurations/DEVICE and /configurations/DEVICE/NAME")
        if problem := names.device_problem(parts[1]) or (names.configuration_problem(parts[2]) if len(parts) == 3 else None):
            raise Refused(404, problem)
    methods = ["GET", "PUT", "DELETE"] if len(parts) == 3 else ["GET"]
    if request.method not in methods:
        raise Refused(405, f"{request.method} is not for {request.path}: there is {', '.join(methods)}", Allow=", ".join(methods))
    # A page in somebody's browser can send other types to any address, but not this one unasked.
    if request.method == "PUT" and request.headers.get("content-type", "").partition(";")[0].strip().lower() != names.kind(parts[2]):
        raise Refused(415, f"{parts[2]} needs 'Content-Type: {names.kind(parts[2])}'")


class Api:
    """Carries requests out that check() has let through."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def answer(self, request: Request) -> Answer:
        try:
            return await self._route(request)
        except Refused as refused:
            return refused.answer
        except Unavailable as error:
            return Answer(503, _json({"error": str(error)}), headers={"Retry-After": "1"})

    async def _route(self, request: Request) -> Answer:
        parts = request.path.split("/")[1:]
        if parts == ["health"]:
            # Not only whether it is there: whether it takes writes.
            await self._database.ask(HEALTH)
            return Answer(200, _json({"healthy": True}))
        if len(parts) == 1:
            return self._rows(("id", "active", "since", "configurations"), await self._database.ask(DEVICES))
        if len(parts) == 2:
            return self._rows(("name", "version", "changed"), await self._database.ask(LIST, parts[1]))
        work: dict[str, Callable[[str, str, bytes], Awaitable[Answer]]] = {"GET": self._read, "PUT": self._write, "DELETE": self._delete}
        return await work[request.method](parts[1], parts[2], request.body)

    @staticmethod
    def _rows(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Answer:
        return Answer(200, _json([dict(zip(columns, row, strict=True)) for row in rows]))

    async def _read(self, device: str, name: str, _body: bytes) -> Answer:
        rows = await self._database.ask(READ, device, name)
        if not rows:
            raise Refused(404, f"{device} has no {name}")
        [(content, version)] = rows
        return Answer(200, bytes(content), names.kind(name), {"ETag": f'"{version}"'})

    async def _write(self, device: str, name: str, body: bytes) -> Answer:
        if problem := names.content_problem(name, body):
            raise Refused(400, problem)
        rows = await self._database.ask(WRITE, device, device, name, body) or await self._database.ask(WRITE, device, device, name, body)
        if not rows:
            raise Unavailable(f"{device} is being made by somebody else at this moment")
        [(version,)] = rows
        return Answer(201 if version == 1 else 200, _json({"device": device, "name": name, "version": version}))

    async def _delete(self, device: str, name: str, _body: bytes) -> Answer:
        if not await self._database.ask(DELETE, device, name):
            raise Refused(404, f"{device} has no {name}")
        return Answer(200, _json({"device": device, "name": name, "deleted": True}))
