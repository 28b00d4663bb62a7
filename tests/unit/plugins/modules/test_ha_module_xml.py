# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.swg.ha.plugins.module_utils import durable, module_xml
from ansible_collections.swg.ha.plugins.modules import ha_module_xml

SERVERS = {"default_active": {"ip": "192.0.2.11", "name": "ps1"}, "default_passive": {"ip": "192.0.2.12", "name": "ps2"}}
DOCUMENT = b"""\
<?xml version='1.0'?>
<!-- kept -->
<module name='HA'>\t<init>
\t\t<ha enabled='1'/>
\t\t<default_active ip='192.0.2.11'/>
\t\t<default_passive ip='192.0.2.12'/>
\t</init>
</module>"""


def written(path):
    """All of a file's state that changes when it is written to; its access time does when it is read."""
    found = path.stat()
    return found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@pytest.fixture
def path(tmp_path):
    return tmp_path / "module.xml"


@pytest.fixture
def run_module(capsys, path):
    """Runs the module with arguments; returns its result, which has failed for a failure."""

    def run(**arguments):
        with patch_module_args({"path": str(path), **arguments}), pytest.raises(SystemExit) as ended:
            ha_module_xml.main()
        result = json.loads(capsys.readouterr().out)
        assert ended.value.code == (1 if result.get("failed") else 0)
        return result

    return run


def test_a_new_file(run_module, path):
    wanted = {
        "enabled": True,
        "virtual_ip": "192.0.2.10",
        **SERVERS,
        "device_uname": {"port": 5223, "timeout": 10},
        "ha_manager": {"port": 4590, "connection_timeout": 5, "heartbeat_cmd_interval": 6, "passive_status_interval": 7},
        "files_to_replicate": [{"name": "/etc/shadow", "inotify": True, "interval": None, "permissions": "root:shadow"}],
    }
    result = run_module(mode="0640", **wanted)
    assert (result["changed"], result["created"], result["settings"]) == (True, True, wanted)
    assert module_xml.as_changes(module_xml.parse(path.read_bytes())) == wanted
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    written = path.stat()
    again = run_module(mode="0640", **wanted)
    assert (again["changed"], again["created"], again["settings"]) == (False, False, wanted)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_a_new_file_without_options_has_the_defaults(run_module, path):
    result = run_module()
    assert result["created"] is True
    assert module_xml.parse(path.read_bytes()) == module_xml.Settings()


def test_check_mode_of_a_new_file_needs_no_directory_and_makes_none(run_module, tmp_path):
    missing = tmp_path / "no" / "such" / "module.xml"
    result = run_module(path=str(missing), enabled=False, owner="root", mode="0600", _ansible_check_mode=True, _ansible_diff=True)
    assert (result["changed"], result["created"]) == (True, True)
    assert result["diff"][0]["before"] == ""
    assert '<ha enabled="0"/>' in result["diff"][0]["after"]
    assert os.listdir(tmp_path) == []


def test_an_edit_with_its_diff(run_module, path):
    path.write_bytes(DOCUMENT)
    result = run_module(enabled=False, _ansible_diff=True)
    expected = DOCUMENT.replace(b"enabled='1'", b"enabled='0'")
    assert path.read_bytes() == expected
    assert result["changed"] is True
    assert result["diff"] == [
        {"before_header": str(path), "after_header": str(path), "before": DOCUMENT.decode(), "after": expected.decode()}
    ]
    assert "backup_file" not in result


def test_check_mode_tells_what_would_be_and_leaves_the_file(run_module, path):
    path.write_bytes(DOCUMENT)
    before = written(path)
    result = run_module(enabled=False, mode="0600", backup=True, _ansible_check_mode=True, _ansible_diff=True)
    assert (result["changed"], result["created"], result["settings"]["enabled"]) == (True, False, False)
    assert [diff["after"] for diff in result["diff"]][1]["mode"] == "0600"
    assert path.read_bytes() == DOCUMENT and written(path) == before
    assert os.listdir(path.parent) == ["module.xml"]


def test_no_options_check_the_file_and_change_nothing(run_module, path):
    path.write_bytes(DOCUMENT)
    before = written(path)
    result = run_module(_ansible_diff=True)
    assert result["changed"] is False
    assert result["settings"]["default_active"] == {"ip": "192.0.2.11", "name": None}
    assert written(path) == before


def test_owner_mode_and_times(run_module, path):
    path.write_bytes(DOCUMENT)
    path.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    run_module(enabled=False)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_mtime_ns > before.st_mtime_ns


@pytest.mark.parametrize("arguments", [{}, {"enabled": False}])
def test_a_mode_that_differs_is_a_change(run_module, path, arguments):
    path.write_bytes(DOCUMENT)
    path.chmod(0o644)
    result = run_module(mode="0600", _ansible_diff=True, **arguments)
    assert result["changed"] is True
    assert result["diff"][1]["after"]["mode"] == "0600"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run_module(mode="0600", **arguments)["changed"] is False


def test_a_backup_is_made_of_a_file_that_changes(run_module, path):
    path.write_bytes(DOCUMENT)
    assert "backup_file" not in run_module(backup=True)
    result = run_module(backup=True, enabled=False)
    assert Path(result["backup_file"]).read_bytes() == DOCUMENT
    assert Path(result["backup_file"]).parent == path.parent


def test_a_symbolic_link_stays_and_its_target_is_edited(run_module, path, tmp_path):
    target = tmp_path / "real" / "target.xml"
    target.parent.mkdir()
    target.write_bytes(DOCUMENT)
    path.symlink_to("real/target.xml")
    result = run_module(enabled=False)
    assert path.is_symlink() and result["path"] == str(target)
    assert b"enabled='0'" in target.read_bytes()


def test_files_mode(run_module, path):
    path.write_bytes(
        module_xml.render(module_xml.Settings(files_to_replicate=(module_xml.ReplicatedFile("/etc/a", True, None, "root:root"),)))
    )
    more = {"name": "/etc/b", "inotify": False, "interval": 60, "permissions": "root:root"}
    merged = run_module(files_mode="merge", files_to_replicate=[more])
    assert [file["name"] for file in merged["settings"]["files_to_replicate"]] == ["/etc/a", "/etc/b"]
    exact = run_module(files_to_replicate=[more])
    assert exact["settings"]["files_to_replicate"] == [more]


@pytest.mark.parametrize(
    ("content", "arguments", "problems"),
    [
        (b"<module", {}, ["line 1: the document is not well-formed XML (unclosed token, in column 1)"]),
        (b"", {}, ["line 1: the document is not well-formed XML (no element found, in column 1)"]),
        (
            b"<!DOCTYPE module><module name='HA'/>",
            {"enabled": False},
            ["line 1: the document has a DOCTYPE: must have none, because it could declare entities"],
        ),
        (
            DOCUMENT,
            {"ha_manager": {"port": 70000}, "virtual_ip": "192.0.2.300"},
            [
                "virtual_ip is '192.0.2.300': must be an IP address, such as 192.0.2.10, or empty for none",
                "ha_manager.port is 70000: must be a port number from 1 to 65535",
            ],
        ),
        (DOCUMENT, {"virtual_ip": "192.0.2.11"}, ["line 7: <virtual_ip> ip is '192.0.2.11': must differ from <default_active> ip"]),
    ],
)
@pytest.mark.parametrize("check_mode", [False, True])
def test_what_is_wrong_is_refused_and_the_file_left(run_module, path, content, arguments, problems, check_mode):
    path.write_bytes(content)
    result = run_module(_ansible_check_mode=check_mode, **arguments)
    assert result["failed"] is True and result["problems"] == problems
    assert result["msg"] == f"{path} was left as it is. " + "; ".join(problems)
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["module.xml"]


def test_a_directory_that_does_not_exist(run_module, tmp_path):
    result = run_module(path=str(tmp_path / "missing" / "module.xml"))
    assert result["msg"].startswith(f"the directory {tmp_path / 'missing'} does not exist: create it first")


def test_a_path_that_is_no_file(run_module, tmp_path):
    assert run_module(path=str(tmp_path))["msg"] == f"{tmp_path} is not a regular file: path must name a file"
    os.mkfifo(tmp_path / "fifo")
    assert "is not a regular file" in run_module(path=str(tmp_path / "fifo"))["msg"]


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "No space left on device"), (errno.EACCES, "Run as a user who may replace it, such as root with become")],
)
def test_a_failure_to_write_leaves_the_file(run_module, path, monkeypatch, number, message):
    path.write_bytes(DOCUMENT)

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    result = run_module(enabled=False)
    assert result["failed"] is True and message in result["msg"]
    assert path.read_bytes() == DOCUMENT
    assert os.listdir(path.parent) == ["module.xml"]


def has_open(process, directory):
    """Whether a process has a directory open; false for one that has ended."""
    descriptors = Path(f"/proc/{process.pid}/fd")
    try:
        return any(os.path.samefile(descriptor, directory) for descriptor in descriptors.iterdir() if descriptor.exists())
    except FileNotFoundError:
        return False


def test_writers_at_once_lose_nothing(path):
    """Each adds a file of its own. All of them wait for the lock, so that without it they would start from the same file."""
    path.write_bytes(module_xml.render(module_xml.Settings()))
    script = (
        "import sys\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "from ansible_collections.swg.ha.plugins.modules import ha_module_xml\n"
        "file = {'name': '/srv/' + sys.argv[2], 'inotify': True, 'permissions': 'root:root'}\n"
        "with patch_module_args({'path': sys.argv[1], 'files_mode': 'merge', 'files_to_replicate': [file]}):\n"
        "    ha_module_xml.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with durable.locked(str(path.parent)):
        writers = [
            subprocess.Popen([sys.executable, "-c", script, str(path), str(number)], env=environment, stdout=subprocess.PIPE)
            for number in range(4)
        ]
        deadline = time.monotonic() + 60
        while not all(has_open(writer, path.parent) for writer in writers):
            assert time.monotonic() < deadline, "not all writers came to wait for the lock"
            time.sleep(0.05)
    assert [json.loads(writer.communicate(timeout=60)[0])["changed"] for writer in writers] == [True] * 4
    names = {file.name for file in module_xml.parse(path.read_bytes()).files_to_replicate}
    assert names == {f"/srv/{number}" for number in range(4)}


def test_the_documentation_has_the_options_and_the_defaults():
    options = yaml.safe_load(ha_module_xml.DOCUMENTATION)["options"]
    assert options.keys() == ha_module_xml.ARGUMENT_SPEC.keys()
    defaults = module_xml.as_changes(module_xml.Settings())
    for section in ("device_uname", "ha_manager"):
        for name, default in defaults[section].items():
            assert f"default is {default}." in str(options[section]["suboptions"][name]["description"])
    assert set(ha_module_xml.FIELDS) == defaults.keys()
