"""Running the collection's playbooks on a lab, and reading what they say of themselves."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.bench import NotMeasured
from tools.environment import environ, tool
from tools.recap import recap
from tools.steps import execute


@dataclass(frozen=True)
class Played:
    """One run of a playbook; ``seconds`` is the wall time of the whole command."""

    status: int
    seconds: float
    output: str


def changed(output: str) -> int:
    """The changes of all hosts; NotMeasured without a recap."""
    counted = recap(output)
    if not counted:
        raise NotMeasured("Ansible's output has no recap")
    return sum(host.changed for host in counted.values())


def results(output: str, action: str) -> dict[str, dict[str, Any]]:
    """{host: result} of the last task with this action, from the output of the callback ansible.posix.json."""
    found: dict[str, dict[str, Any]] = {}
    begin = re.search(r"^\{$", output, re.MULTILINE)
    if begin is None:
        raise NotMeasured("Ansible's output holds no JSON")
    # Ansible's warnings may stand before it and after it.
    report, _ = json.JSONDecoder().raw_decode(output, begin.start())
    for task in (task for play in report["plays"] for task in play["tasks"]):
        for host, result in task["hosts"].items():
            if result.get("action") == action and not result.get("skipped"):
                found[host] = result
    return found


class Controller:
    """`ansible-playbook` of one virtual environment on the inventory of one lab; ``logs`` keeps the output of each run."""

    def __init__(self, venv: Path, inventory: str, logs: Path) -> None:
        self._venv = venv
        self._inventory = inventory
        self._logs = logs
        self._runs = 0

    def play(self, playbook: str | Path, *arguments: str, minutes: float = 15, env: Mapping[str, str] | None = None) -> Played:
        began = time.monotonic()
        argv = tool(self._venv, "ansible-playbook", "--inventory", self._inventory, playbook, *arguments)
        finished = execute(argv, env=environ(self._venv, **(env or {})), minutes=minutes)
        seconds = time.monotonic() - began
        self._runs += 1
        self._log.write_text(finished.output)
        return Played(finished.status, seconds, finished.output)

    @property
    def _log(self) -> Path:
        return self._logs / f"ansible-{self._runs:02}.log"

    def must_play(self, playbook: str | Path, *arguments: str, minutes: float = 15, env: Mapping[str, str] | None = None) -> Played:
        """The same; NotMeasured when it fails."""
        played = self.play(playbook, *arguments, minutes=minutes, env=env)
        if played.status:
            raise NotMeasured(f"{Path(playbook).name} {' '.join(arguments)} failed with {played.status}: see {self._log}")
        return played
