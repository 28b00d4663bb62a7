# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[3] / "roles/postgres_streaming/files/synchronous_standby.py"
GRACE_S = 5.0


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("synchronous_standby", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "expected"), [("ps2", '"ps2"'), ("node-two.example", '"node-two.example"'), ('a"b', '"a""b"'), ("it's", '"it\'s"')]
)
def test_names_as_postgresql_reads_them(program, name, expected):
    assert program.quoted(name) == expected


@pytest.mark.parametrize(
    ("in_recovery", "streaming", "gone_for_s", "expected"),
    [
        (False, True, 0.0, '"ps2"'),
        (False, True, 99.0, '"ps2"'),
        # Gone, but not for long enough: whatever it was stays, and commits go on waiting.
        (False, False, 0.0, None),
        (False, False, GRACE_S - 0.1, None),
        (False, False, GRACE_S, ""),
        (False, False, 99.0, ""),
        # A standby has nothing to say about commits.
        (True, False, 99.0, None),
        (True, True, 0.0, None),
    ],
)
def test_whom_commits_wait_for(program, in_recovery, streaming, gone_for_s, expected):
    assert program.wanted(program.Seen(in_recovery, streaming, ""), "ps2", gone_for_s, GRACE_S) == expected


class Server:
    """A PostgreSQL that takes up at once what is applied, and a clock."""

    def __init__(self, program):
        self.program = program
        self.now = 1000.0
        self.seen = program.Seen(False, False, "")
        self.applied = []

    def apply(self, names):
        self.applied.append((self.now, names))
        self.seen = self.seen._replace(names=names)

    def watcher(self):
        return self.program.Watcher(lambda: self.seen, self.apply, "ps2", GRACE_S, lambda: self.now)

    def run(self, watcher, seconds, **seen):
        self.seen = self.seen._replace(**seen)
        for _step in range(int(seconds * 2)):
            watcher.step()
            self.now += 0.5


@pytest.fixture
def server(program):
    return Server(program)


def test_the_life_of_a_pair(server):
    watcher = server.watcher()
    server.run(watcher, 2)
    assert server.applied == []
    server.run(watcher, 10, streaming=True)
    assert server.applied == [(1002.0, '"ps2"')]
    # A short loss changes nothing. A second one is counted from its own beginning.
    server.run(watcher, 4, streaming=False)
    server.run(watcher, 1, streaming=True)
    server.run(watcher, 4, streaming=False)
    assert len(server.applied) == 1
    server.run(watcher, 10)
    [_first, (at, names)] = server.applied
    # Last seen streaming at 1016.5.
    assert (at, names) == (1016.5 + GRACE_S, "")
    server.run(watcher, 2, streaming=True)
    assert [names for _at, names in server.applied] == ['"ps2"', "", '"ps2"']


def test_after_a_start_the_standby_gets_its_time_of_grace(server):
    """The watcher may be what was gone: nobody knows for how long the standby has been."""
    server.seen = server.seen._replace(names='"ps2"')
    watcher = server.watcher()
    server.run(watcher, GRACE_S)
    assert server.applied == []
    server.run(watcher, 1)
    assert server.applied == [(1000.0 + GRACE_S, "")]


def test_after_a_promotion_the_former_primary_gets_its_time_of_grace(server):
    watcher = server.watcher()
    server.run(watcher, 100, in_recovery=True, names='"ps1"')
    assert server.applied == []
    server.run(watcher, GRACE_S - 1, in_recovery=False)
    assert server.applied == []
    server.run(watcher, 2)
    assert [names for _at, names in server.applied] == [""]


def test_somebody_elses_setting_is_put_right(server):
    watcher = server.watcher()
    server.run(watcher, 2, streaming=True)
    server.run(watcher, 2, names="")
    assert [names for _at, names in server.applied] == ['"ps2"', '"ps2"']


def test_a_change_is_told(server, capsys):
    server.run(server.watcher(), 2, streaming=True)
    assert capsys.readouterr().out == 'commits wait for "ps2" (before: nobody)\n'


def test_an_error_of_the_database_is_not_swallowed(program):
    def look():
        raise ConnectionError("server closed the connection")

    with pytest.raises(ConnectionError):
        program.Watcher(look, print, "ps2", GRACE_S, lambda: 0.0).step()


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ('"ps2"', "synchronous_standby_names = '\"ps2\"'"),
        ("", "synchronous_standby_names = ''"),
        ('"it\'s"', "synchronous_standby_names = '\"it''s\"'"),
    ],
)
def test_file_of_settings(program, tmp_path, names, line):
    path = tmp_path / "swg_ha_synchronous.conf"
    path.write_text("old\n")
    program.write_settings(path, names)
    assert path.read_text().splitlines()[1:] == [line]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_power_cut_leaves_the_old_file(program, tmp_path, monkeypatch, step):
    path = tmp_path / "swg_ha_synchronous.conf"
    path.write_text("old\n")

    def power_cut(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "write":
            patch.setattr("builtins.open", power_cut)
        else:
            patch.setattr(os, step, power_cut)
        with pytest.raises(KeyboardInterrupt):
            program.write_settings(path, '"ps2"')
    assert path.read_text() == "old\n"
    # PostgreSQL reads *.conf in conf.d, but no name that begins with a dot.
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(".")] == [path.name]
    program.write_settings(path, '"ps2"')
    assert '"ps2"' in path.read_text()


def test_the_file_is_durable_before_it_has_its_name(program, tmp_path, monkeypatch):
    done = []
    real = {"fsync": os.fsync, "rename": os.rename}

    def fsync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real["fsync"](descriptor)

    def rename(*arguments):
        done.append("rename")
        real["rename"](*arguments)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    program.write_settings(tmp_path / "file.conf", "")
    assert done == ["file", "rename", "folder"]


def test_without_its_arguments_it_says_what_it_needs(program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ha_synchronous_standby"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert all(option in said for option in ("--port", "--standby", "--grace", "--settings"))
