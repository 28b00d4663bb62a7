# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What the other server staged, installed in its places: with real files, staged by a real rsync, as root."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swg_ha.installing import FEW, Installer, Stopped
from swg_ha.shared.module_xml import ReplicatedFile
from swg_ha.staging import stays_inside, temporary
from tests.unit.runtime.staged import PEER, House, house, inodes, say, tree

# What changes something, or opens it, as Python tells of it.
WORK = {"open", "os.rename", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.remove", "os.rmdir", "os.utime"}


@pytest.fixture
def home() -> Iterator[House]:
    with house() as made:
        yield made


def fill(folder: Path) -> None:
    """A tree with everything that may be in one."""
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "sub").chmod(0o2775)
    names = [
        b"plain",
        b"with space",
        b"-leading",
        b"new\nline",
        b"bad\xff\xfeutf8",
        b"'quote\"",
        b"sub/*",
        b"sub/deep/%stat",
        b".hidden.abcdef",
    ]
    for number, name in enumerate(names):
        path = os.path.join(os.fsencode(folder), name)
        with open(path, "wb") as file:
            file.write(b"content %d" % number)
        os.chmod(path, 0o640)
        os.utime(path, ns=(10**18 + number, 10**18 + number))
    (folder / "plain").chmod(0o4755)
    (folder / "inside").symlink_to("sub/deep/%stat")
    (folder / "sub/up").symlink_to("../plain")
    (folder / "whole").symlink_to(folder_of_the_link(folder) / "plain")


def folder_of_the_link(folder: Path) -> Path:
    """The path that the folder has on either server."""
    parts = folder.parts
    return Path("/", *parts[parts.index("other") + 1 :]) if "other" in parts else folder


def test_a_tree_arrives_as_it_is_at_the_other_server(home: House) -> None:
    archive = home.place / "var/archive"
    fill(home.there(archive))
    home.push(archive)
    outcome = home.install(archive)
    assert outcome.problems() == []
    assert tree(archive) == tree(home.there(archive))
    made = (home.place / "var").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (0, 0, 0o755)

    before = inodes(home.folder)
    again = home.install(archive)
    assert (again.installed, again.removed, again.text()) == (0, 0, "everything is in its place")
    assert inodes(home.folder) == before


def test_owner_and_group_are_those_of_the_entry_and_the_mode_is_that_of_the_source(home: House) -> None:
    archive, shadow = home.place / "archive", home.place / "etc/shadow"
    fill(home.there(archive))
    home.there(shadow).parent.mkdir(parents=True)
    home.there(shadow).write_text("root:*:1::::::\n")
    home.there(shadow).chmod(0o640)
    os.chown(home.there(shadow), 1234, 1234)
    home.push(archive, shadow)
    assert home.install(archive, shadow, permissions="daemon:shadow").problems() == []
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in [archive, *archive.rglob("*"), shadow]}
    assert owners == {(pwd.getpwnam("daemon").pw_uid, grp.getgrnam("shadow").gr_gid)}
    assert stat.S_IMODE(shadow.stat().st_mode) == 0o640
    assert stat.S_IMODE((archive / "plain").stat().st_mode) == 0o4755
    assert stat.S_IMODE((archive / "sub").stat().st_mode) == 0o2775


def test_what_is_not_staged_goes_and_is_kept_once(home: House) -> None:
    archive = home.place / "archive"
    there = home.there(archive)
    (there / "old folder/deep").mkdir(parents=True)
    (there / "old folder/deep/file").write_text("old")
    (there / "stays").write_text("1")
    (there / "goes").write_text("gone")
    home.push(archive)
    home.install(archive)
    # Never staged, so never taken away: a socket, and a link that leads out.
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(archive / "old folder/socket"))
        (archive / "out").symlink_to("/etc/hostname")
        (there / "goes").unlink()
        (there / "old folder/deep/file").unlink()
        (there / "old folder/deep").rmdir()
        (there / "old folder").rmdir()
        (there / "stays").write_text("22")
        home.push(archive)
        outcome = home.install(archive)
        assert sorted(path.name for path in archive.iterdir()) == ["old folder", "out", "stays"]
        assert [path.name for path in (archive / "old folder").iterdir()] == ["socket"]
    assert outcome.removed == 2
    kept = home.replaced / archive.relative_to("/")
    assert (kept / "goes").read_text() == "gone"
    assert (kept / "stays").read_text() == "1"
    assert (kept / "old folder/deep/file").read_text() == "old"
    assert stat.S_IMODE(home.replaced.stat().st_mode) == 0o700

    # A run with nothing to do leaves it, the next that replaces something replaces it.
    home.install(archive)
    assert (kept / "goes").exists()
    (there / "stays").write_text("333")
    home.push(archive)
    home.install(archive)
    assert [(path.name, path.read_text()) for path in kept.iterdir()] == [("stays", "22")]
    assert sorted(path.name for path in home.replaced.parent.iterdir()) == ["replaced"]


@pytest.mark.parametrize("first", ["file", "folder", "link"])
@pytest.mark.parametrize("second", ["file", "folder", "link"])
def test_one_kind_takes_the_place_of_another(home: House, first: str, second: str) -> None:
    archive = home.place / "archive"
    there = home.there(archive)
    there.mkdir(parents=True)

    def make(kind: str, path: Path) -> None:
        if kind == "file":
            path.write_text(f"content of {path.parent.parent.name}")
        elif kind == "link":
            path.symlink_to("somewhere")
        else:
            path.mkdir()
            (path / "inside").write_text("folder")

    archive.mkdir()
    make(first, archive / "it")
    make(second, there / "it")
    before = tree(archive)
    home.push(archive)
    assert home.install(archive).problems() == []
    assert tree(archive) == tree(there)
    if before[b"it"] != tree(there)[b"it"]:
        assert tree(home.replaced / archive.relative_to("/")) == before
    assert home.install(archive).text() == "everything is in its place"


def test_an_entry_with_nothing_staged_stays_as_it_is(home: House) -> None:
    license, status = home.place / ".license", home.place / "none/status.conf"
    license.write_text("mine")
    left = home.place / temporary(".license")
    left.write_text("of a run that was cut off")
    outcome = home.install(license, status)
    assert license.read_text() == "mine"
    assert not left.exists() and not status.parent.exists()
    assert outcome.text() == f"everything is in its place; nothing is staged for {license}, {status}"
    assert outcome.nothing == [str(license), str(status)]


@pytest.mark.parametrize(
    ("permissions", "words"),
    [
        ("nosuchaccount:root", "there is no account 'nosuchaccount' here: create it, or name another in HA/module.xml"),
        ("root:nosuchgroup", "its permissions are 'root:nosuchgroup', and there is no group 'nosuchgroup' here"),
    ],
)
def test_an_owner_that_does_not_exist_is_refused_by_name_and_the_others_are_installed(home: House, permissions: str, words: str) -> None:
    good, bad = home.place / "good", home.place / "bad"
    for path in (good, bad):
        home.there(path).parent.mkdir(parents=True, exist_ok=True)
        home.there(path).write_text("new")
    bad.write_text("old")
    home.push(good, bad)
    files = [ReplicatedFile(str(bad), True, None, permissions), ReplicatedFile(str(good), True, None, "root:root")]
    outcome = Installer(str(home.stage), home.replaced, threading.Event(), {}).install(files)
    assert (good.read_text(), bad.read_text()) == ("new", "old")
    [(code, text)] = outcome.problems()
    assert code == "STAGED_FILE_REFUSED" and str(bad) in text and words in text


def test_what_leads_out_and_what_is_no_file_is_left_out_and_named(home: House) -> None:
    archive = home.place / "archive"
    there = home.there(archive)
    (there / "sub").mkdir(parents=True)
    outside = {"absolute": "/etc/passwd", "up": "../other", "sneaky": "sub/../../x", "sub/up": "../../x"}
    for name, target in outside.items():
        (there / name).symlink_to(target)
    (there / "good").symlink_to("sub")
    home.push(archive)
    os.mkfifo(home.staged(archive) / "pipe")
    placeholder = home.staged(archive) / "device"
    placeholder.touch()
    say(placeholder, "20666 1,3 0:0")
    archive.mkdir()
    (archive / "absolute").write_text("stays")
    outcome = home.install(archive)
    assert sorted(path.name for path in archive.iterdir()) == ["absolute", "good", "sub"]
    assert (archive / "absolute").read_text() == "stays"
    texts = [text for code, text in outcome.problems() if code == "STAGED_FILE_LEFT_OUT"]
    assert len(texts) == 6 and outcome.refused == []
    for name in (*outside, "pipe", "device"):
        assert any(text.startswith(f"{archive}/{name} was left out") for text in texts)


@pytest.mark.parametrize(
    ("target", "name", "inside"),
    [
        ("b", ("e", "a"), True),
        ("d/b", ("e", "a"), True),
        ("../b", ("e", "d", "a"), True),
        ("..", ("e", "d", "a"), True),
        (".", ("e", "a"), True),
        ("/x/e/b", ("e", "a"), True),
        ("/x/e", ("e", "a"), True),
        ("b", ("e",), False),
        ("../b", ("e", "a"), False),
        ("./../b", ("e", "a"), False),
        ("..//../b", ("e", "d", "a"), False),
        ("d/../b", ("e", "a"), False),
        ("/x/e/../f", ("e", "a"), False),
        ("/x/eb", ("e", "a"), False),
        ("/", ("e", "a"), False),
    ],
)
def test_where_a_link_leads(target: str, name: tuple[str, ...], inside: bool) -> None:
    assert stays_inside(target, "/x/e", name) is inside


def test_no_link_in_the_stage_is_followed(home: House) -> None:
    """The account that writes the stage makes links to what it cannot read itself."""
    secret = home.folder / "secret"
    secret.mkdir(0o700)
    (secret / "key").write_text("secret")
    file, inside, tree_entry = home.place / "file", home.place / "sub/inside", home.place / "tree"
    at = home.staged(home.place)
    at.mkdir(parents=True)
    (at / "file").symlink_to(secret / "key")
    (at / "sub").symlink_to(secret)
    (secret / "inside").write_text("secret")
    (at / "tree").mkdir()
    (at / "tree/folder").symlink_to(secret)
    os.link(secret / "key", at / "tree/hard")
    os.chown(at, PEER, PEER)
    outcome = home.install(file, inside, tree_entry)
    assert [path.name for path in home.place.iterdir()] == ["tree"] and list((home.place / "tree").iterdir()) == []
    assert len(outcome.problems()) == 4
    for path in (file, inside, tree_entry / "folder", tree_entry / "hard"):
        assert any(str(path) in text for _code, text in outcome.problems())


def test_the_stage_itself_is_no_link_of_somebody_else(home: House) -> None:
    stage = home.folder / "link"
    stage.symlink_to(home.stage)
    with pytest.raises(OSError):
        Installer(str(stage), home.replaced, threading.Event(), {}).install([ReplicatedFile("/nonexistent", True, None, "root:root")])


def test_links_of_root_lead_to_a_place_and_those_of_others_do_not(home: House) -> None:
    big = home.folder / "big"
    big.mkdir()
    (home.place / "var").symlink_to(big)
    (home.place / "theirs").symlink_to(big)
    os.lchown(home.place / "theirs", PEER, PEER)
    (big / "data").mkdir()
    (big / "archive").symlink_to("data")
    archive, file, theirs = home.place / "var/archive", home.place / "var/file", home.place / "theirs/file"
    home.there(archive).mkdir(parents=True)
    (home.there(archive) / "a").write_text("a")
    home.there(file).write_text("f")
    home.there(theirs).parent.mkdir()
    home.there(theirs).write_text("bad")
    home.push(archive, file, theirs)
    outcome = home.install(archive, file, theirs)
    assert (big / "archive").is_symlink() and (big / "data/a").read_text() == "a" and (big / "file").read_text() == "f"
    [(code, text)] = outcome.problems()
    assert code == "STAGED_FILE_REFUSED" and str(theirs) in text and "not root's" in text


def test_what_rsync_has_not_finished_is_not_installed(home: House) -> None:
    archive = home.place / "archive"
    home.there(archive).mkdir(parents=True)
    (home.there(archive) / "log").write_text("whole")
    home.push(archive)
    half = home.staged(archive) / ".log.Xa81bQ"
    half.write_text("who")
    half.chmod(0o600)
    assert home.install(archive).problems() == []
    assert [path.name for path in archive.iterdir()] == ["log"]


def test_set_id_bits_that_no_source_had_are_not_installed(home: House) -> None:
    program = home.place / "program"
    staged = home.staged(program)
    staged.parent.mkdir(parents=True)
    staged.write_text("#!/bin/sh\n")
    staged.chmod(0o6755)
    home.install(program)
    assert stat.S_IMODE(program.stat().st_mode) == 0o755


@pytest.mark.parametrize("said", ["", "rubbish", "100644", "100644 0,0 0", "40755 0,0 0:0", "-1 0,0 0:0", "0777777777777 0,0 0:0"])
def test_an_attribute_that_says_nothing_useful_is_named(home: House, said: str) -> None:
    file = home.place / "file"
    file.write_text("old")
    home.staged(file).parent.mkdir(parents=True)
    home.staged(file).write_text("new")
    say(home.staged(file), said)
    outcome = home.install(file)
    assert file.read_text() == "old" and str(file) in outcome.problems()[0][1]


def test_a_stage_that_is_too_deep_uses_nothing_up(home: House) -> None:
    archive = home.place / "archive"
    deep = home.staged(archive)
    for _each in range(150):
        deep = deep / "d"
    deep.mkdir(parents=True)
    outcome = home.install(archive)
    assert not archive.exists() and "folders lie within each other" in outcome.problems()[0][1]
    assert not [name for name in os.listdir(home.place) if name.startswith(".swg_ha")]


def test_a_stop_leaves_nothing_half(home: House) -> None:
    archive = home.place / "archive"
    fill(home.there(archive))
    home.push(archive)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        Installer(str(home.stage), home.replaced, stop, {}).install([ReplicatedFile(str(archive), True, None, "root:root")])
    assert list(home.place.iterdir()) == []


@pytest.fixture
def small_disk(home: House) -> Iterator[Path]:
    """Another file system, with room for next to nothing."""
    place = home.folder / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_refuses_one_entry_as_a_whole_and_the_others_are_installed(home: House, small_disk: Path) -> None:
    archive, license = small_disk / "archive", home.place / "license"
    home.there(archive).mkdir(parents=True)
    for number in range(4):
        (home.there(archive) / str(number)).write_bytes(os.urandom(200_000))
    home.there(license).parent.mkdir(parents=True)
    home.there(license).write_text("new")
    archive.mkdir()
    (archive / "1").write_text("old")
    home.push(archive, license)
    outcome = home.install(archive, license)
    assert license.read_text() == "new"
    assert [(path.name, path.read_text()) for path in archive.iterdir()] == [("1", "old")]
    [(code, text)] = outcome.problems()
    assert code == "STAGED_FILE_REFUSED" and str(archive) in text and "No space left" in text


def test_what_was_there_is_copied_where_it_cannot_be_linked(home: House, small_disk: Path) -> None:
    archive = small_disk / "archive"
    home.there(archive).mkdir(parents=True)
    (home.there(archive) / "changed").write_text("new")
    (archive / "gone/deep").mkdir(parents=True)
    (archive / "gone/deep/file").write_text("gone")
    (archive / "changed").write_text("old")
    before = tree(archive)
    home.push(archive)
    assert home.install(archive).problems() == []
    assert tree(archive) == tree(home.there(archive))
    assert tree(home.replaced / archive.relative_to("/")) == before


def test_a_folder_that_cannot_be_kept_is_not_lost(home: House, small_disk: Path) -> None:
    """Its place is taken, and there is no room to keep it: it waits under its temporary name for the next run."""
    archive, kept = home.place / "archive", small_disk / "replaced"
    home.there(archive).mkdir(parents=True)
    (home.there(archive) / "it").write_text("now a file")
    (archive / "it").mkdir(parents=True)
    (archive / "it/large").write_bytes(os.urandom(600_000))
    before = tree(archive)
    home.push(archive)
    files = [ReplicatedFile(str(archive), True, None, "root:root")]
    outcome = Installer(str(home.stage), kept, threading.Event(), {}).install(files)
    [(code, text)] = outcome.problems()
    assert code == "STAGED_FILE_REFUSED" and "No space left" in text
    assert (archive / "it").read_text() == "now a file"
    assert tree(archive / temporary("it"))[b"large"] == before[b"it/large"]
    home.install(archive)
    assert tree(home.replaced / archive.relative_to("/")) == before


# Cut off


def in_child(work: Callable[[], object], at: Callable[[int, str, tuple[object, ...]], None]) -> int:
    """Do the work in a process of its own, which calls ``at`` before each thing that it does; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            number = 0

            def hook(event: str, arguments: tuple[object, ...]) -> None:
                nonlocal number
                if event in WORK:
                    number += 1
                    at(number, event, arguments)

            sys.addaudithook(hook)
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _pid, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def killing(limit: int) -> Callable[[int, str, tuple[object, ...]], None]:
    """The end of the process before the thing of this number."""

    def at(number: int, event: str, arguments: tuple[object, ...]) -> None:
        if number == limit:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def worlds(home: House, many: int) -> tuple[list[Path], Callable[[], None]]:
    """(entries, what makes their places old again). New, changed, removed, and one kind in the place of another."""
    archive, license, fresh = home.place / "archive", home.place / "etc/.license", home.place / "fresh"
    there = home.there(archive)
    (there / "becomes folder").mkdir(parents=True)
    (there / "becomes folder/inside").write_text("new")
    (there / "becomes file").write_text("new")
    (there / "changed").write_text("new")
    (there / "linked").symlink_to("changed")
    for number in range(many):
        (there / f"many{number}").write_text("new")
    (home.there(fresh) / "sub").mkdir(parents=True)
    (home.there(fresh) / "one").write_text("new")
    (home.there(fresh) / "sub/two").write_text("new")
    home.there(license).parent.mkdir()
    home.there(license).write_text("new")
    home.there(license).chmod(0o600)
    home.push(archive, license, fresh)

    def reset() -> None:
        for folder in (home.place, home.replaced.parent):
            subprocess.run(["rm", "-rf", str(folder)], check=True)
        home.place.mkdir()
        (archive / "becomes file/deep").mkdir(parents=True)
        (archive / "becomes file/deep/file").write_text("old")
        (archive / "becomes folder").write_text("old")
        (archive / "changed").write_text("old")
        (archive / "removed").write_text("old")
        (archive / "removed too").mkdir()
        (archive / "removed too/file").write_text("old")
        license.parent.mkdir()
        license.write_text("old")
        license.chmod(0o644)

    return [archive, license, fresh], reset


@pytest.mark.parametrize("many", [0, FEW])
def test_killed_anywhere_everything_is_old_or_new_and_the_next_run_ends_it(home: House, many: int) -> None:
    entries, reset = worlds(home, many)
    reset()
    old = {b"fresh": None, **tree(home.place)}
    home.install(*entries)
    new = tree(home.place)
    assert {name for name in new if name.startswith(b"fresh")} and tree(home.replaced / home.place.relative_to("/"))
    kept = tree(home.replaced / home.place.relative_to("/"))
    killed = 0

    # Of the many that are alike, some.
    while True:
        reset()
        status = in_child(lambda: home.install(*entries), killing(killed + 1))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 7 if many else 1
        now = {name: said for name, said in tree(home.place).items() if b".swg_ha." not in name}
        for name, said in now.items():
            # A file's time tells old from new as well; that of an old one is that of its reset.
            assert without_time(said) in (without_time(old.get(name)), without_time(new.get(name))), (killed, name)
        if any(name.startswith(b"fresh") for name in now):
            assert {name for name in now if name.startswith(b"fresh")} == {name for name in new if name.startswith(b"fresh")}
        for name in (b"etc/.license", b"archive/changed"):
            assert name in now
        assert home.install(*entries).problems() == []
        assert tree(home.place) == new, killed
        found = tree(home.replaced / home.place.relative_to("/"))
        assert {name: without_time(said) for name, said in found.items()} == {name: without_time(said) for name, said in kept.items()}, (
            killed
        )
        assert [path.name for path in home.replaced.parent.iterdir()] == ["replaced"]
    assert killed > 60


def without_time(said: tuple[object, ...] | None) -> object:
    return said if said is None or len(said) != 6 else (*said[:4], said[5])


@pytest.mark.parametrize("many", [0, FEW])
def test_after_a_power_cut_anywhere_everything_is_old_or_new(home: House, many: int) -> None:
    """What has reached the disk of a real file system by then is all that there is afterwards, read by way of its journal."""
    disk, image = home.folder / "disk", home.folder / "image"
    disk.mkdir()
    image.write_bytes(b"")
    os.truncate(image, 24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    with mounted(image, disk):
        home.place, home.replaced = disk / "place", disk / "state/replaced"
        for folder in (home.place, home.replaced.parent):
            folder.mkdir()
        entries, reset = worlds(home, many)
        reset()
        old = tree(home.place)
    before = image.read_bytes()
    with mounted(image, disk):
        home.install(*entries)
        # Without an orderly end: what it has waited for is there.
        cut = image.read_bytes()
        new = tree(home.place)
    image.write_bytes(cut)
    with mounted(image, disk):
        assert tree(home.place) == new
        kept = tree(home.replaced / home.place.relative_to("/"))

    limit, status = 0, -1
    while status != 0:
        limit += 60 if many else 12
        image.write_bytes(before)
        with mounted(image, disk):
            status = in_child(lambda: home.install(*entries), killing(limit))
            cut = image.read_bytes()
        image.write_bytes(cut)
        with mounted(image, disk):
            for name, said in tree(home.place).items():
                if b".swg_ha." not in name:
                    assert without_time(said) in (without_time(old.get(name)), without_time(new.get(name))), (limit, name)
            assert (home.place / "etc/.license").exists() and (home.place / "archive/changed").exists()
            assert home.install(*entries).problems() == []
            assert tree(home.place) == new, limit
            found = tree(home.replaced / home.place.relative_to("/"))
            assert {name: without_time(said) for name, said in found.items()} == {name: without_time(said) for name, said in kept.items()}
    assert limit > 100


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_links_swapped_in_while_it_runs_lead_nowhere(home: House) -> None:
    """Before each thing that the installer does, the account swaps something for a link to what it cannot read."""
    archive = home.place / "archive"
    (home.there(archive) / "sub").mkdir(parents=True)
    for name in ("file", "sub/inside"):
        (home.there(archive) / name).write_text("fine")
    secret = home.folder / "secret"
    secret.mkdir()
    for name in ("file", "inside"):
        (secret / name).write_text("hush")
    stage = home.staged(archive)
    home.push(archive)
    pushed = home.folder / "pushed"
    subprocess.run(["cp", "-a", str(home.stage), str(pushed)], check=True)

    def swap(what: str, limit: int) -> Callable[[int, str, tuple[object, ...]], None]:
        def at(number: int, event: str, arguments: tuple[object, ...]) -> None:
            if number == limit:
                os.rename(stage / what, home.folder / f"moved {what.replace('/', ' ')}")
                os.symlink(secret if what == "sub" else secret / Path(what).name, stage / what)

        return at

    for what in ("file", "sub", "sub/inside"):
        for limit in range(1, 200):
            for folder in (home.stage, home.place, *home.folder.glob("moved *"), home.replaced.parent):
                subprocess.run(["rm", "-rf", str(folder)], check=True)
            home.place.mkdir()
            subprocess.run(["cp", "-a", str(pushed), str(home.stage)], check=True)
            status = in_child(lambda: home.install(archive), swap(what, limit))
            assert status == 0
            assert "hush" not in [path.read_text() for path in home.place.rglob("*") if path.is_file()], (what, limit)
            if not (stage / what).is_symlink():
                break
        assert 5 < limit < 199


# What would lock everybody out


def test_a_shadow_that_locks_everybody_out_is_refused_and_the_rest_is_installed(home: House) -> None:
    passwd, shadow, license = home.place / "passwd", home.place / "shadow", home.place / "license"
    guarded = {str(passwd): "/etc/passwd", str(shadow): "/etc/shadow"}
    line = "root:$y$j9T$abcdefghijklmnop:19000:0:99999:7:::\n"
    passwd.write_text("root:x:0:0:root:/root:/bin/bash\n")
    shadow.write_text(line)
    for path, content in ((passwd, passwd.read_text()), (shadow, line.replace("$y", "!$y")), (license, "new")):
        home.there(path).parent.mkdir(parents=True, exist_ok=True)
        home.there(path).write_text(content)
        home.there(path).chmod(0o640)
    home.push(passwd, shadow, license)
    outcome = home.install(shadow, license, passwd, guarded=guarded)
    assert (shadow.read_text(), license.read_text()) == (line, "new")
    assert stat.S_IMODE(passwd.stat().st_mode) == 0o640
    [(code, text)] = outcome.problems()
    assert code == "STAGED_FILE_REFUSED" and text.startswith(f"{shadow} was not installed, and its place stays as it is: no account in it")
    assert sorted(path.name for path in home.place.iterdir()) == ["license", "passwd", "shadow"]

    home.there(shadow).write_text(line.replace("19000", "19001"))
    home.push(shadow)
    assert home.install(shadow, license, passwd, guarded=guarded).problems() == []
    assert "19001" in shadow.read_text()


def test_a_folder_with_accounts_in_it_does_not_take_them_away(home: House) -> None:
    etc = home.place / "etc"
    etc.mkdir()
    (etc / "shadow").write_text("root:*:19000:0:99999:7:::\n")
    (etc / "old").write_text("old")
    home.there(etc).mkdir(parents=True)
    (home.there(etc) / "new").write_text("new")
    home.push(etc)
    home.install(etc, guarded={str(etc / "shadow"): "/etc/shadow"})
    assert sorted(path.name for path in etc.iterdir()) == ["new", "shadow"]
