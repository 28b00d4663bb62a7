#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pg_cluster
short_description: A Debian PostgreSQL cluster with its data at a given place
version_added: 0.1.0
author:
  - The swg.ha authors (@swg)
description:
  - Creates a cluster with C(pg_createcluster) if there is none, with checksums.
  - If there is one whose data lies elsewhere, stops it, brings the data to the given place, tells the cluster and starts it.
  - Deletes nothing. Within a file system the data is renamed. Across file systems it is copied, and the original stays. What lies
    at the given place already is renamed to a sibling with the time in its name.
  - A run that is cut off anywhere leaves the data whole at one of the two places, and the next run goes on from there.
options:
  version:
    description:
      - Major version of PostgreSQL.
    type: str
    required: true
  cluster:
    description:
      - Name of the cluster, in the words of C(pg_lsclusters).
    type: str
    default: main
  data_directory:
    description:
      - Where the data is to be. Missing parents are created.
    type: path
    required: true
attributes:
  check_mode:
    description: Can run in check mode and return what it would otherwise.
    support: full
  diff_mode:
    description: Shows differences.
    support: full
  platform:
    description: Debian with postgresql-common.
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: Keep the data on the disk of the policy server
  swg.ha.pg_cluster:
    version: 15
    data_directory: /opt/finjan/configuration/data/postgresql/main
"""

RETURN = r"""
created:
  description: Whether there was no cluster before.
  returned: success
  type: bool
moved_from:
  description: Where the data was before.
  returned: where it was moved
  type: str
  sample: /var/lib/postgresql/15/main
moved_aside:
  description: Where something went that lay at the given place.
  returned: where there was something
  type: str
  sample: /opt/finjan/configuration/data/postgresql/main.20260102T030405Z
"""

import os
import pwd
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.swg.ha.plugins.module_utils.pg_move import MoveError, make_parents, move


class Cluster:
    """One cluster of Debian's postgresql-common."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.version = str(module.params["version"])
        self.name = module.params["cluster"]
        self.wanted = Path(module.params["data_directory"])
        self.unit = f"postgresql@{self.version}-{self.name}"

    def run(self, argv: list[str]) -> tuple[int, str, str]:
        rc, out, err = self.module.run_command(argv)
        return rc, out, err

    def must(self, *argv: str) -> str:
        rc, out, err = self.run(list(argv))
        if rc != 0:
            raise MoveError(f"{' '.join(argv)} failed with {rc}: {(err or out).strip()}")
        return out

    def exists(self) -> bool:
        return os.path.exists(f"/etc/postgresql/{self.version}/{self.name}/postgresql.conf")

    def data_directory(self) -> Path:
        return Path(self.must("pg_conftool", "--short", self.version, self.name, "show", "data_directory").strip())

    def create(self) -> dict[str, Any]:
        if not self.module.check_mode:
            if not os.path.exists("/usr/bin/pg_createcluster"):
                raise MoveError("pg_createcluster is missing: install the Debian package postgresql-common")
            make_parents(self.wanted, *self._postgres())
            self.must(*("pg_createcluster", "--datadir", str(self.wanted), self.version, self.name, "--", "--data-checksums"))
        return {"changed": True, "created": True, "diff": self._diff("", str(self.wanted))}

    def bring(self) -> dict[str, Any]:
        source = self.data_directory()
        if source == self.wanted:
            return {"changed": False, "created": False}
        result: dict[str, Any] = {
            "changed": True,
            "created": False,
            "moved_from": str(source),
            "diff": self._diff(str(source), str(self.wanted)),
        }
        if self.module.check_mode:
            return result
        if (source / "PG_VERSION").exists():
            self.must("systemctl", "stop", self.unit)
            try:
                aside = move(self.run, source, self.wanted)
            except (MoveError, OSError):
                self.run(["systemctl", "start", self.unit])
                raise
            if aside is not None:
                result["moved_aside"] = str(aside)
        elif not (self.wanted / "PG_VERSION").exists():
            raise MoveError(
                f"cluster {self.version}/{self.name} has its data in {source}, where there is none, and there is none in "
                f"{self.wanted} either: restore it, or remove the cluster with pg_dropcluster"
            )
        self.must("pg_conftool", self.version, self.name, "set", "data_directory", str(self.wanted))
        # Here, not in a later task: a run that is cut off in between would leave a server that cannot be asked for its data.
        self.must("systemctl", "start", self.unit)
        return result

    @staticmethod
    def _postgres() -> tuple[int, int]:
        account = pwd.getpwnam("postgres")
        return account.pw_uid, account.pw_gid

    def _diff(self, before: str, after: str) -> dict[str, str]:
        return {"before": f"data_directory: {before}\n", "after": f"data_directory: {after}\n"}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "cluster": {"type": "str", "default": "main"},
            "data_directory": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    cluster = Cluster(module)
    try:
        result = cluster.bring() if cluster.exists() else cluster.create()
    except (MoveError, OSError) as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
