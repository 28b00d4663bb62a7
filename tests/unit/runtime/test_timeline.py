# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import os

import pytest

from swg_ha import timeline
from swg_ha.timeline import Timeline

from .samples import hand_over, step, transition


@pytest.fixture
def path(tmp_path):
    return tmp_path / "timeline.json"


def loaded(path):
    there = Timeline(path)
    there.load()
    return there


def test_a_new_server_has_none(path):
    there = loaded(path)
    assert (there.transitions, there.problem) == ([], None)
    assert not path.exists()


def test_what_was_added_is_there_again_the_newest_first(path):
    there = loaded(path)
    there.add(transition(id="one"))
    there.add(transition(id="two"))
    again = loaded(path)
    assert again.transitions == [transition(id="two"), transition(id="one")]
    assert os.listdir(path.parent) == ["timeline.json"]


def test_an_update_keeps_the_place_and_what_it_was_given_may_change_later(path):
    there = loaded(path)
    first = transition(id="one", outcome="running")
    there.add(first)
    there.add(transition(id="two"))
    first["outcome"] = "done"
    assert there.transitions[1]["outcome"] == "running"
    there.add(first)
    assert [(one["id"], one["outcome"]) for one in loaded(path).transitions] == [("two", "done"), ("one", "done")]


def test_only_the_last_50_are_kept(path):
    there = loaded(path)
    for number in range(timeline.KEEP + 3):
        there.add(transition(id=str(number)))
    again = loaded(path)
    assert len(again.transitions) == 50
    assert (again.transitions[0]["id"], again.transitions[-1]["id"]) == ("52", "3")


def test_it_is_on_the_disk_when_add_returns(path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.readlink(f"/proc/self/fd/{descriptor}")), real(descriptor)))
    loaded(path).add(transition())
    assert synced == [str(path.parent / ".timeline.json.new"), str(path.parent)]


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[1]", b'[{"id": "x"}]', b'[{"id": "x", "steps": [{}]}]', b"\xff"])
def test_a_broken_file_is_set_aside_and_said(path, content):
    path.write_bytes(content)
    there = loaded(path)
    assert there.transitions == []
    assert str(path) in there.problem
    assert (path.parent / "timeline.json.broken").read_bytes() == content
    there.add(transition())
    assert loaded(path).problem is None


def test_seconds():
    assert timeline.seconds(transition()) == 1.9
    running = transition(
        seconds=None, steps=[step("a", at=0.0, seconds=0.5), step("b", "running", 0.5, None), step("c", "waiting", None, None)]
    )
    assert timeline.seconds(running) == 0.5
    assert timeline.seconds(transition(seconds=None, steps=[])) == 0


def test_a_take_over_is_an_outage_until_the_address_is_there():
    assert timeline.outage(transition()) == 0.22


def test_without_a_virtual_ip_an_outage_ends_with_the_databases():
    steps = [step("epoch", at=0.2, seconds=0.01), step("address", "skipped", 0.21, 0.0, "the pair has no virtual IP")]
    assert timeline.outage(transition(steps=steps)) == 0.21


def test_a_hand_over_is_an_outage_from_the_release_to_the_other_servers_word():
    assert timeline.outage(hand_over()) == 0.41


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [
            step("promote", "failed"),
            step("epoch", "skipped", 0.1, 0.0, "promote failed"),
            step("address", "skipped", 0.1, 0.0, "promote failed"),
        ],
        [step("epoch"), step("address", "failed", 0.2, 10.0)],
        [step("epoch"), step("address", "running", 0.2, None)],
    ],
)
def test_an_outage_that_has_not_ended_has_no_length(steps):
    assert timeline.outage(transition(steps=steps)) is None


@pytest.mark.parametrize("name, state", [("hand_over", "failed"), ("release_address", "waiting")])
def test_a_hand_over_that_failed_has_no_length_either(name, state):
    there = hand_over()
    for one in there["steps"]:
        if one["name"] == name:
            one.update(state=state, at=None if state == "waiting" else one["at"])
    assert timeline.outage(there) is None


def test_a_fence_has_no_outage_that_this_server_could_know():
    assert timeline.outage(hand_over(steps=[step("release_address"), step("stop_database", at=0.1)])) is None


def test_show():
    assert timeline.show(transition(resumed=2)).splitlines() == [
        "2026-01-31 21:55:33 UTC  ps2 becoming active (take_over): done after 1.900 s",
        "  TAKE_OVER: ps1 has not been heard for 1.1 s, and Heartbeat gave its resources",
        "  to this server",
        "  no writes for 0.220 s of it",
        "  cut off and carried on: 2 times",
        "  claim         0.000    0.020 s #",
        "  promote       0.020    0.180 s #####",
        "  epoch         0.200    0.010 s     #",
        "  address       0.210    0.010 s      #",
        "  conf_ready  skipped: /opt/finjan/configuration/conf_ready is not there",
        "  manager       0.220    1.680 s      #########################################",
        "                                 failed: manager-ctl exited with 1:  [31mno",
        "                                 such role",
    ]


def test_show_while_it_runs():
    shown = timeline.show(
        transition(
            ended=None,
            seconds=None,
            outcome="running",
            steps=[step("claim"), step("promote", "running", 0.1, None), step("x", "waiting", None, None)],
        )
    )
    assert shown.splitlines()[0].endswith("ps2 becoming active (take_over): running")
    assert shown.splitlines()[-3:] == [
        "  promote    0.100            " + " " * 48 + "#",
        "                              running",
        "  x        waiting",
    ]


def test_no_line_is_wider_than_a_screen_and_nothing_commands_the_terminal():
    long = transition(
        reason="\x1b]0;x\x07" + "x" * 300, steps=[step("a" * 20, "failed", 0.0, 100000.0, "y" * 200), step("b", at=99999.9, seconds=0.1)]
    )
    shown = timeline.show(long)
    assert max(map(len, shown.splitlines())) <= 79
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


def test_a_file_from_another_version_is_shown_too(path):
    path.write_text(json.dumps([{"id": "x", "steps": [{"name": "promote"}]}]))
    assert "promote" in timeline.show(loaded(path).transitions[0])


def test_a_change_of_role_is_told_from_its_begin_to_when_it_is_kept(path):
    there = loaded(path)
    there.add(transition(id="one"))
    current = transition(id="two", outcome="running")
    assert there.told(current) == [current, transition(id="one")]
    current["outcome"] = "done"
    # The disk takes its time.
    assert there.told(current) == [current, transition(id="one")]
    there.add(current)
    assert there.told(current) == there.told(None) == [current, transition(id="one")]
