# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of role status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.swg.ha.plugins.module_utils.status import pair_report, screen


def report(observed: Mapping[str, Mapping[str, Any]], pair: str, virtual_ip: str) -> dict[str, Any]:
    """pair_report() with what is piped in first."""
    return pair_report(pair, virtual_ip, observed)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        return {"pair_report": report, "status_screen": screen}
