"""The stages of bin/test, and what each is made of."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools import ansible_test, package
from tools.environment import PYTHONS, ROOT, NoInterpreter, ensure, link_collection
from tools.steps import Outcome, StageBroken, Step, check, command, execute, only_trouble, reports

Steps = Generator[Step, None, None]


@dataclass(frozen=True)
class Stage:
    summary: str
    steps: Callable[[Sequence[str]], Steps]


def environ(venv: Path, **more: str) -> dict[str, str]:
    """The environment of a tool: the venv's programs first, nothing of the caller's own Ansible settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_", "PYTEST_"))}
    return kept | {"PATH": f"{venv / 'bin'}:{kept['PATH']}", "NO_COLOR": "1"} | more


def tool(venv: Path, program: str, *arguments: str | Path) -> list[str]:
    """The command line of a program of the environment."""
    return [str(venv / "bin" / program), *map(str, arguments)]


def need(*packages: str) -> None:
    """Have the Debian packages installed."""
    done = execute([str(ROOT / "bin/need"), *packages], minutes=15)
    if done.status:
        raise StageBroken(done.output)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="swg-ha-test-") as folder:
        yield Path(folder)


def chosen(names: Sequence[str], name: str) -> bool:
    return not names or name in names


def each_core(names: Sequence[str]) -> Iterator[tuple[str, Path] | Step]:
    """Each ansible-core series with its environment; a skipped step where this machine has no Python for it."""
    for core in PYTHONS:
        if chosen(names, core):
            try:
                yield core, ensure(core, "test")
            except NoInterpreter as error:
                yield Step(core, partial(Outcome, skipped=1, note=str(error)))


def shell_scripts() -> list[str]:
    """The project's files whose first line names a shell."""

    def is_script(name: str) -> bool:
        path = ROOT / name
        if path.is_symlink() or not path.is_file():
            return False
        with path.open("rb") as file:
            return file.readline(64).rstrip() in {b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash"}

    return [name for name in ansible_test.project_files() if is_script(name)]


def lint(names: Sequence[str]) -> Steps:
    need("shellcheck")
    link_collection()
    venv = ensure("2.19", "test")
    tools = {
        "ansible-lint": ["ansible-lint", "--offline"],
        "yamllint": ["yamllint", "--strict", "."],
        "ruff": ["ruff", "check"],
        "ruff-format": ["ruff", "format", "--check", "--diff"],
        "mypy": ["mypy"],
        "shellcheck": ["shellcheck", *shell_scripts()],
        "antsibull-changelog": ["antsibull-changelog", "lint"],
        "antsibull-docs": ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "."],
        "docs": ["python", "-m", "tools.reference", "--check"],
    }
    env = environ(venv)
    for name, (program, *arguments) in tools.items():
        if chosen(names, name):
            yield command(name, [program, *arguments], env=env)


def sanity(names: Sequence[str]) -> Steps:
    need("shellcheck")
    for found in each_core(names):
        if isinstance(found, Step):
            yield found
            continue
        core, venv = found
        ansible_test.provide_get_pip(venv)
        with workspace() as folder:
            root = ansible_test.copy_collection(folder)
            argv = tool(venv, "ansible-test", "sanity", "--color", "no", "--junit", "--python", python_version(venv))
            yield command(core, argv, cwd=root, env=environ(venv), minutes=15, count=partial(ansible_test.count_sanity, root))


def python_version(venv: Path) -> str:
    """The venv's Python as ansible-test names it, such as 3.11."""
    [folder] = venv.glob("lib/python*")
    return folder.name.removeprefix("python")


def units(names: Sequence[str]) -> Steps:
    for found in each_core(names):
        if isinstance(found, Step):
            yield found
            continue
        core, venv = found
        with workspace() as folder:
            root = ansible_test.copy_collection(folder)
            argv = tool(venv, "ansible-test", "units", "--color", "no", "--python", python_version(venv))
            yield command(core, argv, cwd=root, env=environ(venv), count=reports(root / "tests/output/junit"))


def pytest_step(venv: Path, name: str, arguments: Iterable[str | Path], folder: Path, minutes: float = 15) -> Step:
    report = folder / "reports"
    argv = tool(venv, "pytest", f"--junit-xml={report / 'pytest.xml'}", *arguments)
    return command(name, argv, env=environ(venv), minutes=minutes, count=reports(report))


# Folders of tests/ that have a stage of their own, or hold no tests.
ELSEWHERE = {"lab", "sanity", "output"}


def pytest(names: Sequence[str]) -> Steps:
    need("postgresql")
    link_collection()
    venv = ensure("2.19", "test")
    folders = sorted({Path(name).parts[1] for name in ansible_test.project_files() if name.startswith("tests/") and name.endswith(".py")})
    for name in names or [f"tests/{folder}" for folder in folders if folder not in ELSEWHERE]:
        with workspace() as folder:
            yield pytest_step(venv, name, ["--ignore=tests/unit/plugins", name], folder)


def lab(names: Sequence[str]) -> Steps:
    venv = ensure("2.19", "test")
    with workspace() as folder:
        yield pytest_step(venv, "tests/lab", names or ["tests/lab"], folder, minutes=20)


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


def scenarios() -> list[str]:
    """The names of the Molecule scenarios, the default one first."""
    found = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
    return sorted(found, key=lambda name: name != "default")


def molecule(names: Sequence[str]) -> Steps:
    link_collection()
    for ground in GROUNDS:
        wanted = [name for name in scenarios() if ground.offers(name) and chosen(names, name)]
        if wanted:
            yield from molecule_on(ground, wanted)


def molecule_on(ground: Ground, wanted: Sequence[str]) -> Steps:
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
            subprocess.run([ROOT / "bin/lab", "--name", ground.lab, "down"], stdin=subprocess.DEVNULL, capture_output=True)


def build(names: Sequence[str]) -> Steps:
    venv = ensure("2.19", "test")
    with workspace() as folder:
        env = environ(venv, ANSIBLE_COLLECTIONS_PATH=str(folder))
        yield command("build", tool(venv, "ansible-galaxy", "collection", "build", "--output-path", folder, ROOT), env=env, cwd=folder)
        tarball = next(folder.glob("swg-ha-*.tar.gz"), None)
        if tarball is None:
            return
        yield check("contents", partial(package.problems, tarball))
        argv = tool(venv, "ansible-galaxy", "collection", "install", "--offline", "--no-deps", "--collections-path", folder, tarball)
        yield command("install", argv, env=env, cwd=folder)
        installed = folder / "ansible_collections/swg/ha"
        for kind, objects in package.documented(installed).items():
            yield command(f"ansible-doc {kind}s", tool(venv, "ansible-doc", "--type", kind, *objects), env=env, cwd=folder)
        for playbook in package.playbooks(installed):
            argv = tool(venv, "ansible-playbook", "--syntax-check", "--inventory", "localhost,", playbook)
            yield command(playbook, argv, env=env, cwd=folder)


# The order of a whole run: what is quick to fail comes first.
STAGES = {
    "lint": Stage("ansible-lint, yamllint, ruff, mypy, shellcheck, changelog, documentation; names: the tools", lint),
    "sanity": Stage("ansible-test sanity; names: 2.19, 2.21", sanity),
    "units": Stage("ansible-test units; names: 2.19, 2.21", units),
    "pytest": Stage("the tests that need no lab; names: folders, files or tests", pytest),
    "build": Stage("the collection built, installed, its documentation shown, its playbooks parsed", build),
    "lab": Stage("the lab itself, live (root); names: files or tests", lab),
    "molecule": Stage("the Molecule scenarios in the lab (root); names: scenarios", molecule),
}
