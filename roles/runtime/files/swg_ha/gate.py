# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What Heartbeat calls as the resource ha_gate: it tells ha_manager that Heartbeat gives the service here or takes it away.

It stands in the way of every failover, so it imports only what the interpreter has built in: it has asked ha_manager
10 ms after Heartbeat has called it. It always ends within its bounds, and `start` and `stop` always with 0: Heartbeat would
give up the resources after a start that fails, and reboot the server after a stop that does.
"""

from __future__ import annotations

import _socket
import errno
import posix
import sys
import time

STATE = "/run/ha_manager/gate"
CONTROL = "/run/ha_manager/control.sock"
LOG = "/dev/log"
# Seconds that Heartbeat waits for ha_manager to have settled.
BOUNDS = {"start": 10.0, "stop": 3.0}
USAGE = "usage: ha_gate [ADDRESS/PREFIX] start|stop|status|monitor"

_BETWEEN_ATTEMPTS = 0.05
_STOPPED = 3  # What a resource script's status ends with when its resource is stopped (LSB).
_ANSWER_BYTES = 65536
_DAEMON_INFO, _DAEMON_WARNING = 30, 28
# ha_manager is about to be there again, or about to have room.
_TRY_AGAIN = ("STOPPING", "BUSY")


class _NoAnswer(Exception):
    """Not yet; the text says why."""


def main(arguments: list[str]) -> int:
    """The exit code for what Heartbeat calls it with: optionally the address, then the action."""
    action = arguments[-1] if arguments else ""
    if len(arguments) > 2 or action not in (*BOUNDS, "status", "monitor"):
        print(USAGE, file=sys.stderr)
        return 2
    if action in BOUNDS:
        try:
            _tell(action)
        except Exception as error:
            _log(_DAEMON_WARNING, f"{action}: {type(error).__name__}: {error}")
        return 0
    running = _held()
    print("running" if running else "stopped")
    return 0 if running else _STOPPED


def _held() -> bool:
    """Whether Heartbeat has given the service to this server."""
    try:
        file = posix.open(STATE, posix.O_RDONLY)
    except OSError:
        return False
    try:
        return posix.read(file, 16).strip() == b"start"
    finally:
        posix.close(file)


def _tell(action: str) -> None:
    began = time.monotonic()
    problem = _keep(action)
    why = "it was not asked"
    while (left := began + BOUNDS[action] - time.monotonic()) > 0:
        try:
            answer = _ask(action, left)
            _log(_DAEMON_INFO, f"{action}: after {time.monotonic() - began:.2f} s ha_manager said: {answer}{problem}")
            return
        except _NoAnswer as reason:
            why = str(reason)
        time.sleep(max(0.0, min(_BETWEEN_ATTEMPTS, began + BOUNDS[action] - time.monotonic())))
    # A manager that is restarted reads the state and decides; what it raised stays, as it may be the one that serves.
    _log(
        _DAEMON_WARNING,
        f"{action}: no word from ha_manager within {BOUNDS[action]:g} s ({why}): the address stays as it is,"
        f" ha_manager decides when it runs: see 'systemctl status ha_manager'{problem}",
    )


def _keep(action: str) -> str:
    """Write the state down for `status` and for a manager that starts later. What went wrong, as the end of a sentence."""
    new = f"{STATE}.{posix.getpid()}"
    try:
        _make_folder()
        file = posix.open(new, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o644)
        try:
            posix.write(file, f"{action}\n".encode())
        finally:
            posix.close(file)
        posix.replace(new, STATE)
    except OSError as error:
        return f"; {STATE} was not written: {error.strerror}"
    return ""


def _make_folder() -> None:
    try:
        posix.mkdir(STATE.rpartition("/")[0], 0o755)
    except FileExistsError:
        return


def _ask(action: str, timeout: float) -> str:
    """ha_manager's answer, in short. Raises _NoAnswer."""
    deadline = time.monotonic() + timeout
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    received = b""
    try:
        connection.settimeout(timeout)
        connection.connect(CONTROL)
        connection.send(b'{"do": "gate", "action": "%s"}\n' % action.encode())
        while True:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            part = connection.recv(_ANSWER_BYTES)
            received += part
            *lines, rest = received.split(b"\n")
            for line in lines:
                if (answer := _outcome(line)) is not None:
                    return answer
            if not part or len(rest) > _ANSWER_BYTES:
                raise _NoAnswer("it ended before it answered")
            received = rest
    except TimeoutError:
        raise _NoAnswer("it has not settled") from None
    except OSError as error:
        gone = error.errno in (errno.ENOENT, errno.ECONNREFUSED)
        raise _NoAnswer("it does not run" if gone else str(error.strerror)) from None
    finally:
        connection.close()


def _outcome(line: bytes) -> str | None:
    """What a line of ha_manager's says; None: it is not the last one. Raises _NoAnswer."""
    # Not before: it takes as long to import as all the rest, and by now ha_manager knows.
    import json

    try:
        answer = json.loads(line)
        if "ok" not in answer:
            return None
        if answer.get("code") in _TRY_AGAIN:
            raise _NoAnswer(str(answer.get("error")))
        said = [str(answer[name]) for name in ("role", "code", "reason", "error") if answer.get(name)]
    except (ValueError, TypeError, AttributeError):
        raise _NoAnswer(f"its answer is garbled: {line[:80]!r}") from None
    return " ".join(": ".join(said).split()) or "settled"


def _log(priority: int, text: str) -> None:
    """One line to the system's log (RFC 3164)."""
    log = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        log.settimeout(1)
        log.sendto(f"<{priority}>ha_gate[{posix.getpid()}]: {text}".encode(), LOG)
    except OSError:
        pass  # There is nobody to tell.
    finally:
        log.close()
