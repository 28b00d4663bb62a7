# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json

import pytest

from ansible_collections.swg.ha.plugins.filter import status as filters
from ansible_collections.swg.ha.plugins.module_utils import status

VIP = "192.0.2.10"


def node(kind, state, **links):
    return {"type": kind, "status": state, "links": links}


def heartbeat(peer, held=False, rscstatus="all", interface="eth0", **changes):
    nodes = {
        "192.0.2.1": node("ping", "ping", **{"192.0.2.1": "up"}),
        peer: node("normal", "active", eth0="up", eth1="up"),
    }
    return {
        "installed": True,
        "running": True,
        "rscstatus": rscstatus,
        "problem": None,
        "virtual_ip_held": held,
        "virtual_ip_interface": interface if held else None,
        "nodes": nodes,
        **changes,
    }


def postgres(**changes):
    return {
        "exists": True,
        "accepting": True,
        "in_recovery": False,
        "streaming": False,
        "timeline": 1,
        "system_identifier": "7711059541659220307",
        "data_directory": "/opt/finjan/configuration/data/postgresql/main",
        "lag_bytes": None,
        "lag_s": None,
        "leftovers": [],
        "reason": None,
        "standbys": [],
        **changes,
    }


def streamed(sync_state="async"):
    return [{"application_name": "ps2", "state": "streaming", "sync_state": sync_state, "lag_bytes": 0, "lag_s": 0.0}]


def manager(node="ps1", role="active", **changes):
    status = {
        "node": node,
        "role": role,
        "state": "steady",
        "decision": {"code": "STEADY" if role == "active" else "PEER_ACTIVE", "reason": f"{node} is {role}"},
        "record": {"counter": 4, "active": "ps1"},
        "replication_status": "running",
        "redundant": True,
        "not_redundant_because": [],
        "problems": [],
        "paused": None,
        "transition": None,
        "last_transition": None,
        **changes,
    }
    return {"installed": True, "running": True, "problem": None, "status": status}


def clock(offset_s):
    return {"offset_s": offset_s, "steady_offset_s": 1000.0 + offset_s, "uncertainty_s": 0.001}


def seen(ps1=None, ps2=None):
    """What is seen of a healthy pair, with changes of each server."""
    return {
        "ps1": {
            "node": "ps1",
            "reachable": True,
            "heartbeat": heartbeat("ps2", held=True),
            "postgres": postgres(standbys=streamed()),
            "clock": clock(0.0015),
            **(ps1 or {}),
        },
        "ps2": {
            "node": "ps2",
            "reachable": True,
            "heartbeat": heartbeat("ps1", rscstatus="none"),
            "postgres": postgres(in_recovery=True, streaming=True, lag_bytes=0, lag_s=0.0),
            "clock": clock(-0.002),
            **(ps2 or {}),
        },
    }


def report(ps1=None, ps2=None):
    return status.pair_report("policy_servers", VIP, seen(ps1, ps2))


GONE = {"node": "", "reachable": False, "heartbeat": {}, "postgres": {}, "clock": {}}
BARE = {"heartbeat": {"installed": False, "running": False, "problem": "Heartbeat is not installed"}, "postgres": {"exists": False}}
DEAD_LINK = heartbeat("ps2", held=True)
DEAD_LINK["nodes"]["ps2"]["links"]["eth1"] = "dead"
DEAD_PING = heartbeat("ps1", rscstatus="none")
DEAD_PING["nodes"]["192.0.2.1"] = node("ping", "dead", **{"192.0.2.1": "dead"})

TRANSITION = {
    "node": "ps1",
    "kind": "becoming_active",
    "trigger": "take_over",
    "code": "TAKE_OVER",
    "reason": "ps2 has not been heard for 3.0 s, and Heartbeat gave its resources to this server",
    "started": "2026-11-22T21:00:00.000Z",
    "seconds": 0.412,
    "outcome": "done",
    "steps": [
        {"name": "promote", "state": "done", "at": 0.0, "seconds": 0.12, "reason": "done"},
        {"name": "manager", "state": "skipped", "at": 0.121, "seconds": 0.0, "reason": "no command is configured for it"},
    ],
}
SILENT = {"installed": True, "running": False, "problem": "ha_manager does not run: see 'systemctl status ha_manager'", "status": None}

SCREENS = {
    "with ha_manager": (
        seen(
            {"manager": manager(last_transition=TRANSITION)},
            {"manager": manager("ps2", "passive", last_transition={**TRANSITION, "started": "2026-11-21"})},
        ),
        """\
Pair policy_servers, virtual IP 192.0.2.10                           redundant

                          ps1                       ps2
role                      active                    passive
virtual IP                held on eth0              -
ha_manager                steady                    steady
  because                 STEADY                    PEER_ACTIVE
  last made active        ps1, record 4             ps1, record 4
  replication             running                   running
Heartbeat                 running, all              running, none
  link eth0               up                        up
  link eth1               up                        up
  ping 192.0.2.1          up                        up
PostgreSQL                primary, timeline 1       standby, streaming
  replay lag              -                         0 bytes, 0.0 s
  commits wait            for nobody (asynchronous) -
clock, to controller      +0.002 s                  -0.002 s
clock, between them       +0.004 s

Nothing is wrong.

2026-11-22T21:00:00.000Z ps1 becoming active (take-over): done in 0.412 s
  TAKE_OVER: ps2 has not been heard for 3.0 s, and Heartbeat gave its resour..
     0.000   +0.120  promote              done
     0.121   +0.000  manager              skipped no command is configured f..
""",
    ),
    "with trouble": (
        seen(
            {
                "manager": manager(
                    state="following",
                    redundant=False,
                    not_redundant_because=["ps2 does not stream"],
                    problems=[
                        {"code": "QUARANTINE", "text": "3 transactions that the other server never had are kept in /q: 'ha acknowledge'"},
                        {"code": "HEARTBEAT_GONE", "text": "Heartbeat does not run here"},
                    ],
                    paused={"until": "2026-11-22T23:00:00Z", "by": "root", "reason": "new switch"},
                )
            },
            {"manager": SILENT},
        ),
        """\
Pair policy_servers, virtual IP 192.0.2.10                       NOT REDUNDANT

                          ps1                       ps2
role                      active                    unknown
virtual IP                held on eth0              -
ha_manager                following                 no answer
  because                 STEADY                    -
  last made active        ps1, record 4             -
  replication             running                   -
Heartbeat                 running, all              running, none
  link eth0               up                        up
  link eth1               up                        up
  ping 192.0.2.1          up                        up
PostgreSQL                primary, timeline 1       standby, streaming
  replay lag              -                         0 bytes, 0.0 s
  commits wait            for nobody (asynchronous) -
clock, to controller      +0.002 s                  -0.002 s
clock, between them       +0.004 s

! ps1: 3 transactions that the other server never had are kept in /q: 'ha
  acknowledge'
! ps1: automatic failover is paused until 2026-11-22T23:00:00Z by root (new
  switch)
! ps2: ha_manager does not run: see 'systemctl status ha_manager'
! not redundant: ps2 does not stream
""",
    ),
    "healthy": (
        seen(),
        """\
Pair policy_servers, virtual IP 192.0.2.10                           redundant

                          ps1                       ps2
role                      active                    passive
virtual IP                held on eth0              -
Heartbeat                 running, all              running, none
  link eth0               up                        up
  link eth1               up                        up
  ping 192.0.2.1          up                        up
PostgreSQL                primary, timeline 1       standby, streaming
  replay lag              -                         0 bytes, 0.0 s
  commits wait            for nobody (asynchronous) -
clock, to controller      +0.002 s                  -0.002 s
clock, between them       +0.004 s

Nothing is wrong.
""",
    ),
    "broken": (
        seen(
            {"heartbeat": DEAD_LINK, "postgres": postgres(standbys=streamed("sync"), timeline=3)},
            {
                "node": "node-two",
                "heartbeat": DEAD_PING,
                "postgres": postgres(in_recovery=True, lag_bytes=1234567, lag_s=98.76),
                "clock": clock(2.5),
            },
        ),
        """\
Pair policy_servers, virtual IP 192.0.2.10                       NOT REDUNDANT

                          ps1                       ps2 (node-two)
role                      active                    passive
virtual IP                held on eth0              -
Heartbeat                 running, all              running, none
  link eth0               up                        up
  link eth1               dead                      up
  ping 192.0.2.1          up                        dead
PostgreSQL                primary, timeline 3       standby, NOT streaming
  replay lag              -                         1234567 bytes, 98.8 s
  commits wait            for ps2                   -
clock, to controller      +0.002 s                  +2.500 s
clock, between them       -2.498 s

! ps1: link eth1 to ps2 is dead
! ps2: ping node 192.0.2.1 does not answer
! ps2: PostgreSQL is a standby, but receives nothing
! the servers' clocks differ by 2.498 s
""",
    ),
    "unreachable": (
        seen({"postgres": postgres()}, GONE),
        """\
Pair policy_servers, virtual IP 192.0.2.10                       NOT REDUNDANT

                          ps1                       ps2 (?)
role                      active                    unknown
virtual IP                held on eth0              -
Heartbeat                 running, all              unknown
  link eth0               up                        -
  link eth1               up                        -
  ping 192.0.2.1          up                        -
PostgreSQL                primary, timeline 1       unknown
  replay lag              -                         -
  commits wait            for nobody (asynchronous) -
clock, to controller      +0.002 s                  unknown
clock, between them       unknown

! ps2 cannot be reached
""",
    ),
    "not enabled": (
        seen(BARE, BARE),
        """\
Pair policy_servers, virtual IP 192.0.2.10                       NOT REDUNDANT

                          ps1                       ps2
role                      unknown                   unknown
virtual IP                -                         -
Heartbeat                 not installed             not installed
PostgreSQL                none                      none
  replay lag              -                         -
  commits wait            -                         -
clock, to controller      +0.002 s                  -0.002 s
clock, between them       +0.004 s

! ps1: Heartbeat does not run (Heartbeat is not installed)
! ps2: Heartbeat does not run (Heartbeat is not installed)
! nobody holds the virtual IP 192.0.2.10
! PostgreSQL takes writes on no server
! ps1: PostgreSQL does not run (no cluster)
! ps2: PostgreSQL does not run (no cluster)
""",
    ),
}


@pytest.mark.parametrize(("observed", "expected"), SCREENS.values(), ids=list(SCREENS))
def test_screen(observed, expected):
    lines = filters.FilterModule().filters()["status_screen"](filters.report(observed, "policy_servers", VIP))
    assert lines == expected.splitlines()


def test_long_names_stay_on_the_screen():
    name = "policy-server-one.a-long-name.of-the-operators-own.example.net"
    observed = {f"{host}.{name}": server for host, server in seen().items()}
    held = heartbeat(f"x.{name}", held=True, interface="enx00005e005301.verylong")
    held["nodes"][f"x.{name}"]["links"] = {"enx00005e005301.verylong": "dead"}
    first, second = observed.values()
    first |= {"heartbeat": held, "postgres": postgres(standbys=[{"application_name": name, "sync_state": "sync"}])}
    second |= {"postgres": postgres(in_recovery=True, lag_bytes=123456789012345, lag_s=1234567.8)}
    found = status.pair_report(f"pair-of-{name}", VIP, observed)
    lines = status.screen(found)
    assert [line for line in lines if len(line) > 80] == []
    # What is cut in the columns is told in full below them.
    told = " ".join(line[2:] for line in lines if line.startswith(("! ", "  ")))
    assert f"link enx00005e005301.verylong to x.{name} is dead" in told
    assert sum(line.startswith("! ") for line in lines) == len(found["problems"])
    assert lines[0].endswith("NOT REDUNDANT")


@pytest.mark.parametrize(
    ("ps1", "ps2", "active", "primary", "words"),
    [
        ({}, {}, "ps1", "ps1", None),
        # Roles swapped, and back from neither.
        (
            {"heartbeat": heartbeat("ps2", rscstatus="none"), "postgres": postgres(in_recovery=True, streaming=True)},
            {"heartbeat": heartbeat("ps1", held=True), "postgres": postgres()},
            "ps2",
            "ps2",
            None,
        ),
        ({}, {"heartbeat": heartbeat("ps1", held=True)}, None, "ps1", f"both servers hold the virtual IP {VIP}"),
        ({"heartbeat": heartbeat("ps2")}, {}, None, "ps1", f"nobody holds the virtual IP {VIP}"),
        ({}, {"postgres": postgres()}, "ps1", None, "PostgreSQL takes writes on both servers: their data grows apart"),
        (
            {"postgres": postgres(in_recovery=True, streaming=True)},
            {"postgres": postgres()},
            "ps1",
            "ps2",
            "the virtual IP leads to ps1, but PostgreSQL takes writes on ps2",
        ),
        (
            {},
            {"heartbeat": heartbeat("ps1", running=False, problem="it is stopped")},
            "ps1",
            "ps1",
            "ps2: Heartbeat does not run (it is stopped)",
        ),
        ({}, {"heartbeat": heartbeat("ps1", running=False)}, "ps1", "ps1", "ps2: Heartbeat does not run (no answer)"),
        ({}, {"heartbeat": heartbeat("ps1", rscstatus="transition")}, "ps1", "ps1", "ps2: Heartbeat has not settled (transition)"),
        ({}, {"heartbeat": heartbeat("ps1", rscstatus=None)}, "ps1", "ps1", "ps2: Heartbeat has not settled (no answer)"),
        (
            {},
            {"postgres": postgres(accepting=False, reason="the cluster is stopped")},
            "ps1",
            "ps1",
            "ps2: PostgreSQL does not run (the cluster is stopped)",
        ),
        ({}, {"clock": clock(1.1)}, "ps1", "ps1", "the servers' clocks differ by 1.099 s"),
        ({}, {"clock": {}}, "ps1", "ps1", None),
    ],
)
def test_report(ps1, ps2, active, primary, words):
    found = report(ps1, ps2)
    assert (found["active"], found["primary"]) == (active, primary)
    assert found["problems"] == ([words] if words else [])
    assert found["redundant"] is (words is None)


def test_a_pair_of_which_nothing_can_be_reached():
    found = report(GONE, GONE)
    assert (found["active"], found["primary"], found["clock_offset_s"]) == (None, None, None)
    assert found["problems"][:2] == ["ps1 cannot be reached", "ps2 cannot be reached"]
    assert [server["role"] for server in found["servers"].values()] == [None, None]


@pytest.mark.parametrize(
    ("rscstatus", "held", "role"), [("local", True, "active"), ("local", False, "passive"), ("foreign", False, "unchanged")]
)
def test_role_of_the_default_passive(rscstatus, held, role):
    other = heartbeat("ps2", held=not held, rscstatus="none" if held else "all")
    found = report({"heartbeat": other}, {"heartbeat": heartbeat("ps1", held=held, rscstatus=rscstatus)})
    assert found["servers"]["ps2"]["role"] == role


def test_it_is_plain_data():
    found = report()
    assert json.loads(json.dumps(found)) == found


def test_what_ha_manager_says_of_its_role_comes_before_what_heartbeat_would_mean():
    found = report({"manager": manager(role="passive")}, {"manager": SILENT})
    assert [server["role"] for server in found["servers"].values()] == ["passive", None]
    assert found["servers"]["ps1"]["reason"] == "ps1 is passive"
    assert "does not run" in found["servers"]["ps2"]["reason"]
    # What the whole status says is there for programs.
    assert found["servers"]["ps1"]["manager"]["status"]["record"]["counter"] == 4
