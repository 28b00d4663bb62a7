# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net.namespaces import Network

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which Python and Ansible find this checkout as the collection swg.ha."""
    root = tmp_path_factory.mktemp("collections")
    (root / "ansible_collections" / "swg").mkdir(parents=True)
    (root / "ansible_collections" / "swg" / "ha").symlink_to(CHECKOUT)
    home = tmp_path_factory.mktemp("home")
    return {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "HOME": str(home),
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ANSIBLE_COLLECTIONS_PATH": str(root),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
    }


@pytest.fixture
def network(environment: dict[str, str]) -> Iterator[Network]:
    if os.geteuid() != 0:
        pytest.fail("tests/net needs root, to make network namespaces")
    network = Network(environment)
    try:
        yield network
    finally:
        network.close()
