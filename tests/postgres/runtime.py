# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Two real servers that ha_manager's PostgreSQL engine drives, without systemd."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

from swg_ha.postgres import LocalCluster, Postgres
from swg_ha.settings import Limits, Link, Postgresql, Settings, Times
from swg_ha.shared.postgres_cluster import run_command
from tests.postgres.servers import VERSION, Server

MORE_SETTINGS = """
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 500ms
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
include_dir = 'conf.d'
"""


class Child:
    """Starts the server as a child of this program, which takes notice of its end as systemd does."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self.log_file = server.directory / "server.log"
        self.started = 0

    def start(self) -> None:
        self.started += 1
        argv = self._server.cluster.as_owner("postgres", "-D", str(self._server.config))
        # It is to outlive the thread that starts it.
        argv = [word for word in argv if word != "--pdeathsig=KILL"]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(argv, cwd="/", stdout=log, stderr=log)
        threading.Thread(target=self._process.wait, daemon=True).start()

    def stop(self) -> None:
        subprocess.run(["kill", "-INT", str(self._process.pid if self._process else 0)], check=True)

    @property
    def starting(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def explain(self) -> str:
        return f"tail {self.log_file}"


class Node:
    """One server of the pair: ``server`` as any client sees it, ``postgres`` as ha_manager does."""

    def __init__(self, server: Server, peer: Server) -> None:
        self.server = server
        self.child = Child(server)
        self.run_directory = server.directory / "run"
        settings = Settings(
            enabled=True,
            node=server.name,
            peer_node=peer.name,
            default_active="ps1",
            virtual_ip=None,
            peer_port=4589,
            connection_timeout=5,
            heartbeat_interval=1,
            passive_interval=1,
            links=(Link("lo", "127.0.0.1", 8, "127.0.0.1"),),
            postgresql=Postgresql(
                version=VERSION,
                cluster="main",
                data_directory=str(server.data),
                port=server.port,
                user="ha_replication",
                passfile=str(server.passfile),
                slot=f"ha_{server.name}",
                peer_slot=f"ha_{peer.name}",
            ),
            times=Times(keepalive=1, deadtime=5, initdead=10),
            limits=Limits(copy_timeout=60, quarantine_keep=2),
        )
        self.postgres = Postgres(
            settings,
            cluster=LocalCluster(VERSION, "main", run_command, config_directory=server.config, data_directory=server.data),
            service=self.child,
            run_directory=self.run_directory,
            lock_directory=server.directory,
            parameters={
                "host": "127.0.0.1",
                "port": peer.port,
                "user": "ha_replication",
                "passfile": str(server.passfile),
                "sslmode": "disable",
            },
        )
        (server.config / "conf.d").mkdir(exist_ok=True)

    @property
    def allowed(self) -> list[str]:
        """The roles that the cluster's unit may start in."""
        return sorted(path.name for path in self.run_directory.iterdir()) if self.run_directory.is_dir() else []

    def siblings(self) -> list[str]:
        return sorted(path.name for path in self.server.data.parent.iterdir() if path.is_dir())

    def follow(self) -> tuple[str, Path | None]:
        self.phases: list[str] = []
        followed = self.postgres.follow(self.phases.append, threading.Event())
        return followed.what, followed.quarantine
