# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swg_ha.record import Overtaken, Record, Store, newest, parse

OLD = Record(3, "ps1", "42", 2, "0/2000000", in_sync=True, changed="2026-01-01T00:00:00.000Z")


def itself(record: Record) -> Record:
    return record


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
    store.update(OLD, itself)
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
    store.update(OLD, itself)
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
    store.update(OLD, itself)
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
    store.update(OLD, itself)
    store.adopt(replace(OLD, counter=5), of_its_active=True)
    with pytest.raises(Overtaken, match="ps1 was made active meanwhile"):
        store.update(OLD, lambda now: now.claimed_by("ps2"))
    assert store.record == replace(OLD, counter=5)
    assert Store(store.path).load() == OLD


class Queue:
    """A lock that tells when somebody comes for it."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.came = threading.Semaphore(0)

    def __enter__(self) -> None:
        self.came.release()
        self._lock.acquire()

    def __exit__(self, *_error: object) -> None:
        self._lock.release()


def test_what_was_heard_is_not_put_over_what_was_made_of_it(tmp_path: Path) -> None:
    """A server takes the record that it was given while another thread is about to have that one on the disk."""
    store = Store(tmp_path / "record.json")
    given = OLD.given_to("ps2", "0/5000000")
    store.adopt(given, of_its_active=False)
    queue = store._writing = Queue(store._writing)  # type: ignore[assignment]
    with ThreadPoolExecutor() as threads:

        def take(record: Record) -> Record:
            if not keeping:
                keeping.append(threads.submit(store.keep))
                assert queue.came.acquire(timeout=10) and queue.came.acquire(timeout=10)
            return record.taken()

        keeping: list[Future[None]] = []
        store.update(given, take)
        keeping[0].result(10)
    assert store.record is not None and not store.record.given
    assert Store(store.path).load() == store.record


def test_what_its_active_server_tells_meanwhile_is_not_lost(tmp_path: Path) -> None:
    store = Store(tmp_path / "record.json")
    store.update(OLD, itself)
    called = []

    def change(record: Record) -> Record:
        called.append(record)
        store.adopt(replace(OLD, in_sync=False), of_its_active=True)
        return replace(record, doubtful=True)

    assert store.update(OLD, change) == replace(OLD, in_sync=False, doubtful=True) == store.record
    assert called == [OLD, replace(OLD, in_sync=False)]
    assert Store(store.path).load() == store.record


def test_a_doubt_counts_before_it_is_on_the_disk_and_of_that_record_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "record.json")
    store.update(OLD, itself)
    store.doubt(OLD.claimed_by("ps2"))
    assert store.record == OLD
    store.doubt(replace(OLD, in_sync=False))
    assert store.record is not None and store.record.doubtful and store.unsaved
    assert Store(store.path).load() == OLD
    store.keep()
    assert Store(store.path).load() == store.record
    before = store.record
    store.doubt(OLD)
    assert store.record is before


def test_a_doubt_outlasts_what_is_being_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "record.json")
    store.update(OLD, itself)

    def change(record: Record) -> Record:
        store.doubt(OLD)
        return replace(record, in_sync=not record.in_sync)

    store.update(OLD, change)
    assert store.record is not None and store.record.doubtful and Store(store.path).load() == store.record


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
