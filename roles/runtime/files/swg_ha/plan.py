# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""A change of role as a graph of steps, journaled so that it is carried on wherever it was cut off.

A step runs as soon as those that it needs are done or skipped, beside all others that can. Every step is idempotent: carrying
a plan on means running it again, and a step that finds its work done ends at once. So the journal is written without waiting
for the disk: it must survive the end of the process, and after a power cut the new start decides anew. It is kept in memory
(/run), where no disk can hold up the loop that writes it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from .record import now

World = TypeVar("World")

WAITING, RUNNING, DONE, SKIPPED, FAILED = "waiting", "running", "done", "skipped", "failed"


class Skip(Exception):
    """There is nothing to do for a step here; the text says why."""


class StepFailed(Exception):
    """A step could not do its work; the text says what, why, and what to do."""


@dataclass(frozen=True)
class Step(Generic[World]):
    """One step. run gets the world and tells in a text what it did, or raises Skip or StepFailed.

    essential: without it the plan has failed, and what has not begun yet is not begun. timeout: seconds.
    """

    name: str
    run: Callable[[World], Awaitable[str]]
    needs: tuple[str, ...] = ()
    essential: bool = False
    timeout: float = 60


def problems(steps: Sequence[Step[Any]]) -> Iterator[str]:
    """What is wrong with a graph: a name that is there twice, a need that is no step before it (so there are no circles)."""
    seen: set[str] = set()
    for step in steps:
        if step.name in seen:
            yield f"{step.name} is there twice"
        for need in step.needs:
            if need not in seen:
                yield f"{step.name} needs {need}, which does not come before it"
        seen.add(step.name)


class Journal:
    """The transition that is under way, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, Any] | None:
        """The transition that was not ended, or None."""
        try:
            said = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None
        return said if isinstance(said, dict) and said.get("outcome") == "running" else None

    def save(self, transition: dict[str, Any]) -> None:
        # Without room for it the change of role goes on: a new start would only decide anew, as it does after a power cut.
        with suppress(OSError):
            new = self.path.with_name(f".{self.path.name}.new")
            new.write_text(json.dumps(transition))
            os.replace(new, self.path)

    def clear(self) -> None:
        with suppress(OSError):
            self.path.unlink()


def begin(*, node: str, kind: str, trigger: str, code: str, reason: str, counter: int, steps: Sequence[Step[Any]]) -> dict[str, Any]:
    """A new transition, in the shape of the status file."""
    return {
        "id": uuid.uuid4().hex[:12],
        "node": node,
        "kind": kind,
        "trigger": trigger,
        "code": code,
        "reason": reason,
        "started": now(),
        "ended": None,
        "seconds": None,
        "outcome": "running",
        "resumed": 0,
        "counter": counter,
        "steps": [{"name": step.name, "state": WAITING, "at": None, "seconds": None, "reason": ""} for step in steps],
    }


def failure(transition: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first step that failed, and why; None where none did. Of a transition that was given up before, the last one that was not begun."""
    failed = [step for step in transition["steps"] if step["state"] == FAILED]
    if not failed and transition["outcome"] == "failed":
        failed = [step for step in transition["steps"] if step["state"] == SKIPPED][-1:]
    return (failed[0]["name"], failed[0]["reason"]) if failed else None


class Plan(Generic[World]):
    """Runs the steps of one transition. ``told`` is called after every change, with the transition as it is then."""

    def __init__(self, steps: Sequence[Step[World]], transition: dict[str, Any], journal: Journal, told: Callable[[], None]) -> None:
        self.steps = {step.name: step for step in steps}
        self.transition = transition
        self._journal = journal
        self._told = told
        self._entries = {entry["name"]: entry for entry in transition["steps"]}
        self._ended = {name: asyncio.Event() for name in self.steps}
        self._failed: str | None = None
        # Those that were not begun because another one had failed.
        self._dropped: set[str] = set()
        self._running: dict[str, asyncio.Task[None]] = {}
        self.given_up: str | None = None
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    async def reached(self, name: str) -> bool:
        """Wait until a step has ended; True if it was done, or had nothing to do."""
        await self._ended[name].wait()
        return self._entries[name]["state"] in (DONE, SKIPPED) and name not in self._dropped

    async def run(self, world: World) -> bool:
        """Run all steps; False if an essential one failed. Cancelled, it leaves the journal for the next start."""
        self._journal.save(self.transition)
        self._told()
        try:
            async with asyncio.TaskGroup() as group:
                for step in self.steps.values():
                    self._running[step.name] = group.create_task(self._run(step, world), name=f"step {step.name}")
        except* asyncio.CancelledError:
            raise asyncio.CancelledError from None
        good = self._failed is None and self.given_up is None
        self.end("done" if good else "failed")
        return good

    def begun(self, name: str) -> bool:
        """Whether a step of this name runs, or has run."""
        return name in self._entries and self._entries[name]["state"] != WAITING

    def give_up(self, why: str) -> None:
        """End the steps that run as failed, and begin no other."""
        self.given_up = why
        for name, task in self._running.items():
            if self._entries[name]["state"] == RUNNING:
                task.cancel()

    def end(self, outcome: str) -> None:
        """Nothing of it is carried on after this. For one that was cancelled, too."""
        transition = self.transition
        transition["ended"] = now()
        transition["seconds"] = round(self._loop.time() - self._began, 3)
        transition["outcome"] = outcome
        self._journal.clear()
        self._told()

    async def _run(self, step: Step[World], world: World) -> None:
        entry = self._entries[step.name]
        for need in step.needs:
            await self._ended[need].wait()
        missing = [need for need in step.needs if self._entries[need]["state"] == FAILED and self.steps[need].essential]
        begun = self._loop.time()
        entry["at"] = round(begun - self._began, 3)
        if self._failed or missing or self.given_up:
            self._dropped.add(step.name)
            self._end(entry, SKIPPED, self.given_up or f"{missing[0] if missing else self._failed} failed", begun)
            return
        entry["state"] = RUNNING
        self._told()
        state = FAILED
        try:
            async with asyncio.timeout(step.timeout):
                text = await step.run(world)
            state = DONE
        except Skip as skip:
            state, text = SKIPPED, str(skip)
        except TimeoutError:
            text = f"not done within {step.timeout:g} s"
        except asyncio.CancelledError:
            if self.given_up is None:
                raise
            text = self.given_up
        except Exception as error:
            # Whatever goes wrong in one step must not keep the others from running.
            text = " ".join(str(error).split()) or type(error).__name__
        if state == FAILED and step.essential:
            self._failed = step.name
        self._end(entry, state, text, begun)

    def _end(self, entry: dict[str, Any], state: str, text: str, begun: float) -> None:
        entry["state"] = state
        entry["reason"] = text
        entry["seconds"] = round(self._loop.time() - begun, 3)
        self._journal.save(self.transition)
        self._ended[entry["name"]].set()
        self._told()
        die_after(entry["name"])


def die_after(step: str, folder: Path = Path("/run/ha_manager")) -> None:
    """For the fault tests: be killed, once, after the step that the environment names."""
    if os.environ.get("SWG_HA_KILL_AFTER") != step:
        return
    marker = folder / f"killed_after.{step}"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
