"""What the built collection must hold."""

from __future__ import annotations

import tarfile
from pathlib import Path

from tools.ansible_test import SHIPPED, below, project_files

MADE_BY_GALAXY = {"MANIFEST.json", "FILES.json"}
PLUGIN_FOLDERS = {"module": "modules", "filter": "filter", "lookup": "lookup", "test": "test"}


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


def documented(collection: Path) -> dict[str, list[str]]:
    """Everything that ansible-doc must be able to show, by kind."""
    found = {kind: _names(collection / "plugins" / folder, "*.py") for kind, folder in PLUGIN_FOLDERS.items()}
    found["role"] = _names(collection / "roles", "*")
    return {kind: names for kind, names in found.items() if names}


def playbooks(collection: Path) -> list[str]:
    return _names(collection / "playbooks", "*.yml")
