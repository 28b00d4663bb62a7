# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
import re
import stat

import pytest

from swg_ha import metrics

from .samples import document, quarantine, replicated, step, transition

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")
UNITS = ("milliseconds", "minutes", "hours", "kilobytes", "megabytes", "ms", "ratio_percent")


def unescape(text):
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)


def parse(text):
    """The samples of an exposition, checked as strictly as the format and promtool's rules ask: {(name, labels): value}, {name: kind}."""
    samples, kinds, helps, current = {}, {}, {}, None
    assert text.endswith("\n") and "\r" not in text
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            _, _, current, help = line.split(" ", 3)
            assert current not in helps, f"{current} is there twice"
            assert help[0].isupper() and help.endswith(".") and "\\" not in help
            helps[current] = help
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current and name not in kinds and kind in ("counter", "gauge")
            kinds[name] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found, f"not a sample: {line!r}"
            assert found[1] == current and current in kinds, f"{found[1]} is not below its HELP and TYPE"
            pairs = re.findall(LABEL, found[2] or "")
            labels = tuple(sorted((name, unescape(value)) for name, value in pairs))
            assert len(dict(labels)) == len(pairs)
            assert (found[1], labels) not in samples, f"{line} is there twice"
            samples[found[1], labels] = float(line.rsplit(" ", 1)[1])
    assert kinds.keys() == helps.keys() == {name for name, _ in samples}
    for name, kind in kinds.items():
        assert name.startswith("swg_ha_") and name == name.lower()
        assert name.endswith("_total") == (kind == "counter")
        assert not name.endswith(("_count", "_sum", "_bucket", *(f"_{unit}" for unit in UNITS)))
    return samples, kinds


def value(text, name, **labels):
    return parse(text)[0].get((f"swg_ha_{name}", tuple(sorted(labels.items()))))


def test_a_healthy_pair():
    text = metrics.render(document())
    for name, labels, expected in (
        ("info", {"node": "ps2", "peer_node": "ps1"}, 1),
        ("role", {"role": "active"}, 1),
        ("role", {"role": "passive"}, 0),
        ("state", {"state": "steady"}, 1),
        ("state", {"state": "fenced"}, 0),
        ("redundant", {}, 1),
        ("paused", {}, 0),
        ("settings_valid", {}, 1),
        ("virtual_ip_held", {}, 1),
        ("record_counter", {}, 7),
        ("heartbeat_running", {}, 1),
        ("peer_connected", {}, 1),
        ("peer_silent_seconds", {}, 0.1),
        ("peer_link_up", {"address": "192.0.2.11"}, 1),
        ("peer_link_up", {"address": "198.51.100.11"}, 0),
        ("link_carrier", {"interface": "eth0"}, 1),
        ("link_carrier", {"interface": "eth1"}, 0),
        ("ping_node_up", {"address": "192.0.2.1"}, 1),
        ("ping_node_up", {"address": "192.0.2.2"}, None),
        ("postgresql_up", {}, 1),
        ("postgresql_primary", {}, 1),
        ("postgresql_timeline", {}, 5),
        ("postgresql_synchronous", {}, 1),
        ("replication_streaming", {}, 1),
        ("replication_lag_bytes", {}, 0),
        ("quarantined", {}, 0),
        ("problems", {}, 0),
        ("transitions_total", {}, 3),
        ("step_failures_total", {"step": "manager"}, 1),
        ("last_transition_seconds", {"kind": "becoming_active", "trigger": "take_over", "code": "TAKE_OVER", "outcome": "done"}, 1.9),
        ("last_outage_seconds", {}, 0.22),
        ("last_transition_step_seconds", {"step": "promote", "state": "done"}, 0.18),
        ("last_transition_step_seconds", {"step": "manager", "state": "failed"}, 1.68),
        ("status_time_seconds", {}, 1769896560),
        ("last_transition_start_time_seconds", {}, 1769896533.123),
    ):
        assert value(text, name, **labels) == expected, name


def test_what_is_wrong():
    problem = {"code": "DISK_FULL", "text": "no space", "since": "2026-01-31T21:00:00Z"}
    text = metrics.render(
        document(
            redundant=False,
            role="undecided",
            paused={"until": "2026-01-31T22:56:00Z", "by": "ops", "reason": "x"},
            quarantine=[quarantine(), quarantine(name="old", acknowledged=True)],
            problems=[problem, problem, {**problem, "code": "OTHER"}],
            settings={"loaded": None, "error": "no"},
            postgresql={"state": "missing", "timeline": None, "lsn": None, "streaming": False, "lag_bytes": None, "synchronous": False},
        )
    )
    assert value(text, "redundant") == 0
    assert value(text, "role", role="undecided") == 1
    assert value(text, "paused") == 1
    assert value(text, "quarantined") == 1
    assert value(text, "problems") == 3
    assert value(text, "problem", code="DISK_FULL") == 2
    assert value(text, "settings_valid") == 0
    assert value(text, "postgresql_up") == 0
    assert value(text, "replication_lag_bytes") is None


@pytest.mark.parametrize("missing", [*document(), None])
def test_what_is_not_said_is_not_there(missing):
    text = metrics.render({name: said for name, said in document().items() if name != missing} if missing else {})
    parse(text)
    assert "None" not in text or missing in (None, "node", "peer_node")


def test_how_each_file_is_copied():
    files = [replicated("/a b", failures=3), replicated("/c", absent=True, bytes=None, size=None, seconds=None, age_seconds=None)]
    samples, kinds = parse(metrics.render(document(files=files)))
    of_a = {name: value for (name, labels), value in samples.items() if ("file", "/a b") in labels}
    assert of_a == {
        "swg_ha_file_age_seconds": 60,
        "swg_ha_file_copied_bytes": 662,
        "swg_ha_file_size_bytes": 662,
        "swg_ha_file_copy_seconds": 0.2,
        "swg_ha_file_copy_failures_total": 3,
    }
    assert [name for (name, labels), _value in samples.items() if ("file", "/c") in labels] == ["swg_ha_file_copy_failures_total"]
    assert kinds["swg_ha_file_copy_failures_total"] == "counter"


def test_names_from_outside_stay_in_their_labels():
    evil = 'a"} 1\n# TYPE x\\'
    text = metrics.render(document(failures={evil: 2}, node=evil, last_transition=transition(reason=evil, steps=[step(evil)])))
    assert value(text, "step_failures_total", step=evil) == 2
    assert value(text, "info", node=evil, peer_node="ps1") == 1
    assert value(text, "last_transition_step_seconds", step=evil, state="done") == 0.1


def test_a_transition_that_has_not_been():
    text = metrics.render(document(last_transition=None))
    assert "last_" not in text
    parse(text)


def test_write(tmp_path):
    metrics.write("old\n", tmp_path)
    metrics.write(metrics.render(document()), tmp_path)
    assert os.listdir(tmp_path) == ["swg_ha.prom"]
    assert stat.S_IMODE(os.stat(tmp_path / "swg_ha.prom").st_mode) == 0o644
    parse((tmp_path / "swg_ha.prom").read_text())


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="textfile"):
        metrics.write("x\n", tmp_path / "textfile")
