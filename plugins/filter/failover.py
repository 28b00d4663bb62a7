# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of role failover."""

from __future__ import annotations

from typing import Any

from ansible_collections.swg.ha.plugins.module_utils.failover import pair_plan, timeline


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        return {"failover_plan": pair_plan, "failover_timeline": timeline}
