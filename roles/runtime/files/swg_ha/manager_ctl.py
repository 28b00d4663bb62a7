# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The command manager-ctl: has systemd run the roles that this server is to have, and no others.

A role is a set of systemd units, which systemd supervises; none of them is enabled at boot. What is running already and what is
to run are compared, and the difference is stopped and started. ha_manager calls it in the middle of a failover, so it imports
little, asks systemd once, and does not touch the role HA, which is the one that calls.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .shared import durable, manager_xml
from .shared.manager_xml import HA
from .shared.xml_document import InvalidXml

ACTIVE_ROLES = "/var/wasp/conf/commander/current/module.xml"
PASSIVE_ROLES = "/etc/Manager/commander_passive_module.xml"
UNITS = "/etc/Manager/manager.conf.xml"
PASSIVE_DEVICE = "/etc/Manager/passive_device"
MODULE_XML = "/var/wasp/conf/ha/current/module.xml"
# ha_manager's word on the role, and that `ha stop` was said: both are gone after a boot.
TOLD = "/run/ha_manager/role"
STOPPED = "/run/ha_manager/stopped"
CALLER = "ha_manager.service"
# Of role HA, what a server needs to hear what it is.
DECIDERS = (CALLER, "heartbeat.service")
SYSTEMCTL = "systemctl"

USAGE = """\
usage: manager-ctl reload            run the roles of an active server
       manager-ctl reload passive    run those of a passive one
       manager-ctl status [--json]   what is to run, and what does (1: they differ)
       manager-ctl list              the roles and their units, as the files have them
       manager-ctl boot              run the roles that this server has by what it was told
       manager-ctl leave             leave the roles of an active server to systemd, also at boot"""

Content = TypeVar("Content")

ACTIVE, PASSIVE, WAITING = "active", "passive", "waiting"

# Together they stay below what ha_manager grants. systemd goes on with what it was asked when the time is over.
_LOCK, _STOP, _START = 8.0, 24.0, 24.0
_ASK = 10.0
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "UnitFileState")
# A job is told where there is one.
_WORDS = (*_PROPERTIES, "Job")


class ManagerError(Exception):
    """What cannot be done, why, and what helps, in one line."""


@dataclass(frozen=True)
class Unit:
    """A unit, in systemd's words."""

    load: str
    state: str
    sub: str
    file: str
    job: str = ""

    @property
    def idle(self) -> bool:
        """It does nothing, and is not about to: a unit that waits for another one, or for the end of the boot, has a job."""
        return self.state in ("inactive", "failed") and not self.job

    @property
    def running(self) -> bool:
        return self.state in ("active", "activating", "reloading", "refreshing")

    @property
    def usable(self) -> bool:
        return self.load not in ("not-found", "masked", "error", "bad-setting")

    @property
    def at_boot(self) -> bool:
        """Whether systemd starts it at boot by itself."""
        return self.file in ("enabled", "enabled-runtime", "alias")


@dataclass(frozen=True)
class Told:
    """What this server is, as far as it was told, and by what that is known."""

    mode: str
    why: str


@dataclass(frozen=True)
class Difference:
    """Units to stop and to start, in that order. lacking: those that are to run and cannot."""

    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


# What is decided


def told(ha: bool, role: str, passive_device: bool) -> Told:
    """What this server is: by HA/module.xml, ha_manager's word since the boot, and passive_device, which survives one."""
    if not ha:
        return Told(ACTIVE, "HA is off: an ordinary server")
    if role in (ACTIVE, PASSIVE):
        return Told(role, f"ha_manager made this server {role}")
    if passive_device:
        return Told(PASSIVE, f"{PASSIVE_DEVICE} is there")
    return Told(WAITING, "HA is on, and ha_manager has not said yet what this server is: only role HA runs")


def wanted_roles(mode: str, listed: Mapping[str, bool], ha: bool) -> set[str]:
    """The roles that are to run. Role HA follows HA/module.xml in every mode: without it nobody could tell this server anything."""
    roles = set() if mode == WAITING else {name for name, on in listed.items() if on and name != HA}
    return roles | ({HA} if ha else set())


def units_of(roles: Iterable[str], defined: Mapping[str, Sequence[str]]) -> list[str]:
    """Their units, each once, in the order of manager.conf.xml."""
    chosen = set(roles)
    return list(dict.fromkeys(unit for name, units in defined.items() if name in chosen for unit in units))


def difference(roles: set[str], defined: Mapping[str, Sequence[str]], seen: Mapping[str, Unit], *, stops: bool = True) -> Difference:
    """What is to be done so that exactly these roles run. Role HA is never stopped."""
    of_ha = set(units_of([HA], defined))
    wanted = units_of(roles, defined)
    others = [unit for unit in units_of(defined, defined) if unit not in wanted and unit not in of_ha]
    absent = [unit for unit in wanted if not seen[unit].running]
    return Difference(
        stop=tuple(unit for unit in reversed(others) if not seen[unit].idle) if stops else (),
        start=tuple(unit for unit in absent if seen[unit].usable),
        lacking=tuple(unit for unit in absent if not seen[unit].usable),
    )


def state_of(units: Sequence[str], seen: Mapping[str, Unit]) -> str:
    """A role as a whole: running, degraded or stopped."""
    running = [seen[unit].running for unit in units]
    if any(seen[unit].state == "failed" for unit in units):
        return "degraded"
    return "stopped" if not any(running) else "running" if all(running) else "degraded"


def problems_of(roles: set[str], defined: Mapping[str, Sequence[str]], seen: Mapping[str, Unit], stopped: bool) -> list[str]:
    """In what the server differs from what it is to be."""
    problems = [f"role {name} has no units: {UNITS} does not tell them" for name in sorted(roles - defined.keys())]
    of_ha, wanted = set(units_of([HA], defined)), units_of(roles, defined)
    for name in units_of(defined, defined):
        unit = seen[name]
        if name in wanted and not unit.running and not (stopped and name in of_ha):
            problems.append(_not_running(name, unit))
        if name not in wanted and name not in of_ha and not unit.idle:
            problems.append(f"{name} {'runs' if unit.running else 'is about to start or has not ended'}, and no role of this server has it")
        if unit.at_boot:
            problems.append(f"{name} is enabled in systemd: at boot it would start before this server knows what it is")
    return problems


def parse_show(names: Sequence[str], text: str) -> dict[str, Unit]:
    """The units by the names that systemctl show was asked for, which answers in their order. Raises ManagerError."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.strip().split("\n\n")]
    if len(blocks) != len(names) or not all(block.keys() >= set(_PROPERTIES) for block in blocks):
        raise ManagerError(f"systemctl show does not tell the state of {', '.join(names)}")
    return {name: Unit(*(block.get(word, "") for word in _WORDS)) for name, block in zip(names, blocks, strict=True)}


def _not_running(name: str, unit: Unit) -> str:
    if unit.load == "not-found":
        return f"{name} is not installed"
    if not unit.usable:
        return f"{name} cannot be started: it is {unit.load}"
    return f"{name} does not run ({unit.state}): see 'journalctl -u {name} -n 20'"


# What is read


def ha_is_on() -> bool:
    """Whether HA/module.xml switches HA on. One that cannot be understood counts as on: then nothing but role HA starts by itself."""
    from .shared import module_xml  # It takes as long to import as all the rest, and a reload seldom needs it.

    try:
        return module_xml.parse(_read(MODULE_XML)).enabled
    except FileNotFoundError:
        return False
    except (OSError, InvalidXml):
        return True


def listed_roles(path: str) -> dict[str, bool]:
    """Raises ManagerError."""
    return _parsed(path, manager_xml.parse_roles)


def defined_roles() -> dict[str, tuple[str, ...]]:
    """Raises ManagerError."""
    return _parsed(UNITS, manager_xml.parse_units)


def unreadable() -> list[str]:
    """What is wrong with the files of the Manager, a sentence each, before anybody has to go by them; nothing where it is not installed."""
    if not any(map(os.path.exists, (UNITS, ACTIVE_ROLES, PASSIVE_ROLES))):
        return []
    wrong = []
    for path, parse in (
        (UNITS, manager_xml.parse_units),
        (ACTIVE_ROLES, manager_xml.parse_roles),
        (PASSIVE_ROLES, manager_xml.parse_roles),
    ):
        try:
            _parsed(path, parse)
        except ManagerError as error:
            wrong.append(str(error))
    return wrong


def _parsed(path: str, parse: Callable[[bytes], Content]) -> Content:
    try:
        return parse(_read(path))
    except OSError as error:
        raise ManagerError(f"{path}: {error.strerror}: run the playbook swg.ha.enable_ha") from error
    except InvalidXml as error:
        raise ManagerError(f"{path}: {error}") from error


def said() -> Told:
    """What this server was told."""
    try:
        role = _read(TOLD).decode(errors="replace").strip()
    except OSError:
        role = ""
    return told(ha_is_on(), role, os.path.exists(PASSIVE_DEVICE))


def units_to_run(mode: str) -> list[str]:
    """The units of a server of the pair in this mode. Raises ManagerError."""
    listed = {} if mode == WAITING else listed_roles(PASSIVE_ROLES if mode == PASSIVE else ACTIVE_ROLES)
    return units_of(wanted_roles(mode, listed, ha=True), defined_roles())


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# What is done


def systemctl(*words: str, timeout: float) -> tuple[int, str]:
    """(exit code, what it printed) of systemctl. Raises ManagerError when it does not end in time, which leaves systemd at work."""
    try:
        done = subprocess.run(
            [SYSTEMCTL, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise ManagerError(f"systemctl {' '.join(words)} has not ended within {timeout:g} s") from None
    except OSError as error:
        raise ManagerError(f"systemctl cannot be run: {error.strerror}") from error
    return done.returncode, (done.stdout if done.returncode == 0 else done.stderr or done.stdout).decode(errors="replace")


def look(names: Sequence[str]) -> dict[str, Unit]:
    """Ask systemd for all units at once. Raises ManagerError."""
    if not names:
        return {}
    rc, out = systemctl("show", f"--property={','.join(_WORDS)}", "--", *names, timeout=_ASK)
    if rc != 0:
        raise ManagerError(f"systemctl show: {out.strip() or f'exit code {rc}'}")
    return parse_show(names, out)


def _act(verb: str, names: Sequence[str], timeout: float, *options: str) -> list[str]:
    """Start or stop units, in their order; what did not work, a sentence each."""
    if not names:
        return []
    try:
        rc, out = systemctl(verb, "--no-ask-password", "--quiet", *options, "--", *names, timeout=timeout)
    except ManagerError as error:
        rc, out = 1, str(error)
    if rc == 0:
        print(f"{'started' if verb == 'start' else 'stopped'}: {', '.join(names)}")
        return []
    seen = look(names)
    wrong = [name for name in names if seen[name].state not in (("active",) if verb == "start" else ("inactive", "failed"))]
    if not wrong:
        return [] if verb == "stop" else [" ".join(out.split())]
    return [f"{name} did not {verb} ({seen[name].state}): see 'journalctl -u {name} -n 20'" for name in wrong]


def mark(passive: bool) -> list[str]:
    """Have passive_device there or not, on the disk; what did not work."""
    if os.path.exists(PASSIVE_DEVICE) == passive:
        return []
    try:
        if passive:
            durable.replace(PASSIVE_DEVICE, b"")
        else:
            os.unlink(PASSIVE_DEVICE)
            durable.sync(os.path.dirname(PASSIVE_DEVICE))
    except OSError as error:
        return [f"{PASSIVE_DEVICE}: {error.strerror}"]
    return []


def _stopping() -> bool:
    """Whether the server is about to stop, and systemd starts nothing any more."""
    _rc, state = systemctl("is-system-running", timeout=_ASK)
    return state.strip() == "stopping"


def bring_about(mode: str, *, boot: bool) -> list[str]:
    """Run the roles of this mode; what did not work, a sentence each. Raises ManagerError before anything is changed.

    What must not run any more is stopped before anything waits for the disk; passive_device is on the disk before anything
    is started. A power cut in between leaves a server that starts role HA alone, or with it the passive roles.
    """
    wrong: list[str] = []
    listed: dict[str, bool] = {}
    try:
        defined: Mapping[str, Sequence[str]] = defined_roles()
    except ManagerError as error:
        # Without ha_manager the server would be no use to the other one either.
        if not boot:
            raise
        wrong.append(str(error))
        defined, mode = {HA: DECIDERS}, WAITING
    try:
        listed = {} if mode == WAITING else listed_roles(PASSIVE_ROLES if mode == PASSIVE else ACTIVE_ROLES)
    except ManagerError as error:
        # A passive server that kept the active roles because of a file would be worse than one without any.
        if mode != PASSIVE:
            raise
        wrong.append(str(error))
    seen = look(units_of(defined, defined))
    # ha_manager, which calls this, looks after role HA itself. `ha stop` says so before it stops anything: that stays stopped.
    calls = not boot and CALLER in seen and seen[CALLER].running
    roles = wanted_roles(mode, listed, ha=not calls and not os.path.exists(STOPPED) and ha_is_on())
    change = difference(roles, defined, seen, stops=mode != WAITING)
    wrong += [f"role {name} has no units: {UNITS} does not tell them" for name in sorted(roles - defined.keys())]
    wrong += [_not_running(name, seen[name]) for name in change.lacking]

    wrong += _act("stop", change.stop, _STOP)
    if mode != WAITING:
        wrong += mark(mode == PASSIVE)
    if change.start and not boot and _stopping():
        print("the server is stopping: nothing is started")
        return wrong
    if failed := [name for name in change.start if seen[name].state == "failed"]:
        systemctl("reset-failed", "--", *failed, timeout=_ASK)
    # At boot nobody waits for it, and a unit that waits for the end of the boot would wait for this.
    wrong += _act("start", change.start, _START, *(["--no-block"] if boot else []))
    if boot and (enabled := [name for name, unit in seen.items() if unit.at_boot]):
        rc, out = systemctl("disable", "--quiet", "--", *enabled, timeout=_ASK)
        wrong += [] if rc == 0 else [f"systemctl disable {' '.join(enabled)}: {' '.join(out.split())}"]
    return wrong


def leave() -> list[str]:
    """Give the active roles but HA to systemd, which starts them at boot from now on, and stop the others. Raises ManagerError."""
    defined = defined_roles()
    roles = wanted_roles(ACTIVE, listed_roles(ACTIVE_ROLES), ha=False)
    seen = look(units_of(defined, defined))
    change = difference(roles, defined, seen)
    wrong = [_not_running(name, seen[name]) for name in change.lacking]
    wrong += _act("stop", change.stop, _STOP)
    wrong += mark(False)
    if keep := [name for name in units_of(roles, defined) if seen[name].usable]:
        rc, out = systemctl("enable", "--quiet", "--", *keep, timeout=_ASK)
        wrong += [] if rc == 0 else [f"systemctl enable {' '.join(keep)}: {' '.join(out.split())}"]
    return wrong + _act("start", change.start, _START)


# What is told


def document() -> dict[str, Any]:
    """Everything that status tells. Raises ManagerError."""
    now = said()
    ha = ha_is_on()
    defined = defined_roles()
    roles = wanted_roles(now.mode, {} if now.mode == WAITING else listed_roles(PASSIVE_ROLES if now.mode == PASSIVE else ACTIVE_ROLES), ha)
    seen = look(units_of(defined, defined))
    return {
        "mode": now.mode,
        "reason": now.why,
        "passive_device": os.path.exists(PASSIVE_DEVICE),
        "roles": [
            {
                "name": name,
                "wanted": name in roles,
                "state": state_of(units, seen),
                "units": [{"name": unit, "state": seen[unit].state if seen[unit].usable else seen[unit].load} for unit in units],
            }
            for name, units in defined.items()
        ],
        "problems": problems_of(roles, defined, seen, os.path.exists(STOPPED)),
    }


def status(as_json: bool) -> int:
    now = document()
    if as_json:
        import json

        print(json.dumps(now, indent=2))
    else:
        print(f"{now['mode']}: {now['reason']}")
        for role in now["roles"]:
            units = ", ".join(f"{unit['name']} {unit['state']}" for unit in role["units"])
            print(f"{role['name']:<16} {role['state']:<9} {'' if role['wanted'] else 'not wanted; '}{units or 'no units'}")
        for problem in now["problems"]:
            print(f"problem: {problem}")
    return 1 if now["problems"] else 0


def print_list() -> int:
    active, passive, defined = listed_roles(ACTIVE_ROLES), listed_roles(PASSIVE_ROLES), defined_roles()
    print(f"{'role':<16} active passive units")
    for name in dict.fromkeys([*defined, *active, *passive]):
        on = ["-" if listed.get(name) is None else "on" if listed[name] else "off" for listed in (active, passive)]
        print(f"{name:<16} {on[0]:<6} {on[1]:<7} {' '.join(defined.get(name, ('(not defined)',)))}")
    return 0


def _locked(work: Sequence[str]) -> int:
    folder = os.path.dirname(PASSIVE_DEVICE)
    try:
        with durable.locked(folder, _LOCK):
            if work == ["leave"]:
                wrong = leave()
            elif work == ["boot"]:
                wrong = bring_about(said().mode, boot=True)
            else:
                wrong = bring_about(PASSIVE if len(work) == 2 else ACTIVE, boot=False)
    except TimeoutError:
        raise ManagerError(f"another manager-ctl has been at work for {_LOCK:g} s: try again when it has ended") from None
    except OSError as error:
        raise ManagerError(f"{folder}: {error.strerror}: run the playbook swg.ha.enable_ha") from error
    if wrong:
        raise ManagerError("; ".join(wrong))
    return 0


def main(arguments: list[str]) -> int:
    """The exit code: 0 done; 1 not done, or the status is not as it should be; 2 not understood."""
    try:
        match arguments:
            case ["reload"] | ["reload", "passive"] | ["boot"] | ["leave"]:
                return _locked(arguments)
            case ["status"] | ["status", "--json"]:
                return status(as_json=len(arguments) == 2)
            case ["list"]:
                return print_list()
            case ["--help"] | ["-h"]:
                print(USAGE)
                return 0
    except ManagerError as error:
        print(f"manager-ctl: {' '.join(arguments)}: {error}", file=sys.stderr)
        return 1
    print(USAGE, file=sys.stderr)
    return 2
