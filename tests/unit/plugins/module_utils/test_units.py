# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import calendar
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.swg.ha.plugins.module_utils import units

FIXTURES = Path(__file__).parent / "fixtures"
RELEASES = ("252", "257")  # Debian 12 and 13


def recorded(release):
    """Outputs of systemctl show by what was looked at, recorded on a machine of that release."""
    text = (FIXTURES / f"systemctl_show_{release}.txt").read_text(encoding="utf-8")
    return dict(part.split("\n", 1) for part in text.split("### ")[1:])


SHOWN = {release: recorded(release) for release in RELEASES}
UNIT = units.parse_show(SHOWN["252"]["running"])


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("what", "load_state", "active_state", "enabled", "masked", "running"),
    [
        ("running", "loaded", "active", True, False, True),
        ("stopped", "loaded", "inactive", False, False, False),
        ("masked", "masked", "inactive", False, True, False),
        ("notfound", "not-found", "inactive", False, False, False),
        ("failed", "loaded", "failed", False, False, False),
        ("new_unit", "loaded", "inactive", True, False, False),  # static
    ],
)
def test_what_systemctl_says(release, what, load_state, active_state, enabled, masked, running):
    unit = units.parse_show(SHOWN[release][what])
    assert (unit.load_state, unit.active_state, unit.enabled, unit.masked) == (load_state, active_state, enabled, masked)
    assert unit.running is running


@pytest.mark.parametrize(
    ("release", "what", "expected"),
    [
        ("252", "running", calendar.timegm((2026, 11, 22, 18, 55, 17)) + 0.065155),
        ("257", "running", calendar.timegm((2026, 11, 22, 18, 55, 29)) + 0.933752),
        ("252", "stopped", 0.0),
        ("257", "notfound", 0.0),
    ],
)
def test_when_it_last_changed(release, what, expected):
    assert units.parse_show(SHOWN[release][what]).changed_at == pytest.approx(expected, abs=1e-6)


def test_a_whole_second():
    """systemd leaves out decimals that are all zero."""
    text = SHOWN["252"]["running"].replace("18:55:17.065155", "18:55:17")
    assert units.parse_show(text).changed_at == calendar.timegm((2026, 11, 22, 18, 55, 17))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("what", "drop_ins"),
    [
        ("running", []),
        ("read_running", ["/etc/systemd/system/ssh.service.d/swg_ha.conf"]),
        ("run_dropin", ["/etc/systemd/system/ssh.service.d/swg_ha.conf", "/run/systemd/system/ssh.service.d/x.conf"]),
        ("space", ["/etc/systemd/system/fresh_one.service.d/with space.conf"]),
        ("template", ["/etc/systemd/system/postgresql@.service.d/t.conf"]),
    ],
)
def test_its_files(release, what, drop_ins):
    fragment, *rest = units.parse_show(SHOWN[release][what]).files
    assert fragment.endswith(".service")
    assert rest == drop_ins


def test_a_unit_that_is_not_there_has_no_files():
    assert units.parse_show(SHOWN["252"]["notfound"]).files == ()


@pytest.mark.parametrize("text", ["", "LoadState=loaded\n", "System has not been booted with systemd"])
def test_no_systemd(text):
    with pytest.raises(units.UnitError, match="did not tell .*DropInPaths.*: is systemd running as process 1"):
        units.parse_show(text)


SSH = ["/etc/systemd/system/ssh.service.d/swg_ha.conf"]
HEARTBEAT = ["/etc/systemd/system/heartbeat.service.d/swg_ha.conf"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("what", "on_disk", "expected"),
    [
        ("running", [], False),
        ("read_running", SSH, False),
        # A running unit with a folder that is new: systemd 252 says NeedDaemonReload=no.
        ("newfolder_running", SSH, True),
        # A unit that does not run is read anew each time that one asks for it.
        ("newfolder", HEARTBEAT, False),
        ("changed", HEARTBEAT, False),
        ("notfound", [], True),
        ("space", ["/etc/systemd/system/fresh_one.service.d/with space.conf"], False),
        # What is not below /etc/systemd/system is no business of on_disk.
        ("run_dropin", SSH, False),
    ],
)
def test_when_systemd_must_read_the_unit_again(release, what, on_disk, expected):
    assert units.stale_definition(units.parse_show(SHOWN[release][what]), on_disk) is expected


def test_systemd_252_does_not_know_of_a_new_folder():
    """The reason for on_disk."""
    assert [units.parse_show(SHOWN[release]["newfolder_running"]).need_daemon_reload for release in RELEASES] == [False, True]


@pytest.mark.parametrize(
    ("unit", "changed", "expected"),
    [
        (UNIT, {}, []),
        (UNIT, {"/b": UNIT.changed_at + 1, "/a": UNIT.changed_at + 0.001, "/c": UNIT.changed_at - 0.001}, ["/a", "/b"]),
        # It reads everything when it starts.
        (replace(UNIT, active_state="inactive"), {"/a": UNIT.changed_at + 1}, []),
        (replace(UNIT, active_state="failed"), {"/a": UNIT.changed_at + 1}, []),
        (replace(UNIT, active_state="reloading"), {"/a": UNIT.changed_at + 1}, ["/a"]),
    ],
)
def test_files_that_it_cannot_have_seen(unit, changed, expected):
    assert units.newer_files(unit, changed) == expected


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("what", "newer", "stale", "on_change", "expected"),
    [
        ("running", [], False, "restarted", []),
        ("running", ["/a"], False, "restarted", ["restart"]),
        ("running", ["/a"], False, "reloaded", ["reload"]),
        ("running", ["/a"], True, "restarted", ["daemon-reload", "restart"]),
        ("running", [], True, "restarted", ["daemon-reload"]),
        ("stopped", [], False, "reloaded", ["enable", "start"]),
        ("failed", [], False, "reloaded", ["enable", "start"]),
        ("masked", [], False, "reloaded", ["unmask", "enable", "start"]),
        ("notfound", [], True, "reloaded", ["daemon-reload", "enable", "start"]),
        ("new_unit", [], False, "restarted", ["start"]),
    ],
)
def test_what_is_done(release, what, newer, stale, on_change, expected):
    assert units.verbs(units.parse_show(SHOWN[release][what]), newer, stale, on_change) == expected


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("what", "stale", "state", "expected"),
    [
        ("running", False, "started", ["disable"]),
        ("running", False, "stopped", ["disable", "stop"]),
        ("stopped", False, "started", ["start"]),
        ("stopped", False, "stopped", []),
        ("notfound", True, "stopped", []),
        ("notfound", True, "started", ["daemon-reload", "start"]),
        ("masked", False, "started", ["unmask", "disable", "start"]),
        ("masked", False, "stopped", []),
        # Static: systemd starts it for others, and there is nothing to disable.
        ("new_unit", False, "started", ["start"]),
    ],
)
def test_what_is_done_to_what_something_else_starts(release, what, stale, state, expected):
    assert units.verbs(units.parse_show(SHOWN[release][what]), [], stale, "restarted", enabled=False, state=state) == expected


@pytest.mark.parametrize(("result", "expected"), [("success", []), ("", []), ("exit-code", ["reload"]), ("timeout", ["reload"])])
def test_a_reload_that_failed_is_made_good(result, expected):
    """It counts as a change of state, so that the times alone would say that all is well."""
    text = SHOWN["257"]["running"].replace("ReloadResult=success", f"ReloadResult={result}")
    assert units.verbs(units.parse_show(text), [], False, "reloaded") == expected
