"""Suite `pair`: from two bare servers to a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.benchmarks.bench import Bench, Lab, Options, Suite, load
from tests.benchmarks.controller import Controller, changed
from tests.benchmarks.demo import CACHED, FRESH, demo, fresh_demo
from tests.benchmarks.first_copy import COPIED, RATIO, TAR, first_copy
from tests.benchmarks.sheet import Figure
from tools.environment import ensure, link_collection

SERVERS = ("ps1", "ps2")

CHECK_STATUS = Figure("enable_ha --check on bare hosts: exit status", "status", 0)
CHECK_DIFFERENCES = Figure("enable_ha --check on bare hosts: differences", "lines", 0)
ENABLE = Figure("enable_ha on bare hosts", "s", 60)
AGAIN = Figure("enable_ha again", "s", 15)
AGAIN_CHANGED = Figure("enable_ha again: changes", "tasks", 0)

# Names, owners, modes and contents of whatever the collection could touch, the packages, the units and what runs.
FINGERPRINT = """
{
    for folder in /etc /opt /usr/local /var/wasp /var/lib/heartbeat /var/lib/postgresql; do
        [ -e "$folder" ] || continue
        find "$folder" -path '*/main/*' -prune -o -printf '%p %u:%g %m %l\\n'
        find "$folder" -path '*/main/*' -prune -o -type f -exec sha256sum {} +
    done
    sha256sum /var/lib/dpkg/status
    systemctl list-unit-files --no-pager --no-legend
    systemctl is-active heartbeat chrony postgresql || true
} | sort
"""


def controller(bench: Bench, lab: Lab) -> Controller:
    link_collection()
    return Controller(ensure("2.19", "run"), lab.run("inventory").strip(), bench.logs)


def fingerprint(lab: Lab) -> set[str]:
    return {f"{host}: {line}" for host in SERVERS for line in lab.shell(host, FINGERPRINT).splitlines()}


def enabling(bench: Bench) -> None:
    """On bare hosts, which are rolled back for every run: the dry run, the first run, the second run."""
    with Lab(bench.options.lab).up() as lab:
        ansible = controller(bench, lab)
        lab.run("snapshot", "bare")
        for run in bench.runs():
            bench.say(f"enabling, run {run} of {bench.options.runs}")
            if run > 1:
                lab.run("rollback", "bare")
            bare = fingerprint(lab)
            before = load()
            dry = ansible.play("swg.ha.enable_ha", "--check")
            bench.add(CHECK_STATUS, dry.status, before)
            bench.add(CHECK_DIFFERENCES, len(bare ^ fingerprint(lab)), before)
            before = load()
            bench.add(ENABLE, ansible.must_play("swg.ha.enable_ha").seconds, before)
            before = load()
            second = ansible.must_play("swg.ha.enable_ha")
            bench.add(AGAIN, second.seconds, before)
            bench.add(AGAIN_CHANGED, changed(second.output), before)


def copying(bench: Bench) -> None:
    with Lab(bench.options.lab).up() as lab:
        first_copy(bench, lab, controller(bench, lab))


def figures(options: Options) -> Sequence[Figure]:
    fresh = [FRESH] if options.fresh else []
    return [CHECK_STATUS, CHECK_DIFFERENCES, ENABLE, AGAIN, AGAIN_CHANGED, TAR, COPIED, RATIO, CACHED, *fresh]


def parts(options: Options) -> Sequence[Callable[[Bench], None]]:
    return [enabling, copying, demo, *([fresh_demo] if options.fresh else [])]


SUITE = Suite("enabling a pair, the first copy of its database, the demo", figures, parts)
