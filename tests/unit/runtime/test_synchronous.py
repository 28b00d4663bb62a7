# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When commits wait for the passive server, when they go on alone, and what the record says meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swg_ha.synchronous import RECORD_AHEAD, Next, Now, decide

# Synchronous, the passive server there and complete.
STEADY = Now(wanted=True, there=True, waits=True, in_sync=True, complete=True, near=True, left=0.0, conceded=False)
# How long an example takes is the machine's matter.
patiently = settings(deadline=None)
GONE = replace(STEADY, there=False, complete=False)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (STEADY, Next(wait=True, in_sync=True)),
        # It has just come: commits wait at once, and it counts as in sync when it has what was committed before that.
        (replace(STEADY, waits=False, in_sync=False, complete=False), Next(wait=True, in_sync=False)),
        (replace(STEADY, in_sync=False, complete=False), Next(wait=True, in_sync=False)),
        (replace(STEADY, in_sync=False), Next(wait=True, in_sync=True)),
        # After a takeover nothing waits yet: an older word is worth nothing.
        (replace(STEADY, waits=False, complete=False), Next(wait=True, in_sync=False)),
        # It is gone: the record says so before its patience is over, commits go on after that.
        (replace(GONE, left=2.0), Next(wait=True, in_sync=True, look_in=2.0 - RECORD_AHEAD)),
        (replace(GONE, left=RECORD_AHEAD), Next(wait=True, in_sync=False, look_in=RECORD_AHEAD)),
        (replace(GONE, left=0.2, in_sync=False), Next(wait=True, in_sync=False, look_in=0.2)),
        (replace(GONE, in_sync=False, conceded=True), Next(wait=False, in_sync=False)),
        # Its manager is heard, its PostgreSQL does not replicate: only its own word lets commits go on.
        (replace(GONE, in_sync=False), Next(wait=True, in_sync=False)),
        # Asynchronous: nothing waits, and the record tells whether much may be missing.
        (replace(STEADY, wanted=False), Next(wait=False, in_sync=True)),
        (replace(STEADY, wanted=False, near=False), Next(wait=False, in_sync=False)),
        (replace(GONE, wanted=False, left=2.0), Next(wait=False, in_sync=False)),
    ],
)
def test_what_is_to_be(now: Now, expected: Next) -> None:
    assert decide(now) == expected


NOWS = st.builds(
    Now,
    wanted=st.booleans(),
    there=st.booleans(),
    waits=st.booleans(),
    in_sync=st.booleans(),
    complete=st.booleans(),
    near=st.booleans(),
    left=st.just(0.0) | st.floats(0.0, 10.0),
    conceded=st.booleans(),
)


@patiently
@given(NOWS)
def test_no_commit_goes_on_alone_while_the_other_server_may_take_over(now: Now) -> None:
    then = decide(now)
    if now.wanted and now.waits and not then.wait:
        assert not now.there and now.left == 0 and now.conceded and not then.in_sync


@patiently
@given(NOWS)
def test_a_server_that_is_not_there_never_becomes_in_sync(now: Now) -> None:
    if not now.there:
        assert decide(now).in_sync <= now.in_sync


@patiently
@given(NOWS)
def test_what_time_alone_changes_is_looked_at_again(now: Now) -> None:
    then = decide(now)
    if now.wanted and not now.there and now.left:
        assert then.look_in is not None and 0 <= then.look_in <= now.left
