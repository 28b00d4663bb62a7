# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Suite `files`: how long it takes until a changed file is on the other server, what the replication costs at rest, and a whole takeover."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence

from tests.benchmarks.bench import Bench, Lab, NotMeasured, Options, Suite, load
from tests.benchmarks.pair import controller
from tests.benchmarks.sheet import Figure

CHANGES = 100
FILES, SIZE = 10_000, 100_000
GROWTH = (1_000, 10_000, 100_000)
REST_SECONDS = 30

CHANGED = Figure("a changed file of 4 KiB is on the other server's disk after", "s", 1)
CHANGED_MEDIAN = Figure("a changed file of 4 KiB: median", "s", 0.3)
FIRST = Figure("10,000 files, 1 GB: first copy", "s")
PLAIN = Figure("10,000 files, 1 GB: plain rsync", "s")
RATIO = Figure("10,000 files, 1 GB: first copy / plain rsync", "", 1.3)
UNCHANGED = Figure("10,000 files, 1 GB: nothing changed", "s", 1)
SOME = Figure("10,000 files, 1 GB: 100 files changed", "s", 2)
GROWING = {
    number: (Figure(f"{number:,} files of 4 KiB: first copy", "s"), Figure(f"{number:,} files of 4 KiB: nothing changed", "s"))
    for number in GROWTH
}
WAKE_UPS = Figure(f"wake-ups in {REST_SECONDS} s of what waits for changes", "times", 0)

TAKEN_OVER = Figure("power cut of the active, fast: until the policy server takes a write", "s")
TAKEN_OVER_MEDIAN = Figure("power cut of the active, fast: until the policy server takes a write, median", "s", 3)

FILE, TREE, ARCHIVE = "/srv/bench/file", "/srv/bench/tree", "/srv/bench/archive"
LIST = [
    {"name": FILE, "inotify": True, "permissions": "root:root"},
    {"name": TREE, "inotify": True, "permissions": "root:root"},
    {"name": ARCHIVE, "inotify": False, "interval": 86400, "permissions": "root:root"},
]

# A change, and how long after it the copy of it had ended: a copy ends when the other server has synced it.
CHANGE = f"""
import os, random, sys, time
sys.path.insert(0, "/usr/lib/swg_ha")
from swg_ha import copying
for _ in range({CHANGES}):
    with open("{FILE}", "wb") as file:
        file.write(os.urandom(4096))
    changed = time.time()
    while True:
        state = copying.read("/var/lib/ha_files/srv-bench-file")
        if copying.number(state, "good_at") >= changed - 0.001 and "code" not in state:
            break
        if time.time() > changed + 30:
            sys.exit("not copied within 30 s")
        time.sleep(0.005)
    print(copying.number(state, "ended") - changed)
    time.sleep(0.2 + random.random() / 5)
"""
# Writes over the virtual IP until one is acknowledged, and says when.
WRITE = """
python3 - <<'PYTHON'
import sys, time, urllib.error, urllib.request
request = urllib.request.Request("http://192.0.2.10:8080/configurations/global/bench.json", b"1", {{"Content-Type": "application/json"}}, method="PUT")
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    try:
        with urllib.request.urlopen(request, timeout=0.3):
            print(time.monotonic())
            sys.exit()
    except OSError:
        time.sleep(0.02)
sys.exit("no write was answered within {seconds} s")
PYTHON
"""
FILL = """
import os, sys
number, size = int(sys.argv[1]), int(sys.argv[2])
for index in range(number):
    folder = f"/srv/bench/archive/{index // 100:04}"
    if index % 100 == 0:
        os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{index:06}", "wb") as file:
        file.write(os.urandom(size))
"""
COPY = """
ha replicate /srv/bench/archive >&2
sed -n 's/^good_seconds //p' /var/lib/ha_files/srv-bench-archive
"""
EMPTY_COPY = "rm -rf /opt/finjan/configuration/ha/srv/bench/archive; sync -f /opt/finjan"
SSH = "ssh -F /etc/ha_manager/ssh_config -o ControlPath=none -o User=root -o IdentityFile=/root/bench"
PLAIN_COPY = f"""
began=$(date +%s.%N)
rsync -a --rsh='{SSH}' /srv/bench/archive link1:/opt/finjan/plain/
{SSH} link1 sync -f /opt/finjan
echo "$(date +%s.%N) $began" | awk '{{ print $1 - $2 }}'
"""
# Every process that belongs to the replication while nothing is copied, on either side; how often each has run.
RUNS = """
for unit in $(systemctl list-units --plain --no-legend --state=active 'ha_tree@*' 'ha_ssh@*' | cut -d' ' -f1); do
    cat "/sys/fs/cgroup$(systemctl show --property=ControlGroup --value "$unit")/cgroup.procs" 2>/dev/null \
        || cat "/sys/fs/cgroup/systemd$(systemctl show --property=ControlGroup --value "$unit")/cgroup.procs"
done | sort -n | while read -r pid; do awk -v pid="$pid" '/ctxt_switches/ { n += $2 } END { print pid, n }' "/proc/$pid/status"; done
"""


def prepare(lab: Lab) -> None:
    """The list on a pair, and a key with which a plain rsync gets through."""
    lab.shell("ps1", f"mkdir -p {TREE}/a/b {ARCHIVE}; echo 1 > {FILE}; echo 1 > {TREE}/a/b/c")
    edit = f"""
import sys
sys.path.insert(0, "/usr/lib/swg_ha")
from swg_ha.settings import MODULE_XML
from swg_ha.shared import durable, module_xml
durable.replace(str(MODULE_XML), module_xml.edit(MODULE_XML.read_bytes(), {{"files_to_replicate": {LIST!r}}}))
"""
    lab.run("exec", "ps1", "--", "python3", "-c", edit)
    lab.shell("ps1", "systemctl reload ha_manager; [ -e /root/bench ] || ssh-keygen -q -t ed25519 -N '' -f /root/bench")
    key = lab.shell("ps1", "cat /root/bench.pub").strip()
    lab.shell("ps2", f"mkdir -p -m 700 /root/.ssh; echo '{key}' >> /root/.ssh/authorized_keys")
    lab.shell("ps1", f"for _ in $(seq 100); do ha replicate {FILE} && exit; sleep 0.2; done; exit 1")


def latency(bench: Bench, lab: Lab) -> None:
    before = load()
    bench.say(f"{CHANGES} changes of a file")
    taken = [float(line) for line in lab.run("exec", "ps1", "--", "python3", "-c", CHANGE).splitlines()]
    for seconds in taken:
        bench.sheet.add(CHANGED, seconds, before)
    bench.add(CHANGED_MEDIAN, statistics.median(taken), before)


def copied(lab: Lab) -> float:
    return float(lab.shell("ps1", COPY).split()[-1])


def archive(bench: Bench, lab: Lab) -> None:
    fill(lab, FILES, SIZE)
    for run in bench.runs():
        bench.say(f"an archive, run {run} of {bench.options.runs}")
        before = load()

        def ours() -> float:
            lab.shell("ps2", EMPTY_COPY)
            return copied(lab)

        def plain() -> float:
            lab.shell("ps2", "rm -rf /opt/finjan/plain; mkdir /opt/finjan/plain; sync -f /opt/finjan")
            return float(lab.shell("ps1", PLAIN_COPY))

        # Neither way is always the first.
        first, second = (ours(), plain()) if run % 2 else (plain(), ours())
        own, other = (first, second) if run % 2 else (second, first)
        bench.add(FIRST, own, before)
        bench.add(PLAIN, other, before)
        bench.add(RATIO, own / other, before)
        bench.add(UNCHANGED, copied(lab), before)
        lab.shell("ps1", f"for i in $(seq 0 99); do head -c {SIZE} /dev/urandom > {ARCHIVE}/$(printf '%04d/%06d' $i $((i * 100))); done")
        bench.add(SOME, copied(lab), before)
    lab.shell("ps2", "rm -rf /opt/finjan/plain")


def fill(lab: Lab, number: int, size: int) -> None:
    lab.shell("ps1", f"rm -rf {ARCHIVE}; mkdir {ARCHIVE}")
    lab.run("exec", "ps1", "--", "python3", "-c", FILL, str(number), str(size))


def growth(bench: Bench, lab: Lab) -> None:
    for number, (first, again) in GROWING.items():
        bench.say(f"{number} files")
        fill(lab, number, 4096)
        before = load()
        lab.shell("ps2", EMPTY_COPY)
        bench.add(first, copied(lab), before)
        bench.add(again, copied(lab), before)
    lab.shell("ps1", f"rm -rf {ARCHIVE}; mkdir {ARCHIVE}; echo 1 > {ARCHIVE}/1; ha replicate")


def at_rest(bench: Bench, lab: Lab) -> None:
    """With the connection open and a folder watched, and nothing that changes."""
    lab.shell("ps1", "ha replicate; sleep 12")
    before = load()
    runs = lab.shell("ps1", f"runs() {{ {RUNS}}}; runs; echo; sleep {REST_SECONDS}; runs", minutes=2)
    first, _blank, second = runs.partition("\n\n")
    counted = [dict(line.split() for line in part.splitlines()) for part in (first, second)]
    if len(counted[0]) < 2 or counted[0].keys() != counted[1].keys():
        bench.say(f"other processes than before: {json.dumps(counted)}")
        return
    bench.add(WAKE_UPS, sum(int(counted[1][pid]) - int(runs) for pid, runs in counted[0].items()), before)


def takeover(bench: Bench, lab: Lab) -> None:
    """Power cuts, once a run; the two servers take turns. The clock is one that the lab's hosts share with their computer."""
    controller(bench, lab).must_play("swg.ha.enable_ha", "--extra-vars=ha_timing_profile=fast")
    taken = []
    for run in bench.runs():
        lab.shell("client1", WRITE.format(seconds=60))
        [active] = [host for host in ("ps1", "ps2") if lab.shell(host, "ha amIactive").strip() == "1"]
        wait_redundant(lab, active)
        bench.say(f"power cut of {active}, run {run} of {bench.options.runs}")
        before = load()
        cut = time.monotonic()
        lab.run("power", "off", active)
        taken.append(float(lab.shell("client1", WRITE.format(seconds=60))) - cut)
        bench.add(TAKEN_OVER, taken[-1], before)
        lab.run("power", "on", active)
        wait_redundant(lab, "ps2" if active == "ps1" else "ps1")
    bench.add(TAKEN_OVER_MEDIAN, statistics.median(taken), load())


def wait_redundant(lab: Lab, active: str) -> None:
    end = time.monotonic() + 90
    while not json.loads(lab.shell(active, "ha status --json"))["redundant"]:
        if time.monotonic() > end:
            raise NotMeasured(f"{active} is not redundant within 90 s")
        time.sleep(0.5)


MEASUREMENTS: dict[str, Callable[[Bench, Lab], None]] = {
    "latency": latency,
    "archive": archive,
    "growth": growth,
    "at_rest": at_rest,
    "takeover": takeover,
}
OF: dict[str, list[Figure]] = {
    "latency": [CHANGED, CHANGED_MEDIAN],
    "archive": [FIRST, PLAIN, RATIO, UNCHANGED, SOME],
    "growth": [figure for both in GROWING.values() for figure in both],
    "at_rest": [WAKE_UPS],
    "takeover": [TAKEN_OVER, TAKEN_OVER_MEDIAN],
}


def chosen(options: Options) -> list[str]:
    return [name for name in MEASUREMENTS if not options.only or name in options.only]


def figures(options: Options) -> Sequence[Figure]:
    return [figure for name in chosen(options) for figure in OF[name]]


def measured(bench: Bench) -> None:
    with Lab(bench.options.lab).up() as lab:
        controller(bench, lab).must_play("swg.ha.enable_ha")
        prepare(lab)
        for name in chosen(bench.options):
            MEASUREMENTS[name](bench, lab)


def parts(options: Options) -> Sequence[Callable[[Bench], None]]:
    return [measured] if chosen(options) else []


SUITE = Suite("files that are copied to the passive server", figures, parts, tuple(MEASUREMENTS))
