# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Put down, on disk, which data this server goes on from. That it goes on was put down before (claim)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ..plan import Step, StepFailed
from ..record import now
from .world import World


async def run(world: World) -> str:
    record = world.store.record
    if record is None or record.active != world.settings.node:
        raise StepFailed(f"the record names {record.active if record else 'nobody'}: it was changed meanwhile")
    database = await asyncio.to_thread(world.postgres.observe)
    timeline, lsn = world.results.get("promoted", (database.timeline, record.switch_lsn))
    data = {"system_id": database.system_id, "timeline": timeline, "switch_lsn": lsn}
    if replace(record, **data) == record:
        return "nothing is new"
    await asyncio.to_thread(world.store.update, record, lambda before: replace(before, changed=now(), **data))
    return f"record {record.counter}: timeline {timeline}"


STEP = Step("epoch", run, needs=("promote",), essential=True, timeout=10)
