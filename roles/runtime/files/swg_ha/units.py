# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""systemd's units, through systemctl. Every call is bounded; what was asked of systemd goes on when the time is over."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import struct
from collections.abc import Sequence

from . import processes
from .shared.heartbeat import RC_TIMEOUT

SYSTEMCTL = "systemctl"
# To ask or to send a signal, which systemd does at once.
_PATIENCE = 10.0
# Where systemd answers root without a bus, and what it is asked there: how many units have failed.
PRIVATE = "/run/systemd/private"
_MANAGER = "org.freedesktop.systemd1.Manager"
_COUNT = "NFailedUnits"


class UnitError(Exception):
    """systemd has not done what it was asked. The text names the unit, its state, why, and the command that tells more."""


async def start(unit: str, timeout: float = 60) -> None:
    """Start a unit and wait until systemd calls it started. Raises UnitError."""
    await _do("start", unit, timeout)


async def stop(unit: str, timeout: float = 60) -> None:
    """Stop a unit and wait until it is. Raises UnitError."""
    await _do("stop", unit, timeout)


async def restart(unit: str, timeout: float = 60) -> None:
    """Stop and start a unit and wait until systemd calls it started. Raises UnitError."""
    await _do("restart", unit, timeout)


async def reload(unit: str, timeout: float = 60) -> None:
    """Let a unit read its configuration again. Raises UnitError."""
    await _do("reload", unit, timeout)


async def kill(unit: str, number: signal.Signals = signal.SIGKILL, whom: str = "all") -> None:
    """Send a signal to the processes of a unit; whom: all, or main. Raises UnitError."""
    await _do("kill", unit, _PATIENCE, f"--signal={number.name}", f"--kill-who={whom}")


async def daemon_reload() -> None:
    """Let systemd read the units' files again. Raises UnitError."""
    rc, _out, err = await processes.run([SYSTEMCTL, "daemon-reload"], 30)
    if rc != 0:
        raise UnitError(f"systemctl daemon-reload: {_why(rc, err)}: see 'journalctl -b _PID=1 -n 50'")


async def reset_failed(unit: str) -> None:
    """Let systemd forget that a unit has failed. Raises UnitError."""
    await _do("reset-failed", unit, _PATIENCE)


async def is_active(unit: str) -> bool:
    return await state(unit) == "active"


async def state(unit: str) -> str:
    """active, reloading, inactive, failed, activating, deactivating, or not-found. Raises UnitError when systemd does not say."""
    rc, out, err = await processes.run([SYSTEMCTL, "show", "--property=LoadState,ActiveState", "--", unit], _PATIENCE)
    said = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    if rc != 0 or "ActiveState" not in said:
        raise UnitError(f"{unit}: systemd does not tell its state: {_why(rc, err)}: see 'systemctl status {unit}'")
    return "not-found" if said.get("LoadState") == "not-found" else said["ActiveState"]


async def failed(names: Sequence[str]) -> list[str]:
    """Those of the units that have failed. While none on this server has, no process is started. Raises UnitError."""
    try:
        async with asyncio.timeout(_PATIENCE):
            if await _failed_count() == 0:
                return []
    except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
        raise UnitError(f"systemd does not tell how many units have failed: {error or type(error).__name__}") from error
    if not names:
        return []
    rc, out, err = await processes.run([SYSTEMCTL, "show", "--property=ActiveState", "--value", "--", *names], _PATIENCE)
    states = out.split()
    if rc != 0 or len(states) != len(names):
        raise UnitError(f"systemd does not tell the state of {', '.join(names)}: {_why(rc, err)}")
    return [name for name, said in zip(names, states, strict=True) if said == "failed"]


async def _failed_count() -> int:
    """Ask systemd by D-Bus, in the few words that this takes. Raises OSError, ValueError, IncompleteReadError."""
    reader, writer = await asyncio.open_unix_connection(PRIVATE)
    with contextlib.closing(writer):
        # "30" is the 0 of root, in the hexadecimal that the protocol wants.
        writer.write(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n")
        if not (answer := await reader.readline()).startswith(b"OK "):
            raise ValueError(f"it answers {answer!r}")
        # Not before: systemd passes over what comes along with the BEGIN.
        writer.write(_get(_MANAGER, _COUNT))
        while True:
            start = await reader.readexactly(16)
            order = {b"l": "<", b"B": ">"}[start[:1]]
            body, _serial, fields = struct.unpack(f"{order}III", start[4:])
            await reader.readexactly(fields + -fields % 8)
            content = await reader.readexactly(body)
            if start[1] == 3:
                raise ValueError(f"it refuses: {content[4:]!r}")
            # A reply, and in it a variant: its signature "u", and the number at the next multiple of four.
            if start[1] == 2 and content[:3] == b"\1u\0":
                return int(struct.unpack(f"{order}I", content[4:8])[0])


def _get(interface: str, name: str) -> bytes:
    """The message that calls org.freedesktop.DBus.Properties.Get."""

    def text(value: str) -> bytes:
        return struct.pack("<I", len(value)) + value.encode() + b"\0"

    def aligned(data: bytes, to: int) -> bytes:
        return data + bytes(-len(data) % to)

    fields = b""
    for code, kind, value in (
        (1, "o", "/org/freedesktop/systemd1"),
        (2, "s", "org.freedesktop.DBus.Properties"),
        (3, "s", "Get"),
        (8, "g", "ss"),
    ):
        written = struct.pack("B", len(value)) + value.encode() + b"\0" if kind == "g" else text(value)
        fields = aligned(fields, 8) + struct.pack("BB", code, 1) + kind.encode() + b"\0" + written
    body = aligned(text(interface), 4) + text(name)
    head = b"l" + bytes((1, 0, 1)) + struct.pack("<III", len(body), 1, len(fields))
    return head + aligned(fields, 8) + body


async def _do(verb: str, unit: str, timeout: float, *options: str) -> None:
    rc, _out, err = await processes.run([SYSTEMCTL, verb, "--no-ask-password", "--quiet", *options, "--", unit], timeout)
    if rc != 0:
        why = f"it was not done within {timeout:g} s" if rc == RC_TIMEOUT else _why(rc, err)
        raise UnitError(f"systemctl {verb} {unit}: {why}; it is {await _state_or_unknown(unit)}: see 'journalctl -u {unit} -n 50'")


async def _state_or_unknown(unit: str) -> str:
    try:
        return await state(unit)
    except UnitError:
        return "in an unknown state"


def _why(rc: int, err: str) -> str:
    lines = err.strip().splitlines()
    return lines[0].rstrip(".") if lines else f"exit code {rc}"
