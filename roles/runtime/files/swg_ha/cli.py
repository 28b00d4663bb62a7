# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The command ha: what an operator, a script or the Manager asks of this server and of its pair."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from . import control, rtnetlink, settings, status, timeline
from .control import ControlError
from .shared import heartbeat
from .text import plain, size, wrap

VERSION = "0.1.0"
MAX_PAUSE = 24 * 60
MAX_LINES = 1_000_000
# The units of the pair, beside PostgreSQL's, which has its cluster in its name.
OURS = ("ha_manager", "ha_handover", "heartbeat", "manager", "policy_server", "logrelay", "device_uname")
CLEAR = "\x1b[H\x1b[2J"
INTERRUPTED = 130

USAGE = """\
usage: ha COMMAND [OPTION...]     ('ha --help' explains all commands, 'ha COMMAND --help' one)
"""

MANUAL = """\
usage: ha COMMAND [OPTION...]

The highly available pair, seen and steered from one of its two servers.
Capital and small letters are the same in the names of commands.

To look, which changes nothing:
  status               print 1 if Heartbeat runs on this server, otherwise 0
  status --watch [S]   show the state of the pair on one screen, anew every S
                       seconds (2), until Ctrl-C
  status --json        print the same as JSON
  amIactive            print 1 if this server is the active one, otherwise 0
  why                  explain why this server has its role, and what would
                       have to happen for the other one
  timeline [--json] [N]
                       show the newest N (5) of the last 50 changes of role,
                       step by step
  logs [-n N] [--since TIME] [-f] [-u UNIT]... [--ours]
                       show the system log of this server: its newest N (50)
                       lines, or all since a time ('2026-01-31 21:55', 21:55,
                       or 15m: so long ago); with -f then what comes, until
                       Ctrl-C. Only of a unit, or of all units of the pair
                       (--ours)
  logs --peer [...]    the same of the other server, while that is up

To hand over, on either server:
  failover             make the passive server the active one, without loss:
                       writes stop, it gets everything, and it takes over.
                       Refused when it is not ready.
  failover --force [--yes NODE]
                       the same although it is not ready, or, on the passive
                       server, although the active one cannot be asked. Says
                       what may be lost, and asks for the name of the server
                       that is to become active, unless --yes has it.
  failover --json      print the outcome as JSON, progress to standard error

To copy files, on the active server:
  replicate [FILE]     copy a replicated file or folder to the other server
                       now, or all of them, and wait until that is done
  replicate --accept FILE
                       the same although FILE is empty or no longer mounted:
                       the copy becomes what it is now

To maintain:
  pause [MINUTES] [--reason TEXT]
                       no automatic failover for so long (60 minutes, at most
                       1440); commands are obeyed all the same
  resume               automatic failover again
  stop                 take this server out of the pair; an active one hands
                       over first, and is refused when it cannot
  stop --force         the same although nobody serves after it
  start                bring it back
  restart              restart Heartbeat; the roles stay as they are
  acknowledge NAME     commits that were kept aside have been seen to; their
  acknowledge --all    names are in 'ha status --watch', their files stay
  version              print the version of swg.ha

Every command takes --timeout SECONDS, for how long to wait for an answer. What
ha_manager has begun goes on when the time is over, and after Ctrl-C.

Exit status: 0 done, or answered; 1 failed or refused, with one line that says
why and what to do; 2 no such command or argument; 130 interrupted.
Files: /etc/ha_manager/ha_manager_status has the state of the pair for programs
that are not root's; /etc/ha_manager/active or passive is there, never both.
Log: journalctl -t ha_manager
"""


@dataclass(frozen=True)
class Places:
    """Where things are on a server."""

    control: Path = control.SOCKET
    markers: Path = status.DIRECTORY
    timeline: Path = timeline.PATH
    runtime: Path = settings.RUNTIME
    module: Path = settings.MODULE_XML
    ha_cf: Path = settings.HA_CF
    logrelay: Path = Path("/etc/ha_manager/logrelay.json")
    cl_status: str = "/usr/bin/cl_status"
    journalctl: str = "/usr/bin/journalctl"


class Failed(Exception):
    """A command that is not done; the text says why and what to do."""


@dataclass(frozen=True)
class Call:
    """One call of the command: its arguments, and what is around it."""

    args: argparse.Namespace
    places: Places

    def ask(self, do: str, progress: control.Progress | None = None, **more: Any) -> dict[str, Any]:
        return control.ask({"do": do, **more}, path=self.places.control, timeout=self.args.timeout, progress=progress)

    def document(self) -> status.Document:
        document = self.ask("status").get("status")
        if not isinstance(document, dict):
            raise Failed("ha_manager's answer has no status: is it of this version? systemctl restart ha_manager")
        return document


def main(argv: Sequence[str] | None = None, places: Places | None = None) -> int:
    """Run the command and return its exit status."""
    with contextlib.suppress(AttributeError):  # A stand-in for standard output need not be a real file.
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    words = list(sys.argv[1:] if argv is None else argv)
    args = _parse(words)
    try:
        code = args.run(Call(args, places or Places()))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough. Nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        after = ": what ha_manager has begun goes on: see 'ha status --watch'" if args.changes else ""
        print(f"\nha: {args.name}: interrupted{after}", file=sys.stderr)
        return INTERRUPTED
    except ControlError as error:
        return _fail(args.name, f"{error.text} ({error.code})")
    except (Failed, settings.SettingsError) as error:
        return _fail(args.name, str(error))
    except OSError as error:
        remedy = ": use sudo" if isinstance(error, PermissionError) else ""
        return _fail(args.name, f"{error.filename or 'standard output'}: {error.strerror}{remedy}")
    return int(code)


def _fail(name: str, text: str) -> int:
    print(f"ha: {name}: {plain(' '.join(text.split()))}", file=sys.stderr)
    return 1


class _Parser(argparse.ArgumentParser):
    def format_help(self) -> str:
        return MANUAL if self.prog == "ha" else super().format_help()

    def error(self, message: str) -> NoReturn:
        if self.prog == "ha":
            self.exit(2, f"{USAGE}ha: {message}\n")
        super().error(message)


def _parse(words: list[str]) -> argparse.Namespace:
    """The arguments, with run, name and changes (whether ha_manager changes something). Exits with 2 for bad ones, with 0 after --help."""
    parser = _Parser(prog="ha", allow_abbrev=False)
    commands = parser.add_subparsers(dest="name", metavar="COMMAND")

    def command(name: str, run: Callable[[Call], int], help: str, timeout: float = 10, changes: bool = False) -> argparse.ArgumentParser:
        added = commands.add_parser(name, description=help, allow_abbrev=False)
        added.add_argument("--timeout", type=_seconds, default=timeout, metavar="SECONDS", help=f"wait so long for an answer ({timeout:g})")
        added.set_defaults(run=run, name=name, changes=changes)
        return added

    for name, help in (
        ("start", "Bring this server back into the pair."),
        ("stop", "Take this server out of the pair."),
        ("restart", "Restart Heartbeat; the roles stay as they are."),
    ):
        at_change = command(name, _change, help, 120, changes=True)
        if name == "stop":
            at_change.add_argument("--force", action="store_true", help="although nobody serves after it")

    at = command("status", _status, "Print 1 if Heartbeat runs on this server, otherwise 0.").add_mutually_exclusive_group()
    at.add_argument("--json", action="store_true", help="the state of the pair as JSON")
    at.add_argument("--watch", type=_period, nargs="?", const=2.0, metavar="SECONDS", help="the state on one screen, again and again (2)")
    command("amIactive", _am_i_active, "Print 1 if this server is the active one, otherwise 0.")
    command("why", _why, "Explain why this server has its role, and what would change it.")
    at_timeline = command("timeline", _timeline, "Show the newest changes of role, step by step.")
    at_timeline.add_argument("count", type=_count, nargs="?", default=5, metavar="N", help="how many (5, at most 50)")
    at_timeline.add_argument("--json", action="store_true", help="as JSON, the newest first")

    at_logs = command("logs", _logs, "Show the system log of this server, or of the other one.")
    at_logs.add_argument("--peer", action="store_true", help="of the other server, over the first link that answers")
    at_logs.add_argument("-n", "--lines", type=_lines, metavar="N", help="the newest N (50, with -f 10; with --since: all)")
    at_logs.add_argument("-f", "--follow", action="store_true", help="then what comes, until Ctrl-C")
    at_logs.add_argument("--since", type=_since, metavar="TIME", help="'2026-01-31 21:55', 21:55 (today), or so long ago: 90s, 15m, 2h, 1d")
    of = at_logs.add_mutually_exclusive_group()
    of.add_argument("-u", "--unit", action="append", default=[], metavar="UNIT", help="only of this unit; may be given again")
    of.add_argument("--ours", action="store_true", help="only of the units of the pair")

    at_failover = command("failover", _failover, "Make the passive server the active one.", 300, changes=True)
    at_failover.add_argument("--force", action="store_true", help="even if it is not ready: what may be lost is told first")
    at_failover.add_argument("--yes", metavar="NODE", help="with --force: the name of the server that is to become active")
    # The server is going down, whatever becomes of the hand-over (ha_handover.service).
    at_failover.add_argument("--leaving", action="store_true", help=argparse.SUPPRESS)
    at_failover.add_argument("--json", action="store_true", help="print the outcome as JSON (progress goes to standard error)")

    at_replicate = command("replicate", _replicate, "Copy replicated files to the other server now, and wait.", 86400, changes=True)
    at_replicate.add_argument("file", nargs="?", metavar="FILE", help="one of them, as the HA configuration names it (all)")
    at_replicate.add_argument("--accept", action="store_true", help="with FILE: also when it is empty or no longer mounted")

    at_pause = command("pause", _pause, "No automatic failover for a while.", changes=True)
    at_pause.add_argument("minutes", type=_minutes, nargs="?", default=60, metavar="MINUTES", help=f"60, at most {MAX_PAUSE}")
    at_pause.add_argument("--reason", default="", metavar="TEXT", help="why, for those who see it")
    command("resume", _resume, "Automatic failover again.", changes=True)
    which = command(
        "acknowledge", _acknowledge, "Commits that were kept aside have been seen to.", changes=True
    ).add_mutually_exclusive_group(required=True)
    which.add_argument("which", nargs="?", metavar="NAME", help="the name that 'ha status --watch' shows")
    which.add_argument("--all", action="store_true", help="all that there is")
    command("version", _version, "Print the version of swg.ha.")

    by_lower_case = {name.lower(): name for name in commands.choices}
    if words and words[0].lower() in by_lower_case:
        words = [by_lower_case[words[0].lower()], *words[1:]]
    elif words[:1] == ["--version"]:
        words = ["version", *words[1:]]
    elif words[:1] == ["help"]:
        words = ["--help"]
    elif words and not words[0].startswith("-"):
        parser.error(f"there is no command {words[0]!r}")
    args = parser.parse_args(words)
    if args.name is None:
        parser.error("a command is needed")
    if args.name == "replicate" and args.accept and args.file is None:
        commands.choices["replicate"].error("--accept needs the FILE")
    if args.name == "failover" and args.yes and not args.force:
        commands.choices["failover"].error("--yes goes with --force")
    return args


def _number(text: str, low: float, high: float, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {unit} between {low:g} and {high:g}")
    return value


def _whole(text: str, low: int, high: int, unit: str) -> int:
    if not text.isdecimal() or not low <= int(text[:9]) <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {unit} between {low} and {high}")
    return int(text)


def _seconds(text: str) -> float:
    return _number(text, 0.1, 86400, "a number of seconds")


def _period(text: str) -> float:
    return _number(text, 0.2, 3600, "a number of seconds")


def _count(text: str) -> int:
    return _whole(text, 1, timeline.KEEP, "a number")


def _minutes(text: str) -> int:
    return _whole(text, 1, MAX_PAUSE, "a number of minutes")


def _lines(text: str) -> int:
    return _whole(text, 1, MAX_LINES, "a number of lines")


def _since(text: str) -> float:
    from . import logs

    try:
        return logs.moment(text, datetime.now()).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _print(text: str) -> None:
    print(text, flush=True)


def _print_progress(text: str) -> None:
    _print(plain(text))


def _version(call: Call) -> int:
    _print(f"swg.ha {VERSION}")
    return 0


def _change(call: Call) -> int:
    force = {"force": True} if getattr(call.args, "force", False) else {}
    call.ask(call.args.name, _print_progress, **force)
    return 0


def _status(call: Call) -> int:
    if call.args.json:
        _print(json.dumps(call.document(), indent=2))
    elif call.args.watch is not None:
        _watch(call)
    else:
        _print("1" if _heartbeat_runs(call) else "0")
    return 0


def _heartbeat_runs(call: Call) -> bool:
    """What Heartbeat itself says: also while ha_manager does not run, and for everybody."""
    try:
        said = heartbeat.ask(heartbeat.runner(call.args.timeout), call.places.cl_status, "hbstatus")
    except heartbeat.NoAnswer as error:
        if error.rc == heartbeat.RC_NOT_FOUND:
            return False
        raise Failed(f"{error}: see 'systemctl status heartbeat'") from error
    return "is stopped" not in said


def _watch(call: Call) -> None:
    """Until Ctrl-C. The first answer must come; if a later one does not, that is what is shown."""
    on_terminal = sys.stdout.isatty()
    color = on_terminal and not os.environ.get("NO_COLOR")
    shown = status.screen(call.document(), color=color)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            _print(CLEAR + shown if on_terminal else shown + "\n")
            time.sleep(call.args.watch)
            try:
                shown = status.screen(call.document(), color=color)
            except ControlError as error:
                shown = "\n".join(wrap(f"{error.text} ({error.code})"))


def _am_i_active(call: Call) -> int:
    _print("1" if _active(call) else "0")
    return 0


def _active(call: Call) -> bool:
    try:
        return call.document().get("role") == "active"
    except ControlError:
        # The marker may be older than what has happened since; where the virtual IP is cannot be.
        if status.marked(call.places.markers) != "active":
            return False
    virtual_ip = settings.load(call.places.runtime, call.places.module, call.places.ha_cf).virtual_ip
    return virtual_ip is None or bool(rtnetlink.holders(virtual_ip.ip))


def _why(call: Call) -> int:
    for reason in call.ask("why").get("why", []):
        _print("\n".join(wrap(str(reason), "", "  ")))
    return 0


def _timeline(call: Call) -> int:
    try:
        transitions = call.ask("timeline").get("transitions", [])
    except ControlError as error:
        if error.code not in ("NOT_RUNNING", "TIMEOUT", "LOST"):
            raise
        transitions = _timeline_on_disk(call.places.timeline)
    newest = transitions[: call.args.count]
    if call.args.json:
        _print(json.dumps(newest, indent=2))
    else:
        _print("\n\n".join(timeline.show(one) for one in newest) or "the role of this server has not changed yet")
    return 0


def _timeline_on_disk(path: Path) -> list[timeline.Transition]:
    try:
        return timeline.parse(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise Failed(f"{path}: {error}: start ha_manager, which begins a new one") from error


def _logs(call: Call) -> int:
    args, places = call.args, call.places
    lines = args.lines or (None if args.since is not None else 10 if args.follow else 50)
    units = list(args.unit)
    if args.peer or args.ours:
        said = settings.load(places.runtime, places.module, places.ha_cf)
        if args.ours:
            units = [*OURS, f"postgresql@{said.postgresql.version}-{said.postgresql.cluster}"]
    if not args.peer:
        _own_log(call, units, lines)
    # TLS and HTTP take longer to load than most commands to run.
    from . import logs

    try:
        relay = logs.Relay(said.peer_node, said.links, logs.port(places.logrelay), Path(said.paths.trust), args.timeout)
        relay.read(units, lambda entry: _print(logs.short(entry)), lines=lines, since=args.since, follow=args.follow)
    except logs.LogError as error:
        raise Failed(str(error)) from error
    except KeyboardInterrupt:
        # The usual end of what is followed.
        if not args.follow:
            raise
    return 0


def _own_log(call: Call, units: list[str], lines: int | None) -> NoReturn:
    """journalctl takes the place of this program."""
    args, journalctl = call.args, call.places.journalctl
    options = [f"--lines={lines}"] if lines else []
    options += [f"--since=@{args.since:.6f}"] if args.since is not None else []
    options += ["--follow"] if args.follow else []
    os.execv(journalctl, [journalctl, *options, *(f"--unit={unit}" for unit in units)])


def _failover(call: Call) -> int:
    args = call.args
    document = call.document()
    if args.force:
        _confirm(document, args.yes)

    def progress(text: str) -> None:
        print(plain(text), file=sys.stderr if args.json else sys.stdout, flush=True)

    leaving = {"leaving": True} if args.leaving else {}
    answer = call.ask("failover", progress, force=args.force, **leaving)
    transition = answer.get("transition") or {"steps": []}
    outage, lost = timeline.outage(transition), answer.get("lost_bytes")
    if args.json:
        _print(json.dumps({"transition": transition, "lost_bytes": lost, "outage_seconds": outage}, indent=2))
    else:
        for line in wrap(f"{heir(document)} is active. {interruption(outage)}; {loss(lost)}."):
            _print(line)
    return 0


def heir(document: status.Document) -> str:
    """The name of the server that a failover makes the active one."""
    return str(document.get("peer_node" if document.get("role") == "active" else "node"))


def interruption(outage: float | None) -> str:
    return "How long writes were interrupted is not known" if outage is None else f"Writes were interrupted for {outage:.3f} s"


def loss(lost: int | None) -> str:
    if lost is None:
        return "whether commits were lost is not known"
    return f"up to {size(lost)} of the write-ahead log are lost" if lost else "nothing was lost"


def may_be_lost(document: status.Document) -> list[str]:
    """What a forced failover may cost, in sentences."""
    node, peer, new = str(document.get("node")), str(document.get("peer_node")), heir(document)
    database, link = document.get("postgresql") or {}, document.get("peer") or {}
    if document.get("role") == "active" or (link.get("connected") and link.get("role") == "active"):
        lag = database.get("lag_bytes")
        reasons = "; ".join(document.get("not_redundant_because") or [])
        ready = f"{new} becomes active although it may not be ready: {reasons}." if reasons else f"{new} seems to be ready."
        behind = "It is not known how far it is behind" if lag is None else f"It is {size(lag)} of the write-ahead log behind"
        texts = [ready, f"{behind}. What it does not get is lost to all who were told that it was committed."]
    else:
        silent = link.get("silent_seconds")
        heard = "was never heard" if silent is None else f"was last heard {silent:.1f} s ago"
        texts = [
            f"{node} becomes active from the data that it has. {peer} {heard}: what it committed since, and has not sent, is lost.",
            f"If {peer} still serves somewhere, both will take writes, and those of one will be lost: switch it off first.",
        ]
    return [*texts, "Commits that are given up are kept in a quarantine, as far as their server comes back."]


def _confirm(document: status.Document, yes: str | None) -> None:
    new = heir(document)
    if yes is None:
        for text in may_be_lost(document):
            print("\n".join(wrap(text)), file=sys.stderr)
        if not sys.stdin.isatty():
            raise Failed(f"--force must be confirmed: add --yes {new}, the server that is to become active")
        try:
            print(f"Type {new}, the server that is to become active: ", end="", file=sys.stderr, flush=True)
            yes = sys.stdin.readline().strip()
        except KeyboardInterrupt:
            print(file=sys.stderr)
            raise Failed("interrupted: nothing was done") from None
    if yes != new:
        raise Failed(f"{yes!r} is not {new}, the server that is to become active: nothing was done")


def _replicate(call: Call) -> int:
    call.ask("replicate", _print_progress, file=call.args.file, accept=call.args.accept)
    return 0


def _pause(call: Call) -> int:
    args = call.args
    by = os.environ.get("SUDO_USER") or _user()
    answer = call.ask("pause", minutes=args.minutes, reason=plain(args.reason)[:200].strip(), by=plain(by)[:64])
    _print(f"no automatic failover for {args.minutes} minutes; 'ha resume' ends that sooner")
    _say_who_was_not_told(call, answer)
    return 0


def _say_who_was_not_told(call: Call, answer: dict[str, Any]) -> None:
    if answer.get("peer") is False:
        _print(f"the other server could not be told: run 'ha {call.args.name}' there too")


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _resume(call: Call) -> int:
    answer = call.ask("resume")
    _print("automatic failover is on")
    _say_who_was_not_told(call, answer)
    return 0


def _acknowledge(call: Call) -> int:
    names = [call.args.which]
    if call.args.all:
        document = call.document()
        names = [str(kept["name"]) for kept in document.get("quarantine") or [] if not kept.get("acknowledged")]
        if any(str(problem.get("code")).startswith("STAGED_") for problem in document.get("problems") or []):
            names.append("staged_files")
    for name in names:
        call.ask("acknowledge", name=name)
        _print(f"{plain(name)} is acknowledged")
    if not names:
        _print("there is nothing to acknowledge")
    return 0


if __name__ == "__main__":
    sys.exit(main())
