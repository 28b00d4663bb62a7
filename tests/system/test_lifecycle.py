# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A pair is taken apart and put together again. The tests follow each other: each begins where the one before ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.pair import CLUSTER, CONFIG, MODULE_XML, SERVERS, VIRTUAL_IP, Lab, enable, eventually, longest_gap, playbook, refused

ROWS = "SELECT string_agg(word, ',' ORDER BY word) FROM kept"


def is_ordinary(lab: Lab, host: str) -> None:
    """Nothing of the pair is left on the server, but its data and packages."""
    found = lab.sh(
        host,
        f"""
        systemctl is-enabled heartbeat || true
        systemctl is-active heartbeat || true
        pgrep --full '^heartbeat: ' || true
        pgrep --full '^/usr/bin/python3 -I /usr/sbin/ha_manager' || true
        ip -oneline address show to {VIRTUAL_IP}
        systemctl show --property=NeedDaemonReload heartbeat {CLUSTER} chrony | sort --unique | grep .
        find /etc/ha_manager/trust /var/lib/ha_peer /etc/heartbeat /etc/ha.d/ha.cf /etc/ha.d/haresources /etc/ha.d/authkeys \
          /etc/systemd/system/heartbeat.service.d {CONFIG}/conf.d/swg_ha* {CONFIG}/*.pgpass /etc/systemd/system/{CLUSTER}.service.d \
          /etc/Manager/passive_device /usr/bin/manager-ctl /etc/systemd/system/manager.service \
          /usr/bin/ha /usr/sbin/ha_manager /usr/lib/swg_ha /etc/systemd/system/ha_* /run/systemd/system/ha_* /etc/ha.d/resource.d/ha_gate \
          /run/ha_manager /run/ha_files /var/lib/ha_files /etc/ha_manager/ssh_config \
          /etc/ha_manager/runtime.json /etc/ha_manager/device_uname.conf /etc/ha_manager/logrelay.* /run/logrelay* /run/device_uname \
          /etc/systemd/system/logrelay* /etc/systemd/system/device_uname* /etc/ha_manager/active /etc/ha_manager/passive /etc/ha_manager/ha_manager_status \
          /var/lib/ha_manager/*.json 2>/dev/null || true
        getent passwd ha_peer || true
        grep -n swg.ha {CONFIG}/pg_hba.conf || true
        grep -c '<ha enabled="0"/>' {MODULE_XML} || true
        """,
    )
    assert found.splitlines() == ["disabled", "inactive", "NeedDaemonReload=no", "1"]
    queries = (
        "SELECT pg_is_in_recovery()",
        "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ha\\_%'",
        "SELECT count(*) FROM pg_replication_slots",
        "SELECT current_setting('primary_conninfo') || current_setting('primary_slot_name') || current_setting('synchronous_standby_names')",
        "SELECT count(*) FROM pg_stat_replication",
    )
    assert lab.sql(host, ";\n".join(queries) + ";").splitlines() == ["f", "0", "0", "", "0"]


@pytest.fixture(scope="module")
def written(pair: Lab) -> Lab:
    """The pair, with a row that has arrived on the passive server."""
    pair.sql("ps1", "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('together')")
    eventually(
        lambda: pair.sql("ps2", "SELECT to_regclass('kept') IS NOT NULL") == "t" and pair.sql("ps2", ROWS) == "together",
        30,
        "the row is on ps2",
    )
    return pair


@pytest.mark.long
def test_a_dry_run_of_taking_apart_changes_nothing(written: Lab, inventory: Path) -> None:
    before = {host: written.fingerprint(host) for host in SERVERS}
    foretold = playbook("disable_ha", inventory, check=True)
    assert all(foretold.changed.values())
    assert {host: written.fingerprint(host) for host in SERVERS} == before
    assert written.sql("ps2", "SELECT pg_is_in_recovery()") == "t"


def test_two_ordinary_servers_come_of_it_and_the_active_one_never_stops_answering(written: Lab, inventory: Path) -> None:
    started = written.sql("ps1", "SELECT pg_postmaster_start_time()")
    question = "while sleep 0.1; do runuser -u postgres -- psql -XAtqc 'SELECT extract(epoch FROM clock_timestamp()) FROM kept' || echo refused; done"
    with written.watching("ps1", question) as answers, written.watching("ps1", "while sleep 0.1; do date +%s.%N; done") as clock:
        playbook("disable_ha", inventory)
        told, ticks = answers(), clock()
    assert "refused" not in told
    # A question is three processes, beside a playbook; and the machine itself may stand still.
    assert longest_gap([float(line) for line in told]) < 5 + longest_gap([float(line) for line in ticks])
    assert written.sql("ps1", "SELECT pg_postmaster_start_time()") == started
    for host in SERVERS:
        is_ordinary(written, host)
        assert written.sql(host, ROWS) == "together"
    for host in SERVERS:
        written.sql(host, f"INSERT INTO kept VALUES ('apart on {host}')")


def test_what_is_apart_already_is_left_alone(written: Lab, inventory: Path) -> None:
    again = playbook("disable_ha", inventory)
    assert not any(again.changed.values()), again.changes()


def test_a_new_pair_is_refused_while_both_have_data(written: Lab, inventory: Path) -> None:
    before = {host: written.fingerprint(host) for host in SERVERS}
    [problem] = refused("enable_ha", inventory)
    assert (
        problem.startswith("PostgreSQL on ps2 has databases of its own (") and "ha_data_source=ps1 (that of ps2 is moved aside" in problem
    )
    assert {host: written.fingerprint(host) for host in SERVERS} == before


def test_a_new_pair_keeps_aside_what_the_passive_server_had(written: Lab, inventory: Path) -> None:
    play = enable(inventory, ha_data_source="ps1")
    assert written.sql("ps2", ROWS) == written.sql("ps1", ROWS) == "apart on ps1,together"
    [told] = [result for name, host, result in play.results() if name.endswith("standby | Stream from the primary") and host == "ps2"]
    kept = [told["quarantine"]] if told["method"] == "rewind" else told["moved_aside"]
    assert kept, told
    # The row is in what was kept: in the files of a data directory, or in the WAL that the rewind took away.
    assert written.sh("ps2", f"grep --recursive --files-with-matches --binary 'apart on ps2' {' '.join(kept)} | wc -l") != "0"


@pytest.mark.long
def test_a_passive_server_that_is_off_is_not_left_behind_by_accident(written: Lab, inventory: Path) -> None:
    written("power", "off", "ps2")
    before = written.fingerprint("ps1")
    [problem] = refused("disable_ha", inventory)
    assert "ps2 cannot be reached" in problem and "disable_ha_leave_behind=ps2" in problem
    assert written.fingerprint("ps1") == before


@pytest.mark.long
def test_a_passive_server_that_is_named_is_left_behind(written: Lab, inventory: Path) -> None:
    playbook("disable_ha", inventory, disable_ha_leave_behind="ps2")
    is_ordinary(written, "ps1")
    assert written.sql("ps1", ROWS) == "apart on ps1,together"


@pytest.mark.long
def test_the_server_that_was_left_behind_is_finished_later(written: Lab, inventory: Path) -> None:
    written("power", "on", "ps2")
    playbook("disable_ha", inventory)
    for host in SERVERS:
        is_ordinary(written, host)
        assert written.sql(host, ROWS) == "apart on ps1,together"
