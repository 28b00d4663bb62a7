# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A lab of the tests' own (`labtest`), as the user has it: by bin/lab."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = Path("/var/lib/swg-ha-lab")


class Lab:
    """bin/lab for the lab `name`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.command = [str(CHECKOUT / "bin" / "lab"), "--name", name]

    def try_run(self, *arguments: str, input: str | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.command, *arguments], input=input or "", capture_output=True, text=True, timeout=timeout)

    def __call__(self, *arguments: str) -> str:
        """Run a verb that must work; its standard output."""
        done = self.try_run(*arguments)
        assert done.returncode == 0, f"bin/lab {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def sh(self, host: str, script: str) -> str:
        """Run a shell script in a host that must work; its standard output without surrounding white space."""
        return self("exec", host, "--", "sh", "-ec", script).strip()

    def works(self, host: str, script: str) -> bool:
        return self.try_run("exec", host, "--", "sh", "-ec", script).returncode == 0

    def reaches(self, source: str, address: str) -> bool:
        return self.works(source, f"ping -q -n -c 2 -i 0.2 -W 1 {address}")

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("status", "--json"))
        return found

    def supervisors(self) -> dict[str, int]:
        return {
            path.parent.name: json.loads(path.read_text())["supervisor"]["pid"] for path in (STATE / self.name).glob("hosts/*/run.json")
        }

    def processes(self) -> set[int]:
        """Every process of the lab: in its control groups, or with its folder in its command line or its mounts."""
        found = set()
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            try:
                text = "".join((folder / part).read_text(errors="replace") for part in ("cgroup", "cmdline", "mountinfo"))
            except OSError:
                continue
            # A supervisor names state folder, cache and lab one by one.
            if any(mark in text for mark in (f"swgha-{self.name}/", f"{STATE}/{self.name}/", f"\0{self.name}\0{STATE}\0")):
                found.add(int(folder.name))
        return found

    def traces(self) -> dict[str, list[str]]:
        """Everything on this machine that carries the lab's name, by kind; the cache is no lab's."""
        netns, cgroups = Path("/run/netns"), Path("/sys/fs/cgroup")
        loops = Path("/sys/block").glob("loop*/loop/backing_file")
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found = {
            "processes": [
                Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in self.processes() if Path(f"/proc/{pid}").exists()
            ],
            "mounts": [line for line in mounts if f"/{self.name}/" in line or f"swgha-{self.name}-" in line],
            "namespaces": [path.name for path in netns.glob(f"swgha-{self.name}-*")],
            "cgroups": [str(path) for path in [*cgroups.glob(f"swgha-{self.name}"), *cgroups.glob(f"*/swgha-{self.name}")]],
            "loops": [path.parts[3] for path in loops if f"{STATE}/{self.name}/" in path.read_text()],
            "files": [
                str(path) for path in [*STATE.glob(self.name), *STATE.glob(f"{self.name}.*"), *Path("/run").glob(f"**/swgha-{self.name}-*")]
            ],
        }
        return {kind: things for kind, things in found.items() if things}


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def root_addresses() -> list[str]:
    """Links and addresses of the machine's own network namespace."""
    text = subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True).stdout
    return [f"{link['ifname']} {sorted(a['local'] for a in link['addr_info'])}" for link in json.loads(text)]


@pytest.fixture(scope="session")
def own_network() -> list[str]:
    """What the machine's own network namespace held before any lab of these tests."""
    return root_addresses()


@pytest.fixture(scope="session")
def running(own_network: list[str]) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.fail("tests/lab needs root")
    lab = Lab("labtest")
    lab("down")
    lab("up")
    yield lab
    lab("down")


@pytest.fixture
def lab(running: Lab) -> Iterator[Lab]:
    """The lab with every host on and no fault; a test that leaves it otherwise is put right."""
    yield running
    running("heal")


@pytest.fixture
def spare() -> Iterator[Lab]:
    """A lab that is not up, for tests of coming and going."""
    if os.geteuid() != 0:
        pytest.fail("tests/lab needs root")
    lab = Lab("labspare")
    lab("down")
    yield lab
    lab("down")
