"""ansible-test wants a real folder .../ansible_collections/swg/ha, and a file from a host that may be out of reach."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from tools.environment import ROOT
from tools.steps import Finished, Outcome, StageBroken, count_reports

# What a user gets, and what ansible-test reads beside it. The build stage compares this with galaxy.yml's build_ignore.
SHIPPED = (
    "CHANGELOG.md",
    "CHANGELOG.rst",
    "LICENSE",
    "README.md",
    "changelogs",
    "docs",
    "meta",
    "playbooks",
    "plugins",
    "roles",
)
READ_BY_ANSIBLE_TEST = ("galaxy.yml", "tests/config.yml", "tests/sanity", "tests/unit/plugins")


def project_files() -> list[str]:
    """Every file of the checkout, relative to it, that git tracks or would add."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in listed.split("\0") if name and os.path.lexists(ROOT / name))


def below(names: Iterable[str], tops: Iterable[str]) -> list[str]:
    """The names that are one of the tops or stand below one."""
    folders = tuple(f"{top}/" for top in tops)
    exact = set(tops)
    return [name for name in names if name in exact or name.startswith(folders)]


def copy_collection(folder: Path) -> Path:
    """Copy the collection below the folder, as ansible-test wants it; returns its root."""
    root = folder / "ansible_collections/swg/ha"
    for name in below(project_files(), (*SHIPPED, *READ_BY_ANSIBLE_TEST)):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return root


def _find(venv: Path, module: str, pattern: str) -> str:
    """What the pattern's group matches in a file of the installed ansible-test."""
    [file] = venv.glob(f"lib/python*/site-packages/ansible_test/{module}")
    found = re.search(pattern, file.read_text())
    if found is None:
        raise StageBroken(f"{file} does not say {pattern}: this ansible-test gets its pip in another way")
    return found[1]


def provide_get_pip(venv: Path) -> None:
    """Where ansible-test cannot fetch get-pip.py, put a stand-in where it looks first."""
    version = _find(venv, "_internal/python_requirements.py", r"\bpip='([0-9.]+)'")
    address = _find(venv, "_util/target/setup/requirements.py", r"'(https://[^']*get-pip-%s\.py)'") % version
    cached = Path.home() / f".ansible/test/cache/get_pip_{version.replace('.', '_')}.py"
    if cached.exists():
        return
    try:
        with urllib.request.urlopen(address, timeout=10):
            return
    except (urllib.error.URLError, OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        new = cached.with_name(f"{cached.name}.{os.getpid()}")
        shutil.copy2(ROOT / "tools/get_pip_stand_in.py", new)
        new.replace(cached)


def count_sanity(root: Path, finished: Finished) -> Outcome:
    """Count the sanity tests. One that did not run for want of a program is a failure: ansible-test only warns of it."""
    counted = count_reports(root / "tests/output/junit")
    missing = re.findall(r"Required program \S+ not found.*", finished.output)
    failed = counted.failed + len(missing)
    if failed == 0 and (finished.status or counted.ran == 0):
        failed = 1
    return Outcome(
        counted.passed,
        failed,
        counted.skipped,
        "skipped: they have no file to look at" if counted.skipped else "",
        finished.output,
    )
