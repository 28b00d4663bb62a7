# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to be done to a systemd unit so that it runs with the configuration that is on the disk.

Pure functions over what ``systemctl show`` prints; the module fresh_service does the rest.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "StateChangeTimestamp",
    "ReloadResult",
    "FragmentPath",
    "DropInPaths",
)
DROP_INS = "/etc/systemd/system"
RUNNING = ("active", "reloading", "activating")


class UnitError(Exception):
    """The unit cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class Unit:
    """One unit, as systemd sees it."""

    load_state: str
    active_state: str
    # Nothing is left to enable: it starts at boot, or has nothing that says when.
    enabled: bool
    # systemd starts it at boot because somebody enabled it.
    at_boot: bool
    masked: bool
    need_daemon_reload: bool
    # When it last started, stopped or was reloaded, in seconds since the epoch; 0 if never.
    changed_at: float
    # Did the last reload fail? systemd counts it as a change of state all the same.
    reload_failed: bool
    # The unit's own file and its drop-ins, as systemd has read them.
    files: tuple[str, ...]

    @property
    def running(self) -> bool:
        return self.active_state in RUNNING


def parse_show(text: str) -> Unit:
    """Read the output of ``systemctl show --timestamp=us+utc`` for the properties PROPERTIES."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    missing = [name for name in PROPERTIES if name not in values]
    if missing:
        raise UnitError(f"systemctl show did not tell {', '.join(missing)}: is systemd running as process 1?")
    return Unit(
        load_state=values["LoadState"],
        active_state=values["ActiveState"],
        enabled=values["UnitFileState"] in ("enabled", "enabled-runtime", "alias", "static", "indirect", "generated"),
        at_boot=values["UnitFileState"] in ("enabled", "enabled-runtime", "alias"),
        masked="masked" in (values["LoadState"], values["UnitFileState"]),
        need_daemon_reload=values["NeedDaemonReload"] == "yes",
        changed_at=_seconds(values["StateChangeTimestamp"]),
        reload_failed=values["ReloadResult"] not in ("", "success"),
        # A path with a blank in it stands in quotes.
        files=tuple(path for path in (values["FragmentPath"], *shlex.split(values["DropInPaths"])) if path),
    )


def _seconds(timestamp: str) -> float:
    """Seconds since the epoch of systemd's ``Sun 2026-01-04 10:00:00.123456 UTC``."""
    if not timestamp or timestamp == "n/a":
        return 0.0
    text = timestamp.split(" ", 1)[1].removesuffix(" UTC")
    form = "%Y-%m-%d %H:%M:%S.%f" if "." in text else "%Y-%m-%d %H:%M:%S"
    return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()


def stale_definition(unit: Unit, on_disk: Iterable[str]) -> bool:
    """Must systemd read the unit again?

    systemd knows of changed files by itself, but not of a drop-in folder that is new since it last read its units.
    ``on_disk`` are the unit's drop-ins below /etc/systemd/system.
    """
    known = {path for path in unit.files if path.startswith(DROP_INS)}
    return unit.need_daemon_reload or unit.load_state == "not-found" or not known >= set(on_disk)


def newer_files(unit: Unit, changed: Mapping[str, float]) -> list[str]:
    """The files whose last change (seconds since the epoch) the running unit cannot have seen."""
    return sorted(path for path, at in changed.items() if at > unit.changed_at) if unit.running else []


def verbs(unit: Unit, newer: list[str], stale: bool, on_change: str, enabled: bool = True, state: str = "started") -> list[str]:
    """The words for systemctl, in order, that bring the unit up to date; empty if it is."""
    # What does not exist neither runs nor starts at boot.
    if state == "stopped" and unit.load_state == "not-found":
        return []
    words = []
    if unit.masked and state == "started":
        words.append("unmask")
    if stale:
        words.append("daemon-reload")
    if enabled and not unit.enabled:
        words.append("enable")
    # A mask hides whether it was enabled.
    if not enabled and (unit.at_boot or "unmask" in words):
        words.append("disable")
    if state == "stopped":
        words += ["stop"] if unit.running else []
    elif not unit.running:
        words.append("start")
    elif newer or unit.reload_failed:
        words.append({"restarted": "restart", "reloaded": "reload"}[on_change])
    return words
