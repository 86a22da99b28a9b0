"""Symbolic links in the directory of a pool: those that may be followed are volumes as well, to be read and copied.

A link is followed below the directory only, by the kernel's own check at each opening (openat2(2)), so that one that is changed
in between cannot lead out of it. Nothing is written through a link: the file has a name of its own.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from poolkit.backend import VolumeInfo
from poolkit.host.directory import LOOK, Directory

if TYPE_CHECKING:
    Read = Callable[[int, int, str | None, VolumeInfo | None], tuple[str, int, dict[str, Any] | None]]

_NOT_FOLLOWED = (errno.EXDEV, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.ENOSYS, errno.EPERM, errno.EINVAL)


def opened(directory: Directory, name: str) -> tuple[int, str] | None:
    """A descriptor of what a link leads to, and what it says; None unless that is below the directory.

    Not followed either are links that the kernel of this machine cannot keep there (before Linux 5.6). ``OSError`` for what is
    below it and cannot be opened.
    """
    from poolkit.host import libc

    try:
        aim = os.readlink(name, dir_fd=directory.fd)
    except FileNotFoundError:
        return None
    if aim.startswith("/"):
        own = directory.path.rstrip("/") + "/"
        if not aim.startswith(own):
            return None
        aim = aim.removeprefix(own).lstrip("/")
    try:
        return libc.open_beneath(directory.fd, aim or ".", LOOK & ~os.O_NOFOLLOW), aim
    except OSError as error:
        if error.errno in _NOT_FOLLOWED:
            return None
        raise


def volume(
    directory: Directory, name: str, old: VolumeInfo | None, read: Read,
    make: Callable[[str, os.stat_result, str, int, dict[str, Any] | None], VolumeInfo],
) -> VolumeInfo | None:  # fmt: skip
    """The volume that a link is; None for one that is not followed, or leads to something else than a file.

    Its key is its own path, and its path that of the file, which goes into what others note of it.
    """
    found = opened(directory, name)
    if found is None:
        return None
    fd, aim = found
    try:
        facts, path = os.fstat(fd), os.readlink(f"/proc/self/fd/{fd}")
        if not stat.S_ISREG(facts.st_mode):
            return None
        same = old is not None and old.inode == facts.st_ino and old.recorded
        format, capacity, detail = read(fd, facts.st_size, old.format if same and old is not None else None, old)
    finally:
        os.close(fd)
    info = make(name, facts, format, capacity, {**(detail or {}), "link": aim})
    return info._replace(stamp=0, key=directory.join(name), path=path)
