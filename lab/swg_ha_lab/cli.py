"""bin/lab: the command line."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from . import access, injection, requirements, snapshot, state, status
from . import lab as life
from .errors import LabError, UsageError
from .image import Cache
from .layout import Layout
from .recipe import RELEASES

EXAMPLE = "example: bin/lab up; bin/lab exec ps1 -- ip -br address; bin/lab power off ps1; bin/lab down"


class Interrupted(BaseException):
    """SIGTERM, SIGHUP or Ctrl-C."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(signal.Signals(number).name)


def _speaker() -> Callable[[str], None]:
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begin:6.1f} s  {line}", file=sys.stderr, flush=True)

    return say


def parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default=argparse.SUPPRESS, metavar="N", help="the lab's name (default: ha)")
    top = argparse.ArgumentParser(prog="bin/lab", description="The lab of swg.ha on this machine.", epilog=EXAMPLE, parents=[common])
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(
        name: str, run: Callable[[Layout, argparse.Namespace], int | None], text: str, *, root: bool = True
    ) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text, parents=[common])
        added.set_defaults(run=run, root=root)
        return added

    verb("up", _up, "start the lab").add_argument("--release", choices=RELEASES, help="Debian release of the hosts (default: bookworm)")
    verb("down", _down, "remove the lab, whatever state it is in")
    verb("inventory", _inventory, "print the path of the lab's Ansible inventory").add_argument(
        "--qualified", action="store_true", help="hosts are called N-ps1 ..., the pair is a group N: for several labs in one run"
    )
    run = verb("exec", _exec, "run a command in a host (without a command: a shell)")
    run.add_argument("host")
    run.add_argument("command", nargs="*", help="after '--'")
    _actions(verb("power", _power, "power of a host; off is a power cut"), ("on", "off", "reset"), "host")
    _actions(verb("switch", _switch, "power of a switch"), ("on", "off"), "host", metavar="SWITCH")
    verb("freeze", _freeze, "stop all processes of a host; its kernel goes on").add_argument("host", metavar="HOST")
    verb("thaw", _freeze, "let the processes of a frozen host go on").add_argument("host", metavar="HOST")
    cable = _actions(verb("cable", _cable, "pull a cable out of its switch, or put it back"), ("out", "in"), "host")
    cable.add_argument("link", metavar="LINK", help="eth0, eth1 or 0, 1")
    for name, text in (("block", "lose what one host sends to another"), ("unblock", "stop losing it")):
        added = verb(name, _block, text)
        added.add_argument("source", metavar="FROM")
        added.add_argument("target", metavar="TO")
        added.add_argument("--leg", metavar="LINK", help="on this leg of TO only (default: on all switches that both are on)")
    added = _actions(verb("disk", _disk, "faults of a policy server's data disk"), ("fill", "slow", "freeze", "readonly", "heal"), "host")
    added.add_argument("--iops", type=_positive, default=5, metavar="N", help="with slow: write operations a second (default: 5)")
    verb("heal", _heal, "take every fault away, with every host on")
    added = verb("snapshot", _snapshot, "keep the state of the policy servers (they are shut down and started again)")
    added.add_argument("snapshot", metavar="NAME")
    added.add_argument("--replace", action="store_true", help="a snapshot of this name is replaced")
    verb("rollback", _rollback, "put the policy servers back to a snapshot, without any fault").add_argument("snapshot", metavar="NAME")
    verb("status", _status, "show the hosts, their links and the faults").add_argument("--json", action="store_true")
    verb("requirements", _requirements, "print the Debian packages that this machine lacks", root=False).add_argument(
        "--install", action="store_true", help="install them"
    )
    verb("image", _image, "build the image if need be and print its path").add_argument("--release", choices=RELEASES, default="bookworm")
    return top


def _actions(verb: argparse.ArgumentParser, actions: Sequence[str], what: str, metavar: str = "HOST") -> argparse.ArgumentParser:
    verb.add_argument("action", choices=actions)
    verb.add_argument(what, metavar=metavar)
    return verb


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    command: list[str] | None = None
    if "--" in arguments:
        at = arguments.index("--")
        arguments, command = arguments[:at], arguments[at + 1 :]
    options = parser().parse_args(arguments)
    if command is not None:
        if options.verb != "exec":
            parser().error("'--' goes with exec only")
        options.command = [*options.command, *command]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        if options.root and os.geteuid() != 0:
            raise LabError("the lab needs root: namespaces, mounts and control groups are its parts")
        return options.run(Layout(getattr(options, "name", "ha")), options) or 0
    except LabError as error:
        if error.details:
            print(error.details, file=sys.stderr)
        print(f"bin/lab: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except Interrupted as interrupted:
        print(f"bin/lab: stopped by {interrupted}", file=sys.stderr)
        return 130


def _up(layout: Layout, options: argparse.Namespace) -> None:
    life.up(layout, options.release, _speaker())


def _down(layout: Layout, options: argparse.Namespace) -> None:
    life.down(layout, _speaker())


def _inventory(layout: Layout, options: argparse.Namespace) -> None:
    life.Lab.open(layout)
    print(layout.inventory(qualified=options.qualified))


def _exec(layout: Layout, options: argparse.Namespace) -> None:
    lab = life.Lab.open(layout)
    machine = lab.machine(options.host)
    machine.require("on", "booting")
    if machine.state() == "booting":
        lab.wait_ready([machine])
    terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    argv = access.client(layout, machine.name, *terminal)
    if options.command:
        argv += ["--", shlex.join(options.command)]
    os.execvp(argv[0], argv)


@contextmanager
def _changing(layout: Layout) -> Iterator[life.Lab]:
    """The lab, with no other command at work on it."""
    life.Lab.open(layout)
    with state.locked(layout.lock, life.LOCK_SECONDS):
        yield life.Lab.open(layout)


def _power(layout: Layout, options: argparse.Namespace) -> None:
    with _changing(layout) as lab:
        machine = lab.machine(options.host)
        if options.action in ("off", "reset"):
            lab.cut([machine])
        if options.action in ("on", "reset") and not machine.on:
            machine.wait_cut()
            lab.power_on([machine])


def _switch(layout: Layout, options: argparse.Namespace) -> None:
    life.Lab.open(layout).topology.switch(options.host)
    _power(layout, options)


def _freeze(layout: Layout, options: argparse.Namespace) -> None:
    with _changing(layout) as lab:
        if options.verb == "thaw":
            injection.thaw(lab, options.host)
        else:
            _note(injection.freeze(lab, options.host))


def _cable(layout: Layout, options: argparse.Namespace) -> None:
    with _changing(layout) as lab:
        injection.cable(lab, options.host, options.link, out=options.action == "out")


def _block(layout: Layout, options: argparse.Namespace) -> None:
    with _changing(layout) as lab:
        injection.block(lab, options.source, options.target, options.leg, on=options.verb == "block")


def _disk(layout: Layout, options: argparse.Namespace) -> None:
    with _changing(layout) as lab:
        match options.action:
            case "fill":
                injection.disk_fill(lab, options.host)
            case "slow":
                injection.disk_slow(lab, options.host, options.iops)
            case "freeze":
                injection.disk_freeze(lab, options.host)
            case "readonly":
                injection.disk_read_only(lab, options.host)
            case "heal":
                _note(injection.disk_heal(lab, options.host))


def _heal(layout: Layout, options: argparse.Namespace) -> None:
    with _changing(layout) as lab:
        injection.heal(lab)


def _snapshot(layout: Layout, options: argparse.Namespace) -> None:
    with _changing(layout) as lab:
        snapshot.take(lab, options.snapshot, replace=options.replace)


def _rollback(layout: Layout, options: argparse.Namespace) -> None:
    with _changing(layout) as lab:
        snapshot.roll_back(lab, options.snapshot)


def _status(layout: Layout, options: argparse.Namespace) -> int:
    try:
        lab = life.Lab.open(layout)
    except LabError:
        if not options.json:
            raise
        found = {"name": layout.name, "up": False}
    else:
        found = status.collect(lab)
    print(json.dumps(found, indent=2) if options.json else status.table(found))
    return 0 if found["up"] else 1


def _note(text: str | None) -> None:
    if text:
        print(f"bin/lab: note: {text}", file=sys.stderr)


def _requirements(layout: Layout, options: argparse.Namespace) -> None:
    if not options.install:
        print("".join(f"{package}\n" for package in requirements.missing()), end="")
        return
    if os.geteuid() != 0:
        raise LabError("installing packages needs root")
    requirements.install()


def _image(layout: Layout, options: argparse.Namespace) -> None:
    print(Cache(layout.cache).ensure(options.release)[0])
