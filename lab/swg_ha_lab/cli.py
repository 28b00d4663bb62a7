"""bin/lab: the command line."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from . import access, lab as life, requirements, state
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

    def verb(name: str, run: Callable[[Layout, argparse.Namespace], int | None], text: str, *, root: bool = True) -> argparse.ArgumentParser:
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
    power = verb("power", _power, "power of a host; off is a power cut")
    power.add_argument("action", choices=("on", "off", "reset"))
    power.add_argument("host")
    verb("requirements", _requirements, "print the Debian packages that this machine lacks", root=False).add_argument(
        "--install", action="store_true", help="install them"
    )
    verb("image", _image, "build the image if need be and print its path").add_argument("--release", choices=RELEASES, default="bookworm")
    return top


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
    machine = life.Lab.open(layout).machine(options.host)
    machine.require("on", "booting")
    terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    argv = access.client(layout, machine.name, *terminal)
    if options.command:
        argv += ["--", shlex.join(options.command)]
    os.execvp(argv[0], argv)


def _power(layout: Layout, options: argparse.Namespace) -> None:
    with state.locked(layout.lock, life.LOCK_SECONDS):
        lab = life.Lab.open(layout)
        machine = lab.machine(options.host)
        if options.action in ("off", "reset"):
            lab.cut([machine])
        if options.action in ("on", "reset") and not machine.on:
            machine.wait_cut()
            lab.power_on([machine])


def _requirements(layout: Layout, options: argparse.Namespace) -> None:
    if not options.install:
        print("".join(f"{package}\n" for package in requirements.missing()), end="")
        return
    if os.geteuid() != 0:
        raise LabError("installing packages needs root")
    requirements.install()


def _image(layout: Layout, options: argparse.Namespace) -> None:
    print(Cache(layout.cache).ensure(options.release)[0])
