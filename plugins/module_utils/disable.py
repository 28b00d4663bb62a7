# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Taking a pair apart: in which order, and what speaks against it. Pure functions over the report of status.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def disable_plan(report: Mapping[str, Any], leave_behind: str = "") -> dict[str, Any]:
    """Decide which servers are taken out of the pair, the passive first.

    ``leave_behind`` is the inventory name of a server that is not to be touched, though it is not connected. Returns
    ``order`` (inventory names), ``serves`` (the one whose service goes on; "" once they are apart already) and ``problems``.
    """
    servers = report["servers"]
    if leave_behind and leave_behind not in servers:
        return {
            "order": [],
            "serves": "",
            "problems": [
                f"disable_ha_leave_behind is {leave_behind!r}: it must be the inventory name of a server of the pair: "
                f"{' or '.join(servers)}"
            ],
        }
    active = _active(report)
    order = sorted((host for host in servers if host != leave_behind), key=lambda host: host == active)
    passive = next(host for host in servers if host != active)
    problems = []
    if leave_behind == active:
        # Its data was given up: that the other has received nothing from it lately is why.
        if not servers[passive]["reachable"]:
            problems.append(f"{passive} cannot be reached, and {active} is to be left behind: connect {passive}, nothing else is left")
    elif leave_behind != passive and not _ordinary(servers[active]):
        problems += _not_connected(passive, active, servers[passive])
    if leave_behind != active and not servers[active]["reachable"]:
        problems.append(
            f"{active} cannot be reached, and it is the active server as far as the other knows: bring it back, or give its "
            f"data up with disable_ha_leave_behind={active}, and {passive} goes on with its own copy"
        )
    apart = all(_ordinary(server) for server in servers.values())
    serves = "" if apart else passive if leave_behind == active else active
    return {"order": order, "serves": serves, "problems": problems}


def _active(report: Mapping[str, Any]) -> str:
    """The server whose data and service go on: the one that takes writes, or else the one with the address."""
    servers = report["servers"]
    standby = next((host for host, server in servers.items() if server["postgres"]["role"] == "standby"), None)
    if standby is not None:
        return next(str(host) for host in servers if host != standby)
    return str(report["primary"] or report["active"] or next(iter(servers)))


def _ordinary(server: Mapping[str, Any]) -> bool:
    """Has the server left the pair already? Then nothing is lost by finishing with the other."""
    return bool(server["reachable"] and not server["heartbeat"]["running"] and server["postgres"]["role"] != "standby")


def _not_connected(passive: str, active: str, server: Mapping[str, Any]) -> list[str]:
    remedy = (
        f"connect it, or name it: disable_ha_leave_behind={passive} leaves it as it is, and it must not be started in this "
        "network before disable_ha has run on it too, because its Heartbeat would raise the virtual IP"
    )
    if not server["reachable"]:
        return [f"the passive server {passive} cannot be reached: {remedy}"]
    # One whose PostgreSQL is stopped receives nothing either, unless it has left the pair already.
    if server["postgres"]["role"] != "primary" and not server["postgres"]["streaming"] and not _ordinary(server):
        return [f"the passive server {passive} receives nothing from {active}, so that its copy may be old: {remedy}"]
    return []
