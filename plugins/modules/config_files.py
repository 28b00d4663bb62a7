#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: config_files
short_description: Several small configuration files in one step
version_added: 0.1.0
author:
  - The swg.ha authors (@swg)
description:
  - Writes files with given contents, owners and modes, all that belong together in one task, after the folders that they need. Then it
    removes what is not to be there.
  - Each file is replaced in one step and is on the disk when the module returns (temporary file, fsync, rename, fsync of the folder).
    A power cut leaves the old file or the new one.
  - M(ansible.builtin.template) does neither the one nor the other. It also asks the server twice for each file, which is most of the time
    of a run that changes nothing.
options:
  folders:
    description:
      - Folders that are to be there, in the order in which they are made. What is in them is left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The folder. A link to one counts as it where root has made it. What is something else is an error.
        type: path
        required: true
      owner:
        description: Name of its owner.
        type: str
        default: root
      group:
        description: Name of its group.
        type: str
        default: root
      mode:
        description: Its permissions, in octal.
        type: str
        default: "0755"
      recurse:
        description:
          - Where it has another owner or group, give what is in it to the new ones first, and the folder itself last, so that a run that was
            cut off is carried on by the next one. No link is followed.
        type: bool
        default: false
  files:
    description:
      - The files, in the order in which they are written.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file. Where it is a symbolic link, the link is replaced.
        type: path
        required: true
      content:
        description: What the file is to hold.
        type: str
        required: true
      owner:
        description: Name of its owner.
        type: str
        default: root
      group:
        description: Name of its group.
        type: str
        default: root
      mode:
        description: Its permissions, in octal.
        type: str
        default: "0644"
  absent:
    description:
      - Files, links and folders with all that is in them that are not to be there, in the order in which they are removed. The last one is
        gone from the disk only when all others are, so it can tell whether the task was cut off.
    type: list
    elements: path
    default: []
  secret:
    description:
      - Leave the contents out of the difference. Set C(no_log) for the task as well.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and return what it would otherwise.
    support: full
  diff_mode:
    description: Shows differences.
    support: full
  platform:
    description: The operating systems that it runs on.
    support: full
    platforms: posix
notes:
  - Missing folders are created, for root alone to write and for all to read.
"""

EXAMPLES = r"""
- name: Write Heartbeat's nodes and resources
  swg.ha.config_files:
    files:
      - path: /etc/ha.d/ha.cf
        content: "{{ lookup('ansible.builtin.template', 'ha.cf.j2') }}"
      - path: /etc/ha.d/haresources
        content: "{{ lookup('ansible.builtin.template', 'haresources.j2') }}"

- name: Remove them
  swg.ha.config_files:
    absent: [/etc/ha.d/haresources, /etc/ha.d/ha.cf]
"""

RETURN = r"""
changed_files:
  description: What was written, made or removed, or whose owner or mode was changed.
  returned: success
  type: list
  elements: str
  sample: [/etc/ha.d/ha.cf]
"""

import grp
import os
import pwd
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.swg.ha.plugins.module_utils.durable import locked, make_folders, replace, sync, sync_file_system

OWNED = {
    "path": {"type": "path", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}
FOLDER_OPTIONS = {**OWNED, "mode": {"type": "str", "default": "0755"}, "recurse": {"type": "bool", "default": False}}
FILE_OPTIONS = {**OWNED, "mode": {"type": "str", "default": "0644"}, "content": {"type": "str", "required": True}}


@dataclass(frozen=True)
class Wanted:
    """A file as it is to be; content None: a folder. Its owner is named: in a dry run the account may not exist yet.

    recurse: what is in a folder that gets another owner gets it as well.
    """

    path: str
    content: str | None
    owner: str
    group: str
    mode: int
    recurse: bool = False


@dataclass(frozen=True)
class Found:
    """A file as it is; content None: there is none, or what is there is no regular file. folder: it is one."""

    content: str | None
    owner: str
    group: str
    mode: int
    folder: bool = False


def wanted(params: dict[str, Any]) -> Wanted:
    """What the options of one file or folder mean. Raises ValueError."""
    try:
        mode = int(params["mode"], 8)
    except ValueError as error:
        raise ValueError(f"the mode of {params['path']} is {params['mode']!r}: it must be octal, like '0644'") from error
    return Wanted(params["path"], params.get("content"), params["owner"], params["group"], mode, params.get("recurse", False))


def name_of(number: int, database: Any) -> str:
    """The name of an account or a group, or its number where it has none."""
    try:
        return str(database(number)[0])
    except KeyError:
        return str(number)


def leads_to_folder(path: str) -> bool:
    """Whether there is a folder, or a link to one that root has made: a larger disk is a common reason for one."""
    try:
        return os.path.isdir(path) and (not os.path.islink(path) or os.lstat(path).st_uid in (0, os.geteuid()))
    except FileNotFoundError:
        return False


def find(path: str) -> Found:
    """Look at a file, without following a symbolic link to one."""
    try:
        status = os.stat(path) if leads_to_folder(path) else os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Found(None, "", "", 0)
    content = None
    if stat.S_ISREG(status.st_mode):
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            content = file.read()
    owner, group = name_of(status.st_uid, pwd.getpwuid), name_of(status.st_gid, grp.getgrgid)
    return Found(content, owner, group, stat.S_IMODE(status.st_mode), stat.S_ISDIR(status.st_mode))


def differs(want: Wanted, found: Found) -> bool:
    """Is there anything to do?"""
    return Found(want.content, want.owner, want.group, want.mode, want.content is None) != found


def write(want: Wanted) -> None:
    """Bring the file or folder about. Raises OSError, and KeyError for an account that does not exist."""
    uid, gid = pwd.getpwnam(want.owner).pw_uid, grp.getgrnam(want.group).gr_gid
    folder = os.path.dirname(want.path)
    make_folders(folder)
    if want.content is None:
        if not leads_to_folder(want.path):
            # For nobody else until it is its owner's.
            os.mkdir(want.path, 0o700)
        found = os.stat(want.path)
        if want.recurse and (found.st_uid, found.st_gid) != (uid, gid):
            give_contents(want.path, uid, gid)
        os.chown(want.path, uid, gid)
        os.chmod(want.path, want.mode)
        sync(want.path)
        sync(folder)
        return
    if os.path.islink(want.path):
        os.unlink(want.path)

    def prepare(new: str) -> None:
        os.chown(new, uid, gid)
        os.chmod(new, want.mode)

    with locked(folder):
        replace(want.path, want.content.encode("utf-8", errors="surrogateescape"), prepare)


def give_contents(folder: str, uid: int, gid: int) -> None:
    """Have all that is in a folder belong to them. Raises OSError."""
    for _path, folders, files, inside in os.fwalk(folder, topdown=False, follow_symlinks=False):
        for name in folders + files:
            # What goes meanwhile, such as a half-written copy, needs no other owner.
            with suppress(FileNotFoundError):
                os.chown(name, uid, gid, dir_fd=inside, follow_symlinks=False)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file_system(descriptor)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Have it gone from the disk. Raises OSError."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
    sync(os.path.dirname(path))


def described(want: Wanted, found: Found, secret: bool) -> dict[str, str]:
    """The difference, with the attributes as a line above the contents."""

    def text(content: str | None, owner: str, group: str, mode: int, folder: bool) -> str:
        if content is None and not folder:
            return ""
        return f"# {owner}:{group} {mode:04o}\n" + ("(a folder)\n" if content is None else "(a secret)\n" if secret else content)

    return {
        "before_header": want.path,
        "after_header": want.path,
        "before": text(found.content, found.owner, found.group, found.mode, found.folder),
        "after": text(want.content, want.owner, want.group, want.mode, want.content is None),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folders": {"type": "list", "elements": "dict", "default": [], "options": FOLDER_OPTIONS},
            "files": {"type": "list", "elements": "dict", "default": [], "options": FILE_OPTIONS},
            "absent": {"type": "list", "elements": "path", "default": []},
            "secret": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    differences, changed = [], []
    try:
        for params in module.params["folders"] + module.params["files"]:
            want = wanted(params)
            found = find(want.path)
            if want.content is None and not found.folder and os.path.lexists(want.path):
                raise ValueError(f"{want.path} is no folder, but one is to be there: move it away")
            if differs(want, found):
                changed.append(want.path)
                differences.append(described(want, found, module.params["secret"]))
                if not module.check_mode:
                    write(want)
        for path in filter(os.path.lexists, module.params["absent"]):
            changed.append(path)
            differences.append({"before_header": path, "after_header": path, "before": "(it is there)\n", "after": ""})
            if not module.check_mode:
                remove(path)
    except KeyError as error:
        module.fail_json(msg=f"there is no such account or group: {error.args[0]}", changed_files=changed)
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error), changed_files=changed)
    else:
        module.exit_json(changed=bool(changed), changed_files=changed, diff=differences)


if __name__ == "__main__":
    main()
