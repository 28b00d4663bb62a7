# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab and the playbooks as their users have them: bin/lab and ansible-playbook, and what they say."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
SERVERS = ("ps1", "ps2")
VIRTUAL_IP = "192.0.2.10"
CLUSTER = "postgresql@15-main"
CONFIG = "/etc/postgresql/15/main"
DATA = "/opt/finjan/configuration/data/postgresql/main"
MODULE_XML = "/var/wasp/conf/ha/current/module.xml"


class Lab:
    """bin/lab for the lab `name`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.command = [str(ROOT / "bin/lab"), "--name", name]

    def try_run(self, *arguments: str, input: str = "", timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.command, *arguments], input=input, capture_output=True, text=True, timeout=timeout)

    def __call__(self, *arguments: str) -> str:
        """Run a verb that must work; its standard output."""
        done = self.try_run(*arguments, timeout=600)
        assert done.returncode == 0, f"bin/lab {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def sh(self, host: str, script: str, input: str = "", timeout: float = 60) -> str:
        """Run a shell script in a host that must work; its standard output without surrounding white space."""
        done = self.try_run("exec", host, "--", "bash", "-euo", "pipefail", "-c", f"cd /; {script}", input=input, timeout=timeout)
        assert done.returncode == 0, f"{host}: {script}\n{done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def sql(self, host: str, query: str) -> str:
        """Ask PostgreSQL on a host, as its superuser."""
        return self.sh(host, "runuser --user=postgres -- psql --no-psqlrc -At --set=ON_ERROR_STOP=1 --file=-", input=query)

    def inventory(self, *, qualified: bool = False) -> Path:
        return Path(self("inventory", *(["--qualified"] if qualified else [])).strip())

    def fingerprint(self, host: str) -> dict[str, str]:
        """The configuration, packages and units of a host, one entry for each thing that a playbook might change."""
        lines = self.sh(host, FINGERPRINT).splitlines()
        return dict(line.split("\t", 1) for line in lines)

    @contextlib.contextmanager
    def watching(self, host: str, script: str) -> Iterator[Callable[[], list[str]]]:
        """Run a shell script in a host beside the test; gives a function that tells the lines it has printed so far.

        The script runs in the background of its shell, and ends when the test is done with it.
        """
        # The shell waits for the end of its standard input, which comes also when this program is killed.
        wrapped = f"cd /; {{ {script}\n}} </dev/null & read -r _ || true; kill -TERM -- $! $(pgrep -P $!) 2>/dev/null; wait"
        # Read by a file of its own: one that is shared with the writer would move its place with every reading.
        with tempfile.NamedTemporaryFile("w") as written, Path(written.name).open(encoding="utf-8") as output:
            process = subprocess.Popen(
                [*self.command, "exec", host, "--", "bash", "-c", wrapped],
                stdin=subprocess.PIPE,
                stdout=written,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert process.stdin is not None

            def seen() -> list[str]:
                output.seek(0)
                return output.read().splitlines()

            try:
                eventually(lambda: bool(seen()), 60, f"{host} prints something: {script}")
                yield seen
            finally:
                process.stdin.close()
                try:
                    process.wait(60)
                finally:
                    process.kill()


# What is prefixed: f a file (owner, mode, where a link leads), s its contents, p a package, u a unit, a its state.
FINGERPRINT = r"""
for folder in /etc /opt /usr/local /var/wasp /var/lib/postgresql /var/lib/ha_peer; do
  [ -e "$folder" ] || continue
  find "$folder" -xdev \( -path "*/postgresql/15/main/*" -o -path "*/data/postgresql/main/*" \) -not -path '/etc/*' -prune \
    -o -not -name '.ansible' -printf 'f %p\t%u:%g %m %l\n'
  find "$folder" -xdev \( -path "*/postgresql/15/main/*" -o -path "*/data/postgresql/main/*" \) -not -path '/etc/*' -prune \
    -o -type f -not -path /etc/ha_manager/ha_manager_status -exec sha256sum {} + | sed -E 's/^([0-9a-f]+)  (.*)$/s \2\t\1/'
done
dpkg-query --show --showformat='p ${Package}\t${Version} ${db:Status-Status}\n'
systemctl list-unit-files --no-pager --no-legend | sed -E 's/^([^ ]+) +([^ ]+).*$/u \1\t\2/'
for unit in heartbeat chrony postgresql postgresql@15-main; do printf 'a %s\t' "$unit"; systemctl is-active "$unit" || true; done
ip -oneline -4 address show | sed -E 's/^[0-9]+: ([^ ]+) +inet ([^ ]+).*$/i \1 \2\tpresent/'
"""


@dataclass(frozen=True)
class Play:
    """A finished run of ansible-playbook."""

    status: int
    plays: list[dict[str, Any]]
    stats: dict[str, dict[str, int]]
    output: str

    @property
    def changed(self) -> dict[str, int]:
        return {host: stat["changed"] for host, stat in self.stats.items()}

    @property
    def unreachable(self) -> dict[str, str]:
        """What kept Ansible from talking to a host."""
        return {host: str(result.get("msg")) for _name, host, result in self.results() if result.get("unreachable")}

    def results(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Each task's name, host and result."""
        for play in self.plays:
            for task in play["tasks"]:
                for host, result in task["hosts"].items():
                    yield task["task"]["name"], host, result

    def failures(self) -> list[Any]:
        """The messages of what failed: each a text or a list of texts."""
        return [
            result.get("msg") or result
            for _name, _host, result in self.results()
            if result.get("failed") and not result.get("ignore_errors") and not result.get("unreachable")
        ]

    def changes(self) -> list[str]:
        return [f"{host}: {name}" for name, host, result in self.results() if result.get("changed")]

    def problems(self) -> list[str]:
        """The problems that a playbook refused to begin for: one message, its first line telling that nothing was changed."""
        failures = self.failures()
        assert len(failures) == 1, f"wanted one message, got {failures}\n{self.output}"
        [message] = failures
        assert isinstance(message, list) and "othing was changed" in message[0], message
        return message[1:]


def ansible_environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return (
        kept
        | {
            "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_JSON_INDENT": "0",
        }
        | more
    )


def try_playbook(
    name: str, *inventories: Path, check: bool = False, timeout: float = 420, environment: Mapping[str, str] | None = None, **variables: Any
) -> Play:
    """Run the playbook swg.ha.`name` on the inventories, with extra variables, to its end or for `timeout` seconds."""
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), f"swg.ha.{name}", f"--extra-vars={json.dumps(variables)}"]
    argv += [f"--inventory={inventory}" for inventory in inventories] + (["--check"] if check else [])
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env=ansible_environment(**(environment or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        start_new_session=True,
    )
    start = done.stdout.find("{")
    told = json.loads(done.stdout[start:]) if start >= 0 else {"plays": [], "stats": {}}
    return Play(done.returncode, told["plays"], told["stats"], done.stdout[:start] + done.stderr)


def playbook(name: str, *inventories: Path, **options: Any) -> Play:
    """The same, for a run that must end well."""
    play = try_playbook(name, *inventories, **options)
    assert play.status == 0, f"swg.ha.{name} {options}: {play.status}\n{play.failures()}\n{play.unreachable}\n{play.output}"
    return play


def refused(name: str, *inventories: Path, **options: Any) -> list[str]:
    """The problems that a playbook tells, which must change nothing."""
    play = try_playbook(name, *inventories, **options)
    assert play.status != 0, f"swg.ha.{name} {options} was not refused"
    assert not any(play.changed.values()), play.changes()
    return play.problems()


def cut_off(name: str, inventory: Path, task: str | int, delay: float = 0.2, **variables: Any) -> bool:
    """Run a playbook and kill it `delay` seconds after the task has begun; False when the run has ended before."""
    environment = {
        "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "cut_off",
        "SWG_HA_CUT_TASK": str(task),
        "SWG_HA_CUT_DELAY": str(delay),
    }
    play = try_playbook(name, inventory, environment=environment, **variables)
    assert play.status in (-9, 0), f"{name}, to be cut off at {task}: {play.status}\n{play.failures()}\n{play.output}"
    return play.status == -9


def with_report(name: str, *inventories: Path, **options: Any) -> tuple[Play, list[dict[str, Any]]]:
    """Run a playbook that ends with the status; with what it writes for programs, one report a pair."""
    with tempfile.TemporaryDirectory(prefix="swg-ha-system-") as folder:
        file = Path(folder) / "status.json"
        play = try_playbook(name, *inventories, status_file=str(file), **options)
        # A server that is off makes the run end with ansible-playbook's word for it; the report is there all the same.
        assert play.status in (0, 4) and file.exists(), f"{play.status}\n{play.failures()}\n{play.unreachable}\n{play.output}"
        return play, json.loads(file.read_text())


def status(*inventories: Path) -> list[dict[str, Any]]:
    """What playbook status writes for programs."""
    play, reports = with_report("status", *inventories)
    assert all(change.endswith("Write it") for change in play.changes()), play.changes()
    return reports


def is_redundant(report: dict[str, Any], active: str = "ps1") -> None:
    assert report["redundant"], report["problems"]
    assert report["active"] == report["primary"] == active, report


def enable(inventory: Path, **variables: Any) -> Play:
    """Run enable_ha, which must give a redundant pair with ps1 active."""
    play, [report] = with_report("enable_ha", inventory, **variables)
    if report["redundant"]:
        is_redundant(report)
    else:
        # What is tried again by itself may still be in the report that the playbook ends with.
        becomes_redundant(inventory)
    return play


def becomes_redundant(inventory: Path, active: str = "ps1") -> None:
    """The status tells of a redundant pair in the end: what comes back does so piece by piece."""
    reports: list[dict[str, Any]] = []

    def redundant() -> bool:
        reports[:] = status(inventory)
        return bool(reports[0]["redundant"])

    eventually(redundant, 120, "the pair is redundant")
    is_redundant(reports[0], active)


def eventually(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait until the condition is met; how many seconds that took. Fails when it is not met within `seconds`."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - begin


def longest_gap(times: list[float]) -> float:
    """The longest time between one and the next, in seconds."""
    return max((after - before for before, after in itertools.pairwise(times)), default=float("inf"))
