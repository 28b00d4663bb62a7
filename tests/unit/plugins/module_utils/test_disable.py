# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.swg.ha.plugins.filter.disable_plan import FilterModule

plan = FilterModule().filters()["disable_plan"]


def server(role, running=True, streaming=False, reachable=True):
    return {"reachable": reachable, "heartbeat": {"running": running}, "postgres": {"role": role, "streaming": streaming}}


PRIMARY = server("primary")
STANDBY = server("standby", streaming=True)
SILENT = server("standby")
GONE = server(None, running=False, reachable=False)
ORDINARY = server("primary", running=False)
BARE = server(None, running=False)
STOPPED = server("stopped")


def report(ps1, ps2, active="ps1"):
    servers = {"ps1": ps1, "ps2": ps2}
    primaries = [host for host, seen in servers.items() if seen["postgres"]["role"] == "primary"]
    return {"servers": servers, "active": active, "primary": primaries[0] if len(primaries) == 1 else None}


@pytest.mark.parametrize(
    ("found", "leave_behind", "order"),
    [
        (report(PRIMARY, STANDBY), "", ["ps2", "ps1"]),
        (report(STANDBY, PRIMARY, "ps2"), "", ["ps1", "ps2"]),
        # The passive is named, whether it could be reached or not.
        (report(PRIMARY, GONE), "ps2", ["ps1"]),
        (report(PRIMARY, SILENT), "ps2", ["ps1"]),
        (report(PRIMARY, STANDBY), "ps2", ["ps1"]),
        # The active burned down: its passive receives nothing, and goes on with what it has.
        (report(GONE, SILENT, None), "ps1", ["ps2"]),
        # A run that was cut off: the passive was done, or the first of two was. One booted meanwhile, and nobody started its PostgreSQL.
        (report(PRIMARY, server("stopped", running=False)), "", ["ps2", "ps1"]),
        (report(PRIMARY, ORDINARY), "", ["ps2", "ps1"]),
        (report(ORDINARY, ORDINARY, None), "", ["ps2", "ps1"]),
        # Both take writes: the one that holds the address goes on.
        (report(PRIMARY, PRIMARY, "ps2"), "", ["ps1", "ps2"]),
        (report(BARE, BARE, None), "", ["ps2", "ps1"]),
    ],
)
def test_order(found, leave_behind, order):
    found = plan(found, leave_behind)
    assert (found["order"], found["problems"]) == (order, [])


@pytest.mark.parametrize(
    ("found", "leave_behind", "serves"),
    [
        (report(PRIMARY, STANDBY), "", "ps1"),
        (report(STANDBY, PRIMARY, "ps2"), "", "ps2"),
        (report(PRIMARY, GONE), "ps2", "ps1"),
        (report(GONE, SILENT, None), "ps1", "ps2"),
        # Cut off after the passive: the active is still one of a pair.
        (report(PRIMARY, ORDINARY), "", "ps1"),
        (report(PRIMARY, PRIMARY, "ps2"), "", "ps2"),
        # Nobody knows any more which of them it was, and it was seen to.
        (report(ORDINARY, ORDINARY, None), "", ""),
        (report(PRIMARY, STANDBY), "ps3", ""),
    ],
)
def test_whose_service_goes_on(found, leave_behind, serves):
    assert plan(found, leave_behind)["serves"] == serves


@pytest.mark.parametrize(
    ("found", "leave_behind", "words"),
    [
        (report(PRIMARY, GONE), "", [["the passive server ps2 cannot be reached", "disable_ha_leave_behind=ps2", "raise the virtual IP"]]),
        (report(PRIMARY, STOPPED), "", [["the passive server ps2 receives nothing", "disable_ha_leave_behind=ps2"]]),
        (
            report(PRIMARY, SILENT),
            "",
            [["the passive server ps2 receives nothing from ps1", "its copy may be old", "disable_ha_leave_behind=ps2"]],
        ),
        (
            report(GONE, SILENT, None),
            "",
            [["ps2 receives nothing from ps1"], ["ps1 cannot be reached, and it is the active server", "disable_ha_leave_behind=ps1"]],
        ),
        # Naming the passive does not give up the active's data.
        (report(GONE, SILENT, None), "ps2", [["ps1 cannot be reached", "disable_ha_leave_behind=ps1, and ps2 goes on with its own copy"]]),
        (report(PRIMARY, GONE), "ps1", [["ps2 cannot be reached, and ps1 is to be left behind", "connect ps2"]]),
        (
            report(PRIMARY, STANDBY),
            "ps9",
            [["disable_ha_leave_behind is 'ps9'", "inventory name of a server of the pair: ps1 or ps2"]],
        ),
    ],
)
def test_refusals(found, leave_behind, words):
    problems = plan(found, leave_behind)["problems"]
    assert len(problems) == len(words), problems
    assert all(any(all(word in problem for word in one) for problem in problems) for one in words), problems


def test_a_name_that_is_none_takes_nothing_apart():
    assert plan(report(PRIMARY, STANDBY), "ps9")["order"] == []
