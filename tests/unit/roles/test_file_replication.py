# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the other server's key may run: the program as the role renders it, with the real rrsync and rsync."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tools.environment import ROOT

TEMPLATE = ROOT / "roles/file_replication/templates/usr/lib/swg_ha/ha_receive.j2"
OPTIONS = "-logtprRe.iLsfxCIvu --timeout=20 --delete --numeric-ids --temp-dir /.incoming --fake-super"


class Account:
    """The account of the other server: its program, which takes this server for passive where the marker is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.landing = folder / "landing"
        for name in ("landing/ha/.incoming", "landing/.incoming", "outside", "src"):
            (folder / name).mkdir(parents=True)
        self.marker = folder / "passive"
        self.marker.touch()
        variables = {"ansible_managed": "managed", "file_replication_landing_directory": str(self.landing)}
        text = Templar(DataLoader(), variables=variables).template(trust_as_template(TEMPLATE.read_text()))
        self.program = folder / "ha_receive"
        self.program.write_text(text.replace("/etc/ha_manager/passive", str(self.marker)))
        self.program.chmod(0o755)
        self.shell = folder / "shell"
        self.shell.write_text(f'#!/bin/sh\nshift\nSSH_ORIGINAL_COMMAND="$*" exec {self.program}\n')
        self.shell.chmod(0o755)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SSH_ORIGINAL_COMMAND": command}
        return subprocess.run([str(self.program)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)

    def rsync(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["rsync", f"--rsh={self.shell}", *arguments], capture_output=True, text=True, timeout=20)


@pytest.fixture
def account(tmp_path: Path) -> Account:
    made = Account(tmp_path)
    (tmp_path / "src/file").write_text("content")
    (tmp_path / "src/link").symlink_to(tmp_path / "outside")
    return made


def test_a_copy_is_let_in_while_this_server_is_passive(account: Account) -> None:
    copy = ("-rlptgoR", "--numeric-ids", "--temp-dir=/.incoming", "-M--fake-super", f"{account.folder}/src/", "x:ha/")
    done = account.rsync(*copy)
    assert done.returncode == 0, done.stderr
    copied = account.landing / "ha" / str(account.folder / "src").lstrip("/")
    assert (copied / "file").read_text() == "content"
    assert not (copied / "link").is_symlink() and (copied / "link").read_text() == str(account.folder / "outside")
    account.marker.unlink()
    done = account.rsync(*copy)
    assert done.returncode != 0 and "not passive" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "",
        "id",
        "cat /etc/passwd",
        "rsync --server -e.x . ha/",
        f"rsync --server --sender {OPTIONS} . ha/",
        f"rsync --server {OPTIONS} --super . ha/",
        f"rsync --server {OPTIONS} . ../outside/",
        f"rsync --server {OPTIONS} --log-file=../outside/log . ha/",
        "rsync --server -re.x . --fake-super ha/",
        "rsync --server -re.x --backup-dir=a\\ --fake-super . ha/",
        "rsync --server -re.x\t--fake-super . ha/",
        f"rsync --server {OPTIONS} -L . ha/",
        "rsync --server -logDtpre.iLsfxCIvu --suffix --fake-super . ha/",
        "rsync --server -logDtpre.iLsfxCIvu --temp-dir --fake-super . ha/",
        "rsync --server -logDtpre.iLsfxCIvu -T --fake-super . ha/",
        "rsync --server -logDtpre.iLsfxCIvu\t--temp-dir --fake-super . ha/",
        "rsync --server -logDtpre.iLsfxCIvu --backup-dir='a --fake-super b' . ha/",
        f"rsync --server {OPTIONS} --daemon . ha/",
        f"rsync --server {OPTIONS}; id",
        f"rsync --server {OPTIONS} . ha/\nid",
        f"sh -c id rsync --server {OPTIONS} . ha/",
        f"rsync --server {OPTIONS} --copy-devices . ha/",
    ],
)
def test_nothing_else_is(account: Account, command: str) -> None:
    done = account.run(command)
    assert done.returncode != 0, done.stdout
    assert "uid=" not in done.stdout and "root:" not in done.stdout
    assert not any((account.folder / "outside").iterdir())


@pytest.mark.parametrize("target", ["../outside/", "/../outside/", "ha/../../outside/", "ha/gone/../../../outside/"])
def test_nothing_is_written_outside(account: Account, target: str) -> None:
    account.rsync("-rl", "-M--fake-super", f"{account.folder}/src/file", f"x:{target}")
    assert not any((account.folder / "outside").iterdir())


def test_nothing_is_written_through_a_link(account: Account) -> None:
    """Neither through one that the other server makes, nor through one that is there."""
    account.rsync("-l", f"{account.folder}/src/link", "x:ha/")
    assert not (account.landing / "ha/link").is_symlink()
    (account.landing / "ha/bad").symlink_to(account.folder / "outside")
    account.rsync("-r", "-M--fake-super", f"{account.folder}/src/file", "x:ha/bad/")
    assert not any((account.folder / "outside").iterdir())


def test_nothing_is_read(account: Account) -> None:
    (account.landing / "ha/secret").write_text("secret")
    done = account.rsync("-M--fake-super", "x:ha/secret", f"{account.folder}/outside/")
    assert done.returncode != 0
    assert not any((account.folder / "outside").iterdir())
