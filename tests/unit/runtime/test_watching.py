# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""A folder that is watched with all that is below it, with the kernel's real inotify."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from swg_ha import copying, watching
from swg_ha.watching import Gone, TooMany, Watcher


def woken(watcher: Watcher, change: Callable[[], object], within: float = 20.0) -> bool:
    """Whether the watcher notices a change within so many seconds."""
    noticed = threading.Event()
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            watcher.wait()
        except BaseException as error:
            failed.append(error)
        noticed.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    change()
    woke = noticed.wait(within)
    thread.join(0 if not woke else 20)
    if failed:
        raise failed[0]
    return woke


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree/a/b").mkdir(parents=True)
    (tmp_path / "tree/a/b/file").write_text("1")
    return tmp_path / "tree"


def settle(watcher: Watcher) -> None:
    """Read what is waiting."""
    while select.select([watcher._file], [], [], 0.2)[0]:
        watcher.wait()


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "a/b/file").write_text("2"),
        lambda tree: (tree / "a/b/file").chmod(0o600),
        lambda tree: (tree / "a/b/file").unlink(),
        lambda tree: (tree / "a/b/file").rename(tree / "moved"),
        lambda tree: (tree / "a/new").mkdir(),
        lambda tree: (tree / "link").symlink_to("a"),
        lambda tree: os.utime(tree / "a/b/file", (1, 1)),
    ],
)
def test_every_change_is_noticed_however_deep(tree: Path, change: Callable[[Path], object]) -> None:
    watcher = Watcher(os.fsencode(tree))
    assert woken(watcher, lambda: change(tree))


def test_new_folders_are_watched_with_what_is_in_them(tree: Path) -> None:
    watcher = Watcher(os.fsencode(tree))
    (tree / "x/y/z").mkdir(parents=True)
    settle(watcher)
    assert woken(watcher, lambda: (tree / "x/y/z/file").write_text("1"))
    settle(watcher)
    (tree / "x").rename(tree / "moved")
    settle(watcher)
    (tree / "moved/y/z/deeper").mkdir()
    settle(watcher)
    assert woken(watcher, lambda: (tree / "moved/y/z/deeper/file").write_text("1"))


def test_a_folder_that_was_moved_away_is_none_of_its_business(tree: Path, tmp_path: Path) -> None:
    watcher = Watcher(os.fsencode(tree))
    (tree / "a").rename(tmp_path / "elsewhere")
    settle(watcher)
    assert not woken(watcher, lambda: (tmp_path / "elsewhere/b/file").write_text("2"), 2)


def test_what_links_lead_to_is_not_watched(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tree / "link").symlink_to(tmp_path / "other")
    watcher = Watcher(os.fsencode(tree))
    assert not woken(watcher, lambda: (tmp_path / "other/file").write_text("2"), 2)


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_it_ends_with_its_folder(tree: Path, tmp_path: Path, how: str) -> None:
    (tmp_path / "empty").mkdir()
    watcher = Watcher(os.fsencode(tmp_path / "empty"))
    with pytest.raises(Gone):
        woken(watcher, (tmp_path / "empty").rmdir if how == "removed" else lambda: (tmp_path / "empty").rename(tmp_path / "other"))
    with pytest.raises(Gone):
        Watcher(os.fsencode(tmp_path / "never"))
    with pytest.raises(Gone):
        Watcher(os.fsencode(tree / "a/b/file"))


def test_the_program_raises_the_flag_and_ends_with_its_folder(tree: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    copying.write(str(run / "x.entry"), {"name": [str(tree)]})
    ended: list[int] = []
    program = threading.Thread(target=lambda: ended.append(watching.main(["x"], str(run))))
    program.start()
    flag, deadline = run / "x.changed", threading.Event()

    def raised() -> bool:
        for _try in range(200):
            if flag.exists():
                return True
            deadline.wait(0.02)
        return False

    assert raised()
    flag.unlink()
    assert copying.read(str(run / "x.tree")) == {"watched": [str(tree)]}
    (tree / "a/b/file").write_text("2")
    assert raised()
    flag.unlink(missing_ok=True)
    (tree / "a/b/file").unlink()
    (tree / "a/b").rmdir()
    (tree / "a").rmdir()
    tree.rmdir()
    program.join(30)
    assert ended == [0] and flag.exists()


def test_without_watches_it_is_copied_every_minute(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    run.mkdir()
    copying.write(str(run / "x.entry"), {"name": [str(tree)]})

    def none_left(self: Watcher, folder: bytes) -> None:
        raise TooMany(os.strerror(errno.ENOSPC))

    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Watcher, "_add", none_left)
    monkeypatch.setattr(watching.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        watching.main(["x"], str(run))
    assert slept == [60, 60] and (run / "x.changed").exists()
    assert "error" in copying.read(str(run / "x.tree"))
