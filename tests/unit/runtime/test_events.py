# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swg_ha import events
from swg_ha.events import Event

RUNTIME = Path(__file__).parents[3] / "roles/runtime/files"

# They are searched and alarmed by: whoever changes one breaks somebody's monitoring.
FOREVER = {
    "ROLE_CHANGED": "d21161f3eba74c3b9e2f4a38fdb47a2d",
    "REPLICATION_STARTED": "edd92a928e8942a9b540cc9a54d3256f",
    "REPLICATION_INITIALIZED": "0158d9268f494b3c8d2d9511f3a5a127",
    "PEER_UNREACHABLE": "8fdb98b41f294593b422e8b08ce08b0f",
    "PEER_CONNECTED": "76b760d7c13647e59953bb1acd8f9ee8",
    "TRANSITION_STARTED": "a96fadcc073747aca51bf0c1432524f8",
    "TRANSITION_ENDED": "92964e718aad47f2b8bb1dbb275b2da3",
    "TRANSITION_FAILED": "3abfbd894df14d3db66703036b6d3555",
    "TRANSITION_RESUMED": "185e895bd7434d65ad5894ac1c83f60a",
    "STEP_DONE": "835d081d7bda427185cb87f9bdde724c",
    "STEP_SKIPPED": "62e45f191c604bbf9c9af6439e87dfad",
    "STEP_FAILED": "8ebdb1081d4f42cca53c202f5b0fdde5",
    "REFUSED": "588cd2030e2847fcb3e1f0e384a79b16",
    "FENCED": "5c75ec8689154aba94dd2fc4e0546d10",
    "SETTINGS_LOADED": "9cdbd1133f41451c83d50652ec7707ed",
    "SETTINGS_REFUSED": "b3986090786c477499145ea50e3cf248",
    "PAUSED": "fcc035c314b64fe7b6774fd6e49e1d0b",
    "RESUMED": "4691e391e58c4377a7a2e10651eb3258",
    "QUARANTINED": "20a385408c474d82ac32d57e016fd043",
    "ACKNOWLEDGED": "13fcd58f58224adf993bdcf6d08dbb52",
    "REDUNDANCY_LOST": "3b2c4f12ed9b48699f12828daff9aea7",
    "REDUNDANCY_REGAINED": "7ff9373a12ba4aaba555162c83bf7ab7",
    "DATABASE_RESTARTED": "f96e827dcea8418b9d4b1f21c1072172",
    "FILE_NOT_COPIED": "184a6634baf1445e86acdad6be77f813",
    "FILE_COPIED_AGAIN": "514bc00d883c45b5aa509a7786977192",
}


@pytest.fixture
def log(tmp_path):
    """The sockets of a journal and of a syslog, which need not be opened; returns the records that the one that is has got."""
    opened = []

    class Log:
        journal = tmp_path / "journal"
        syslog = tmp_path / "log"

        def open(self, path, buffer=None):
            there = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            opened.append(there)
            if buffer:
                there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            there.bind(str(path))
            there.settimeout(5)
            return there

        def tell(self, event, **fields):
            events.tell(event, journal=self.journal, syslog=self.syslog, **fields)

    yield Log()
    for there in opened:
        there.close()


def decode(data):
    """A record as the journal understands it."""
    record = {}
    while data:
        name, separator, rest = data.partition(b"\n")
        if b"=" in name:
            name, _, value = name.partition(b"=")
            data = rest
        else:
            length = int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + length], rest[8 + length + 1 :]
        assert separator == b"\n" and re.fullmatch(rb"[A-Z0-9_]{1,64}", name) and not name.startswith(b"_")
        record[name.decode()] = value.decode()
    return record


def test_the_ids_never_change():
    assert {event.name: event.message_id for event in Event} == FOREVER


def test_each_id_is_one_of_a_kind():
    assert len({event.message_id for event in Event}) == len(Event)
    assert all(re.fullmatch(r"[0-9a-f]{32}", event.message_id) for event in Event)


def test_the_manuals_four_events_are_there():
    assert [event.name for event in Event][:4] == ["ROLE_CHANGED", "REPLICATION_STARTED", "REPLICATION_INITIALIZED", "PEER_UNREACHABLE"]


def test_a_record_in_the_journal(log):
    journal = log.open(log.journal)
    log.tell(Event.ROLE_CHANGED, node="ps1", role="active", previous="passive", code="TAKE_OVER", reason="ps2 is gone", counter=7)
    record = decode(journal.recv(65536))
    assert record == {
        "MESSAGE": "ps1 is active now, it was passive: TAKE_OVER: ps2 is gone",
        "MESSAGE_ID": Event.ROLE_CHANGED.message_id,
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "ha_manager",
        "SYSLOG_FACILITY": "3",
        "SWG_HA_EVENT": "ROLE_CHANGED",
        "SWG_HA_NODE": "ps1",
        "SWG_HA_ROLE": "active",
        "SWG_HA_PREVIOUS": "passive",
        "SWG_HA_CODE": "TAKE_OVER",
        "SWG_HA_REASON": "ps2 is gone",
        "SWG_HA_COUNTER": "7",
    }


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name)
def test_every_event_can_be_told(log, event):
    journal = log.open(log.journal)
    log.tell(event, **{name: f"<{name}>" for name in events.names(event)})
    message = decode(journal.recv(65536))["MESSAGE"]
    assert "?" not in message and "{" not in message
    assert all(f"<{name}>" in message for name in events.names(event))


def test_several_lines_stay_one_field(log):
    journal = log.open(log.journal)
    log.tell(Event.STEP_FAILED, kind="becoming_active", step="manager", seconds=1.5, reason="one\ntwo=2\nMESSAGE_ID=x")
    record = decode(journal.recv(65536))
    assert record["SWG_HA_REASON"] == "one\ntwo=2\nMESSAGE_ID=x"
    assert record["MESSAGE"] == "becoming_active: step manager failed after 1.5 s: one two=2 MESSAGE_ID=x"
    assert record["MESSAGE_ID"] == Event.STEP_FAILED.message_id


def test_a_field_that_is_missing_does_not_lose_the_record(log):
    journal = log.open(log.journal)
    log.tell(Event.FENCED, node="ps1", code=None)
    record = decode(journal.recv(65536))
    assert record["MESSAGE"] == "ps1 gave up the virtual IP and stopped its database: ?: ?"
    assert "SWG_HA_CODE" not in record


def test_a_long_field_is_cut(log):
    journal = log.open(log.journal)
    log.tell(Event.FENCED, node="ps1", code="X", reason="y" * 100000)
    assert len(decode(journal.recv(65536))["SWG_HA_REASON"]) == 8192


def test_without_a_journal_it_goes_to_syslog(log):
    syslog = log.open(log.syslog)
    log.tell(Event.FENCED, node="ps1", code="ISOLATED", reason="nobody\nis heard")
    assert syslog.recv(65536).decode() == (
        f"<{3 * 8 + 2}>ha_manager[{os.getpid()}]: ps1 gave up the virtual IP and stopped its database: ISOLATED: nobody is heard"
    )


def test_without_either_it_goes_to_standard_error(log, capfd):
    log.tell(Event.SETTINGS_LOADED)
    assert capfd.readouterr().err == "<5>the settings were loaded\n"


def test_a_log_that_is_stuck_is_not_waited_for(log, capfd):
    log.open(log.journal)
    log.open(log.syslog)
    begun = time.monotonic()
    for _ in range(2000):
        log.tell(Event.SETTINGS_LOADED)
    assert time.monotonic() - begun < 5
    assert "the settings were loaded" in capfd.readouterr().err


def test_what_cannot_be_told_raises_nothing(log, capfd):
    class Unprintable:
        def __str__(self):
            raise RuntimeError("broken")

        __format__ = None

    log.tell(Event.FENCED, node=Unprintable(), code="X", reason="\udc80")
    assert "FENCED could not be logged" in capfd.readouterr().err


def test_the_table_for_the_documentation():
    printed = subprocess.run(
        [sys.executable, "-m", "swg_ha.events"], cwd=RUNTIME, capture_output=True, text=True, check=True, timeout=30
    ).stdout
    lines = printed.splitlines()
    assert lines[:2] == ["| event | priority | MESSAGE_ID | message |", "|---|---|---|---|"]
    assert [re.match(r"\| `(\w+)` \| \w+ \| `(\w{32})` \| .+ \|$", line).groups() for line in lines[2:]] == list(FOREVER.items())
    assert "| `PEER_UNREACHABLE` | error |" in printed and "cannot connect to ha_manager on *peer*: *reason*" in printed
