# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every fault does what it says, to what it says, and can be taken away again."""

from __future__ import annotations

import itertools
import subprocess
import time

from tests.lab.conftest import Lab, eventually

DATA = "/opt/finjan"


def carriers(lab: Lab, host: str) -> list[bool]:
    return [leg["carrier"] for leg in lab.status()["hosts"][host]["legs"].values()]


def port_carrier(lab: Lab, switch: str, port: str) -> bool:
    return "LOWER_UP" in lab.sh(switch, f"ip -o link show {port}")


class TestPower:
    def test_a_cut_silences_the_host_at_once_with_every_address_that_it_held(self, lab: Lab) -> None:
        lab.sh("ps1", "ip address add 192.0.2.10/24 dev eth0; arping -q -c 1 -U -I eth0 192.0.2.10")
        assert lab.reaches("client1", "192.0.2.10")
        lab("power", "off", "ps1")
        assert not lab.reaches("client1", "192.0.2.10") and not lab.reaches("client1", "192.0.2.11")
        assert lab.status()["hosts"]["ps1"]["state"] == "off"
        for switch in ("sw1", "sw2"):
            assert not port_carrier(lab, switch, "p1"), f"{switch} sees a carrier of a host without power"

    def test_what_was_not_synced_to_the_disk_is_gone_and_what_was_is_there(self, lab: Lab) -> None:
        # By itself the file system writes everything after 5 s.
        lab.sh("ps1", f"mount -o remount,commit=300 {DATA}; echo kept > {DATA}/synced; sync -f {DATA}; echo lost > {DATA}/unsynced")
        lab("power", "reset", "ps1")
        assert lab.sh("ps1", f"cat {DATA}/synced") == "kept"
        assert not lab.works("ps1", f"test -e {DATA}/unsynced")

    def test_a_cut_host_starts_with_clean_interfaces(self, lab: Lab) -> None:
        lab.sh("ps2", "ip address add 192.0.2.10/24 dev eth0")
        lab("power", "reset", "ps2")
        assert "192.0.2.10/" not in lab.sh("ps2", "ip -4 -o address")
        assert lab.reaches("ps1", "192.0.2.12") and lab.reaches("ps1", "198.51.100.12")

    def test_power_asked_for_twice_is_no_error(self, lab: Lab) -> None:
        lab("power", "off", "scanner1")
        lab("power", "off", "scanner1")
        lab("power", "on", "scanner1")
        lab("power", "on", "scanner1")
        assert lab.reaches("scanner1", "192.0.2.11")


class TestFreeze:
    def test_processes_stand_still_while_the_kernel_answers(self, lab: Lab) -> None:
        lab.sh("ps1", "systemd-run -q --unit=ticking sh -c 'while sleep 0.05; do date +%s.%N >> /run/ticks; done'")
        assert eventually(lambda: lab.works("ps1", "test -s /run/ticks"))
        lab("freeze", "ps1")
        begin = time.monotonic()
        assert lab.status()["hosts"]["ps1"]["state"] == "frozen"
        assert lab.reaches("client1", "192.0.2.11")
        refused = lab.try_run("exec", "ps1", "--", "true")
        assert refused.returncode == 1 and "ps1 is frozen: run 'bin/lab --name labtest thaw ps1' first" in refused.stderr
        stood_still = time.monotonic() - begin
        lab("thaw", "ps1")
        lab.sh("ps1", "n=$(wc -l < /run/ticks); until [ $(wc -l < /run/ticks) -gt $n ]; do sleep 0.05; done; systemctl stop ticking")
        ticks = [float(line) for line in lab.sh("ps1", "cat /run/ticks; rm /run/ticks").split()]
        assert max(after - before for before, after in itertools.pairwise(ticks)) >= stood_still

    def test_a_frozen_host_can_lose_its_power(self, lab: Lab) -> None:
        lab("freeze", "ps2")
        lab("power", "reset", "ps2")
        assert lab.status()["hosts"]["ps2"]["state"] == "on" and lab.reaches("client1", "192.0.2.12")


class TestLinks:
    def test_a_pulled_cable_takes_the_carrier_and_not_the_address(self, lab: Lab) -> None:
        lab("cable", "out", "ps1", "eth1")
        assert carriers(lab, "ps1") == [True, False]
        assert "198.51.100.11/24" in lab.sh("ps1", "ip -4 -o address show eth1")
        assert lab.reaches("ps2", "192.0.2.11") and not lab.reaches("ps2", "198.51.100.11")
        lab("cable", "in", "ps1", "eth1")
        assert eventually(lambda: lab.reaches("ps2", "198.51.100.11"))

    def test_a_pulled_cable_stays_out_when_its_switch_or_its_host_starts_again(self, lab: Lab) -> None:
        lab("cable", "out", "ps1", "1")
        lab("switch", "off", "sw2")
        lab("switch", "on", "sw2")
        lab("power", "reset", "ps1")
        assert carriers(lab, "ps1") == [True, False]
        assert lab.status()["hosts"]["ps1"]["legs"]["eth1"]["cable"] == "out"
        lab("cable", "in", "ps1", "1")
        assert eventually(lambda: lab.reaches("ps2", "198.51.100.11"))

    def test_a_switch_without_power_carries_nothing(self, lab: Lab) -> None:
        lab("switch", "off", "sw2")
        assert carriers(lab, "ps1") == carriers(lab, "ps2") == [True, False]
        assert not lab.reaches("ps1", "198.51.100.12") and lab.reaches("ps1", "192.0.2.12")
        lab("switch", "on", "sw2")
        assert eventually(lambda: lab.reaches("ps1", "198.51.100.12"))

    def test_a_block_loses_one_direction_only(self, lab: Lab) -> None:
        def arrives(source: str, target: str, address: str) -> bool:
            listen = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 5599)); s.settimeout(15); s.recv(9)"
            command = [*lab.command, "exec", target, "--", "python3", "-c", listen]
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as receiver:
                assert eventually(lambda: lab.works(target, "ss -Hlun sport = :5599 | grep -q ."), 30)
                lab.sh(source, f"bash -c 'for i in 1 2 3; do echo x > /dev/udp/{address}/5599; sleep 0.1; done'")
                return receiver.wait(60) == 0

        # The two must not need to ask for each other's hardware address: the answer would be lost on one of the ways.
        for host, address in (("ps1", "192.0.2.12"), ("ps2", "192.0.2.11")):
            assert lab.reaches(host, address)
            mac = lab.sh(host, f"ip neighbour show {address} | sed 's/.*lladdr \\([^ ]*\\).*/\\1/'")
            lab.sh(host, f"ip neighbour replace {address} lladdr {mac} dev eth0 nud permanent")
        lab("block", "ps1", "ps2")
        assert lab.status()["blocks"] == [
            {"from": "ps1", "to": "ps2", "leg": "eth0", "switch": "sw1"},
            {"from": "ps1", "to": "ps2", "leg": "eth1", "switch": "sw2"},
        ]
        assert carriers(lab, "ps1") == carriers(lab, "ps2") == [True, True]
        assert not arrives("ps1", "ps2", "192.0.2.12")
        assert arrives("ps2", "ps1", "192.0.2.11")
        assert lab.reaches("ps1", "192.0.2.1") and lab.reaches("client1", "192.0.2.12")
        lab("unblock", "ps1", "ps2")
        assert arrives("ps1", "ps2", "192.0.2.12")
        assert lab.status()["blocks"] == []
        for host in ("ps1", "ps2"):
            lab.sh(host, "ip neighbour flush nud permanent dev eth0")

    def test_a_block_of_one_leg_leaves_the_other_and_outlasts_the_switch(self, lab: Lab) -> None:
        lab("block", "ps1", "ps2", "--leg", "eth1")
        lab("power", "reset", "sw2")
        assert not lab.reaches("ps1", "198.51.100.12") and lab.reaches("ps1", "192.0.2.12")
        lab("unblock", "ps1", "ps2", "--leg", "eth1")
        assert eventually(lambda: lab.reaches("ps1", "198.51.100.12"))


class TestDisk:
    def test_a_full_disk_takes_nothing_more(self, lab: Lab) -> None:
        lab("disk", "fill", "ps1")
        assert lab.status()["hosts"]["ps1"]["disk"] == ["full"]
        done = lab.try_run("exec", "ps1", "--", "dd", "if=/dev/zero", f"of={DATA}/x", "bs=64k", "count=1")
        assert done.returncode == 1 and "No space left on device" in done.stderr
        lab("power", "reset", "ps1")
        assert not lab.works("ps1", f"dd if=/dev/zero of={DATA}/x bs=64k count=1")
        lab("disk", "heal", "ps1")
        assert lab.works("ps1", f"dd if=/dev/zero of={DATA}/x bs=64k count=1")

    def test_a_slow_disk_takes_its_time(self, lab: Lab) -> None:
        def five_writes() -> float:
            return float(
                lab.sh(
                    "ps1", f"dd if=/dev/zero of={DATA}/x bs=4k count=5 oflag=dsync 2>&1 | sed -n 's/.*copied, \\([0-9.e-]*\\) s.*/\\1/p'"
                )
            )

        lab("disk", "slow", "ps1", "--iops", "2")
        slow = five_writes()
        assert slow > 1.5
        lab("disk", "heal", "ps1")
        assert eventually(lambda: five_writes() < slow / 2)

    def test_a_frozen_disk_lets_writers_wait(self, lab: Lab) -> None:
        lab("disk", "freeze", "ps1")
        lab.sh("ps1", f"systemd-run -q --unit=writer touch {DATA}/late")
        time.sleep(0.5)
        assert lab.sh("ps1", "systemctl is-active writer") == "active"
        lab("disk", "heal", "ps1")
        assert eventually(lambda: lab.works("ps1", f"test -e {DATA}/late"))

    def test_a_frozen_disk_does_not_outlast_a_power_cut(self, lab: Lab) -> None:
        lab("disk", "freeze", "ps1")
        lab("power", "reset", "ps1")
        assert lab.works("ps1", f"touch {DATA}/x") and lab.status()["hosts"]["ps1"]["disk"] == []

    def test_a_read_only_disk_can_be_read(self, lab: Lab) -> None:
        lab.sh("ps1", f"echo here > {DATA}/here; sync -f {DATA}")
        lab("disk", "readonly", "ps1")
        done = lab.try_run("exec", "ps1", "--", "touch", f"{DATA}/x")
        assert done.returncode == 1 and "Read-only file system" in done.stderr
        assert lab.sh("ps1", f"cat {DATA}/here") == "here"
        healed = lab.try_run("disk", "heal", "ps1")
        assert healed.returncode == 0 and "power cycled" in healed.stderr
        assert lab.sh("ps1", f"touch {DATA}/x; cat {DATA}/here") == "here"


def test_heal_takes_everything_away(lab: Lab) -> None:
    lab("cable", "out", "client1", "eth0")
    lab("block", "gw1", "ps1")
    lab("switch", "off", "sw2")
    lab("freeze", "ps2")
    lab("disk", "slow", "ps1")
    lab("heal")
    status = lab.status()
    assert status["blocks"] == [] and {host["state"] for host in status["hosts"].values()} == {"on"}
    assert eventually(lambda: all(all(carriers(lab, host)) for host in ("ps1", "ps2", "client1", "gw1")))
    assert status["hosts"]["ps1"]["disk"] == []
    assert eventually(lambda: lab.reaches("client1", "192.0.2.11"))
