"""Processes: run one, and know one again without trusting its number alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError


@dataclass(frozen=True)
class Process:
    """A process by number and start time (clock ticks since boot), so that a number in use again is not mistaken for it."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this number now, or None. A zombie counts as ended."""
        try:
            state, start = parse_stat(Path(f"/proc/{pid}/stat").read_text())
        except (OSError, ValueError):
            return None
        return None if state in "ZX" else cls(pid, start)

    @classmethod
    def from_record(cls, record: object) -> Process | None:
        """Read `{"pid": int, "start": int}`; None for anything else."""
        match record:
            case {"pid": int(pid), "start": int(start)} if pid > 1:
                return cls(pid, start)
        return None

    def record(self) -> dict[str, int]:
        return {"pid": self.pid, "start": self.start}

    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to this very process; nothing happens when it has ended."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive():
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)


def parse_stat(text: str) -> tuple[str, int]:
    """State letter and start time from the text of /proc/PID/stat (the name in it may hold anything, brackets included)."""
    fields = text[text.rindex(")") + 1 :].split()
    return fields[0], int(fields[19])


def run(
    argv: Sequence[str],
    *,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    what: str = "",
    timeout: float = 60,
) -> str:
    """Run a command and return its standard output; LabError when it cannot be run, fails or takes too long."""
    name = what or argv[0]
    try:
        done = subprocess.run(
            argv,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed: run 'bin/lab requirements --install'") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{name}: no end after {timeout:g} s") from None
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise LabError(f"{name}: exit status {done.returncode}: {lines[-1]}", "\n".join(lines[:-1]))
    return done.stdout


def wait_for(condition: Callable[[], bool], seconds: float, interval: float = 0.02) -> bool:
    """Poll until the condition holds; False when the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(interval)
    return True
