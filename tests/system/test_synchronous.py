# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commits wait for the passive server while it streams, and not when it is gone. The tests follow each other."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from tests.system.pair import CONFIG, ROOT, SERVERS, Lab, eventually, playbook, status

pytestmark = pytest.mark.long

DEFAULTS = yaml.safe_load((ROOT / "roles/postgres_streaming/defaults/main.yml").read_text())
# After this time without an answer PostgreSQL ends the stream. ha_manager lets commits go on before that, but not at once.
TIMEOUT_S, GRACE_S = DEFAULTS["postgres_streaming_timeout"], 1.0
NAMED = f"find {CONFIG}/conf.d -name 'swg_ha_synchronous*'"


def waits_for(lab: Lab) -> str:
    """For whom commits on ps1 wait."""
    return lab.sql("ps1", "SELECT application_name FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'")


def in_sync(lab: Lab) -> bool:
    """Commits wait for ps2, and ha_manager has seen them do so."""
    record = json.loads(lab.sh("ps1", "ha status --json"))["record"]
    return waits_for(lab) == "ps2" and bool(record["in_sync"])


def test_commits_wait_for_the_passive_server(pair: Lab, inventory: Path) -> None:
    playbook("enable_ha", inventory, ha_synchronous_mode=True)
    eventually(lambda: in_sync(pair), 60, "commits wait for ps2")
    pair.sql("ps1", "CREATE TABLE acknowledged (word text)")
    # Acknowledged is written on the passive server, and with remote_apply it can be read there.
    pair.sql("ps1", "SET synchronous_commit = remote_apply; INSERT INTO acknowledged VALUES ('both')")
    assert pair.sql("ps2", "SELECT word FROM acknowledged") == "both"
    again = playbook("enable_ha", inventory, ha_synchronous_mode=True)
    assert not any(again.changed.values()), again.changes()


def test_a_commit_goes_on_when_the_passive_server_is_gone(pair: Lab, inventory: Path) -> None:
    pair("power", "off", "ps2")
    begin = time.monotonic()
    pair.sql("ps1", "INSERT INTO acknowledged VALUES ('alone')")
    waited = time.monotonic() - begin
    assert GRACE_S < waited < TIMEOUT_S + GRACE_S + 5
    [report] = status(inventory)
    assert not report["redundant"] and report["active"] == report["primary"] == "ps1"
    assert "ps2 cannot be reached" in report["problems"]


def test_they_wait_again_when_it_is_back(pair: Lab) -> None:
    pair("power", "on", "ps2")
    eventually(lambda: in_sync(pair), 120, "commits wait for ps2")
    pair.sql("ps1", "SET synchronous_commit = remote_apply; INSERT INTO acknowledged VALUES ('again')")
    assert pair.sql("ps2", "SELECT string_agg(word, ',' ORDER BY word) FROM acknowledged") == "again,alone,both"


def test_no_commit_waits_any_more_once_it_is_switched_off(pair: Lab, inventory: Path) -> None:
    playbook("enable_ha", inventory, ha_synchronous_mode=False)
    again = playbook("enable_ha", inventory, ha_synchronous_mode=False)
    assert not any(again.changed.values()), again.changes()
    for host in SERVERS:
        eventually(
            lambda host=host: pair.sh(host, NAMED) == pair.sql(host, "SHOW synchronous_standby_names") == "", 30, f"{host} names nobody"
        )
    assert waits_for(pair) == ""
