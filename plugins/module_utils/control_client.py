# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Speaking with ha_manager over its control socket: one line of JSON there, lines of JSON back, the last of which has "ok"."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SOCKET = Path("/run/ha_manager/control.sock")
MAX_ANSWER = 16 * 2**20

Progress = Callable[[str], None]


class ControlError(Exception):
    """No answer, or a refusal. code: NOT_RUNNING, NOT_ALLOWED, TIMEOUT, LOST, GARBLED, or the answer's own."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def ask(request: dict[str, Any], *, path: Path = SOCKET, timeout: float, progress: Progress | None = None) -> dict[str, Any]:
    """ha_manager's answer, within timeout seconds in all. What was asked for goes on when the time is over.

    Raises ControlError.
    """
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(timeout)
            connection.connect(str(path))
            with contextlib.suppress(BrokenPipeError):  # Refused before it was asked: the answer says why.
                connection.sendall(json.dumps(request).encode() + b"\n")
            for line in _lines(connection, deadline):
                answer = _parse(line)
                if "ok" not in answer:
                    if progress is not None:
                        progress(str(answer.get("progress", "")))
                elif answer["ok"] is True:
                    return answer
                else:
                    raise ControlError(str(answer.get("code")), str(answer.get("error")))
        except (FileNotFoundError, ConnectionRefusedError):
            raise ControlError("NOT_RUNNING", "ha_manager does not run: start it with 'systemctl start ha_manager'") from None
        except PermissionError:
            raise ControlError("NOT_ALLOWED", "only root may speak with ha_manager: use sudo") from None
        except (TimeoutError, BlockingIOError):
            raise ControlError("TIMEOUT", f"ha_manager has not answered within {timeout:g} s: see 'journalctl -u ha_manager'") from None
        except OSError as error:
            raise ControlError("LOST", f"{error.strerror or error}: see 'systemctl status ha_manager'") from None
    raise ControlError("LOST", "ha_manager ended before it answered: see 'systemctl status ha_manager'")


def _lines(connection: socket.socket, deadline: float) -> Iterator[bytes]:
    """Lines as they come, to the end. Raises TimeoutError and OSError."""
    buffer = bytearray()
    while True:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        received = connection.recv(64 * 1024)
        if not received:
            return
        buffer += received
        while (end := buffer.find(b"\n")) >= 0:
            yield bytes(buffer[:end])
            del buffer[: end + 1]
        if len(buffer) > MAX_ANSWER:
            raise ControlError("GARBLED", f"ha_manager's answer is longer than {MAX_ANSWER} bytes")


def _parse(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ControlError("GARBLED", f"ha_manager's answer is not a JSON object: {line[:80]!r}")
    return answer
