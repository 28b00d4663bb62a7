#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: program_tree
short_description: A folder of Python programs, exactly as shipped
version_added: 0.1.0
author:
  - The swg.ha authors (@swg)
description:
  - Makes a folder of the host hold the Python files that are sent, and nothing else. Files of an older version are removed.
  - Each file is replaced in one step and is on the disk when the module returns. A power cut leaves the old file or the new one.
  - The files are compiled, so that no program has to do it when it starts. This is on the disk as well.
  - All of it is one question to the host, whatever the number of files.
options:
  src:
    description:
      - The folder on the controller, below the role's or the playbook's C(files) unless it is an absolute path.
    type: str
    required: true
  include:
    description:
      - Which files below O(src) are sent, by path or by pattern, relative to it.
      - A path or a pattern that fits no file is an error.
    type: list
    elements: str
    default: ["*.py"]
  dest:
    description:
      - The folder on the host. It belongs to this module alone.
    type: path
    required: true
  archive:
    description:
      - The files, packed. The action part of this module fills it in.
    type: str
attributes:
  action:
    description: Indicates this has a corresponding action plugin so some parts of the options can be executed on the controller.
    support: full
  check_mode:
    description: Can run in check mode and return what it would otherwise.
    support: full
  diff_mode:
    description: Shows differences.
    support: partial
    details: The names of the files that change.
  platform:
    description: The operating systems that it runs on.
    support: full
    platforms: posix
notes:
  - Files are owned by root, for root alone to write and for all to read. Folders that are missing are created alike.
"""

EXAMPLES = r"""
- name: Install the package
  swg.ha.program_tree:
    src: swg_ha
    include: ["*.py", "steps/*.py"]
    dest: /usr/lib/swg_ha/swg_ha
"""

RETURN = r"""
written:
  description: The files that were written or compiled, relative to O(dest).
  returned: success
  type: list
  elements: str
  sample: [daemon.py, steps/promote.py]
removed:
  description: What was there and is not shipped, relative to O(dest).
  returned: success
  type: list
  elements: str
  sample: [steps/demote.py]
files:
  description: Every file that is shipped, as a path on the host.
  returned: success
  type: list
  elements: str
  sample: [/usr/lib/swg_ha/swg_ha/daemon.py]
"""

import importlib.util
import os
import py_compile
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.swg.ha.plugins.module_utils.durable import locked, make_folders, replace, sync
from ansible_collections.swg.ha.plugins.module_utils.program_archive import unpacked

CACHE = "__pycache__"


@dataclass(frozen=True)
class Difference:
    """What is to be done, each relative to the folder: sources to write, sources to compile, and what to remove."""

    write: tuple[str, ...]
    compile: tuple[str, ...]
    remove: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.write or self.compile or self.remove)


def compiled(source: str) -> str:
    """Where Python looks for the compiled form of a source."""
    return importlib.util.cache_from_source(source)


def is_current(source: str) -> bool:
    """Would Python take the compiled form for that of the source? It compares time and size, which stand in bytes 8 to 16."""
    try:
        status = os.stat(source)
        with open(compiled(source), "rb") as file:
            head = file.read(16)
    except OSError:
        return False
    said = (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (status.st_size & 0xFFFFFFFF).to_bytes(4, "little")
    return head == importlib.util.MAGIC_NUMBER + bytes(4) + said


def is_installed(path: str, content: bytes) -> bool:
    """Is the file there with this content, a regular file of root's that all may read?"""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    attributes = (stat.S_ISREG(status.st_mode), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    if attributes != (True, 0o644, os.geteuid(), os.getegid()) or status.st_size != len(content):
        return False
    with open(path, "rb") as file:
        return file.read() == content


def compare(dest: str, shipped: Mapping[str, bytes]) -> Difference:
    """What differs between the folder and the files that are shipped (by path relative to it)."""
    write = tuple(name for name, content in shipped.items() if not is_installed(os.path.join(dest, name), content))
    stale = tuple(name for name in shipped if name not in write and not is_current(os.path.join(dest, name)))
    folders = {os.path.dirname(name) for name in shipped} | {""}
    folders |= {os.path.join(folder, CACHE) for folder in folders}
    # Other versions of Python may have their own compiled forms of what is shipped.
    caches = {os.path.join(os.path.dirname(name), CACHE, os.path.basename(name).removesuffix(".py")) for name in shipped}
    remove = []
    for folder, below, files in os.walk(dest):
        here = os.path.relpath(folder, dest).removeprefix(".").removeprefix("/")
        for name in list(below):
            path = os.path.join(here, name)
            if not any(known == path or known.startswith(f"{path}/") for known in folders):
                below.remove(name)
                remove.append(path)
        for name in files:
            path = os.path.join(here, name)
            known = path in shipped or (os.path.basename(here) == CACHE and os.path.join(here, name.split(".")[0]) in caches)
            if not known:
                remove.append(path)
    return Difference(write, stale, tuple(sorted(remove)))


def apply(dest: str, shipped: Mapping[str, bytes], difference: Difference) -> None:
    """Bring it about. Raises OSError, and py_compile.PyCompileError for a file that is no Python."""
    make_folders(dest)
    for name in difference.remove:
        path = os.path.join(dest, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
        sync(os.path.dirname(path))
    for name in difference.write:
        path = os.path.join(dest, name)
        folder = os.path.dirname(path)
        make_folders(folder)
        if os.path.islink(path):
            os.unlink(path)
        with locked(folder):
            replace(path, shipped[name], lambda new: os.chmod(new, 0o644))
    for name in (*difference.write, *difference.compile):
        target = compiled(os.path.join(dest, name))
        make_folders(os.path.dirname(target))
        py_compile.compile(os.path.join(dest, name), cfile=target, doraise=True)
        # A power cut must not leave a half one, which no program would start with.
        sync(target)
        sync(os.path.dirname(target))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "str", "required": True},
            "include": {"type": "list", "elements": "str", "default": ["*.py"]},
            "dest": {"type": "path", "required": True},
            # No secret, but a hundred kilobytes that nobody wants to have in the journal at each run.
            "archive": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    dest = module.params["dest"]
    try:
        shipped = unpacked(module.params["archive"] or "")
        difference = compare(dest, shipped)
        if difference and not module.check_mode:
            apply(dest, shipped, difference)
    except (OSError, ValueError, py_compile.PyCompileError) as error:
        module.fail_json(msg=f"{dest}: {error}")
    else:
        written = sorted((*difference.write, *difference.compile))
        module.exit_json(
            changed=bool(difference),
            written=written,
            removed=list(difference.remove),
            files=[os.path.join(dest, name) for name in shipped],
            diff={
                "before": "".join(f"{name}\n" for name in difference.remove),
                "after": "".join(f"{name}\n" for name in written),
                "before_header": dest,
                "after_header": dest,
            },
        )


if __name__ == "__main__":
    main()
