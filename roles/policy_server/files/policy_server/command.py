# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What the commands have in common: settings, one line for an error, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable

from .database import DatabaseError, Standby
from .settings import Settings, SettingsError, load

FAILED, WRONG_USAGE, NOT_ACTIVE = 1, 2, 3

USAGE = """\
usage: {name}

{purpose}

Exit status: 0 done, or nothing was to be done; 1 failed, with one line that
says why; 2 wrong usage; 3 refused, as this server is not the active one.
"""


def run(name: str, work: Callable[[Settings], str], purpose: str) -> int:
    """Run a command without arguments, print what it says, and return its exit status."""
    arguments = sys.argv[1:]
    if arguments:
        asked = arguments in (["--help"], ["-h"])
        print(USAGE.format(name=name, purpose=purpose), end="", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else WRONG_USAGE
    try:
        said = work(load())
    except Standby as error:
        print(f"{name}: {error}", file=sys.stderr)
        return NOT_ACTIVE
    except (DatabaseError, SettingsError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return FAILED
    if said:
        print(said)
    return 0
