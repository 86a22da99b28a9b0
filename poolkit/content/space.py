"""The space of files: reserving it, what lies within it, and where the kernel counts it in time."""

from __future__ import annotations

import errno
import os

from poolkit import errors
from poolkit.host import libc
from poolkit.host.descriptors import write_at
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from poolkit.backend import Transfer
    from poolkit.host.port import Host
    from poolkit.model import Volume

PROMPT = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs"})
"""Kernel names of the file systems whose st_blocks counts what was written but has no place on the disk yet."""


def capacity_given(volume: Volume) -> int:
    """The capacity that a document asks for, in bytes; ``InvalidArgument`` where it says none."""
    if volume.capacity is None:
        raise errors.InvalidArgument(f"volume '{volume.name}' needs a capacity", volume=volume.name)
    return volume.capacity


def reserve(host: Host, fd: int, offset: int, length: int, *, full: str | None = None, beyond: bool = False) -> bool:
    """Back a range of a file with space: fallocate(2), or zeros written where the file system lacks it.

    ``NoSpace`` before anything is written. ``full`` is the preallocation asked for: "full" writes zeros in any case, "falloc"
    and "full" cover the whole file. ``beyond`` leaves the file's size alone. False if the
    file system cannot do that to a file that holds data.
    """
    if full in ("falloc", "full"):
        offset, length = 0, os.fstat(fd).st_size
    if length <= 0:
        return True
    facts = os.fstat(fd)
    held = facts.st_blocks * 512 if offset == 0 else 0
    room = os.fstatvfs(fd)
    free = room.f_bavail * room.f_frsize
    if length - held > free:
        raise errors.NoSpace(
            f"{length} bytes were asked for and {free} are free",
            hint="give <allocation>0</allocation> for a sparse volume",
        )
    host.files.fault("fallocate")
    if full != "full" or held:
        try:
            libc.fallocate(fd, libc.FALLOC_FL_KEEP_SIZE if beyond else 0, offset, length)
            return True
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
    if held:
        return False  # it holds data: zeros must not be written over it
    zeros = bytes(1 << 20)
    done = 0
    while done < length:
        host.progress(done, length, "write zeros")
        count = min(len(zeros), length - done)
        write_at(fd, zeros[:count], offset + done)
        done += count
    return True


def check_range(name: str, transfer: Transfer, size: int) -> int:
    """``size`` if the range lies within it, else ``InvalidArgument``."""
    if transfer.offset > size or transfer.offset + transfer.length > size:
        raise errors.InvalidArgument(
            f"volume '{name}' has {size} bytes; "
            f"the range from {transfer.offset} of {transfer.length or 'all further'} bytes is not within it",
            volume=name,
        )
    return size
