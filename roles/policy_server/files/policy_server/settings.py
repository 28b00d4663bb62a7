# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What the policy server is told, in one file that the playbook writes."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from . import names

FILE = Path("/etc/policyserver/policy_server.json")
Network = ipaddress.IPv4Network


class SettingsError(Exception):
    """The settings cannot be used; the text names the file, the setting, and what would be right."""


@dataclass(frozen=True)
class Settings:
    """device_id: of this server. account: its name in the system and in PostgreSQL, which knows it by its user id.

    sockets, postgresql_port: where PostgreSQL listens. base: the tree that full_replicate writes. clients: the networks that may read
    and write over HTTP, besides this machine itself.
    """

    device_id: str
    account: str
    sockets: str
    postgresql_port: int
    base: Path
    port: int
    clients: tuple[Network, ...]


def load(path: Path = FILE) -> Settings:
    """Read the file. Raises SettingsError."""
    try:
        return parse(json.loads(path.read_bytes()))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}: run the playbook swg.ha.enable_ha") from error
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error


def parse(said: Any) -> Settings:
    """Settings from what JSON says. Raises ValueError."""
    if not isinstance(said, Mapping):
        raise ValueError(f"a JSON object is expected, not {type(said).__name__}")
    known = [field.name for field in fields(Settings)]
    if wrong := sorted(said.keys() ^ set(known)):
        raise ValueError(f"{', '.join(wrong)}: unknown or missing; there are {', '.join(known)}")
    for name in ("device_id", "account", "sockets", "base"):
        if not isinstance(said[name], str) or not said[name]:
            raise ValueError(f"{name} is {said[name]!r}: must be a text")
    for name in ("postgresql_port", "port"):
        # True is a number to Python.
        if not isinstance(said[name], int) or isinstance(said[name], bool) or not 0 < said[name] < 65536:
            raise ValueError(f"{name} is {said[name]!r}: must be a port, from 1 to 65535")
    if problem := names.device_problem(said["device_id"]):
        raise ValueError(f"device_id: {problem}")
    if said["device_id"] == names.GLOBAL:
        raise ValueError(f"device_id is {names.GLOBAL!r}: that is the name of what holds for every device")
    return Settings(**{**said, "base": Path(said["base"]), "clients": tuple(Network(network) for network in said["clients"])})
