# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What was taken out of the database when this server followed its peer again, kept for an operator to look at.

Beside the data directory ``main`` there may be

* ``main.diverged.<UTC time>``: the WAL that only this server had, with report.json;
* ``main.<UTC time>``: a whole data directory that a new copy took the place of.

An operator who has looked at one acknowledges it. The newest ``keep`` of the first kind stay,
and the newest of the second, which are big. Older ones go once they are acknowledged; those
that nobody has looked at go only where there are twice as many. The data of a standby that was
merely too far behind is acknowledged from the beginning.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .shared import durable
from .shared.postgres import ControlData, PostgresError, lsn, lsn_text
from .shared.postgres_cluster import ENVIRONMENT, Cluster
from .shared.postgres_replica import read_json

ACKNOWLEDGED = "acknowledged"
REPORT = "report.json"
COPIES_KEPT = 1
STAMP = re.compile(r"(?:diverged\.)?(\d{8}T\d{6}Z)(?:-\d+)?")
# Of WAL, for the names of tables: some seconds of reading.
EXAMINE_AT_MOST = 64 << 20
BLOCK = re.compile(r"\brel (\d+)/(\d+)/(\d+)\b")
# The numbers of its tablespace, its database and its file.
Relation = tuple[int, int, int]


class Quarantine:
    """The folders beside the data directory of one cluster."""

    def __init__(self, cluster: Cluster, keep: int) -> None:
        self._cluster = cluster
        self._keep = keep
        self._states: dict[str, ControlData | None] = {}

    def entries(self) -> list[dict[str, Any]]:
        """The newest first: name, path, created, timeline, from, to, transactions, bytes, tables, acknowledged; None: not known."""
        return [self._entry(path) for path in self._folders()]

    def acknowledge(self, name: str) -> None:
        """An operator has looked at it. Raises PostgresError where there is none of this name."""
        found = {path.name: path for path in self._folders()}
        if name not in found:
            raise PostgresError(f"{name!r} is not in quarantine: there is {', '.join(found) or 'nothing'}")
        with durable.locked(str(found[name])):
            durable.replace(str(found[name] / ACKNOWLEDGED), time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()).encode())

    def prune(self) -> list[str]:
        """Remove what is beyond what is kept; the names of what went."""
        folders = self._folders()
        diverged = [path for path in folders if _is_diverged(path)]
        copies = [path for path in folders if not _is_diverged(path)]
        gone = _beyond(diverged, self._keep) + _beyond(copies, COPIES_KEPT)
        for path in gone:
            self.discard(path)
        for left in self._cluster.data_directory.parent.glob(f".{self._cluster.data_directory.name}.*.removed"):
            shutil.rmtree(left)
        return [path.name for path in gone]

    def discard(self, path: Path) -> None:
        """Remove a folder at once."""
        # Under another name first: half of it must not be taken for the whole.
        doomed = path.with_name(f".{path.name}.removed")
        os.rename(path, doomed)
        durable.sync(str(path.parent))
        shutil.rmtree(doomed)

    def examine(self, names: Callable[[set[Relation]], list[str]]) -> None:
        """Add to each report that lacks it which tables the WAL touches, by their ``names``."""
        for path in self._folders():
            report = read_json(path / REPORT)
            if report is None or "tables" in report:
                continue
            report["tables"] = names(self._relations(path, report))
            with durable.locked(str(path)):
                durable.replace(str(path / REPORT), (json.dumps(report, indent=2) + "\n").encode())

    def _relations(self, path: Path, report: Mapping[str, Any]) -> set[Relation]:
        """What the kept WAL writes to, as far as it is read."""
        found: set[Relation] = set()
        for begin, end, timeline in report.get("spans", []):
            last = min(lsn(end), lsn(begin) + EXAMINE_AT_MOST)
            argv = self._cluster.as_owner(
                "pg_waldump", f"--path={path}", f"--timeline={timeline}", f"--start={begin}", f"--end={lsn_text(last)}"
            )
            # A line for each record: far more than is to be in memory at once. It ends with an error where the WAL does.
            with subprocess.Popen(
                ["nice", *argv], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd="/", env=ENVIRONMENT
            ) as process:
                for line in process.stdout or ():
                    found.update((int(words[0]), int(words[1]), int(words[2])) for words in BLOCK.findall(line))
        return found

    def _folders(self) -> list[Path]:
        data = self._cluster.data_directory
        stamped = [
            (match[1], path)
            for path in data.parent.glob(f"{data.name}.*")
            if (match := STAMP.fullmatch(path.name.removeprefix(f"{data.name}."))) and path.is_dir()
        ]
        return [path for _stamp, path in sorted(stamped, reverse=True)]

    def _entry(self, path: Path) -> dict[str, Any]:
        match = STAMP.search(path.name)
        stamp = match[1] if match else ""
        entry: dict[str, Any] = {
            "name": path.name,
            "path": str(path),
            "created": f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}T{stamp[9:11]}:{stamp[11:13]}:{stamp[13:15]}Z",
            "timeline": None, "from": None, "to": None, "transactions": None, "bytes": None, "tables": [],
            "acknowledged": (path / ACKNOWLEDGED).exists(),
        }  # fmt: skip
        report = read_json(path / REPORT)
        if report is not None:
            names = ("from", "to", "transactions", "bytes", "tables")
            timelines = report.get("timelines") or [None]
            return entry | {name: report[name] for name in names if name in report} | {"timeline": timelines[-1]}
        control = self._control(path)
        return entry | {"timeline": control.last_timeline if control else None}

    def _control(self, path: Path) -> ControlData | None:
        """Asked once: nothing writes to a directory that was moved aside."""
        if path.name not in self._states:
            try:
                self._states[path.name] = self._cluster.control(path)
            except PostgresError:
                self._states[path.name] = None
        return self._states[path.name]


def _is_diverged(path: Path) -> bool:
    return ".diverged." in path.name


def _beyond(newest_first: list[Path], keep: int) -> list[Path]:
    return [path for path in newest_first[keep:] if (path / ACKNOWLEDGED).exists()] + [
        path for path in newest_first[2 * keep :] if not (path / ACKNOWLEDGED).exists()
    ]
