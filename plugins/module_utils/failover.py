# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who hands over to whom, whether that may be asked for, and how a transition is shown. Pure functions over ha_manager's status.

Servers are called by the names that the caller has for them: the module by ``uname -n``, the role by inventory names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]


class FailoverError(Exception):
    """It cannot be done; the text says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """Who is to be active, and who gives the active role up for it. done: it is so already."""

    to: str
    gives_up: str
    done: bool


def known_active(status: Document) -> tuple[str | None, bool]:
    """Who is active by the word of one server, as ``uname -n``, and whether that is so now or only the last that it has heard."""
    peer = status.get("peer") or {}
    if status.get("role") == "active":
        return status["node"], True
    if peer.get("connected") and peer.get("role") == "active":
        return status["peer_node"], True
    return (status.get("record") or {}).get("active"), False


def plan(status: Document, to: str = "", forced: bool = False, confirm: str = "") -> Plan:
    """What is meant, by the status of one of the servers. Names are those of ``uname -n``. Raises FailoverError."""
    nodes = [status["node"], status["peer_node"]]
    active, sure = known_active(status)
    if to and to not in nodes:
        raise FailoverError(f"to is {to!r}: it must be one of the two servers, {' or '.join(nodes)}")
    if not to and active is None:
        raise FailoverError(f"neither server is active, nor is it known who was: say who shall be, to={' or to='.join(nodes)}")
    wanted = to or next(node for node in nodes if node != active)
    found = Plan(wanted, next(node for node in nodes if node != wanted), sure and wanted == active)
    if not found.done and forced and confirm != found.to:
        raise FailoverError(
            f"{found.to} would become active, and what {found.gives_up} has not sent to it yet would be lost: confirm that with "
            f"confirm={found.to}" + (f" (it is {confirm!r})" if confirm else "")
        )
    return found


def not_ready(status: Document) -> list[str]:
    """What speaks against a planned hand-over, as far as one server knows."""
    if status.get("redundant"):
        return []
    return list(status.get("not_redundant_because") or ["the pair is not redundant, and the reason is not known"])


def pair_plan(observed: Mapping[str, Document], forced: bool = False, to: str = "", confirm: str = "") -> dict[str, Any]:
    """Which server of a pair is to be asked, and for what.

    ``observed`` holds, by inventory name (the default active first), ``reachable`` and ``manager``, the answer of module
    ha_manager_info. Returns ``actor`` (whom to ask; None if there are problems or nothing is to be done), ``to``, ``gives_up``,
    ``nodes`` (inventory name to ``uname -n``), ``done``, ``whole`` (both ha_manager answer) and ``problems``.
    """
    nothing: dict[str, Any] = {"actor": None, "to": None, "gives_up": None, "nodes": {}, "done": False, "whole": False}
    answers = {host: _status(seen) for host, seen in observed.items()}
    asked = {host: status for host, status in answers.items() if status}
    if not asked:
        return {**nothing, "problems": [f"no ha_manager of the pair answers: {'; '.join(_silence(observed))}"]}
    if to and to not in observed:
        return {
            **nothing,
            "problems": [f"failover_to is {to!r}: it must be the inventory name of a server of the pair: {' or '.join(observed)}"],
        }
    nodes = _nodes(list(observed), asked)
    hosts = {node: host for host, node in nodes.items()}
    # Whoever says that it is active knows better than the one that has heard so.
    word = next((status for status in asked.values() if status.get("role") == "active"), next(iter(asked.values())))
    problems = []
    try:
        found = plan(word, nodes[to] if to else "")
    except FailoverError:
        return {
            **nothing,
            "problems": [f"neither server is active, nor is it known who was: say who shall be, failover_to={next(iter(observed))}"],
        }
    target, giver = hosts[found.to], hosts[found.gives_up]
    if not found.done:
        if not asked.get(target):
            problems.append(f"{target} cannot become active: {_why_silent(target, observed)}")
        elif forced and confirm != target:
            problems.append(
                f"{target} would become active, and what {giver} has not sent to it yet would be lost: confirm that with "
                f"failover_confirm={target}" + (f" (it is {confirm!r})" if confirm else "")
            )
        elif not forced and not asked.get(giver):
            problems.append(
                f"{giver} cannot hand over: {_why_silent(giver, observed)}. Bring it back, or let {target} take over without it: "
                f"failover_forced=true failover_confirm={target}"
            )
    # The one that gives up knows best how to lose nothing. It is asked as long as it can hear the other.
    connected = bool(((asked.get(giver) or {}).get("peer") or {}).get("connected"))
    actor = None if found.done or problems else giver if connected else target
    return {
        "actor": actor,
        "to": target,
        "gives_up": giver,
        "nodes": nodes,
        "done": found.done,
        "whole": len(asked) == len(observed),
        "problems": problems,
    }


def _status(seen: Document) -> Document | None:
    manager = seen.get("manager") or {}
    return manager.get("status") if manager.get("running") else None


def _why_silent(host: str, observed: Mapping[str, Document]) -> str:
    if not observed[host].get("reachable"):
        return "it cannot be reached"
    return str((observed[host].get("manager") or {}).get("problem") or "its ha_manager does not answer")


def _silence(observed: Mapping[str, Document]) -> list[str]:
    return [f"{host}: {_why_silent(host, observed)}" for host in observed]


def _nodes(hosts: list[str], asked: Mapping[str, Document]) -> dict[str, str]:
    """``uname -n`` of each server; that of a silent one is what the other calls it."""
    names = {}
    for host in hosts:
        own = asked.get(host)
        names[host] = own["node"] if own else next(status["peer_node"] for name, status in asked.items() if name != host)
    return names


def timeline(transition: Document | None) -> list[str]:
    """One transition for people, one line a step, each with the second in which it began and how long it took."""
    if not transition:
        return ["No change of role is known."]
    kind = str(transition.get("kind") or "").replace("_", " ")
    head = f"{transition.get('node')} {kind} ({str(transition.get('trigger') or '').replace('_', '-')}): {transition.get('outcome')}"
    if transition.get("seconds") is not None:
        head += f" in {transition['seconds']:.3f} s"
    lines = [f"{transition.get('started')} {head}"]
    if transition.get("reason"):
        lines.append(f"  {transition.get('code')}: {transition['reason']}")
    for step in transition.get("steps") or []:
        at = "       -" if step.get("at") is None else f"{step['at']:8.3f}"
        took = "        " if step.get("seconds") is None else f"{step['seconds']:+8.3f}"
        state, reason = step.get("state", ""), step.get("reason") or ""
        lines.append(f"  {at} {took}  {step.get('name', ''):<20} {state} {reason if reason != state else ''}".rstrip())
    return lines
