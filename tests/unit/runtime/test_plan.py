# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The step graph: order, failure, and being carried on from wherever it was cut off."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from swg_ha.plan import DONE, FAILED, SKIPPED, Journal, Plan, Skip, Step, StepFailed, begin, problems
from swg_ha.steps import graphs

World = list[str]


def step(name: str, *needs: str, essential: bool = False, raises: Exception | None = None, timeout: float = 5) -> Step[World]:
    async def run(world: World) -> str:
        world.append(f"{name} begins")
        await asyncio.sleep(0.01)
        if raises:
            raise raises
        world.append(f"{name} ends")
        return f"{name} was done"

    return Step(name, run, needs=needs, essential=essential, timeout=timeout)


def transition_of(*steps: Step[World]) -> dict[str, Any]:
    return begin(node="ps1", kind="becoming_active", trigger="boot", code="X", reason="x", counter=1, steps=steps)


def run(tmp_path: Path, *steps: Step[World]) -> tuple[bool, World, dict[str, Any]]:
    world: World = []
    transition = transition_of(*steps)

    async def go() -> bool:
        return await Plan(steps, transition, Journal(tmp_path / "journal.json"), lambda: None).run(world)

    return asyncio.run(go()), world, transition


def states(transition: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["state"] for one in transition["steps"]}


def test_steps_wait_for_what_they_need_and_for_nothing_else(tmp_path: Path) -> None:
    good, world, transition = run(tmp_path, step("a"), step("b"), step("c", "a", "b"))
    assert good
    assert set(world[:2]) == {"a begins", "b begins"}
    assert world[-2:] == ["c begins", "c ends"]
    assert transition["outcome"] == "done"
    assert transition["steps"][2]["at"] >= 0.01
    assert transition["steps"][2]["reason"] == "c was done"


def test_a_step_that_is_not_essential_may_fail(tmp_path: Path) -> None:
    good, world, transition = run(tmp_path, step("a", raises=StepFailed("no luck")), step("b", "a"))
    assert good
    assert states(transition) == {"a": FAILED, "b": DONE}
    assert transition["steps"][0]["reason"] == "no luck"
    assert "b ends" in world


def test_nothing_begins_after_an_essential_step_has_failed(tmp_path: Path) -> None:
    good, world, transition = run(tmp_path, step("a", essential=True, raises=OSError("disk")), step("b", "a"), step("c", "b"))
    assert not good
    assert transition["outcome"] == "failed"
    assert states(transition) == {"a": FAILED, "b": SKIPPED, "c": SKIPPED}
    assert world == ["a begins"]


def test_what_was_not_begun_after_a_failure_is_not_reached(tmp_path: Path) -> None:
    steps = (step("a", essential=True, raises=StepFailed("no")), step("b", "a"), step("c", raises=Skip("nothing to do")))

    async def go() -> list[bool]:
        plan = Plan(steps, transition_of(*steps), Journal(tmp_path / "journal.json"), lambda: None)
        running = asyncio.create_task(plan.run([]))
        found = [await plan.reached(name) for name in ("a", "b", "c")]
        await running
        return found

    assert asyncio.run(go()) == [False, False, True]


def test_a_skipped_step_holds_nobody_up(tmp_path: Path) -> None:
    good, _, transition = run(tmp_path, step("a", essential=True, raises=Skip("nothing there")), step("b", "a"))
    assert good
    assert states(transition) == {"a": SKIPPED, "b": DONE}


def test_a_step_ends_in_time(tmp_path: Path) -> None:
    async def hang(world: World) -> str:
        await asyncio.sleep(60)
        return ""

    good, _, transition = run(tmp_path, Step("a", hang, essential=True, timeout=0.05))
    assert not good
    assert "within 0.05 s" in transition["steps"][0]["reason"]


def test_the_journal_tells_of_a_transition_until_it_has_ended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.json")
    assert journal.load() is None

    async def cut_off() -> None:
        async def hang(world: World) -> str:
            await asyncio.sleep(60)
            return ""

        steps = (step("a"), Step("b", hang, needs=("a",)))
        plan = Plan(steps, transition_of(*steps), journal, lambda: None)
        running = asyncio.create_task(plan.run([]))
        assert await plan.reached("a")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cut_off())
    unfinished = journal.load()
    assert unfinished is not None
    assert states(unfinished)["a"] == DONE
    run(tmp_path, step("a"))
    assert journal.load() is None


@pytest.mark.parametrize("said", ["", "[]", '{"outcome": "done"}', "{"])
def test_a_journal_that_cannot_be_read_tells_of_nothing(tmp_path: Path, said: str) -> None:
    path = tmp_path / "journal.json"
    path.write_text(said)
    assert Journal(path).load() is None


@pytest.mark.parametrize("name", ["BECOME_ACTIVE", "FENCE", "HAND_OVER", "PLANNED", "ABANDON"])
def test_the_graphs_are_sound(name: str) -> None:
    assert list(problems(getattr(graphs, name))) == []


def test_what_is_wrong_with_a_graph_is_told() -> None:
    assert list(problems([step("a", "b"), step("b"), step("b")])) == ["a needs b, which does not come before it", "b is there twice"]


def test_no_address_without_a_database_that_takes_writes_and_a_record_of_who_serves() -> None:
    needs = {one.name: one.needs for one in graphs.BECOME_ACTIVE}

    def before(name: str) -> set[str]:
        return set(needs[name]).union(*(before(need) for need in needs[name]))

    assert before("address") >= {"claim", "promote", "catch_up"}
    assert before("manager") >= {"promote", "conf_ready", "staged_files"}
    assert before("full_replicate") >= {"active_request_cli", "policy_server", "manager"}
    handing_over = {one.name: one.needs for one in graphs.HAND_OVER}
    assert handing_over["hand_over"] == ("stop_database",)
    assert handing_over["stop_database"] == ("release_address",)
    assert handing_over["release_address"] == ("stream",)
    planned = {one.name: one.needs for one in graphs.PLANNED}
    assert planned == handing_over | {"release_address": ("stream", "files")}
