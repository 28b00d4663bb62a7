# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What this server perceives of the other one and of the network: who was heard, when, and who serves."""

from __future__ import annotations

import asyncio
import math
import os
from contextlib import suppress
from pathlib import Path

from .keeper import Keeper
from .network import Evidence, Network, reaches
from .peer import PeerLink
from .postgres import serves
from .role import ACTIVE, PASSIVE
from .settings import Settings

# A server that serves answers at its PostgreSQL port within so many seconds.
PORT_DEADLINE = 0.3
# Where a server's kernel says something, if only that nobody is there: SSH and discard.
PORTS = (22, 9)
DEFEND = 1.0
# For so many seconds the carrier must be gone before the active server leaves for it: a port may flap, and where the switch itself
# has died, the other server's word that it has lost its carrier too is on its way.
CARRIER_GONE = 0.2


class Senses:
    """evidence: ping nodes and holders of the virtual IP, looked for only while somebody is silent.

    served_elsewhere: another machine has the virtual IP, and PostgreSQL answers there, or nothing that could tell. tick: seconds between two looks.
    """

    def __init__(self, settings: Settings, network: Network, link: PeerLink, keeper: Keeper, tick: float) -> None:
        self.evidence = Evidence(network)
        self.served_elsewhere = False
        self.tick = tick
        self._settings = settings
        self._network = network
        self._link = link
        self._keeper = keeper
        self._loop = asyncio.get_running_loop()
        self._contact: float | None = None
        self.doubted = False
        self._looking_since: float | None = None
        self._asked = False
        self._saved = 0.0
        self._file: int | None = None
        self._defended = 0.0
        self._service_lost: float | None = None
        self._asking: asyncio.Task[None] | None = None
        self._sees_less_since: float | None = None
        self._claimed = False

    def start(self, contact: Path) -> float | None:
        """Go on from the last contact of an earlier ha_manager of this boot: memory alone would make a restarted one refuse to take over.

        For how many seconds nobody has looked around on this server; None: nobody has since its boot.
        """
        looked = None
        with suppress(OSError, ValueError):
            heard, looked = (float(word) for word in contact.read_text().split())
            self._contact = None if math.isnan(heard) else heard
        # Kept open: it is written with every beat.
        self._file = os.open(contact, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return None if looked is None else max(0.0, self._loop.time() - looked)

    def stop(self) -> None:
        self.evidence.stop()
        if self._asking:
            self._asking.cancel()
        if self._file is not None:
            os.close(self._file)

    def silent(self) -> float | None:
        """Seconds since the other server was heard, by its manager or by its replication; None: not since this boot."""
        if self.doubted:
            return None if self._contact is None else max(0.0, self._loop.time() - self._contact)
        heard = [moment for moment in (self._link.last_heard, self._keeper.stream_seen, self._contact) if moment is not None]
        if not heard:
            return None
        self._contact = max(heard)
        return max(0.0, self._loop.time() - self._contact)

    def peer_present(self) -> bool:
        """Whether the other manager was heard just now: sooner in doubt than the link, which gives a connection three beats."""
        last = self._link.last_heard
        return (
            self._link.connected and last is not None and self._loop.time() - last < max(0.5 * self._settings.times.deadtime, 2 * self.tick)
        )

    def peer_role(self) -> str | None:
        said = (self._link.peer_status or {}).get("role")
        return said if said in (ACTIVE, PASSIVE) else None

    def peer_active(self) -> bool:
        return self.peer_present() and self.peer_role() == ACTIVE

    def pings(self) -> int | None:
        """How many ping nodes answer; None: nobody is asking, or it is too early to tell."""
        if not self.evidence.running or self.evidence.sees is None:
            return None
        return len(self.evidence.seen_nodes())

    def carrier_changed(self, interface: str, carrier: bool) -> None:
        if interface == self._settings.links[0].interface:
            self._service_lost = None if carrier else self._loop.time()

    def service_link(self, gone_for: float = 0.0) -> bool:
        """False once the service link has been without carrier for so many seconds."""
        if self._network.carriers.get(self._settings.links[0].interface, True):
            return True
        return self._service_lost is not None and self._loop.time() - self._service_lost < gone_for

    def sees_less(self) -> float:
        """For how many seconds the other server has seen more ping nodes than this one."""
        return 0.0 if self._sees_less_since is None else self._loop.time() - self._sees_less_since

    def claimed_elsewhere(self) -> bool:
        """Whether the other server has announced that it takes the virtual IP, since it was heard last in any other way."""
        return self._claimed

    def down_here(self) -> list[str]:
        """This server's addresses on interfaces without carrier."""
        return [link.address for link in self._settings.links if not self._network.carriers.get(link.interface, True)]

    def dead_links(self) -> frozenset[str]:
        """The other server's addresses on links that are dead while another one lives; empty if none or all are."""
        theirs = (self._link.peer_status or {}).get("down") or []
        here = self.down_here()
        dead = frozenset(
            link.peer_address
            for link in self._settings.links
            if link.address in here or link.peer_address in theirs or not self._link.links.get(link.peer_address, True)
        )
        return dead if self.peer_present() and len(dead) < len(self._settings.links) else frozenset()

    def doubt(self, contact: float | None) -> None:
        """This server stood still: what it reads now was said before. contact: when the other one was heard, as far as known before."""
        self._contact, self.doubted = contact, True

    def trust(self) -> None:
        """The other server has answered what was asked after that."""
        self.doubted = False

    def looked(self) -> bool:
        """There was time to look for ping nodes and for who has the virtual IP, and for whether a machine that has it serves."""
        if self._looking_since is None or self._loop.time() - self._looking_since <= 0.3 * self._settings.times.deadtime:
            return False
        return self._asked or not self.evidence.held

    def _quiet(self) -> float:
        """For so many seconds the other server may be silent before it is looked for."""
        return max(0.3 * self._settings.times.deadtime, 1.5 * self.tick)

    def next_look(self) -> float:
        """In how many seconds to look again: at the moment when silence begins to mean something, and often until it is known what."""
        silent, deadtime = self.silent(), self._settings.times.deadtime
        if silent is None or silent > 3 * deadtime:
            return self.tick
        return min(self.tick, max(self._quiet() - silent, 0.05 * deadtime, 0.02))

    def look(self, role: str | None, away: bool = False) -> float | None:
        """Look for evidence while the other server is silent, or a link of ours is; send nothing while all is well.

        When the other server was heard last, by the loop's clock. away: this server stood still, and does not know yet what happened
        meanwhile: whoever is started after us must not take it for one that looked around all the time.
        """
        silent, now = self.silent(), self._loop.time()
        links_up = all(self._link.links.values()) and all(self._network.carriers.values())
        calm = silent is not None and silent < self._quiet() and links_up
        if calm:
            self.evidence.stop()
            self._looking_since = self._sees_less_since = None
            self.served_elsewhere = self._asked = False
        # What its replication said last may be older than the announcement.
        self._claimed = self._claimed and not self.peer_present()
        if self._file is not None and not away and now - self._saved >= self.tick:
            self._saved = now
            heard = math.nan if self._contact is None else self._contact
            os.pwrite(self._file, f"{heard:020.6f} {now:020.6f}".encode(), 0)
        if not calm:
            self._look_closer(role, now)
        return self._contact

    def _look_closer(self, role: str | None, now: float) -> None:
        deadtime = self._settings.times.deadtime
        self.evidence.start(max(0.1, 0.1 * deadtime), 0.3 * deadtime)
        if self._looking_since is None:
            self._looking_since = now
        mine, theirs = self.pings(), (self._link.peer_status or {}).get("pings") if self.peer_present() else None
        if mine is None or theirs is None or mine >= theirs:
            self._sees_less_since = None
        elif self._sees_less_since is None:
            self._sees_less_since = now
        if self.evidence.announced and not self._claimed and not self.peer_present():
            # A frozen server's kernel answers for the address as well, but only what is awake announces it.
            self._claimed = self._network.neighbour(self._settings.links[0].peer_address) in self.evidence.announced
        if not self.evidence.held:
            self.served_elsewhere = self._asked = False
        elif role == ACTIVE:
            # A frozen server still answers for the address; the neighbours must hear this one. Who announces it is not frozen.
            if not self._claimed and now - self._defended > DEFEND:
                self._defended = now
                self._network.defend()
        elif self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_who_serves(), name="ask who serves")

    async def _ask_who_serves(self) -> None:
        if self._settings.virtual_ip is not None:
            address, port = str(self._settings.virtual_ip.ip), self._settings.postgresql.port
            served, reached = await asyncio.gather(
                asyncio.to_thread(serves, address, port, PORT_DEADLINE),
                asyncio.to_thread(reaches, address, (port, *PORTS), PORT_DEADLINE),
            )
            # Where nothing but ARP comes through, nobody can tell a frozen server from one that serves.
            self.served_elsewhere = served or not reached
        self._asked = True
