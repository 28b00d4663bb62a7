# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Whether a new /etc/passwd, /etc/shadow, /etc/group or /etc/gshadow would lock everybody out, or stop what this server lives from.

Pure. No text tells what is in a line, but for the name of an account: hashes are secrets.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

PASSWD, GROUP, SHADOW, GSHADOW = "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"
# In the order in which they are judged: the later ones by those before.
GUARDED = (PASSWD, GROUP, SHADOW, GSHADOW)
LARGEST = 16 << 20
# Who owns what must go on, where they are there: PostgreSQL, Heartbeat, the account of the other server.
ACCOUNTS = ("postgres", "hacluster", "ha_peer")
GROUPS = ("postgres", "haclient", "ha_peer", "ssl-cert", "shadow")

_FIELDS = {PASSWD: 7, GROUP: 4, SHADOW: 9, GSHADOW: 4}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?")
_NO_LOGIN = ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false")

Table = dict[str, list[str]]


class Refused(Exception):
    """A file that must not be installed; the text says why."""


def table(path: str, content: bytes) -> Table:
    """The lines of one of the files, by their names. Raises Refused."""
    if not content:
        raise Refused("it is empty")
    if not content.endswith(b"\n"):
        raise Refused("its last line is cut off")
    found: Table = {}
    for number, line in enumerate(content.decode(errors="surrogateescape")[:-1].split("\n"), 1):
        fields = line.split(":")
        if len(fields) != _FIELDS[path]:
            raise Refused(f"line {number} has {len(fields)} fields instead of {_FIELDS[path]}")
        if not _NAME.fullmatch(fields[0]) or any(letter < " " for letter in line):
            raise Refused(f"line {number} is malformed")
        if fields[0] in found:
            raise Refused(f"{fields[0]} is there twice")
        found[fields[0]] = fields
    return found


def check(path: str, new: bytes, present: Mapping[str, bytes]) -> None:
    """Whether a new one of the files may take the place of the present one, among the present others. Raises Refused."""
    lines, before = table(path, new), _readable(path, present)
    if path in (PASSWD, GROUP):
        _check_numbers(path, lines, before)
    if path == PASSWD and not any(fields[2] == "0" and _has_shell(fields) for fields in lines.values()):
        raise Refused("no account of uid 0 has a shell")
    if path in (SHADOW, GSHADOW) and "root" in before and "root" not in lines:
        raise Refused("root is missing")
    if path in (PASSWD, SHADOW):
        others = {name: _readable(name, present) for name in (PASSWD, SHADOW)}
        if _can_log_in(others[PASSWD], others[SHADOW]) and not _can_log_in(**_named({**others, path: lines})):
            raise Refused("no account in it could log in with a password, and in the present one some can")


def _named(tables: Mapping[str, Table]) -> dict[str, Table]:
    return {"accounts": tables[PASSWD], "secrets": tables[SHADOW]}


def _readable(path: str, present: Mapping[str, bytes]) -> Table:
    """What is there now; a present file that is broken speaks for no one."""
    try:
        return table(path, present.get(path, b""))
    except Refused:
        return {}


def _check_numbers(path: str, lines: Table, before: Table) -> None:
    for name, fields in lines.items():
        if not all(re.fullmatch("[0-9]{1,10}", number) for number in (fields[2:4] if path == PASSWD else fields[2:3])):
            raise Refused(f"the numbers of {name} are malformed")
    if "root" not in lines or lines["root"][2] != "0":
        raise Refused("root is missing, or is not number 0")
    for name in ACCOUNTS if path == PASSWD else GROUPS:
        if name not in before:
            continue
        if name not in lines:
            raise Refused(f"{name} is missing, which this server needs")
        # What it owns here it would not own any more.
        for now, then in zip(lines[name][2:4], before[name][2:4], strict=True) if path == PASSWD else [(lines[name][2], before[name][2])]:
            if now != then:
                raise Refused(f"{name} has the number {now}, and here it has {then}: give it the same number on both servers")


def _can_log_in(accounts: Table, secrets: Table) -> bool:
    """Whether there is an account with a shell and a password that is neither locked nor out of date."""
    today = time.time() / 86400
    for name, fields in secrets.items():
        expires = fields[7]
        usable = len(fields[1]) >= 13 and fields[1][0] not in "!*" and not (expires.isdigit() and int(expires) <= today)
        if usable and name in accounts and _has_shell(accounts[name]):
            return True
    return False


def _has_shell(fields: list[str]) -> bool:
    return fields[6] not in _NO_LOGIN
