# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from swg_ha.pause import Pause, begin
from swg_ha.shared import durable


def until(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 5))


def test_it_is_kept_over_a_restart_and_ends_when_asked(tmp_path: Path) -> None:
    async def work() -> None:
        path = tmp_path / "pause.json"
        told: list[str] = []
        first = Pause(path, lambda: told.append("begun"))
        first.set(begin(5, "ada", "new disks"))
        assert await first.kept(5)
        again = Pause(path, lambda: told.append("changed"))
        again.load()
        assert again.current is not None
        assert (again.current["by"], again.current["reason"]) == ("ada", "new disks")
        again.set(None)
        assert again.current is None
        assert await again.kept(5)
        assert not path.exists()
        assert told == ["begun", "changed", "changed"]

    run(work)


def test_it_ends_by_itself(tmp_path: Path) -> None:
    async def work() -> None:
        ended = asyncio.Event()
        pause = Pause(tmp_path / "pause.json", lambda: None if pause.current else ended.set())
        pause.set({"until": until(0.1), "by": "ada", "reason": ""})
        assert pause.current is not None
        await ended.wait()
        assert await pause.kept(5)
        assert not (tmp_path / "pause.json").exists()

    run(work)


def test_a_longer_one_takes_the_place_of_a_shorter_one(tmp_path: Path) -> None:
    async def work() -> None:
        pause = Pause(tmp_path / "pause.json", lambda: None)
        pause.set({"until": until(0.05), "by": "ada", "reason": "short"})
        pause.set({"until": until(60), "by": "ada", "reason": "long"})
        await asyncio.sleep(0.1)
        assert pause.current is not None
        assert pause.current["reason"] == "long"

    run(work)


@pytest.mark.parametrize(
    "said", ["", "{", "[]", "{}", '{"until": "soon"}', json.dumps({"until": "2020-01-01T00:00:00Z", "by": "x", "reason": ""})]
)
def test_one_that_has_run_out_or_cannot_be_read_is_none(tmp_path: Path, said: str) -> None:
    async def work() -> None:
        path = tmp_path / "pause.json"
        path.write_text(said)
        pause = Pause(path, lambda: None)
        pause.load()
        assert pause.current is None

    run(work)


def test_a_disk_that_hangs_holds_nobody_up_and_gets_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = threading.Event()
    replace = durable.replace

    def slow(path: str, content: bytes) -> None:
        hanging.wait(10)
        replace(path, content)

    monkeypatch.setattr(durable, "replace", slow)

    async def work() -> None:
        path = tmp_path / "pause.json"
        pause = Pause(path, lambda: None)
        pause.set(begin(5, "ada", "first"))
        pause.set(None)
        pause.set(begin(5, "ada", "last"))
        assert pause.current is not None and not await pause.kept(0.05) and not path.exists()
        hanging.set()
        assert await pause.kept(5)
        assert json.loads(path.read_text())["reason"] == "last"

    run(work)


def test_a_disk_that_takes_nothing_is_told_of(tmp_path: Path) -> None:
    async def work() -> None:
        pause = Pause(tmp_path / "gone/pause.json", lambda: None)
        pause.set(begin(5, "ada", ""))
        assert not await pause.kept(5)
        assert pause.current is not None and "cannot be written (No such file" in (pause.problem or "")
        # Its end is written all the same: nobody knows what the disk has.
        pause.set(None)
        assert await pause.kept(5) and pause.problem is None

    run(work)
