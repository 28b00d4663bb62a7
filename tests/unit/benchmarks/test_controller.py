# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.benchmarks.bench import NotMeasured
from tests.benchmarks.controller import Controller, changed, results
from tools.recap import Counts, recap

OUTPUT = """\
ok: [ps1] => {"msg": "ps9 : ok=1 changed=99 unreachable=0 failed=0 "}

PLAY RECAP *********************************************************************
east-ps1                   : ok=68   changed=2    unreachable=0    failed=0    skipped=9    rescued=0    ignored=0   
ps2.example.com            : ok=65   changed=11   unreachable=1    failed=3    skipped=11   rescued=0    ignored=0   

Playbook run took 0 days
"""  # noqa: W291 (as Ansible prints it)


def test_recap() -> None:
    assert recap(OUTPUT) == {"east-ps1": Counts(68, 2, 0, 0), "ps2.example.com": Counts(65, 11, 1, 3)}
    assert changed(OUTPUT) == 13


def test_a_run_that_was_cut_off_has_no_count() -> None:
    cut = OUTPUT.partition("PLAY RECAP")[0]
    assert recap(cut) == {}
    with pytest.raises(NotMeasured, match="no recap"):
        changed(cut)


def report(*tasks: dict[str, object]) -> str:
    return json.dumps({"plays": [{"tasks": [{"hosts": hosts} for hosts in tasks]}]}, indent=4)


def test_results_of_an_action_among_warnings() -> None:
    text = report(
        {"ps1": {"action": "swg.ha.pg_replica", "skipped": True}, "ps2": {"action": "swg.ha.pg_replica", "bytes": 1}},
        {"ps2": {"action": "swg.ha.pg_replica", "bytes": 2}},
        {"ps2": {"action": "swg.ha.pg_cluster", "bytes": 3}},
    )
    found = results(f"[WARNING]: {{{{ braces }}}}\n{text}\n[WARNING]: the end {{\n", "swg.ha.pg_replica")
    assert found == {"ps2": {"action": "swg.ha.pg_replica", "bytes": 2}}


def test_results_without_json() -> None:
    with pytest.raises(NotMeasured, match="no JSON"):
        results("ERROR! no inventory\n", "swg.ha.pg_replica")


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    program = tmp_path / "bin/ansible-playbook"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\nprint(sys.argv[1:], os.environ.get('MORE'))\nsys.exit('--check' in sys.argv)\n"
    )
    program.chmod(0o755)
    return Controller(tmp_path, "hosts.yml", tmp_path)


def test_every_run_has_a_log_of_its_own(controller: Controller, tmp_path: Path) -> None:
    played = controller.must_play("swg.ha.enable_ha", env={"MORE": "more"})
    assert played.output == "['--inventory', 'hosts.yml', 'swg.ha.enable_ha'] more\n"
    assert played.seconds > 0
    assert controller.play("swg.ha.enable_ha", "--check").status == 1
    assert (tmp_path / "ansible-01.log").read_text() == played.output
    with pytest.raises(NotMeasured, match=r"swg.ha.enable_ha --check failed with 1: see .*/ansible-03.log"):
        controller.must_play("swg.ha.enable_ha", "--check")
