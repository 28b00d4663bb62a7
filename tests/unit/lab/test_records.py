# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the lab writes down, and how it knows a process, a lock or an unfinished image again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from swg_ha_lab import cli, image, state
from swg_ha_lab.errors import LabError
from swg_ha_lab.process import Process, parse_stat, run, wait_for


def test_a_process_is_known_by_its_start_too() -> None:
    me = Process.of(os.getpid())
    assert me is not None and me.alive()
    assert not Process(me.pid, me.start + 1).alive()


def test_an_ended_process_is_not_alive_although_its_number_is_not_free_yet() -> None:
    child = subprocess.Popen(["true"])
    process = Process.of(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Process.of(child.pid) is None
    assert process is None or not process.alive()
    child.wait()


def test_a_number_in_use_by_another_is_not_killed() -> None:
    with subprocess.Popen(["sleep", "30"]) as child:
        process = Process.of(child.pid)
        assert process is not None
        Process(process.pid, process.start - 1).kill()
        time.sleep(0.05)
        assert child.poll() is None
        process.kill()
        assert child.wait(5) == -9


def test_the_name_in_stat_may_look_like_fields() -> None:
    after = " ".join(str(number) for number in range(4, 23))
    assert parse_stat(f"7 (a) S 1 (b) R {after}") == ("R", 22)


@pytest.mark.parametrize("record", [None, {}, {"pid": 1, "start": 5}, {"pid": "7", "start": 5}, {"pid": 7}])
def test_what_is_no_record_of_a_process_is_none(record: object) -> None:
    assert Process.from_record(record) is None


def test_a_record_is_read_back() -> None:
    assert Process.from_record(Process(7, 5).record()) == Process(7, 5)


def test_a_failing_command_is_named_with_its_last_words() -> None:
    with pytest.raises(LabError, match="thing: exit status 3: second") as error:
        run(["sh", "-c", "echo first >&2; echo second >&2; exit 3"], what="thing")
    assert error.value.details == "first"


def test_a_command_that_is_not_there_has_a_remedy() -> None:
    with pytest.raises(LabError, match="bin/lab requirements --install"):
        run(["no-such-command-here"])


def test_a_command_that_does_not_end_is_ended() -> None:
    with pytest.raises(LabError, match="no end after 0.1 s"):
        run(["sleep", "30"], timeout=0.1)


def test_waiting_is_bounded() -> None:
    assert wait_for(lambda: True, 0)
    assert not wait_for(lambda: False, 0.05, 0.01)


def test_reading_what_is_missing_or_broken_gives_the_default(tmp_path: Path) -> None:
    assert state.read(tmp_path / "absent", 1) == 1
    (tmp_path / "broken").write_text('{"half":')
    assert state.read(tmp_path / "broken", 2) == 2


def test_writing_leaves_no_temporary_file_and_the_wanted_mode(tmp_path: Path) -> None:
    state.write(tmp_path / "a", {"x": 1}, 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert state.read(tmp_path / "a") == {"x": 1}


def test_a_lock_is_exclusive_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with state.locked(path, 1):
        with pytest.raises(LabError, match="another process has held this lock"), state.locked(path, 0.05):
            pass
        assert path.exists()
    assert not path.exists()


def test_who_waited_for_a_lock_that_was_removed_takes_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(20):
            with state.locked(path, 10):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80 and max(most) == 1


class TestImageCache:
    @pytest.fixture
    def builds(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        made: list[Path] = []

        def bootstrap(release: str, tree: Path) -> None:
            time.sleep(0.1)
            tree.mkdir()
            (tree / "etc").mkdir()
            made.append(tree)

        monkeypatch.setattr(image, "bootstrap", bootstrap)
        monkeypatch.setattr(image, "finish", lambda tree: None)
        return made

    def test_two_at_once_build_one(self, tmp_path: Path, builds: list[Path]) -> None:
        results: list[tuple[Path, bool]] = []
        threads = [threading.Thread(target=lambda: results.append(image.Cache(tmp_path).ensure("bookworm"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(builds) == 1
        assert {path for path, _ in results} == {image.Cache(tmp_path).path("bookworm")}
        assert sorted(built for _, built in results) == [False, False, True]

    def test_a_failed_build_leaves_nothing(self, tmp_path: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        def finish(tree: Path) -> None:
            raise LabError("no luck")

        monkeypatch.setattr(image, "finish", finish)
        with pytest.raises(LabError, match="no luck"):
            image.Cache(tmp_path).ensure("bookworm")
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == []

    def test_what_a_dead_process_left_goes_and_what_a_living_one_builds_stays(self, tmp_path: Path, builds: list[Path]) -> None:
        name = image.Cache(tmp_path).path("bookworm").name
        me = Process.of(os.getpid())
        assert me is not None
        dead, living = tmp_path / f"{name}.build-{me.pid}-{me.start + 1}", tmp_path / f"{name}.build-{os.getppid()}-{_start(os.getppid())}"
        for path in (dead, living):
            (path / "usr").mkdir(parents=True)
        image.Cache(tmp_path).ensure("bookworm")
        assert not dead.exists() and living.exists()


def _start(pid: int) -> int:
    process = Process.of(pid)
    assert process is not None
    return process.start


class TestCommandLine:
    def test_without_root_one_line_says_so(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert cli.main(["up"]) == 1
        assert capsys.readouterr().err == "bin/lab: the lab needs root: namespaces, mounts and control groups are its parts\n"

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["fly"],
            ["power", "sideways", "ps1"],
            ["power", "off"],
            ["up", "--release", "sarge"],
            ["disk", "slow", "ps1", "--iops", "0"],
            ["status", "--", "x"],
        ],
    )
    def test_a_wrong_command_line_is_exit_status_2(self, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2

    def test_a_wrong_lab_name_is_exit_status_2(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert cli.main(["status", "--name", "No-Good"]) == 2
        assert "lab name 'No-Good'" in capsys.readouterr().err

    def test_the_name_may_stand_before_or_after_the_verb(self) -> None:
        for arguments in (["--name", "x", "status"], ["status", "--name", "x"]):
            assert cli.parser().parse_args(arguments).name == "x"

    def test_the_program_itself_starts(self) -> None:
        program = Path(__file__).resolve().parents[3] / "bin" / "lab"
        done = subprocess.run([sys.executable, str(program), "requirements"], capture_output=True, text=True, check=True)
        assert done.stderr == ""
