# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""How times, sizes and sentences look on a terminal of 80 columns."""

from __future__ import annotations

import textwrap

WIDTH = 79


def plain(text: str) -> str:
    """The text without anything that a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def one_line(error: BaseException) -> str:
    """What an exception says, or what it is called where it says nothing."""
    return (" ".join(str(error).split()) or type(error).__name__)[:500]


def wrap(text: str, first: str = "", other: str = "") -> list[str]:
    """Lines of at most 79 columns, plain; first and other are put before the first one and the others."""
    return textwrap.wrap(plain(text), WIDTH, initial_indent=first, subsequent_indent=other, break_on_hyphens=False) or [first.rstrip()]


def moment(iso: object) -> str:
    """A time for people, to the second: 2026-01-31 23:59:59 UTC."""
    text = str(iso or "")
    date, separator, time = text.partition("T")
    return plain(f"{date} {time[:8]} UTC" if separator else text or "?")[:WIDTH]


def size(count: float) -> str:
    """A number of bytes for people."""
    if abs(count) < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if abs(count) < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"
