# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import itertools
import json
import os
import re
import stat
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from swg_ha import status

from .samples import document, hand_over, quarantine, replicated, step, transition

SUBSETS = [document(), *({name: value for name, value in document().items() if name != missing} for missing in document()), {}]


def test_the_status_file_is_the_document_for_everybody(tmp_path):
    umask = os.umask(0o077)
    try:
        status.write(document(), tmp_path / "ha_manager_status")
    finally:
        os.umask(umask)
    assert json.loads((tmp_path / "ha_manager_status").read_bytes()) == document()
    assert stat.S_IMODE(os.stat(tmp_path / "ha_manager_status").st_mode) == 0o644
    assert os.listdir(tmp_path) == ["ha_manager_status"]


def test_a_reader_never_sees_half_of_it(tmp_path):
    path = tmp_path / "ha_manager_status"
    status.write(document(counter=0), path)
    seen, over = set(), threading.Event()

    def read():
        while not over.is_set():
            seen.add(json.loads(path.read_bytes())["counter"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for counter in range(300):
            status.write(document(counter=counter), path)
    finally:
        over.set()
        reader.join(10)
    assert seen


def test_it_waits_for_the_disk_only_when_told(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.readlink(f"/proc/self/fd/{descriptor}")), real(descriptor)))
    status.write(document(), tmp_path / "file")
    assert synced == []
    status.write(document(), tmp_path / "file", durable=True)
    assert synced == [str(tmp_path / ".file.new"), str(tmp_path)]


def test_what_json_does_not_have_is_refused_and_the_old_file_stays(tmp_path):
    status.write(document(), tmp_path / "file")
    with pytest.raises(ValueError, match="JSON"):
        status.write(document(started=float("inf")), tmp_path / "file")
    assert json.loads((tmp_path / "file").read_bytes()) == document()


def markers(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("before, after", list(itertools.product(["active", "passive", None], repeat=2)))
def test_a_role_has_its_marker_and_no_other(tmp_path, before, after):
    status.mark(before, tmp_path)
    status.mark(after, tmp_path)
    assert markers(tmp_path) == ([after] if after else [])
    assert status.marked(tmp_path) == after


def test_both_markers_from_elsewhere_become_one(tmp_path):
    (tmp_path / "active").touch()
    (tmp_path / "passive").touch()
    status.mark("active", tmp_path)
    assert markers(tmp_path) == ["active"]


def test_never_both_and_each_change_is_on_the_disk_before_the_next(tmp_path, monkeypatch):
    status.mark("active", tmp_path)
    states = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (states.append(markers(tmp_path)), real(descriptor)))
    status.mark("passive", tmp_path)
    assert states == [[], ["passive"]]


def test_one_that_the_disk_kept_waiting_does_not_have_the_last_word(tmp_path, monkeypatch):
    status.mark("passive", tmp_path)
    stuck, go, real = threading.Event(), threading.Event(), status.sync

    def slow(path):
        if not stuck.is_set():
            stuck.set()
            assert go.wait(10)
        real(path)

    monkeypatch.setattr(status, "sync", slow)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(status.mark, "active", tmp_path)
        assert stuck.wait(10)
        second = threads.submit(status.mark, "passive", tmp_path)
        wait([second], 0.3)
        go.set()
        first.result(10)
        second.result(10)
    assert markers(tmp_path) == ["passive"]


def test_a_marker_that_is_right_is_not_touched(tmp_path, monkeypatch):
    status.mark("active", tmp_path)
    before = os.stat(tmp_path / "active").st_mtime_ns, os.stat(tmp_path).st_mtime_ns
    status.mark("active", tmp_path)
    assert (os.stat(tmp_path / "active").st_mtime_ns, os.stat(tmp_path).st_mtime_ns) == before


def test_the_screen_of_a_healthy_pair():
    assert status.screen(document()).splitlines() == [
        "ps2: active, steady                                     2026-01-31 21:56:00 UTC",
        "",
        "redundant   yes",
        "decision    STEADY: this server was made active (record 7)",
        "virtual IP  192.0.2.10/24 on eth0: held here",
        "database    primary, timeline 5, at 0/5000148, commits wait for the other",
        "            server",
        "replication running, streaming, 0 B behind",
        "Heartbeat   runs, rscstatus: all, it calls ps1 active, it has given the service",
        "            to this server",
        "peer        ps1: connected, says it is passive; 192.0.2.11 up, 198.51.100.11",
        "            down",
        "network     eth0 up, eth1 DOWN, 192.0.2.1 answers, 192.0.2.2 not asked yet",
        "record      7 says that ps2 became active (2026-01-31 21:55:33 UTC, timeline 5",
        "            from 0/5000000); at last contact the passive had everything",
        "",
        "2026-01-31 21:55:33 UTC  ps2 becoming active (take_over): done after 1.900 s",
        "  TAKE_OVER: ps1 has not been heard for 1.1 s, and Heartbeat gave its resources",
        "  to this server",
        "  no writes for 0.220 s of it",
    ]


def test_the_screen_has_what_is_wrong():
    shown = status.screen(
        document(
            redundant=False,
            not_redundant_because=["ps1 cannot be heard", "nothing streams"],
            peer={"connected": False, "links": {}, "role": None, "silent_seconds": 12.34},
            paused={"until": "2026-01-31T22:56:00Z", "by": "ops", "reason": "new switch"},
            quarantine=[quarantine(), quarantine(name="old", acknowledged=True)],
            problems=[{"code": "DISK_FULL", "text": "no space", "since": "2026-01-31T21:00:00Z"}],
            settings={"loaded": "2026-01-31T21:00:00.000Z", "error": "runtime.json: links: at least one link is needed"},
        )
    )
    flat = " ".join(shown.split())
    for text in (
        "redundant NO: ps1 cannot be heard; nothing streams",
        "ps1: not connected, heard 12.3 s ago",
        "paused until 2026-01-31 22:56:00 UTC, by ops: new switch",
        "12 transactions that ps1 never had (16.0 MiB, tables: public.policy)",
        "ha acknowledge 20260131T215540Z",
        "problem DISK_FULL: no space (since 2026-01-31 21:00:00 UTC)",
        "refused, those of 2026-01-31 21:00:00 UTC stay: runtime.json: links: at least one link is needed",
    ):
        assert text in flat
    assert "acknowledge old" not in flat


@pytest.mark.parametrize(
    ("files", "row"),
    [
        ([replicated("/a"), replicated("/b")], "files       2 of 2 copied, last at 2026-01-31 21:55:00 UTC"),
        ([replicated("/a"), replicated("/b", absent=True, last_good=None)], "1 of 2 copied, last at 2026-01-31 21:55:00 UTC, 1 not"),
        ([replicated("/a", code="FILE_FAILED", error="no space", last_good=None)], "files       0 of 1 copied, 1 IN TROUBLE"),
        ([replicated("/a", left_out=["/a/socket"])], "1 sockets, pipes"),
    ],
)
def test_the_screen_has_one_row_for_the_files(files, row):
    assert row in status.screen(document(files=files))
    assert "files  " not in status.screen(document(files=files, role="passive"))


def test_the_screen_shows_the_steps_of_what_is_under_way():
    shown = status.screen(
        document(transition=transition(ended=None, seconds=None, outcome="running", steps=[step("promote", "running", 0.1, None)]))
    )
    assert re.search(r"^  promote +0\.100", shown, re.M)
    assert "take_over): running" in shown


def test_colors_only_when_asked_for():
    assert "\x1b" not in status.screen(document(redundant=False))
    assert "\x1b[31mNO: " in status.screen(document(redundant=False), color=True)
    uncolored = re.sub(r"\x1b\[\d+m", "", status.screen(document(), color=True))
    assert uncolored == status.screen(document())


@pytest.mark.parametrize("said", SUBSETS, ids=lambda said: f"without {sorted(document().keys() - said.keys())}" if said else "empty")
def test_every_text_stands_whatever_is_missing(said):
    assert max(map(len, status.screen(said).splitlines())) <= 79
    assert len(status.why(said)) >= 6


def test_what_the_other_server_says_does_not_command_the_terminal():
    evil = "\x1b]0;x\x07\x9b31m" + "long " * 60
    shown = status.screen(document(node=evil, role=evil, time=evil, peer_node=evil, not_redundant_because=[evil], redundant=False))
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    assert max(map(len, shown.splitlines())) <= 79


def test_a_screen_has_24_lines_in_steady_state():
    assert len(status.screen(document(paused={"until": "2026-01-31T22:56:00Z", "by": "ops", "reason": "x"})).splitlines()) <= 24


def reasons(**changes):
    return " ".join(status.why(document(**changes)))


def test_why_active():
    said = reasons()
    for text in (
        "ps2 is active since 2026-01-31 21:55:33 UTC: STEADY: this server was made active (record 7).",
        "Heartbeat runs, rscstatus: all",
        "By itself that means: active (Heartbeat holds all resources here).",
        "The record 7 says that ps2 became active",
        "ps1: connected, says it is passive",
        "It becomes passive by 'ha failover' (ps1 is ready for it).",
        "By itself it becomes passive when",
    ):
        assert text in said


def test_why_passive():
    said = reasons(role="passive", state="following", heartbeat={"running": True, "rscstatus": "none", "peer": "active", "holding": False})
    assert "By itself that means: passive (Heartbeat holds no resources here)." in said
    assert "It becomes active by 'ha failover', on either server." in said
    assert "By itself it becomes active when ps1 is heard on no link" in said


@pytest.mark.parametrize("rscstatus", ["foreign", "transition", None])
def test_why_with_an_unsettled_heartbeat(rscstatus):
    assert "By itself that means: the role stays as it is" in reasons(heartbeat={"running": True, "rscstatus": rscstatus})


def test_why_with_local_depends_on_who_is_asked():
    there = {"running": True, "rscstatus": "local", "peer": "active", "holding": False}
    assert "By itself 'local' means: active on the default active server" in reasons(heartbeat=there)
    assert "By itself that means: active (" in reasons(heartbeat=there, default_active="ps2")
    assert "it was passive before" in reasons(heartbeat=there, default_active="ps1", role="passive")


def test_why_refusing_says_what_would_help():
    assert "'ha failover --force'" in reasons(role="passive", state="refusing")


def test_why_fenced_says_what_it_waits_for():
    assert "a ping node can be heard" in reasons(role="passive", state="fenced")


def test_why_paused_does_not_promise_that_anything_happens_by_itself():
    for role in ("active", "passive"):
        said = reasons(role=role, paused={"until": "2026-01-31T22:56:00Z", "by": "ops", "reason": ""})
        assert "Automatic failover is off until 2026-01-31 22:56:00 UTC, by ops: no reason given." in said
        assert "By itself it becomes" not in said


def test_why_not_ready():
    assert "(ps1 is not ready: nothing streams)" in reasons(redundant=False, not_redundant_because=["nothing streams"])


def test_the_last_transition_of_a_server_that_handed_over():
    assert "no writes for 0.410 s of it" in status.screen(document(last_transition=hand_over()))
