# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What follows from a name, a topology or a text alone: names, mounts, rules, files, inventories."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swg_ha_lab import TOPOLOGY, access, disk, hostfiles, image, network, recipe, supervisor
from swg_ha_lab.cgroups import Hierarchy, parse_mounts
from swg_ha_lab.errors import LabError, UsageError
from swg_ha_lab.faults import Faults
from swg_ha_lab.layout import Layout
from swg_ha_lab.topology import Topology, load, parse


@pytest.fixture
def topology() -> Topology:
    return parse(load(TOPOLOGY))


def test_two_labs_share_no_name(topology: Topology) -> None:
    one, two = (
        {layout.machine(host) for host in topology.hosts} | {layout.parking, layout.cgroup} for layout in (Layout("a"), Layout("ab"))
    )
    assert not one & two


@pytest.mark.parametrize("name", ["", "Lab", "1a", "a-b", "a_b", "a/b", "../x", "a" * 17])
def test_a_lab_name_that_cannot_be_a_group_or_a_path_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="lab name"):
        Layout(name)


def test_the_control_path_of_the_longest_names_fits_into_a_socket_address(topology: Topology) -> None:
    layout = Layout("a" * 16)
    assert max(len(f"{layout.control}/{layout.machine(host)}.{'x' * 16}") for host in topology.hosts) < 108


def test_overlay_layers_are_stacked_the_newest_on_top() -> None:
    options = supervisor.overlay_options("/image", Path("/layers"), ["0", "a", "b"], Path("/work/b"))
    assert options == "lowerdir=/layers/a:/layers/0:/image,upperdir=/layers/b,workdir=/work/b,redirect_dir=on"


def test_no_host_may_set_the_clock(topology: Topology) -> None:
    for host in topology.hosts.values():
        command = supervisor.nspawn_command(Layout("a"), host)
        assert "--drop-capability=CAP_SYS_TIME" in command
        assert not any("all" in word for word in command if word.startswith("--capability"))


def test_only_a_policy_server_has_its_disk_bound(topology: Topology) -> None:
    def binds(host: str) -> list[str]:
        return [word for word in supervisor.nspawn_command(Layout("a"), topology.host(host)) if word.startswith("--bind")]

    assert binds("ps1") == ["--bind=/var/lib/swg-ha-lab/a/hosts/ps1/data:/opt/finjan"]
    assert binds("client1") == []


def test_every_cable_is_made_with_both_ends_parked_and_marked(topology: Topology) -> None:
    plan = network.cable_plan(topology)
    made = [line for line in plan if line.startswith("link add")]
    assert len(made) == len(topology.legs()) == 8
    assert "link add name ps1.eth0 address 02:00:5e:00:03:00 type veth peer name sw1.p1 address 02:00:5e:01:00:02" in made
    assert "link set dev sw1.p1 alias sw1.p1" in plan


def test_a_block_drops_the_source_s_frames_at_the_target_s_port(topology: Topology) -> None:
    pairs = topology.common_legs("ps1", "ps2")
    rules = network.block_rules("sw2", [network.Block(*pair) for pair in pairs])
    assert "device p2 priority 0" in rules
    assert f"add rule netdev swgha_lab p2 ether saddr {topology.leg('ps1', 'eth1').mac} counter drop" in rules
    assert topology.leg("ps1", "eth0").mac not in rules


def test_no_block_leaves_an_empty_table(topology: Topology) -> None:
    assert network.block_rules("sw1", []).splitlines()[-1] == "add table netdev swgha_lab"


def test_faults_survive_being_written(tmp_path: Path, topology: Topology) -> None:
    blocks = [network.Block(*pair) for pair in topology.common_legs("ps1", "ps2")]
    faults = Faults({("ps1", "eth0")}, blocks, {"ps1": 5}, {"ps2"}, {"ps1"}, set())
    faults.save(tmp_path / "faults.json")
    assert Faults.load(tmp_path / "faults.json", topology) == faults
    assert Faults.load(tmp_path / "absent.json", topology) == Faults()


def test_power_ends_only_the_disk_faults_that_power_ends() -> None:
    faults = Faults(slow={"ps1": 5}, full={"ps1"}, frozen={"ps1"}, read_only={"ps1"})
    assert faults.disk("ps1") == ["full", "slow", "frozen", "read-only"]
    faults.power_cycle("ps1")
    assert faults.disk("ps1") == ["full", "slow"]
    faults.forget_disk("ps1")
    assert faults.disk("ps1") == []


KEYS = {"authorized": "client key\n", "host": "private\n", "host_public": "public\n"}


def test_a_server_keeps_its_address_without_a_carrier(topology: Topology) -> None:
    files = hostfiles.files(topology, topology.host("ps1"), KEYS, "0" * 32)
    leg = files["etc/systemd/network/10-eth0.network"].text
    assert {"Address=192.0.2.11/24", "Gateway=192.0.2.1", "ConfigureWithoutCarrier=yes", "IgnoreCarrierLoss=yes"} <= set(leg.splitlines())
    assert "Gateway" not in files["etc/systemd/network/10-eth1.network"].text


def test_secrets_are_for_root_alone(topology: Topology) -> None:
    files = hostfiles.files(topology, topology.host("ps1"), KEYS, "0" * 32)
    assert files["etc/ssh/ssh_host_ed25519_key"].mode == files["root/.ssh/authorized_keys"].mode == 0o600


def test_a_switch_has_exactly_its_ports_in_the_bridge(topology: Topology) -> None:
    files = hostfiles.files(topology, topology.host("sw2"), KEYS, "0" * 32)
    ports = {name: file.text for name, file in files.items() if name.startswith("etc/systemd/network/20-")}
    assert set(ports) == {f"etc/systemd/network/20-{port}.network" for port in ("p1", "p2", "p9")}
    assert all("Bridge=br0" in text for text in ports.values())


def test_the_hosts_file_names_every_host_by_its_first_leg(topology: Topology) -> None:
    lines = hostfiles.hosts_file(topology).splitlines()
    assert "192.0.2.11 ps1" in lines and "192.0.2.1 gw1" in lines
    assert not any(name in line for line in lines for name in ("sw1", "127.0.1.1"))


def test_the_time_source_never_steers(topology: Topology) -> None:
    files = hostfiles.files(topology, topology.host("gw1"), KEYS, "0" * 32)
    assert files["etc/default/chrony"].text == 'DAEMON_OPTS="-x"\n'
    assert {"allow 192.0.2.0/24", "allow 198.51.100.0/24"} <= set(files["etc/chrony/chrony.conf"].text.splitlines())


def test_enablement_follows_the_install_section() -> None:
    text = "[Unit]\nWantedBy=no.target\n[Install]\nAlias=chronyd.service\nWantedBy=multi-user.target\n"
    assert hostfiles.enablement("chrony.service", text) == {
        "chronyd.service": "/lib/systemd/system/chrony.service",
        "multi-user.target.wants/chrony.service": "/lib/systemd/system/chrony.service",
    }


def test_inventory_of_one_lab(topology: Topology) -> None:
    groups = access.inventory(Layout("demo"), topology)
    assert {group: list(entry["hosts"]) for group, entry in groups.items()} == {
        "switches": ["sw1", "sw2"],
        "gateways": ["gw1"],
        "policy_servers": ["ps1", "ps2"],
        "scanners": ["scanner1"],
        "clients": ["client1"],
    }
    assert groups["policy_servers"]["vars"]["ha_virtual_ip"] == "192.0.2.10"
    assert groups["policy_servers"]["hosts"]["ps1"]["ansible_host"] == "swgha-demo-ps1"


def test_qualified_inventories_of_two_labs_share_no_host_and_no_pair(topology: Topology) -> None:
    one, two = (access.inventory(Layout(name), topology, qualified=True) for name in ("east", "west"))
    pair = one["policy_servers"]["children"]["east"]
    assert list(pair["hosts"]) == ["east-ps1", "east-ps2"] and pair["vars"]["ha_pair"] == "east"
    assert list(two["policy_servers"]["children"]) == ["west"]
    assert not set(one["switches"]["hosts"]) & set(two["switches"]["hosts"])


def test_inventory_text_is_nested_by_two_spaces() -> None:
    value: dict[str, Any] = {"a": {"b": {"c": ["x", 1], "d": True}, "e": {}}}
    assert access.to_yaml(value) == 'a:\n  b:\n    c: ["x", 1]\n    d: true\n  e: {}\n'


def test_archives_are_this_machine_s_own_renamed_to_the_release() -> None:
    text = (
        "bookworm|http://archive.test/debian/|main\nbookworm|http://archive.test/debian/|contrib\n"
        "bookworm-security|http://archive.test/security/|main\nstable|http://vendor.test/apt/|main\n"
    )
    assert image.sources(image.parse_targets(text), "bookworm", "trixie") == (
        "deb http://archive.test/debian/ trixie main\ndeb http://archive.test/security/ trixie-security main\n"
    )


def test_a_machine_without_an_archive_is_told_so() -> None:
    with pytest.raises(LabError, match="apt knows no archive of bookworm/main"):
        image.sources([], "bookworm", "bookworm")


def test_only_apt_s_ways_to_the_archive_are_copied() -> None:
    dump = 'APT::Architecture "amd64";\nAcquire::http::Proxy "http://127.0.0.1:1";\nAcquire::Check-Date "false";\nDPkg::Post-Invoke:: "rm x";\n'
    assert image.apt_options(dump) == ['Acquire::http::Proxy "http://127.0.0.1:1"', 'Acquire::Check-Date "false"']


def test_the_image_s_key_follows_release_and_recipe() -> None:
    keys = {image.key(release, source) for release in recipe.RELEASES for source in (b"one", b"two")}
    assert len(keys) == 4 and all(key.startswith(recipe.RELEASES) for key in keys)


MOUNTS = """\
30 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
33 30 0:28 / /elsewhere rw shared:9 - cgroup cgroup rw,cpu,cpuacct
34 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
35 30 0:30 /part /partial rw - cgroup cgroup rw,blkio
"""


def test_hierarchies_are_found_once_and_whole() -> None:
    assert parse_mounts(MOUNTS) == [
        Hierarchy(Path("/sys/fs/cgroup/unified"), 2, frozenset()),
        Hierarchy(Path("/sys/fs/cgroup/cpu,cpuacct"), 1, frozenset({"cpu", "cpuacct"})),
        Hierarchy(Path("/sys/fs/cgroup/systemd"), 1, frozenset({"name=systemd"})),
    ]


def test_a_machine_with_version_2_only() -> None:
    assert parse_mounts("30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n") == [
        Hierarchy(Path("/sys/fs/cgroup"), 2, frozenset())
    ]


@pytest.mark.parametrize(("options", "expected"), [("rw", False), ("ro", True), ("rw,emergency_ro", True), ("rw,errors=remount-ro", False)])
def test_a_failed_file_system_is_seen_in_its_mount_options(options: str, expected: bool) -> None:
    text = f"1 0 0:1 / / rw - overlay x rw\n2 1 7:0 / /data rw,relatime - ext4 /dev/loop0 {options}\n"
    assert disk.read_only(text, "/data") is expected


@pytest.mark.parametrize("stays", [True, False])
def test_a_host_that_goes_off_while_it_is_looked_at_has_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool) -> None:
    namespace = tmp_path / "namespace"
    namespace.touch()

    def fail(name: str) -> list[dict[str, Any]]:
        if not stays:
            namespace.unlink()
        raise LabError("ip failed with 1")

    monkeypatch.setattr(network, "_links", fail)
    wiring = network.Wiring.__new__(network.Wiring)
    wiring.layout = SimpleNamespace(namespace=lambda host: namespace, machine=lambda host: host)  # type: ignore[assignment]
    if stays:
        with pytest.raises(LabError):
            wiring.links("ps1")
    else:
        assert wiring.links("ps1") == []
