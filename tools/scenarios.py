"""The Molecule scenarios: which stand on what lab, and how one run goes through them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tools.environment import ROOT, NoInterpreter, ensure, environ, link_collection, tool
from tools.recap import recap
from tools.steps import Finished, Outcome, Step, Steps, command, execute, need_lab, one, only_trouble, workspace


@dataclass(frozen=True)
class Ground:
    """What a Molecule scenario stands on: a lab of one Debian release, driven by one ansible-core."""

    release: str
    core: str
    lab: str
    scenarios: tuple[str, ...] | None = None

    def offers(self, scenario: str) -> bool:
        return self.scenarios is None or scenario in self.scenarios


GROUNDS = (
    Ground("bookworm", "2.19", "molecule"),
    Ground("trixie", "2.21", "molecule13", ("default",)),
)


def names() -> list[str]:
    """The names of the Molecule scenarios, the default one first."""
    found = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
    return sorted(found, key=lambda name: name != "default")


ACTION = re.compile(r"\[\S+ > (\w+)\] Executing")


def changes_foretold(output: str) -> list[str]:
    """The hosts for which a check after the first converge foretells a change: Molecule's own check lets that pass."""
    _, *parts = ACTION.split(output)
    actions = list(zip(parts[::2], parts[1::2], strict=True))
    first = next((number for number, (action, _) in enumerate(actions) if action == "converge"), len(actions))
    return [
        f"check after converge: {host} would change {counts.changed} time(s)"
        for action, text in actions[first:]
        if action == "check"
        for host, counts in recap(text).items()
        if counts.changed
    ]


def count_scenario(finished: Finished) -> Outcome:
    outcome = one(finished)
    foretold = changes_foretold(finished.output)
    return Outcome(failed=1, output="\n".join([finished.output, *foretold])) if foretold else outcome


def steps(wanted: Sequence[str]) -> Steps:
    """Every scenario that is wanted (none named: all), on each ground that it stands on."""
    need_lab()
    link_collection()
    for ground in GROUNDS:
        if offered := [name for name in names() if ground.offers(name) and (not wanted or name in wanted)]:
            yield from steps_on(ground, offered)


def steps_on(ground: Ground, wanted: Sequence[str]) -> Steps:
    """Create the lab once, run each scenario in it, and bring it down whatever happens."""
    try:
        venv = ensure(ground.core, "test")
    except NoInterpreter as error:
        yield Step(ground.release, partial(Outcome, skipped=len(wanted), note=str(error)))
        return
    with workspace() as folder:
        env = environ(
            venv,
            SWG_HA_LAB_NAME=ground.lab,
            SWG_HA_LAB_RELEASE=ground.release,
            # Molecule's own memory of what is created: one for each run, so that a run that was cut off confuses no other.
            MOLECULE_EPHEMERAL_DIRECTORY=str(folder),
        )
        created: list[bool] = []

        def create() -> Outcome:
            outcome = only_trouble(execute(tool(venv, "molecule", "create"), env=env, minutes=15))
            created.append(not outcome.failed)
            return outcome

        try:
            yield Step(f"create ({ground.release})", create)
            for name in wanted if created == [True] else ():
                argv = tool(venv, "molecule", "test", "--scenario-name", name, "--destroy", "never")
                yield command(f"{name} ({ground.release}, core {ground.core})", argv, env=env, minutes=20)
            yield command(f"destroy ({ground.release})", tool(venv, "molecule", "destroy"), env=env, count=only_trouble)
        finally:
            execute([str(ROOT / "bin/lab"), "--name", ground.lab, "down"], minutes=5)
