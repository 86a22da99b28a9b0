"""What the kernel says of devices and processes in sysfs and procfs. What is not there, or may not be read, is empty."""

from __future__ import annotations

import os
from functools import cache

from poolkit import errors

_PIECE = 1 << 16
_PAGE = 4096  # an attribute of sysfs has less than a page, and comes whole (Linux: Documentation/filesystems/sysfs.rst)


def value(path: str) -> str:
    """The one value of an attribute of sysfs, without the white space around it."""
    return _data(path, whole=_PAGE).decode("utf-8", "backslashreplace").strip()


def text(path: str) -> str:
    """All of a file, line by line as it is; bytes that are not UTF-8 appear as ``\\xNN``."""
    return data(path).decode("utf-8", "backslashreplace")


def data(path: str) -> bytes:
    """All of a file of bytes, such as a page of a disk's vital product data."""
    return _data(path)


def _data(path: str, whole: int = 0) -> bytes:
    """All of a file; a first read of less than ``whole`` bytes is known to be all."""
    try:  # without a file object: a listing of disks reads a dozen attributes of each
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        found = piece = os.read(fd, _PIECE)
        while len(piece) >= max(whole, 1):
            piece = os.read(fd, _PIECE)
            found += piece
        return found
    except OSError:
        return b""
    finally:
        os.close(fd)


def names(path: str) -> list[str]:
    """The entries of a folder, numbers in their order."""
    try:
        return sorted(os.listdir(path), key=lambda name: (len(name), name))
    except OSError:
        return []


def link(path: str) -> str:
    """Where a symbolic link leads."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


@cache
def boot() -> str:
    """The identity of this boot of the machine, which is always there; ``HostError``."""
    path = "/proc/sys/kernel/random/boot_id"
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall().strip().decode("ascii")
    except OSError as error:
        raise errors.from_os_error(error, f"read '{path}'") from error
