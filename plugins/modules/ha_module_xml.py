#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: ha_module_xml
short_description: Write and edit the configuration file HA/module.xml
version_added: 0.1.0
description:
  - Writes and edits C(HA/module.xml), the file that holds the configuration of the High Availability pair.
  - Only what is asked for is changed. Formatting, comments, the order and quotes of attributes, newlines, the encoding,
    and elements and attributes that this module does not know stay as they are.
  - The result is checked as a whole before the file is touched, and all problems are told at once. With no other option
    than O(path), an existing file is checked only.
  - The file is replaced in one step, with owner, group, mode, ACL and extended attributes kept. A power cut leaves the old
    file or the new one.
author:
  - The swg.ha authors (@swg)
options:
  path:
    description:
      - The file. Where it is a symbolic link, the file that it points to is edited.
      - A file that does not exist is created. Its directory must exist.
    type: path
    default: /var/wasp/conf/ha/current/module.xml
  enabled:
    description:
      - Whether High Availability is enabled, C(<ha enabled>).
      - Needs O(default_active.ip) and O(default_passive.ip), here or in the file.
      - In a new file the default is V(false).
    type: bool
  virtual_ip:
    description:
      - The virtual IP of the pair, C(<virtual_ip ip>). Empty for none.
    type: str
  default_active:
    description:
      - The policy server that is active at first, C(<default_active>).
    type: dict
    suboptions:
      ip:
        description: Its address, C(ip).
        type: str
      name:
        description: Its name as C(uname -n) prints it, C(name).
        type: str
  default_passive:
    description:
      - The policy server that is passive at first, C(<default_passive>).
    type: dict
    suboptions:
      ip:
        description: Its address, C(ip).
        type: str
      name:
        description: Its name as C(uname -n) prints it, C(name).
        type: str
  device_uname:
    description:
      - The handler that tells a device's name, C(<device_uname>).
      - An element C(<device_undef>) is read as this one, and renamed to C(<device_uname>) when this option is given.
    type: dict
    suboptions:
      port:
        description: Its TCP port, C(port). In a new file the default is 5222.
        type: int
      timeout:
        description: How many seconds it may take to answer, C(timeout). In a new file the default is 20.
        type: int
  ha_manager:
    description:
      - The settings of ha_manager, C(<ha_manager_configuration>).
    type: dict
    suboptions:
      port:
        description: Its TCP port, C(ha_manager_port). In a new file the default is 4589.
        type: int
      connection_timeout:
        description:
          - How many seconds a connection to the other ha_manager may take, C(connection_timeout).
          - In a new file the default is 300.
        type: int
      heartbeat_cmd_interval:
        description:
          - How many seconds lie between two questions to Heartbeat, C(heartbeat_cmd_interval).
          - In a new file the default is 10.
        type: int
      passive_status_interval:
        description:
          - How many seconds lie between two looks at the passive server, C(passive_status_interval).
          - In a new file the default is 10.
        type: int
  files_to_replicate:
    description:
      - Files and directories that are copied to the passive server, C(<files_to_replicate><file>).
      - None may lie in another.
    type: list
    elements: dict
    suboptions:
      name:
        description: Absolute path, C(name).
        type: str
        required: true
      inotify:
        description:
          - Whether it is copied as soon as it changes, C(inotify), or else every O(files_to_replicate[].interval) seconds.
          - Needed for a file that is new in the list.
        type: bool
      interval:
        description:
          - How many seconds lie between two copies, C(interval).
          - Needed with O(files_to_replicate[].inotify=false), and to be left out with V(true).
        type: int
      permissions:
        description:
          - Owner and group of the copy, as in V(root:shadow), C(permissions).
          - Needed for a file that is new in the list.
        type: str
  files_mode:
    description:
      - With V(exact), a file that is not in O(files_to_replicate) is removed from the list.
      - With V(merge), it stays.
    type: str
    choices: [exact, merge]
    default: exact
  backup:
    description:
      - Whether to keep a copy of the old file, with the date in its name, beside it.
    type: bool
    default: false
  owner:
    description: The owner of the file. That of an existing file stays when this is left out.
    type: str
  group:
    description: The group of the file. That of an existing file stays when this is left out.
    type: str
  mode:
    description:
      - The permissions of the file, as in V('0644') or V(u=rw,go=r). Those of an existing file stay when this is left out.
    type: raw
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details: Works on a host without the file and without its directory too.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
  safe_file_operations:
    description: Uses strategies that keep the file whole, whatever happens.
    support: full
    details: Two runs at the same time wait for each other.
  platform:
    description: The platforms that it supports.
    platforms: debian
    support: full
seealso:
  - module: swg.ha.cl_status_facts
"""

EXAMPLES = r"""
- name: Enable High Availability
  swg.ha.ha_module_xml:
    enabled: true
    virtual_ip: 192.0.2.10
    default_active: {ip: 192.0.2.11, name: ps1}
    default_passive: {ip: 192.0.2.12, name: ps2}
    files_to_replicate:
      - {name: /etc/policyserver/.license, inotify: true, permissions: "www-data:www-data"}
      - {name: /var/logserver/archive, inotify: false, interval: 60, permissions: "root:root"}
    owner: root
    group: root
    mode: "0644"

- name: Disable it, and keep all else as it is
  swg.ha.ha_module_xml:
    enabled: false
    backup: true

- name: Replicate one more file
  swg.ha.ha_module_xml:
    files_mode: merge
    files_to_replicate:
      - {name: /etc/shadow, inotify: true, permissions: "root:shadow"}

- name: Ask the other server more often
  swg.ha.ha_module_xml:
    ha_manager:
      passive_status_interval: 5

- name: Check an existing file and read it
  swg.ha.ha_module_xml:
  check_mode: true
  register: ha_configuration
"""

RETURN = r"""
path:
  description: The file that was edited, symbolic links resolved.
  returned: success
  type: str
  sample: /var/wasp/conf/ha/current/module.xml
created:
  description: Whether the file did not exist before.
  returned: success
  type: bool
  sample: false
settings:
  description: All that the file says now, or would say in check mode, with the defaults for what it does not say.
  returned: success
  type: dict
  contains:
    enabled:
      description: Whether High Availability is enabled.
      returned: success
      type: bool
      sample: true
    virtual_ip:
      description: The virtual IP, or an empty string.
      returned: success
      type: str
      sample: 192.0.2.10
    default_active:
      description: C(ip) and C(name) of the server that is active at first; null for what is not set.
      returned: success
      type: dict
      sample: {ip: 192.0.2.11, name: ps1}
    default_passive:
      description: C(ip) and C(name) of the server that is passive at first; null for what is not set.
      returned: success
      type: dict
      sample: {ip: 192.0.2.12, name: ps2}
    device_uname:
      description: C(port) and C(timeout) of the handler that tells a device's name.
      returned: success
      type: dict
      sample: {port: 5222, timeout: 20}
    ha_manager:
      description: The settings of ha_manager.
      returned: success
      type: dict
      sample: {port: 4589, connection_timeout: 300, heartbeat_cmd_interval: 10, passive_status_interval: 10}
    files_to_replicate:
      description: The files, in the order of the file; C(interval) is null for those with C(inotify).
      returned: success
      type: list
      elements: dict
      sample: [{name: /etc/shadow, inotify: true, interval: null, permissions: "root:shadow"}]
backup_file:
  description: The copy of the old file.
  returned: changed and O(backup=true), not in check mode, and only if there was a file
  type: str
  sample: /var/wasp/conf/ha/current/module.xml.4242.2026-01-31@12:00:00~
problems:
  description: What is wrong, one sentence for each problem, with the line where the file is wrong.
  returned: failure because of wrong options or a wrong file
  type: list
  elements: str
  sample: ["line 9: <device_uname> port is '70000': must be a port number from 1 to 65535"]
"""

import os
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.swg.ha.plugins.module_utils import durable, module_xml
from ansible_collections.swg.ha.plugins.module_utils.xml_document import InvalidXml

SERVER = {"type": "dict", "options": {"ip": {"type": "str"}, "name": {"type": "str"}}}
ARGUMENT_SPEC = {
    "path": {"type": "path", "default": "/var/wasp/conf/ha/current/module.xml"},
    "enabled": {"type": "bool"},
    "virtual_ip": {"type": "str"},
    "default_active": SERVER,
    "default_passive": SERVER,
    "device_uname": {"type": "dict", "options": {"port": {"type": "int"}, "timeout": {"type": "int"}}},
    "ha_manager": {
        "type": "dict",
        "options": {
            "port": {"type": "int"},
            "connection_timeout": {"type": "int"},
            "heartbeat_cmd_interval": {"type": "int"},
            "passive_status_interval": {"type": "int"},
        },
    },
    "files_to_replicate": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "inotify": {"type": "bool"},
            "interval": {"type": "int"},
            "permissions": {"type": "str"},
        },
    },
    "files_mode": {"type": "str", "choices": [module_xml.EXACT, module_xml.MERGE], "default": module_xml.EXACT},
    "backup": {"type": "bool", "default": False},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
}
FIELDS = (
    "enabled",
    "virtual_ip",
    "default_active",
    "default_passive",
    "device_uname",
    "ha_manager",
    "files_to_replicate",
)


class FileError(Exception):
    """Says what is wrong with the file itself, and what to do."""


def read(path: str) -> bytes | None:
    """The file, or None where there is none. Raises FileError and OSError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileError(f"{path} is not a regular file: path must name a file")
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def apply(module: AnsibleModule) -> dict[str, Any]:
    """Bring the file to what the options say. Raises FileError, InvalidXml and OSError."""
    path = os.path.realpath(module.params["path"])
    directory = os.path.dirname(path)
    if module.check_mode:
        return edit_file(module, path)
    if not os.path.isdir(directory):
        raise FileError(f"the directory {directory} does not exist: create it first, as ansible.builtin.file does")
    with durable.locked(directory):
        return edit_file(module, path)


def edit_file(module: AnsibleModule, path: str) -> dict[str, Any]:
    before = read(path)
    base = module_xml.render(module_xml.Settings()) if before is None else before
    changes = {field: module.params[field] for field in FIELDS}
    after = module_xml.edit(base, changes, module.params["files_mode"])
    result: dict[str, Any] = {
        "changed": before != after,
        "path": path,
        "created": before is None,
        "settings": module_xml.as_changes(module_xml.parse(after)),
    }
    attributes_diff: dict[str, dict[str, Any]] = {}

    def set_attributes(of: str) -> None:
        wanted = module.load_file_common_arguments(module.params, path=of)
        result["changed"] = module.set_fs_attributes_if_different(wanted, result["changed"], attributes_diff)

    if before == after or module.check_mode:
        set_attributes(path)
    else:
        if module.params["backup"] and before is not None:
            result["backup_file"] = module.backup_local(path)
            durable.sync(result["backup_file"])
        durable.replace(path, after, set_attributes)
    if module._diff:
        result["diff"] = [content_diff(path, before, after), *([attributes_diff] if attributes_diff else [])]
    return result


def content_diff(path: str, before: bytes | None, after: bytes) -> dict[str, str]:
    return {
        "before_header": path,
        "after_header": path,
        "before": "" if before is None else module_xml.decode(before),
        "after": module_xml.decode(after),
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    path = module.params["path"]
    try:
        result = apply(module)
    except InvalidXml as error:
        problems = [str(problem) for problem in error.problems]
        module.fail_json(msg=f"{path} was left as it is. " + "; ".join(problems), problems=problems)
    except FileError as error:
        module.fail_json(msg=str(error))
    except PermissionError as error:
        module.fail_json(msg=f"{path} was left as it is: {error}. Run as a user who may replace it, such as root with become")
    except OSError as error:
        module.fail_json(msg=f"{path} was left as it is: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
