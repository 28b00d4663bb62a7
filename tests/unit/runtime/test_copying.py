# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""One copy, by the real rsync and the real rrsync, without SSH between them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swg_ha import copying
from swg_ha.copying import Copy, mounted, mounts, parse, printable, render

TABLE = """\
22 1 8:1 / / rw - ext4 /dev/a rw
30 22 8:2 / /var rw - ext4 /dev/b rw
31 30 8:3 / /var/log\\040server/archive rw - ext4 /dev/c rw
32 30 8:4 / /variable rw - ext4 /dev/d rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc/shadow", ["/"]),
        ("/var/x", ["/var"]),
        ("/var/log server/archive", ["/var/log server/archive"]),
        ("/var/log server", ["/var", "/var/log server/archive"]),
        ("/variable/x", ["/variable"]),
        ("/var", ["/var", "/var/log server/archive"]),
    ],
)
def test_the_mounts_that_a_source_lies_on(path: str, expected: list[str]) -> None:
    assert mounts(path, mounted(TABLE)) == expected


def test_what_is_written_is_read() -> None:
    fields = {"name": ["/a b"], "left_out": ["x", "y"], "code": [""]}
    assert parse(render(fields)) == fields
    assert render({"name": ["a\nb\x1b", "\udcff"]}) == "name a\\x0ab\\x1b\nname \\xff\n"
    assert printable("ä") == "ä"


def test_it_imports_only_what_starts_quickly() -> None:
    code = "import sys; before = set(sys.modules); from swg_ha import copying; print(*sorted(set(sys.modules) - before))"
    folder = Path(copying.__file__).parents[1]
    said = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"], capture_output=True, text=True
    )
    assert set(said.stdout.split()) & {"re", "json", "subprocess", "asyncio", "ctypes", "hashlib", "typing"} == set(), said.stderr


class Server:
    """The other server's landing area, and the entry that is copied there."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = tmp_path
        self.landing = tmp_path / "landing"
        for folder in ("landing/ha/.incoming", "landing/.incoming", "run", "state", "src"):
            (tmp_path / folder).mkdir(parents=True)
        self.src = tmp_path / "src"
        self.commands: list[list[str]] = []
        self.down: set[str] = set()
        self.before_rsync: Callable[[], object] = lambda: None
        self.table = "22 1 8:1 / / rw - ext4 /dev/a rw\n"
        way = tmp_path / "way"
        way.write_text(f'#!/bin/sh\nshift\nexport SSH_ORIGINAL_COMMAND="$*"\nexec rrsync -wo -no-lock {self.landing}\n')
        way.chmod(0o755)
        real = copying._run

        def run(argv: list[str], hear: Callable[[str], object] = len) -> tuple[int, str]:
            self.commands.append(argv)
            if argv[0] != "rsync":
                return int(argv[1] == "start" and any(link in argv[-1] for link in self.down)), ""
            self.before_rsync()
            if any(argv[-1].startswith(link) for link in self.down):
                return 12, "rsync: connection unexpectedly closed\n"
            return real([f"--rsh={way}" if word.startswith("--rsh=") else word for word in argv], hear)

        monkeypatch.setattr(copying, "_run", run)
        monkeypatch.setattr(copying, "MOUNTS", str(tmp_path / "mounts"))

    def copy(self, path: Path, *, accept: bool = False, inotify: bool = True) -> copying.Fields:
        (self.folder / "mounts").write_text(self.table)
        fields = {"id": ["x"], "name": [str(path)], "inotify": [str(int(inotify))], "link": ["link1", "link0"]}
        copying.write(str(self.folder / "run/x.entry"), fields)
        copying.touch(str(self.folder / "run/x.changed"))
        if accept:
            copying.touch(str(self.folder / "run/x.accept"))
        Copy("x", str(self.folder / "run"), str(self.folder / "state")).make()
        return copying.read(str(self.folder / "state/x"))

    def copied(self, path: Path) -> Path:
        return self.landing / "ha" / str(path).lstrip("/")

    def flag(self) -> bool:
        return (self.folder / "run/x.changed").exists()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    if not any(os.access(f"{folder}/rrsync", os.X_OK) for folder in ("/usr/bin", "/usr/sbin")):
        pytest.fail("rrsync is missing: bin/need rsync")
    return Server(tmp_path, monkeypatch)


def test_a_file_and_what_is_remembered_of_it(server: Server) -> None:
    source = server.src / "a file"
    source.write_text("content")
    state = server.copy(source)
    assert server.copied(source).read_text() == "content"
    assert (state["good_bytes"], state["good_size"], state["good_entries"], state["good_files"]) == (["7"], ["7"], ["1"], ["1"])
    assert (state["good_link"], state["failures"], state.get("code"), state["attempts"]) == (["link1"], ["0"], None, ["1"])
    assert not server.flag()
    assert server.copy(source)["good_bytes"] == ["0"]


def test_a_folder_is_mirrored_whatever_is_in_it(server: Server) -> None:
    tree = server.src / "tree"
    (tree / "sub").mkdir(parents=True)
    for name in (b"a blank", b"line\nfeed", b"-dash", b"\xff\xfe", b'*?[]{}$`"\\'):
        Path(os.fsdecode(os.path.join(os.fsencode(tree), b"sub", name))).write_text("x")
    (tree / "outside").symlink_to("/etc/passwd")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket"))
    os.mkfifo(tree / "pipe")
    state = server.copy(tree)
    assert state.get("code") is None
    assert sorted(os.listdir(server.copied(tree) / "sub")) == sorted(os.listdir(tree / "sub"))
    assert server.copied(tree / "outside").read_text() == "/etc/passwd" and not server.copied(tree / "outside").is_symlink()
    assert sorted(each.rpartition("/")[2] for each in state["left_out"]) == ["pipe", "socket"]
    assert ["systemctl", "start", "--no-block", "ha_tree@x.service"] in server.commands
    (tree / "sub" / "-dash").unlink()
    server.copy(tree)
    assert "-dash" not in os.listdir(server.copied(tree) / "sub")


def lose(kind: str, tree: Path) -> None:
    for each in tree.iterdir():
        each.unlink()
    if kind == "missing":
        tree.rmdir()


@pytest.mark.parametrize(("kind", "code"), [("missing", "FILE_SOURCE_MISSING"), ("empty", "FILE_SOURCE_EMPTY")])
def test_a_folder_that_is_gone_or_empty_empties_no_copy(server: Server, kind: str, code: str) -> None:
    tree = server.src / "tree"
    tree.mkdir()
    (tree / "one").write_text("1")
    server.copy(tree)
    lose(kind, tree)
    for failures in ("1", "2"):
        state = server.copy(tree)
        assert (state["code"], state["failures"]) == ([code], [failures])
        assert state["good_size"] == ["1"]
        assert server.copied(tree / "one").read_text() == "1"
    state = server.copy(tree, accept=True)
    if kind == "missing":
        # An operator may well want a folder empty; what is not to be copied at all is taken off the list.
        assert state["code"] == [code] and "off the list" in state["error"][0] and server.copied(tree / "one").exists()
    else:
        assert state.get("code") is None and not server.copied(tree / "one").exists()
        assert server.copy(tree).get("code") is None


def test_a_folder_that_is_emptied_while_a_link_is_tried_empties_no_copy(server: Server) -> None:
    tree = server.src / "tree"
    tree.mkdir()
    (tree / "one").write_text("1")
    server.copy(tree)
    # The one that the last copy went over dies, and takes its time.
    (server.folder / "run/link1").touch()
    server.down.add("link1")
    server.before_rsync = lambda: lose("empty", tree)
    assert server.copy(tree)["code"] == ["FILE_SOURCE_EMPTY"]
    assert server.copied(tree / "one").read_text() == "1"


def test_an_empty_file_empties_no_copy_also_when_nothing_is_remembered(server: Server) -> None:
    source = server.src / "file"
    source.write_text("content")
    server.copy(source)
    source.write_text("")
    assert server.copy(source)["code"] == ["FILE_SOURCE_EMPTY"]
    (server.folder / "state/x").unlink()
    assert server.copy(source).get("code") is None
    assert server.copied(source).read_text() == "content"


def test_a_file_that_is_meant_to_be_empty_is_nothing_to_worry_about(server: Server) -> None:
    source = server.src / "file"
    source.write_text("")
    for _ in range(3):
        assert server.copy(source).get("code") is None
    source.write_text("content")
    assert server.copy(source).get("code") is None
    source.write_text("")
    assert server.copy(source)["code"] == ["FILE_SOURCE_EMPTY"]
    assert server.copy(source, accept=True).get("code") is None and server.copied(source).read_text() == ""
    # What was accepted once is not asked for again.
    assert server.copy(source).get("code") is None


def test_a_source_that_was_never_there_is_nothing_to_worry_about(server: Server) -> None:
    state = server.copy(server.src / "never")
    assert (state["good_absent"], state.get("code"), server.commands) == (["1"], None, [])


def test_what_is_no_longer_mounted_empties_no_copy(server: Server) -> None:
    tree = server.src / "tree"
    tree.mkdir()
    (tree / "one").write_text("1")
    bare = server.table
    server.copy(tree)
    server.table += f"23 22 8:2 / {tree} rw - ext4 /dev/b rw\n"
    assert str(tree) in server.copy(tree)["good_mounts"]
    server.table = bare
    (tree / "one").rename(tree / "two")
    state = server.copy(tree)
    assert (state["code"], server.copied(tree / "one").exists()) == (["FILE_NOT_MOUNTED"], True)
    server.copy(tree, accept=True)
    assert not server.copied(tree / "one").exists() and server.copied(tree / "two").exists()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_cannot_be_copied_says_why(server: Server, kind: str) -> None:
    source = server.src / "x"
    source.symlink_to("/etc/hostname") if kind == "link" else os.mkfifo(source)
    state = server.copy(source)
    assert state["code"] == ["FILE_FAILED"]
    assert ("/etc/hostname" if kind == "link" else "neither a file nor a folder") in state["error"][0]


def test_a_file_that_is_written_while_it_is_copied_is_copied_again(server: Server) -> None:
    source = server.src / "file"
    source.write_text("1")
    server.before_rsync = lambda: source.write_text("22")
    server.copy(source)
    assert server.flag()
    server.before_rsync = lambda: None
    server.copy(source)
    assert not server.flag() and server.copied(source).read_text() == "22"


def test_whoever_looks_sees_that_it_has_changed_or_that_it_is_copied(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    source, real, seen = server.src / "file", copying.remove, list[bool]()
    source.write_text("1")

    def remove(path: str) -> bool:
        gone = real(path)
        seen.append(copying.busy(str(server.folder / "run")))
        return gone

    monkeypatch.setattr(copying, "remove", remove)
    server.copy(source)
    assert seen and all(seen)


def test_two_versions_of_one_second_are_two(server: Server) -> None:
    """Of one size too: left to itself, rsync would take them for equal, and the second one would never arrive."""
    source = server.src / "file"
    for content, nanoseconds in (("1", 250_000_000), ("2", 750_000_000)):
        source.write_text(content)
        os.utime(source, ns=(nanoseconds, 1_700_000_000_000_000_000 + nanoseconds))
        server.copy(source)
        assert server.copied(source).read_text() == content


def test_a_file_that_goes_while_it_is_copied_keeps_its_copy(server: Server) -> None:
    source = server.src / "file"
    source.write_text("1")
    server.copy(source)
    server.before_rsync = source.unlink
    state = server.copy(source)
    assert (state["code"] in (["FILE_FAILED"], ["FILE_SOURCE_MISSING"]) and str(source) in state["error"][0]) or state["code"] == [
        "FILE_SOURCE_MISSING"
    ]
    assert server.copied(source).read_text() == "1"


def test_a_link_that_fails_is_left_for_the_other_one_and_not_tried_first_again(server: Server) -> None:
    source = server.src / "file"
    source.write_text("1")
    server.down = {"link1"}
    assert server.copy(source)["good_link"] == ["link0"]
    assert ["systemctl", "stop", "--no-block", "ha_ssh@link1.service"] in server.commands
    server.commands.clear()
    server.copy(source)
    assert [argv[-1] for argv in server.commands] == ["ha_ssh@link0.service", "link0:ha/"]
    server.down = {"link0", "link1"}
    state = server.copy(source)
    assert state["code"] == ["FILE_FAILED"] and "link0" in state["error"][0] and "link1" in state["error"][0]


def test_an_error_says_what_is_wrong(server: Server) -> None:
    source = server.src / "file"
    source.write_text("1")
    for folder in (".incoming", "ha/.incoming"):
        (server.landing / folder).rmdir()
    state = server.copy(source)
    assert state["code"] == ["FILE_FAILED"] and ".incoming" in state["error"][0]


def test_without_its_entry_it_says_what_to_do(server: Server) -> None:
    Copy("y", str(server.folder / "run"), str(server.folder / "state")).make()
    assert "systemctl reload ha_manager" in copying.read(str(server.folder / "state/y"))["error"][0]


def test_a_long_copy_is_followed_by_a_rest(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    source = server.src / "file"
    source.write_text("1")
    slept: list[float] = []
    monkeypatch.setattr(copying.time, "sleep", slept.append)
    state: dict[str, Any] = server.copy(source)
    copying.write(str(server.folder / "state/x"), state | {"seconds": ["4.0"]})
    server.copy(source)
    assert len(slept) == 1 and 0 < slept[0] <= 4


def test_the_places_for_copies_are_few(tmp_path: Path) -> None:
    held = [copying._Slot(str(tmp_path), "x") for _slot in range(copying.SLOTS)]
    for slot in held:
        slot.__enter__()
    assert copying.busy(str(tmp_path))
    assert len({slot._file for slot in held}) == copying.SLOTS
    for slot in held:
        slot.__exit__()
    assert not copying.busy(str(tmp_path))


def test_it_takes_one_id(capsys: pytest.CaptureFixture[str]) -> None:
    assert copying.main([]) == 2
    assert "usage" in capsys.readouterr().err
