# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ansible_collections.swg.ha.plugins.module_utils import pg_move

NOW = 1767323045  # 2026-01-02 03:04:05 UTC
STAMP = "20260102T030405Z"


def run(argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def no_command(argv):
    raise AssertionError(f"within a file system nothing is run, but {argv} was")


def read(folder):
    """Everything below a folder: contents of files, targets of links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.fixture
def data(tmp_path):
    """A data directory, with a table space's symbolic link in it."""
    source = tmp_path / "lib/15/main"
    (source / "base/1").mkdir(parents=True)
    (source / "pg_tblspc").mkdir()
    (source / "PG_VERSION").write_text("15\n")
    (source / "base/1/1259").write_bytes(b"\0rows\xff" * 100)
    (source / "pg_tblspc/16384").symlink_to("/srv/space")
    os.chmod(source, 0o700)
    return source


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new/data/postgresql/main"


@pytest.fixture
def two_file_systems(monkeypatch):
    monkeypatch.setattr(pg_move, "same_file_system", lambda source, target: False)


def test_within_a_file_system_it_is_renamed(data, target):
    before, inode = read(data), data.stat().st_ino
    assert pg_move.move(no_command, data, target) is None
    assert (read(target), target.stat().st_ino, target.stat().st_mode & 0o777) == (before, inode, 0o700)
    assert not data.exists()


def test_missing_parents_can_be_passed_and_the_last_is_the_servers(data, target):
    old = os.umask(0o077)
    try:
        pg_move.move(no_command, data, target)
    finally:
        os.umask(old)
    parents = [target.parents[2], target.parents[1], target.parents[0]]
    assert [parent.stat().st_mode & 0o777 for parent in parents] == [0o755] * 3
    assert target.parent.stat().st_uid == target.stat().st_uid
    assert [path.name for path in target.parents[2].rglob("*") if ".new" in path.name] == []


def test_the_last_parent_is_never_half_made(tmp_path, target, monkeypatch):
    """A run that is cut off before the owner is set is made good by the next."""
    owners = []

    def power_cut(path, uid, gid):
        raise InterruptedError

    monkeypatch.setattr(os, "chown", power_cut)
    with pytest.raises(InterruptedError):
        pg_move.make_parents(target, 1234, 1235)
    assert not target.parent.exists()
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: owners.append((uid, gid)))
    pg_move.make_parents(target, 1234, 1235)
    assert target.parent.is_dir()
    assert owners == [(1234, 1235)]
    assert [path.name for path in (tmp_path / "new").rglob(".*")] == []


def test_parents_that_exist_are_left_alone(data, target):
    target.parent.mkdir(parents=True)
    os.chmod(target.parent, 0o711)
    pg_move.move(no_command, data, target)
    assert target.parent.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize("across", [False, True])
def test_what_lies_at_the_target_is_moved_aside(data, target, across, monkeypatch):
    monkeypatch.setattr(pg_move, "same_file_system", lambda source, target: not across)
    before = read(data)
    target.mkdir(parents=True)
    (target / "precious").write_text("other data")
    moved = pg_move.move(run, data, target, NOW)
    assert moved == target.with_name(f"main.{STAMP}")
    assert read(moved) == {"precious": b"other data"}
    assert read(target) == before


def test_moving_aside_twice_in_a_second_loses_nothing(tmp_path):
    places = []
    for content in ("one", "two", "three"):
        (tmp_path / "main").mkdir()
        (tmp_path / "main/file").write_text(content)
        places.append(pg_move.aside(tmp_path / "main", NOW))
    assert [(place.name, (place / "file").read_text()) for place in places] == [
        (f"main.{STAMP}", "one"),
        (f"main.{STAMP}.1", "two"),
        (f"main.{STAMP}.2", "three"),
    ]


def test_across_file_systems_the_source_stays(data, target, two_file_systems):
    before = read(data)
    assert pg_move.move(run, data, target) is None
    assert read(target) == read(data) == before
    assert target.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in target.parent.iterdir()] == ["main"]


def test_a_partial_copy_of_an_interrupted_run_is_not_built_upon(data, target, two_file_systems):
    partial = target.with_name("main.partial")
    partial.mkdir(parents=True)
    (partial / "torn").write_text("half")
    pg_move.move(run, data, target)
    assert read(target) == read(data)
    assert not partial.exists()


@pytest.mark.parametrize("program", ["cp", "sync"])
def test_a_copy_that_fails_leaves_the_source(data, target, two_file_systems, program):
    before = read(data)

    def full_disk(argv):
        return (1, "", "No space left on device\n") if argv[0] == program else run(argv)

    with pytest.raises(pg_move.MoveError, match=f"No space left on device.*the data is still in {data}"):
        pg_move.move(full_disk, data, target)
    assert read(data) == before
    assert not target.exists()


def test_it_is_durable_before_it_has_its_name(data, target, two_file_systems):
    done = []

    def watched(argv):
        done.append((argv[0], target.exists()))
        return run(argv)

    pg_move.move(watched, data, target)
    assert done == [("cp", False), ("sync", False)]


def test_a_symbolic_link_to_the_target_is_no_reason_to_move(data, tmp_path):
    """Somebody has moved the data by hand and left a link at the old place."""
    link = tmp_path / "link"
    link.symlink_to(data)
    before = read(data)
    assert pg_move.move(no_command, link, data) is None
    assert read(data) == before
    assert [path.name for path in data.parent.iterdir()] == ["main"]


@pytest.mark.parametrize("across", [False, True])
def test_a_relative_symbolic_link_is_followed(data, target, tmp_path, across, monkeypatch):
    monkeypatch.setattr(pg_move, "same_file_system", lambda source, target: not across)
    link = tmp_path / "link"
    link.symlink_to("lib/15/main")
    before = read(data)
    pg_move.move(run, link, target)
    assert read(target) == before
    assert not target.is_symlink()


@pytest.mark.parametrize("place", ["lib/15", "lib", "lib/15/main/inner", "lib/15/main/a/b"])
def test_one_within_the_other_is_refused(data, tmp_path, place):
    before = read(tmp_path)
    with pytest.raises(pg_move.MoveError, match=f"the data is in {data}.* is to be in {tmp_path / place}: one must not lie within"):
        pg_move.move(no_command, data, tmp_path / place)
    assert read(tmp_path) == before
    assert data.is_dir()


def test_a_server_that_runs_outside_its_service_is_not_moved_under_its_feet(data, target):
    with subprocess.Popen([sys.executable, "-c", "input()"], cwd=data, stdin=subprocess.PIPE) as server:
        try:
            (data / "postmaster.pid").write_text(f"{server.pid}\n{data}\n")
            before = read(data)
            with pytest.raises(pg_move.MoveError, match=f"a server runs on {data}"):
                pg_move.move(no_command, data, target)
            assert read(data) == before
        finally:
            server.kill()


@pytest.mark.parametrize("content", ["{own}\n/somewhere\n", "999999999\n", "", "nonsense\n", "-1\n"])
def test_a_postmaster_pid_that_is_left_over_does_not_count(data, target, content):
    """Its number may meanwhile be another process's, such as ours."""
    (data / "postmaster.pid").write_text(content.format(own=os.getpid()))
    pg_move.move(no_command, data, target)
    assert (target / "PG_VERSION").exists()


def test_file_systems_are_told_apart_by_the_nearest_folder_that_exists(data, target):
    assert pg_move.same_file_system(data, target) is True
    assert os.stat("/proc").st_dev != os.stat(data).st_dev
    assert pg_move.same_file_system(data, pg_move.Path("/proc/no/such/folder")) is False
