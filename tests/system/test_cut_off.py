# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs that are killed in the middle of a task are made good by the next run, and nothing is left half in effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.pair import CLUSTER, CONFIG, SERVERS, Lab, cut_off, enable, playbook

# Each between two things that belong together: a file and the service that reads it, one server and the other, data and its place. Those that
# are the hardest to make good are of the normal run.
CUTS = [
    ("secret | Write it", 0.3),
    ("configure | Run Heartbeat with them", 0.6),
    ("cluster | Put the data where the manual has it", 0.5),
    ("fresh | Run PostgreSQL", 0.4),
    ("standby | Stream from the primary", 1.0),
]
HARDEST = [CUTS[2], CUTS[4]]
CUTS_APART = [("disable | Stop Heartbeat", 0.3), ("promote | Promote", 0.3), ("disable | Remove the settings", 0.2)]
IN_EFFECT = f"""
for unit in heartbeat chrony {CLUSTER}; do
  systemctl show --property=NeedDaemonReload --property=ActiveState --property=UnitFileState --value "$unit" | paste --serial --delimiters=' '
done
for parameter in keepalive warntime deadtime initdead deadping udpport; do
  printf '%s %s\\n' "$parameter" "$(cl_status hbparameter -p "$parameter")"
done
cl_status listnodes | sort
"""


def in_effect(lab: Lab, host: str, peer: str) -> None:
    """What runs on the server is what its files say."""
    lines = lab.sh(host, IN_EFFECT).splitlines()
    # PostgreSQL's unit is enabled by a generator of Debian's, at every boot anew; Heartbeat is the Manager's.
    states = [set(line.replace("enabled-runtime", "enabled").split()) for line in lines[:3]]
    assert states == [{"active", enabled, "no"} for enabled in ("disabled", "enabled", "enabled")], lines
    configured = dict(line.split(maxsplit=1) for line in lab.sh(host, "grep '^[a-z]' /etc/ha.d/ha.cf").splitlines())
    for line in lines[3:9]:
        name, value = line.split()
        assert value == configured[name], f"{host}: Heartbeat runs with {line}, its file says {configured[name]}"
    assert lines[9:] == ["192.0.2.1", "ps1", "ps2"]
    waiting = "SELECT name FROM pg_settings WHERE pending_restart UNION ALL SELECT error FROM pg_file_settings WHERE error IS NOT NULL"
    assert lab.sql(host, waiting) == ""
    for file in ("pg_hba.conf", "conf.d/swg_ha.conf"):
        assert lab.sql(host, f"SELECT pg_conf_load_time() > modification FROM pg_stat_file('{CONFIG}/{file}')") == "t", file
    assert "192.0.2.1" in lab.sh(host, "chronyc -n sources")
    trust = "/etc/ha_manager/trust"
    assert lab.sh(host, f"cat {trust}/secret") == lab.sh(peer, f"cat {trust}/secret") != ""
    assert lab.sh(host, f"cat {trust}/peer.crt") == lab.sh(peer, f"cat {trust}/tls.crt")


def completes(lab: Lab, inventory: Path) -> None:
    enable(inventory)
    again = playbook("enable_ha", inventory)
    assert not any(again.changed.values()), again.changes()
    for host, peer in (SERVERS, SERVERS[::-1]):
        in_effect(lab, host, peer)


def test_enabling_that_is_cut_off_again_and_again_is_completed_by_the_next_run(
    bare: Lab, inventory: Path, pytestconfig: pytest.Config
) -> None:
    bare.sql("ps1", "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('before')")
    for task, delay in CUTS if pytestconfig.getoption("long") else HARDEST:
        assert cut_off("enable_ha", inventory, task, delay), task
    completes(bare, inventory)
    for host in SERVERS:
        assert bare.sql(host, "SELECT word FROM kept") == "before"


@pytest.mark.long
def test_disabling_that_is_cut_off_again_and_again_is_completed_by_the_next_run(bare: Lab, inventory: Path) -> None:
    for task, delay in CUTS_APART:
        assert cut_off("disable_ha", inventory, task, delay), task
        # The passive loses its power as well, once, while nothing but the playbook could start its PostgreSQL again.
        if (task, delay) == CUTS_APART[0]:
            bare("power", "off", "ps2")
            bare("power", "on", "ps2")
    playbook("disable_ha", inventory)
    again = playbook("disable_ha", inventory)
    assert not any(again.changed.values()), again.changes()
    for host in SERVERS:
        assert bare.sql(host, "SELECT pg_is_in_recovery(), word FROM kept") == "f|before"
        assert (
            bare.sql(host, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'ha\\_%' UNION ALL SELECT slot_name FROM pg_replication_slots")
            == ""
        )
        left = "systemctl is-active heartbeat || true; find /etc/ha_manager/trust /etc/ha.d/ha.cf 2>/dev/null || true"
        assert bare.sh(host, left) == "inactive"


def test_enabling_that_is_cut_off_at_any_one_task_is_completed(running: Lab, inventory: Path, pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("all_cuts"):
        pytest.skip("takes an hour: pytest --all-cuts")
    number = 1
    running("rollback", "bare")
    while cut_off("enable_ha", inventory, number):
        try:
            completes(running, inventory)
        except AssertionError as error:
            error.add_note(f"The run before was cut off at task {number}.")
            raise
        running("rollback", "bare")
        number += 1
    assert number > 50
