# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What the steps of a change of role work with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import processes
from ..plan import Skip, StepFailed

if TYPE_CHECKING:
    from ..files import Files
    from ..heartbeat import Heartbeat
    from ..installs import Installs
    from ..network import Network
    from ..peer import PeerLink
    from ..postgres import Postgres
    from ..record import Record, Store
    from ..settings import Settings


@dataclass
class World:
    """The engines, and what is particular to one transition.

    previous: the record before this server claimed to be active. lsn: where the server that handed over stopped, or that
    this one stopped at. mark: sets what this server says of its own role (None: neither). objection: what speaks against serving
    by now, or None.
    """

    settings: Settings
    postgres: Postgres
    network: Network
    heartbeat: Heartbeat
    link: PeerLink
    store: Store
    files: Files
    installs: Installs
    mark: Callable[[str | None], None]
    objection: Callable[[], str | None] = lambda: None
    previous: Record | None = None
    lsn: str | None = None
    forced: bool = False
    dead_links: frozenset[str] = frozenset()
    results: dict[str, Any] = field(default_factory=dict)


async def command(argv: Sequence[str], timeout: float) -> str:
    """Run a configured command to its end. Raises Skip where there is none, or its program is not installed, StepFailed."""
    if not argv:
        raise Skip("no command is configured for it")
    try:
        code, out, err = await processes.finished(argv, timeout)
    except TimeoutError:
        raise StepFailed(f"{argv[0]} did not end within {timeout:g} s, and was killed") from None
    except OSError as error:
        # A script whose interpreter is missing is reported in the same way, and has failed.
        if isinstance(error, FileNotFoundError) and not os.path.exists(argv[0]):
            raise Skip(f"{argv[0]} is not installed") from error
        raise StepFailed(f"{argv[0]}: {error.strerror}") from error
    if code:
        last = (out + err).decode(errors="replace").strip().splitlines()[-1:] or ["it printed nothing"]
        raise StepFailed(f"{argv[0]} exited with {code}: {last[0]}")
    return f"{argv[0]} was run"
