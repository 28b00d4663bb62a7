# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""A status document and transitions as ha_manager makes them."""

from __future__ import annotations

from typing import Any


def step(name: str, state: str = "done", at: float | None = 0.0, seconds: float | None = 0.1, reason: str = "") -> dict[str, Any]:
    return {"name": name, "state": state, "at": at, "seconds": seconds, "reason": reason}


def transition(**changes: Any) -> dict[str, Any]:
    """A take-over that ended well, but for the Manager."""
    return {
        "id": "5d41402abc4b",
        "node": "ps2",
        "kind": "becoming_active",
        "trigger": "take_over",
        "code": "TAKE_OVER",
        "reason": "ps1 has not been heard for 1.1 s, and Heartbeat gave its resources to this server",
        "started": "2026-01-31T21:55:33.123Z",
        "ended": "2026-01-31T21:55:35.023Z",
        "seconds": 1.9,
        "outcome": "done",
        "resumed": 0,
        "counter": 7,
        "steps": [
            step("claim", seconds=0.02),
            step("promote", at=0.02, seconds=0.18),
            step("epoch", at=0.2, seconds=0.01),
            step("address", at=0.21, seconds=0.01),
            step("conf_ready", "skipped", 0.0, 0.0, "/opt/finjan/configuration/conf_ready is not there"),
            step("manager", "failed", 0.22, 1.68, "manager-ctl exited with 1: \x1b[31mno such role"),
        ],
        **changes,
    }


def hand_over(**changes: Any) -> dict[str, Any]:
    """The same seen from a server that hands over."""
    steps = [
        step("checkpoint", seconds=0.9),
        step("release_address", at=0.9, seconds=0.01),
        step("stop_database", at=0.91, seconds=0.15),
        step("hand_over", at=1.06, seconds=0.25),
        step("manager", "waiting", None, None),
    ]
    asked = {"node": "ps1", "kind": "becoming_passive", "trigger": "planned", "code": "ASKED", "reason": "'ha failover'", "steps": steps}
    return transition(**{**asked, **changes})


def document(**changes: Any) -> dict[str, Any]:
    """An active server whose peer is there and in sync."""
    return {
        "version": 1,
        "time": "2026-01-31T21:56:00.000Z",
        "node": "ps2",
        "peer_node": "ps1",
        "role": "active",
        "state": "steady",
        "decision": {
            "role": "active",
            "code": "STEADY",
            "reason": "this server was made active (record 7)",
            "since": "2026-01-31T21:55:33.123Z",
        },
        "virtual_ip": {"address": "192.0.2.10/24", "interface": "eth0", "held": True},
        "heartbeat": {"running": True, "rscstatus": "all", "peer": "active", "holding": True},
        "peer": {"connected": True, "links": {"192.0.2.11": "up", "198.51.100.11": "down"}, "role": "passive", "silent_seconds": 0.1},
        "network": {"carriers": {"eth0": True, "eth1": False}, "ping_nodes": {"192.0.2.1": True, "192.0.2.2": None}},
        "postgresql": {"state": "primary", "timeline": 5, "lsn": "0/5000148", "streaming": True, "lag_bytes": 0, "synchronous": True},
        "replication_status": "running",
        "progress": None,
        "redundant": True,
        "not_redundant_because": [],
        "record": {
            "counter": 7,
            "active": "ps2",
            "system_id": "7300000000000000001",
            "timeline": 5,
            "switch_lsn": "0/5000000",
            "in_sync": True,
            "changed": "2026-01-31T21:55:33.200Z",
        },
        "transition": None,
        "last_transition": transition(),
        "paused": None,
        "quarantine": [],
        "problems": [],
        "settings": {"loaded": "2026-01-31T21:00:00.000Z", "error": None},
        "started": "2026-01-31T21:00:00.000Z",
        "transitions_total": 3,
        "failures": {"manager": 1},
        **changes,
    }


def replicated(name: str, **changes: Any) -> dict[str, Any]:
    """A file of the status document that was copied a minute ago."""
    return {
        "name": name,
        "id": "x",
        "inotify": True,
        "interval": None,
        "permissions": "root:root",
        "absent": False,
        "last_good": "2026-01-31T21:55:00.000Z",
        "age_seconds": 60.0,
        "seconds": 0.2,
        "bytes": 662,
        "size": 662,
        "files": 1,
        "failures": 0,
        "left_out": [],
        "code": None,
        "error": None,
        **changes,
    }


def quarantine(**changes: Any) -> dict[str, Any]:
    return {
        "name": "20260131T215540Z",
        "path": "/var/lib/ha_manager/quarantine/20260131T215540Z",
        "created": "2026-01-31T21:55:40.000Z",
        "timeline": 4,
        "from": "0/4000000",
        "to": "0/4FFFFFF",
        "transactions": 12,
        "bytes": 16777215,
        "tables": ["public.policy"],
        "acknowledged": False,
        **changes,
    }
