"""A policy server's data disk: an ext4 image, and what can happen to it.

The disk is mounted in the host's mount namespace only. From outside it is reached through the root folder of the
process that holds that namespace: /proc/PID/root/...
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from pathlib import Path

from .errors import LabError
from .process import run, wait_for

_EXT4_SHUTDOWN = 0x8004587D
_EXT4_SHUTDOWN_NO_LOG_FLUSH = 2
_FREEZE = 0xC0045877
_THAW = 0xC0045878

BALLAST = ".lab-ballast"


def create(image: Path, size: int) -> None:
    """A sparse image of `size` bytes with an empty ext4 on it."""
    with image.open("xb") as file:
        file.truncate(size)
    options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    run(["mkfs.ext4", "-q", "-m", "0", "-i", "65536", "-E", options, "-L", "data", str(image)], what=f"mkfs.ext4 {image}")


def check(image: Path) -> None:
    """Repair what a power cut or an error has left, as a server does at boot."""
    for option in ("-p", "-fy"):
        status = subprocess.run(
            ["e2fsck", option, str(image)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ).returncode
        if status < 4:
            return
    raise LabError(f"{image}: e2fsck cannot repair it (exit status {status}): roll back to a snapshot, or take the lab down")


def loop_device(image: Path) -> str | None:
    """Name (`loop3`) of the loop device of this image, or None."""
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if path.read_text().strip() == str(image):
                return path.parts[3]
        except OSError:
            continue
    return None


def wait_released(image: Path, folder: Path, seconds: float) -> None:
    """Wait until nothing has the image mounted any more. LabError when that does not come.

    A frozen file system outlives its last mount, and with it its loop device: it is mounted once more to thaw it.
    `folder` is an empty one to mount it on, for a moment and unseen by others.
    """
    if wait_for(lambda: loop_device(image) is None, 1):
        return
    if device := loop_device(image):
        script = 'mount "$1" "$2" && fsfreeze --unfreeze "$2"'
        argv = ["timeout", "10", "unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "thaw", f"/dev/{device}", str(folder)]
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not wait_for(lambda: loop_device(image) is None, seconds):
        raise LabError(
            f"{image}: /dev/{loop_device(image)} does not let go of it: see who has it mounted, by 'grep -l {image.parent} /proc/[0-9]*/mountinfo'"
        )


def device_number(device: str) -> str:
    """`MAJOR:MINOR` of a block device."""
    return Path(f"/sys/block/{device}/dev").read_text().strip()


def cut(mount: Path) -> None:
    """Stop the file system dead: nothing more reaches the disk, not even what is in its journal's buffer."""
    fd = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _EXT4_SHUTDOWN, _EXT4_SHUTDOWN_NO_LOG_FLUSH.to_bytes(4, "little"))
    finally:
        os.close(fd)


def fill(mount: Path) -> None:
    """Take all the space there is."""
    space = os.statvfs(mount)
    fd = os.open(mount / BALLAST, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size, step = os.fstat(fd).st_size, space.f_bavail * space.f_frsize
        while step >= space.f_frsize:
            try:
                os.posix_fallocate(fd, size, step)
                size += step
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step //= 2
        # It must still be there after a power cut.
        os.fsync(fd)
    finally:
        os.close(fd)


def empty(mount: Path) -> None:
    (mount / BALLAST).unlink(missing_ok=True)


def freeze(mount: Path) -> None:
    """Every write waits until `thaw`."""
    _freezing(mount, _FREEZE, errno.EBUSY)


def thaw(mount: Path) -> None:
    _freezing(mount, _THAW, errno.EINVAL)


def _freezing(mount: Path, request: int, already: int) -> None:
    fd = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, request, 0)
    except OSError as error:
        if error.errno != already:
            raise
    finally:
        os.close(fd)


def fail(device: str) -> None:
    """Let ext4 find an error: it makes itself read-only, as mounted with errors=remount-ro."""
    trigger = Path(f"/sys/fs/ext4/{device}/trigger_fs_error")
    try:
        trigger.write_text("lab")
    except FileNotFoundError:
        raise LabError(f"{trigger} is not there: this kernel's ext4 cannot be made to fail") from None


def read_only(mountinfo: str, mount: str) -> bool:
    """Whether the file system at `mount` is read-only, from a text of /proc/PID/mountinfo."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[4] == mount:
            options = after.split()[2].split(",")
            return "ro" in options or "emergency_ro" in options or "shutdown" in options
    return False
