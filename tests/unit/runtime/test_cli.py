# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jinja2
import pytest
import yaml

from swg_ha import cli, timeline
from swg_ha.cli import Places, main
from swg_ha.control import Refused

from .samples import document, hand_over, quarantine, transition
from .serving import serving

COLLECTION = Path(__file__).parents[3]
ROLE = Path(__file__).resolve().parents[3] / "roles/runtime"

COMMANDS = (
    *("status", "amIactive", "why", "timeline", "logs", "failover", "replicate"),
    *("pause", "resume", "stop", "start", "restart", "acknowledge", "version"),
)

MODULE_XML = """\
<?xml version="1.0" encoding="UTF-8"?>
<module id="174" name="HA">
  <init>
    <ha enabled="1"/>
    <default_active ip="192.0.2.11" name="ps1"/>
    <default_passive ip="192.0.2.12" name="ps2"/>
    <virtual_ip ip="{virtual_ip}"/>
  </init>
</module>
"""
RUNTIME_JSON = {
    "node": "ps2",
    "peer_node": "ps1",
    "links": [{"interface": "eth0", "address": "192.0.2.12", "prefix": 24, "peer_address": "192.0.2.11"}],
    "postgresql": {
        "version": "15",
        "cluster": "main",
        "data_directory": "/var/lib/postgresql/15/main",
        "port": 5432,
        "user": "ha_replication",
        "passfile": "/etc/ha_manager/pgpass",
        "slot": "ha_ps2",
        "peer_slot": "ha_ps1",
    },
}


@pytest.fixture
def places(tmp_path):
    return Places(
        control=tmp_path / "control.sock",
        markers=tmp_path,
        timeline=tmp_path / "timeline.json",
        runtime=tmp_path / "runtime.json",
        module=tmp_path / "module.xml",
        ha_cf=tmp_path / "ha.cf",
        logrelay=tmp_path / "logrelay.json",
        cl_status=str(tmp_path / "cl_status"),
        journalctl=str(tmp_path / "journalctl"),
    )


class Manager:
    """What ha_manager would say: document is its status, answers what else it is asked, asked what it was asked."""

    def __init__(self):
        self.document = document()
        self.answers = {}
        self.progress = []
        self.asked = []
        self.hold = None

    async def handle(self, request, progress):
        self.asked.append(request)
        if request["do"] == "status":
            return {"status": self.document}
        for text in self.progress:
            progress(text)
        if self.hold is not None:
            await asyncio.to_thread(self.hold.wait, 10)
        answer = self.answers.get(request["do"], {})
        if isinstance(answer, Refused):
            raise answer
        return answer

    @property
    def orders(self):
        return [request for request in self.asked if request["do"] != "status"]


@pytest.fixture
def manager(places):
    there = Manager()
    with serving(places.control, there.handle):
        yield there


@pytest.fixture
def ha(places, capsys):
    """Runs the command: its exit status, what it printed, and what it complained of."""

    def run(*words):
        try:
            code = main(list(words), places)
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@contextlib.contextmanager
def process(places, *words, **options):
    """The command as a process of its own."""
    named = ", ".join(
        f"{name}={str(value)!r}" if isinstance(value, str) else f"{name}=Path({str(value)!r})" for name, value in vars(places).items()
    )
    # In a shell's background Ctrl-C is ignored, and so it would be here.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heed}; import sys; from pathlib import Path; from swg_ha.cli import Places, main; sys.exit(main({list(words)!r}, Places({named})))"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "cwd": ROLE / "files", **options}
    with subprocess.Popen([sys.executable, "-c", program], **options) as running:
        try:
            yield running
        finally:
            running.kill()


def one_line(err, *parts):
    assert err.count("\n") == 1 and err.startswith("ha: "), err
    for part in parts:
        assert part in err
    return True


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["destroy"],
        ["--destroy"],
        ["start", "now"],
        ["status", "--jso"],
        ["status", "--json", "--watch"],
        ["status", "--watch", "0"],
        ["status", "--watch", "nan"],
        ["status", "--timeout", "-1"],
        ["failover", "--yes", "ps1"],
        ["failover", "ps1"],
        ["start", "--force"],
        ["pause", "0"],
        ["pause", "-5"],
        ["pause", "1.5"],
        ["pause", "1441"],
        ["pause", "9" * 5000],
        ["timeline", "0"],
        ["timeline", "51"],
        ["timeline", "²"],
        ["acknowledge"],
        ["acknowledge", "x", "--all"],
        ["logs", "-n", "0"],
        ["logs", "-n", "many"],
        ["logs", "--since", "yesteryear"],
        ["logs", "--ours", "-u", "heartbeat"],
    ],
    ids=lambda words: " ".join(words)[:30] or "nothing",
)
def test_what_is_no_command_gets_usage_and_2_and_changes_nothing(ha, manager, words):
    code, out, err = ha(*words)
    assert (code, out, manager.asked) == (2, "", [])
    assert err.startswith("usage: ha")
    assert words == [] or re.search(r"^ha[ :]", err.splitlines()[-1])


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_is_the_manual(ha, words):
    code, out, err = ha(*words)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 79


@pytest.mark.parametrize("name", COMMANDS)
def test_the_manual_has_every_command_and_each_has_its_help(ha, name):
    assert re.search(rf"^  {name}\b", ha("--help")[1], re.M)
    code, out, _ = ha(name, "--help")
    assert code == 0 and out.startswith(f"usage: ha {name} ") and "--timeout" in out


def test_the_manual_has_no_other_command(ha):
    assert set(re.findall(r"^  (\w+)", ha("--help")[1], re.M)) == set(COMMANDS)


@pytest.mark.parametrize("words", [["version"], ["--version"], ["VERSION"]])
def test_version_is_that_of_the_collection(ha, words):
    expected = re.search(r"^version: (\S+)$", (COLLECTION / "galaxy.yml").read_text(), re.M)[1]
    assert ha(*words) == (0, f"swg.ha {expected}\n", "")


@pytest.mark.parametrize("name", ["start", "stop", "restart", "RESTART"])
def test_changes_are_asked_for_and_their_progress_shown(ha, manager, name):
    manager.progress = ["one", "two"]
    assert ha(name) == (0, "one\ntwo\n", "")
    assert manager.asked == [{"do": name.lower()}]


@pytest.mark.parametrize(
    "words",
    [["start"], ["stop"], ["restart"], ["why"], ["status", "--json"], ["failover"], ["pause"], ["resume"], ["acknowledge", "x"]],
    ids=lambda words: words[0],
)
def test_without_ha_manager_they_say_how_to_start_it(ha, words):
    code, out, err = ha(*words)
    assert (code, out) == (1, "")
    assert one_line(err, f"ha: {words[0]}: ", "systemctl start ha_manager", "(NOT_RUNNING)")


def test_a_stop_can_be_forced(ha, manager):
    assert ha("stop", "--force")[0] == 0
    assert manager.asked == [{"do": "stop", "force": True}]


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["replicate"], {"file": None, "accept": False}),
        (["replicate", "/etc/shadow"], {"file": "/etc/shadow", "accept": False}),
        (["replicate", "--accept", "/a b"], {"file": "/a b", "accept": True}),
    ],
)
def test_files_are_replicated_on_demand(ha, manager, words, asked):
    manager.progress = ["/etc/shadow: 662 B in 0.2 s"]
    assert ha(*words) == (0, "/etc/shadow: 662 B in 0.2 s\n", "")
    assert manager.asked == [{"do": "replicate", **asked}]


def test_what_is_accepted_must_be_named(ha, manager):
    code, out, err = ha("replicate", "--accept")
    assert (code, out, manager.asked) == (2, "", []) and "--accept needs the FILE" in err


def test_a_refusal_is_one_line_with_its_code(ha, manager):
    manager.answers["failover"] = Refused("LAGGING", "ps1 is 30 MiB behind: wait, or 'ha failover --force'")
    code, out, err = ha("failover")
    assert (code, out, err) == (1, "", "ha: failover: ps1 is 30 MiB behind: wait, or 'ha failover --force' (LAGGING)\n")


def test_time_is_bounded(ha, manager):
    manager.hold = threading.Event()
    try:
        begun = time.monotonic()
        code, _, err = ha("stop", "--timeout", "0.2")
        assert time.monotonic() - begun < 5
        assert code == 1 and one_line(err, "0.2 s", "(TIMEOUT)")
    finally:
        manager.hold.set()


def cl_status(places, text):
    path = Path(places.cl_status)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    "script, printed",
    [
        ('[ "$*" = hbstatus ] && echo "Heartbeat is running on this machine."', "1"),
        ('echo "Heartbeat is stopped on this machine."; exit 1', "0"),
        ('echo "Heartbeat is apparently running on this machine, but refuses my connection"', "1"),
        (None, "0"),
    ],
    ids=["running", "stopped", "refusing", "not installed"],
)
def test_status_asks_heartbeat_itself(ha, places, script, printed):
    if script:
        cl_status(places, script)
    assert ha("status") == (0, f"{printed}\n", "")


@pytest.mark.parametrize("script", ["exec sleep 30", "exit 12"])
def test_status_without_an_answer_is_no_answer(ha, places, script):
    cl_status(places, script)
    code, out, err = ha("status", "--timeout", "0.3")
    assert (code, out) == (1, "")
    assert one_line(err, "ha: status: cl_status hbstatus: Heartbeat does not answer in time", "systemctl status heartbeat")


@pytest.mark.parametrize("role, printed", [("active", "1"), ("passive", "0"), ("undecided", "0")])
def test_am_i_active_is_what_ha_manager_says(ha, manager, places, role, printed):
    manager.document = document(role=role)
    (places.markers / "active").touch()
    assert ha("amIactive") == (0, f"{printed}\n", "")
    assert ha("AMIACTIVE") == (0, f"{printed}\n", "")


@pytest.mark.parametrize(
    "marker, virtual_ip, printed",
    [
        ("active", "127.0.0.1", "1"),
        ("active", "192.0.2.10", "0"),
        ("active", "", "1"),
        ("passive", "127.0.0.1", "0"),
        (None, "127.0.0.1", "0"),
    ],
)
def test_am_i_active_without_ha_manager_is_what_the_server_shows(ha, places, marker, virtual_ip, printed):
    if marker:
        (places.markers / marker).touch()
    places.module.write_text(MODULE_XML.format(virtual_ip=virtual_ip))
    places.runtime.write_text(json.dumps(RUNTIME_JSON))
    places.ha_cf.write_text("keepalive 1\ndeadtime 3\nnode ps1 ps2\n")
    assert ha("amIactive") == (0, f"{printed}\n", "")


def test_am_i_active_does_not_guess(ha, places):
    (places.markers / "active").touch()
    code, out, err = ha("amIactive")
    assert (code, out) == (1, "")
    assert one_line(err, str(places.runtime), str(places.module))


def test_status_json_is_the_document(ha, manager):
    code, out, err = ha("status", "--json")
    assert (code, json.loads(out), err) == (0, manager.document, "")


def test_an_answer_without_a_status_is_said(ha, manager):
    manager.document = None
    code, _, err = ha("status", "--json")
    assert code == 1 and one_line(err, "has no status")


def test_watch_in_a_pipe_has_no_escape_codes_and_ends_with_ctrl_c(places, manager):
    with process(places, "status", "--watch", "0.2", text=True) as running:
        seen = ""
        while seen.count("ps2: active, steady") < 2:
            line = running.stdout.readline()
            assert line, running.stderr.read()
            seen += line
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=10)
    assert (running.returncode, err) == (0, "")
    assert "\x1b" not in seen + out


@pytest.mark.parametrize("no_color, colored", [("", True), ("1", False)])
def test_watch_on_a_terminal(places, manager, no_color, colored):
    ours, theirs = pty.openpty()
    with process(places, "status", "--watch", "0.2", stdout=theirs, env={**os.environ, "NO_COLOR": no_color}) as running:
        os.close(theirs)
        seen = _read_until(ours, b"no writes for")
        running.send_signal(signal.SIGINT)
        running.wait(10)
    os.close(ours)
    assert running.returncode == 0
    assert seen.startswith(cli.CLEAR.encode())
    assert (b"\x1b[32myes" in seen) == colored


def _read_until(terminal, text):
    seen, deadline = b"", time.monotonic() + 10
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"not seen in time: {text!r}, but {seen!r}"
        seen += os.read(terminal, 65536)
    return seen


def test_watch_goes_on_when_ha_manager_is_restarted(places):
    there = Manager()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        first.enter_context(serving(places.control, there.handle))
        running = stack.enter_context(process(places, "status", "--watch", "0.2", text=True))
        for text in ("ps2: active, steady", "(NOT_RUNNING)", "ps2: active, steady"):
            while text not in (line := running.stdout.readline()):
                assert line, running.stderr.read()
            if text == "(NOT_RUNNING)":
                stack.enter_context(serving(places.control, there.handle))
            else:
                first.close()


def test_watch_needs_a_first_answer(ha):
    code, out, err = ha("status", "--watch")
    assert (code, out) == (1, "") and one_line(err, "(NOT_RUNNING)")


def test_why(ha, manager):
    manager.answers["why"] = {"why": ["short", "long " * 30, "\x1b[2J"]}
    code, out, err = ha("why")
    assert (code, err) == (0, "")
    assert out.startswith("short\nlong long") and max(map(len, out.splitlines())) <= 79 and "\x1b" not in out


def test_timeline(ha, manager):
    manager.answers["timeline"] = {"transitions": [transition(id=str(number), node=f"n{number}") for number in range(7)]}
    assert ha("timeline")[1].split("\n\n") == [timeline.show(transition(node=f"n{number}")) for number in range(4)] + [
        timeline.show(transition(node="n4")) + "\n"
    ]
    assert ha("timeline", "1")[1] == timeline.show(transition(node="n0")) + "\n"
    _, out, _ = ha("timeline", "--json", "50")
    assert [one["id"] for one in json.loads(out)] == [str(number) for number in range(7)]


def test_timeline_without_ha_manager_is_the_file(ha, places):
    there = timeline.Timeline(places.timeline)
    there.add(transition())
    assert ha("timeline") == (0, timeline.show(transition()) + "\n", "")


def test_a_timeline_that_is_empty_or_broken(ha, places):
    assert ha("timeline") == (0, "the role of this server has not changed yet\n", "")
    assert ha("timeline", "--json") == (0, "[]\n", "")
    places.timeline.write_text("{")
    code, out, err = ha("timeline")
    assert (code, out) == (1, "") and one_line(err, str(places.timeline), "start ha_manager")


def test_failover_shows_its_progress_and_what_it_cost(ha, manager):
    manager.progress = ["ps1 is ready", "writes stop"]
    manager.answers["failover"] = {"transition": hand_over(), "lost_bytes": 0}
    code, out, err = ha("Failover")
    assert (code, err) == (0, "")
    assert out == "ps1 is ready\nwrites stop\nps1 is active. Writes were interrupted for 0.410 s; nothing was lost.\n"
    assert manager.orders == [{"do": "failover", "force": False}]


def test_a_server_that_goes_down_says_so(ha, manager):
    manager.answers["failover"] = {"transition": hand_over(), "lost_bytes": 0}
    assert ha("failover", "--leaving")[0] == 0
    assert manager.orders == [{"do": "failover", "force": False, "leaving": True}]
    assert "--leaving" not in ha("help")[1]


def test_failover_json(ha, manager):
    manager.progress = ["ps1 is ready"]
    manager.answers["failover"] = {"transition": hand_over(), "lost_bytes": None}
    code, out, err = ha("failover", "--json")
    assert (code, err) == (0, "ps1 is ready\n")
    assert json.loads(out) == {"transition": hand_over(), "lost_bytes": None, "outage_seconds": 0.41}


@pytest.mark.parametrize(
    "answer, text",
    [
        ({"transition": hand_over(), "lost_bytes": 4096}, "up to 4.0 KiB of the write-ahead log are lost"),
        ({"transition": hand_over(), "lost_bytes": None}, "whether commits were lost is not known"),
        ({}, "How long writes were interrupted is not known"),
    ],
)
def test_failover_does_not_say_more_than_is_known(ha, manager, answer, text):
    manager.answers["failover"] = answer
    code, out, _ = ha("failover", "--force", "--yes", "ps1")
    assert code == 0 and text in " ".join(out.split())


def test_a_forced_failover_goes_to_the_server_that_was_named(ha, manager):
    assert ha("failover", "--force", "--yes", "ps1")[0] == 0
    assert manager.orders == [{"do": "failover", "force": True}]
    manager.document = document(role="passive")
    assert ha("failover", "--force", "--yes", "ps2")[0] == 0


@pytest.mark.parametrize("role, wrong, right", [("active", "ps2", "ps1"), ("passive", "ps1", "ps2"), ("active", "", "ps1")])
def test_a_forced_failover_of_another_name_is_not_done(ha, manager, role, wrong, right):
    manager.document = document(role=role)
    code, out, err = ha("failover", "--force", "--yes", wrong)
    assert (code, out, manager.orders) == (1, "", [])
    assert one_line(err, f"is not {right}", "nothing was done")


def test_a_forced_failover_is_not_done_without_a_word(ha, manager, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("ps1\n"))
    code, out, err = ha("failover", "--force")
    assert (code, out, manager.orders) == (1, "", [])
    assert err.splitlines()[-1].startswith("ha: failover: --force must be confirmed: add --yes ps1")


@pytest.mark.parametrize(
    "changes, texts",
    [
        (
            {"not_redundant_because": ["its first copy is at 40 %"]},
            ["ps1 becomes active although it may not be ready: its first copy is at 40 %."],
        ),
        ({"postgresql": {"lag_bytes": 3 * 2**20}}, ["It is 3.0 MiB of the write-ahead log behind.", "is lost to all who"]),
        ({"postgresql": {"lag_bytes": None}}, ["It is not known how far it is behind."]),
        (
            {"role": "passive", "peer": {"silent_seconds": 42.0}},
            ["ps1 was last heard 42.0 s ago", "If ps1 still serves somewhere, both will take writes"],
        ),
        ({"role": "passive", "peer": {"silent_seconds": None}}, ["ps1 was never heard"]),
        (
            {"role": "passive", "peer": {"connected": True, "role": "active"}, "not_redundant_because": ["nothing streams"]},
            ["ps2 becomes active although it may not be ready: nothing streams."],
        ),
    ],
)
def test_what_may_be_lost_is_said(changes, texts):
    said = " ".join(cli.may_be_lost(document(**changes)))
    for text in [*texts, "quarantine"]:
        assert text in said


@pytest.mark.parametrize(
    "typed, code",
    [(b"ps1\n", 0), (b"ps2\n", 1), (b"\n", 1), (b"\x04", 1), (b"\x03", 1)],
    ids=["right", "wrong", "nothing", "end", "Ctrl-C"],
)
def test_a_forced_failover_asks_on_a_terminal(places, manager, typed, code):
    ours, theirs = pty.openpty()
    with process(
        places, "failover", "--force", stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_take_terminal
    ) as running:
        os.close(theirs)
        seen = _read_until(ours, b"Type ps1, the server that is to become active: ")
        os.write(ours, typed)
        end = _read_until(ours, b"is active." if code == 0 else b"nothing was done")
        assert running.wait(10) == code
    os.close(ours)
    assert b"committed" in seen and b"Traceback" not in end
    assert manager.orders == ([{"do": "failover", "force": True}] if code == 0 else [])


def _take_terminal():
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_ctrl_c_leaves_a_failover_alone_and_says_so(places, manager):
    manager.progress = ["writes stop"]
    manager.hold = threading.Event()
    with process(places, "failover", text=True) as running:
        assert running.stdout.readline() == "writes stop\n"
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=10)
    manager.hold.set()
    assert running.returncode == 130
    assert err == "\nha: failover: interrupted: what ha_manager has begun goes on: see 'ha status --watch'\n"


def test_a_reader_that_has_seen_enough(places, manager):
    manager.answers["timeline"] = {"transitions": [transition()] * 50}
    reader, writer = os.pipe()
    os.close(reader)
    with process(places, "timeline", "50", stdout=writer, text=True) as running:
        os.close(writer)
        _, err = running.communicate(timeout=10)
    assert (running.returncode, err) == (1, "")


def test_a_full_disk_behind_standard_output(places, manager):
    manager.answers["why"] = {"why": ["x"]}
    with open("/dev/full", "w") as full, process(places, "why", stdout=full, text=True) as running:
        _, err = running.communicate(timeout=10)
    assert running.returncode != 0
    assert "No space left on device" in err and "Traceback" not in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_who_is_not_root_is_told(tmp_path, places, manager):
    for folder in [tmp_path, *tmp_path.parents][:3]:
        folder.chmod(folder.stat().st_mode | 0o011)
    program = (
        "import os, sys; from pathlib import Path; from swg_ha.cli import Places, main\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(['stop'], Places(Path(sys.argv[1]))))"
    )
    done = subprocess.run([sys.executable, "-c", program, places.control], cwd=ROLE / "files", capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "ha: stop: only root may speak with ha_manager: use sudo (NOT_ALLOWED)\n"
    assert manager.asked == []


def test_pause(ha, manager, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "ops")
    code, out, err = ha("pause", "30", "--reason", "new\nswitch")
    assert (code, err) == (0, "") and "30 minutes" in out
    assert manager.orders == [{"do": "pause", "minutes": 30, "reason": "new switch", "by": "ops"}]


def test_pause_is_an_hour_and_knows_who_it_was(ha, manager, monkeypatch):
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert ha("pause")[0] == 0
    (asked,) = manager.orders
    assert (asked["minutes"], asked["reason"]) == (60, "") and asked["by"]


def test_resume(ha, manager):
    assert ha("resume") == (0, "automatic failover is on\n", "")
    assert manager.orders == [{"do": "resume"}]


@pytest.mark.parametrize("name", ["pause", "resume"])
def test_it_is_said_when_the_other_server_does_not_know(ha, manager, name):
    manager.answers[name] = {"peer": False}
    assert f"run 'ha {name}' there too" in ha(name)[1]
    manager.answers[name] = {"peer": True}
    assert "there too" not in ha(name)[1]


def test_acknowledge_one(ha, manager):
    assert ha("acknowledge", "q1") == (0, "q1 is acknowledged\n", "")
    assert manager.asked == [{"do": "acknowledge", "name": "q1"}]


def test_acknowledge_all_that_nobody_has_acknowledged(ha, manager):
    manager.document = document(quarantine=[quarantine(name="a"), quarantine(name="b", acknowledged=True), quarantine(name="c")])
    assert ha("acknowledge", "--all")[0] == 0
    assert [request["name"] for request in manager.orders] == ["a", "c"]
    manager.document = document()
    assert ha("acknowledge", "--all") == (0, "there is nothing to acknowledge\n", "")


@pytest.mark.parametrize("name", ["ha", "ha_manager", "ha_gate"])
def test_the_launchers_run_what_is_installed_and_nothing_else(tmp_path, name):
    said = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__runtime_programs"][name]
    package = tmp_path / "lib/swg_ha"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    main = "import sys\n\ndef main(*arguments):\n    print(__file__, sys.flags.isolated, *arguments)\n    return 7\n"
    (package / f"{said['module']}.py").write_text(main)
    environment = jinja2.Environment(keep_trailing_newline=True)
    environment.filters["comment"] = "# {}".format
    text = environment.from_string((ROLE / "templates/usr/lib/swg_ha/program.j2").read_text()).render(**said, ansible_managed="managed")
    assert text.startswith("#!/usr/bin/python3 -I")
    launcher = tmp_path / name
    launcher.write_text(text.replace('"/usr/lib/swg_ha"', repr(str(tmp_path / "lib"))))
    launcher.chmod(0o755)
    done = subprocess.run(
        [launcher, "start"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": "/nowhere"}, capture_output=True, text=True, timeout=30
    )
    told = " ['start']" if name == "ha_gate" else ""
    assert (done.returncode, done.stdout) == (7, f"{package / said['module']}.py 1{told}\n"), done.stderr


HA_CF = "keepalive 500ms\ndeadtime 3\n"


@pytest.fixture
def configured(places):
    """What enable_ha has written."""
    places.runtime.write_text(json.dumps(RUNTIME_JSON))
    places.module.write_text(MODULE_XML.format(virtual_ip="192.0.2.10"))
    places.ha_cf.write_text(HA_CF)
    return places


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "--lines=50"),
        (["-f"], "--lines=10 --follow"),
        (["-n", "3", "-u", "heartbeat", "-u", "postgresql@*"], "--lines=3 --unit=heartbeat --unit=postgresql@*"),
        (["--since", "1970-01-02 00:00"], f"--since=@{time.mktime((1970, 1, 2, 0, 0, 0, 0, 0, -1)):.6f}"),
        (["--ours", "-n", "1"], "--lines=1 " + " ".join(f"--unit={unit}" for unit in (*cli.OURS, "postgresql@15-main"))),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_its_own_log_is_journalctls(configured, words, expected):
    Path(configured.journalctl).write_text('#!/bin/sh\necho "$@"\nexit 7\n')
    Path(configured.journalctl).chmod(0o755)
    with process(configured, "logs", *words) as running:
        out, _err = running.communicate(timeout=20)
    assert (running.returncode, out.decode()) == (7, f"{expected}\n")


def test_the_log_of_the_other_server_needs_the_settings_of_the_pair(ha):
    code, out, err = ha("logs", "--peer")
    assert (code, out) == (1, "") and one_line(err, "runtime.json", "swg.ha.enable_ha")


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"port": true}', '{"port": 70000}', '{"port": "x"}'])
def test_the_log_of_the_other_server_needs_its_port(ha, configured, text):
    if text is not None:
        configured.logrelay.write_text(text)
    code, out, err = ha("logs", "--peer")
    assert (code, out) == (1, "") and one_line(err, "ha: logs: ", "logrelay.json")
