# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from collections.abc import Callable

from tests.postgres.servers import Server

MakeServer = Callable[..., Server]


def test_a_server_without_data_gets_a_base_backup(primary: Server, server: MakeServer) -> None:
    primary.sql("CREATE TABLE t (x int); INSERT INTO t VALUES (1)")
    standby = server("ps2", data=False)
    outcome = standby.replica_of(primary).follow()
    print(outcome)
    assert (outcome.plan.method, outcome.changed, outcome.moved_aside) == ("basebackup", True, [])
    assert outcome.bytes > 10_000_000
    primary.sql("INSERT INTO t VALUES (2)")
    standby.wait("SELECT count(*) = 2 FROM t")

    again = standby.replica_of(primary).follow()
    assert (again.plan.method, again.changed, again.commands) == ("none", False, [])
    assert again.position["streaming"]
    print(standby.cluster.info())
