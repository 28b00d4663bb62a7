# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.swg.ha.plugins.module_utils import failover


def said(node="ps1", role="active", connected=True, peer_role="passive", recorded="ps1", **changes):
    return {
        "node": node,
        "peer_node": "ps2" if node == "ps1" else "ps1",
        "role": role,
        "peer": {"connected": connected, "role": peer_role if connected else None},
        "record": {"counter": 3, "active": recorded} if recorded else None,
        "redundant": connected,
        "not_redundant_because": [] if connected else ["the other server cannot be heard"],
        **changes,
    }


HERE = said()
THERE = said("ps2", "passive", peer_role="active")
LEFT_ALONE = said("ps2", "passive", connected=False)


@pytest.mark.parametrize(
    ("status", "active"),
    [
        (HERE, ("ps1", True)),
        (THERE, ("ps1", True)),
        # Only remembered: the record says who was.
        (LEFT_ALONE, ("ps1", False)),
        (said("ps2", "active", connected=False, recorded="ps2"), ("ps2", True)),
        (said("ps2", "undecided", connected=False, recorded=None), (None, False)),
    ],
)
def test_who_is_active_by_the_word_of_one_server(status, active):
    assert failover.known_active(status) == active


@pytest.mark.parametrize(
    ("status", "to", "plan"),
    [
        (HERE, "", ("ps2", "ps1", False)),
        (THERE, "", ("ps2", "ps1", False)),
        (HERE, "ps2", ("ps2", "ps1", False)),
        (HERE, "ps1", ("ps1", "ps2", True)),
        (THERE, "ps1", ("ps1", "ps2", True)),
        (LEFT_ALONE, "", ("ps2", "ps1", False)),
        # That it was active is no proof that it still is.
        (LEFT_ALONE, "ps1", ("ps1", "ps2", False)),
        (said("ps1", "undecided", connected=False, recorded=None), "ps1", ("ps1", "ps2", False)),
    ],
)
def test_plan(status, to, plan):
    assert failover.plan(status, to) == failover.Plan(*plan)


@pytest.mark.parametrize(
    ("status", "options", "words"),
    [
        (HERE, {"to": "ps9"}, ["to is 'ps9'", "ps1 or ps2"]),
        (said("ps1", "undecided", connected=False, recorded=None), {}, ["neither server is active", "to=ps1 or to=ps2"]),
        (LEFT_ALONE, {"forced": True}, ["what ps1 has not sent", "confirm=ps2"]),
        (LEFT_ALONE, {"forced": True, "confirm": "ps1"}, ["confirm=ps2 (it is 'ps1')"]),
    ],
)
def test_what_is_refused(status, options, words):
    with pytest.raises(failover.FailoverError) as error:
        failover.plan(status, **options)
    assert [word for word in words if word not in str(error.value)] == []


def test_what_is_forced_needs_the_name_of_the_new_active_server_only_when_something_is_done():
    assert failover.plan(LEFT_ALONE, forced=True, confirm="ps2") == failover.Plan("ps2", "ps1", False)
    assert failover.plan(HERE, "ps1", forced=True) == failover.Plan("ps1", "ps2", True)


def answer(status, **changes):
    return {"reachable": True, "manager": {"running": True, "problem": None, "status": status, **changes}}


STOPPED = {"running": False, "problem": "ha_manager does not run", "status": HERE}
OFF = {"reachable": False, "manager": {}}


def pair(left, right):
    return {"left": left, "right": right}


WHOLE = pair(answer(HERE), answer(THERE))


@pytest.mark.parametrize(
    ("observed", "options", "plan"),
    [
        (WHOLE, {}, ("left", "right")),
        (WHOLE, {"to": "right"}, ("left", "right")),
        (WHOLE, {"forced": True, "confirm": "right"}, ("left", "right")),
        (pair(OFF, answer(LEFT_ALONE)), {"forced": True, "confirm": "right"}, ("right", "right")),
        (pair({"reachable": True, "manager": STOPPED}, answer(LEFT_ALONE)), {"forced": True, "confirm": "right"}, ("right", "right")),
        # The active one answers, but the two cannot hear each other: it could not hand over.
        (pair(answer(said(connected=False)), answer(LEFT_ALONE)), {"forced": True, "confirm": "right"}, ("right", "right")),
    ],
)
def test_whom_to_ask(observed, options, plan):
    found = failover.pair_plan(observed, **options)
    assert found["problems"] == []
    assert (found["actor"], found["to"]) == plan
    assert found["nodes"] == {"left": "ps1", "right": "ps2"}
    assert found["whole"] is all(seen["manager"].get("running") for seen in observed.values())


def test_nobody_is_asked_for_what_is_so_already():
    found = failover.pair_plan(WHOLE, to="left")
    assert (found["done"], found["actor"], found["problems"]) == (True, None, [])


@pytest.mark.parametrize(
    ("observed", "options", "words"),
    [
        (pair(OFF, OFF), {}, ["no ha_manager of the pair answers: left: it cannot be reached; right: it cannot be reached"]),
        (WHOLE, {"to": "middle"}, ["failover_to is 'middle'", "left or right"]),
        (WHOLE, {"forced": True}, ["failover_confirm=right"]),
        (WHOLE, {"forced": True, "confirm": "left"}, ["failover_confirm=right (it is 'left')"]),
        (pair(OFF, answer(LEFT_ALONE)), {}, ["left cannot hand over: it cannot be reached", "failover_forced=true failover_confirm=right"]),
        (pair({"reachable": True, "manager": STOPPED}, answer(LEFT_ALONE)), {}, ["left cannot hand over: ha_manager does not run"]),
        (pair(answer(said(connected=False)), OFF), {}, ["right cannot become active: it cannot be reached"]),
        (pair(answer(said(connected=False)), OFF), {"forced": True, "confirm": "right"}, ["right cannot become active"]),
        (pair(answer(said(role="undecided", connected=False, recorded=None)), OFF), {}, ["say who shall be, failover_to=left"]),
    ],
)
def test_what_speaks_against_it(observed, options, words):
    found = failover.pair_plan(observed, **options)
    assert found["actor"] is None
    [problem] = found["problems"]
    assert [word for word in words if word not in problem] == [], problem


TRANSITION = {
    "node": "ps2",
    "kind": "becoming_active",
    "trigger": "take_over",
    "code": "TAKE_OVER",
    "reason": "ps1 is gone",
    "started": "2026-11-22T21:00:00.000Z",
    "seconds": 0.4125,
    "outcome": "done",
    "steps": [
        {"name": "promote", "state": "done", "at": 0.0, "seconds": 0.12, "reason": "done"},
        {"name": "manager", "state": "skipped", "at": 0.121, "seconds": None, "reason": "no command is set"},
        {"name": "replication", "state": "waiting", "at": None, "seconds": None, "reason": ""},
    ],
}


def test_timeline():
    assert failover.timeline(TRANSITION) == [
        "2026-11-22T21:00:00.000Z ps2 becoming active (take-over): done in 0.412 s",
        "  TAKE_OVER: ps1 is gone",
        "     0.000   +0.120  promote              done",
        "     0.121           manager              skipped no command is set",
        "         -           replication          waiting",
    ]
    assert failover.timeline(None) == ["No change of role is known."]
