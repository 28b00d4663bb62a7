# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Keeps the replication off a link that is dead while the other one lives: PostgreSQL itself would wait for its timeouts.

Both servers do their half as soon as they know: the primary ends what still waits on the dead link (it holds the slot), and the
standby asks for the stream over the link that is left. It stays there when the first one is back: every change is a short halt.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from .postgres import LocalCluster
from .shared.postgres import conninfo, parse_conninfo

CUT_SQL = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication WHERE host(client_addr) = ANY ('{{{dead}}}')"
CONNINFO_SQL = "SELECT current_setting('primary_conninfo')"


def reordered(text: str, dead: Collection[str]) -> str | None:
    """The connection string with the hosts that live first; None where there is nothing to change."""
    parameters = parse_conninfo(text)
    hosts = parameters.get("host", "").split(",")
    if hosts[0] not in dead:
        return None
    parameters["host"] = ",".join(sorted(hosts, key=lambda host: host in dead))
    return conninfo(parameters) if parameters["host"] != ",".join(hosts) else None


def cut(cluster: LocalCluster, dead: Collection[str], deadline: float) -> int:
    """On the primary: end the streams to these addresses of the standby; how many. Raises PostgresError."""
    until = time.monotonic() + deadline
    session = cluster.connect(until)
    try:
        return int(session.ask(CUT_SQL.format(dead=",".join(sorted(dead))), until))
    finally:
        session.close()


def prefer(cluster: LocalCluster, dead: Collection[str], deadline: float) -> bool:
    """On the standby: stream from an address of the primary that is not among the dead; True if that is new. Raises PostgresError."""
    until = time.monotonic() + deadline
    session = cluster.connect(until)
    try:
        text = reordered(str(session.ask(CONNINFO_SQL, until)), dead)
        if text is None:
            return False
        session.ask("ALTER SYSTEM SET primary_conninfo = '{}'".format(text.replace("'", "''")), until)
        session.ask("SELECT pg_reload_conf()", until)
        return True
    finally:
        session.close()
