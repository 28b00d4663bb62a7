# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of role preflight."""

from __future__ import annotations

from typing import Any

from ansible_collections.swg.ha.plugins.module_utils.preflight import installed_packages, link_probes, package_versions


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        return {"installed_packages": installed_packages, "link_probes": link_probes, "package_versions": package_versions}
