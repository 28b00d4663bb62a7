# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import grp
import json
import os
import pwd
import stat

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.swg.ha.plugins.modules import config_files

OWNER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name


def want(path, content="text\n", mode=0o644, owner=OWNER, group=GROUP):
    return config_files.Wanted(str(path), content, owner, group, mode)


def test_a_new_file_in_folders_that_are_missing(tmp_path):
    path = tmp_path / "a" / "b" / "file.conf"
    wanted = want(path, mode=0o600)
    assert config_files.differs(wanted, config_files.find(str(path)))
    config_files.write(wanted)
    assert path.read_text() == "text\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert os.listdir(path.parent) == ["file.conf"]
    assert not config_files.differs(wanted, config_files.find(str(path)))


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("other\n"),
        lambda path: path.write_text("text\r\n", newline=""),
        lambda path: path.write_bytes(b"text\xff\n"),
        lambda path: path.chmod(0o640),
        lambda path: path.unlink(),
    ],
)
def test_what_differs_is_put_right(tmp_path, change):
    path = tmp_path / "file.conf"
    config_files.write(want(path))
    change(path)
    assert config_files.differs(want(path), config_files.find(str(path)))
    config_files.write(want(path))
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"text\n", 0o644)


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path):
    target, path = tmp_path / "target", tmp_path / "file.conf"
    target.write_text("text\n")
    path.symlink_to(target)
    assert config_files.differs(want(path), config_files.find(str(path)))
    config_files.write(want(path, "new\n"))
    assert not path.is_symlink()
    assert (path.read_text(), target.read_text()) == ("new\n", "text\n")


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.conf"
    config_files.write(want(path))

    def cut(*_args):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(OSError, match="power cut"):
            config_files.write(want(path, "new\n"))
    assert path.read_text() == "text\n"
    config_files.write(want(path, "new\n"))
    assert os.listdir(tmp_path) == ["file.conf"]


def test_a_mode_that_is_none():
    with pytest.raises(ValueError, match="the mode of /etc/x is 'u=rw': it must be octal, like '0644'"):
        config_files.wanted({"path": "/etc/x", "content": "", "owner": "root", "group": "root", "mode": "u=rw"})


def test_an_account_that_does_not_exist(tmp_path):
    with pytest.raises(KeyError, match="no_such_account"):
        config_files.write(want(tmp_path / "file", owner="no_such_account"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("secret", [False, True])
def test_the_difference(tmp_path, secret):
    path = tmp_path / "file"
    path.write_text("old password\n")
    difference = config_files.described(want(path, "new password\n", 0o600), config_files.find(str(path)), secret)
    assert ("password" in difference["before"] + difference["after"]) is not secret
    assert difference["after"].startswith(f"# {OWNER}:{GROUP} 0600\n")


def run(capsys, check_mode, **arguments):
    """Run main() as Ansible does; returns what it prints."""
    with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
        config_files.main()
    return json.loads(capsys.readouterr().out)


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    path = tmp_path / "folder" / "file"
    files = [{"path": str(path), "content": "x\n", "owner": OWNER, "group": GROUP}]
    result = run(capsys, True, files=files)
    assert (result["changed"], result["changed_files"]) == (True, [str(path)])
    assert os.listdir(tmp_path) == []
    assert run(capsys, False, files=files)["changed"] is True
    assert run(capsys, False, files=files)["changed"] is False


def test_folders_come_first_and_what_is_in_them_stays(tmp_path, capsys):
    folder = tmp_path / "above" / "folder"
    folders = [{"path": str(folder), "owner": OWNER, "group": GROUP, "mode": "0700"}]
    files = [{"path": str(folder / "file"), "content": "x\n", "owner": OWNER, "group": GROUP}]
    foretold = run(capsys, True, folders=folders, files=files)
    assert foretold["changed_files"] == [str(folder), str(folder / "file")] and os.listdir(tmp_path) == []
    assert run(capsys, False, folders=folders, files=files)["changed_files"] == foretold["changed_files"]
    assert (stat.S_IMODE(folder.stat().st_mode), (folder / "file").read_text()) == (0o700, "x\n")
    assert run(capsys, False, folders=folders, files=files)["changed"] is False
    folder.chmod(0o755)
    assert run(capsys, False, folders=folders)["changed_files"] == [str(folder)]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and (folder / "file").exists()


def test_what_is_no_folder_is_never_made_one(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        for check_mode in (True, False):
            result = run(capsys, check_mode, folders=[{"path": str(tmp_path / name), "owner": OWNER, "group": GROUP}])
            assert result["failed"] and f"{tmp_path / name} is no folder" in result["msg"]
    assert (tmp_path / "file").read_text() == "x" and (tmp_path / "link").is_symlink()


def test_a_link_to_a_folder_is_one(tmp_path, capsys):
    (tmp_path / "disk").mkdir(mode=0o755)
    (tmp_path / "folder").symlink_to(tmp_path / "disk")
    folders = [{"path": str(tmp_path / "folder"), "owner": OWNER, "group": GROUP, "mode": "0700"}]
    assert run(capsys, False, folders=folders)["changed"] is True
    assert stat.S_IMODE((tmp_path / "disk").stat().st_mode) == 0o700 and (tmp_path / "folder").is_symlink()
    assert run(capsys, False, folders=folders)["changed"] is False


def test_a_link_of_somebody_else_is_not(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert config_files.leads_to_folder(str(tmp_path / "link"))
    real = os.lstat
    monkeypatch.setattr(config_files.os, "lstat", lambda path: os.stat_result((*real(path)[:4], 12345, *real(path)[5:])))
    assert not config_files.leads_to_folder(str(tmp_path / "link"))


def test_what_is_not_to_be_there_goes_in_order(tmp_path, capsys):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "file").write_text("x")
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "last").write_text("x")
    absent = [str(tmp_path / name) for name in ("folder", "never/was", "link", "dangling", "last")]
    there = [path for path in absent if "never" not in path]
    assert run(capsys, True, absent=absent)["changed_files"] == there
    assert len(os.listdir(tmp_path)) == 5
    assert run(capsys, False, absent=absent)["changed_files"] == there
    assert os.listdir(tmp_path) == ["kept"]
    assert run(capsys, False, absent=absent)["changed"] is False


def test_a_removal_that_is_cut_off_leaves_the_last_one(tmp_path, capsys, monkeypatch):
    for name in ("first", "last"):
        (tmp_path / name).write_text("x")

    def cut(*_args):
        raise OSError("power cut")

    monkeypatch.setattr(config_files, "sync", cut)
    result = run(capsys, False, absent=[str(tmp_path / "first"), str(tmp_path / "last")])
    assert result["failed"] and os.listdir(tmp_path) == ["last"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give something away")
def test_what_is_in_a_folder_follows_its_owner_before_it_does(tmp_path, monkeypatch):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_text("x")
    outside.write_text("x")
    (folder / "sub/link").symlink_to(outside)
    everything = [folder, folder / "sub", folder / "sub/file", folder / "sub/link"]
    for path in [*everything, outside]:
        os.chown(path, 1234, 1234, follow_symlinks=False)
    wanted = config_files.Wanted(str(folder), None, OWNER, GROUP, 0o755, recurse=True)

    def cut_off(path, uid, gid):
        give(path, uid, gid)
        raise OSError("cut off")

    give = config_files.give_contents
    monkeypatch.setattr(config_files, "give_contents", cut_off)
    with pytest.raises(OSError, match="cut off"):
        config_files.write(wanted)
    assert config_files.differs(wanted, config_files.find(str(folder)))
    monkeypatch.undo()
    config_files.write(wanted)
    assert {path.lstat().st_uid for path in everything} == {os.getuid()}
    assert outside.stat().st_uid == 1234
    # It is theirs already: what somebody else has put there since is left alone.
    os.chown(folder / "sub/file", 1234, 1234)
    config_files.write(wanted)
    assert (folder / "sub/file").stat().st_uid == 1234


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give something away")
def test_what_goes_while_its_folder_is_given_away_is_passed_over(tmp_path, monkeypatch):
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text("x")
    chown = os.chown

    def taken_away(name, *owner, dir_fd, **how):
        if name == "two":
            os.unlink(name, dir_fd=dir_fd)
        chown(name, *owner, dir_fd=dir_fd, **how)

    monkeypatch.setattr(os, "chown", taken_away)
    config_files.give_contents(str(tmp_path), 1234, 1234)
    assert {name: (tmp_path / name).stat().st_uid for name in ("one", "three")} == {"one": 1234, "three": 1234}
