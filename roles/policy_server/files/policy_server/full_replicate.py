# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Write the configurations from the database to base/[global or device id], all at once."""

from __future__ import annotations

import os
import pwd
from typing import Any

from . import command, names, tree
from .database import DatabaseError, connection, refuse_standby
from .settings import Settings


def configurations(cursor: Any) -> dict[str, bytes]:
    """Every configuration, by its path below the base. Raises DatabaseError for a name that would lead elsewhere."""
    cursor.execute("SELECT d.id, c.name, c.content FROM configuration AS c JOIN device AS d ON d.key = c.device")
    found = cursor.fetchall()
    for device, name, _content in found:
        if problem := names.device_problem(device) or names.configuration_problem(name):
            raise DatabaseError(f"nothing was written: {problem}")
    return {f"{device}/{name}": bytes(content) for device, name, content in found}


def work(settings: Settings) -> str:
    if os.geteuid() != 0:
        raise DatabaseError("this must be run as root, who owns the configurations on the disk")
    with connection(settings) as cursor:
        refuse_standby(cursor)
        # Read by whoever writes next: what was read before another run wrote is older than the tree.
        with tree.alone(settings.base) as base:
            wanted = configurations(cursor)
            # Nothing of the database is held while the disk is written to.
            cursor.connection.commit()
            written = tree.write(base, wanted, pwd.getpwnam(settings.account).pw_gid)
    return f"{len(wanted)} configurations {'written to' if written else 'are already in'} {settings.base}"


def main() -> int:
    return command.run("full_replicate", work, "Write the configurations from the database to the disk.")
