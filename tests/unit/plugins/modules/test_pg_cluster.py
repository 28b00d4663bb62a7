# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.swg.ha.plugins.module_utils import pg_move
from ansible_collections.swg.ha.plugins.modules import pg_cluster

DATA = {"PG_VERSION": b"15\n", "base/1/1259": b"\0rows\xff" * 100}


class PowerCut(BaseException):
    """Nothing of the program goes on, not even what handles its errors."""


class Machine:
    """postgresql-common and systemd for one cluster: its configuration is a file, its data is real, cp and sync run."""

    def __init__(self, root, wanted=None):
        self.old = root / "lib/15/main"
        self.wanted = wanted or root / "opt/postgresql/main"
        self.configuration = root / "postgresql.conf"
        self.running = False
        self.commands = []
        self.steps_left = None

    def create(self, where):
        for name, content in DATA.items():
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).write_bytes(content)
        self.configuration.write_text(str(where))
        self.running = True

    def step(self):
        """A boundary between two steps; the power goes here once steps_left is used up."""
        if self.steps_left is not None:
            if self.steps_left == 0:
                raise PowerCut
            self.steps_left -= 1

    def run_command(self, argv):
        self.step()
        self.commands.append(argv)
        match argv:
            case ["pg_conftool", "--short", "15", "main", "show", "data_directory"]:
                return 0, f"{self.configuration.read_text()}\n", ""
            case ["pg_conftool", "15", "main", "set", "data_directory", value]:
                self.configuration.write_text(value)
                result = 0, "", ""
            case ["systemctl", "stop", "postgresql@15-main"]:
                self.running = False
                result = 0, "", ""
            case ["systemctl", "start", "postgresql@15-main"]:
                self.running = (Path(self.configuration.read_text()) / "PG_VERSION").exists()
                result = (0, "", "") if self.running else (1, "", "Failed to start\n")
            case ["pg_createcluster", "--datadir", where, "15", "main", "--", "--data-checksums"]:
                self.create(Path(where))
                result = 0, "", ""
            case ["cp" | "sync", *_rest]:
                done = subprocess.run(argv, capture_output=True, text=True, check=False)
                result = done.returncode, done.stdout, done.stderr
            case _:
                raise AssertionError(f"an unexpected command: {argv}")
        self.step()
        return result

    def cluster(self, check=False):
        params = {"version": 15, "cluster": "main", "data_directory": str(self.wanted)}
        return pg_cluster.Cluster(SimpleNamespace(params=params, check_mode=check, run_command=self.run_command))

    def power_on(self):
        self.steps_left = None

    @staticmethod
    def whole(where):
        return all((where / name).exists() and (where / name).read_bytes() == content for name, content in DATA.items())


@pytest.fixture
def machine(tmp_path):
    found = Machine(tmp_path)
    found.create(found.old)
    return found


@pytest.fixture(params=[True, False], ids=["rename", "copy"])
def one_file_system(request, monkeypatch):
    monkeypatch.setattr(pg_move, "same_file_system", lambda source, target: request.param)
    return request.param


def test_data_at_its_place_is_left_alone(machine):
    machine.create(machine.wanted)
    assert machine.cluster().bring() == {"changed": False, "created": False}
    assert machine.running
    assert [argv[0] for argv in machine.commands] == ["pg_conftool"]


def test_data_is_moved(machine, one_file_system):
    result = machine.cluster().bring()
    diff = {"before": f"data_directory: {machine.old}\n", "after": f"data_directory: {machine.wanted}\n"}
    assert result == {"changed": True, "created": False, "moved_from": str(machine.old), "diff": diff}
    assert machine.configuration.read_text() == str(machine.wanted)
    assert machine.whole(machine.wanted)
    assert machine.running
    assert machine.cluster().bring() == {"changed": False, "created": False}


def test_it_stops_the_server_before_it_touches_the_data(machine, one_file_system):
    names = []

    def watched(argv):
        names.append((argv[0], machine.old.exists(), machine.wanted.exists()))
        return machine.run_command(argv)

    cluster = machine.cluster()
    cluster.module.run_command = watched
    cluster.bring()
    assert names[1] == ("systemctl", True, False)
    assert names[-2:] == [("pg_conftool", not one_file_system, True), ("systemctl", not one_file_system, True)]


def test_check_mode_changes_nothing(machine):
    result = machine.cluster(check=True).bring()
    assert (result["changed"], result["moved_from"]) == (True, str(machine.old))
    assert machine.running and machine.whole(machine.old) and not machine.wanted.parent.exists()


def test_what_lay_there_is_kept(machine, one_file_system):
    machine.wanted.mkdir(parents=True)
    (machine.wanted / "precious").write_text("other data")
    result = machine.cluster().bring()
    assert (Path(result["moved_aside"]) / "precious").read_text() == "other data"
    assert machine.whole(machine.wanted)


def test_data_that_is_nowhere(machine):
    os.rename(machine.old, machine.old.with_name("lost"))
    with pytest.raises(pg_move.MoveError, match=f"has its data in {machine.old}, where there is none.*restore it"):
        machine.cluster().bring()
    assert machine.configuration.read_text() == str(machine.old)


def test_a_command_that_fails_ends_it_before_the_data_is_touched(machine):
    def cannot_stop(argv):
        return (1, "", "Failed to stop\n") if argv[0] == "systemctl" else machine.run_command(argv)

    cluster = machine.cluster()
    cluster.module.run_command = cannot_stop
    with pytest.raises(pg_move.MoveError, match="systemctl stop postgresql@15-main failed with 1: Failed to stop"):
        cluster.bring()
    assert machine.whole(machine.old) and not machine.wanted.parent.exists()


def test_a_move_that_fails_leaves_the_server_running_where_it_was(machine, monkeypatch):
    monkeypatch.setattr(pg_move, "same_file_system", lambda source, target: False)

    def full(argv):
        return (1, "", "No space left on device\n") if argv[0] == "cp" else machine.run_command(argv)

    cluster = machine.cluster()
    cluster.module.run_command = full
    with pytest.raises(pg_move.MoveError, match="No space left on device"):
        cluster.bring()
    assert machine.running and machine.configuration.read_text() == str(machine.old)


def boundaries(machine, monkeypatch):
    """Let the power go at every change of names too, before it and after it."""
    for name in ("rename", "chmod", "chown", "mkdir"):
        real = getattr(os, name)

        def cut(*arguments, real=real, **options):
            machine.step()
            result = real(*arguments, **options)
            machine.step()
            return result

        monkeypatch.setattr(os, name, cut)


@pytest.mark.parametrize("boots", [False, True], ids=["stays down", "boots"])
@pytest.mark.parametrize("occupied", [False, True], ids=["free", "occupied"])
def test_a_power_cut_anywhere_is_made_good_by_the_next_run(tmp_path, monkeypatch, one_file_system, occupied, boots):
    cuts = 0
    finished = False
    while not finished:
        with monkeypatch.context() as patch:
            machine = Machine(tmp_path / str(cuts))
            machine.create(machine.old)
            if occupied:
                machine.wanted.mkdir(parents=True)
                (machine.wanted / "precious").write_text("other data")
            boundaries(machine, patch)
            machine.steps_left = cuts
            try:
                machine.cluster().bring()
                finished = True
            except PowerCut:
                cuts += 1
            machine.power_on()
            place = Path(machine.configuration.read_text())
            # The data is whole at one of the two places at any time.
            assert machine.whole(machine.old) or machine.whole(machine.wanted), cuts
            expected = dict(DATA)
            if boots and machine.whole(place):
                # The server starts where it is configured, and takes a write before the next run.
                (place / "base/1/1259").write_bytes(b"newer")
                expected["base/1/1259"] = b"newer"
            machine.cluster().bring()
            assert Path(machine.configuration.read_text()) == machine.wanted
            assert {name: (machine.wanted / name).read_bytes() for name in DATA} == expected, cuts
            kept = [path for path in machine.wanted.parent.glob("main*/precious") if path.read_text() == "other data"]
            assert bool(kept) is occupied, cuts
    assert cuts >= 9


def test_a_cluster_is_created_where_it_is_wanted(tmp_path, monkeypatch):
    machine = Machine(tmp_path)
    monkeypatch.setattr(pg_cluster.Cluster, "_postgres", staticmethod(lambda: (os.getuid(), os.getgid())))
    real = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/usr/bin/pg_createcluster" or real(path))
    result = machine.cluster().create()
    assert result["created"] is True
    assert machine.whole(machine.wanted)
    assert [argv[0] for argv in machine.commands] == ["pg_createcluster"]


def test_check_mode_creates_nothing(tmp_path):
    machine = Machine(tmp_path)
    assert machine.cluster(check=True).create()["created"] is True
    assert (machine.commands, machine.wanted.parent.exists()) == ([], False)


def test_without_postgresql_common(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    with pytest.raises(pg_move.MoveError, match="install the Debian package postgresql-common"):
        Machine(tmp_path).cluster().create()
