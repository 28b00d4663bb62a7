# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from tools.scenarios import changes_foretold

RECAP = "ps1                        : ok=9    changed={}    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0"


def output(*actions: tuple[str, int]) -> str:
    lines = []
    for action, changed in actions:
        lines += [f"INFO     [default > {action}] Executing", "PLAY RECAP ****", RECAP.format(changed)]
    return "\n".join(lines)


def test_a_check_of_bare_hosts_may_foretell_changes() -> None:
    assert changes_foretold(output(("check", 12), ("converge", 12), ("idempotence", 0), ("check", 0), ("verify", 3))) == []


def test_a_check_after_converge_may_not() -> None:
    assert changes_foretold(output(("check", 12), ("converge", 12), ("check", 2))) == ["check after converge: ps1 would change 2 time(s)"]
