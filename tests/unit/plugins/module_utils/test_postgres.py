# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.swg.ha.plugins.module_utils.postgres import (
    ControlData,
    Fork,
    Local,
    PostgresError,
    Source,
    Span,
    conninfo,
    decide,
    fork,
    lsn,
    lsn_text,
    parse_conninfo,
    parse_control_data,
    parse_history,
    parse_progress,
    parse_waldump_end,
    record_end,
    render_auto_conf,
    segment_file,
    segment_files,
    tail,
)

# pg_controldata of PostgreSQL 15 on a primary, and of 17 on a standby that replays timeline 3.
PRIMARY_15 = """\
pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7711057175784680495
Database cluster state:               in production
pg_control last modified:             Sun Nov 22 18:00:06 2026
Latest checkpoint location:           0/17529B0
Latest checkpoint's REDO location:    0/17529B0
Latest checkpoint's REDO WAL file:    000000010000000000000001
Latest checkpoint's TimeLineID:       1
Latest checkpoint's PrevTimeLineID:   1
Latest checkpoint's full_page_writes: on
Latest checkpoint's NextXID:          0:724
Latest checkpoint's newestCommitTsXid:0
Time of latest checkpoint:            Sun Nov 22 18:00:05 2026
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   0
Backup start location:                0/0
Backup end location:                  0/0
End-of-backup record required:        no
wal_level setting:                    replica
wal_log_hints setting:                on
max_connections setting:              100
WAL block size:                       8192
Bytes per WAL segment:                16777216
Data page checksum version:           1
Mock authentication nonce:            083d42135799fff7464e774ae244cbc2af84a1d4952f803c92cb94f1a8937e8e
"""
STANDBY_17 = """\
pg_control version number:            1700
Catalog version number:               202406281
Database system identifier:           7711059541659220307
Database cluster state:               in archive recovery
pg_control last modified:             Sun Nov 22 19:06:46 2026
Latest checkpoint location:           0/304C250
Latest checkpoint's REDO location:    0/304C1F8
Latest checkpoint's REDO WAL file:    000000020000000000000003
Latest checkpoint's TimeLineID:       2
Latest checkpoint's PrevTimeLineID:   2
Latest checkpoint's full_page_writes: on
Latest checkpoint's NextXID:          0:752
Time of latest checkpoint:            Sun Nov 22 19:06:23 2026
Fake LSN counter for unlogged rels:   0/3E8
Minimum recovery ending location:     0/3071D10
Min recovery ending loc's timeline:   3
Backup start location:                0/0
Backup end location:                  0/0
End-of-backup record required:        no
wal_level setting:                    replica
wal_log_hints setting:                on
WAL block size:                       8192
Bytes per WAL segment:                16777216
Data page checksum version:           0
Mock authentication nonce:            7c792b3c47d28160619370eda66e58c92d613b837519fc6e6e846e57beeec8c8
"""
# The history file of that standby's timeline.
HISTORY_3 = "1\t0/304C0F0\tno recovery target specified\n\n2\t0/3071B38\tno recovery target specified\n"

MIB = 1 << 20
SEGMENT = 16 * MIB


@pytest.mark.parametrize("text", ["0/0", "0/3000148", "2A/FFFFFFFF", "FFFFFFFF/1"])
def test_lsn_there_and_back(text: str) -> None:
    assert lsn_text(lsn(text)) == text


@pytest.mark.parametrize("text", ["", "0", "0/", "0/G", "0/1 0/2", "123456789/0"])
def test_what_is_no_lsn(text: str) -> None:
    with pytest.raises(PostgresError, match="is no WAL position"):
        lsn(text)


def test_control_data_of_a_primary() -> None:
    found = parse_control_data(PRIMARY_15)
    assert found == ControlData(
        state="in production",
        system_identifier="7711057175784680495",
        timeline=1,
        checkpoint=lsn("0/17529B0"),
        redo=lsn("0/17529B0"),
        min_recovery_end=0,
        min_recovery_timeline=0,
        wal_log_hints=True,
        checksums=True,
        full_page_writes=True,
        segment_size=SEGMENT,
    )
    assert (found.stopped_cleanly, found.was_standby, found.rewind_obstacle) == (False, False, None)
    assert (found.last_timeline, found.known_position) == (1, lsn("0/17529B0"))


def test_control_data_of_a_standby_on_a_timeline_without_a_checkpoint() -> None:
    found = parse_control_data(STANDBY_17)
    assert (found.timeline, found.last_timeline, found.known_position) == (2, 3, lsn("0/3071D10"))
    assert (found.was_standby, found.stopped_cleanly, found.checksums) == (True, False, False)


@pytest.mark.parametrize(
    ("hints", "checksums", "full_page_writes", "obstacle"),
    [
        (True, False, True, None),
        (False, True, True, None),
        (False, False, True, "it was written with neither wal_log_hints nor data checksums"),
        (True, True, False, "it was written with full_page_writes off"),
    ],
)
def test_what_a_rewind_needs(hints: bool, checksums: bool, full_page_writes: bool, obstacle: str | None) -> None:
    found = replace(CONTROL, wal_log_hints=hints, checksums=checksums, full_page_writes=full_page_writes)
    assert found.rewind_obstacle == obstacle


def test_control_data_that_lacks_a_line() -> None:
    with pytest.raises(PostgresError, match="printed no line 'Database cluster state'.*could not open"):
        parse_control_data("pg_controldata: error: could not open file")


def test_history() -> None:
    assert parse_history("", 1) == (Span(1, 0, None),)
    assert parse_history("# a comment\n" + HISTORY_3, 3) == (
        Span(1, 0, lsn("0/304C0F0")),
        Span(2, lsn("0/304C0F0"), lsn("0/3071B38")),
        Span(3, lsn("0/3071B38"), None),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 nowhere", "unreadable line: '1 nowhere'"),
        ("one 0/1", "unreadable line"),
        ("1", "unreadable line"),
        ("3 0/1", "names timeline 3 out of order"),
        ("2 0/1\n1 0/2", "names timeline 1 out of order"),
    ],
)
def test_history_that_is_broken(text: str, complaint: str) -> None:
    with pytest.raises(PostgresError, match=complaint):
        parse_history(text, 3)


ONE = parse_history("", 1)
TWO = parse_history("1\t0/5000000\tx", 2)
TWO_EARLIER = parse_history("1\t0/4000000\tx", 2)
THREE = parse_history("1\t0/5000000\tx\n2\t0/7000000\tx", 3)


@pytest.mark.parametrize(
    ("local", "local_end", "source", "source_end", "expected"),
    [
        pytest.param(ONE, "0/4000000", ONE, "0/9000000", (1, "0/4000000"), id="behind on the same timeline"),
        pytest.param(ONE, "0/9000000", ONE, "0/4000000", (1, "0/4000000"), id="ahead on the same timeline"),
        pytest.param(ONE, "0/4000000", TWO, "0/9000000", (1, "0/4000000"), id="an ancestor, before the fork"),
        pytest.param(ONE, "0/6000000", TWO, "0/9000000", (1, "0/5000000"), id="an ancestor, after the fork"),
        pytest.param(TWO, "0/6000000", ONE, "0/9000000", (1, "0/5000000"), id="promoted, the primary was not"),
        pytest.param(TWO, "0/6000000", TWO_EARLIER, "0/9000000", (1, "0/4000000"), id="both were promoted"),
        pytest.param(TWO, "0/6000000", THREE, "0/9000000", (2, "0/6000000"), id="two promotions, before the second"),
        pytest.param(TWO, "0/8000000", THREE, "0/9000000", (2, "0/7000000"), id="two promotions, after the second"),
        pytest.param((Span(5, 0, None),), "0/1000000", ONE, "0/9000000", None, id="nothing in common"),
    ],
)
def test_where_histories_part(local, local_end: str, source, source_end: str, expected) -> None:
    found = fork(local, lsn(local_end), source, lsn(source_end))
    assert found == (expected and Fork(expected[0], lsn(expected[1])))


@pytest.mark.parametrize(
    ("timeline", "position", "size", "name"),
    [
        (1, "0/0", SEGMENT, "000000010000000000000000"),
        (1, "0/1FFFFFF", SEGMENT, "000000010000000000000001"),
        (16, "2/FF000000", SEGMENT, "0000001000000002000000FF"),
        (1, "1/0", SEGMENT, "000000010000000100000000"),
        (1, "0/1400000", 4 * MIB, "000000010000000000000005"),
        (1, "1/400000", MIB, "000000010000000100000004"),
    ],
)
def test_segment_names(timeline: int, position: str, size: int, name: str) -> None:
    assert segment_file(timeline, lsn(position), size) == name


@pytest.mark.parametrize(
    ("begin", "length", "end"),
    [
        ("0/3000028", 114, "0/30000A0"),
        # To the last byte of the page, and one word more.
        ("0/3001F88", 120, "0/3002000"),
        ("0/3001F88", 121, "0/3002020"),
        # Into the first page of the next segment, whose header is longer.
        ("0/3FFFFC0", 114, "0/4000060"),
        # Over two pages.
        ("0/3001FF8", 8192, "0/3004028"),
    ],
)
def test_the_end_of_a_record_leaves_out_the_headers_of_pages(begin: str, length: int, end: str) -> None:
    assert lsn_text(record_end(lsn(begin), length, 16 << 20)) == end


@pytest.mark.parametrize(
    ("position", "names"),
    [
        pytest.param("0/4FFFFFF", ["000000010000000000000004"], id="before the segment of the fork"),
        pytest.param("0/5000010", ["000000010000000000000005", "000000020000000000000005"], id="before the fork, in its segment"),
        pytest.param("0/5000200", ["000000020000000000000005"], id="after the fork"),
    ],
)
def test_files_that_may_hold_a_byte(position: str, names: list[str]) -> None:
    history = parse_history("1\t0/5000100\tx", 2)
    assert segment_files(history, lsn(position), SEGMENT) == names


CONTROL = parse_control_data(PRIMARY_15)
CLEAN = replace(CONTROL, state="shut down", system_identifier="7")
SOURCE = Source("7", TWO, lsn("0/9000000"))


def local(end: str | None, *, history=ONE, running: bool = False, timelines: tuple[int, ...] = (), **control: object) -> Local:
    found = replace(CLEAN, **{"timeline": history[-1].timeline, **control})
    return Local(found, history, None if end is None else lsn(end), running, timelines)


@pytest.mark.parametrize(
    ("cluster", "same", "method", "reason"),
    [
        pytest.param(None, None, "basebackup", "there is no local cluster", id="nothing there"),
        pytest.param(local("0/1", system_identifier="8"), None, "basebackup", "identifier 8 is not the primary's 7", id="another system"),
        pytest.param(local("0/4000000"), True, "follow", "ends at 0/4000000 on timeline 1", id="behind the fork"),
        pytest.param(local("0/5000000"), True, "follow", "inside the primary's history", id="at the fork"),
        pytest.param(local("0/5000001"), True, "rewind", "diverged at 0/5000000 on timeline 1", id="after the fork"),
        pytest.param(local(None, running=True), True, "rewind", "diverged at 0/5000000", id="still running as a primary"),
        pytest.param(local("0/4000000"), False, "basebackup", "clones of one image", id="a clone, before the fork"),
        pytest.param(local("0/6000000"), False, "basebackup", "clones of one image", id="a clone, after the fork"),
        pytest.param(local("0/4000000"), None, "basebackup", "could not be proved: because", id="no proof, before the fork"),
        pytest.param(local("0/6000000"), None, "basebackup", "could not be proved: because", id="no proof, after the fork"),
        pytest.param(local("0/8000000", history=TWO), True, "follow", "on timeline 2", id="a standby behind"),
        pytest.param(local("0/9000001", history=TWO), True, "basebackup", "cannot see a fork inside one timeline", id="ahead"),
        pytest.param(
            local(None, history=TWO, running=True), True, "basebackup", "inside one timeline", id="a primary on the same timeline"
        ),
        pytest.param(local("0/8000000", history=TWO_EARLIER), True, "basebackup", "both are on timeline 2", id="both were promoted"),
        pytest.param(local("0/8000000", history=THREE), True, "rewind", "diverged at 0/7000000 on timeline 2", id="promoted by mistake"),
        pytest.param(local("0/4000000", timelines=(3,)), True, "basebackup", "pg_wal knows timeline 3", id="a foreign history"),
        pytest.param(local("0/4000000", timelines=(2,)), True, "follow", "inside", id="the history of the primary"),
        pytest.param(local("0/1", history=(Span(5, 0, None),)), None, "basebackup", "nothing in common", id="no common timeline"),
        pytest.param(
            local("0/6000000", wal_log_hints=False, checksums=False), True, "basebackup", "neither wal_log_hints", id="no hints logged"
        ),
        pytest.param(local("0/6000000", state="in production"), True, "rewind", "diverged", id="crashed"),
        pytest.param(local("0/6000000", state="in archive recovery"), True, "basebackup", "not shut down", id="a standby, crashed"),
        pytest.param(local("0/6000000", state="in archive recovery", running=True), True, "rewind", "diverged", id="a standby, running"),
        pytest.param(local("0/6000000", state="shut down in recovery"), True, "rewind", "diverged", id="a standby, stopped"),
    ],
)
def test_decision(cluster: Local | None, same: bool | None, method: str, reason: str) -> None:
    found = decide(cluster, SOURCE, same, "because" if cluster and same is None else "")
    assert found.method == method
    assert reason in found.reason


@pytest.mark.parametrize("end", ["0/1000000", "0/9000000", "0/A000000", None])
def test_the_same_timeline_is_never_rewound_and_followed_only_by_proof(end: str | None) -> None:
    source = Source("7", ONE, lsn("0/9000000"))
    cluster = local(end, running=end is None)
    assert decide(cluster, source, True).method in ("follow", "basebackup")
    assert decide(cluster, source, False).method == "basebackup"
    assert decide(cluster, source, None).method == "basebackup"


@pytest.mark.parametrize(
    "parameters",
    [
        {"host": "192.0.2.11,198.51.100.11", "port": "5432", "passfile": "/etc/postgresql/15/main/swg_ha.pgpass"},
        {"application_name": "it's a \\ name", "user": "x y"},
        {"sslmode": "verify-full", "options": "-c a=b"},
    ],
)
def test_connection_strings_there_and_back(parameters: dict[str, str]) -> None:
    assert parse_conninfo(conninfo(parameters)) == parameters


def test_connection_strings() -> None:
    assert conninfo({"host": "192.0.2.11", "port": 5432, "sslcert": None, "user": ""}) == "host=192.0.2.11 port=5432"
    assert parse_conninfo(" host = 'a b'  port=1 ") == {"host": "a b", "port": "1"}
    assert parse_conninfo("") == {}
    assert parse_conninfo("user=x password='top secret'") == {"user": "x", "password": "********"}
    with pytest.raises(PostgresError, match="is not of the form"):
        parse_conninfo("postgresql://192.0.2.11/")


def test_auto_conf_keeps_what_is_not_ours() -> None:
    before = "# Do not edit\nwork_mem = '8MB'\nprimary_conninfo = 'host=192.0.2.12'\nPrimary_Slot_Name 'old'\nprimary_conninfo = 'again'\n"
    after = render_auto_conf(before, {"primary_conninfo": "host='192.0.2.11' x=a\\b", "primary_slot_name": "ps2"})
    assert after == "# Do not edit\nwork_mem = '8MB'\nprimary_conninfo = 'host=''192.0.2.11'' x=a\\\\b'\nprimary_slot_name = 'ps2'\n"
    assert render_auto_conf(after, {"primary_conninfo": "host='192.0.2.11' x=a\\b", "primary_slot_name": "ps2"}) == after


def test_end_of_wal() -> None:
    printed = (
        "first record is after 0/14FDC00, at 0/14FE938, skipping over 3384 bytes\n"
        "WAL statistics between 0/14FE938 and 0/177D0A0:\n"
        "Type                                           N      (%)          Record size      (%)\n"
    )
    assert parse_waldump_end(printed) == lsn("0/177D0A0")
    assert parse_waldump_end("pg_waldump: error: could not find a valid record after 0/3071D10") is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("23201/23201 kB (100%), 0/1 tablespace\n", (23201 * 1024, 23201 * 1024)),
        ("    0/16077 kB (0%) copied\n", (0, 16077 * 1024)),
        ("waiting for checkpoint\n", None),
        ("pg_rewind: need to copy 15 MB (total source directory size is 34 MB)\n", None),
    ],
)
def test_progress_lines(line: str, expected: tuple[int, int] | None) -> None:
    assert parse_progress(line) == expected


def test_tail() -> None:
    assert tail("a\n\nb\n \nc\n", 2) == "b\nc"
