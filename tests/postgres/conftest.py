# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres.servers import SEGMENT_SIZE, VERSION, Server, owned, usable

# What the tests wait for is PostgreSQL, not a disk that others use as well.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@pytest.fixture(scope="session")
def image() -> Iterator[Path]:
    """A data directory as a machine image has it: made once, so that all its clones have one system identifier."""
    why_not = usable()
    if why_not:
        pytest.fail(f"tests/postgres: {why_not}")
    root = owned(Path(tempfile.mkdtemp(prefix="pg-replica-image-", dir=MEMORY)))
    data = root / "main"
    argv = [
        f"/usr/lib/postgresql/{VERSION}/bin/initdb",
        "--no-sync",
        "--auth=trust",
        f"--wal-segsize={SEGMENT_SIZE >> 20}",
        "--pgdata",
        str(data),
    ]
    subprocess.run(
        ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *argv], check=True, cwd="/", stdout=subprocess.DEVNULL
    )
    yield data
    shutil.rmtree(root)


@pytest.fixture
def server(image: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers; all are stopped and removed at the end."""
    root = owned(Path(tempfile.mkdtemp(prefix="pg-replica-", dir=MEMORY)))
    made: list[Server] = []

    def make(name: str, *, data: bool = True, settings: str = "") -> Server:
        found = Server(root, name, settings)
        made.append(found)
        return found.clone(image) if data else found

    yield make
    for each in made:
        each.kill()
    shutil.rmtree(root)


@pytest.fixture
def primary(server: Callable[..., Server]) -> Server:
    """A running primary that lets a standby in."""
    return server("ps1").start().introduce()
