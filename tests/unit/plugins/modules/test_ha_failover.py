# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import socket
import threading

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.swg.ha.plugins.module_utils import control_client
from ansible_collections.swg.ha.plugins.modules import ha_failover, ha_manager_info

STATUS = {
    "node": "ps1",
    "peer_node": "ps2",
    "role": "active",
    "peer": {"connected": True, "role": "passive"},
    "redundant": True,
    "not_redundant_because": [],
}
LAME = {**STATUS, "redundant": False, "not_redundant_because": ["ps2 does not stream"]}
TRANSITION = {"kind": "becoming_passive", "outcome": "done"}


class Manager:
    """A control socket that gives prepared answers (texts as they are sent) by what is asked for, and keeps the requests."""

    def __init__(self, path, answers):
        self.path, self.answers, self.requests = str(path), answers, []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        self.socket.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _address = self.socket.accept()
            except OSError:
                return
            with connection:
                request = json.loads(connection.makefile().readline())
                self.requests.append(request)
                answer = self.answers[request["do"]]
                connection.sendall((answer.pop(0) if isinstance(answer, list) else answer).encode())


def line(**answer):
    return json.dumps(answer) + "\n"


@pytest.fixture(name="manager")
def managers(tmp_path):
    made = []

    def make(**answers):
        made.append(Manager(tmp_path / "control.sock", {"status": line(ok=True, status=STATUS), **answers}))
        return made[-1]

    yield make
    for manager in made:
        manager.socket.shutdown(socket.SHUT_RDWR)
        manager.socket.close()


def run(capsys, module, path, check=False, **options):
    with patch_module_args({"control_socket": str(path), "_ansible_check_mode": check, **options}), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


MOVED = line(progress="checkpoint: done") + line(ok=True, transition=TRANSITION, lost_bytes=0)


def test_the_role_moves(manager, capsys):
    there = manager(failover=MOVED)
    result = run(capsys, ha_failover, there.path)
    assert (result["changed"], result["active"], result["gave_up"]) == (True, "ps2", "ps1")
    assert (result["transition"], result["lost_bytes"]) == (TRANSITION, 0)
    assert result["diff"] == {"before": "active: ps1\n", "after": "active: ps2\n"}
    assert there.requests == [{"do": "status"}, {"do": "failover", "force": False}]


def test_what_is_so_already_is_left_alone(manager, capsys):
    there = manager()
    result = run(capsys, ha_failover, there.path, to="ps1", state="forced", confirm="ps1")
    assert (result["changed"], result["active"], result["transition"], result["lost_bytes"]) == (False, "ps1", None, 0)
    assert there.requests == [{"do": "status"}]


def test_a_forced_one_is_confirmed(manager, capsys):
    there = manager(failover=line(ok=True, transition=TRANSITION, lost_bytes=None))
    refused = run(capsys, ha_failover, there.path, state="forced", confirm="ps1")
    assert refused["failed"] and "confirm=ps2" in refused["msg"]
    assert there.requests == [{"do": "status"}]
    assert run(capsys, ha_failover, there.path, state="forced", confirm="ps2")["lost_bytes"] is None
    assert there.requests[-1] == {"do": "failover", "force": True}
    assert run(capsys, ha_failover, there.path, state="forced")["failed"]


@pytest.mark.parametrize(
    ("status", "options", "failed"), [(STATUS, {}, False), (LAME, {}, True), (LAME, {"state": "forced", "confirm": "ps2"}, False)]
)
def test_a_dry_run_tells_whether_it_would_be_possible(manager, capsys, status, options, failed):
    there = manager(status=line(ok=True, status=status))
    result = run(capsys, ha_failover, there.path, check=True, **options)
    assert result.get("failed", False) is failed
    assert "ps2 does not stream" in result["msg"] if failed else result["changed"]
    assert there.requests == [{"do": "status"}]


def test_a_refusal_comes_with_its_code(manager, capsys):
    there = manager(failover=line(ok=False, code="LAGGING", error="ps2 is 17 MB behind: wait, or force it"))
    result = run(capsys, ha_failover, there.path)
    assert (result["failed"], result["code"], result["msg"]) == (True, "LAGGING", "ps2 is 17 MB behind: wait, or force it")


@pytest.mark.parametrize(
    ("answer", "code"),
    [("", "LOST"), ("nonsense\n", "GARBLED"), ("[1]\n", "GARBLED"), (line(progress="begun"), "LOST"), ('{"ok": tr', "LOST")],
)
def test_an_answer_that_is_none(manager, answer, code):
    there = manager(status=answer)
    with pytest.raises(control_client.ControlError) as refusal:
        control_client.ask({"do": "status"}, timeout=5, path=there.path)
    assert refusal.value.code == code


def test_nobody_answers(tmp_path, capsys):
    result = run(capsys, ha_failover, tmp_path / "none.sock")
    assert (result["failed"], result["code"]) == (True, "NOT_RUNNING")
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(tmp_path / "deaf.sock"))
        listener.listen()
        result = run(capsys, ha_failover, tmp_path / "deaf.sock", timeout=0.1)
    assert (result["failed"], result["code"]) == (True, "TIMEOUT")
    assert "0.1 s" in result["msg"]


def test_info_of_a_host_without_it(tmp_path, capsys):
    result = run(capsys, ha_manager_info, tmp_path / "none.sock", settings_file=str(tmp_path / "runtime.json"), patience=60)
    assert result["changed"] is False
    assert [result[name] for name in ("installed", "running", "problem", "status")] == [False, False, "ha_manager is not installed", None]


@pytest.mark.parametrize(("text", "status"), [(json.dumps(STATUS), STATUS), ("{", None), ("[]", None), (None, None)])
def test_info_of_one_that_is_silent_is_what_it_wrote_last(tmp_path, capsys, text, status):
    (tmp_path / "runtime.json").write_text("{}")
    if text is not None:
        (tmp_path / "status").write_text(text)
    options = {"settings_file": str(tmp_path / "runtime.json"), "status_file": str(tmp_path / "status")}
    result = run(capsys, ha_manager_info, tmp_path / "none.sock", **options)
    assert [result[name] for name in ("installed", "running", "status")] == [True, False, status]
    assert "does not run" in result["problem"]


def test_info_waits_until_the_pair_is_redundant(manager, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ha_manager_info, "INTERVAL_S", 0.01)
    (tmp_path / "runtime.json").write_text("{}")
    there = manager(status=[line(ok=True, status=LAME), line(ok=True, status=LAME), line(ok=True, status=STATUS)])
    result = run(capsys, ha_manager_info, there.path, settings_file=str(tmp_path / "runtime.json"), patience=60)
    assert (result["status"], len(there.requests)) == (STATUS, 3)
