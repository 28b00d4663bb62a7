"""What the lab needs of the machine, as Debian packages."""

from __future__ import annotations

import os
import shutil
import subprocess

from .errors import LabError

# command -> Debian package
COMMANDS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "mount": "mount",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def missing() -> list[str]:
    """The Debian packages that are missing on this machine."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    packages = {package for command, package in COMMANDS.items() if not shutil.which(command, path=path)}
    if not os.path.exists(KEYRING):
        packages.add("debian-archive-keyring")
    return sorted(packages)


def require() -> None:
    if packages := missing():
        raise LabError(f"this machine lacks {', '.join(packages)}: run 'bin/lab requirements --install'")


def install() -> None:
    packages = missing()
    if not packages:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    for argv in ([*apt, "update"], [*apt, "install", "-y", "--no-install-recommends", *packages]):
        if subprocess.run(argv, env=environment).returncode != 0:
            raise LabError(f"'{' '.join(argv)}' failed: see its messages above")
