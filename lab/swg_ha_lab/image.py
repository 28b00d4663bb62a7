"""The image: a Debian tree made by mmdebstrap, used read-only below the layers of every host.

The tree lies in the cache as RELEASE-KEY, KEY being a hash of the recipe. It is built under another name
and renamed when it is whole, one build of an image at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from . import recipe
from .errors import LabError
from .process import Process, run

BUILD_SECONDS = 1200
_COPIED_APT_OPTIONS = re.compile(r"^Acquire::(Check-|https?::(.*::)?Proxy|(.*::)?Verify-|https?::(.*::)?Timeout|Retries)", re.I)


class Target(NamedTuple):
    """One of apt's index targets: release (`bookworm-updates`), archive address, component."""

    release: str
    address: str
    component: str


def key(release: str, source: bytes) -> str:
    return f"{release}-{hashlib.sha256(source).hexdigest()[:12]}"


def recipe_bytes() -> bytes:
    return Path(recipe.__file__).read_bytes()


def parse_targets(text: str) -> list[Target]:
    """Read lines of `RELEASE|ADDRESS|COMPONENT`."""
    rows = (line.strip().split("|") for line in text.splitlines() if line.strip())
    return [Target(*row) for row in rows if len(row) == 3]


def sources(targets: list[Target], machine: str, release: str) -> str:
    """sources.list lines for `release`, from the archives that this machine (of release `machine`) uses itself.

    Its own release, updates and security archives are taken, renamed to `release`; anything else
    (backports, other vendors) is left out. LabError when there is no archive of the release itself.
    """
    lines: list[str] = []
    for suffix in ("", "-updates", "-security"):
        for target in targets:
            line = f"deb {target.address} {release}{suffix} main"
            if target.release == machine + suffix and target.component == "main":
                if line not in lines:
                    lines.append(line)
                break
        else:
            if not suffix:
                raise LabError(
                    f"apt knows no archive of {machine}/main on this machine: give it one in /etc/apt/sources.list.d/ and run 'apt-get update'"
                )
    return "".join(line + "\n" for line in lines)


def apt_options(dump: str) -> list[str]:
    """The lines of `apt-config dump` that decide whether and how this machine reaches its archive."""
    return [line.rstrip(";") for line in dump.splitlines() if _COPIED_APT_OPTIONS.match(line)]


def machine_release() -> str:
    found = re.search(r"^VERSION_CODENAME=\"?([a-z]+)\"?$", Path("/etc/os-release").read_text(), re.M)
    if not found:
        raise LabError("/etc/os-release has no VERSION_CODENAME: the lab needs a Debian machine")
    return found[1]


def remove_tree(path: Path) -> None:
    """Remove a folder, never what is mounted in it."""
    if path.exists():
        run(["rm", "-rf", "--one-file-system", str(path)], what=f"removing {path}", timeout=300)


class Cache:
    """The images under one folder (/var/cache/swg-ha-lab)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, release: str) -> Path:
        return self.folder / key(release, recipe_bytes())

    def ensure(self, release: str) -> tuple[Path, bool]:
        """The image of this release and whether it was built now. Waits for a build that another process has begun."""
        path = self.path(release)
        if path.is_dir():
            return path, False
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._one_build(path.name):
            if path.is_dir():
                return path, False
            self._remove_unfinished(path.name)
            self._build(release, path)
        return path, True

    @contextmanager
    def _one_build(self, name: str) -> Iterator[None]:
        with (self.folder / f"{name}.lock").open("w") as lock:
            end = time.monotonic() + BUILD_SECONDS
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise LabError(
                            f"another process has been building image {name} for {BUILD_SECONDS} s: look at {lock.name}"
                        ) from None
                    time.sleep(0.2)
            yield

    def _remove_unfinished(self, name: str) -> None:
        for left in self.folder.glob(f"{name}.build-*"):
            pid, _, start = left.name.rpartition(".build-")[2].partition("-")
            if pid.isdigit() and start.isdigit() and Process(int(pid), int(start)).alive():
                continue
            remove_tree(left)

    def _build(self, release: str, path: Path) -> None:
        me = Process.of(os.getpid())
        assert me is not None
        tree = self.folder / f"{path.name}.build-{me.pid}-{me.start}"
        try:
            bootstrap(release, tree)
            finish(tree)
            os.rename(tree, path)
        except BaseException:
            remove_tree(tree)
            raise


def bootstrap(release: str, tree: Path) -> None:
    """Run mmdebstrap in mount and process namespaces of its own, so that no mount and no process of it outlives us."""
    targets = parse_targets(
        run(
            ["apt-get", "indextargets", "--format", "$(RELEASE)|$(REPO_URI)|$(COMPONENT)", "Created-By: Packages"],
            what="apt-get indextargets",
        )
    )
    archives = sources(targets, machine_release(), release)
    options = [f"--aptopt={option}" for option in apt_options(run(["apt-config", "dump"]))]
    log = tree.with_name(tree.name + ".log")
    argv = [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--skip=cleanup/apt/lists"),
        *('--aptopt=Acquire::Languages "none"', "--dpkgopt=force-unsafe-io", *options),
        *(f"--include={','.join(recipe.PACKAGES)}", release, str(tree), "-"),
    ]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
    with log.open("wb") as out:
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            child.communicate(archives.encode(), timeout=BUILD_SECONDS)
        except BaseException as error:
            child.kill()
            child.wait()
            log.unlink()
            if isinstance(error, subprocess.TimeoutExpired):
                raise LabError(f"image {release}: mmdebstrap has not ended after {BUILD_SECONDS} s") from None
            raise
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    log.unlink()
    if child.returncode != 0:
        raise LabError(f"image {release}: mmdebstrap failed: is this machine's package archive reachable ('apt-get update')?", tail)


def finish(tree: Path) -> None:
    """Turn the fresh tree into the common part of all hosts."""
    for pattern in recipe.REMOVED:
        for path in tree.glob(pattern):
            path.unlink()
    for name, text in recipe.FILES.items():
        path = tree / name
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    chroot = ["chroot", str(tree)]
    run([*chroot, "systemctl", "disable", *recipe.OPTIONAL_SERVICES])
    run([*chroot, "systemctl", "enable", *recipe.ENABLED_UNITS])
    run([*chroot, "systemctl", "mask", *recipe.MASKED_UNITS])
    run([*chroot, "apt-cache", "gencaches"])
    # systemd would bring these up to date at the first boot of every host.
    for stamp in ("etc/.updated", "var/.updated"):
        (tree / stamp).touch()
    now = time.time()
    for stamp in ("etc/.updated", "var/.updated"):
        os.utime(tree / stamp, (now, now))
