# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kills ansible-playbook shortly after a task has begun, as a power cut of the controller would."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cut_off
type: aggregate
short_description: Kills ansible-playbook shortly after a task has begun
description:
  - Kills the controller's processes, the workers and their connections included, when a task has begun.
options:
  task:
    description: The name of the task, as the screen shows it, or a part of it; or its number in the run, counted from 1.
    env:
      - name: SWG_HA_CUT_TASK
  delay:
    description: How many seconds the task may run.
    type: float
    default: 0.2
    env:
      - name: SWG_HA_CUT_DELAY
"""

import os
import signal
import threading
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase


def descendants(root: int) -> set[int]:
    """Every process below this one, whatever session or process group it has made for itself."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The name of the program, in brackets, may hold blanks.
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            children.setdefault(int(parent), []).append(int(folder.name))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting += below
    return found


def cut() -> None:
    for pid in descendants(os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    os.kill(os.getpid(), signal.SIGKILL)


class CallbackModule(CallbackBase):
    """Counts the tasks, and cuts off the wanted one."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "cut_off"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self.number += 1
        wanted = self.get_option("task")
        if wanted == str(self.number) or (not wanted.isdecimal() and wanted in task.get_name()):
            timer = threading.Timer(self.get_option("delay"), cut)
            timer.daemon = True
            timer.start()
