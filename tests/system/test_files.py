# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files that are copied to the passive server: what arrives there, what must not, and what happens when something breaks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.system.pair import MODULE_XML, Lab, eventually

STAGED = "/opt/finjan/configuration/ha"
FILE, TREE, SLOW, ARCHIVE = "/srv/t/one file", "/srv/t/tree", "/srv/t/slow", "/srv/t/archive"
LIST = [
    {"name": FILE, "inotify": True, "permissions": "root:root"},
    {"name": TREE, "inotify": True, "permissions": "root:root"},
    {"name": SLOW, "inotify": False, "interval": 2, "permissions": "root:root"},
    {"name": ARCHIVE, "inotify": True, "permissions": "root:root"},
]
# Under the load of a whole run; what it takes on an idle machine is measured by bin/bench files.
PATIENCE = 30

EDIT = f"""
import json, sys
sys.path.insert(0, "/usr/lib/swg_ha")
from swg_ha.shared import durable, module_xml
with open("{MODULE_XML}", "rb") as file:
    before = file.read()
durable.replace("{MODULE_XML}", module_xml.edit(before, {{"files_to_replicate": json.loads(sys.argv[1])}}))
"""
TOLD = f"""
import json, sys
sys.path.insert(0, "/usr/lib/swg_ha")
from swg_ha.shared import module_xml
with open("{MODULE_XML}", "rb") as file:
    print(json.dumps([each.name for each in module_xml.parse(file.read()).files_to_replicate]))
"""


def replicate(lab: Lab, files: Sequence[Mapping[str, Any]]) -> None:
    """Have the active server replicate these: its configuration, and SIGHUP."""
    lab("exec", "ps1", "--", "python3", "-c", EDIT, json.dumps(list(files)))
    lab.sh("ps1", "systemctl reload ha_manager")


def entry(lab: Lab, name: str) -> dict[str, Any]:
    status = json.loads(lab.sh("ps1", "ha status --json"))
    return next(one for one in status["files"] if one["name"] == name)


def copy_is(lab: Lab, path: str, content: str) -> bool:
    same = """[ -e "$1" ] && [ "$(head -c 200 "$1" | tr -d '\\0')" = "$2" ]"""
    return lab.try_run("exec", "ps2", "--", "bash", "-c", same, "-", STAGED + path, content).returncode == 0


def there(lab: Lab, path: str) -> bool:
    return lab.try_run("exec", "ps2", "--", "test", "-e", STAGED + path).returncode == 0


def units(lab: Lab, host: str) -> set[str]:
    return set(lab.sh(host, "find /run/systemd/system -name 'ha_file@*' -printf '%f\\n'").splitlines())


@pytest.fixture(scope="module")
def lab(pair: Lab) -> Iterator[Lab]:
    """ps1 replicates the list, and each has something to copy."""
    before = json.loads(pair("exec", "ps1", "--", "cat", MODULE_XML) and pair("exec", "ps1", "--", "python3", "-c", TOLD))
    assert before, "the playbook has given the pair no files"
    pair.sh(
        "ps1",
        f"umount {ARCHIVE} 2>/dev/null || true; rm -rf /srv/t; mkdir -p {TREE}/a {ARCHIVE}; echo 1 > '{FILE}'; echo 1 > {TREE}/a/b; echo 1 > {SLOW}; echo 1 > {ARCHIVE}/1",
    )
    replicate(pair, LIST)
    for path in (FILE, f"{TREE}/a/b", SLOW, f"{ARCHIVE}/1"):
        eventually(lambda path=path: copy_is(pair, path, "1"), PATIENCE, f"{path} is on ps2")
    eventually(
        lambda: pair.try_run("exec", "ps1", "--", "test", "-e", f"/run/ha_files/{ID_OF_TREE}.tree").returncode == 0, PATIENCE, "watched"
    )
    yield pair


ID_OF_TREE = "srv-t-tree"


def test_the_list_makes_exactly_its_units_on_both_sides(lab: Lab) -> None:
    wanted = {
        r"ha_file@srv-t-one\x20file.path",
        r"ha_file@srv-t-one\x20file.timer",
        "ha_file@srv-t-tree.path",
        "ha_file@srv-t-tree.timer",
        "ha_file@srv-t-slow.timer",
        "ha_file@srv-t-archive.path",
        "ha_file@srv-t-archive.timer",
    }
    assert units(lab, "ps1") == wanted
    eventually(lambda: units(lab, "ps2") == wanted, PATIENCE, "ps2 has the same units")
    assert lab.sh("ps1", "systemctl is-active ha_files.target") == "active"
    assert lab.try_run("exec", "ps2", "--", "systemctl", "is-active", "ha_files.target").stdout.strip() == "inactive"
    one, less = {"name": "/srv/t/new", "inotify": True, "permissions": "root:root"}, [each for each in LIST if each["name"] != SLOW]
    lab.sh("ps1", "echo 1 > /srv/t/new")
    replicate(lab, [*less, one])
    changed = (wanted - {"ha_file@srv-t-slow.timer"}) | {"ha_file@srv-t-new.path", "ha_file@srv-t-new.timer"}
    for host in ("ps1", "ps2"):
        eventually(lambda host=host: units(lab, host) == changed, PATIENCE, f"{host} has the units of the new list")
    eventually(lambda: copy_is(lab, "/srv/t/new", "1"), PATIENCE, "the new one is copied")
    running = "systemctl list-units --state=active,activating,failed --plain --no-legend 'ha_*@srv-t-*' | cut -d' ' -f1"
    assert "srv-t-new" in lab.sh("ps1", running) and "srv-t-slow" not in lab.sh("ps1", running)
    replicate(lab, LIST)
    for host in ("ps1", "ps2"):
        eventually(lambda host=host: units(lab, host) == wanted, PATIENCE, f"{host} has the units of the old list")


def test_what_changes_arrives(lab: Lab) -> None:
    lab.sh("ps1", f"echo 2 > '{FILE}'; echo 2 > {SLOW}; mkdir -p {TREE}/new/deep/er; echo 2 > {TREE}/new/deep/er/file")
    for path in (FILE, SLOW, f"{TREE}/new/deep/er/file"):
        eventually(lambda path=path: copy_is(lab, path, "2"), PATIENCE, f"{path} is on ps2")
    # In a folder that was made a moment ago, long after its making was copied.
    lab.sh("ps1", f"echo 3 > {TREE}/new/deep/er/file; mv '{FILE}' /srv/t/x; echo 3 > /srv/t/y; mv /srv/t/y '{FILE}'")
    for path in (FILE, f"{TREE}/new/deep/er/file"):
        eventually(lambda path=path: copy_is(lab, path, "3"), PATIENCE, f"{path} is on ps2")


def test_owner_and_mode_come_along_and_root_alone_reads_it(lab: Lab) -> None:
    lab.sh("ps1", f"chown nobody:adm '{FILE}'; chmod 4640 '{FILE}'; echo mode > '{FILE}'; chmod 4640 '{FILE}'")
    expected = lab.sh("ps1", "echo $(id -u nobody):$(getent group adm | cut -d: -f3)")
    read = f"import os; print(os.getxattr({STAGED + FILE!r}, 'user.rsync.%stat').decode())"
    eventually(
        lambda: lab("exec", "ps2", "--", "python3", "-c", read).strip() == f"104640 0,0 {expected}",
        PATIENCE,
        "attributes are with the copy",
    )
    assert lab.sh("ps2", f"stat -c '%U %a' {STAGED}") == "ha_peer 700"
    assert lab.try_run("exec", "ps2", "--", "runuser", "-u", "nobody", "--", "cat", STAGED + FILE).returncode != 0
    lab.sh("ps1", f"chown root:root '{FILE}'; chmod 644 '{FILE}'")


def test_two_versions_of_one_second_are_two(lab: Lab) -> None:
    """Of one size, and with the same second in their times: rsync takes them for equal unless it is told to look closer."""
    for path in (FILE, f"{TREE}/a/b"):
        for content, time_of in (("4", "2026-01-31 21:55:00.250"), ("5", "2026-01-31 21:55:00.750")):
            lab.sh("ps1", f"echo {content} > '{path}.new'; touch --date='{time_of}' '{path}.new'; mv '{path}.new' '{path}'")
            eventually(lambda path=path, content=content: copy_is(lab, path, content), PATIENCE, f"{path} is on ps2 as {content}")


def test_many_changes_are_few_copies_and_the_last_one_arrives(lab: Lab) -> None:
    def attempts() -> int:
        return int(lab.sh("ps1", r"sed -n 's/^attempts //p' '/var/lib/ha_files/srv-t-one\x20file'"))

    before = attempts()
    lab.sh("ps1", f"for i in $(seq 500); do echo $i > '{FILE}'; sleep 0.002; done; echo last > '{FILE}'")
    eventually(lambda: copy_is(lab, FILE, "last"), PATIENCE, "the last change is on ps2")
    assert attempts() - before < 100
    # One that was copied while it was being written may have failed just before.
    eventually(lambda: entry(lab, FILE)["code"] is None, PATIENCE, "the last copy went well")


def test_what_changes_while_it_is_copied_arrives(lab: Lab) -> None:
    """A file that is written for as long as the copy takes and longer, and folders that come and go meanwhile."""
    lab.sh(
        "ps1",
        f"""
        (end=$((SECONDS + 8)); while [ $SECONDS -lt $end ]; do date +%N >> '{FILE}'; done; echo whole > '{FILE}') &
        (end=$((SECONDS + 8)); i=0; while [ $SECONDS -lt $end ]; do
            i=$((i + 1)); mkdir -p {TREE}/c$i/d; head -c 300000 /dev/urandom > {TREE}/c$i/d/f; [ $i -lt 5 ] || rm -rf {TREE}/c$((i - 4))
        done; rm -rf {TREE}/c*; echo whole > {TREE}/a/b) &
        wait""",
        timeout=120,
    )
    eventually(lambda: copy_is(lab, FILE, "whole") and copy_is(lab, f"{TREE}/a/b", "whole"), 120, "what was written last is on ps2")

    def gone() -> bool:
        # find fails where a folder goes while it looks.
        found = lab.try_run("exec", "ps2", "--", "find", STAGED + TREE, "-name", "c*")
        return found.returncode == 0 and found.stdout == ""

    eventually(gone, 60, "what went is gone on ps2")
    eventually(lambda: entry(lab, FILE)["code"] is None and entry(lab, TREE)["code"] is None, PATIENCE, "nothing is wrong")


def test_odd_names_and_kinds(lab: Lab) -> None:
    lab.sh(
        "ps1",
        rf"""
        cd {TREE}; mkdir odd; cd odd
        echo x > 'a blank'; echo x > $'line\nfeed'; echo x > -dash; echo x > $'\xff\xfe'; echo x > '*?[]{{}}$`"\'; echo x > ' '
        ln -s ../a/b inside; ln -s /etc/passwd outside; ln -s nowhere dangling
        mkfifo pipe; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
        """,
    )
    name = r"""find . -mindepth 1 -printf '%P\0' | sort -z | od -c | md5sum"""
    without = f"cd {TREE}/odd && mkdir /tmp/odd && cp -a . /tmp/odd && cd /tmp/odd && rm pipe socket && {name}; rm -rf /tmp/odd"
    wanted = lab.sh("ps1", without)
    eventually(lambda: lab.sh("ps2", f"cd {STAGED}{TREE}/odd 2>/dev/null && {name} || true") == wanted, PATIENCE, "all names are on ps2")
    # No link is ever made there: what it leads to is kept as the text of a file.
    assert lab.sh("ps2", f"find {STAGED} -type l -o -type p -o -type s") == ""
    assert lab.sh("ps2", f"cat {STAGED}{TREE}/odd/outside") == "/etc/passwd"
    eventually(lambda: [each.rpartition("/")[2] for each in sorted(entry(lab, TREE)["left_out"])] == ["pipe", "socket"], PATIENCE, "named")
    lab.sh("ps1", f"rm -rf {TREE}/odd")
    eventually(lambda: not there(lab, f"{TREE}/odd"), PATIENCE, "the folder is gone on ps2")


def test_a_source_that_is_gone_empty_or_not_mounted_empties_no_copy(lab: Lab) -> None:
    # So that no copy is under way.
    lab.sh("ps1", f"ha replicate >&2; rm -rf {ARCHIVE}; : > '{FILE}'; mv {TREE} /srv/t/aside; mkdir {TREE}", timeout=120)
    for name, code in ((ARCHIVE, "FILE_SOURCE_MISSING"), (FILE, "FILE_SOURCE_EMPTY"), (TREE, "FILE_SOURCE_EMPTY")):
        eventually(lambda name=name, code=code: entry(lab, name)["code"] == code, PATIENCE, f"{name} is {code}")
    assert there(lab, f"{ARCHIVE}/1") and there(lab, f"{TREE}/a/b") and not copy_is(lab, FILE, "")
    problems = {problem["code"] for problem in json.loads(lab.sh("ps1", "ha status --json"))["problems"]}
    assert {"FILE_SOURCE_MISSING", "FILE_SOURCE_EMPTY"} <= problems
    refused = lab.try_run("exec", "ps1", "--", "ha", "replicate", ARCHIVE)
    assert refused.returncode == 1 and "is not there" in refused.stderr
    lab.sh("ps1", f"rmdir {TREE}; mv /srv/t/aside {TREE}; echo back > '{FILE}'; mkdir {ARCHIVE}; ha replicate --accept {ARCHIVE}")
    assert not there(lab, f"{ARCHIVE}/1")
    lab.sh("ps1", f"mount -t tmpfs tmpfs {ARCHIVE}; echo 5 > {ARCHIVE}/1; ha replicate {ARCHIVE}")
    assert copy_is(lab, f"{ARCHIVE}/1", "5")
    # What lies below the mount point is not what was copied.
    lab.sh("ps1", f"until umount {ARCHIVE}; do sleep 0.1; done; echo under > {ARCHIVE}/2")
    assert lab.try_run("exec", "ps1", "--", "ha", "replicate", ARCHIVE).returncode == 1
    eventually(lambda: entry(lab, ARCHIVE)["code"] == "FILE_NOT_MOUNTED", PATIENCE, "the status says so")
    assert copy_is(lab, f"{ARCHIVE}/1", "5") and not there(lab, f"{ARCHIVE}/2")
    lab.sh("ps1", f"ha replicate --accept {ARCHIVE}; ha replicate")
    assert not there(lab, f"{ARCHIVE}/1") and copy_is(lab, f"{ARCHIVE}/2", "under") and copy_is(lab, FILE, "back")
    lab.sh("ps1", f"rm {ARCHIVE}/2; echo 1 > {ARCHIVE}/1; ha replicate")


def test_replicate_says_what_it_did(lab: Lab) -> None:
    said = lab.sh("ps1", f"ha replicate '{FILE}'")
    assert said.startswith(f"{FILE}: ") and said.endswith(" s")
    unknown = lab.try_run("exec", "ps1", "--", "ha", "replicate", "/etc/passwd")
    assert unknown.returncode == 1 and all(each["name"] in unknown.stderr for each in LIST)
    passive = lab.try_run("exec", "ps2", "--", "ha", "replicate")
    assert passive.returncode == 1 and "run it on ps1" in passive.stderr
    assert lab.try_run("exec", "ps1", "--", "ha", "replicate", "--accept").returncode == 2


HALVES = "cd /opt/finjan/configuration && ls -A .incoming ha/.incoming | grep -v : || true"
SSH = "ssh -F /etc/ha_manager/ssh_config -o ControlPath=none"
RSYNC = "rsync -rlptgoR --fake-super"


def intruders(lab: Lab, host: str, folder: str) -> str:
    """What a refused command has left all the same. Folders come and go meanwhile, which find takes for an error."""
    done = lab.try_run("exec", host, "--", "find", folder, "-xdev", "-name", "*intruded*")
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "command",
    [
        f"{SSH} link0 cat /etc/passwd",
        f"{SSH} link0 </dev/null",
        f"{SSH} -tt link0 'sh -i' </dev/null",
        f"{SSH} link0 'rsync --server -logDtpRre.iLsfxCIvu --fake-super . ha/; touch /tmp/intruded'",
        f"{SSH} -N -o ExitOnForwardFailure=yes -R 7777:127.0.0.1:22 link0",
        f"timeout 10 {SSH} -o SessionType=none -W 127.0.0.1:22 link0 </dev/null | grep SSH",
        f"rsync -e '{SSH}' -M--fake-super link0:ha/etc/shadow /tmp/intruded",
        f"rsync -e '{SSH}' -M--fake-super /etc/hostname link0:/etc/intruded",
        f"rsync -e '{SSH}' -M--fake-super /etc/hostname link0:../../intruded",
        f"rsync -e '{SSH}' -M--fake-super /etc/hostname link0:data/intruded",
        f"rsync -e '{SSH}' -l /etc/os-release link0:ha/intruded",
        f"rsync -e '{SSH}' -M--fake-super -M--super /etc/hostname link0:ha/intruded",
        f"rsync -e '{SSH}' -M--fake-super -M--log-file=/tmp/intruded /etc/hostname link0:/etc/",
        "sftp -F /etc/ha_manager/ssh_config -o ControlPath=none -b /dev/null link0",
        "scp -F /etc/ha_manager/ssh_config -o ControlPath=none /etc/hostname link0:/tmp/intruded",
    ],
)
def test_the_account_lets_nothing_else_through(lab: Lab, command: str) -> None:
    done = lab.try_run("exec", "ps1", "--", "bash", "-c", f"cd /tmp; {command}")
    assert done.returncode != 0, done.stdout + done.stderr
    assert "root:" not in done.stdout
    assert intruders(lab, "ps2", "/") == intruders(lab, "ps2", "/opt/finjan") == ""
    assert intruders(lab, "ps1", "/tmp") == ""


def test_the_active_server_takes_nothing(lab: Lab) -> None:
    done = lab.try_run("exec", "ps2", "--", "bash", "-c", f"rsync -e '{SSH}' -M--fake-super /etc/hostname link0:ha/intruded")
    assert done.returncode != 0 and "not passive" in done.stderr
    assert intruders(lab, "ps1", "/opt/finjan") == ""


def test_a_full_disk_names_the_file_and_installs_no_half(lab: Lab) -> None:
    before = lab.sh("ps2", f"md5sum < '{STAGED}{FILE}'")
    lab("disk", "fill", "ps2")
    try:
        # Made elsewhere first: what grows where it is watched is tried, and fails, again and again.
        make = f"head -c 300M /dev/urandom > /srv/big; head -c 30M /dev/urandom > '{FILE}.new'; mv /srv/big {TREE}/big; mv '{FILE}.new' '{FILE}'"
        lab.sh("ps1", make, timeout=120)

        def named() -> bool:
            found = entry(lab, TREE)
            return found["code"] == "FILE_FAILED" and "No space left on device" in found["error"] and "big" in found["error"]

        eventually(named, 60, "the copy has failed for want of room")
        assert not there(lab, f"{TREE}/big")
        assert lab.sh("ps2", f"md5sum < '{STAGED}{FILE}'") == before
    finally:
        lab("disk", "heal", "ps2")
    eventually(lambda: there(lab, f"{TREE}/big") and entry(lab, TREE)["code"] is None, 120, "it is copied when there is room")
    wanted = lab.sh("ps1", f"md5sum < '{FILE}'")
    eventually(lambda: lab.sh("ps2", f"md5sum < '{STAGED}{FILE}'") == wanted, 60, "the other one too")
    lab.sh("ps1", f"rm {TREE}/big; echo small > '{FILE}'")
    eventually(lambda: copy_is(lab, FILE, "small"), PATIENCE, "it is small again")


def settled(lab: Lab, active: str = "ps1") -> bool:
    done = lab.try_run("exec", active, "--", "ha", "status", "--json")
    return done.returncode == 0 and bool(json.loads(done.stdout)["redundant"])


def test_a_power_cut_of_the_passive_server_in_the_middle_of_a_copy(lab: Lab) -> None:
    lab.sh(
        "ps1", f"mkdir /srv/cut; for i in 1 2 3 4; do head -c 100M /dev/urandom > /srv/cut/$i; done; mv /srv/cut {TREE}/cut", timeout=120
    )
    eventually(lambda: lab.sh("ps2", HALVES) != "", PATIENCE, "a copy is under way")
    lab("power", "off", "ps2")
    lab("power", "on", "ps2")
    eventually(lambda: settled(lab), 120, "the pair is redundant again")
    wanted = lab.sh("ps1", f"cd {TREE}/cut && md5sum *")
    eventually(lambda: lab.sh("ps2", f"cd {STAGED}{TREE}/cut && md5sum * || true") == wanted, 120, "everything is on ps2")
    assert lab.sh("ps2", HALVES) == ""
    # Its report comes after its last file.
    eventually(lambda: entry(lab, TREE)["code"] is None, 120, "the copy is reported as whole")
    lab.sh("ps1", f"rm -r {TREE}/cut")
    eventually(lambda: not there(lab, f"{TREE}/cut"), PATIENCE, "it is gone on ps2")


def test_the_direction_follows_the_role(lab: Lab) -> None:
    """The active server loses its power in the middle of a copy: the other one has what had arrived, and copies back."""
    # Made elsewhere first, so that what it is to be is known.
    whole = lab.sh("ps1", f"ha replicate >&2; head -c 400M /dev/urandom > /srv/cut; md5sum < /srv/cut; mv /srv/cut {TREE}/cut", timeout=120)
    eventually(lambda: lab.sh("ps2", HALVES) != "", PATIENCE, "a copy is under way")
    lab("power", "off", "ps1")
    began = time.monotonic()
    eventually(lambda: lab.try_run("exec", "ps2", "--", "ha", "amIactive").stdout.strip() == "1", 60, "ps2 is active")
    eventually(
        lambda: lab.try_run("exec", "ps2", "--", "systemctl", "is-active", "ha_files.target").stdout.strip() == "active", 60, "copies"
    )
    assert time.monotonic() - began < 60
    # Half of a file is nowhere to be found.
    assert lab.sh("ps2", f"find {STAGED}{TREE} -name '.cut.*'; md5sum < {STAGED}{TREE}/cut 2>/dev/null || true") in ("", whole)
    lab.sh("ps2", f"mkdir -p /srv/t; echo 'from ps2' > '{FILE}'")
    lab("power", "on", "ps1")
    eventually(
        lambda: (
            "passive" in lab.try_run("exec", "ps1", "--", "ls", "/etc/ha_manager").stdout
            and lab.try_run("exec", "ps1", "--", "cat", STAGED + FILE).stdout.strip() == "from ps2"
        ),
        120,
        "ps1 has the file of ps2",
    )
    assert lab.try_run("exec", "ps1", "--", "systemctl", "is-active", "ha_files.target").stdout.strip() != "active"
    eventually(lambda: json.loads(lab.sh("ps2", "ha status --json"))["redundant"], 120, "the pair is redundant again")
    lab.sh("ps2", "ha failover", timeout=120)
    eventually(lambda: lab.sh("ps1", "systemctl is-active ha_files.target || true") == "active", 120, "ps1 copies again")
    assert lab.sh("ps2", "systemctl is-active ha_files.target || true") != "active"


@pytest.mark.long
def test_a_file_of_five_gigabytes(lab: Lab) -> None:
    """Small ones go on arriving beside it, a takeover's database does not wait for it, and it is the same in the end."""
    large, size = "/srv/t/large", 5 * 2**30
    ends = "stat --format=%s {0}; head --bytes=20M {0} | sha256sum; tail --bytes=20M {0} | sha256sum"

    def same(host: str, path: str) -> bool:
        return lab.try_run("exec", host, "--", "sh", "-c", ends.format(path)).stdout == wanted

    lab.sh(
        "ps1",
        f"for offset in 0 {size // 2**20 - 20}; do dd if=/dev/urandom of={large} bs=1M count=20 seek=$offset conv=notrunc status=none; done",
    )
    wanted = lab.sh("ps1", ends.format(large)) + "\n"
    replicate(lab, [*LIST, {"name": large, "inotify": True, "permissions": "root:root"}])
    eventually(lambda: lab.sh("ps2", HALVES) != "", PATIENCE, "it is on its way")
    lab.sh("ps1", f"echo beside > '{FILE}'; echo beside > {TREE}/a/b")
    for path in (FILE, f"{TREE}/a/b"):
        eventually(lambda path=path: copy_is(lab, path, "beside"), 10, f"{path} is on ps2")
    assert not there(lab, large), "it was there before anything could arrive beside it"
    eventually(lambda: same("ps2", STAGED + large), 600, "it is on ps2 as it is on ps1")
    eventually(lambda: entry(lab, large)["code"] is None and entry(lab, large)["size"] == size, 20, "the status says so")

    lab("power", "off", "ps1")
    eventually(lambda: lab.try_run("exec", "ps2", "--", "ha", "amIactive").stdout.strip() == "1", 30, "ps2 is active")
    lab.sql("ps2", "CREATE TABLE written AS SELECT 1")
    assert not same("ps2", large), "it was in its place before the database could serve"
    eventually(lambda: same("ps2", large), 300, "it is in its place")
    assert lab.sh("ps2", f"cat '{FILE}' {TREE}/a/b").split() == ["beside", "beside"]
    lab("power", "on", "ps1")
    eventually(lambda: settled(lab, "ps2"), 120, "the pair is redundant again")
