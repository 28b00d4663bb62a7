# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import time

from tests.lab.conftest import Lab

STATE = "cat /root/state /opt/finjan/state; ls -d /srv/folder || true"


def test_snapshots_stack_and_either_can_be_gone_back_to(lab: Lab) -> None:
    def write(value: str) -> None:
        for server in ("ps1", "ps2"):
            lab.sh(server, f"echo {value} > /root/state; echo {value} > /opt/finjan/state")

    write("one")
    lab.sh("ps1", "mkdir /srv/folder")
    lab("snapshot", "one")
    assert lab.sh("ps1", STATE).split() == ["one", "one", "/srv/folder"]
    write("two")
    lab.sh("ps1", "rmdir /srv/folder")
    lab("snapshot", "two")
    write("three")
    assert lab.status()["snapshots"] == ["one", "two"]

    lab("block", "ps1", "ps2")
    lab("cable", "out", "ps2", "eth0")
    lab("power", "off", "ps2")
    begin = time.monotonic()
    lab("rollback", "one")
    # A bound for a machine that has much else to do; about 5 s when it has not.
    assert time.monotonic() - begin < 100
    assert lab.sh("ps1", STATE).split() == ["one", "one", "/srv/folder"]
    assert lab.sh("ps2", STATE).split() == ["one", "one"]
    status = lab.status()
    assert status["blocks"] == [] and status["hosts"]["ps2"]["legs"]["eth0"]["cable"] == "in"

    lab("rollback", "two")
    assert lab.sh("ps1", STATE).split() == ["two", "two"]

    refused = lab.try_run("snapshot", "two")
    assert refused.returncode == 1 and "snapshot 'two' exists already" in refused.stderr
    lab.sh("ps1", "echo new > /root/state")
    lab("snapshot", "--replace", "two")
    lab.sh("ps1", "rm /root/state")
    lab("rollback", "two")
    assert lab.sh("ps1", STATE).split() == ["new", "two"]


def test_a_snapshot_of_a_broken_disk_is_refused(lab: Lab) -> None:
    lab("disk", "freeze", "ps1")
    done = lab.try_run("snapshot", "broken")
    assert done.returncode == 1 and "ps1: its disk is frozen: run 'bin/lab --name labtest disk heal ps1' first" in done.stderr
    assert "broken" not in lab.status()["snapshots"]
