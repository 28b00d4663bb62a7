"""The stages of bin/test, and what each is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools import ansible_test, package, scenarios
from tools.environment import PYTHONS, ROOT, NoInterpreter, ensure, environ, link_collection, tool
from tools.steps import Outcome, Step, Steps, check, command, need, need_lab, reports, workspace


@dataclass(frozen=True)
class Stage:
    """A part of the run: the names that narrow it down are those listed, or None for whatever pytest understands."""

    summary: str
    steps: Callable[[Sequence[str]], Steps]
    names: Callable[[], Sequence[str]] | None


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


LINTERS = {
    "ansible-lint": ["ansible-lint", "--offline"],
    "yamllint": ["yamllint", "--strict", "."],
    "ruff": ["ruff", "check"],
    "ruff-format": ["ruff", "format", "--check", "--diff"],
    "mypy": ["mypy"],
    "shellcheck": ["shellcheck"],
    "antsibull-changelog": ["antsibull-changelog", "lint"],
    "antsibull-docs": ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "."],
    "docs": ["python", "-m", "tools.reference", "--check"],
}


def lint(names: Sequence[str]) -> Steps:
    need("shellcheck")
    link_collection()
    env = environ(ensure("2.19", "test"))
    for name, argv in LINTERS.items():
        if chosen(names, name):
            yield command(name, [*argv, *shell_scripts()] if name == "shellcheck" else argv, env=env)


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
    need("iproute2")
    for found in each_core(names):
        if isinstance(found, Step):
            yield found
            continue
        core, venv = found
        with workspace() as folder:
            root = ansible_test.copy_collection(folder)
            argv = tool(venv, "ansible-test", "units", "--color", "no", "--python", python_version(venv))
            yield command(core, argv, cwd=root, env=environ(venv), count=reports(root / "tests/output/junit"))


def pytest_step(venv: Path, name: str, arguments: Iterable[str | Path], folder: Path, minutes: float = 30.0) -> Step:
    report = folder / "reports"
    argv = tool(venv, "pytest", f"--junit-xml={report / 'pytest.xml'}", *arguments)
    return command(name, argv, env=environ(venv), minutes=minutes, count=reports(report))


# The folders of tests/ that need the lab, each a stage of its own, with the minutes that a run of it may take, and one of all its tests.
LIVE = {"lab": (30.0, 30.0), "system": (60.0, 180.0), "faults": (40.0, 240.0)}
ALL = "all"


def test_folders() -> list[str]:
    """The folders right below tests/ that hold tests."""
    found = (Path(name).parts for name in ansible_test.project_files() if re.fullmatch(r"tests/.*/test_[^/]*\.py", name))
    return sorted({parts[1] for parts in found})


def need_postgresql() -> None:
    """Have PostgreSQL's programs, without the cluster that Debian's package makes and starts unless it is told not to."""
    if any(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        return
    need("postgresql-common")
    no_cluster = Path("/etc/postgresql-common/createcluster.d/swg-ha-tests.conf")
    no_cluster.parent.mkdir(exist_ok=True)
    no_cluster.write_text("create_main_cluster = false\n")
    try:
        need("postgresql")
    finally:
        no_cluster.unlink()


# What has nothing in common with its neighbours, on this machine either.
PARALLEL = ("tests/postgres", "tests/property", "tests/unit")


def pytest(names: Sequence[str]) -> Steps:
    need("iproute2", "rsync")
    need_postgresql()
    link_collection()
    venv = ensure("2.19", "test")
    for name in names or [f"tests/{folder}" for folder in test_folders() if folder not in LIVE]:
        with workspace() as folder:
            workers = ["--numprocesses=auto"] if name.startswith(PARALLEL) else []
            yield pytest_step(venv, name, ["--ignore=tests/unit/plugins", *workers, name], folder)


def live(kind: str, names: Sequence[str]) -> Steps:
    """The normal run of a folder; all of it, or of what is named, with whatever takes long."""
    need_lab()
    link_collection()
    venv = ensure("2.19", "test")
    named = [name for name in names if name != ALL]
    with workspace() as folder:
        arguments = [*(["--long"] if names and kind == "system" else []), *(named or [f"tests/{kind}"])]
        yield pytest_step(venv, f"tests/{kind}", arguments, folder, LIVE[kind][bool(names)])


def faults(names: Sequence[str]) -> Steps:
    """Cases by their ids, each with as many minutes as it could need; `all` for every one."""
    need_lab()
    link_collection()
    venv = ensure("2.19", "test")
    normal, whole = LIVE["faults"]
    choice = ["--all-faults"] if ALL in names else [f"--faults={','.join(names)}"] if names else []
    minutes = whole if ALL in names else normal + 10.0 * len(names)
    with workspace() as folder:
        yield pytest_step(venv, "tests/faults", [*choice, "tests/faults"], folder, minutes)


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
        argv = tool(venv, "ansible-doc", "--metadata-dump", "swg.ha")
        yield command("ansible-doc", argv, env=env, cwd=folder, count=partial(package.undocumented, installed))
        for playbook in package.playbooks(installed):
            argv = tool(venv, "ansible-playbook", "--syntax-check", "--inventory", "localhost,", playbook)
            yield command(playbook, argv, env=env, cwd=folder)


# The order of a whole run: what is quick to fail comes first.
STAGES = {
    "lint": Stage("ansible-lint, yamllint, ruff, mypy, shellcheck, changelog, documentation", lint, lambda: [*LINTERS]),
    "sanity": Stage("ansible-test sanity", sanity, lambda: [*PYTHONS]),
    "units": Stage("ansible-test units", units, lambda: [*PYTHONS]),
    "pytest": Stage("the tests that need no lab", pytest, None),
    "build": Stage("the collection built, installed, its documentation shown, its playbooks parsed", build, list),
    "lab": Stage("the lab itself, live (root)", partial(live, "lab"), None),
    "molecule": Stage("the Molecule scenarios in the lab (root)", scenarios.steps, scenarios.names),
    "faults": Stage("faults injected into a pair in the lab, by their ids, or all (root)", faults, None),
    "system": Stage(
        "the playbooks in the lab, cut off and in every order, or all with what takes long (root)", partial(live, "system"), None
    ),
}
