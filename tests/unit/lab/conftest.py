# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's own Python is beside the collection's."""

from __future__ import annotations

import sys
from pathlib import Path

LAB = str(Path(__file__).resolve().parents[3] / "lab")
if LAB not in sys.path:
    sys.path.insert(0, LAB)
