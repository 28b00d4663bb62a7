# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The module from its arguments to its result: every program that it runs is named here, in order."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.swg.ha.plugins.module_utils.postgres_cluster import Cluster, Postmaster
from ansible_collections.swg.ha.plugins.modules import pg_replica

CONTROL = """\
Database system identifier:           {system}
Database cluster state:               {state}
Latest checkpoint location:           0/4000060
Latest checkpoint's REDO location:    0/4000028
Latest checkpoint's TimeLineID:       1
Latest checkpoint's full_page_writes: on
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   0
wal_log_hints setting:                on
Bytes per WAL segment:                16777216
Data page checksum version:           0
"""
PRIMARY = {
    "version": 15, "started": "2026-01-02T03:04:05", "in_recovery": False, "system_identifier": "7", "control_timeline": 2,
    "timeline": 2, "lsn": "0/9000000", "size": 1000, "tablespaces": [], "may_checkpoint": True, "slot": None,
}  # fmt: skip
CONNINFO = (
    "host=192.0.2.11,198.51.100.11 port=5432 user=ha_replication sslmode=verify-full application_name=ps2 connect_timeout=3 "
    "keepalives_idle=3 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=6000 gssencmode=disable"
)
HERE = {
    "started": "2026-01-01T00:00:00", "in_recovery": True, "primary_conninfo": CONNINFO, "primary_slot_name": "ps2",
    "system_identifier": "7", "timeline": 2, "write": "0/9000000", "replay": "0/9000000", "lag_s": 0,
    "receiver": {"status": "streaming", "sender_host": "192.0.2.11", "sender_port": 5432, "slot": "ps2", "lsn": "0/9000000",
                 "sender_lsn": "0/9000000", "timeline": 2},
}  # fmt: skip
ARGUMENTS = {
    "version": "15",
    "primary_hosts": ["192.0.2.11", "198.51.100.11"],
    "replication_user": "ha_replication",
    "slot": "ps2",
}


def digest(content: bytes) -> str:
    return json.dumps(hashlib.sha256(content).hexdigest())


class Transcript:
    """What is run must be this, in this order: (program, part of its command line or input, answer or what to call)."""

    def __init__(self) -> None:
        self.expected: list[tuple] = []

    def expect(self, program: str, part: str, answer=(0, "", ""), then=None) -> None:
        self.expected.append((program, part, answer if isinstance(answer, tuple) else (0, answer, ""), then))

    def __call__(self, argv, input=None, *, timeout=30.0, on_line=None, keep=()):
        said = " ".join([*argv, input or ""])
        assert self.expected, f"not expected: {said}"
        program, part, answer, then = self.expected.pop(0)
        assert (os.path.basename(argv[0]), part in said) == (program, True), f"expected {program} {part!r}, got: {said}"
        if then:
            then()
        return answer


class Machine:
    """A server with Debian's layout below a folder, and a transcript of what is run on it."""

    def __init__(self, root: Path) -> None:
        self.transcript = Transcript()
        self.bin, self.config, self.data = root / "bin", root / "etc", root / "main"
        self.run_directory = root / "run"
        self.server: Postmaster | None = None

    def install(self) -> None:
        self.bin.mkdir()
        (self.bin / "postgres").touch(0o755)
        self.config.mkdir()
        (self.config / "postgresql.conf").touch()

    def fill(self) -> None:
        (self.data / "pg_wal").mkdir(parents=True)
        (self.data / "PG_VERSION").write_text("15\n")
        for number, byte in ((3, b"a"), (4, b"b")):
            (self.data / "pg_wal" / f"{1:08X}{number:016X}").write_bytes(byte * (16 << 20))

    def start(self, status: str = "ready") -> None:
        self.server = Postmaster(1, "5432", "/run/postgresql", status)

    def files(self) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in sorted(self.data.parent.rglob("*"))}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path / "machine")
    (tmp_path / "machine").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(Cluster, "postmaster", lambda self: found.server)
    monkeypatch.setattr(Cluster, "owner_ids", (os.getuid(), os.getgid()))
    monkeypatch.setattr(pg_replica, "Cluster", functools.partial(Cluster, config_directory=found.config, bin_directory=found.bin))
    monkeypatch.setattr(pg_replica, "run_command", found.transcript)
    monkeypatch.setattr(pg_replica, "DebianService", functools.partial(pg_replica.DebianService, systemd=True))
    monkeypatch.setattr(pg_replica, "RUN_DIRECTORY", found.run_directory)
    return found


@pytest.fixture
def run_module(machine: Machine, capsys: pytest.CaptureFixture[str]):
    """Runs the module with arguments; returns (exit status, result). Nothing expected may be left."""

    def run(**arguments):
        arguments.setdefault("progress_file", str(machine.run_directory / "progress.json"))
        with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
            pg_replica.main()
        assert machine.transcript.expected == []
        return ended.value.code, json.loads(capsys.readouterr().out)

    return run


def expect_local(machine: Machine, end: str = "0/4100000", state: str = "shut down", system: str = "7") -> None:
    machine.transcript.expect("postgres", "-C data_directory", f"{machine.data}\n")
    expect_local_again(machine, end, state, system)


def expect_local_again(machine: Machine, end: str = "0/4100000", state: str = "shut down", system: str = "7") -> None:
    machine.transcript.expect("pg_controldata", str(machine.data), CONTROL.format(system=system, state=state))
    machine.transcript.expect("pg_waldump", "--start=0/4000060 --end=0/5000000", f"WAL statistics between 0/4000060 and {end}:\n")


def expect_primary(machine: Machine, fork: str = "0/6000000", **says: object) -> None:
    machine.transcript.expect("psql", "pg_is_in_recovery()", json.dumps(PRIMARY | says))
    machine.transcript.expect("psql", "pg_wal/00000002.history", json.dumps(f"1\t{fork}\tno recovery target specified\n"))


def expect_comparison(machine: Machine, length: int = 0x100000, byte: bytes = b"b") -> None:
    machine.transcript.expect("psql", f"pg_wal/{1:08X}{4:016X}", digest(byte * length))
    if byte == b"b":
        machine.transcript.expect("psql", f"pg_wal/{1:08X}{3:016X}", digest(b"a" * (16 << 20)))


# info


def test_info_where_nothing_is_installed(run_module) -> None:
    code, result = run_module(state="observed", version="15")
    assert (code, result["changed"], result["installed"], result["exists"], result["has_user_data"]) == (0, False, False, False, False)
    assert "PostgreSQL 15 is not installed" in result["reason"]


def test_info_of_a_stopped_cluster(machine: Machine, run_module) -> None:
    machine.install()
    machine.fill()
    before = machine.files()
    machine.transcript.expect("postgres", "-C data_directory", f"{machine.data}\n")
    machine.transcript.expect("postgres", "-C port", "5433\n")
    machine.transcript.expect("pg_controldata", str(machine.data), CONTROL.format(system="7", state="shut down in recovery"))
    code, result = run_module(state="observed", version="15")
    assert (code, result["exists"], result["running"], result["in_recovery"], result["port"]) == (0, True, False, True, 5433)
    assert (result["has_user_data"], result["system_identifier"]) == (None, "7")
    assert machine.files() == before


# check mode: what is run only asks, and no file changes


@pytest.fixture
def check(machine: Machine, run_module):
    def run(**arguments):
        before = machine.files()
        code, result = run_module(_ansible_check_mode=True, _ansible_diff=True, **ARGUMENTS | arguments)
        assert machine.files() == before
        return code, result

    return run


def test_check_where_nothing_is_installed(check) -> None:
    code, result = check()
    assert (code, result["changed"], result["method"]) == (0, True, "basebackup")
    assert result["reason"] == "PostgreSQL 15 is not installed yet"
    assert result["diff"]["before"] == {"role": "absent"}
    assert result["diff"]["after"]["primary_slot_name"] == "ps2"


def test_check_where_the_primary_is_not_there_yet(machine: Machine, check) -> None:
    machine.install()
    machine.transcript.expect("postgres", "-C data_directory", f"{machine.data}\n")
    machine.transcript.expect("psql", "pg_is_in_recovery()", (2, "", "psql: error: connection refused\n"))
    code, result = check()
    assert (code, result["changed"], result["method"]) == (0, True, "basebackup")
    assert "connection refused" in result["reason"]


@pytest.mark.parametrize(
    ("end", "fork", "byte", "method"),
    [
        pytest.param("0/4100000", "0/6000000", b"b", "start", id="inside the history of the primary"),
        pytest.param("0/4100000", "0/4080000", b"b", "rewind", id="diverged"),
        pytest.param("0/4100000", "0/6000000", b"x", "basebackup", id="a clone"),
    ],
)
def test_check_foretells_the_method(machine: Machine, check, end: str, fork: str, byte: bytes, method: str) -> None:
    machine.install()
    machine.fill()
    expect_local(machine, end)
    expect_primary(machine, fork)
    expect_comparison(machine, min(int(end[2:], 16), int(fork[2:], 16)) - 0x4000000, byte)
    code, result = check()
    assert (code, result["changed"], result["method"], result["commands"]) == (0, True, method, [])
    assert result["diff"]["after"]["method"] == method


def test_check_of_a_system_that_is_another_compares_nothing(machine: Machine, check) -> None:
    machine.install()
    machine.fill()
    expect_local(machine, system="8")
    expect_primary(machine)
    assert check()[1]["method"] == "basebackup"


def test_check_tells_what_will_fail(machine: Machine, check) -> None:
    machine.install()
    machine.fill()
    expect_local(machine)
    machine.transcript.expect("psql", "pg_is_in_recovery()", json.dumps(PRIMARY | {"in_recovery": True, "lsn": None}))
    code, result = check()
    assert code == 1
    assert "is itself a standby" in result["msg"]


# streaming


def test_a_standby_that_streams_is_left_alone(machine: Machine, run_module) -> None:
    machine.install()
    machine.fill()
    machine.start()
    (machine.data / "standby.signal").touch()
    before = machine.files()
    machine.transcript.expect("postgres", "-C data_directory", f"{machine.data}\n")
    machine.transcript.expect("psql", "host=/run/postgresql port=5432 user=postgres", json.dumps(HERE))
    code, result = run_module(application_name="ps2", **ARGUMENTS)
    assert (code, result["changed"], result["method"], result["streaming"], result["lag_bytes"]) == (0, False, "none", True, 0)
    assert machine.files() == before


def test_a_stopped_standby_is_configured_and_started(machine: Machine, run_module) -> None:
    machine.install()
    machine.fill()
    (machine.data / "postgresql.auto.conf").write_text("work_mem = '8MB'\nprimary_conninfo = 'host=192.0.2.99'\n")
    expect_local(machine, state="shut down in recovery")
    expect_primary(machine)
    expect_comparison(machine)
    machine.transcript.expect("psql", "-v slot=ps2 -d host=192.0.2.11", '"0/4000000"')
    machine.transcript.expect("systemctl", "start --no-block postgresql@15-main.service", then=machine.start)
    machine.transcript.expect("psql", "host=/run/postgresql", json.dumps(HERE | {"write": "0/8000000"}))
    machine.transcript.expect("psql", "pg_stat_replication", '{"seen": false, "lsn": "0/9000000"}')
    machine.transcript.expect("psql", "host=/run/postgresql", json.dumps(HERE | {"replay": "0/8FFFF00"}))
    machine.transcript.expect("psql", "pg_stat_replication", '{"seen": true, "lsn": "0/9000100"}')
    code, result = run_module(**ARGUMENTS)
    assert (code, result["changed"], result["method"], result["lag_bytes"]) == (0, True, "start", 0x200)
    assert result["commands"] == ["SELECT pg_create_physical_replication_slot('ps2', true)", "start 15/main"]
    assert (machine.data / "postgresql.auto.conf").read_text() == (
        f"work_mem = '8MB'\nprimary_conninfo = '{CONNINFO}'\nprimary_slot_name = 'ps2'\n"
    )
    assert (machine.data / "standby.signal").read_text() == ""
    assert json.loads((machine.run_directory / "progress.json").read_text())["phase"] == "done"


def test_a_base_backup_that_fails_leaves_the_data_alone(machine: Machine, run_module) -> None:
    machine.install()
    machine.fill()
    expect_local(machine, system="8")
    expect_primary(machine)
    for _time in range(2):
        expect_primary(machine, slot={"type": "physical", "wal_status": "reserved", "restart_lsn": "0/1", "active_pid": None, "user": None})
    machine.transcript.expect(
        "pg_basebackup", "--slot=ps2", (1, "", "pg_basebackup: error: could not write to file: No space left on device\n")
    )
    before = machine.files()
    code, result = run_module(**ARGUMENTS)
    assert (code, "No space left on device" in result["msg"]) == (1, True)
    after = machine.files()
    assert {path: time for path, time in after.items() if path.startswith(f"{machine.data}/")} == {
        path: time for path, time in before.items() if path.startswith(f"{machine.data}/")
    }


# what cannot be


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"slot": "PS-2"}, "slot is 'PS-2': must be 1 to 63 lower case letters"),
        ({"slot": "x" * 64}, "must be 1 to 63"),
        ({"primary_hosts": []}, "primary_hosts is empty: must name at least one address"),
        ({"primary_port": 65536}, "primary_port is 65536: must be 1 to 65535"),
        ({"timeout": 0}, "timeout is 0: must be more than 0 seconds"),
        ({"max_rate": 5}, "max_rate is 5: must be 0, or 32 to 1048576 kB/s"),
        ({"cluster": "../main"}, "cluster is '../main': must be letters"),
        ({"connection_parameters": {"password": "secret"}}, "connection_parameters holds a password: must be in passfile instead"),
        ({"slot": None}, "slot is None: must be 1 to 63"),
    ],
)
def test_bad_arguments(run_module, arguments, complaint: str) -> None:
    code, result = run_module(**ARGUMENTS | arguments)
    assert (code, complaint in result["msg"]) == (1, True), result["msg"]
    assert "secret" not in result["msg"]


def test_missing_arguments(run_module) -> None:
    code, result = run_module(version="15")
    assert code == 1
    assert result["msg"] == "state is streaming but all of the following are missing: primary_hosts, replication_user, slot"


@pytest.mark.parametrize("mode", [0o640, 0o604, None])
def test_a_passfile_that_libpq_would_ignore(machine: Machine, run_module, tmp_path: Path, mode: int | None) -> None:
    machine.install()
    passfile = tmp_path / "pgpass"
    if mode is not None:
        passfile.touch()
        passfile.chmod(mode)
    code, result = run_module(passfile=str(passfile), **ARGUMENTS)
    assert code == 1
    assert ("No such file" if mode is None else f"has mode {mode:04o}: must be 0600 and owned by postgres") in result["msg"]


def test_a_data_directory_that_is_not_the_configured_one(machine: Machine, run_module) -> None:
    machine.install()
    machine.transcript.expect("postgres", "-C data_directory", f"{machine.data}\n")
    code, result = run_module(data_directory="/elsewhere", **ARGUMENTS)
    assert (code, "data_directory is /elsewhere, but the configuration of 15/main says" in result["msg"]) == (1, True)


def test_nothing_installed(run_module) -> None:
    code, result = run_module(**ARGUMENTS)
    assert (code, "PostgreSQL 15 is not installed" in result["msg"]) == (1, True)


def test_another_major_version(machine: Machine, run_module) -> None:
    machine.install()
    machine.transcript.expect("postgres", "-C data_directory", f"{machine.data}\n")
    machine.transcript.expect("psql", "pg_is_in_recovery()", json.dumps(PRIMARY | {"version": 17}))
    code, result = run_module(**ARGUMENTS)
    assert (code, "runs PostgreSQL 17, here it is 15: both must be the same" in result["msg"]) == (1, True)
