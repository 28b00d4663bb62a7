# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading

import pytest

from ansible_collections.swg.ha.plugins.module_utils import durable


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "module.xml"
    path.write_bytes(b"old")
    return path


def test_replace_keeps_mode_owner_and_extended_attributes(file):
    os.chmod(file, 0o640)
    if os.geteuid() == 0:
        os.chown(file, 1234, 4321)
    try:
        os.setxattr(file, "user.note", b"kept")
    except OSError as error:
        assert error.errno == errno.ENOTSUP
    before = os.stat(file)
    durable.replace(str(file), b"new")
    after = os.stat(file)
    assert file.read_bytes() == b"new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino and after.st_mtime_ns > before.st_mtime_ns
    assert os.listxattr(file) in ([], ["user.note"])
    assert os.listdir(file.parent) == ["module.xml"]


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path):
    umask = os.umask(0o027)
    try:
        durable.replace(str(tmp_path / "new"), b"x")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) == 0o640


def test_what_an_earlier_attempt_left_is_no_obstacle(file):
    (file.parent / ".module.xml.new").write_bytes(b"half")
    durable.replace(str(file), b"new")
    assert os.listdir(file.parent) == ["module.xml"]


def test_everything_is_on_the_disk_before_and_after_the_change_of_names(file, monkeypatch):
    done = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        status = os.fstat(descriptor)
        done.append("sync directory" if stat.S_ISDIR(status.st_mode) else f"sync {status.st_size} bytes")
        real_fsync(descriptor)

    def replace(old, new):
        done.append("replace")
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    durable.replace(str(file), b"new one", prepare=lambda new: done.append(f"prepare {os.path.getsize(new)} bytes"))
    assert done == ["prepare 7 bytes", "sync 7 bytes", "replace", "sync directory"]


@pytest.mark.parametrize("failing", ["open", "chown", "fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(file, monkeypatch, failing):
    def fail(*arguments, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="No space left"):
            durable.replace(str(file), b"new")
    assert file.read_bytes() == b"old"
    assert os.listdir(file.parent) == ["module.xml"]


def test_a_failure_of_prepare_leaves_the_old_file_and_nothing_else(file):
    def fail(new):
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        durable.replace(str(file), b"new", prepare=fail)
    assert file.read_bytes() == b"old"
    assert os.listdir(file.parent) == ["module.xml"]


def test_the_lock_of_a_directory_excludes_others_and_ends(tmp_path):
    with (
        durable.locked(str(tmp_path)),
        pytest.raises(TimeoutError, match="has held the lock"),
        durable.locked(str(tmp_path), timeout=0.1),
    ):
        pass
    with durable.locked(str(tmp_path), timeout=0):
        pass


def test_the_lock_is_waited_for(tmp_path):
    got = threading.Event()

    def take():
        with durable.locked(str(tmp_path)):
            got.set()

    with durable.locked(str(tmp_path)):
        thread = threading.Thread(target=take)
        thread.start()
        assert not got.wait(0.2)
    assert got.wait(30)
    thread.join(30)


def test_a_killed_process_holds_no_lock(tmp_path):
    script = (
        "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(TimeoutError), durable.locked(str(tmp_path), timeout=0):
            pass
        holder.kill()
        holder.wait(30)
    with durable.locked(str(tmp_path), timeout=0):
        pass


def test_the_lock_of_a_directory_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError), durable.locked(str(tmp_path / "missing")):
        pass
