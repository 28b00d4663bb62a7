# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A dry run on servers that have none of the packages yet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system.pair import SERVERS, Lab, playbook

PACKAGES = ("heartbeat", "chrony", "postgresql-15")
PURGE = """
export DEBIAN_FRONTEND=noninteractive
apt-get purge --yes --quiet heartbeat chrony 'postgresql*' >/dev/null
apt-get autoremove --purge --yes --quiet >/dev/null
"""


@pytest.mark.long
def test_a_dry_run_foretells_the_packages_and_changes_nothing(bare: Lab, inventory: Path) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: bare.sh(host, PURGE, timeout=180), SERVERS))
    before = {host: bare.fingerprint(host) for host in SERVERS}
    assert not any(f"p {package}" in found for found in before.values() for package in PACKAGES)
    foretold = playbook("enable_ha", inventory, check=True)
    for task in ("Install Heartbeat", "Install chrony", "Install PostgreSQL"):
        for host in SERVERS:
            assert any(change.startswith(f"{host}: ") and change.endswith(task) for change in foretold.changes()), task
    assert {host: bare.fingerprint(host) for host in SERVERS} == before
