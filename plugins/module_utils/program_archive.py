# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several text files as one short text, and back: what swg.ha.program_tree sends to a host."""

from __future__ import annotations

import base64
import json
import posixpath
import zlib
from collections.abc import Mapping
from pathlib import Path


def collected(folder: Path, patterns: list[str]) -> dict[str, str]:
    """The files below a folder that the patterns name, by their relative path. Raises ValueError for a pattern that fits none."""
    found: dict[str, str] = {}
    for pattern in patterns:
        files = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        if not files:
            raise ValueError(f"no file fits {pattern} below {folder}")
        found |= {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}
    return found


def packed(files: Mapping[str, str]) -> str:
    """The files, by relative path, as one line."""
    return base64.b64encode(zlib.compress(json.dumps(files).encode())).decode()


def unpacked(archive: str) -> dict[str, bytes]:
    """The files of an archive. Raises ValueError for one that is none, or that has a file outside of its folder."""
    try:
        files = json.loads(zlib.decompress(base64.b64decode(archive, validate=True)))
    except (ValueError, zlib.error) as error:
        raise ValueError(f"the archive cannot be read: {error}") from error
    for name in files:
        if posixpath.isabs(name) or posixpath.normpath(name) != name or name.startswith(".."):
            raise ValueError(f"{name!r} is no path below the folder")
    return {name: content.encode() for name, content in files.items()}
