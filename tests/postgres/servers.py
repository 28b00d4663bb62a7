# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Real PostgreSQL clusters in a temporary directory, laid out as on Debian: configuration and data apart."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.swg.ha.plugins.module_utils.postgres import PostgresError
from ansible_collections.swg.ha.plugins.module_utils.postgres_cluster import Cluster, run_command, wait_until
from ansible_collections.swg.ha.plugins.module_utils.postgres_primary import CONNECTION_DEFAULTS, Primary
from ansible_collections.swg.ha.plugins.module_utils.postgres_replica import Progress, Replica, Wanted

VERSION = "15"
SEGMENT_SIZE = 4 << 20
PASSWORD = "correct horse battery staple"
SETTINGS = """
fsync = off
recovery_init_sync_method = syncfs
autovacuum = off
shared_buffers = 16MB
# In the data directory, which a test removes: a killed server leaves it behind.
dynamic_shared_memory_type = mmap
wal_level = replica
wal_log_hints = on
wal_keep_size = 32MB
min_wal_size = 8MB
max_wal_size = 32MB
max_replication_slots = 5
hot_standby = on
listen_addresses = '127.0.0.1'
"""
HBA = """
local all postgres trust
host replication,postgres ha_replication 127.0.0.1/32 scram-sha-256
"""
# What role postgres_streaming does on the primary.
GRANTS = f"""
SET password_encryption = 'scram-sha-256';
CREATE ROLE ha_replication LOGIN REPLICATION PASSWORD '{PASSWORD}';
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text),
  pg_read_binary_file(text, bigint, bigint, boolean) TO ha_replication;
"""


def owned(path: Path) -> Path:
    shutil.chown(path, "postgres", "postgres")
    return path


def owned_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return owned(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PgCtl:
    """Starts and stops without Debian's tools, as this machine may have no systemd."""

    def __init__(self, cluster: Cluster, log_file: Path) -> None:
        self.cluster = cluster
        self.log_file = log_file
        self._began = 0.0

    def _do(self, *arguments: str) -> None:
        self.cluster.program("pg_ctl", "-D", str(self.cluster.config_directory), "-w", "-t", "30", *arguments, timeout=40)

    def start(self) -> None:
        # A standby that lacks WAL never accepts connections: pg_ctl waits in vain, the server runs all the same.
        self._began = time.monotonic()
        self._do("-W", "-l", str(self.log_file), "start")

    def stop(self) -> None:
        self._do("-m", "fast", "stop")

    @property
    def starting(self) -> bool:
        return time.monotonic() < self._began + 15

    @property
    def explain(self) -> str:
        return f"tail {self.log_file}"


@dataclass
class Server:
    """One cluster below ``root``."""

    root: Path
    name: str
    settings: str = ""
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.directory = self.root / self.name
        self.config = self.directory / "etc"
        self.data = self.directory / "lib" / "main"
        for path in (self.directory, self.config, self.data.parent):
            path.mkdir()
            owned(path)
        self.cluster = Cluster(VERSION, "main", run_command, config_directory=self.config)
        self.service = PgCtl(self.cluster, self.directory / "server.log")
        text = f"{SETTINGS}{self.settings}\nport = {self.port}\ndata_directory = '{self.data}'\n"
        text += f"unix_socket_directories = '{self.directory}'\n"
        owned(self.write(self.config / "postgresql.conf", text))
        owned(self.write(self.config / "pg_hba.conf", HBA))
        owned(self.write(self.config / "pg_ident.conf", ""))
        self.passfile = self.directory / "pgpass"
        self.password(PASSWORD)

    @staticmethod
    def write(path: Path, text: str) -> Path:
        path.write_text(text)
        return path

    def password(self, password: str) -> None:
        self.write(self.passfile, f"*:*:*:ha_replication:{password}\n")
        self.passfile.chmod(0o600)
        owned(self.passfile)

    def clone(self, image: Path) -> Server:
        """Take the data directory from an image, as a machine that was set up from it."""
        subprocess.run(["cp", "-a", str(image), str(self.data)], check=True)
        return self

    def start(self) -> Server:
        self.service.start()
        self.wait("SELECT true")
        return self

    def stop(self, mode: str = "fast") -> None:
        self.cluster.program("pg_ctl", "-D", str(self.config), "-w", "-m", mode, "stop")

    def crash(self) -> None:
        """As a power cut: no checkpoint, nothing said to anybody."""
        self.stop("immediate")

    def sql(self, statement: str, database: str = "postgres") -> str:
        target = f"host={self.directory} port={self.port} user=postgres dbname={database}"
        return self.cluster.program("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", target, input=statement).strip()

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Until the statement answers ``t``."""

        def holds() -> bool:
            try:
                return self.sql(condition) == "t"
            except PostgresError:
                return False

        if not wait_until(holds, seconds):
            raise AssertionError(f"{self.name}: not within {seconds} s: {condition}\n{self.log()}")

    def log(self) -> str:
        return self.service.log_file.read_text()[-3000:] if self.service.log_file.exists() else "(no log)"

    def introduce(self) -> Server:
        self.sql(GRANTS)
        return self

    def promote(self) -> None:
        self.sql("SELECT pg_promote(true, 30)")
        self.sql("CHECKPOINT")

    def replica_of(
        self,
        *primaries: Server,
        method: str = "auto",
        timeout: float = 120,
        max_rate: int = 0,
        slot: str | None = None,
        parameters: dict[str, object] | None = None,
    ) -> Replica:
        """The work of making this server a standby."""
        found: dict[str, object] = {
            "host": ",".join("127.0.0.1" for _ in primaries),
            "port": ",".join(str(primary.port) for primary in primaries),
            "user": "ha_replication",
            "passfile": str(self.passfile),
            "sslmode": "disable",
            "application_name": self.name,
            **CONNECTION_DEFAULTS,
            **(parameters or {}),
        }
        return Replica(
            Cluster(VERSION, "main", run_command, config_directory=self.config),
            Primary(self.cluster, found, slot or self.name),
            Wanted(self.name, max_rate, "none" if max_rate else "lz4", method, timeout),
            self.service,
            Progress(self.directory / "progress.json", lambda text: None),
            self.directory / "pg_replica.lock",
        )

    def kill(self) -> None:
        """Whatever is left of it at the end of a test."""
        if (self.data / "postmaster.pid").exists() and self.cluster.running:
            self.stop("immediate")


def usable() -> str | None:
    """Why real clusters cannot be run here; None if they can."""
    if os.geteuid() != 0:
        return "root is needed, to become user postgres"
    if not Path(f"/usr/lib/postgresql/{VERSION}/bin/postgres").exists():
        return f"PostgreSQL {VERSION} is not installed (apt-get install postgresql-{VERSION})"
    return None
