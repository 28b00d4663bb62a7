# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Give the id of the active device to this one: it has the active's configurations from then on, and the other one has its own."""

from __future__ import annotations

from typing import Any

from . import command
from .database import connection, refuse_standby
from .settings import Settings

# No id has it: two ids that change places must not be the same in between.
MOVING = "~"


def take_over(cursor: Any, device: str) -> str:
    """All of it, in the transaction of the cursor."""
    refuse_standby(cursor)
    # Who reads goes on; who would make a device, or take over as well, waits.
    cursor.execute("LOCK TABLE device IN SHARE ROW EXCLUSIVE MODE")
    cursor.execute("SELECT id FROM device WHERE active")
    active = cursor.fetchone()
    if active is None:
        cursor.execute("INSERT INTO device (id, active) VALUES (%s, true) ON CONFLICT (id) DO UPDATE SET active = true", [device])
        return f"{device} is the active device, the first one"
    old = active[0]
    if old == device:
        return f"{device} is the active device already"
    cursor.execute("INSERT INTO device (id) VALUES (%s) ON CONFLICT (id) DO NOTHING", [device])
    cursor.execute("UPDATE device SET id = id || %s WHERE id IN (%s, %s)", [MOVING, old, device])
    cursor.execute(
        "UPDATE device SET id = CASE WHEN active THEN %s ELSE %s END, since = now() WHERE right(id, 1) = %s", [device, old, MOVING]
    )
    return f"{device} is the active device now, with the configurations that {old} had"


def work(settings: Settings) -> str:
    with connection(settings) as cursor:
        return take_over(cursor, settings.device_id)


def main() -> int:
    return command.run("active_request_cli", work, "Tell the policy server that this device is the active one.")
