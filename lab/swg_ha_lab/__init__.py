"""The lab: a pair of policy servers, their switches and their neighbours on one Linux machine."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
TOPOLOGY = PACKAGE.parent / "topology.toml"


def connect_path() -> Path:
    """The program that ssh runs to reach a host."""
    return PACKAGE / "connect.py"
