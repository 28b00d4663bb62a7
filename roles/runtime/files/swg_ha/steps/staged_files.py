# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Install the files that the other server staged here, those alone that HA/module.xml lists, in their original places."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..installing import Installer, Outcome, Stopped
from ..plan import Skip, Step, StepFailed
from ..settings import MODULE_XML
from ..shared import module_xml
from .world import World

Answer = TypeVar("Answer")

# A thread cannot be ended from outside: one that is not wanted any more may still have a file to finish when the next one begins.
_working = threading.Lock()


def install(root: str, files: tuple[module_xml.ReplicatedFile, ...], replaced: Path, stop: threading.Event) -> Outcome:
    with _working:
        if stop.is_set():
            raise Stopped
        return Installer(root, replaced, stop).install(files)


async def in_thread(work: Callable[[threading.Event], Answer]) -> Answer:
    """Have a thread work, which is told to stop when nobody waits for it any more."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop)
    except asyncio.CancelledError:
        stop.set()
        raise


async def run(world: World) -> str:
    installs = world.installs
    if STEP.name not in installs.due:
        raise Skip("the other server was not active since: the files of this one are the newest")
    root = world.settings.paths.staged
    files = module_xml.parse(MODULE_XML.read_bytes()).files_to_replicate
    if not files or not Path(root).is_dir():
        await asyncio.to_thread(installs.done, STEP.name)
        raise Skip(f"there is no {root}" if files else f"{MODULE_XML} lists none")
    outcome = await in_thread(lambda stop: install(root, files, installs.path.with_name("replaced"), stop))
    await asyncio.to_thread(installs.done, STEP.name, outcome.problems())
    if outcome.refused:
        raise StepFailed(outcome.text())
    return outcome.text()


STEP = Step("staged_files", run, needs=("claim",), timeout=1800)
