# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.swg.ha.plugins.modules import cl_status_facts

STAND_IN = """#!/bin/sh
case "$*" in
  hbstatus) echo "Heartbeat is running on this machine." ;;
  rscstatus) echo {rscstatus} ;;
  "listnodes -v") printf '\\nps2\\tdead\\t(nodetype: normal)\\n\\teth0\\tdead\\n' ;;
  "hbparameter -p deadtime") echo 5 ;;
  *) exit 1 ;;
esac
"""
EMPTY = {
    "installed": False,
    "running": False,
    "rscstatus": None,
    "parameters": {},
    "nodes": {},
    "virtual_ip_held": None,
    "virtual_ip_interface": None,
    "role": None,
    "reason_code": None,
    "reason": None,
}


@pytest.fixture
def run_module(capsys):
    """Runs the module with arguments; returns (exit status, result)."""

    def run(**arguments):
        with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
            cl_status_facts.main()
        return ended.value.code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def cl_status(tmp_path):
    """Puts a program in the place of cl_status that answers with the given rscstatus; returns its path."""

    def install(rscstatus):
        program = tmp_path / "cl_status"
        program.write_text(STAND_IN.format(rscstatus=rscstatus), encoding="utf-8")
        program.chmod(0o755)
        return str(program)

    return install


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_host_without_heartbeat(run_module, tmp_path, check_mode):
    status, result = run_module(cl_status_path=str(tmp_path / "missing"), _ansible_check_mode=check_mode)
    facts = result["ansible_facts"]["ha_heartbeat"]
    assert status == 0 and result["changed"] is False
    assert "not installed" in facts.pop("problem")
    assert facts == EMPTY


def test_facts_of_a_running_heartbeat(run_module, cl_status):
    status, result = run_module(cl_status_path=cl_status("local"), virtual_ip="127.0.0.1", default_active=False, previous_role="active")
    assert status == 0 and result["changed"] is False
    assert result["ansible_facts"]["ha_heartbeat"] == {
        "installed": True,
        "running": True,
        "problem": None,
        "rscstatus": "local",
        "parameters": {"deadtime": "5"},
        "nodes": {"ps2": {"status": "dead", "type": "normal", "links": {"eth0": "dead"}}},
        "virtual_ip_held": True,
        "virtual_ip_interface": "lo",
        "role": "passive",
        "reason_code": "RSC_LOCAL_PEER_UNKNOWN",
        "reason": (
            "Heartbeat holds this server's own resources, of which the default passive has none; "
            "it was active, but the other server is not known to be passive"
        ),
    }


def test_the_peers_role_counts(run_module, cl_status):
    _status, result = run_module(cl_status_path=cl_status("local"), default_active=False, previous_role="active", peer_role="passive")
    assert result["ansible_facts"]["ha_heartbeat"]["reason_code"] == "RSC_LOCAL_STAYED_ACTIVE"


def test_an_address_that_no_interface_has(run_module, cl_status):
    _status, result = run_module(cl_status_path=cl_status("all"), virtual_ip="192.0.2.10", default_active=True)
    facts = result["ansible_facts"]["ha_heartbeat"]
    assert (facts["virtual_ip_held"], facts["virtual_ip_interface"]) == (False, None)
    assert (facts["role"], facts["reason_code"]) == ("active", "RSC_ALL")


def test_a_heartbeat_that_hangs_is_no_failure(run_module, tmp_path):
    program = tmp_path / "cl_status"
    program.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    program.chmod(0o755)
    status, result = run_module(cl_status_path=str(program), timeout=0.2, default_active=True)
    facts = result["ansible_facts"]["ha_heartbeat"]
    assert status == 0
    assert (facts["running"], facts["rscstatus"]) == (True, None)
    assert "within 0.2 s" in facts["problem"]
    assert (facts["role"], facts["reason_code"]) == ("unchanged", "NO_ANSWER")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout": 0}, "timeout is 0: must be more than 0 seconds"),
        ({"virtual_ip": "192.0.2.300"}, "virtual_ip is '192.0.2.300': must be an IP address"),
        ({"peer_role": "standby"}, "value of peer_role must be one of: active, passive"),
    ],
)
def test_wrong_arguments(run_module, arguments, message):
    status, result = run_module(**arguments)
    assert status == 1
    assert message in result["msg"]
