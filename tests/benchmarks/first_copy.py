"""How long the first copy of a database takes, against the same bytes by tar over the same link."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.bench import Bench, Lab, NotMeasured, load
from tests.benchmarks.controller import Controller, results
from tests.benchmarks.sheet import Figure
from tools.environment import ROOT
from tools.steps import end_group

TAR = Figure("first copy of 1.5 GB: tar", "s")
COPIED = Figure("first copy of 1.5 GB: pg_replica, until it streams", "s")
RATIO = Figure("first copy of 1.5 GB: pg_replica / tar", "ratio", 1.5)

PLAYBOOK = Path(__file__).with_name("first_copy.yml")
DATABASE_BYTES = 1_500_000_000
# 7 rows of 1000 random bytes fill a page of 8192 bytes.
ROWS = 1_290_000
PORT = 5999
ADDRESS = "192.0.2.12"
CLUSTER = "read -r version cluster _ _ _ data _ < <(pg_lsclusters --no-header)"

LOAD = f"""
cd /
psql() {{ runuser -u postgres -- psql -X --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1 "$@"; }}
psql --command='CREATE DATABASE bench'
psql --dbname=bench --command='CREATE EXTENSION pgcrypto' \\
    --command='CREATE TABLE noise AS SELECT i, gen_random_bytes(1000) AS bytes FROM generate_series(1, {ROWS}) AS i' \\
    --command='VACUUM ANALYZE noise'
psql --command="SELECT pg_database_size('bench')"
"""

# Both copies start from the same point: nothing of an earlier one, nothing left to be written.
CLEAR = f"""
{CLUSTER}
systemctl stop "postgresql@$version-$cluster"
rm -rf -- "$data" /opt/finjan/bench
mkdir /opt/finjan/bench
sync
"""
SETTLE = "cd /; runuser -u postgres -- psql -X --quiet --command=CHECKPOINT; sync"

# The hosts share a kernel, so that one's uptime is the other's.
RECEIVE = f"""
nc -l {ADDRESS} {PORT} | tar -xf - -C /opt/finjan/bench
sync --file-system /opt/finjan/bench
cut -d ' ' -f 1 /proc/uptime
find /opt/finjan/bench -type f -printf '%s\\n' | awk '{{ sum += $1 }} END {{ print sum }}'
"""
LISTENING = f"""
for _ in $(seq 100); do
    [ -z "$(ss -Hltn 'sport = :{PORT}')" ] || exit 0
    sleep 0.1
done
echo 'nobody listens on port {PORT}' >&2
exit 1
"""
# What a base backup leaves out as well.
SEND = f"""
{CLUSTER}
cut -d ' ' -f 1 /proc/uptime
tar -C "$data" --exclude='./pg_wal/*' --exclude='./pg_replslot/*' --exclude='./postmaster.*' -cf - . | nc -N {ADDRESS} {PORT}
"""


class Copy(NamedTuple):
    seconds: float
    bytes: int


def first_copy(bench: Bench, lab: Lab, ansible: Controller) -> None:
    """Copy by tar and by pg_replica in turn, beginning with the other one every time."""
    ansible.must_play("swg.ha.enable_ha")
    bench.say("making a database of 1.5 GB on the active server")
    lab.shell("ps2", CLEAR)
    size = int(lab.shell("ps1", LOAD).split()[-1])
    if size < DATABASE_BYTES:
        raise NotMeasured(f"the database has {size} bytes, fewer than {DATABASE_BYTES}")
    for run in bench.runs():
        bench.say(f"first copy, run {run} of {bench.options.runs}")
        before = load()
        copies: dict[str, Copy] = {}
        for way in ("tar", "replica") if run % 2 else ("replica", "tar"):
            lab.shell("ps2", CLEAR)
            lab.shell("ps1", SETTLE)
            copies[way] = by_tar(lab) if way == "tar" else by_replica(ansible)
        tar, replica = copies["tar"], copies["replica"]
        bench.say(f"bytes: tar {tar.bytes}, pg_replica {replica.bytes}")
        if abs(replica.bytes - tar.bytes) > 0.02 * tar.bytes:
            raise NotMeasured(f"not the same bytes: tar copied {tar.bytes}, pg_replica {replica.bytes}")
        bench.add(TAR, tar.seconds, before)
        bench.add(COPIED, replica.seconds, before)
        bench.add(RATIO, replica.seconds / tar.seconds, before)


def by_replica(ansible: Controller) -> Copy:
    """The module's own time, from its begin until the standby streams and the primary says so."""
    played = ansible.must_play(PLAYBOOK, env={"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"})
    result = results(played.output, "swg.ha.pg_replica")["ps2"]
    if result["method"] != "basebackup":
        raise NotMeasured(f"pg_replica did not copy: {result['method']}, {result['reason']}")
    return Copy(result["duration_s"], result["bytes"])


def by_tar(lab: Lab) -> Copy:
    """From the start of tar on the active server until everything is on the disk of the passive one."""
    with receiving(lab) as receiver:
        lab.shell("ps2", LISTENING)
        began = float(lab.shell("ps1", SEND).split()[0])
        output, _ = receiver.communicate(timeout=600)
    if receiver.returncode:
        raise NotMeasured(f"tar on ps2 failed with {receiver.returncode}: {output}")
    ended, count = output.split()[-2:]
    return Copy(float(ended) - began, int(count))


@contextmanager
def receiving(lab: Lab) -> Iterator[subprocess.Popen[str]]:
    argv = ["bin/lab", "--name", lab.name, "exec", "ps2", "--", "bash", "-c", f"set -euo pipefail\n{RECEIVE}"]
    process = subprocess.Popen(
        argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        end_group(process)
