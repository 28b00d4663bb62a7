# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The graphs: which steps make a server active or passive, each after what it needs."""

from __future__ import annotations

from ..plan import Step
from . import (
    address,
    catch_up,
    checkpoint,
    claim,
    conf_ready,
    epoch,
    files,
    hand_over,
    heartbeat_group,
    manager,
    marker,
    policy_server,
    promote,
    release_address,
    replication,
    staged_files,
    stop_database,
    stream,
)
from .world import World

Graph = tuple[Step[World], ...]

BECOME_ACTIVE: Graph = (
    claim.STEP,
    catch_up.STEP,
    promote.STEP,
    epoch.STEP,
    address.STEP,
    marker.ACTIVE,
    heartbeat_group.STEP,
    conf_ready.STEP,
    staged_files.STEP,
    manager.ACTIVE,
    policy_server.START,
    policy_server.ACTIVE_REQUEST_CLI,
    policy_server.FULL_REPLICATE,
    replication.STEP,
    files.START,
)

# What comes last where the service just has to end here.
_AFTER = (marker.PASSIVE, manager.PASSIVE, policy_server.STOP)

FENCE: Graph = (files.STOP, release_address.FENCE, stop_database.STEP, *_AFTER)
# The disk hangs: what is committed is at the other server or lost, and waiting for this one helps nobody.
ABANDON: Graph = (files.STOP, release_address.FENCE, stop_database.ABANDON, hand_over.ABANDON, *_AFTER)
# Something is wrong here, and the other server is better off: what is not over in time is not waited for.
HAND_OVER: Graph = (
    files.FINISH,
    checkpoint.STEP,
    stream.STEP,
    release_address.HAND_OVER,
    stop_database.STEP,
    hand_over.STEP,
    *_AFTER,
)
# An operator asked for it: what has changed is copied first, and where anything is not as it should be, this server goes on.
PLANNED: Graph = (
    files.FINISH,
    checkpoint.STEP,
    stream.STEP,
    release_address.PLANNED,
    stop_database.PLANNED,
    hand_over.STEP,
    *_AFTER,
)
