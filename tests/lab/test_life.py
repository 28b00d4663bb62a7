# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Coming, going, and what is left behind: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from tests.lab.conftest import Lab, eventually


def test_down_of_nothing_is_no_error(spare: Lab) -> None:
    done = spare.try_run("down")
    assert done.returncode == 0 and "is not up" in done.stderr


def test_status_of_nothing_says_so(spare: Lab) -> None:
    done = spare.try_run("status")
    assert (done.returncode, done.stderr) == (1, "bin/lab: lab 'labspare' is not up: run 'bin/lab --name labspare up'\n")
    done = spare.try_run("status", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, {"name": "labspare", "up": False})


def test_two_labs_side_by_side_do_not_meet_and_the_second_leaves_nothing(lab: Lab, spare: Lab) -> None:
    spare("up")
    assert set(spare.traces()) == {"processes", "mounts", "namespaces", "cgroups", "loops", "files"}
    # Of all its mounts the machine sees the names of the namespaces only.
    assert all(" /run/netns/swgha-labspare-" in line for line in spare.traces()["mounts"])
    lab.sh("ps1", "echo first > /root/whose")
    spare.sh("ps1", "echo second > /root/whose; ip address add 192.0.2.10/24 dev eth0")
    assert lab.sh("ps1", "cat /root/whose") == "first"
    assert spare.reaches("client1", "192.0.2.10") and not lab.reaches("client1", "192.0.2.10")
    spare("power", "off", "ps1")
    assert lab.reaches("client1", "192.0.2.11")
    spare("down")
    assert spare.traces() == {}
    assert lab.sh("ps1", "cat /root/whose") == "first"


def test_a_lab_whose_processes_were_all_killed_is_cleaned_up_by_up(spare: Lab) -> None:
    spare("up")
    spare.sh("ps1", "touch /root/old")
    # A frozen file system outlives all processes and mounts.
    spare("disk", "freeze", "ps1")
    for _ in range(2):
        for pid in spare.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    assert eventually(lambda: not spare.processes())
    assert spare.traces().keys() >= {"namespaces", "cgroups", "files"}
    assert {host["state"] for host in json.loads(spare.try_run("status", "--json").stdout)["hosts"].values()} == {"broken"}
    done = spare.try_run("up")
    assert done.returncode == 0 and "cleaning up what is left" in done.stderr, done.stderr
    assert not spare.works("ps1", "test -e /root/old")
    spare("down")
    assert spare.traces() == {}


def test_one_host_whose_supervisor_was_killed_is_repaired_by_up(lab: Lab) -> None:
    os.kill(lab.supervisors()["client1"], signal.SIGKILL)
    assert eventually(lambda: lab.status()["hosts"]["client1"]["state"] == "broken")
    others = {host: pid for host, pid in lab.supervisors().items() if host != "client1"}
    lab("up")
    assert lab.reaches("client1", "192.0.2.11")
    assert {host: pid for host, pid in lab.supervisors().items() if host != "client1"} == others


def test_an_up_that_fails_leaves_nothing(spare: Lab) -> None:
    subprocess.run(["ip", "netns", "add", "swgha-labspare-parked"], check=True)
    done = spare.try_run("up")
    assert done.returncode == 1 and "File exists" in done.stderr.splitlines()[-1]
    assert spare.traces() == {}


@pytest.mark.parametrize(("number", "when"), [(signal.SIGINT, "making keys"), (signal.SIGTERM, "is ready")])
def test_an_up_that_is_interrupted_leaves_nothing(spare: Lab, number: signal.Signals, when: str) -> None:
    with subprocess.Popen([*spare.command, "up"], stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        for line in up.stderr:
            if when in line:
                up.send_signal(number)
                break
        rest = up.stderr.read()
        assert up.wait(60) == 130, rest
    assert "stopped by" in rest
    assert spare.traces() == {}


def test_what_a_killed_up_left_is_removed_by_down(spare: Lab) -> None:
    with subprocess.Popen([*spare.command, "up"], stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        next(line for line in up.stderr if "is ready" in line)
        up.kill()
    assert spare.try_run("status").returncode == 1
    spare("down")
    assert spare.traces() == {}


def test_a_lab_of_debian_13_goes_through_its_paces(spare: Lab) -> None:
    spare("up", "--release", "trixie")
    assert spare.sh("ps1", ". /etc/os-release; echo $VERSION_CODENAME; systemctl is-system-running").split() == ["trixie", "running"]
    assert spare.reaches("ps1", "198.51.100.12")
    spare.sh("ps1", "touch /root/kept")
    spare("power", "reset", "ps1")
    spare("snapshot", "a")
    spare("power", "reset", "ps1")
    spare("rollback", "a")
    assert spare.works("ps1", "test -e /root/kept") and spare.reaches("client1", "192.0.2.11")
    spare("down")
    assert spare.traces() == {}
