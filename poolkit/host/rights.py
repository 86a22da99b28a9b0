"""Modes and owners of files: errors that say of which file, and what keeps even root from a change."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys

from poolkit import errors


def give(fd: int, path: str, owner: int, group: int) -> None:
    """fchown(2) of what is at ``path``, which the error of a descriptor does not name; -1 leaves one as it is."""
    try:
        os.fchown(fd, owner, group)
    except OSError as error:
        error.filename = path
        if error.errno == errno.EPERM and os.geteuid() != 0 and (owner != -1 or group not in (-1, *os.getgroups())):
            whom = " and ".join(
                f"{what} {number}" for what, number in (("user", owner), ("group", group)) if number != -1
            )
            raise errors.PermissionDenied(
                f"'{path}' cannot be given to {whom} by user {os.geteuid()}",
                hint="only root gives files to other users; a user chooses among the groups that it is in",
            ) from error
        raise


def give_mode(fd: int, path: str, mode: int) -> None:
    """fchmod(2) of what is at ``path``, which the error of a descriptor does not name."""
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        error.filename = path
        raise


def kept_as_it_is(path: str) -> str | None:
    """Which of the file attributes that keep even root from changing a file or directory it has, as chattr(1) names them."""
    flags = bytearray(8)
    try:
        if stat.S_IFMT(os.lstat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, 0x80086601, flags)  # FS_IOC_GETFLAGS of linux/fs.h
        finally:
            os.close(fd)
    except OSError:
        return None
    has = int.from_bytes(flags[:4], sys.byteorder)
    if has & 0x10:  # FS_IMMUTABLE_FL
        return "immutable"
    return "append-only" if has & 0x20 else None  # FS_APPEND_FL
