# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import math

import pytest

from tests.faults.evidence import (
    Acknowledged,
    Look,
    Story,
    address_without_writes,
    dual_writes,
    looks,
    lost,
    story,
    two_addresses,
    two_primaries,
)


def commit(number: int, at: float, server: str = "ps1", timeline: int = 1, sent: float | None = None) -> Acknowledged:
    return Acknowledged(number, at - 0.001 if sent is None else sent, at, server, timeline)


def told(*commits: Acknowledged, ended: float) -> Story:
    return Story(commits, (), (), 0, 0.0, ended)


STEADY = [commit(n, n / 100) for n in range(1, 101)]
AFTER = [commit(n, 2 + n / 100, "ps2", 2) for n in range(101, 201)]


def test_the_probes_lines_are_read_and_a_cut_off_line_is_left_out() -> None:
    lines = [
        {"event": "connected", "at": 1.0, "seconds": 0.02},
        {"event": "acknowledged", "n": 1, "sent": 1.0, "at": 1.5, "server": "ps1", "timeline": 3},
        {"event": "unknown", "n": 2, "sent": 1.6, "at": 1.9, "why": "gone"},
        {"event": "failed", "at": 2.0, "seconds": 0.1, "why": "no route"},
        {"event": "refused", "n": 3, "sent": 2.1, "at": 2.2, "why": "read-only"},
    ]
    found = story([*map(json.dumps, lines), '{"event": "ackno'])
    assert found == Story([Acknowledged(1, 1.0, 1.5, "ps1", 3)], [2], [3], 1, 1.0, 2.2)


def test_the_longest_gap_is_the_one_around_the_fault() -> None:
    seen = told(*STEADY, *AFTER, ended=4.0)
    assert seen.longest_gap() == pytest.approx(2.01)
    assert seen.longest_gap(since=1.5, until=1.6) == pytest.approx(2.01)
    assert seen.longest_gap(until=0.5) == pytest.approx(0.01)
    assert seen.longest_gap(since=3.5) == pytest.approx(0.01)
    assert seen.servers() == ["ps1", "ps2"]
    after = seen.next_after(1.0)
    assert after is not None and after.number == 101


@pytest.mark.parametrize("seen", [told(ended=5.0), told(*STEADY, ended=5.0)])
def test_without_a_commit_afterwards_the_gap_has_no_end(seen: Story) -> None:
    assert math.isinf(seen.longest_gap(since=2.0))


def test_what_was_acknowledged_and_is_not_there_is_lost() -> None:
    assert [commit.number for commit in lost(STEADY, {commit.number for commit in STEADY} - {7, 9})] == [7, 9]
    assert lost(STEADY, range(1000)) == []


def test_a_new_timeline_ends_the_old_one() -> None:
    assert dual_writes([*STEADY, *AFTER]) == []
    late = commit(500, 3.5, "ps1", 1)
    assert [pair[0] for pair in dual_writes([*STEADY, *AFTER, late])] == [late]
    # Sent before the other server began, answered late: it was committed before.
    assert dual_writes([*STEADY, *AFTER, commit(500, 3.5, "ps1", 1, sent=0.9)]) == []


def test_one_timeline_belongs_to_one_server() -> None:
    other = commit(500, 3.5, "ps1", 2)
    assert [pair[0] for pair in dual_writes([*AFTER, other])] == [other]


def row(begin: float, end: float, *, address: bool = False, database: str = "standby") -> list[Look]:
    return [Look(begin + n * 0.05, begin + n * 0.05, address, database) for n in range(round((end - begin) / 0.05) + 1)]


def test_samples_are_read_in_the_order_of_their_times() -> None:
    lines = [
        '{"at": 2, "answered": 2.1, "address": true, "database": "primary", "timeline": 1}',
        '{"at": 1, "answered": 1.1, "address": false, "database": "down", "timeline": null}',
    ]
    assert looks([*lines, '{"at": 3, "addr']) == [Look(1, 1.1, False, "down"), Look(2, 2.1, True, "primary", 1)]


def test_two_primaries_at_the_same_time_are_seen() -> None:
    one = row(0, 3, database="primary")
    assert two_primaries(one, row(0, 3)) == []
    [(begin, end)] = two_primaries(one, [*row(0, 1.95), *row(2, 4, database="primary")])
    assert (begin, end) == (pytest.approx(2), pytest.approx(3))


def test_nothing_is_claimed_of_a_time_without_samples() -> None:
    off = [*row(0, 1, database="primary"), *row(5, 6, database="primary")]
    assert two_primaries(off, row(2, 4, database="primary")) == []


def test_the_address_without_a_database_that_takes_writes_is_seen() -> None:
    samples = [*row(0, 1, address=True, database="primary"), *row(1.05, 2.05, address=True, database="down"), *row(2.1, 3)]
    [(begin, end)] = address_without_writes(samples)
    assert end - begin == pytest.approx(1)
    assert two_addresses(samples, row(0, 3)) == []
    assert two_addresses(samples, row(2, 3, address=True)) != []
