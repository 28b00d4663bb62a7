# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""TLS between the two servers: this one's key and certificate, and the one certificate that is the other's."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from .text import one_line

# The pin says exactly which certificate it must be. Its dates would only let a wrong clock part the pair.
NO_CHECK_TIME = ssl.VerifyFlags(0x200000)


class Trust:
    """The folder of the keys, read again whenever one of its files has changed."""

    def __init__(self, folder: Path, server_side: bool) -> None:
        self.folder = folder
        self._key, self._certificate, self._peer = self._files = tuple(str(folder / name) for name in ("tls.key", "tls.crt", "peer.crt"))
        self._server_side = server_side
        self._seen: list[tuple[int, int, int]] = []
        self.context: ssl.SSLContext | None = None
        self.pin = b""
        self.problem: str | None = None

    def refresh(self) -> None:
        """Take over what has changed. What cannot be read, as between two files' writing, leaves the former in use."""
        try:
            seen = [(state.st_ino, state.st_ctime_ns, state.st_size) for state in map(os.stat, self._files)]
            if seen == self._seen and self.problem is None:
                return
            text = Path(self._peer).read_text("ascii")
            pin = ssl.PEM_cert_to_DER_cert(text[text.index(ssl.PEM_HEADER) : text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)])
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if self._server_side else ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_REQUIRED
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
            context.verify_flags |= NO_CHECK_TIME
            if self._server_side:
                context.num_tickets = 0
            context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
            context.load_cert_chain(self._certificate, self._key)
            context.load_verify_locations(cafile=self._peer)
        except (OSError, ValueError) as error:
            self.problem = (
                f"cannot use tls.key, tls.crt and peer.crt in {self.folder}: {one_line(error)}. "
                "Run the playbook enable_ha again: it makes them and introduces the servers to each other"
            )
            return
        self._seen, self.context, self.pin, self.problem = seen, context, pin, None
