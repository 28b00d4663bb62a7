"""The recap at the end of ansible-playbook's output."""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE = re.compile(r"^(\S+) +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+) ", re.MULTILINE)


class Counts(NamedTuple):
    ok: int
    changed: int
    unreachable: int
    failed: int


def recap(output: str) -> dict[str, Counts]:
    """What every host counted; empty when Ansible did not come so far."""
    _, _, end = output.rpartition("PLAY RECAP ")
    return {host: Counts(*map(int, counts)) for host, *counts in _LINE.findall(end)}
