# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Which account files are refused, because they would lock everybody out."""

from __future__ import annotations

import pytest

from swg_ha.logins import GROUP, GSHADOW, PASSWD, SHADOW, Refused, check

HASH = "$y$j9T$salt$abcdefghijklmnop"
PASSWD_HERE = b"""\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
postgres:x:101:104:PostgreSQL:/var/lib/postgresql:/bin/bash
hacluster:x:102:105::/var/lib/heartbeat:/usr/sbin/nologin
ha_peer:x:103:106::/var/lib/ha_peer:/bin/sh
admin:x:1000:1000:Admin:/home/admin:/bin/bash
"""
SHADOW_HERE = f"""\
root:{HASH}:19000:0:99999:7:::
daemon:*:19000:0:99999:7:::
admin:{HASH}:19000:0:99999:7:::
""".encode()
GROUP_HERE = b"root:x:0:\nshadow:x:42:\npostgres:x:104:\nhaclient:x:105:\nssl-cert:x:107:postgres\n"
GSHADOW_HERE = b"root:*::\nshadow:*::\n"
HERE = {PASSWD: PASSWD_HERE, SHADOW: SHADOW_HERE, GROUP: GROUP_HERE, GSHADOW: GSHADOW_HERE}


@pytest.mark.parametrize("path", HERE)
def test_what_is_here_may_be_installed_again(path: str) -> None:
    check(path, HERE[path], HERE)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (PASSWD, b"/home/admin:/bin/bash", b"/home/admin:/bin/bash\nnew.one:x:1001:1001::/home/new:/bin/sh"),
        (PASSWD, b"root:/bin/bash", b"root:"),
        (SHADOW, HASH.encode(), b"$6$other$abcdefghijklmnopqrst"),
        (SHADOW, f"admin:{HASH}".encode(), b"admin:!"),
        (GROUP, b"shadow:x:42:", b"shadow:x:42:admin,www-data"),
        (GSHADOW, b"root:*::", b"root:*::admin"),
    ],
)
def test_changes_that_lock_nobody_out_are_fine(path: str, old: bytes, new: bytes) -> None:
    check(path, HERE[path].replace(old, new), HERE)


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        (SHADOW, b"", "it is empty"),
        (SHADOW, SHADOW_HERE[:-1], "its last line is cut off"),
        (SHADOW, SHADOW_HERE + b"\n", "line 4 has 1 fields instead of 9"),
        (SHADOW, b"rubbish\n" + SHADOW_HERE, "line 1 has 1 fields instead of 9"),
        (SHADOW, SHADOW_HERE + b"admin:*:1::::::\n", "admin is there twice"),
        (SHADOW, SHADOW_HERE.replace(b"root:", b"toor:"), "root is missing"),
        (SHADOW, SHADOW_HERE.replace(HASH.encode(), b"!"), "no account in it could log in with a password"),
        (SHADOW, SHADOW_HERE.replace(HASH.encode(), b"!" + HASH.encode()), "no account in it could log in with a password"),
        (SHADOW, SHADOW_HERE.replace(b":7:::", b":7::1:"), "no account in it could log in with a password"),
        (SHADOW, SHADOW_HERE.replace(b"daemon", b"dae\0mon"), "line 2 is malformed"),
        (SHADOW, SHADOW_HERE.replace(b"daemon", b""), "line 2 is malformed"),
        (PASSWD, PASSWD_HERE.replace(b":/bin/bash", b""), "line 1 has 6 fields instead of 7"),
        (PASSWD, PASSWD_HERE.replace(b"root:x:0:", b"root:x:1:"), "root is missing, or is not number 0"),
        (PASSWD, PASSWD_HERE.replace(b"root:x:0:0:root:/root:/bin/bash\n", b""), "no account of uid 0|root is missing"),
        (PASSWD, PASSWD_HERE.replace(b"root:/bin/bash", b"root:/usr/sbin/nologin"), "no account of uid 0 has a shell"),
        (PASSWD, PASSWD_HERE.replace(b"postgres:", b"postgres2:"), "postgres is missing, which this server needs"),
        (PASSWD, PASSWD_HERE.replace(b"hacluster:", b"heartbeat:"), "hacluster is missing"),
        (PASSWD, PASSWD_HERE.replace(b"ha_peer:", b"peer:"), "ha_peer is missing"),
        (PASSWD, PASSWD_HERE.replace(b"x:101:104", b"x:110:104"), "postgres has the number 110, and here it has 101"),
        (PASSWD, PASSWD_HERE.replace(b"x:101:104", b"x:101:110"), "postgres has the number 110, and here it has 104"),
        (PASSWD, PASSWD_HERE.replace(b"admin:x:1000", b"admin:x:many"), "the numbers of admin are malformed"),
        (PASSWD, PASSWD_HERE + b"daemon:x:1:1::/:/bin/sh\n", "daemon is there twice"),
        (GROUP, GROUP_HERE.replace(b"haclient:x:105:", b"haclient:x:999:"), "haclient has the number 999, and here it has 105"),
        (GROUP, GROUP_HERE.replace(b"shadow:x:42:\n", b""), "shadow is missing"),
        (GROUP, GROUP_HERE.replace(b"root:x:0:\n", b""), "root is missing"),
        (GROUP, GROUP_HERE.replace(b":42:", b":42"), "line 2 has 3 fields instead of 4"),
        (GSHADOW, GSHADOW_HERE.replace(b"root", b"r"), "root is missing"),
    ],
)
def test_what_would_lock_everybody_out_is_refused(path: str, content: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        check(path, content, HERE)
    assert HASH not in str(refused.value)


def test_where_nobody_could_log_in_with_a_password_nobody_needs_to() -> None:
    locked = SHADOW_HERE.replace(HASH.encode(), b"!")
    check(SHADOW, locked, {**HERE, SHADOW: locked})


def test_a_new_shadow_is_judged_by_the_new_accounts() -> None:
    new = SHADOW_HERE.replace(b"root:" + HASH.encode(), b"root:*").replace(b"admin:", b"boss:")
    with pytest.raises(Refused, match="no account in it could log in"):
        check(SHADOW, new, HERE)
    check(SHADOW, new, {**HERE, PASSWD: PASSWD_HERE.replace(b"admin:", b"boss:")})


def test_a_present_file_that_is_broken_keeps_no_good_one_out() -> None:
    check(SHADOW, SHADOW_HERE, {**HERE, SHADOW: b"half a li"})
    check(PASSWD, PASSWD_HERE, {**HERE, PASSWD: b""})
