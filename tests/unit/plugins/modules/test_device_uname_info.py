# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.swg.ha.plugins.modules.device_uname_info import problem


@pytest.mark.parametrize("expected", [None, "ps2"])
def test_a_name_that_is_right_or_not_compared(expected):
    assert problem("ps2", expected, "192.0.2.12") is None


def test_another_name_is_told_with_both_and_the_remedy():
    text = problem("old", "ps2", "192.0.2.12")
    assert text.startswith("192.0.2.12 tells the name old, but it is ps2 by its facts: ")
    assert "restart the service device_uname there" in text


def test_capital_letters_count():
    assert problem("PS2", "ps2", "192.0.2.12")
