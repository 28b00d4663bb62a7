# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from swg_ha import processes, units
from swg_ha.units import UnitError

# Stands for systemctl: keeps what it was called with, tells a unit's state, and does the rest as the file `verb` says.
SYSTEMCTL = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/calls"
if [ "$1" = show ]; then cat "$here/show"; exit 0; fi
. "$here/verb"
"""


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    (tmp_path / "show").write_text("LoadState=loaded\nActiveState=active\n")
    (tmp_path / "verb").write_text("exit 0")
    monkeypatch.setattr(units, "SYSTEMCTL", str(program))
    return tmp_path


def calls(systemd: Path) -> list[str]:
    return (systemd / "calls").read_text().splitlines()


def test_what_systemd_is_asked(systemd: Path) -> None:
    async def ask() -> None:
        await units.start("a.service")
        await units.stop("a.service")
        await units.restart("a.service")
        await units.reload("a.service")
        await units.reset_failed("a.service")
        await units.kill("a.service", signal.SIGUSR1, whom="main")
        await units.kill("-x.service")
        await units.daemon_reload()

    asyncio.run(ask())
    assert calls(systemd) == [
        "start --no-ask-password --quiet -- a.service",
        "stop --no-ask-password --quiet -- a.service",
        "restart --no-ask-password --quiet -- a.service",
        "reload --no-ask-password --quiet -- a.service",
        "reset-failed --no-ask-password --quiet -- a.service",
        "kill --no-ask-password --quiet --signal=SIGUSR1 --kill-who=main -- a.service",
        "kill --no-ask-password --quiet --signal=SIGKILL --kill-who=all -- -x.service",
        "daemon-reload",
    ]


@pytest.mark.parametrize(
    ("show", "state", "active"),
    [
        ("LoadState=loaded\nActiveState=active\n", "active", True),
        ("ActiveState=activating\nLoadState=loaded\n", "activating", False),
        ("LoadState=not-found\nActiveState=inactive\n", "not-found", False),
    ],
)
def test_state(systemd: Path, show: str, state: str, active: bool) -> None:
    (systemd / "show").write_text(show)
    assert asyncio.run(units.state("a.service")) == state
    assert asyncio.run(units.is_active("a.service")) is active


def test_a_failure_names_unit_state_reason_and_remedy(systemd: Path) -> None:
    (systemd / "show").write_text("LoadState=loaded\nActiveState=failed\n")
    (systemd / "verb").write_text("echo 'Job for a.service failed.' >&2; echo more >&2; exit 1")
    with pytest.raises(UnitError) as caught:
        asyncio.run(units.start("a.service"))
    assert str(caught.value) == "systemctl start a.service: Job for a.service failed; it is failed: see 'journalctl -u a.service -n 50'"


def test_a_call_is_bounded(systemd: Path) -> None:
    (systemd / "show").write_text("LoadState=loaded\nActiveState=activating\n")
    (systemd / "verb").write_text("exec sleep 3600")
    began = time.monotonic()
    with pytest.raises(UnitError, match=r"^systemctl stop a.service: it was not done within 0.3 s; it is activating: see "):
        asyncio.run(units.stop("a.service", timeout=0.3))
    assert time.monotonic() - began < 5


def test_no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "SYSTEMCTL", "/nowhere/systemctl")
    with pytest.raises(UnitError, match=r"^a.service: systemd does not tell its state: .*No such file"):
        asyncio.run(units.state("a.service"))
    with pytest.raises(UnitError, match="in an unknown state"):
        asyncio.run(units.start("a.service"))


def test_a_program_that_is_not_waited_for_any_more_is_killed(tmp_path: Path) -> None:
    async def cancel() -> int:
        running = asyncio.create_task(processes.run(["/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 3600"], 3600))
        while not (tmp_path / "pid").exists() or not (text := (tmp_path / "pid").read_text().strip()):
            assert not running.done()
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return int(text)

    pid = asyncio.run(cancel())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_a_program_says() -> None:
    assert asyncio.run(processes.run(["/bin/sh", "-c", "cat; echo out; echo err >&2; exit 3"], 10)) == (3, "out\n", "err\n")
    assert asyncio.run(processes.run(["/bin/sh", "-c", "kill -9 $$"], 10))[0] == -9
    assert asyncio.run(processes.run(["/nowhere"], 10))[0] == processes.RC_NOT_FOUND
    assert asyncio.run(processes.run(["/"], 10))[0] == processes.RC_CANNOT_RUN
    assert asyncio.run(processes.run(["sleep", "3600"], 0.1)) == (processes.RC_TIMEOUT, "", "no answer within 0.1 s")


# What systemd 252 answers, byte by byte, but for the number.
COUNTED = (
    b"l\x02\x01\x01\x08\x00\x00\x00\x01\x00\x00\x007\x00\x00\x00\x05\x01u\x00\x01\x00\x00\x00\x07\x01s\x00\x18\x00\x00\x00org.freedesktop."
    b"systemd1\x00\x00\x00\x00\x00\x00\x00\x00\x08\x01g\x00\x01v\x00\x00\x01u\x00\x00%b\x00\x00\x00"
)


def failing(systemd: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, states: str = "active\n\nfailed\n") -> list[str]:
    """What units.failed makes of a systemd that answers so."""
    monkeypatch.setattr(units, "PRIVATE", str(systemd / "private"))
    monkeypatch.setattr(units, "_PATIENCE", 10.0)
    (systemd / "show").write_text(states)

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(4096) == b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n"
        word, end, reply = answer.partition(b"\r\n")
        writer.write(word + end)
        asked = await reader.read(4096)
        assert not asked or (asked.startswith(b"l\x01\x00\x01") and b"NFailedUnits\0" in asked)
        writer.write(reply)
        await writer.drain()
        writer.close()

    async def ask() -> list[str]:
        async with await asyncio.start_unix_server(answers, units.PRIVATE):
            return await units.failed(["a.service", "b.service"])

    return asyncio.run(ask())


def test_no_program_is_run_while_nothing_has_failed(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failing(systemd, monkeypatch, b"OK 1234\r\n" + COUNTED % b"\0") == []
    assert not (systemd / "calls").exists()


def test_what_has_failed_is_named(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failing(systemd, monkeypatch, b"OK 1234\r\n" + COUNTED % b"\2") == ["b.service"]


@pytest.mark.parametrize("answer", [b"REJECTED EXTERNAL\r\n", b"OK 1234\r\n", b"OK 1234\r\nl\x02"])
def test_a_systemd_that_does_not_tell(systemd: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    with pytest.raises(UnitError, match="does not tell how many units have failed"):
        failing(systemd, monkeypatch, answer)
