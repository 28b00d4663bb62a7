# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the hosts are, and how one gets at them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.lab.conftest import Lab, eventually, root_addresses

HOSTS = {"ps1", "ps2", "sw1", "sw2", "scanner1", "client1", "gw1"}


def test_every_host_is_a_whole_system_under_its_own_name(lab: Lab) -> None:
    hosts = lab.status()["hosts"]
    assert set(hosts) == HOSTS and {host["state"] for host in hosts.values()} == {"on"}
    for host in HOSTS:
        assert lab.sh(host, "uname -n; systemctl is-system-running").split() == [host, "running"]


def test_up_again_leaves_a_running_lab_alone(lab: Lab) -> None:
    before = lab.supervisors()
    assert set(before) == HOSTS
    again = lab.try_run("up")
    assert again.returncode == 0 and "is up (bookworm)" in again.stderr
    assert lab.supervisors() == before


def test_up_with_another_release_is_refused(lab: Lab) -> None:
    done = lab.try_run("up", "--release", "trixie")
    assert done.returncode == 1 and "runs bookworm, not trixie: run 'bin/lab --name labtest down' first" in done.stderr


def test_exec_passes_input_arguments_and_exit_status(lab: Lab) -> None:
    done = lab.try_run("exec", "ps1", "--", "sh", "-c", 'cat; printf "<%s>" "$@"; exit 7', "x", "a b", "$HOME", "'", input="in\n")
    assert (done.returncode, done.stdout) == (7, "in\n<a b><$HOME><'>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("exec", "ps9", "--", "true"), "host 'ps9' is not in the topology"),
        (("power", "off", "ps9"), "host 'ps9' is not in the topology"),
        (("switch", "off", "ps1"), "'ps1' is a policy_server, not a switch"),
        (("cable", "out", "client1", "eth1"), "client1 has no link 'eth1': it has eth0"),
        (("block", "sw1", "ps1"), "have no leg on a common switch"),
        (("disk", "fill", "client1"), "client1 has no data disk: ps1, ps2 have one"),
        (("rollback", "never"), "there is no snapshot 'never'"),
        (("snapshot", "No Good"), "snapshot 'No Good'"),
    ],
)
def test_what_does_not_exist_is_named(lab: Lab, arguments: tuple[str, ...], message: str) -> None:
    done = lab.try_run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_nothing_of_the_lab_is_in_the_machine_s_own_network(lab: Lab, own_network: list[str]) -> None:
    assert root_addresses() == own_network


def test_two_networks_joined_by_the_gateway_alone(lab: Lab) -> None:
    for host, address in (("client1", "192.0.2.11"), ("scanner1", "192.0.2.12"), ("ps1", "198.51.100.12"), ("client1", "198.51.100.11")):
        assert lab.reaches(host, address), f"{host} does not reach {address}"
    assert lab.sh("client1", "ip -o route get 198.51.100.11").split()[2] == "192.0.2.1"
    assert lab.sh("client1", "ping -q -c 1 ps1").startswith("PING ps1 (192.0.2.11)")
    assert "default" not in lab.sh("gw1", "ip route")


def test_a_host_sees_its_own_interfaces_and_no_others(lab: Lab) -> None:
    assert lab.sh("ps1", "ls /sys/class/net").split() == ["eth0", "eth1", "lo"]
    assert json.loads(lab.sh("ps1", "ip -j -4 address show eth1"))[0]["addr_info"][0]["local"] == "198.51.100.11"


def test_each_leg_answers_for_its_own_address_only(lab: Lab) -> None:
    assert lab.sh("ps1", "cat /proc/sys/net/ipv4/conf/all/arp_ignore /proc/sys/net/ipv4/conf/all/arp_announce").split() == ["1", "2"]


def test_services_are_on_where_the_kind_wants_them(lab: Lab) -> None:
    asked = "systemctl is-enabled postgresql chrony heartbeat nginx || true"
    assert lab.sh("ps1", asked).split() == ["enabled", "enabled", "disabled", "disabled"]
    assert lab.sh("client1", asked).split() == ["disabled"] * 4
    assert lab.works("ps2", "runuser -u postgres -- psql -qtAc 'select 1'")


def test_the_policy_servers_have_a_disk_of_their_own(lab: Lab) -> None:
    assert lab.sh("ps1", "findmnt -no FSTYPE /opt/finjan") == "ext4"
    assert not lab.works("client1", "findmnt /opt/finjan")


def test_the_gateway_gives_the_time_and_nobody_can_set_it(lab: Lab) -> None:
    assert lab.sh("gw1", "pgrep -a chronyd | head -n 1").endswith("chronyd -x")
    assert "(ignored)" in lab.sh("ps1", "chronyd -Q -t 60 'server 192.0.2.1 iburst' 2>&1")
    for host in HOSTS:
        bounding = int(lab.sh(host, "sed -n 's/^CapBnd:\\s*//p' /proc/1/status"), 16)
        assert not bounding >> 25 & 1, f"{host} may set the clock"


def test_real_time_scheduling_works_as_heartbeat_wants_it(lab: Lab) -> None:
    assert lab.works("ps1", "chrt -r 1 true") and lab.works("ps2", "chrt -r 1 true")


def test_apt_finds_the_image_s_packages_without_a_network(lab: Lab) -> None:
    assert "0 newly installed" in lab.sh("ps1", "apt-get install -s heartbeat postgresql nginx-light chrony rsync")


def test_inventories_name_the_hosts_and_their_variables(lab: Lab) -> None:
    plain, qualified = (Path(lab("inventory", *more).strip()).read_text() for more in ((), ("--qualified",)))
    assert '      ansible_host: "swgha-labtest-ps1"' in plain and '    ha_virtual_ip: "192.0.2.10"' in plain
    assert "    labtest:\n      hosts:\n        labtest-ps1:" in qualified and 'ha_pair: "labtest"' in qualified


def test_a_reboot_from_inside_comes_back_with_clean_interfaces(lab: Lab) -> None:
    boot = lab.sh("ps1", "cat /proc/sys/kernel/random/boot_id; ip address add 192.0.2.10/24 dev eth0")
    # Its end may cut off the answer.
    lab.try_run("exec", "ps1", "--", "systemctl", "reboot", "--no-block")

    def back() -> bool:
        done = lab.try_run("exec", "ps1", "--", "cat", "/proc/sys/kernel/random/boot_id")
        return done.returncode == 0 and done.stdout.strip() != boot

    assert eventually(back, 120)
    assert lab.sh("ps1", "systemctl is-system-running --wait") == "running"
    assert "192.0.2.10/" not in lab.sh("ps1", "ip -4 -o address")
    assert eventually(lambda: lab.reaches("client1", "192.0.2.11"))


def test_a_host_that_switches_itself_off_is_off(lab: Lab) -> None:
    lab.try_run("exec", "client1", "--", "systemctl", "poweroff", "--no-block")
    assert eventually(lambda: lab.status()["hosts"]["client1"]["state"] == "off", 60)
    done = lab.try_run("exec", "client1", "--", "true")
    assert done.returncode == 1 and done.stderr == "bin/lab: client1 is off: run 'bin/lab --name labtest power on client1' first\n"
    lab("power", "on", "client1")
    begin = time.monotonic()
    assert lab.sh("client1", "uname -n") == "client1" and time.monotonic() - begin < 10
