# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What `info` tells of clusters in every state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ansible_collections.swg.ha.plugins.module_utils.postgres_cluster import wait_until
from tests.postgres.servers import Server

MakeServer = Callable[..., Server]


def test_a_cluster_without_data(server: MakeServer) -> None:
    info = server("ps1", data=False).cluster.info()
    assert (info["installed"], info["exists"], info["running"], info["has_user_data"]) == (True, False, False, False)
    assert "there is no data directory" in info["reason"]


def test_a_fresh_cluster_running_and_stopped(server: MakeServer) -> None:
    fresh = server("ps1").start()
    info = fresh.cluster.info()
    assert (info["accepting"], info["in_recovery"], info["has_user_data"], info["user_data"]) == (True, False, False, [])
    assert (info["port"], info["timeline"], info["state"], info["reason"]) == (fresh.port, 1, "in production", None)
    assert {database["name"]: database["user"] for database in info["databases"]} == dict.fromkeys(
        ("postgres", "template0", "template1"), False
    )
    fresh.stop()
    info = fresh.cluster.info()
    assert (info["exists"], info["running"], info["has_user_data"], info["state"]) == (True, False, None, "shut down")
    assert "is stopped" in info["reason"]
    assert info["system_identifier"] == fresh.cluster.control().system_identifier


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("CREATE DATABASE shop", "database shop"),
        ("CREATE TABLE t (x int)", "relation public.t in database postgres"),
        ("CREATE SCHEMA s", "schema s in database postgres"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function public.f in database postgres"),
        ("CREATE TYPE mood AS ENUM ('calm')", "type public.mood in database postgres"),
        ("SELECT lo_create(4711)", "large object 4711 in database postgres"),
        ("CREATE EXTENSION pageinspect", None),
        ("CREATE ROLE somebody", None),
    ],
)
def test_user_data_is_seen(one: Server, statement: str, found: str | None) -> None:
    one.sql(statement)
    info = one.cluster.info()
    assert (info["has_user_data"], info["user_data"][:1]) == (found is not None, [found] if found else [])


@pytest.fixture
def one(server: MakeServer) -> Server:
    return server("ps1").start()


def test_both_sides_of_a_replication(primary: Server, server: MakeServer) -> None:
    standby = server("ps2", data=False)
    standby.replica_of(primary).follow()
    primary.sql("CREATE TABLE t (x int)")
    standby.wait("SELECT to_regclass('t') IS NOT NULL")

    here = primary.cluster.info()
    [seen] = here["standbys"]
    assert (seen["application_name"], seen["state"], seen["sync_state"]) == ("ps2", "streaming", "async")
    [slot] = here["slots"]
    assert (slot["name"], slot["active"], slot["wal_status"]) == ("ps2", True, "reserved")
    there = standby.cluster.info()
    assert (there["streaming"], there["in_recovery"], there["has_user_data"]) == (True, True, True)
    assert wait_until(lambda: [standby.cluster.info()[name] for name in ("lag_bytes", "lag_s")] == [0, 0], 20)
    assert (there["receiver"]["sender_port"], there["receiver"]["slot"]) == (primary.port, "ps2")
    assert there["system_identifier"] == here["system_identifier"]

    standby.crash()
    assert standby.cluster.info()["in_recovery"] is True


def test_a_configuration_that_postgresql_cannot_read(server: MakeServer) -> None:
    broken = server("ps1", settings="port 'no")
    info = broken.cluster.info()
    assert (info["exists"], info["has_user_data"]) == (False, None)
    assert "syntax error" in info["reason"]


def test_a_left_over_pid_file_does_not_count_as_a_server(server: MakeServer) -> None:
    crashed = server("ps1")
    (crashed.data / "postmaster.pid").write_text("1\n/nowhere\n0\n5432\n/tmp\n*\n\nready\n")
    assert crashed.cluster.info()["running"] is False
