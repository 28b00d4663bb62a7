# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The last transitions of this server: what was done when, kept in a file and shown to people."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .shared import durable
from .text import WIDTH, moment, plain, wrap

Transition = dict[str, Any]

PATH = Path("/var/lib/ha_manager/timeline.json")
KEEP = 50


class Timeline:
    """The transitions in the file at path, the newest first. problem says what was wrong with the file, or is None."""

    def __init__(self, path: Path = PATH) -> None:
        self.path = path
        self.transitions: list[Transition] = []
        self.problem: str | None = None
        self._adding = threading.Lock()

    def load(self) -> None:
        """Read the file. One that cannot be used is set aside, next to it, and the timeline begins anew."""
        self.transitions, self.problem = [], None
        try:
            self.transitions = parse(self.path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            aside = self.path.with_name(f"{self.path.name}.broken")
            with contextlib.suppress(OSError):
                os.replace(self.path, aside)
            self.problem = f"{self.path} could not be used ({error}): it is kept as {aside}, and the timeline begins anew"

    def add(self, transition: Mapping[str, Any]) -> None:
        """Put a transition first, or in the place of the one with its id; it is on the disk then. Raises OSError."""
        new = dict(transition)
        with self._adding:
            for place, old in enumerate(self.transitions):
                if old["id"] == new["id"]:
                    self.transitions[place] = new
                    break
            else:
                self.transitions.insert(0, new)
            del self.transitions[KEEP:]
            durable.replace(str(self.path), json.dumps(self.transitions).encode() + b"\n")

    def told(self, current: Transition | None) -> list[Transition]:
        """The newest first, with the current one, which is under way, or has ended just now and is yet to be added."""
        if current is None or any(one["id"] == current["id"] for one in self.transitions):
            return self.transitions
        return [current, *self.transitions]


def parse(data: bytes) -> list[Transition]:
    """The transitions in what the file holds. Raises ValueError."""
    said = json.loads(data)
    if not isinstance(said, list) or not all(_is_transition(one) for one in said):
        raise ValueError("not a list of transitions")
    return said[:KEEP]


def _is_transition(one: object) -> bool:
    return (
        isinstance(one, dict)
        and isinstance(one.get("id"), str)
        and isinstance(one.get("steps"), list)
        and all(isinstance(step, dict) and isinstance(step.get("name"), str) for step in one["steps"])
    )


def seconds(transition: Mapping[str, Any]) -> float:
    """How long it took, or has taken up to the end of its last step."""
    if transition.get("seconds") is not None:
        return float(transition["seconds"])
    return max((_end(step) for step in transition["steps"]), default=0.0)


def outage(transition: Mapping[str, Any]) -> float | None:
    """For how many seconds of it nobody could write, as far as this server can tell; None: it cannot, or somebody could all the time.

    A server that becomes active counts from the beginning of its transition (what came before, until the loss was noticed, is
    Heartbeat's deadtime); one that hands over counts from when it lets go until the other serves.
    """
    steps = {step["name"]: step for step in transition["steps"]}

    def end_of(name: str) -> float | None:
        step = steps.get(name, {})
        return _end(step) if step.get("state") == "done" else None

    if transition.get("kind") == "becoming_active":
        # A pair without a virtual IP skips the address: then its databases are all there is.
        no_address = steps.get("address", {}).get("state") == "skipped"
        served = end_of("epoch" if no_address else "address")
        return None if served is None else round(served, 3)
    let_go, served = steps.get("release_address"), end_of("hand_over")
    if let_go is None or let_go.get("at") is None or served is None:
        return None
    return round(served - float(let_go["at"]), 3)


def _end(step: Mapping[str, Any]) -> float:
    return float(step.get("at") or 0) + float(step.get("seconds") or 0)


def show(transition: Mapping[str, Any]) -> str:
    """A transition for people: its summary, then a line a step with a bar that says when it ran. No line is wider than 79."""
    width = min(max((len(step["name"]) for step in transition["steps"]), default=0), 24)
    room = WIDTH - width - 23
    lines = summary(transition)
    for step in transition["steps"]:
        lines += _show_step(step, width, room, seconds(transition))
    return "\n".join(line.rstrip() for line in lines)


def summary(transition: Mapping[str, Any]) -> list[str]:
    """What happened, when, why, and for how long nobody could write: a few lines, none wider than 79."""
    kind = str(transition.get("kind")).replace("_", " ")
    head = (
        f"{moment(transition.get('started'))}  {transition.get('node')} {kind} ({transition.get('trigger')}): {transition.get('outcome')}"
    )
    head += f" after {seconds(transition):.3f} s" if transition.get("ended") else ""
    lines = [*wrap(head, "", "  "), *wrap(f"{transition.get('code')}: {transition.get('reason')}", "  ", "  ")]
    without = outage(transition)
    if without is not None:
        lines += wrap(f"no writes for {without:.3f} s of it", "  ", "  ")
    if transition.get("resumed"):
        lines += wrap(f"cut off and carried on: {transition['resumed']} times", "  ", "  ")
    return lines


def _show_step(step: Mapping[str, Any], width: int, room: int, total: float) -> list[str]:
    state, reason = str(step.get("state")), str(step.get("reason") or "")
    at, took = step.get("at"), step.get("seconds")
    name = f"  {plain(step['name'])[:width]:<{width}} "
    if state in ("skipped", "waiting") or at is None:
        return wrap(f"{state}: {reason}" if reason else state, name + " ", " " * len(name + " "))
    times = f"{at:8.3f} {'' if took is None else f'{took:.3f} s':>10} "
    lines = [(name + times + _bar(float(at), float(took or 0), total, room))[:WIDTH]]
    if state in ("failed", "running"):
        lines += wrap(f"{state}: {reason}" if reason else state, " " * len(name + times), " " * len(name + times))
    return lines


def _bar(at: float, took: float, total: float, room: int) -> str:
    if total <= 0:
        return "#"
    begin = min(int(at / total * room), room - 1)
    end = min(max(round((at + took) / total * room), begin + 1), room)
    return " " * begin + "#" * (end - begin)
