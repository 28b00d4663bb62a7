"""What the built collection must hold."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

from tools.ansible_test import SHIPPED, below, project_files
from tools.steps import Finished, Outcome

MADE_BY_GALAXY = {"MANIFEST.json", "FILES.json"}


def problems(tarball: Path) -> list[str]:
    """What is in the tarball and should not be, and what should be and is not."""
    with tarfile.open(tarball) as archive:
        packed = {member.name for member in archive if not member.isdir()} - MADE_BY_GALAXY
    expected = set(below(project_files(), SHIPPED))
    return [
        *(
            f"{name}: in the tarball, though it is no file of the collection: see build_ignore in galaxy.yml"
            for name in sorted(packed - expected)
        ),
        *(f"{name}: not in the tarball: see build_ignore in galaxy.yml" for name in sorted(expected - packed)),
    ]


def _names(folder: Path, pattern: str) -> list[str]:
    return [f"swg.ha.{path.stem}" for path in sorted(folder.glob(pattern)) if not path.name.startswith("_")]


def undocumented(collection: Path, finished: Finished) -> Outcome:
    """Judge what ansible-doc shows of everything in the collection: each module and each role must be in it."""
    start = re.search(r"^\{", finished.output, re.MULTILINE)
    if finished.status or start is None:
        return Outcome(failed=1, output=finished.output)
    # Warnings may stand before and after it.
    shown = json.JSONDecoder().raw_decode(finished.output, start.start())[0]["all"]
    expected = {"module": _names(collection / "plugins/modules", "*.py"), "role": _names(collection / "roles", "*")}
    lost = [f"{kind} {name}: ansible-doc shows nothing" for kind, names in expected.items() for name in names if name not in shown[kind]]
    return Outcome(failed=1, output="\n".join(lost)) if lost else Outcome(passed=1)


def playbooks(collection: Path) -> list[str]:
    return _names(collection / "playbooks", "*.yml")
