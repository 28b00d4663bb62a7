# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ha_manager that is killed, at rest and after each step of each transition."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.invariants import timeline, watched
from tests.faults.rig import Pair, pause
from tests.faults.test_network import UNNOTICED

fault = pytest.mark.fault
DROP_IN = "/etc/systemd/system/ha_manager.service.d/swg_probe.conf"


@fault("F27", normal=True)
@pytest.mark.parametrize("whose", ["active", "passive"])
def test_ha_manager_is_killed(pair: Pair, whose: str) -> None:
    """It is started again and finds everything as it was."""
    active, host = pair.active, getattr(pair, whose)
    begun = {server: len(timeline(pair, server)) for server in (pair.active, pair.passive)}
    with watched(pair) as watch:
        killed = time.monotonic()
        pair.lab.sh(host, "systemctl kill --kill-whom=main --signal=KILL ha_manager")
        pause(3)
    assert watch.story.longest_gap(killed) < UNNOTICED
    assert watch.story.servers() == [active]
    assert {server: len(timeline(pair, server)) for server in begun} == begun


@fault("G08")
def test_ha_manager_of_the_active_stays_dead(pair: Pair) -> None:
    """Nobody watches the database then: whoever serves, it is one, and the pair heals when it is back."""
    active = pair.active
    with watched(pair, redundant_within=60) as watch:
        stopped = time.monotonic()
        pair.lab.sh(active, "systemctl kill --kill-whom=main --signal=STOP ha_manager")
        pause(pair.deadtime + 8)
        pair.lab.try_run("exec", active, "--", "systemctl", "kill", "--kill-whom=main", "--signal=CONT", "ha_manager")
        watch.probe.resumes(20, "when it goes on")
    assert watch.story.longest_gap(stopped) < pair.deadtime + 8


# What makes a transition, and on which server it is, before and after it.


def cut_power(pair: Pair) -> None:
    pair.lab("power", "off", pair.active)


def hand_over(pair: Pair) -> None:
    # The one that is killed cannot answer its caller.
    pair.ha(pair.active, "failover", timeout=90)


def come_back(pair: Pair) -> None:
    pair.lab("power", "off", pair.active)
    pair.wait_role(pair.passive, "active", 60)
    pair.lab("power", "on", pair.active)


TRANSITIONS: dict[str, tuple[Callable[[Pair], None], str, str]] = {
    "take_over": (cut_power, "passive", "becoming_active"),
    "planned_active": (hand_over, "passive", "becoming_active"),
    "planned_passive": (hand_over, "active", "becoming_passive"),
    "return": (come_back, "active", "becoming_passive"),
}


def last_steps(pair: Pair, host: str, kind: str) -> list[str]:
    """The steps that the newest transition of the kind has really done, in their order."""
    found: list[dict[str, Any]] = [transition for transition in timeline(pair, host) if transition["kind"] == kind]
    if not found:
        return []
    done = [step for step in found[0]["steps"] if step["state"] == "done"]
    return [step["name"] for step in sorted(done, key=lambda step: step["at"] or 0.0)]


@contextlib.contextmanager
def killed_after(pair: Pair, host: str, step: str) -> Iterator[None]:
    """Have ha_manager of the host kill itself once, right after the step's end is in its journal."""
    # What is still under way is carried on after the restart, and would be what is killed.
    pair.wait_status(host, lambda status: status["transition"] is None, 60, "nothing is under way")
    restart = "systemctl daemon-reload; systemctl restart ha_manager"
    pair.lab.sh(host, f"rm -f /run/ha_manager/killed_after.*; install -D /dev/stdin {DROP_IN}; {restart}", input=drop_in(step))
    try:
        pair.wait_redundant(60)
        yield
    finally:
        pair.lab.sh(host, f"rm {DROP_IN}; {restart}")


def drop_in(step: str) -> str:
    return f'[Service]\nEnvironment="SWG_HA_KILL_AFTER={step}"\n'


def kill_during(pair: Pair, name: str, choose: Callable[[list[str]], list[str]]) -> None:
    make, whose, kind = TRANSITIONS[name]
    host = getattr(pair, whose)
    with watched(pair) as watch:
        make(pair)
        # Not before the role has changed: a server that is quick to boot would keep it.
        watch.probe.resumes(40, "after it")
        pair.lab("heal")
        pair.wait_redundant(60)
    steps = last_steps(pair, host, kind)
    assert steps, f"{host} has no steps of {kind} in its timeline"
    failed = []
    for step in choose(steps):
        host = getattr(pair, whose)
        try:
            with watched(pair, redundant_within=60) as watch, killed_after(pair, host, step):
                begin = time.monotonic()
                make(pair)
                watch.probe.resumes(40, f"although ha_manager was killed after {step}")
                pair.lab("heal")
                pair.wait_redundant(60)
                assert pair.lab.sh(host, "ls /run/ha_manager").count(f"killed_after.{step}"), f"{host}: it was not killed after {step}"
            # Killed once, it goes on within two seconds more than it would have needed.
            assert watch.story.longest_gap(begin) < pair.deadtime + 4.5
        except AssertionError as error:
            failed.append(f"{name}, killed after {step}: {error}")
            pair.settle(90)
    assert not failed, "\n\n".join(failed)


@fault("F28")
@pytest.mark.parametrize("name", TRANSITIONS)
def test_ha_manager_is_killed_after_every_step(pair: Pair, name: str) -> None:
    """Each transition is carried on from where it was: one active server with all data."""
    kill_during(pair, name, lambda steps: steps)


@fault("G09", normal=True)
def test_ha_manager_is_killed_right_after_the_promotion(pair: Pair) -> None:
    """The worst of F28's moments."""

    def promotion(steps: list[str]) -> list[str]:
        return [step for step in steps if "promote" in step][:1] or steps[:1]

    kill_during(pair, "take_over", promotion)
