"""Whether a machine has an image open: QEMU says so by locks on bytes of it that hold no data of their own.

A program of QEMU's locks byte 100 + n of each file or device for a permission n that it uses and byte 200 + n for one that it
grants to nobody else (block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE). They are locks of the open file
description (fcntl(2), F_OFD_SETLK): they end with the program, and on NFS other hosts see them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

from poolkit import errors
from poolkit.host.port import Host

_USED, _GUARDED = 100, 200
_COUNT = 8  # more than QEMU has permissions (four)
_WRITES = 1  # BLK_PERM_WRITE
_LOCK = struct.Struct("@hhqqi4x")  # struct flock


def users(fd: int) -> str | None:
    """The programs of QEMU's that have the open file or device open, in words; None if there is none."""
    return _words(fd) if _locked(fd, _USED, _COUNT) or _locked(fd, _GUARDED, _COUNT) else None


def writers(fd: int) -> str | None:
    """As :func:`users`, but only if one of them may write."""
    return _words(fd) if _locked(fd, _USED + _WRITES, 1) else None


def require_free(fd: int, what: str, *, force: bool = False, volume: str | None = None) -> None:
    """``Busy`` with the program if a machine has the image open, unless ``force``."""
    if force:
        return
    by = users(fd)
    if by is not None:
        raise errors.Busy(
            f"{what} is in use by {by}", volume=volume,
            hint=errors.Hint("stop the machine first; if it is meant nevertheless, add ", errors.Option("force")),
        )  # fmt: skip


def check_copy(
    host: Host, fd: int, format: str, what: str, *, linked: bool = False, whole: bool = True
) -> None:  # fmt: skip
    """Before the open volume is read: a warning if a machine may write to it meanwhile.

    ``Busy`` where a ``whole`` volume would come of an image whose tables change, or where an overlay is ``linked`` to what
    is written to.
    """
    from poolkit.content.recipes import BYTES

    by = writers(fd)
    if by is None:
        return
    if linked or (whole and format not in BYTES):
        raise errors.Busy(
            f"{what} is being written to by {by}", hint="stop the machine first, or copy a snapshot of its disk"
        )
    host.warn(f"{what} is being written to by {by}: the copy may be torn")


def _locked(fd: int, start: int, count: int) -> bool:
    wanted = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, count, 0)
    try:
        return bool(_LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, wanted))[0] != fcntl.F_UNLCK)
    except OSError:
        return False  # a file system without locks


def _words(fd: int) -> str:
    """Who they are, as far as this process may know."""
    facts = os.fstat(fd)
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{number}"), facts) and _has_lock(pid, number):
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="backslashreplace") as file:
                        found.append(f"process {pid} ({file.read().strip()})")
                    break
    return errors.some(found) or "a program that this process cannot see"


def _has_lock(pid: str, number: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="utf-8") as file:  # proc(5): its locks, one a line
        return any(line.startswith("lock:") and "OFDLCK" in line for line in file)
