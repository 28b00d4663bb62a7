"""What is in the image. The image's cache key is made from the bytes of this file: a change here builds anew."""

from __future__ import annotations

RELEASES = ("bookworm", "trixie")

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "iproute2",
    "iputils-ping",
    "iputils-arping",
    "openssh-server",
    "openssh-client",
    "python3",
    "python3-apt",
    "python3-psycopg2",
    "python3-cryptography",
    "python3-systemd",
    "sudo",
    "heartbeat",
    "cluster-glue",
    "resource-agents",
    "postgresql",
    "ssl-cert",
    "openssl",
    "nginx-light",
    "systemd-journal-remote",
    "chrony",
    "rsync",
    "procps",
    "tcpdump",
    "nftables",
    "netcat-openbsd",
    "curl",
    "ethtool",
    "acl",
)

# Installed, but started only on hosts whose kind lists them.
OPTIONAL_SERVICES = ("postgresql", "heartbeat", "nginx", "chrony", "rsync", "nftables")

ENABLED_UNITS = ("systemd-networkd.service",)

# Things of a machine with hardware, a console or a network beyond the lab.
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "container-getty@.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "getty@.service",
    "logrotate.timer",
    "systemd-firstboot.service",
    "systemd-modules-load.service",
    "systemd-networkd-wait-online.service",
    "systemd-timesyncd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
)

FILES = {
    # Present and empty: absent would make systemd enable every unit at first boot.
    "etc/machine-id": "",
    "etc/resolv.conf": "# The lab has no name server: see /etc/hosts.\n",
    "etc/ssh/sshd_config.d/lab.conf": (
        "HostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nUseDNS no\n"
    ),
    "etc/fstab": "# Everything is mounted from outside.\n",
}

# Each host gets its own; what only steered the build is not part of the machine.
REMOVED = (
    "etc/ssh/ssh_host_*",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/hostname",
    "var/cache/apt/archives/*.deb",
    "var/log/*.log",
    "var/log/apt/*",
)
