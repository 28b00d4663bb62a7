# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A pair in a lab, made for being hurt: who is what, the probe at its virtual IP, the samplers inside its servers."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.faults.evidence import Look, Story, looks, story
from tests.system.pair import SERVERS, VIRTUAL_IP, Lab, eventually

HERE = Path(__file__).parent
CLIENT = "client1"
NETWORK = "192.0.2.0/24"
SCRIPTS = "/usr/local/lib/swg_probe"
SAMPLES = "/var/log/swg_probe/samples"
PASSWORD = "/run/swg_probe.pass"
SAMPLER = "swg-probe-sampler"
SETTLED = ("all", "local", "foreign", "none")
# Heartbeat's deadtime in seconds, by profile.
DEADTIME = {"fast": 1.0, "balanced": 3.0}

# Each row says by itself which server took it, on which timeline.
ACCOUNT = """
CREATE ROLE swg_probe LOGIN PASSWORD '{password}';
CREATE SCHEMA swg_probe;
CREATE FUNCTION swg_probe.server() RETURNS text LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog
    AS $$ SELECT rtrim(pg_read_file('/etc/hostname'), E'\\n') $$;
CREATE FUNCTION swg_probe.timeline() RETURNS int LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog
    AS $$ SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int $$;
CREATE TABLE swg_probe.rows (
    client text NOT NULL,
    n int NOT NULL,
    server text NOT NULL DEFAULT swg_probe.server(),
    timeline int NOT NULL DEFAULT swg_probe.timeline(),
    PRIMARY KEY (client, n)
);
GRANT USAGE ON SCHEMA swg_probe TO swg_probe;
GRANT SELECT, INSERT ON swg_probe.rows TO swg_probe;
"""

SAMPLER_UNIT = f"""\
[Unit]
Description=Looks at the virtual IP and the database every 50 ms
StartLimitIntervalSec=0

[Service]
User=postgres
LogsDirectory=swg_probe
ExecStart=/usr/bin/python3 {SCRIPTS}/sampler.py {VIRTUAL_IP} {SAMPLES}
Restart=always
RestartSec=200ms

[Install]
WantedBy=multi-user.target
"""

# By server: on the service network, on the other one.
ADDRESSES = {"ps1": ("192.0.2.11", "198.51.100.11"), "ps2": ("192.0.2.12", "198.51.100.12")}

Status = dict[str, Any]


def upload(lab: Lab, host: str, path: str, content: str, mode: str = "0644") -> None:
    lab.sh(host, f"install -D --mode={mode} /dev/stdin {path}", input=content)


@dataclass
class Probing:
    """A probe at work."""

    pair: Pair
    client: str
    output: IO[str]
    process: subprocess.Popen[str]

    def story(self) -> Story:
        """What it has seen so far."""
        self.output.seek(0)
        return story(self.output)

    def has_committed(self, since: float = 0) -> bool:
        """Whether a commit that was sent after the moment is acknowledged."""
        return self.story().next_after(since) is not None

    def resumes(self, seconds: float, what: str) -> float:
        """Wait until a commit that is sent from now on is acknowledged; the moment at which the wait began."""
        begin = time.monotonic()
        while not self.has_committed(begin):
            waited = time.monotonic() - begin
            assert waited < seconds, f"not within {seconds:g} s: the client commits {what}\n{self.tail()}\n{self.pair.diagnosis()}"
            time.sleep(0.1)
        return begin

    def end(self) -> Story:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            status = self.process.wait(20)
        finally:
            self.process.kill()
        seen = self.story()
        assert status == 0, f"the probe ended with {status}: {self.tail()}"
        return seen

    def tail(self) -> str:
        self.output.seek(0)
        return "".join(self.output.readlines()[-10:])


@dataclass
class Pair:
    """An enabled pair; `active` and `passive` are as last found by wait_redundant."""

    lab: Lab
    password: str
    profile: str = "fast"
    synchronous: bool = True
    active: str = SERVERS[0]
    passive: str = SERVERS[1]
    _clients: int = field(default=0)

    @property
    def deadtime(self) -> float:
        return DEADTIME[self.profile]

    def settle(self, seconds: float = 60) -> None:
        """No fault, every host on, no pause, redundant, and nothing under way."""
        self.lab("heal")
        for host, status in self.statuses().items():
            if status is not None and status["paused"]:
                self.ha(host, "resume")
        self.wait_redundant(seconds)
        for host in SERVERS:
            self.wait_status(host, lambda status: status["transition"] is None, seconds, "nothing is under way")

    def ha(self, host: str, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return self.lab.try_run("exec", host, "--", "ha", *words, timeout=timeout)

    def status(self, host: str) -> Status | None:
        """The live status; None where nobody answers."""
        try:
            done = self.ha(host, "status", "--json", timeout=15)
            answer = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError):
            return None
        return answer if isinstance(answer, dict) and "role" in answer else None

    def statuses(self) -> dict[str, Status | None]:
        return {host: self.status(host) for host in SERVERS}

    def must_status(self, host: str) -> Status:
        found = self.status(host)
        assert found is not None, f"{host}: ha status --json: {self.ha(host, 'status', '--json')}"
        return found

    def redundant(self) -> bool:
        """Whether one is active and knows that it is redundant, and the other one is passive and streams; remembers who is what."""
        found = self.statuses()
        roles = {status["role"]: host for host, status in found.items() if status is not None}
        if set(roles) != {"active", "passive"}:
            return False
        active, passive = found[roles["active"]], found[roles["passive"]]
        assert active is not None and passive is not None
        steady = active["redundant"] and active["virtual_ip"]["held"] and not passive["virtual_ip"]["held"]
        if not (steady and passive["postgresql"]["state"] == "standby" and passive["postgresql"]["streaming"]):
            return False
        # Heartbeat that has just been started takes its time before it would say that anybody is dead.
        if not all(status["heartbeat"]["rscstatus"] in SETTLED and status["heartbeat"]["peer"] == "active" for status in (active, passive)):
            return False
        # And commits that were acknowledged before they began to wait have arrived.
        if self.synchronous and not active["record"]["in_sync"]:
            return False
        self.active, self.passive = roles["active"], roles["passive"]
        return True

    def wait_redundant(self, seconds: float = 60) -> float:
        """How many seconds it took until the pair was redundant."""
        begin = time.monotonic()
        while not self.redundant():
            assert time.monotonic() - begin < seconds, f"not redundant within {seconds:g} s\n{self.diagnosis()}"
            time.sleep(0.1)
        # The status file is what others go by.
        took = time.monotonic() - begin
        eventually(self._told_in_the_file, 10, f"the status file of {self.active} says that it is active")
        return took

    def _told_in_the_file(self) -> bool:
        return bool(json.loads(self.lab.sh(self.active, "cat /etc/ha_manager/ha_manager_status"))["role"] == "active")

    def wait_role(self, host: str, role: str, seconds: float) -> Status:
        """Wait until the server has the role and nothing is under way."""
        return self.wait_status(host, lambda status: status["role"] == role and status["transition"] is None, seconds, f"it is {role}")

    def wait_status(self, host: str, condition: Callable[[Status], object], seconds: float, what: str) -> Status:
        """Wait until the server's status meets a condition; that status."""
        begin = time.monotonic()
        while (last := self.status(host)) is None or not condition(last):
            assert time.monotonic() - begin < seconds, f"{host}: not within {seconds:g} s: {what}\n{self.diagnosis()}"
            time.sleep(0.1)
        return last

    def diagnosis(self) -> str:
        """What both servers say of themselves, for people."""
        lines = []
        for host in SERVERS:
            status = self.status(host)
            lines.append(f"--- {host}")
            if status is not None:
                kept = ("role", "state", "decision", "virtual_ip", "heartbeat", "peer", "postgresql", "redundant", "not_redundant_because")
                lines += [f"{name}: {status.get(name)}" for name in (*kept, "record", "transition", "problems")]
            log = self.lab.try_run(
                "exec", host, "--", "journalctl", "--unit=ha_manager", "--lines=25", "--output=short-precise", "--no-hostname"
            )
            lines += [*log.stdout.splitlines(), *log.stderr.splitlines()]
        return "\n".join(lines)

    def failover(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`ha failover` on the active server, which must work."""
        done = self.ha(self.active, "failover", *words, timeout=90)
        assert done.returncode == 0, f"ha failover on {self.active}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.diagnosis()}"
        return done

    def rows(self, client: str) -> set[int]:
        """The numbers of a probe's rows that the active server has."""
        text = self.lab.sql(self.active, f"SELECT n FROM swg_probe.rows WHERE client = '{client}'")
        return {int(word) for word in text.split()}

    @contextlib.contextmanager
    def probing(self, every: float = 0.01) -> Iterator[Probing]:
        """A probe that commits every `every` seconds; it is at work when this begins, and ended by Probing.end()."""
        self._clients += 1
        client = f"{secrets.token_hex(4)}-{self._clients}"
        upload(self.lab, CLIENT, f"{SCRIPTS}/probe.py", (HERE / "probe.py").read_text())
        upload(self.lab, CLIENT, PASSWORD, f"*:*:*:swg_probe:{self.password}\n", "0600")
        dsn = f"host={VIRTUAL_IP} port=5432 dbname=postgres user=swg_probe sslmode=require gssencmode=disable passfile={PASSWORD}"
        words = ["python3", f"{SCRIPTS}/probe.py", json.dumps({"dsn": dsn, "client": client, "every": every})]
        # Read by a file of its own: one that is shared with the writer would move its place with every reading.
        with tempfile.NamedTemporaryFile("w") as written, open(written.name, encoding="utf-8") as output:
            argv = [*self.lab.command, "exec", CLIENT, "--", *words]
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=written, stderr=subprocess.STDOUT, text=True)
            probing = Probing(self, client, output, process)
            try:
                begin = time.monotonic()
                while not probing.has_committed():
                    assert time.monotonic() - begin < 20, f"the probe commits nothing: {probing.tail()}\n{self.diagnosis()}"
                    time.sleep(0.1)
                yield probing
            finally:
                if process.poll() is None:
                    assert process.stdin is not None
                    process.stdin.close()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(5)
                process.kill()

    def forget_samples(self) -> None:
        for host in SERVERS:
            self.lab.sh(host, f"truncate --size=0 {SAMPLES}")

    def samples(self, host: str) -> list[Look]:
        return looks(self.lab.sh(host, f"cat {SAMPLES}").splitlines())

    # Injections that bin/lab has no verb for.

    def together(self, *verbs: Sequence[str]) -> None:
        """Several verbs of bin/lab, as close after each other as it goes, in this order: it does one at a time."""
        failed: list[BaseException] = []

        def run(verb: Sequence[str]) -> None:
            try:
                self.lab(*verb)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=run, args=(verb,)) for verb in verbs]
        for thread in threads:
            thread.start()
            # For its place in the queue.
            time.sleep(0.1)
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    @contextlib.contextmanager
    def losing(self, host: str, rule: str) -> Iterator[None]:
        """Lose what the host receives or sends and an nftables rule describes, such as `tcp dport 4589`."""
        table = f"swg_probe_{secrets.token_hex(3)}"
        both = "".join(
            f"add chain inet {table} {hook} {{ type filter hook {hook} priority -500; }}; add rule inet {table} {hook} {rule} drop; "
            for hook in ("input", "output")
        )
        self.lab.sh(host, f"nft '{'add table inet ' + table}; {both}'")
        try:
            yield
        finally:
            # Gone with the power, if that was cut.
            self.lab.try_run("exec", host, "--", "nft", "delete", "table", "inet", table)

    @contextlib.contextmanager
    def not_speaking(self) -> Iterator[None]:
        """Nothing that one server sends to the other's addresses arrives, but ARP does, and all others are there."""
        one, other = (f"ip saddr {{ {', '.join(ADDRESSES[host])} }}" for host in SERVERS)
        with self.losing(SERVERS[0], other), self.losing(SERVERS[1], one):
            yield

    def pids(self, host: str, pattern: str) -> list[int]:
        """The processes of a host whose command line matches."""
        return [int(word) for word in self.lab.sh(host, f"pgrep --full '{pattern}' || true").split()]

    def postmaster(self, host: str) -> int:
        return int(self.lab.sh(host, "head --lines=1 /opt/finjan/configuration/data/postgresql/main/postmaster.pid"))


def make(lab: Lab, enable: Callable[..., object], *, profile: str = "fast", synchronous: bool = True) -> Pair:
    """Make the lab's servers a pair with the probe's account and the samplers in it. enable: runs the playbook with variables."""
    enable(**variables(profile, synchronous))
    password = secrets.token_hex(16)
    lab.sql(SERVERS[0], ACCOUNT.format(password=password))
    for host in SERVERS:
        upload(lab, host, f"{SCRIPTS}/sampler.py", (HERE / "sampler.py").read_text())
        upload(lab, host, f"/etc/systemd/system/{SAMPLER}.service", SAMPLER_UNIT)
        lab.sh(host, f"systemctl daemon-reload; systemctl enable --now --quiet {SAMPLER}")
    return Pair(lab, password, profile, synchronous)


def change(pair: Pair, enable: Callable[..., object], *, profile: str, synchronous: bool) -> None:
    """Give the pair other times or another mode, by the playbook."""
    if (profile, synchronous) != (pair.profile, pair.synchronous):
        enable(**variables(profile, synchronous))
        pair.profile, pair.synchronous = profile, synchronous


def variables(profile: str, synchronous: bool) -> dict[str, Any]:
    clients = [{"databases": ["postgres"], "users": ["swg_probe"], "addresses": [NETWORK]}]
    return {"ha_timing_profile": profile, "ha_synchronous_mode": synchronous, "postgres_streaming_clients": clients}


def pause(seconds: float) -> None:
    """Let a fault last: the one thing here that takes time for its own sake."""
    time.sleep(seconds)
