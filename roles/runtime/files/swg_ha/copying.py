# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Copies one replicated file or folder to the other server, once: what the unit ha_copy@ runs.

rsync does the copying. This decides whether the source may be believed (what is missing, empty or not mounted empties no copy),
over which link it goes, and puts down what came of it. It runs at every change, so it imports only what starts quickly.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RUN = "/run/ha_files"
STATE = "/var/lib/ha_files"
SSH_CONFIG = "/etc/ha_manager/ssh_config"
MOUNTS = "/proc/self/mountinfo"
LANDING = "ha/"
# What a power cut leaves half-written there is in nobody's way. For rrsync the path begins at the folder that it opens to this server;
# some versions of it leave it to rsync, for which it then begins at the landing area. So both have such a folder.
INCOMING = "/.incoming"

# The codes of what keeps a file from being copied; they never change their meaning.
MISSING, EMPTY, NOT_MOUNTED, FAILED = "FILE_SOURCE_MISSING", "FILE_SOURCE_EMPTY", "FILE_NOT_MOUNTED", "FILE_FAILED"

# Seconds without a byte after which a link counts as dead, and those that a new connection gets.
SILENCE, CONNECT = 20, 8.0
# sshd lets ten sessions into one connection.
SLOTS = 8
# A copy that took long is followed by a rest as long, at most this: a folder that always changes must not keep the server busy.
WORTH_A_REST, LONGEST_REST = 0.5, 10.0
ANSWERED = ("No space left", "rrsync error", "refused: ", "temp-dir")
VANISHED = 24  # rsync: files were removed while it copied; the rest is there.
TRANSPORT = (5, 10, 12, 30, 35, 255)  # rsync: the connection, rather than a file.
NOTES = 20
MOST_ERRORS = 16384

Fields = dict[str, list[str]]


class Trouble(Exception):
    """Why there is no copy of it now; code is one of those above."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def main(arguments: list[str], run: str = RUN, state: str = STATE) -> int:
    """Copy the entry with this id. What came of it is in its state, so the exit code is 0 unless that cannot be written."""
    if len(arguments) != 1:
        print("usage: ha_copy ID", file=sys.stderr)
        return 2
    Copy(arguments[0], run, state).make()
    return 0


# A text of lines `name value`, a name once for each value. JSON takes longer to import than all the rest.


def parse(text: str) -> Fields:
    fields: Fields = {}
    for line in text.splitlines():
        name, _blank, value = line.partition(" ")
        fields.setdefault(name, []).append(value)
    return fields


def render(fields: Fields) -> str:
    return "".join(f"{name} {printable(value)}\n" for name, values in fields.items() for value in values)


def printable(text: str) -> str:
    """On one line, and UTF-8 whatever bytes a name has."""
    readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in readable)


def read(path: str) -> Fields:
    """What is in such a file; nothing when there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return parse(file.read())
    except FileNotFoundError:
        return {}


def write(path: str, fields: Fields) -> None:
    """Put them into the file, on the disk, as a whole. Raises OSError."""
    new = f"{path}.new"
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, render(fields).encode())
        os.fsync(file)
    finally:
        os.close(file)
    os.replace(new, path)


def touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def remove(path: str) -> bool:
    """Whether it was there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def mounted(table: str) -> set[str]:
    """Every mount point in /proc/self/mountinfo."""
    return {_unescaped(line.split(" ")[4]) for line in table.splitlines()}


def mounts(path: str, points: set[str]) -> list[str]:
    """Those that a path and what is below it lie on."""
    below = {point for point in points if point.startswith(f"{path}/")}
    above = max((point for point in points if path == point or path.startswith(f"{point.rstrip('/')}/")), key=len, default="/")
    return sorted({above} | below)


def _unescaped(text: str) -> str:
    """The kernel writes a blank, a tab, a line feed and a backslash as octal."""
    first, *others = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in others)


def number(fields: Fields, name: str) -> float:
    try:
        return float(fields.get(name, ["0"])[-1])
    except ValueError:
        return 0.0


class Copy:
    """One entry, and one attempt to copy it."""

    def __init__(self, id: str, run: str = RUN, state: str = STATE) -> None:
        self.run = run
        self.state = os.path.join(state, id)
        self.file = os.path.join(run, id)
        self.entry = read(f"{self.file}.entry")
        self.before = read(self.state)
        self.name = self.entry.get("name", [""])[-1]
        self.said: list[str] = []

    def make(self) -> None:
        """Copy it, and put down what came of it."""
        self._rest()
        # Before the flag goes: a hand-over that sees neither thinks that everything is copied.
        with _Slot(self.run, self.entry.get("id", [""])[-1]):
            self._attempt()

    def _attempt(self) -> None:
        began, at = time.monotonic(), time.time()
        # First: whatever changes from now on makes another copy.
        remove(f"{self.file}.changed")
        accepted = remove(f"{self.file}.accept")
        now: Fields = {"name": [self.name], "attempt": [f"{at:.3f}"]}
        good = {name: values for name, values in self.before.items() if name.startswith("good_")}
        failures, in_a_row = int(number(self.before, "failures")), int(number(self.before, "in_a_row"))
        try:
            if not self.name:
                raise Trouble(FAILED, f"{self.file}.entry is missing: 'systemctl reload ha_manager' writes it")
            good = self._copy(accepted) | {
                "good_at": [f"{at:.3f}"],
                "good_seconds": [f"{time.monotonic() - began:.3f}"],
            }
            in_a_row = 0
        except Exception as error:
            # Whatever it is, it is told, and tried again.
            code = error.code if isinstance(error, Trouble) else FAILED
            failures, in_a_row = failures + 1, in_a_row + 1
            now |= {"code": [code], "error": [" ".join(str(error).split())]}
        now |= good | {
            "attempts": [str(int(number(self.before, "attempts")) + 1)],
            "failures": [str(failures)],
            "in_a_row": [str(in_a_row)],
            "ended": [f"{time.time():.3f}"],
            "seconds": [f"{time.monotonic() - began:.3f}"],
            "left_out": self.said,
        }
        remove(f"{self.file}.progress")
        write(self.state, now)

    def _rest(self) -> None:
        took, ago = number(self.before, "seconds"), time.time() - number(self.before, "ended")
        if took > WORTH_A_REST and 0 <= ago < (rest := min(took, LONGEST_REST)):
            time.sleep(rest - ago)

    # The source

    def _copy(self, accepted: bool) -> Fields:
        """What is to be remembered of a good copy. Raises Trouble."""
        if self._believed(accepted) is None:
            return {"good_absent": ["1"]}
        source, points, counted = self._over_a_link(accepted)
        if stat.S_ISREG(source.st_mode):
            # What was written meanwhile may be in the copy by halves.
            if _seen(self.name) != _marks(source):
                touch(f"{self.file}.changed")
        elif self.entry.get("inotify") == ["1"] and not os.path.exists(f"{self.file}.tree"):
            _run(["systemctl", "start", "--no-block", f"ha_tree@{self.entry['id'][-1]}.service"])
        return {"good_mounts": mounts(self.name, points), **counted}

    def _believed(self, accepted: bool) -> tuple[os.stat_result, set[str], list[str]] | None:
        """The source, where something is mounted, and rsync's options for it; None: there never was one. Raises Trouble."""
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as table:
            points = mounted(table.read())
        gone = [point for point in self.before.get("good_mounts", []) if point not in points]
        remedy = f"'ha replicate --accept {self.name}' copies it as it is now"
        if gone and not accepted:
            raise Trouble(NOT_MOUNTED, f"{gone[0]} is not mounted, the copy stays as it is: mount it, or {remedy}")
        had_content, had_entries = number(self.before, "good_size") > 0, number(self.before, "good_entries") > 0
        try:
            source = os.lstat(self.name)
        except (FileNotFoundError, NotADirectoryError):
            if had_content or had_entries:
                text = "it is not there, the copy stays as it is: put it back, or take it off the list in the HA configuration"
                raise Trouble(MISSING, text) from None
            return None
        if stat.S_ISLNK(source.st_mode):
            target = os.readlink(self.name)
            raise Trouble(FAILED, f"it is a symbolic link to {target}: name in its place what it points to in the HA configuration")
        if not stat.S_ISREG(source.st_mode) and not stat.S_ISDIR(source.st_mode):
            raise Trouble(FAILED, "it is neither a file nor a folder")
        folder = stat.S_ISDIR(source.st_mode)
        empty = _empty(self.name) if folder else source.st_size == 0
        if not empty or accepted:
            return source, points, ["--delete"]
        # A file is an entry itself: only one that had something in it has lost it.
        if had_content or (folder and had_entries):
            raise Trouble(EMPTY, f"it is empty, the copy stays as it is: fill it, or {remedy}")
        # Nobody remembers whether there is a copy with something in it.
        return source, points, ["--ignore-existing"]

    # The way

    def _over_a_link(self, accepted: bool) -> tuple[os.stat_result, set[str], Fields]:
        """The source, where something was mounted, and what rsync counted. Raises Trouble."""
        links = self.entry.get("link", [])
        # The one that the last copy went over: one that is dead is not tried every time.
        last = read(f"{self.run}/link").get("link", [])
        problems: list[str] = []
        for link in sorted(links, key=lambda link: link not in last):
            try:
                self._connect(link)
                # Once more: a link that hangs may have taken half a minute, and rsync deletes there what is gone here.
                believed = self._believed(accepted)
                if believed is None:
                    raise Trouble(MISSING, "it went while it was to be copied for the first time")
                source, points, options = believed
                counted = self._rsync(link, options)
            except _LinkFailed as failed:
                problems.append(f"{link}: {failed}")
                # What hangs there would hang the next one too.
                _run(["systemctl", "stop", "--no-block", f"ha_ssh@{link}.service"])
                continue
            if [link] != last:
                self._prefer(link)
            return source, points, counted | {"good_link": [link]}
        raise Trouble(FAILED, "; ".join(problems) or "no link to the other server is known")

    def _prefer(self, link: str) -> None:
        try:
            write(f"{self.run}/link", {"link": [link]})
        except OSError:
            # Another copy was about to write the same.
            return

    def _connect(self, link: str) -> None:
        """A connection that stays open makes a copy quick. Raises _LinkFailed."""
        if not os.path.exists(f"{self.run}/{link}"):
            code, _errors = _run(["systemctl", "start", f"ha_ssh@{link}.service"])
            if code:
                raise _LinkFailed(f"no connection: see 'journalctl -u ha_ssh@{link}'")

    def _rsync(self, link: str, options: list[str]) -> Fields:
        """Run it. What it counted; raises _LinkFailed, Trouble."""
        argv = ["rsync", "--links", "--perms", "--times", "--group", "--owner", "--recursive", "--relative", "--numeric-ids"]
        argv += ["--remote-option=--fake-super", f"--timeout={SILENCE}", f"--temp-dir={INCOMING}", "--stats", "--no-human-readable"]
        # Nanoseconds count: of two versions within one second, with one size, the second one is another one too. The receiver compares,
        # and rrsync does not know the short name that rsync itself would give the option.
        argv += ["--remote-option=--modify-window=-1", "--info=nonreg,progress2", "--outbuf=L", *options]
        argv += [f"--rsh=ssh -F {SSH_CONFIG}", "--", self.name, f"{link}:{LANDING}"]
        counted: Fields = {}
        self.said = []

        def hear(line: str) -> None:
            label, colon, value = line.partition(": ")
            if line.startswith("skipping non-regular file"):
                if len(self.said) < NOTES:
                    self.said.append(line.partition('"')[2].rpartition('"')[0])
            elif colon and label == "Number of files":
                counted["good_entries"] = [str(_entries(value))]
            elif colon and label in COUNTS:
                counted[COUNTS[label]] = [value.split(" ")[0]]
            elif "%" in line:
                self._tell(line)

        code, errors = _run(argv, hear)
        # rsync's own summary comes last, and says only that something went wrong.
        lines = [line for line in errors.splitlines() if line.strip()]
        telling = [line for line in lines if not line.startswith("rsync error:")] or lines
        why = telling[0] if telling else f"rsync ended with {code}"
        # What the other server says of itself is the same over any link.
        if code in TRANSPORT and not any(words in errors for words in ANSWERED):
            raise _LinkFailed(why)
        if code not in (0, VANISHED):
            raise Trouble(FAILED, why)
        return counted

    def _tell(self, line: str) -> None:
        try:
            with open(f"{self.file}.progress", "w") as file:
                file.write(line)
        except OSError:
            return


# What rsync counts, and how it is remembered.
COUNTS = {
    "Number of regular files transferred": "good_files",
    "Total file size": "good_size",
    "Total transferred file size": "good_bytes",
}


class _LinkFailed(Exception):
    """It may work over another link."""


class _Slot:
    """One of a few places for copies that go at the same time: a free one, or the entry's own when none is."""

    def __init__(self, run: str, id: str) -> None:
        self._run = run
        self._own = sum(id.encode()) % SLOTS
        self._file = -1

    def __enter__(self) -> None:
        order = [self._own, *(slot for slot in range(SLOTS) if slot != self._own)]
        for slot in order:
            if self._take(slot, fcntl.LOCK_EX | fcntl.LOCK_NB):
                return
        self._take(self._own, fcntl.LOCK_EX)

    def _take(self, slot: int, how: int) -> bool:
        file = os.open(f"{self._run}/slot{slot}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, how)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def __exit__(self, *_error: object) -> None:
        os.close(self._file)


def _entries(text: str) -> int:
    """Of ``12 (reg: 4, dir: 5, link: 2, special: 1)`` what the folders are there for."""
    counts = dict(part.split(": ") for part in text.partition("(")[2].rstrip(")").split(", ") if ": " in part)
    return sum(int(counts.get(kind, "0")) for kind in ("reg", "link"))


def _marks(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _seen(path: str) -> tuple[int, int, int] | None:
    try:
        return _marks(os.lstat(path))
    except OSError:
        return None


def busy(run: str) -> bool:
    """Whether a copy is under way."""
    for slot in range(SLOTS):
        try:
            file = os.open(f"{run}/slot{slot}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
    return False


def _empty(folder: str) -> bool:
    with os.scandir(folder) as found:
        return next(found, None) is None


def _run(argv: list[str], hear: Callable[[str], object] = len) -> tuple[int, str]:
    """(exit code, standard error) of a program; hear gets each line of its output, as it comes. Raises Trouble."""
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, out_end, 1),
        (os.POSIX_SPAWN_DUP2, err_end, 2),
    ]
    try:
        pid = os.posix_spawnp(argv[0], argv, environment, file_actions=actions)
    except OSError as error:
        for end in (out, err):
            os.close(end)
        raise Trouble(FAILED, f"{argv[0]} cannot be run: {error.strerror}") from error
    finally:
        os.close(out_end)
        os.close(err_end)
    said = {out: b"", err: b""}
    poll = select.poll()
    for end in said:
        poll.register(end, select.POLLIN)
    listening = len(said)
    while listening:
        for end, _event in poll.poll():
            part = os.read(end, 65536)
            if not part:
                poll.unregister(end)
                os.close(end)
                listening -= 1
            elif end == err:
                # The first lines tell what went wrong.
                said[err] += part[: MOST_ERRORS - len(said[err])]
            else:
                *lines, said[out] = (said[out] + part).replace(b"\r", b"\n").split(b"\n")
                for line in lines:
                    hear(line.decode(errors="surrogateescape"))
    _pid, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), said[err].decode(errors="surrogateescape")
