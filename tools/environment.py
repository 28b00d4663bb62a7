"""Virtual environments for one checkout: made once, kept in the user's cache, shared by everything in bin/."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLLECTION_LINK = ROOT / ".ansible/collections/ansible_collections/swg/ha"
NO_INTERPRETER = 3


class EnvironmentFailed(Exception):
    """The environment cannot be made; the text says why and what would help."""


class NoInterpreter(EnvironmentFailed):
    """This machine has no Python that the wanted ansible-core runs on."""


@dataclass(frozen=True)
class Interpreter:
    path: Path
    version: tuple[int, int]
    build: str


# Which Python each ansible-core's controller runs on, the preferred one first.
PYTHONS: dict[str, tuple[tuple[int, int], ...]] = {
    "2.19": ((3, 11), (3, 12), (3, 13)),
    "2.21": ((3, 13), (3, 12), (3, 14)),
}
LEVELS = {
    "run": ("run-{core}.txt",),
    "test": ("run-{core}.txt", "test.txt"),
}


def probe(candidate: Path) -> Interpreter | None:
    """Ask a Python who it is; None unless it answers and can make virtual environments."""
    question = "import ensurepip, sys, venv; print(sys.executable, *sys.version_info[:2], sys.version.split()[0], sep='\\n')"
    try:
        answer = subprocess.run([candidate, "-I", "-c", question], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    path, major, minor, build = answer.stdout.split("\n")[:4]
    return Interpreter(Path(path), (int(major), int(minor)), build)


def candidates(version: tuple[int, int]) -> Iterator[Path]:
    """Where a Python of this version may be: the system's own, on PATH, in pyenv's folder."""
    name = f"python{version[0]}.{version[1]}"
    yield Path("/usr/bin", name)
    if found := shutil.which(name):
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version[0]}.{version[1]}.*/bin/{name}"), reverse=True)


def find_interpreter(core: str) -> Interpreter:
    """The first Python of this machine that the ansible-core series runs on."""
    for version in PYTHONS[core]:
        for candidate in candidates(version):
            interpreter = probe(candidate)
            if interpreter is not None and interpreter.version == version:
                return interpreter
    wanted = ", ".join(f"{major}.{minor}" for major, minor in PYTHONS[core])
    raise NoInterpreter(f"ansible-core {core} needs one of Python {wanted} with its venv module, and none answers here")


def requirements(core: str, level: str) -> list[Path]:
    return [ROOT / "requirements" / name.format(core=core) for name in LEVELS[level]]


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "swg-ha", "venv")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file; the kernel drops it when the holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_ready(venv: Path, marker: Path) -> bool:
    return marker.exists() and probe(venv / "bin/python") is not None


def build(venv: Path, interpreter: Interpreter, files: list[Path]) -> None:
    """Make the environment from nothing; raises EnvironmentFailed with pip's whole output."""
    arguments = [word for file in files for word in ("--requirement", str(file))]
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    for argv in ([str(interpreter.path), "-m", "venv", "--clear", str(venv)], [*pip, *arguments]):
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise EnvironmentFailed(f"{' '.join(argv)} failed with {done.returncode}:\n{done.stdout}")


def ensure(core: str, level: str) -> Path:
    """The path of a ready environment, made first if need be.

    A virtual environment holds its own path, so it cannot be built elsewhere and renamed: the marker, written last and
    under the lock, tells a whole one from what an interrupted run left.
    """
    interpreter = find_interpreter(core)
    files = requirements(core, level)
    identity = "\n".join([str(interpreter.path), interpreter.build, *(file.read_text() for file in files)])
    name = f"{core}-{level}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    venv, marker = cache_folder() / name, cache_folder() / f"{name}.ready"
    venv.parent.mkdir(parents=True, exist_ok=True)
    with locked(venv.parent / f"{name}.lock"):
        if not is_ready(venv, marker):
            marker.unlink(missing_ok=True)
            print(f"Making {venv} with Python {interpreter.build}", file=sys.stderr)
            build(venv, interpreter, files)
            subprocess.run(["sync", "--file-system", venv], check=True)
            marker.touch()
    return venv


def environ(venv: Path, **more: str) -> dict[str, str]:
    """The environment of a tool: the venv's programs first, nothing of the caller's own Ansible settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_", "PYTEST_"))}
    return kept | {"PATH": f"{venv / 'bin'}:{kept['PATH']}", "NO_COLOR": "1"} | more


def tool(venv: Path, program: str, *arguments: str | Path) -> list[str]:
    """The command line of a program of the environment."""
    return [str(venv / "bin" / program), *map(str, arguments)]


def link_collection() -> None:
    """Let Ansible find this checkout as the collection swg.ha (ansible.cfg names the folder)."""
    COLLECTION_LINK.parent.mkdir(parents=True, exist_ok=True)
    target = "../../../.."
    if not (COLLECTION_LINK.is_symlink() and os.readlink(COLLECTION_LINK) == target):
        new = COLLECTION_LINK.with_name(f"ha.{os.getpid()}")
        new.symlink_to(target)
        new.replace(COLLECTION_LINK)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/venv", description="Prints the path of a ready virtual environment.")
    parser.add_argument("core", nargs="?", choices=list(PYTHONS), default="2.19", help="ansible-core series (default 2.19)")
    parser.add_argument("level", nargs="?", choices=list(LEVELS), default="run", help="run: Ansible; test: also every test tool")
    arguments = parser.parse_args()
    try:
        link_collection()
        print(ensure(arguments.core, arguments.level))
    except EnvironmentFailed as error:
        print(f"bin/venv: {error}", file=sys.stderr)
        return NO_INTERPRETER if isinstance(error, NoInterpreter) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
