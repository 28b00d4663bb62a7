"""bin/demo: brings up a lab, makes a pair of its two servers, shows it, and tells how to look around."""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.environment import ROOT, environ, tool
from tools.recap import recap

LOOK_AROUND = """\
Look around, from {root}:

  The machines, their links and their faults:
    bin/lab --name {name} status
  What Heartbeat says it holds, on the active and on the passive:
    bin/lab --name {name} exec ps1 -- cl_status rscstatus
    bin/lab --name {name} exec ps2 -- cl_status rscstatus
  The screen above, whenever you want it:
    {ansible_playbook} -i {inventory} swg.ha.status
  Write a row on the active, and read it on the passive:
    bin/lab --name {name} exec ps1 -- sudo -iu postgres psql -c "CREATE TABLE IF NOT EXISTS hello AS SELECT now() AS written"
    bin/lab --name {name} exec ps2 -- sudo -iu postgres psql -c "TABLE hello"
  See the virtual IP from another machine:
    bin/lab --name {name} exec client1 -- ping -c 3 {virtual_ip}
  Hand over without loss, and see what took how long:
    bin/lab --name {name} exec ps1 -- ha failover
    bin/lab --name {name} exec ps2 -- ha timeline
  Cut the power of the active one; some four seconds later the other one serves. Then let the first one come back as the passive:
    bin/lab --name {name} power off ps2
    bin/lab --name {name} exec ps1 -- ha why
    bin/lab --name {name} power on ps2
    bin/lab --name {name} exec ps1 -- ha status --watch

Remove everything but the caches:
    {down}
"""


class DemoFailed(Exception):
    """The demo cannot go on; the text says why."""


@dataclass(frozen=True)
class Job:
    """A program at work, with all that it prints in a log file."""

    what: str
    log: Path
    process: subprocess.Popen[bytes]

    def result(self) -> str:
        """What it has printed; DemoFailed, with all of it, when it failed."""
        status = self.process.wait()
        text = self.log.read_text(errors="replace")
        if status:
            raise DemoFailed(f"{text.rstrip()}\n{self.what} failed with exit status {status}; what it printed is above and in {self.log}")
        return text


class Demo:
    """One run; ``began`` is a reading of CLOCK_BOOTTIME."""

    def __init__(self, name: str, began: float) -> None:
        self.name = name
        self.logs = ROOT / ".cache/demo" / name
        self.logs.mkdir(parents=True, exist_ok=True)
        self._began = began
        self._jobs: list[Job] = []

    def say(self, line: str) -> None:
        print(f"{time.clock_gettime(time.CLOCK_BOOTTIME) - self._began:6.1f} s  {line}", flush=True)

    def start(self, what: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Job:
        log = self.logs / f"{what}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        job = Job(what, log, process)
        self._jobs.append(job)
        return job

    def run(self, what: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
        return self.start(what, argv, env).result()

    def end(self) -> None:
        """Ask what still runs to tidy up and end, and wait for it."""
        running = [job.process for job in self._jobs if job.process.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            process.wait()

    def lab(self, *arguments: str) -> list[str]:
        return ["bin/lab", "--name", self.name, *arguments]

    def ask_lab(self, *arguments: str) -> str:
        return subprocess.run(self.lab(*arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def in_order_of_end(jobs: Sequence[Job]) -> Iterator[Job]:
    """The jobs, each as soon as it has ended."""
    with selectors.DefaultSelector() as selector:
        for job in jobs:
            selector.register(os.pidfd_open(job.process.pid), selectors.EVENT_READ, job)
        while selector.get_map():
            for key, _ in selector.select():
                selector.unregister(key.fileobj)
                os.close(key.fd)
                yield key.data


def have_image_and_ansible(demo: Demo, release: str) -> Path:
    """Build what is not in the caches, both at the same time; the path of the virtual environment."""
    image = demo.start("image", demo.lab("image", "--release", release))
    ansible = demo.start("ansible", ["bin/venv", "2.19", "run"])
    names = {image: f"the {release} image of the lab's machines", ansible: "the virtual environment with Ansible"}
    demo.say(f"getting {' and '.join(names.values())} ready, both at once")
    for job in in_order_of_end([image, ansible]):
        job.result()
        demo.say(f"{names[job]} is ready")
    return Path(ansible.log.read_text().splitlines()[-1])


def enable(demo: Demo, venv: Path, inventory: str) -> None:
    demo.say("making ps1 and ps2 a pair: ansible-playbook swg.ha.enable_ha")
    argv = tool(venv, "ansible-playbook", "-i", inventory, "swg.ha.enable_ha")
    counts = recap(demo.run("enable_ha", argv, environ(venv)))
    demo.say(f"they are a pair (changes made: {sum(host.changed for host in counts.values())})")


def status(demo: Demo, venv: Path, inventory: str) -> tuple[str, str]:
    """The status screen and the virtual IP."""
    demo.say("asking for their status: ansible-playbook swg.ha.status")
    report = demo.logs / "status.json"
    report.unlink(missing_ok=True)
    demo.run("status", tool(venv, "ansible-playbook", "-i", inventory, "-e", f"status_file={report}", "swg.ha.status"), environ(venv))
    code = (
        "import json, sys; from ansible_collections.swg.ha.plugins.module_utils.status import screen; "
        "print(*screen(json.load(open(sys.argv[1]))[0]), sep='\\n')"
    )
    env = environ(venv, PYTHONPATH=str(ROOT / ".ansible/collections"))
    return demo.run("screen", tool(venv, "python", "-c", code, report), env), json.loads(report.read_text())[0]["virtual_ip"]


def up(demo: Demo, release: str | None) -> None:
    demo.say("looking for the Debian packages that the lab needs")
    demo.run("packages", demo.lab("requirements", "--install"))
    present = running_release(demo)
    venv = have_image_and_ansible(demo, release or present or "bookworm")
    demo.say(
        f"lab '{demo.name}' is there: seeing that its machines run" if present else f"starting the seven machines of lab '{demo.name}'"
    )
    demo.run("lab", demo.lab("up", *(["--release", release] if release else [])))
    demo.say("they are up")
    inventory = demo.ask_lab("inventory").strip()
    enable(demo, venv, inventory)
    screen, virtual_ip = status(demo, venv, inventory)
    print(f"\n{screen}")
    down = "bin/demo --down" + ("" if demo.name == "demo" else f" --name {demo.name}")
    print(
        LOOK_AROUND.format(
            root=ROOT,
            name=demo.name,
            ansible_playbook=venv / "bin/ansible-playbook",
            inventory=inventory,
            virtual_ip=virtual_ip,
            down=down,
        )
    )
    demo.say(f"done; Ansible's whole output is in {(demo.logs / 'enable_ha.log').relative_to(ROOT)}")


def running_release(demo: Demo) -> str | None:
    """The Debian release of the lab, if it is up."""
    status = subprocess.run(demo.lab("status", "--json"), cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(status) if status else {}
    return str(found["release"]) if found.get("up") else None


def down(demo: Demo) -> None:
    demo.run("down", demo.lab("down"))
    demo.say(f"lab '{demo.name}' is gone; the image and the virtual environment stay in their caches")


def lab_name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]{0,15}", text):
        raise argparse.ArgumentTypeError(f"'{text}' must be a small letter and at most 15 small letters or digits")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/demo", description="Brings up a lab and makes a pair of its two policy servers.")
    parser.add_argument("--name", type=lab_name, default="demo", metavar="N", help="the lab's name (default: demo)")
    parser.add_argument("--release", choices=["bookworm", "trixie"], help="Debian release of the machines (default: bookworm)")
    parser.add_argument("--down", action="store_true", help="remove the lab")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    demo = Demo(options.name, float(os.environ.get("DEMO_BEGAN") or time.clock_gettime(time.CLOCK_BOOTTIME)))
    try:
        if options.down:
            down(demo)
        else:
            up(demo, options.release)
    except DemoFailed as error:
        print(f"{error}\nbin/demo: stopped; run it again to go on, or remove the lab: bin/demo --down --name {demo.name}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbin/demo: stopped; run it again to go on", file=sys.stderr)
        return 130
    finally:
        demo.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
