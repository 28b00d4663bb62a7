#!/usr/bin/python
# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_replica
short_description: Make a PostgreSQL cluster the streaming standby of a primary
version_added: 0.1.0
description:
  - Makes the PostgreSQL cluster of this server the streaming standby of a given primary, or leaves it alone if it is one.
  - Starts the local data as a standby where its WAL is proved to be a part of the primary's, rewinds it with C(pg_rewind) where
    it has diverged and that is possible, and otherwise takes a new copy with C(pg_basebackup).
  - Never deletes a data directory. Old data is moved aside, to a sibling of the data directory named by the time (UTC), and its
    place is returned in RV(moved_aside). WAL that a rewind takes away is kept as well, see RV(quarantine).
  - A run that is cut off at any point, by a loss of power too, is repaired by running it again. The data directory is at every
    moment the old one, the new one, or, during a rewind or where the file system cannot exchange two names in one step, absent. It
    is never a half-copied or half-rewound one.
  - With O(state=observed), tells what cluster there is, in which role, and whether it streams.
options:
  state:
    description:
      - V(streaming) makes the cluster a standby that streams from the primary.
      - V(observed) changes nothing and works on a server in any state, with or without PostgreSQL.
    type: str
    choices: [streaming, observed]
    default: streaming
  version:
    description:
      - Major version of PostgreSQL.
    type: str
    required: true
  cluster:
    description:
      - Name of the cluster, as C(pg_lsclusters) shows it.
    type: str
    default: main
  data_directory:
    description:
      - Where the data is expected. The configuration of the cluster decides; a difference is an error.
    type: path
  primary_hosts:
    description:
      - Addresses of the primary, in the order of trying. Give one for each network link, so that the loss of one is survived.
      - Required with O(state=streaming).
    type: list
    elements: str
  primary_port:
    description:
      - Port of the primary.
    type: int
    default: 5432
  replication_user:
    description:
      - The role to connect as. It needs C(LOGIN REPLICATION), and EXECUTE on the functions
        C(pg_read_binary_file(text, bigint, bigint, boolean)), C(pg_read_binary_file(text)), C(pg_ls_dir(text, boolean, boolean)) and
        C(pg_stat_file(text, boolean)).
      - C(pg_hba.conf) of the primary must let it in to the databases C(replication) and C(postgres).
      - Required with O(state=streaming).
    type: str
  passfile:
    description:
      - File with the password of O(replication_user), in the format of C(.pgpass), owned by C(postgres), mode C(0600).
      - The module itself never sees the password.
    type: path
  sslmode:
    description:
      - How the connection is protected. V(verify-full) compares the certificate's name with the address in O(primary_hosts).
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
    default: verify-full
  sslrootcert:
    description:
      - Certificate that the primary's is checked against.
    type: path
  sslcert:
    description:
      - Certificate that this server shows.
    type: path
  sslkey:
    description:
      - Key of O(sslcert), readable for C(postgres) only.
    type: path
  slot:
    description:
      - Physical replication slot on the primary, for this standby alone. It is created where it is missing, and made anew where the
        primary has given it up (C(wal_status) is V(lost)).
      - Required with O(state=streaming).
    type: str
  application_name:
    description:
      - Name of this standby on the primary, in C(pg_stat_replication) and C(synchronous_standby_names).
      - The name in O(slot) is used when this is left out.
    type: str
  connection_parameters:
    description:
      - More parameters of libpq, or other values for those that are set by default, which notice a dead network link within about
        6 seconds (C(connect_timeout), C(keepalives_idle), C(keepalives_interval), C(keepalives_count), C(tcp_user_timeout),
        C(gssencmode)).
      - Never a password. See O(passfile).
    type: dict
    default: {}
  method:
    description:
      - V(auto) takes the quickest of start, rewind and base backup that is safe.
      - V(rewind) fails instead of copying everything.
      - V(basebackup) takes a new copy, unless the cluster already streams.
    type: str
    choices: [auto, rewind, basebackup]
    default: auto
  compression:
    description:
      - How a base backup is compressed on its way. What arrives is the same.
      - V(lz4) pays on a link of 1 Gbit/s or less. On a quicker one, V(none) is quicker unless the data compresses well.
    type: str
    choices: [lz4, zstd, none]
    default: none
  max_rate:
    description:
      - Limit of the speed of a base backup on the network, in kB/s. 0 is no limit.
    type: int
    default: 0
  timeout:
    description:
      - How many seconds everything together may take, until the standby streams.
    type: int
    default: 3600
  progress_file:
    description:
      - Where the progress is told while it runs, as JSON with C(phase), C(method), C(bytes_done), C(bytes_total), C(rate) (bytes per second)
        and C(eta_s).
    type: path
    default: /run/swg_ha/pg_replica.json
attributes:
  check_mode:
    description: Can run in check mode and return what it would otherwise.
    support: full
    details:
      - Says the method and the reason. Where PostgreSQL is not installed yet, or the primary cannot be asked yet, a base backup is foretold.
  diff_mode:
    description: Returns what has changed when in diff mode.
    support: full
  platform:
    description: Target OS that the module works on.
    support: full
    platforms: debian
notes:
  - Run it as root on the server that is to be the standby.
  - A common history is proved by comparing WAL byte for byte. The same system identifier and timeline prove nothing, as two clones
    of one machine image have them too.
  - A rewind copies the blocks that were changed since the fork, and the whole C(pg_wal) of the primary, which C(wal_keep_size) makes large.
  - A former primary that becomes a standby loses the physical slots of its own standbys, as they would keep WAL for ever.
  - A base backup needs room for both the old data and the new. The running cluster, if it is a primary, goes on until the copy is complete.
  - The data directory must not be a mount point, as it is renamed. Its parent may be one.
  - Settings go to C(postgresql.auto.conf) in the data directory. A later C(ALTER SYSTEM) may change them; the next run puts them right.
author:
  - The swg.ha authors (@swg)
"""

EXAMPLES = r"""
- name: Look at the cluster
  swg.ha.pg_replica:
    state: observed
    version: "15"
  register: postgres

- name: Make this server the standby of the other
  swg.ha.pg_replica:
    version: "15"
    cluster: main
    primary_hosts: [192.0.2.11, 198.51.100.11]
    replication_user: ha_replication
    passfile: /var/lib/postgresql/.ha_pgpass
    sslrootcert: /etc/ha_manager/trust/peer.crt
    sslcert: /etc/ha_manager/trust/tls.crt
    sslkey: /etc/ha_manager/trust/tls.key
    slot: ps2
    application_name: ps2
"""

RETURN = r"""
method:
  description:
    - V(none), V(start) (the local data was started as a standby), V(reconfigure) (a running standby got other settings or its slot),
      V(rewind) or V(basebackup). In check mode, what it would be.
  returned: with O(state=streaming)
  type: str
  sample: basebackup
reason:
  description: Why that method, or, with O(state=observed), why something could not be told.
  returned: always
  type: str
  sample: there is no data directory /var/lib/postgresql/15/main
bytes:
  description: How many bytes were copied from the primary.
  returned: with O(state=streaming)
  type: int
duration_s:
  description: How long it took until the standby was streaming, in seconds.
  returned: with O(state=streaming)
  type: float
moved_aside:
  description: Where the old data directory is now, and whatever else an interrupted run left. Nothing here is ever deleted by the module.
  returned: with O(state=streaming)
  type: list
  elements: str
  sample: [/var/lib/postgresql/15/main.20260102T030405Z]
quarantine:
  description: The folder with the WAL that a rewind took away, and a report of it in C(report.json).
  returned: when a rewind was tried
  type: str
commands:
  description: The commands that changed something.
  returned: with O(state=streaming)
  type: list
  elements: str
streaming:
  description: Whether the cluster is a standby that receives WAL now.
  returned: always
  type: bool
in_recovery:
  description: Whether it is a standby. For a stopped cluster, whether it was one.
  returned: always, null where there is no cluster
  type: bool
receiver:
  description: The WAL receiver (C(status), C(sender_host), C(sender_port), C(slot), C(lsn), C(sender_lsn), C(timeline)).
  returned: always, null where there is none
  type: dict
lag_bytes:
  description:
    - With O(state=streaming), how much of the primary's WAL is not replayed yet, asked on the primary when something was done.
    - With O(state=observed), the same as far as this standby heard from its primary.
  returned: always, null where it is no standby
  type: int
lag_s:
  description: The age of the last replayed commit while not everything received is replayed, otherwise 0.
  returned: always, null where it is no standby
  type: float
lsn:
  description: The last written (C(write)) and replayed (C(replay)) WAL positions.
  returned: always, null where the cluster does not answer
  type: dict
system_identifier:
  description: Which database system this is. A standby has its primary's.
  returned: always, null where there is no cluster
  type: str
timeline:
  description: The timeline, which grows by one at each promotion.
  returned: always, null where there is no cluster
  type: int
primary_conninfo:
  description: What the running server is set to follow.
  returned: always, null where the cluster does not answer
  type: str
installed:
  description: Whether PostgreSQL of that version is installed.
  returned: with O(state=observed)
  type: bool
exists:
  description: Whether the cluster has a data directory.
  returned: with O(state=observed)
  type: bool
running:
  description: Whether a server runs on it.
  returned: with O(state=observed)
  type: bool
accepting:
  description: Whether that server answers.
  returned: with O(state=observed)
  type: bool
port:
  description: Its port.
  returned: with O(state=observed), null where there is no cluster
  type: int
data_directory:
  description: Its data directory.
  returned: with O(state=observed), null where there is no cluster
  type: str
state:
  description: The state in the control data, such as C(in production) or C(shut down).
  returned: with O(state=observed), null where there is no cluster
  type: str
standbys:
  description:
    - Who streams from this server (C(application_name), C(client_address), C(state), C(sync_state), C(sent), C(replay), C(lag_bytes), C(lag_s)).
  returned: with O(state=observed)
  type: list
  elements: dict
slots:
  description: Its replication slots (C(name), C(type), C(active), C(wal_status), C(restart_lsn), C(retained_bytes)).
  returned: with O(state=observed)
  type: list
  elements: dict
databases:
  description: Its databases (C(name), C(size) in bytes, C(user), whether it is none of those that every cluster has).
  returned: with O(state=observed)
  type: list
  elements: dict
has_user_data:
  description:
    - Whether there is any database beside C(postgres), C(template0) and C(template1), or anything made by a user in database C(postgres).
    - Null, with the cause in RV(reason), where that cannot be told.
  returned: with O(state=observed)
  type: bool
user_data:
  description: What RV(has_user_data) is about, some of it.
  returned: with O(state=observed)
  type: list
  elements: str
leftovers:
  description: Directories beside the data directory that earlier runs left, such as old data that was moved aside.
  returned: with O(state=observed)
  type: list
  elements: str
"""

import syslog
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.swg.ha.plugins.module_utils.postgres import PostgresError
from ansible_collections.swg.ha.plugins.module_utils.postgres_cluster import Cluster, DebianService, Run, run_command
from ansible_collections.swg.ha.plugins.module_utils.postgres_primary import CONNECTION_DEFAULTS, Primary, PrimaryUnreachable
from ansible_collections.swg.ha.plugins.module_utils.postgres_replica import Outcome, Plan, Progress, Replica, Wanted

RUN_DIRECTORY = Path("/run/swg_ha")


def check_parameters(params: dict[str, Any]) -> None:
    """What argument_spec cannot say."""
    for name in ("version", "cluster"):
        if not params[name].replace("-", "").replace("_", "").isalnum():
            raise PostgresError(f"{name} is {params[name]!r}: must be letters, digits, '-' and '_' only")
    if params["state"] == "observed":
        return
    slot = params["slot"]
    if not (slot and len(slot) < 64 and all(letter in "abcdefghijklmnopqrstuvwxyz0123456789_" for letter in slot)):
        raise PostgresError(f"slot is {slot!r}: must be 1 to 63 lower case letters, digits and '_', as PostgreSQL wants it")
    if not params["primary_hosts"]:
        raise PostgresError("primary_hosts is empty: must name at least one address of the primary")
    if not 0 < params["primary_port"] < 65536:
        raise PostgresError(f"primary_port is {params['primary_port']}: must be 1 to 65535")
    if params["timeout"] <= 0:
        raise PostgresError(f"timeout is {params['timeout']}: must be more than 0 seconds")
    rate = params["max_rate"]
    if rate and not 32 <= rate <= 1048576:
        raise PostgresError(f"max_rate is {rate}: must be 0, or 32 to 1048576 kB/s, as pg_basebackup wants it")
    if "password" in params["connection_parameters"]:
        raise PostgresError("connection_parameters holds a password: must be in passfile instead")


def check_passfile(path: str, owner: str, uid: int) -> None:
    """libpq ignores a passfile that others may read, and says so only as a failed login."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise PostgresError(f"passfile {path}: {error.strerror}") from None
    if found.st_uid != uid or found.st_mode & 0o077:
        raise PostgresError(f"passfile {path} has mode {found.st_mode & 0o777:04o}: must be 0600 and owned by {owner}")


def make_replica(params: dict[str, Any], cluster: Cluster, run: Run) -> Replica:
    application_name = params["application_name"] or params["slot"]
    parameters: dict[str, object] = {
        "host": ",".join(params["primary_hosts"]),
        "port": params["primary_port"],
        "user": params["replication_user"],
        "passfile": params["passfile"],
        "sslmode": params["sslmode"],
        "sslrootcert": params["sslrootcert"],
        "sslcert": params["sslcert"],
        "sslkey": params["sslkey"],
        "application_name": application_name,
        **CONNECTION_DEFAULTS,
        **params["connection_parameters"],
    }
    wanted = Wanted(application_name, **{name: params[name] for name in ("max_rate", "compression", "method", "timeout")})
    return Replica(
        cluster,
        Primary(cluster, parameters, params["slot"]),
        wanted,
        DebianService(params["version"], params["cluster"], run, timeout=params["timeout"]),
        Progress(Path(params["progress_file"]), lambda text: syslog.syslog(syslog.LOG_INFO, text)),
        RUN_DIRECTORY / f"pg_replica-{params['version']}-{params['cluster']}.lock",
    )


def foretell(replica: Replica, cluster: Cluster) -> Plan:
    """The plan, also where nothing is there yet that it could be made from."""
    if not cluster.installed:
        return Plan("basebackup", f"PostgreSQL {cluster.version} is not installed yet", before={"role": "absent"})
    if not cluster.configured:
        return Plan("basebackup", f"there is no cluster {cluster.version}/{cluster.name} yet", before={"role": "absent"})
    try:
        return replica.plan()
    except PrimaryUnreachable as error:
        return Plan("basebackup", f"which way exactly cannot be told yet, as {error}", before=replica.before())


def foretold(plan: Plan, replica: Replica) -> dict[str, Any]:
    return {
        "changed": plan.method != "none",
        "method": plan.method,
        "reason": plan.reason,
        "bytes": 0,
        "duration_s": 0.0,
        "moved_aside": [],
        "commands": [],
        "diff": difference(plan, replica),
    }


def result(outcome: Outcome, replica: Replica) -> dict[str, Any]:
    return {
        "changed": outcome.changed,
        "method": outcome.plan.method,
        "reason": outcome.plan.reason,
        "bytes": outcome.bytes,
        "duration_s": outcome.duration_s,
        "moved_aside": outcome.moved_aside,
        "commands": outcome.commands,
        "diff": difference(outcome.plan, replica),
        **({"quarantine": outcome.quarantine} if outcome.quarantine else {}),
        **outcome.position,
    }


def difference(plan: Plan, replica: Replica) -> dict[str, Any]:
    if plan.method == "none":
        return {"before": dict(plan.before), "after": dict(plan.before)}
    return {"before": dict(plan.before), "after": {"role": "standby", **replica.settings, "method": plan.method}}


def with_notes(text: str, error: BaseException) -> str:
    return "\n".join([text, *getattr(error, "__notes__", [])])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["streaming", "observed"], "default": "streaming"},
            "version": {"type": "str", "required": True},
            "cluster": {"type": "str", "default": "main"},
            "data_directory": {"type": "path"},
            "primary_hosts": {"type": "list", "elements": "str"},
            "primary_port": {"type": "int", "default": 5432},
            "replication_user": {"type": "str"},
            "passfile": {"type": "path"},
            "sslmode": {
                "type": "str",
                "choices": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
                "default": "verify-full",
            },
            "sslrootcert": {"type": "path"},
            "sslcert": {"type": "path"},
            "sslkey": {"type": "path"},
            "slot": {"type": "str"},
            "application_name": {"type": "str"},
            "connection_parameters": {"type": "dict", "default": {}},
            "method": {"type": "str", "choices": ["auto", "rewind", "basebackup"], "default": "auto"},
            "compression": {"type": "str", "choices": ["lz4", "zstd", "none"], "default": "none"},
            "max_rate": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 3600},
            "progress_file": {"type": "path", "default": "/run/swg_ha/pg_replica.json"},
        },
        required_if=[("state", "streaming", ["primary_hosts", "replication_user", "slot"])],
        supports_check_mode=True,
    )
    params = module.params
    syslog.openlog("pg_replica")
    try:
        check_parameters(params)
        cluster = Cluster(params["version"], params["cluster"], run_command)
        if params["state"] == "observed":
            module.exit_json(changed=False, **cluster.info())
        if params["data_directory"] and cluster.installed and cluster.configured:
            wanted = Path(params["data_directory"]).resolve()
            if wanted != cluster.data_directory:
                raise PostgresError(
                    f"data_directory is {wanted}, but the configuration of {cluster.version}/{cluster.name} says "
                    f"{cluster.data_directory}: change one of the two"
                )
        replica = make_replica(params, cluster, run_command)
        if module.check_mode:
            module.exit_json(**foretold(foretell(replica, cluster), replica))
        if params["passfile"]:
            check_passfile(params["passfile"], cluster.owner, cluster.owner_ids[0])
        module.exit_json(**result(replica.follow(), replica))
    except PostgresError as error:
        module.fail_json(msg=with_notes(str(error), error))
    except OSError as error:
        module.fail_json(msg=with_notes(f"{error.filename or 'the system'}: {error.strerror or error}", error))


if __name__ == "__main__":
    main()
