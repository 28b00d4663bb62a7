# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from ansible_collections.swg.ha.plugins.module_utils.postgres import PostgresError, segment_file
from ansible_collections.swg.ha.plugins.module_utils.postgres_cluster import (
    Cluster,
    DebianService,
    psql_arguments,
    run_command,
    summary,
    wait_until,
)

MIB = 1 << 20


class Answers:
    """Runs nothing: gives answers in turn and remembers what was asked."""

    def __init__(self, *answers: tuple[int, str, str]) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []

    def __call__(self, argv, input=None, *, timeout=30.0, on_line=None, keep=()):
        self.asked.append(list(argv))
        return self.answers.pop(0)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    data = tmp_path / "main"
    (data / "pg_wal").mkdir(parents=True)
    return Cluster("15", "main", Answers((0, f"{data}\n", "")), config_directory=tmp_path / "etc", bin_directory=tmp_path / "bin")


# Running programs


def test_run_gives_input_output_and_status() -> None:
    assert run_command(["sh", "-c", "cat; echo err >&2; exit 3"], "in") == (3, "in", "err\n")


def test_run_passes_nothing_of_the_environment_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")
    _rc, out, _err = run_command(["env"])
    assert sorted(line.partition("=")[0] for line in out.splitlines() if not line.startswith("_=")) == ["HOME", "LC_ALL", "PATH"]


def test_run_tells_lines_as_they_come() -> None:
    lines: list[str] = []
    rc, out, err = run_command(["sh", "-c", "echo out; echo 1 >&2; echo 2 >&2"], on_line=lines.append)
    assert (rc, out, err, lines) == (0, "out\n", "1\n2\n", ["1\n", "2\n"])


@pytest.mark.parametrize("on_line", [None, lambda line: None], ids=["quiet", "with lines"])
def test_run_ends_what_takes_too_long(on_line) -> None:
    with pytest.raises(PostgresError, match="within 0 s.*: sleep 30"):
        run_command(["sleep", "30"], timeout=0.2, on_line=on_line)


def test_run_without_such_a_program() -> None:
    assert run_command(["/nowhere/psql"])[0] == 127


def test_run_hands_file_descriptors_on(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        argv = [sys.executable, "-c", f"import os; os.write({lock.fileno()}, b'held')"]
        assert run_command(argv)[0] != 0
        assert run_command(argv, keep=[lock.fileno()])[0] == 0
    assert (tmp_path / "lock").read_text() == "held"


def test_programs_run_as_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Cluster("15", "main", Answers())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert found.as_owner("psql", "-X") == [
        "setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL", "--",
        "/usr/lib/postgresql/15/bin/psql", "-X",
    ]  # fmt: skip
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert found.as_owner("psql", "-X") == ["/usr/lib/postgresql/15/bin/psql", "-X"]


def test_variables_of_a_statement_are_left_to_psql_to_quote() -> None:
    assert psql_arguments("dbname=postgres", {"slot": "it's"})[-4:] == ["-v", "slot=it's", "-d", "dbname=postgres"]


# The server process


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{pid}\n/data\n1795370406\n6001\n/run/postgresql\nlocalhost\n  2157024 8\nready   \n", ("6001", "/run/postgresql", "ready")),
        ("{pid}\n/data\n", ("", "", "")),
        ("{other}\n/data\n1795370406\n6001\n/run/postgresql\nlocalhost\n1 2\nready   \n", None),
        ("4194999\n/data\n", None),
        ("", None),
        ("garbage\n", None),
    ],
    ids=["ready", "just starting", "somebody else's process", "no process", "empty", "garbage"],
)
def test_postmaster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, content: str, found: tuple[str, str, str] | None) -> None:
    data = cluster.data_directory
    (data / "postmaster.pid").write_text(content.format(pid=os.getpid(), other=os.getppid()))
    monkeypatch.chdir(data)
    server = cluster.postmaster()
    assert (server and (server.port, server.sockets, server.status)) == found
    assert server is None or server.pid == os.getpid()


def test_a_server_that_is_starting_is_not_asked(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    data = cluster.data_directory
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n0\n5432\n/run/postgresql\n*\n\nstarting\n")
    monkeypatch.chdir(data)
    assert (cluster.running, cluster.position()) == (True, None)


# WAL


def test_the_end_of_the_wal_is_looked_for_in_the_segments_that_are_there(cluster: Cluster) -> None:
    for number in (2, 3, 4, 6):
        cluster.wal_file(segment_file(1, number * MIB, MIB)).touch()
    cluster.run = answers = Answers((1, "WAL statistics between 0/200028 and 0/3FFFF8:\n", "pg_waldump: error: error in WAL record"))
    assert cluster.wal_end(1, 0x200028, MIB) == 0x3FFFF8
    assert answers.asked[0][-2:] == ["--start=0/200028", "--end=0/500000"]


def test_the_end_of_the_wal_where_nothing_follows(cluster: Cluster) -> None:
    assert cluster.data_directory
    assert cluster.wal_end(1, 0x200028, MIB) == 0x200028
    cluster.wal_file(segment_file(1, 0x200028, MIB)).touch()
    cluster.run = Answers((1, "", "pg_waldump: error: could not find a valid record after 0/200028"))
    assert cluster.wal_end(1, 0x200028, MIB) == 0x200028


def test_commits_are_counted(cluster: Cluster) -> None:
    printed = "Transaction/COMMIT          12 ( 85.71)\nTransaction/ABORT            1 (  1.00)\nTransaction/COMMIT_PREPARED  2 (  2.00)\n"
    assert cluster.data_directory
    cluster.run = Answers((0, printed, ""))
    assert cluster.commits(1, 10, 20) == 14
    assert cluster.commits(1, 20, 20) == 0


def test_digests_skip_what_is_missing_or_short(cluster: Cluster) -> None:
    cluster.wal_file("short").write_bytes(b"ab")
    cluster.wal_file("whole").write_bytes(b"abcdef")
    cluster.wal_file("other").write_bytes(b"abcxyz")
    assert cluster.wal_digest(["missing", "short"], 3) is None
    assert cluster.wal_digest(["missing", "short", "whole"], 3) == cluster.wal_digest(["other"], 3)
    assert cluster.wal_digest(["whole"], 4) != cluster.wal_digest(["other"], 4)


def test_histories(cluster: Cluster) -> None:
    cluster.wal_file("0000000A.history").write_text("1\t0/5000000\tx\n")
    cluster.wal_file("00000002.history").touch()
    assert cluster.histories() == [2, 10]
    assert [span.timeline for span in cluster.history(10)] == [1, 10]
    with pytest.raises(PostgresError, match="history of local timeline 11 cannot be read"):
        cluster.history(11)


# What it means


HERE = {
    "in_recovery": True,
    "primary_conninfo": "host=192.0.2.11",
    "system_identifier": "7",
    "timeline": 1,
    "write": "0/5000000",
    "replay": "0/4FFFF00",
    "lag_s": 0.5,
    "receiver": {"status": "streaming", "sender_lsn": "0/5000000"},
}


def test_summary_of_a_standby() -> None:
    found = summary(HERE)
    assert (found["streaming"], found["lag_bytes"], found["lag_s"]) == (True, 256, 0.5)


def test_summary_hides_a_password() -> None:
    found = summary(HERE | {"primary_conninfo": "host=192.0.2.11 password=secret"})
    assert "secret" not in str(found)


@pytest.mark.parametrize("receiver", [None, {"status": "waiting", "sender_lsn": None}])
def test_summary_of_what_does_not_stream(receiver) -> None:
    found = summary(HERE | {"receiver": receiver})
    assert (found["streaming"], found["lag_bytes"]) == (False, None)


# Starting and stopping


def test_with_systemd() -> None:
    run = Answers((0, "", ""), (0, "", ""), (0, "ActiveState=inactive\nJob=42\n", ""), (0, "ActiveState=activating\nJob=\n", ""),
                  (0, "ActiveState=active\nJob=0\n", ""))  # fmt: skip
    service = DebianService("15", "main", run, systemd=True)
    service.start()
    service.stop()
    assert [service.starting for _time in range(3)] == [True, True, False]
    unit = "postgresql@15-main.service"
    assert run.asked[:2] == [["systemctl", "start", "--no-block", unit], ["systemctl", "stop", unit]]
    assert f"journalctl -u {unit}" in service.explain


def test_without_systemd() -> None:
    run = Answers((0, "", ""), (2, "Cluster is not running.", ""), (1, "", "Error: no such cluster"))
    service = DebianService("15", "main", run, systemd=False)
    service.start()
    service.stop()
    with pytest.raises(PostgresError, match=r"pg_ctlcluster .* 15 main stop failed \(1\): Error: no such cluster"):
        service.stop()
    assert run.asked[0] == ["pg_ctlcluster", "--skip-systemctl-redirect", "--mode", "fast", "15", "main", "start"]
    assert service.starting is False


def test_waiting() -> None:
    truths = iter([False, False, True])
    assert wait_until(lambda: next(truths), 5, 0.001)
    assert not wait_until(lambda: False, 0.01, 0.001)


def test_no_other_module_is_needed() -> None:
    """The runtime on the servers uses these files without Ansible."""
    folder = Path(sys.modules[Cluster.__module__].__file__ or "").parent
    for path in folder.glob("postgres*.py"):
        assert not re.search(r"^\s*(from|import) ansible", path.read_text(encoding="utf-8"), re.MULTILINE)
