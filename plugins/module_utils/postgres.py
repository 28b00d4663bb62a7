# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What PostgreSQL's files and programs say, and what follows from it: pure functions, no I/O.

WAL positions (LSN) are integers (bytes) inside, and ``X/X`` text, as PostgreSQL writes
them, outside. Timelines are integers. Sizes are bytes, durations seconds.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class PostgresError(Exception):
    """Something that PostgreSQL, its files or its programs would not do; the text is for the operator."""


def lsn(text: str) -> int:
    """The position that ``text`` (such as ``0/3000148``) names."""
    match = re.fullmatch(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", text.strip())
    if match is None:
        raise PostgresError(f"{text!r} is no WAL position: expected the form 0/3000148")
    return int(match[1], 16) << 32 | int(match[2], 16)


def lsn_text(position: int) -> str:
    """The inverse of :func:`lsn`."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


# pg_controldata -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ControlData:
    """What ``pg_controldata`` (run with LC_ALL=C) tells of a data directory, running or not."""

    state: str
    system_identifier: str
    timeline: int
    checkpoint: int
    redo: int
    min_recovery_end: int
    min_recovery_timeline: int
    wal_log_hints: bool
    checksums: bool
    full_page_writes: bool
    segment_size: int

    @property
    def stopped_cleanly(self) -> bool:
        return self.state in ("shut down", "shut down in recovery")

    @property
    def was_standby(self) -> bool:
        return self.state in ("shut down in recovery", "in archive recovery")

    @property
    def last_timeline(self) -> int:
        """The newest timeline that this cluster wrote or replayed, also where no checkpoint has recorded it yet."""
        return max(self.timeline, self.min_recovery_timeline)

    @property
    def known_position(self) -> int:
        """A position on :attr:`last_timeline` from which on its WAL is to be read to find where it ends."""
        if self.min_recovery_timeline == self.last_timeline and self.min_recovery_end:
            return self.min_recovery_end
        return self.checkpoint

    @property
    def rewind_obstacle(self) -> str | None:
        """Why pg_rewind cannot work on this cluster, whatever has happened to it; None if it can."""
        if not (self.wal_log_hints or self.checksums):
            return "it was written with neither wal_log_hints nor data checksums"
        if not self.full_page_writes:
            return "it was written with full_page_writes off"
        return None


def parse_control_data(text: str) -> ControlData:
    """Read the output of ``pg_controldata`` (PostgreSQL 15 to 18, LC_ALL=C)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip()] = value.strip()
    try:
        return ControlData(
            state=fields["Database cluster state"],
            system_identifier=fields["Database system identifier"],
            timeline=int(fields["Latest checkpoint's TimeLineID"]),
            checkpoint=lsn(fields["Latest checkpoint location"]),
            redo=lsn(fields["Latest checkpoint's REDO location"]),
            min_recovery_end=lsn(fields["Minimum recovery ending location"]),
            min_recovery_timeline=int(fields["Min recovery ending loc's timeline"]),
            wal_log_hints=fields["wal_log_hints setting"] == "on",
            checksums=int(fields["Data page checksum version"]) > 0,
            full_page_writes=fields["Latest checkpoint's full_page_writes"] == "on",
            segment_size=int(fields["Bytes per WAL segment"]),
        )
    except KeyError as missing:
        raise PostgresError(f"pg_controldata printed no line {missing}; it said: {text.strip()[:200]!r}") from None


def read_control_file(content: bytes) -> tuple[bool, int, int] | None:
    """Of global/pg_control: whether a primary was shut down, and timeline and position of the last checkpoint.

    A program for what is read at a hand-over would cost more than the shutdown. None for a version other than that of
    PostgreSQL 13 to 17: ask ``pg_controldata``.
    """
    _system, version, _catalog, state, _time, checkpoint, _redo, timeline = struct.unpack_from("=QIIi4xqQQI", content)
    return (state == 1, timeline, checkpoint) if version == 1300 else None


# Timelines ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """The part of a history that was written on one timeline; ``end`` is None on the newest."""

    timeline: int
    begin: int
    end: int | None


History = tuple[Span, ...]


def parse_history(text: str, timeline: int) -> History:
    """The history of ``timeline`` from its history file (empty for timeline 1, which has none), oldest span first."""
    spans: list[Span] = []
    begin = 0
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            ancestor, switch = int(words[0]), lsn(words[1])
        except (IndexError, ValueError, PostgresError):
            raise PostgresError(f"the history file of timeline {timeline} has an unreadable line: {line!r}") from None
        if ancestor >= timeline or (spans and ancestor <= spans[-1].timeline):
            raise PostgresError(f"the history file of timeline {timeline} names timeline {ancestor} out of order")
        spans.append(Span(ancestor, begin, switch))
        begin = switch
    return (*spans, Span(timeline, begin, None))


@dataclass(frozen=True)
class Fork:
    """Where two histories may part: up to ``position`` on ``timeline`` both claim the same WAL."""

    timeline: int
    position: int


def fork(local: History, local_end: int, source: History, source_end: int) -> Fork | None:
    """The last position that both histories claim; None when they share no timeline.

    A claim is no proof: timelines are only numbers, and clones of one machine image count alike.
    """
    found: Fork | None = None
    for mine, theirs in zip(local, source, strict=False):
        if (mine.timeline, mine.begin) != (theirs.timeline, theirs.begin):
            break
        ends = (mine.end, theirs.end, local_end, source_end)
        found = Fork(mine.timeline, min(end for end in ends if end is not None))
        if mine.end != theirs.end:
            break
    return found


def segment_file(timeline: int, position: int, segment_size: int) -> str:
    """The name of the WAL segment that holds the byte at ``position``."""
    per_log = 0x100000000 // segment_size
    number = position // segment_size
    return f"{timeline:08X}{number // per_log:08X}{number % per_log:08X}"


def record_end(position: int, length: int, segment_size: int) -> int:
    """Where the record of ``length`` bytes that begins at ``position`` ends, as a standby reports it when it was replayed.

    Each page of 8 KiB, the first of a segment more than the others, begins with a header that is no part of a record.
    """
    page = 8192
    left = (length + 7) // 8 * 8
    while True:
        room = page - position % page
        if left <= room:
            return position + left
        position, left = position + room, left - room
        position += 40 if position % segment_size == 0 else 24


def segment_files(history: History, position: int, segment_size: int) -> list[str]:
    """Files that may hold the byte at ``position`` for an owner of ``history``, in the order of trying.

    The server that was promoted inside a segment keeps the old timeline's part in the new
    timeline's file, so every later timeline that begins in the same segment is a candidate too.
    """
    number = position // segment_size
    last = position + segment_size - position % segment_size
    return [
        segment_file(span.timeline, number * segment_size, segment_size)
        for span in history
        if (span.end is None or span.end > position) and span.begin < last
    ]


# The decision -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Local:
    """The local cluster as the decision sees it.

    ``end`` of its WAL is None while it runs as a primary (it still grows). ``timelines`` are
    those that pg_wal has a history file of.
    """

    control: ControlData
    history: History
    end: int | None
    running: bool
    timelines: tuple[int, ...] = ()


@dataclass(frozen=True)
class Source:
    """The primary as the decision sees it."""

    system_identifier: str
    history: History
    end: int

    @property
    def timeline(self) -> int:
        return self.history[-1].timeline


@dataclass(frozen=True)
class Decision:
    """``method`` is follow (start it as it is, or leave it running), rewind or basebackup.

    ``only_behind``: the local data is a standby's, and nothing says that it has anything that the primary lacks.
    """

    method: str
    reason: str
    fork: Fork | None = None
    only_behind: bool = False


def decide(local: Local | None, source: Source, same_wal: bool | None, why_not: str = "") -> Decision:
    """How the local cluster becomes a standby of ``source``.

    ``same_wal``: the WAL of both before :func:`fork_of` is byte for byte the same; None if
    that could not be compared, with the cause in ``why_not``. Nothing but a comparison
    proves a common history: two clones of one image have the same system identifier and
    timeline numbers, and pg_rewind would find nothing to do.
    """
    if local is None:
        return Decision("basebackup", why_not or "there is no local cluster")
    mine = local.control
    if mine.system_identifier != source.system_identifier:
        return Decision(
            "basebackup",
            f"the local system identifier {mine.system_identifier} is not the primary's {source.system_identifier}",
        )
    # A standby follows the newest history that it finds in its pg_wal, wherever that leads.
    strange = sorted(
        {other for other in local.timelines if other > local.history[-1].timeline} - {span.timeline for span in source.history}
    )
    if strange:
        return Decision("basebackup", f"the local pg_wal knows timeline {strange[-1]}, which the primary's history does not have")
    point = fork_of(local, source)
    if point is None:
        return Decision("basebackup", "the two timeline histories have nothing in common")
    where = f"{lsn_text(point.position)} on timeline {point.timeline}"
    if same_wal is None:
        only_behind = mine.was_standby and local.end is not None and local.end <= point.position
        return Decision("basebackup", f"a common history up to {where} could not be proved: {why_not}", point, only_behind)
    if not same_wal:
        return Decision(
            "basebackup",
            f"same system identifier and timeline {point.timeline}, but the WAL before {where} differs: "
            "both servers have been primaries on it (clones of one image?)",
            point,
        )
    if local.end is not None and local.end <= point.position:
        return Decision("follow", f"the local WAL ends at {where}, inside the primary's history", point)
    if mine.last_timeline == source.timeline:
        return Decision(
            "basebackup",
            f"both are on timeline {source.timeline} and the local WAL goes on after {where}: pg_rewind cannot see a fork "
            "inside one timeline",
            point,
        )
    if mine.rewind_obstacle:
        return Decision("basebackup", f"diverged at {where}, and pg_rewind cannot be used: {mine.rewind_obstacle}", point)
    if not local.running and mine.state == "in archive recovery":
        return Decision("basebackup", f"diverged at {where} as a standby that was not shut down: pg_rewind cannot use it", point)
    return Decision("rewind", f"diverged at {where}", point)


def fork_of(local: Local, source: Source) -> Fork | None:
    """:func:`fork` of the two; a running primary counts as endless."""
    end = local.end if local.end is not None else 1 << 64
    return fork(local.history, end, source.history, source.end)


# Connection strings and postgresql.auto.conf ------------------------------------------------------------------


def conninfo(parameters: Mapping[str, object]) -> str:
    """A libpq connection string; empty values are left out."""
    words = []
    for name, value in parameters.items():
        text = str(value)
        if value is None or text == "":
            continue
        if not re.fullmatch(r"[A-Za-z0-9_./:,@+%*-]+", text):
            text = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
        words.append(f"{name}={text}")
    return " ".join(words)


def parse_conninfo(text: str) -> dict[str, str]:
    """The parameters of a libpq connection string; a password comes back as ``********``."""
    found: dict[str, str] = {}
    pattern = re.compile(r"\s*([A-Za-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s\\]|\\.)*))", re.DOTALL)
    position = 0
    while text[position:].strip():
        match = pattern.match(text, position)
        if match is None:
            raise PostgresError("the connection string is not of the form name=value name='value'")
        value = match[2] if match[2] is not None else match[3]
        found[match[1]] = "********" if match[1] == "password" else re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        position = match.end()
    return found


def render_auto_conf(text: str, settings: Mapping[str, str]) -> str:
    """``postgresql.auto.conf`` with ``settings`` in place of whatever it said about them, all else as it was."""
    kept = []
    for line in text.splitlines():
        match = re.match(r"\s*([A-Za-z_.]+)\s*[= ]", line)
        if match is None or match[1].lower() not in settings:
            kept.append(line)
    added = ["{} = '{}'".format(name, value.replace("\\", "\\\\").replace("'", "''")) for name, value in settings.items()]
    return "\n".join([*kept, *added, ""])


# What the programs print --------------------------------------------------------------------------------------


def parse_waldump_end(text: str) -> int | None:
    """The end of the last record, from ``pg_waldump --stats`` (PostgreSQL 15 or later)."""
    match = re.search(r"^WAL statistics between [0-9A-F]+/[0-9A-F]+ and ([0-9A-F]+/[0-9A-F]+):", text, re.MULTILINE)
    return lsn(match[1]) if match else None


def parse_progress(line: str) -> tuple[int, int] | None:
    """Bytes done and in all, from a progress line of pg_basebackup or pg_rewind."""
    match = re.match(r"\s*(\d+)/(\d+) kB \(\d+%\)", line)
    return (int(match[1]) * 1024, int(match[2]) * 1024) if match else None


def tail(text: str | Iterable[str], lines: int = 12) -> str:
    """The last non-empty ``lines`` of a text."""
    found: Sequence[str] = text.splitlines() if isinstance(text, str) else list(text)
    return "\n".join([line for line in found if line.strip()][-lines:])
