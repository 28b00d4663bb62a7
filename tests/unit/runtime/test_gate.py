# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swg_ha import gate
from swg_ha.control import Progress, Refused

from .serving import serving

RESOURCE = "192.0.2.10/24"
FILES = Path(__file__).resolve().parents[3] / "roles/runtime/files"


class Places:
    """Where the gate keeps its state, finds ha_manager, and writes its log."""

    def __init__(self, folder: Path) -> None:
        self.state, self.control = folder / "run" / "gate", folder / "control.sock"
        self._log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._log.bind(str(folder / "log"))
        self._log.setblocking(False)

    def logged(self) -> str:
        """The one line that was logged, without its header."""
        line = self._log.recv(4096).decode()
        with pytest.raises(BlockingIOError):
            self._log.recv(4096)
        header, _, text = line.partition(": ")
        assert header.startswith(("<30>ha_gate[", "<28>ha_gate[")), line
        return text

    def close(self) -> None:
        self._log.close()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    places = Places(tmp_path)
    monkeypatch.setattr(gate, "STATE", str(places.state))
    monkeypatch.setattr(gate, "CONTROL", str(places.control))
    monkeypatch.setattr(gate, "LOG", str(tmp_path / "log"))
    monkeypatch.setattr(gate, "BOUNDS", {"start": 10.0, "stop": 10.0})
    yield places
    places.close()


Answer = Callable[[dict[str, Any], Progress], dict[str, Any]]


def handler(answer: Answer) -> Any:
    async def handle(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        return answer(request, progress)

    return handle


def settled(_request: dict[str, Any], _progress: Progress) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("arguments", [[RESOURCE, "start"], [RESOURCE, "stop"], ["start"]])
def test_the_manager_is_told_after_the_state_is_kept(places: Places, arguments: list[str]) -> None:
    seen: list[tuple[dict[str, Any], str]] = []

    def answer(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        seen.append((request, places.state.read_text()))
        progress("promoting")
        progress("raising the address")
        return {}

    with serving(places.control, handler(answer)):
        assert gate.main(arguments) == 0
    action = arguments[-1]
    assert seen == [({"do": "gate", "action": action}, f"{action}\n")]
    assert places.logged().endswith(" s ha_manager said: settled")
    assert [entry.name for entry in places.state.parent.iterdir()] == ["gate"]


def test_the_outcome_is_logged(places: Places) -> None:
    def answer(_request: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        return {"role": "active", "code": "TAKE_OVER", "reason": "ps1 has not been heard\nfor 1.0 s"}

    with serving(places.control, handler(answer)):
        assert gate.main([RESOURCE, "start"]) == 0
    assert places.logged().endswith("ha_manager said: active: TAKE_OVER: ps1 has not been heard for 1.0 s")


def test_a_refusal_is_logged_and_no_failure(places: Places) -> None:
    def answer(_request: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        raise Refused("STALE_EPOCH", "ps2 has newer data")

    with serving(places.control, handler(answer)):
        assert gate.main([RESOURCE, "start"]) == 0
    assert places.logged().endswith("ha_manager said: STALE_EPOCH: ps2 has newer data")


@pytest.fixture
def hasty(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gate.BOUNDS, "stop", 0.5)


@pytest.mark.usefixtures("hasty")
def test_a_manager_that_does_not_run_is_waited_for_only_so_long(places: Places) -> None:
    began = time.monotonic()
    assert gate.main([RESOURCE, "stop"]) == 0
    assert 0.5 <= time.monotonic() - began < 8
    assert places.state.read_text() == "stop\n"
    assert places.logged().startswith(
        "stop: no word from ha_manager within 0.5 s (it does not run): the address stays as it is, ha_manager decides when it runs"
    )


@pytest.mark.usefixtures("hasty")
def test_a_manager_that_hangs_is_waited_for_only_so_long(places: Places) -> None:
    async def hang(_request: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        await asyncio.sleep(3600)
        return {}

    began = time.monotonic()
    with serving(places.control, hang):
        assert gate.main([RESOURCE, "stop"]) == 0
        assert 0.5 <= time.monotonic() - began < 8
    assert "(it has not settled)" in places.logged()


def test_a_manager_that_starts_meanwhile_is_told(places: Places) -> None:
    asked = threading.Event()

    def answer(_request: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        asked.set()
        return {}

    codes: list[int] = []
    heartbeat = threading.Thread(target=lambda: codes.append(gate.main([RESOURCE, "start"])))
    heartbeat.start()
    while not places.state.exists():
        assert heartbeat.is_alive()
        time.sleep(0.01)
    with serving(places.control, handler(answer)):
        heartbeat.join(10)
        assert asked.is_set()
    assert codes == [0]


def test_a_manager_that_stops_meanwhile_is_asked_again(places: Places) -> None:
    answers = [Refused("STOPPING", "ha_manager is being stopped"), Refused("BUSY", "try again")]

    def answer(_request: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        if answers:
            raise answers.pop()
        return {}

    with serving(places.control, handler(answer)):
        assert gate.main([RESOURCE, "start"]) == 0
    assert answers == []
    assert places.logged().endswith("settled")


@pytest.mark.parametrize(
    "said", [b"", b'{"progress": "promoting"}\n', b'{"progress": "prom', b"\xff{[\n", b'["ok"]\n', b"7\n", b"x" * 70000]
)
def test_a_manager_that_dies_or_talks_nonsense_is_asked_again(places: Places, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(places.control))
        listener.listen()
        listener.settimeout(10)
        codes: list[int] = []
        heartbeat = threading.Thread(target=lambda: codes.append(gate.main([RESOURCE, "start"])))
        heartbeat.start()
        for answer in (said, b'{"ok": true}\n'):
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(100) == b'{"do": "gate", "action": "start"}\n'
                connection.sendall(answer)
        heartbeat.join(10)
    assert codes == [0]
    assert places.logged().endswith("settled")


def test_a_state_that_cannot_be_kept_stops_nothing(places: Places) -> None:
    places.state.parent.write_text("a file where a folder should be")
    with serving(places.control, handler(settled)):
        assert gate.main([RESOURCE, "start"]) == 0
    assert places.logged().endswith(f"settled; {places.state} was not written: Not a directory")


def test_nobody_to_log_to_stops_nothing(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "LOG", "/nowhere/log")
    with serving(places.control, handler(settled)):
        assert gate.main([RESOURCE, "start"]) == 0


@pytest.mark.parametrize("trouble", [MemoryError("no memory"), ValueError("embedded null byte")])
def test_whatever_goes_wrong_is_no_failure(places: Places, monkeypatch: pytest.MonkeyPatch, trouble: Exception) -> None:
    def keep(_action: str) -> str:
        raise trouble

    monkeypatch.setattr(gate, "_keep", keep)
    assert gate.main([RESOURCE, "stop"]) == 0
    assert places.logged() == f"stop: {type(trouble).__name__}: {trouble}"


@pytest.mark.parametrize("action", ["status", "monitor"])
@pytest.mark.parametrize(
    ("state", "said", "code"), [("start", "running", 0), ("stop", "stopped", 3), (None, "stopped", 3), ("", "stopped", 3)]
)
def test_status(places: Places, capsys: pytest.CaptureFixture[str], action: str, state: str | None, said: str, code: int) -> None:
    if state is not None:
        places.state.parent.mkdir()
        places.state.write_text(f"{state}\n")
    assert gate.main([RESOURCE, action]) == code
    assert capsys.readouterr().out == f"{said}\n"


@pytest.mark.parametrize("arguments", [[], [RESOURCE], [RESOURCE, "restart"], ["a", "b", "start"], ["start", RESOURCE]])
def test_anything_else_gets_usage(places: Places, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert gate.main(arguments) == 2
    assert capsys.readouterr() == ("", f"{gate.USAGE}\n")
    assert not places.state.parent.exists()


def test_it_imports_nothing_that_takes_long() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(FILES)!r}); from swg_ha.gate import main; main(['x', 'status']);"
        "print(*sorted({'asyncio', 'enum', 'json', 're', 'socket', 'subprocess', 'threading', 'typing'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == [""]
