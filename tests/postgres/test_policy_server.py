# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The policy server's databases, commands and HTTP, with a real PostgreSQL that knows accounts by the system (peer)."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from ansible_collections.swg.ha.plugins.module_utils.postgres_cluster import wait_until
from policy_server import active_request_cli, api, command, databases, full_replicate, session, tree
from policy_server.database import DatabaseError, Standby, connection, effective_account
from policy_server.session import Database, Session, Unavailable
from policy_server.settings import Settings
from tests.postgres.servers import Server, free_port, owned
from tools.environment import ROOT

# An account that every system has; the real one is made by the role.
ACCOUNT = "nobody"
JSON = {"Content-Type": "application/json"}


def settings_of(server: Server, device: str = "ps1", port: int = 1, clients: tuple[IPv4Network, ...] = ()) -> Settings:
    return Settings(device, ACCOUNT, str(server.directory), server.port, server.root / "policy/base", port, clients)


@pytest.fixture
def bare(server: Callable[..., Server]) -> Server:
    """A server as Debian's: whoever is root's postgres may all, everybody else is known by the account."""
    made = server("ps1")
    made.root.chmod(0o755)
    owned(Server.write(made.config / "pg_hba.conf", "local all all peer\n"))
    return made.start()


@pytest.fixture
def ready(bare: Server) -> Server:
    databases.work(settings_of(bare))
    return bare


def put(server: Server, path: str, content: bytes = b"{}") -> None:
    """A configuration, as the service writes it."""
    device, _slash, name = path.partition("/")

    async def write() -> None:
        database = Database(lambda: Session(settings_of(server)))
        with effective_account(ACCOUNT):
            assert await database.ask(api.WRITE, device, device, name, content)
        database.close()

    asyncio.run(write())


def stored(server: Server) -> dict[str, str]:
    """What is there, by device id and name."""
    with connection(settings_of(server)) as cursor:
        return {path: content.decode() for path, content in full_replicate.configurations(cursor).items()}


def devices(server: Server) -> dict[str, bool]:
    with connection(settings_of(server)) as cursor:
        cursor.execute("SELECT id, active FROM device ORDER BY id")
        return dict(cursor.fetchall())


def test_the_databases_are_made_once(bare: Server) -> None:
    done = databases.work(settings_of(bare))
    assert [line for line in done if line.startswith("database") and "," not in line] == [
        "database policy_server", "database logs", "database reports", "database system_logs",
    ]  # fmt: skip
    assert databases.work(settings_of(bare)) == []
    owners = bare.sql("SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE datname LIKE '%log%' OR datname = 'reports'")
    assert set(owners.splitlines()) == {"logs|nobody", "reports|nobody", "system_logs|nobody"}
    # There is no password that could be found out.
    assert bare.sql("SELECT rolpassword IS NULL, rolsuper FROM pg_authid WHERE rolname = 'nobody'") == "t|f"


def test_nobody_else_gets_into_them(ready: Server) -> None:
    ready.sql("CREATE ROLE daemon LOGIN")
    with pytest.raises(DatabaseError, match="permission denied for database"), connection(settings_of(ready), "logs", "daemon"):
        pass


def test_another_account_cannot_pass_for_it(ready: Server) -> None:
    with effective_account("daemon"), pytest.raises(psycopg2.OperationalError, match="Peer authentication failed"):
        psycopg2.connect(host=str(ready.directory), port=ready.port, user=ACCOUNT, dbname="policy_server")


def test_what_was_cut_off_half_way_is_finished(bare: Server) -> None:
    bare.sql("CREATE ROLE nobody LOGIN")
    bare.sql("CREATE DATABASE policy_server OWNER nobody TEMPLATE template0")
    databases.work(settings_of(bare))
    assert devices(bare) == {"global": False}


def test_a_migration_that_fails_leaves_nothing_of_itself(ready: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (*databases.MIGRATIONS["policy_server"], "CREATE TABLE half (a int)", "SELECT 1 / 0")
    monkeypatch.setitem(databases.MIGRATIONS, "policy_server", broken)
    with pytest.raises(DatabaseError, match="division by zero"):
        databases.work(settings_of(ready))
    with connection(settings_of(ready)) as cursor:
        cursor.execute("SELECT version, to_regclass('half') FROM schema_version")
        assert cursor.fetchone() == (1, None)
    monkeypatch.setitem(databases.MIGRATIONS, "policy_server", (*broken[:2], "CREATE TABLE whole (a int)"))
    assert databases.work(settings_of(ready)) == ["schema policy_server, version 3"]


def test_a_newer_schema_is_left_alone(ready: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(databases.MIGRATIONS, "policy_server", ())
    assert databases.work(settings_of(ready)) == []
    assert devices(ready) == {"global": False}


@pytest.fixture
def standby(ready: Server) -> Server:
    ready.stop()
    owned(Server.write(ready.data / "standby.signal", ""))
    ready.start()
    assert ready.sql("SELECT pg_is_in_recovery()") == "t"
    return ready


@pytest.mark.parametrize("module", [active_request_cli, full_replicate, databases])
def test_a_standby_is_refused_in_one_line(
    standby: Server, module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Standby):
        module.work(settings_of(standby))
    monkeypatch.setattr(command, "load", lambda: settings_of(standby))
    monkeypatch.setattr(sys, "argv", ["it"])
    assert module.main() == 3
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "not the active one" in said.err


@pytest.mark.parametrize(("arguments", "status"), [(["now"], 2), (["--help"], 0)])
def test_usage(arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["active_request_cli", *arguments])
    assert active_request_cli.main() == status
    said = capsys.readouterr()
    assert (said.out if status == 0 else said.err).startswith("usage: active_request_cli")


def test_without_postgresql_one_line_says_so(ready: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ready.stop()
    monkeypatch.setattr(command, "load", lambda: settings_of(ready))
    monkeypatch.setattr(sys, "argv", ["it"])
    assert active_request_cli.main() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("active_request_cli: PostgreSQL, database policy_server: ")


def test_the_first_device_becomes_the_active_one(ready: Server) -> None:
    assert "the first one" in active_request_cli.work(settings_of(ready, "ps1"))
    assert active_request_cli.work(settings_of(ready, "ps1")) == "ps1 is the active device already"
    assert devices(ready) == {"global": False, "ps1": True}


def test_the_ids_change_places_and_back(ready: Server) -> None:
    active_request_cli.work(settings_of(ready, "ps1"))
    for path in ("global/a.json", "ps1/a.json", "ps2/b.json", "scanner/c.json"):
        put(ready, path, json.dumps(path).encode())
    before = stored(ready)
    assert "ps2 is the active device now" in active_request_cli.work(settings_of(ready, "ps2"))
    assert devices(ready) == {"global": False, "ps1": False, "ps2": True, "scanner": False}
    assert stored(ready) == {
        "global/a.json": '"global/a.json"', "ps2/a.json": '"ps1/a.json"', "ps1/b.json": '"ps2/b.json"', "scanner/c.json": '"scanner/c.json"',
    }  # fmt: skip
    active_request_cli.work(settings_of(ready, "ps1"))
    assert stored(ready) == before


@dataclass
class Stops:
    """A cursor that ends everything before its n-th statement."""

    cursor: Any
    left: int

    def execute(self, *arguments: Any) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.cursor.execute(*arguments)

    def fetchone(self) -> Any:
        return self.cursor.fetchone()


def test_whenever_it_is_cut_off_nothing_has_changed(ready: Server) -> None:
    active_request_cli.work(settings_of(ready, "ps1"))
    put(ready, "ps1/a.json")
    before = (devices(ready), stored(ready))
    cuts = 0
    while True:
        try:
            with connection(settings_of(ready)) as cursor:
                active_request_cli.take_over(Stops(cursor, cuts), "ps2")
                break
        except KeyboardInterrupt:
            assert (devices(ready), stored(ready)) == before
        cuts += 1
    assert cuts == 6
    assert devices(ready) == {"global": False, "ps1": False, "ps2": True}


def test_many_at_a_time_leave_one_active(ready: Server) -> None:
    names = [f"ps{number}" for number in range(6)]
    program = (
        "import sys; from ipaddress import IPv4Network; from pathlib import Path; from policy_server import active_request_cli as a, settings;"
        f"a.work(settings.Settings(sys.argv[1], {ACCOUNT!r}, {str(ready.directory)!r}, {ready.port}, Path('/none'), 1, ()))"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, name], env=environment()) for name in names]
    assert [each.wait(60) for each in running] == [0] * 6
    found = devices(ready)
    assert sorted(found) == ["global", *names] and list(found.values()).count(True) == 1


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "roles/policy_server/files")}


def test_full_replicate_writes_the_tree_once(ready: Server) -> None:
    found = settings_of(ready)
    put(ready, "global/module.xml", b"<module/>")
    put(ready, "ps1/policy.json", b'{"a": 1}')
    assert full_replicate.work(found) == f"2 configurations written to {found.base}"
    assert (found.base / "global/module.xml").read_bytes() == b"<module/>"
    # The account may read it, and nobody else.
    assert (found.base / "ps1/policy.json").stat().st_gid == pwd.getpwnam(ACCOUNT).pw_gid
    inode = found.base.stat().st_ino
    assert full_replicate.work(found) == f"2 configurations are already in {found.base}"
    assert found.base.stat().st_ino == inode


def test_full_replicate_reads_what_it_writes_once_nobody_else_writes(ready: Server) -> None:
    found = settings_of(ready)
    put(ready, "global/module.xml", b"<old/>")
    program = f"from pathlib import PosixPath; from policy_server import full_replicate, settings;full_replicate.work(settings.{found!r})"
    with tree.alone(found.base):
        waiting = subprocess.Popen([sys.executable, "-c", program], env=environment())
        ready.wait("SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'policy_server' AND state = 'idle in transaction'")
        put(ready, "global/module.xml", b"<new/>")
    assert waiting.wait(60) == 0
    assert (found.base / "global/module.xml").read_bytes() == b"<new/>"


def test_a_name_that_leads_elsewhere_is_not_written(ready: Server) -> None:
    with connection(settings_of(ready)) as cursor:
        cursor.execute("INSERT INTO configuration (device, name, content) SELECT key, '../../evil.json', '{}' FROM device")
    with pytest.raises(DatabaseError, match="nothing was written: '../../evil.json' is no name"):
        full_replicate.work(settings_of(ready))
    assert not settings_of(ready).base.exists()


@dataclass
class Service:
    """The service as systemd runs it, in a process of its own, under the account."""

    settings: Settings
    process: subprocess.Popen[bytes]
    took: float = field(default=0.0)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        client = http.client.HTTPConnection("127.0.0.1", self.settings.port, timeout=15)
        try:
            client.request(method, path, body, headers or {})
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()


@contextmanager
def running(server: Server) -> Iterator[Service]:
    found = settings_of(server, port=free_port())
    said = {**found.__dict__, "base": str(found.base), "clients": []}
    file = server.write(server.directory / "policy_server.json", json.dumps(said))
    program = "import sys; from pathlib import Path; from policy_server import service, settings; settings.load.__defaults__ = (Path(sys.argv[1]),)"
    # Where the account may read it, with what it needs.
    package = server.root / "package"
    shutil.copytree(
        ROOT / "roles/policy_server/files/policy_server", package / "policy_server", ignore=shutil.ignore_patterns("__pycache__")
    )
    for needed in Path(psycopg2.__file__).parents[1].glob("psycopg2*"):
        shutil.copytree(needed, package / needed.name)
    hear = server.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(hear))
        hear.chmod(0o777)
        told.settimeout(20)
        account = pwd.getpwnam(ACCOUNT)
        argv = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        argv += [os.path.realpath(sys.executable), "-c", f"{program}; sys.exit(service.main())", str(file)]
        began = time.monotonic()
        errors = server.directory / "service.log"
        process = subprocess.Popen(argv, env={"PYTHONPATH": str(package), "NOTIFY_SOCKET": str(hear)}, cwd="/", stderr=errors.open("wb"))
        try:
            assert told.recv(100) == b"READY=1", errors.read_text()
            made = Service(found, process)
            made.ask("GET", "/health")
            made.took = time.monotonic() - began
            yield made
        finally:
            process.kill()
            process.wait()
            print(errors.read_text())


@pytest.fixture
def service(ready: Server) -> Iterator[Service]:
    with running(ready) as found:
        yield found


def test_health_writes(service: Service, ready: Server) -> None:
    assert service.ask("GET", "/health") == (200, b'{"healthy": true}\n')
    with connection(settings_of(ready)) as cursor:
        cursor.execute("SELECT now() - asked < '10s' FROM health")
        assert cursor.fetchone() == (True,)


def test_a_configuration_is_written_read_listed_and_deleted(service: Service, ready: Server) -> None:
    path = "/configurations/scanner-1/policy.json"
    assert service.ask("GET", path)[0] == 404
    assert service.ask("PUT", path, b'{"a": 1}', JSON) == (201, b'{"device": "scanner-1", "name": "policy.json", "version": 1}\n')
    assert stored(ready) == {"scanner-1/policy.json": '{"a": 1}'}
    assert service.ask("PUT", path, b'{"a": 2}', {"Content-Type": "application/json; charset=utf-8"})[0] == 200
    assert service.ask("GET", path) == (200, b'{"a": 2}')
    [listed] = json.loads(service.ask("GET", "/configurations/scanner-1")[1])
    assert (listed["name"], listed["version"]) == ("policy.json", 2)
    found = json.loads(service.ask("GET", "/configurations")[1])
    assert [(device["id"], device["configurations"]) for device in found] == [("global", 0), ("scanner-1", 1)]
    assert service.ask("DELETE", path)[0] == 200
    assert service.ask("DELETE", path)[0] == 404


def test_what_was_sent_is_what_is_kept(service: Service) -> None:
    content = b'<?xml version="1.0" encoding="ISO-8859-1"?>\r\n<a b="\xe9"/>\n<!-- ' + b"x" * 900_000 + b" -->"
    assert service.ask("PUT", "/configurations/global/module.xml", content, {"Content-Type": "application/xml"})[0] == 201
    assert service.ask("GET", "/configurations/global/module.xml") == (200, content)


def test_many_writes_at_a_time(service: Service) -> None:
    statuses: list[int] = []

    def write(number: int) -> None:
        statuses.append(service.ask("PUT", f"/configurations/new/{number % 4}.json", b"[]", JSON)[0])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 36 + [201] * 4


def test_it_goes_on_when_postgresql_is_back(service: Service, ready: Server) -> None:
    assert service.ask("GET", "/health")[0] == 200
    ready.stop()
    status, body = service.ask("GET", "/health")
    assert status == 503 and b"PostgreSQL: " in body
    assert service.ask("PUT", "/configurations/global/a.json", b"1", JSON)[0] == 503
    ready.start()
    assert service.ask("GET", "/health")[0] == 200


def test_a_restart_between_two_requests_is_not_noticed(service: Service, ready: Server) -> None:
    assert service.ask("GET", "/health")[0] == 200
    ready.stop()
    ready.start()
    assert service.ask("PUT", "/configurations/global/a.json", b"1", JSON)[0] == 201


def test_a_standby_is_not_healthy(standby: Server) -> None:
    with running(standby) as found:
        status, body = found.ask("GET", "/health")
        assert status == 503 and b"read-only" in body


def test_a_postgresql_that_hangs_is_told_of_in_time(service: Service, ready: Server) -> None:
    assert service.ask("GET", "/health")[0] == 200
    pids = [int(pid) for pid in ready.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'policy_server'").splitlines()]
    postmaster = int((ready.data / "postmaster.pid").read_text().split()[0])
    for pid in (*pids, postmaster):
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        status, body = service.ask("GET", "/health")
        assert status == 503 and b"has not answered" in body
        assert time.monotonic() - began < session.SECONDS + 8
    finally:
        for pid in (*pids, postmaster):
            os.kill(pid, signal.SIGCONT)
    assert service.ask("GET", "/health")[0] == 200


def test_a_commit_that_waits_for_the_other_server_is_not_said_to_be_done(service: Service, ready: Server) -> None:
    assert service.ask("GET", "/health")[0] == 200
    ready.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody_there'")
    ready.sql("SELECT pg_reload_conf()")
    ready.wait("SELECT current_setting('synchronous_standby_names') = 'nobody_there'")

    def told() -> bool:
        # Whether commits wait is up to the checkpointer, which takes it up after the postmaster.
        status, body = service.ask("PUT", "/configurations/global/a.json", b"1", JSON)
        return status == 503 and b"not known" in body

    assert wait_until(told, 30)
    ready.sql("ALTER SYSTEM RESET synchronous_standby_names")
    ready.sql("SELECT pg_reload_conf()")
    ready.wait("SELECT current_setting('synchronous_standby_names') = ''")
    assert service.ask("PUT", "/configurations/global/a.json", b"1", JSON)[0] == 200


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_it_ends_when_systemd_says_so_and_finishes_what_is_under_way(service: Service, ready: Server) -> None:
    with socket.create_connection(("127.0.0.1", service.settings.port)) as client:
        head = b"PUT /configurations/global/a.json HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        client.sendall(head + b"Expect: 100-continue\r\n\r\n[")
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        service.process.terminate()
        assert wait_until(lambda: refuses(service.settings.port), 10), "it takes no more connections"
        client.sendall(b"]")
        assert client.recv(1000).startswith(b"HTTP/1.1 201 ")
    assert service.process.wait(15) == 0
    assert stored(ready) == {"global/a.json": "[]"}


def test_it_answers_soon_after_its_start(service: Service) -> None:
    assert service.took < 10, "far more than it takes: 0.2 s on a machine that is not busy"


def test_all_its_connections_in_use_make_others_wait_not_fail(ready: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def many() -> list[Any]:
        database = Database(lambda: Session(settings_of(ready)))
        found = await asyncio.gather(*(database.ask("SELECT pg_sleep(0.1), %s", number) for number in range(3 * session.CONNECTIONS)))
        database.close()
        return [rows[0][1] for rows in found]

    with effective_account(ACCOUNT):
        assert asyncio.run(many()) == list(range(3 * session.CONNECTIONS))


def test_nobody_waits_longer_than_the_deadline(ready: Server) -> None:
    async def wait() -> None:
        database = Database(lambda: Session(settings_of(ready)), seconds=2)
        with pytest.raises(Unavailable, match="has not answered within 2 s"):
            await database.ask("SELECT pg_sleep(10)")
        assert await database.ask("SELECT 1") == [(1,)]
        database.close()

    with effective_account(ACCOUNT):
        asyncio.run(wait())
