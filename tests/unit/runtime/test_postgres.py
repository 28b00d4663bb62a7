# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What of the PostgreSQL engine needs no server: tests/postgres has the rest."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swg_ha import postgres
from swg_ha.postgres import DatabaseTrouble, PostgresError
from swg_ha.postgres_session import NoAnswer, refusal
from swg_ha.quarantine import Quarantine
from swg_ha.shared.postgres_cluster import Cluster, run_command


class Listener:
    """Answers the first connection to a unix socket with ``answer`` (None: with silence), and keeps what it was told."""

    def __init__(self, path: Path, answer: bytes | None) -> None:
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._thread = threading.Thread(target=self._serve)
        self._done = threading.Event()
        self.heard = b""

    def _serve(self) -> None:
        connection, _address = self._socket.accept()
        with connection:
            self.heard = connection.recv(4096)
            if self._answer is None:
                self._done.wait(10)
            elif self._answer:
                connection.sendall(self._answer)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join(10)
        self._socket.close()


def ear(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[float]]:
    """An ear, and its clock."""
    clock = [1000.0]
    monkeypatch.setattr(postgres.time, "monotonic", lambda: clock[0])
    return postgres._Ear(), clock


def test_nothing_was_heard_before_there_was_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    listening, _clock = ear(monkeypatch)
    assert listening.heard(True, None) is None


def test_what_came_counts_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    listening, clock = ear(monkeypatch)
    assert listening.heard(True, {"at": "12:00:00", "age": 0.5}) == 0.5
    clock[0] += 2
    assert listening.heard(True, {"at": "12:00:00", "age": 2.5}) == 2.5
    clock[0] += 1
    assert listening.heard(True, {"at": "12:00:03", "age": 0.25}) == 0.25
    clock[0] += 4
    assert listening.heard(True, None) == 4.25


@pytest.mark.parametrize("age", [-3600.0, 3600.0])
def test_a_clock_that_jumps_moves_it_by_no_more_than_the_time_between_two_looks(age: float, monkeypatch: pytest.MonkeyPatch) -> None:
    listening, clock = ear(monkeypatch)
    listening.heard(True, {"at": "12:00:00", "age": 0.0})
    clock[0] += 1
    assert 0 <= listening.heard(True, {"at": "13:00:00", "age": age}) <= 1


def test_a_promoted_server_begins_to_listen_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    listening, clock = ear(monkeypatch)
    listening.heard(True, {"at": "12:00:00", "age": 0.0})
    clock[0] += 5
    assert listening.heard(False, None) is None
    assert listening.heard(False, {"at": "12:00:05"}) == 0.0


@pytest.mark.parametrize("skew", [0.0, -1234.5, 1234.5])
def test_an_answer_is_as_old_as_it_looks_beside_the_youngest_one(skew: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other server's clock says when it answered, and is off by any time."""
    listening, clock = ear(monkeypatch)
    assert listening.heard(False, {"at": "1", "age": skew + 0.01}) == 0.0
    clock[0] += 2
    assert listening.heard(False, {"at": "2", "age": skew + 0.9}) == pytest.approx(0.89, abs=0.002)
    clock[0] += 2
    # The youngest of all: as if it had come just now.
    assert listening.heard(False, {"at": "3", "age": skew + 0.001}) == pytest.approx(0.0, abs=0.01)
    clock[0] += 2
    assert listening.heard(False, {"at": "4", "age": skew + 1.901}) == pytest.approx(postgres.MOST_BETWEEN_ANSWERS)


@pytest.mark.parametrize("jump", [-3600.0, -1.0, 1.0, 3600.0])
def test_a_jump_of_the_other_clock_moves_it_by_little(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    listening, clock = ear(monkeypatch)
    listening.heard(False, {"at": "1", "age": 0.0})
    clock[0] += 2
    assert 0 <= listening.heard(False, {"at": "2", "age": jump}) <= postgres.MOST_BETWEEN_ANSWERS + 1e-6
    clock[0] += 0.3
    assert 0 <= listening.heard(False, {"at": "3", "age": jump}) <= 0.3
    for number in range(10):
        clock[0] += 2
        heard = listening.heard(False, {"at": f"later {number}", "age": jump + 0.01})
    assert heard == pytest.approx(0.0, abs=0.01), "what looked old after the jump is as young as ever a while later"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"E\x00\x00\x00\x20SFATAL\0VFATAL\0C57P03\0Mder Server startet\0\0", "57P03"),
        (b"E\x00\x00\x00\x20SFATAL\0VFATAL\0C53300\0Mtoo many\0\0", "53300"),
        (b"R\x00\x00\x00\x08\x00\x00\x00\x00", None),
        (b"", None),
    ],
)
def test_a_refusal_is_told_by_its_code_in_whatever_language(answer: bytes, code: str | None, tmp_path: Path) -> None:
    with Listener(tmp_path / ".s.PGSQL.5432", answer) as listener:
        assert refusal(str(tmp_path), "5432", "postgres", time.monotonic() + 5) == code
        assert b"user\0postgres\0database\0postgres\0" in listener.heard


def test_a_server_that_says_nothing_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    with Listener(tmp_path / ".s.PGSQL.5432", None), pytest.raises(NoAnswer):
        refusal(str(tmp_path), "5432", "postgres", time.monotonic() + 0.1)


def test_a_process_is_given_until_the_deadline_to_end() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert not postgres._ends(process.pid, signal.SIGCONT, time.monotonic() + 0.05)
        waiting = threading.Thread(target=process.wait, daemon=True)
        waiting.start()
        assert postgres._ends(process.pid, signal.SIGTERM, time.monotonic() + 5)
        waiting.join(5)
        assert postgres._ends(process.pid, signal.SIGTERM, time.monotonic() + 5)


@pytest.fixture
def quarantine(tmp_path: Path) -> Quarantine:
    (tmp_path / "main").mkdir()
    return Quarantine(Cluster("15", "main", run_command, data_directory=tmp_path / "main"), keep=2)


REPORT = {
    "timelines": [1, 2], "from": "0/3000000", "to": "0/3000100", "bytes": 256, "transactions": 4, "tables": ["shop: goods"],
    "files": ["000000010000000000000003"],
}  # fmt: skip


def test_a_report_is_shown_and_can_be_acknowledged(quarantine: Quarantine, tmp_path: Path) -> None:
    name = "main.diverged.20260102T030405Z"
    (tmp_path / name).mkdir()
    (tmp_path / name / "report.json").write_text(json.dumps(REPORT))
    # Neither is the quarantine's.
    (tmp_path / "main.diverged.20260102T030406Z.tmp").mkdir()
    (tmp_path / "main.rewind").mkdir()
    expected = {
        "name": name, "path": str(tmp_path / name), "created": "2026-01-02T03:04:05Z", "timeline": 2, "from": "0/3000000",
        "to": "0/3000100", "transactions": 4, "bytes": 256, "tables": ["shop: goods"], "acknowledged": False,
    }  # fmt: skip
    assert quarantine.entries() == [expected]
    quarantine.acknowledge(name)
    assert quarantine.entries() == [expected | {"acknowledged": True}]


@pytest.mark.parametrize("name", ["", "main", "../main", "main.diverged.20260102T030405Z"])
def test_only_what_is_there_can_be_acknowledged(name: str, quarantine: Quarantine) -> None:
    with pytest.raises(PostgresError, match="is not in quarantine: there is nothing"):
        quarantine.acknowledge(name)


def test_a_broken_report_hides_nothing(quarantine: Quarantine, tmp_path: Path) -> None:
    (tmp_path / "main.diverged.20260102T030405Z-2").mkdir()
    (tmp_path / "main.diverged.20260102T030405Z-2" / "report.json").write_text("{")
    [entry] = quarantine.entries()
    assert (entry["created"], entry["transactions"], entry["acknowledged"]) == ("2026-01-02T03:04:05Z", None, False)


def test_what_a_cut_off_removal_left_goes_at_the_next_one(quarantine: Quarantine, tmp_path: Path) -> None:
    (tmp_path / ".main.20260102T030405Z.removed").mkdir()
    assert quarantine.prune() == []
    assert os.listdir(tmp_path) == ["main"]


def test_a_disk_that_fails_is_told_from_a_full_one(tmp_path: Path) -> None:
    assert postgres._disk_trouble(OSError(28, "No space left on device"), tmp_path).code == "DISK_FULL"
    assert postgres._disk_trouble(OSError(30, "Read-only file system"), tmp_path).code == "DISK_READ_ONLY"
    trouble = postgres._disk_trouble(OSError(5, "Input/output error"), tmp_path)
    assert isinstance(trouble, DatabaseTrouble)
    assert (trouble.code, str(trouble)) == ("DISK_FAILS", f"{tmp_path} cannot be written: Input/output error: look at the disk")


@pytest.mark.parametrize(
    ("rests", "seen"),
    [
        (lambda looked: True, True),
        # At work on a checkpoint since before the reload.
        (lambda looked: False, False),
        (lambda looked: looked > 20, True),
        # A moment of rest between two checkpoints: it may not have read the configuration yet.
        (lambda looked: looked < 3, False),
        # The setting itself is not known yet.
        (lambda looked: None if looked < 9 else looked < 11, False),
        # A checkpoint that takes its time rests between its writes.
        (lambda looked: looked % 4 == 0, True),
    ],
)
def test_commits_wait_once_the_checkpointer_was_seen_at_rest(rests: Callable[[int], bool | None], seen: bool) -> None:
    looks = 0

    def ask(statement: str, until: float) -> Any:
        nonlocal looks
        if statement != postgres.WAITING_SQL:
            return "0/42"
        looks += 1
        return rests(looks)

    here = postgres.Postgres.__new__(postgres.Postgres)
    here.cluster = SimpleNamespace(ask=ask)  # type: ignore[assignment]
    assert here.waits_from(5 if seen else 0.6) == ("0/42" if seen else None)
