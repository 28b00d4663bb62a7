# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from swg_ha.record import Overtaken, Record, Store, newest, parse

OLD = Record(3, "ps1", "42", 2, "0/2000000", in_sync=True, changed="2026-01-01T00:00:00.000Z")


def test_the_higher_counter_is_newer() -> None:
    newer = OLD.claimed_by("ps2")
    assert newest(OLD, newer) == newest(newer, OLD) == newer
    assert newest(None, OLD) == OLD
    assert newest(OLD, None) == OLD
    assert newest(None, None) is None


def test_both_servers_choose_alike_whichever_they_name_first() -> None:
    records = [Record(3, "ps1"), Record(3, "ps2"), Record(3, "ps2", "42", 2), Record(3, "ps1", "42", 2), Record(4, "ps1")]
    for one, other in itertools.permutations(records, 2):
        assert newest(one, other) == newest(other, one)


def test_a_claim_counts_on_and_forgets_the_data() -> None:
    claimed = OLD.claimed_by("ps2")
    assert (claimed.counter, claimed.active, claimed.timeline, claimed.in_sync) == (4, "ps2", None, False)


def test_it_is_there_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "record.json")
    assert store.load() is None
    store.save(OLD)
    again = Store(tmp_path / "new" / "record.json")
    assert again.load() == OLD
    assert (tmp_path / "new" / "record.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "said", ["", "{}", "[]", '{"counter": "x", "active": "ps1"}', '{"counter": -1, "active": "ps1"}', '{"counter": true, "active": "ps1"}']
)
def test_what_cannot_be_read_is_set_aside_with_a_reason(tmp_path: Path, said: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(said)
    store = Store(path)
    assert store.load() is None
    assert store.problem is not None
    assert str(path) in store.problem
    assert (tmp_path / "record.broken").read_text() == said
    store.save(OLD)
    assert store.problem is None


def test_an_older_record_is_never_taken_over(tmp_path: Path) -> None:
    store = Store(tmp_path / "record.json")
    newer = OLD.claimed_by("ps2")
    assert store.adopt(OLD, of_its_active=False)
    assert store.adopt(newer, of_its_active=False)
    assert not store.adopt(OLD, of_its_active=True)
    assert not store.adopt(None, of_its_active=True)
    assert store.record == newer


def test_what_the_active_server_says_of_its_own_record_counts(tmp_path: Path) -> None:
    store = Store(tmp_path / "record.json")
    store.save(OLD)
    degraded = replace(OLD, in_sync=False)
    assert not store.adopt(degraded, of_its_active=False)
    assert store.adopt(degraded, of_its_active=True)
    assert store.record == degraded
    assert store.unsaved
    store.keep()
    assert not store.unsaved
    assert Store(store.path).load() == degraded


def test_a_claim_that_was_overtaken_is_not_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "record.json")
    store.save(OLD)
    claimed = OLD.claimed_by("ps2")
    store.adopt(replace(OLD, counter=5), of_its_active=True)
    with pytest.raises(Overtaken, match="ps1 was made active meanwhile"):
        store.save(claimed)
    assert store.record == replace(OLD, counter=5)
    assert Store(store.path).load() == OLD


def test_what_is_given_says_so_until_it_is_taken() -> None:
    given = OLD.given_to("ps2", "0/5000000")
    assert (given.counter, given.active, given.timeline, given.switch_lsn, given.in_sync, given.given) == (
        4,
        "ps2",
        None,
        "0/5000000",
        True,
        True,
    )
    assert given.unfinished
    assert not OLD.unfinished
    back = given.claimed_by("ps1")
    assert (back.counter, back.given, back.switch_lsn, back.system_id) == (5, False, None, "42")


def test_what_a_newer_version_adds_does_no_harm() -> None:
    assert parse({"counter": 1, "active": "ps1", "colour": "blue"}) == Record(1, "ps1")
