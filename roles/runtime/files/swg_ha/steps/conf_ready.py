# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Install the configuration that the Notifier left ready as the base, as a whole or not at all.

What is alike in both is not copied: it is in the old base and in the new one until the old one goes.
"""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

from ..installing import Builder, Disk, Stopped, discard
from ..plan import Skip, Step
from ..shared import durable
from ..shared.durable import exchange
from ..staging import FOLDER, IN_FOLDER, Comparison, Folder, Reader
from .staged_files import in_thread
from .world import World

_working = threading.Lock()


def install(ready: Path, base: Path, stop: threading.Event) -> bool:
    """Put a copy of the tree ``ready`` in the place of ``base``; False where it is there already.

    Raises OSError, LeftOut or Stopped, and then ``base`` is as it was.
    """
    with _working:
        if stop.is_set():
            raise Stopped
        # Where an administrator has moved it by a link, the folder is what is swapped.
        base = Path(os.path.realpath(base))
        durable.make_folders(str(base.parent))
        new = base.with_name(f".{base.name}.new")
        with Folder(os.open(ready.parent, os.O_RDONLY | os.O_DIRECTORY)) as source, Folder(os.open(base.parent, IN_FOLDER)) as target:
            discard(target, new.name)
            item = Reader().item(source, ready.name)
            if item.kind != FOLDER:
                raise OSError(f"{ready} is a {item.kind}: a folder is expected")
            comparison = Comparison(str(base), Reader(), any_link=True)
            comparison.compare(source, target, ready.name, base.name)
            if not comparison.changes:
                return False
            disk = Disk(few=False)
            try:
                Builder(comparison.acceptable, disk, stop).build(source, (base.name,), item, target, new.name, ready.name, like=target)
                disk.wait()
                if not os.path.lexists(base):
                    os.rename(new, base)
                elif not exchange(new, base):
                    raise OSError(f"{base}: the file system cannot exchange two folders in one step")
                os.fsync(target)
            finally:
                disk.close()
                discard(target, new.name)
    return True


async def run(world: World) -> str:
    installs = world.installs
    if STEP.name not in installs.due:
        raise Skip("the other server was not active since: the base of this one is the newest")
    ready, base = Path(world.settings.paths.conf_ready), Path(world.settings.paths.base)
    if not ready.is_dir():
        await asyncio.to_thread(installs.done, STEP.name)
        raise Skip(f"there is no {ready}")
    done = await in_thread(lambda stop: install(ready, base, stop))
    await asyncio.to_thread(installs.done, STEP.name)
    return f"installed as {base}" if done else f"{base} is like it already"


STEP = Step("conf_ready", run, needs=("claim",), timeout=300)
