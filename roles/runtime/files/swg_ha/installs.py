# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What is still to be installed of what the other server left here, and what could not be: on the disk, for a power cut.

Only a server that takes over from the other one installs. Who was active last has the newest files itself: what is staged there is
from the time before, and must not go over them, however often it boots.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from .record import Record
from .shared import durable

STEPS = frozenset({"conf_ready", "staged_files"})
NOT_INSTALLED = "STAGED_NOT_INSTALLED"
Problem = tuple[str, str]


def others_are_newer(before: Record | None, node: str, *, forced: bool) -> bool:
    """Whether the other server was active last, by the record from before this one claimed to be. A record of nobody says nothing."""
    if before is None:
        return forced
    # One that was given names who is to take it, and it was the other one who gave it.
    return (before.active == node) == before.given


class Installs:
    """due: the steps whose work is not done. problems: what the last installation refused or left out, as (code, text)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.due: frozenset[str] = frozenset()
        self.problems: tuple[Problem, ...] = ()
        self.problem: str | None = None
        self._lock = threading.Lock()

    def load(self) -> None:
        """Read it. What cannot be read says so in ``problem``, and nothing is due."""
        try:
            said = json.loads(self.path.read_bytes())
            self.due = frozenset(said["due"]) & STEPS
            self.problems = tuple((str(code), str(text)) for code, text in said["problems"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.problem = f"{self.path} cannot be used ({error}): what was staged is installed at the next takeover"

    def begin(self) -> None:
        """Everything is due from now on, on the disk; without room for it in this process alone."""
        with self._lock:
            if self.due != STEPS:
                self.due = STEPS
                self._write()

    def done(self, step: str, problems: Iterable[Problem] = ()) -> None:
        """A step has done its work, with these problems of staged files. Those of an earlier installation are over."""
        with self._lock:
            self.due -= {step}
            if step == "staged_files":
                self.problems = tuple(problems)
            self._write()

    def failed(self, step: str, why: str) -> None:
        """A step has come to nothing. What was staged for it grows old from now on: to install it at a later boot would do harm."""
        with self._lock:
            self.due -= {step}
            self.problems = (*self.problems, (NOT_INSTALLED, why))
            self._write()

    def acknowledge(self) -> None:
        """An operator has seen to the problems."""
        with self._lock:
            self.problems = ()
            self._write()

    def _write(self) -> None:
        content = json.dumps({"due": sorted(self.due), "problems": self.problems}, indent=1) + "\n"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.replace(str(self.path), content.encode(errors="replace"), lambda new: os.chmod(new, 0o600))
            self.problem = None
        except OSError as error:
            self.problem = f"{self.path} cannot be written: {error.strerror}"
