# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The tree of configurations: all of the old one or all of the new one, wherever the writing ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from policy_server import tree
from policy_server.shared import durable

GROUP = os.getgid()
OLD = {"global/module.xml": b"<old/>", "ps1/a.json": b"1", "gone/b.json": b"2"}
NEW = {"global/module.xml": b"<new/>", "ps2/a.json": b"1", "ps2/c.json": b"3"}


def write(base: Path, wanted: dict[str, bytes], group: int) -> bool:
    with tree.alone(base) as place:
        return tree.write(place, wanted, group)


def files(base: Path) -> dict[str, bytes]:
    """What readers see, apart from the list of what is from the database."""
    found = {str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file() and not path.is_symlink()}
    found.pop(tree.WRITTEN, None)
    return found


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "configuration/base"


def test_it_is_made_with_all_above_it(base: Path) -> None:
    assert write(base, OLD, GROUP)
    assert files(base) == OLD
    assert [path.name for path in base.parent.iterdir()] == ["base"]
    assert base.stat().st_mode & 0o7777 == (base / "global").stat().st_mode & 0o7777 == 0o750
    assert (base / "global/module.xml").stat().st_mode & 0o7777 == 0o640


def test_what_is_there_already_is_left_alone(base: Path) -> None:
    write(base, OLD, GROUP)

    def inodes() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_ino, path.stat().st_ctime_ns) for path in [base, *base.rglob("*")]}

    before = inodes()
    assert not write(base, OLD, GROUP)
    assert inodes() == before


@pytest.mark.parametrize(
    "harm",
    [
        lambda base: (base / "ps1/a.json").write_bytes(b"0"),
        lambda base: (base / "ps1/a.json").unlink(),
        lambda base: (base / "ps1/a.json").chmod(0o666),
        lambda base: (base / tree.WRITTEN).unlink(),
        lambda base: (base / tree.WRITTEN).write_text("[1, {}]"),
        lambda base: ((base / "ps1/a.json").unlink(), (base / "ps1/a.json").symlink_to("/etc/hostname")),
    ],
    ids=["other content", "missing", "other mode", "no list", "a list of nonsense", "a link"],
)
def test_what_differs_is_made_good(base: Path, harm: Callable[[Path], object]) -> None:
    write(base, OLD, GROUP)
    harm(base)
    assert write(base, OLD, GROUP)
    assert files(base) == OLD and not write(base, OLD, GROUP)


def test_what_is_not_from_the_database_stays(base: Path) -> None:
    """Files of updates, links, a folder of a device that lost its configurations."""
    write(base, OLD, GROUP)
    (base / "debpackages/deep").mkdir(parents=True, mode=0o700)
    (base / "debpackages/deep/p.deb").write_bytes(b"package")
    (base / "gone/signatures.dat").write_bytes(b"dat")
    (base / "latest").symlink_to("debpackages")
    inode = (base / "debpackages/deep/p.deb").stat().st_ino
    assert write(base, NEW, GROUP)
    assert files(base) == {**NEW, "debpackages/deep/p.deb": b"package", "gone/signatures.dat": b"dat"}
    assert (base / "debpackages/deep").stat().st_mode & 0o7777 == 0o700
    assert (base / "debpackages/deep/p.deb").stat().st_ino == inode, "it was copied"
    assert os.readlink(base / "latest") == "debpackages"
    assert not (base / "ps1").exists(), "a folder without anything in it"


def test_what_others_write_while_the_new_tree_is_made_is_kept(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(base, OLD, GROUP)
    (base / "updates").mkdir()
    (base / "updates/replaced").write_bytes(b"old")

    def meanwhile(descriptor: int) -> None:
        # By whoever does not know of the lock.
        if not (base / "updates/deep").exists():
            (base / "updates/deep/er").mkdir(parents=True, mode=0o700)
            (base / "updates/deep/er/new").write_bytes(b"new")
            (base / "updates/.replaced").write_bytes(b"newer")
            (base / "updates/.replaced").rename(base / "updates/replaced")
            (base / "gone/b.json").write_bytes(b"of the database, and out of it by now")
            (base / "gone/others").write_bytes(b"in a folder that was empty otherwise")

    monkeypatch.setattr(tree, "sync_file_system", meanwhile)
    assert write(base, NEW, GROUP)
    assert files(base) == {
        **NEW,
        "updates/replaced": b"newer",
        "updates/deep/er/new": b"new",
        "gone/others": b"in a folder that was empty otherwise",
    }
    assert (base / "updates/deep/er").stat().st_mode & 0o7777 == 0o700
    assert [path.name for path in base.parent.iterdir()] == ["base"]


def test_links_do_not_lead_out_of_the_tree(base: Path, tmp_path: Path) -> None:
    """What was copied from the other server may hold any."""
    outside = tmp_path / "outside"
    (outside / "c.json").mkdir(parents=True)
    (outside / "a.json").write_bytes(b"of somebody else")
    write(base, {}, GROUP)
    (base / "ps2").symlink_to(outside)
    (base / tree.WRITTEN).write_text('["ps2/a.json", "ps2/c.json", "../../outside/a.json", "ps2/../outside/a.json", "/etc/x"]')
    assert write(base, NEW, GROUP)
    assert files(base) == NEW and not (base / "ps2").is_symlink()
    assert (outside / "a.json").read_bytes() == b"of somebody else" and (outside / "c.json").is_dir()


def test_a_base_that_is_a_link_stays_one(base: Path, tmp_path: Path) -> None:
    (tmp_path / "other_disk/base").mkdir(parents=True)
    base.parent.mkdir()
    base.symlink_to(tmp_path / "other_disk/base")
    assert write(base, NEW, GROUP) and not write(base, NEW, GROUP)
    assert base.is_symlink() and files(base) == NEW
    assert [path.name for path in (tmp_path / "other_disk").iterdir()] == ["base"]


def test_what_is_in_the_way_goes(base: Path) -> None:
    base.mkdir(parents=True)
    (base / "global").write_bytes(b"a file where a folder is to be")
    (base / "ps2/a.json").mkdir(parents=True)
    assert write(base, NEW, GROUP)
    assert files(base) == NEW


def test_no_link_and_no_copy_of_what_another_one_writes(base: Path) -> None:
    """Only one at a time; the other one waits for it."""
    write(base, OLD, GROUP)
    with durable.locked(str(base.parent)), pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "locked", lambda folder: durable.locked(folder, 0.1))
        with pytest.raises(TimeoutError):
            write(base, NEW, GROUP)
    assert files(base) == OLD


def test_a_file_system_that_cannot_exchange_keeps_the_old_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(base, OLD, GROUP)
    monkeypatch.setattr(tree, "exchange", lambda one, other: False)
    with pytest.raises(OSError, match="cannot exchange two folders"):
        write(base, NEW, GROUP)
    assert files(base) == OLD


def test_all_of_it_is_on_the_disk_before_it_is_installed_and_the_names_after_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(base, OLD, GROUP)
    order: list[str] = []

    def noted(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def do(*arguments: Any) -> Any:
            order.append(name)
            return work(*arguments)

        return do

    for module, name in ((tree, "make_file"), (tree, "sync_file_system"), (tree, "exchange"), (os, "fsync")):
        monkeypatch.setattr(module, name, noted(name, getattr(module, name)))
    write(base, NEW, GROUP)
    assert order == ["make_file"] * (len(NEW) + 1) + ["sync_file_system", "exchange", "fsync"]


def killed_at(line: int, base: Path) -> bool:
    """Write the new tree in a process of its own, which is killed before its n-th line; False when it ended before."""
    pid = os.fork()
    if pid == 0:
        left = line

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename != tree.__file__:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), 9)
            return trace

        sys.settrace(trace)
        try:
            write(base, NEW, GROUP)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9


def test_killed_at_any_line_it_leaves_the_old_tree_or_the_new_one_and_the_next_run_ends_well(tmp_path: Path) -> None:
    seen = set()
    for line in range(1000):
        base = tmp_path / str(line) / "base"
        write(base, OLD, GROUP)
        (base / "other").mkdir()
        (base / "other/x").write_bytes(b"x")
        cut = killed_at(line, base)
        found = files(base)
        assert found in ({**OLD, "other/x": b"x"}, {**NEW, "other/x": b"x"})
        seen.add(found.get("global/module.xml"))
        write(base, NEW, GROUP)
        assert files(base) == {**NEW, "other/x": b"x"}
        assert [path.name for path in base.parent.iterdir()] == ["base"]
        if not cut:
            break
    else:
        raise AssertionError("it has more lines than this test tries")
    assert line > 100 and seen == {b"<old/>", b"<new/>"}
