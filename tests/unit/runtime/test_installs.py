# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""When something is to be installed, and what stays known of it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from swg_ha.installs import STEPS, Installs, others_are_newer
from swg_ha.record import Record

PROBLEMS = (("STAGED_FILE_REFUSED", "/etc/shadow was not installed"),)


@pytest.mark.parametrize(
    ("record", "forced", "newer"),
    [
        pytest.param(None, False, False, id="nobody was ever active"),
        pytest.param(None, True, True, id="the record is lost, and an operator has this one go on"),
        pytest.param(Record(4, "ps2"), False, True, id="a take-over"),
        pytest.param(Record(4, "ps1", given=True), False, True, id="a hand-over from the other one"),
        pytest.param(Record(4, "ps2", given=True), False, False, id="what it gave away and nobody took"),
        pytest.param(Record(4, "ps2", given=True), True, False, id="the same, forced"),
        pytest.param(Record(4, "ps1"), False, False, id="a boot"),
        pytest.param(Record(4, "ps1", doubtful=True), False, False, id="a boot in doubt"),
    ],
)
def test_who_has_the_newest_files(record: Record | None, forced: bool, newer: bool) -> None:
    assert others_are_newer(record, "ps1", forced=forced) is newer


def test_what_is_due_and_what_went_wrong_outlast_the_process(tmp_path: Path) -> None:
    path = tmp_path / "state/staged.json"
    installs = Installs(path)
    installs.load()
    assert (installs.due, installs.problems, installs.problem) == (frozenset(), (), None)
    installs.begin()
    installs.done("staged_files", PROBLEMS)
    again = Installs(path)
    again.load()
    assert (again.due, again.problems) == ({"conf_ready"}, PROBLEMS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    again.done("conf_ready")
    assert (again.due, again.problems) == (frozenset(), PROBLEMS)
    # The next installation goes well: told until then.
    again.begin()
    assert (again.due, again.problems) == (STEPS, PROBLEMS)
    again.done("staged_files")
    assert again.problems == () and json.loads(path.read_text()) == {"due": ["conf_ready"], "problems": []}


def test_what_failed_is_not_due_at_the_next_boot(tmp_path: Path) -> None:
    installs = Installs(tmp_path / "staged.json")
    installs.begin()
    installs.done("staged_files", PROBLEMS)
    installs.failed("conf_ready", "conf_ready: not done within 300 s")
    again = Installs(installs.path)
    again.load()
    assert (again.due, again.problems) == (frozenset(), (*PROBLEMS, ("STAGED_NOT_INSTALLED", "conf_ready: not done within 300 s")))


def test_what_is_due_already_is_not_written_again(tmp_path: Path) -> None:
    installs = Installs(tmp_path / "staged.json")
    installs.begin()
    before = installs.path.stat()
    installs.begin()
    assert installs.path.stat().st_ino == before.st_ino


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"due": 1, "problems": []}', '{"due": [], "problems": [1]}', '{"due": [[]], "problems": []}']
)
def test_a_broken_file_says_so_and_stops_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "staged.json"
    path.write_text(content)
    installs = Installs(path)
    installs.load()
    assert installs.due == frozenset() and str(path) in (installs.problem or "")
    installs.begin()
    assert installs.due == STEPS and installs.problem is None


def test_without_room_for_it_the_takeover_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    installs = Installs(tmp_path / "file/staged.json")
    installs.begin()
    assert installs.due == STEPS and "cannot be written" in (installs.problem or "")


def test_a_name_that_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    installs = Installs(tmp_path / "staged.json")
    installs.done("staged_files", [("STAGED_FILE_REFUSED", os.fsdecode(b"/bad\xff"))])
    again = Installs(installs.path)
    again.load()
    assert again.problem is None and len(again.problems) == 1


def test_what_an_operator_has_seen_to_is_told_no_more(tmp_path: Path) -> None:
    installs = Installs(tmp_path / "staged.json")
    installs.begin()
    installs.done("staged_files", PROBLEMS)
    installs.acknowledge()
    again = Installs(installs.path)
    again.load()
    assert (again.due, again.problems) == ({"conf_ready"}, ())
