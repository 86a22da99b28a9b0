"""The few system calls that Python's ``os`` module does not offer, through the C library."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from functools import cache

from poolkit.later import later
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes
else:
    ctypes = later(globals(), "ctypes", "ctypes")  # which takes longer than most calls that are made with it

_RENAME_NOREPLACE = 1  # linux/fs.h
FALLOC_FL_KEEP_SIZE = 0x01  # linux/falloc.h
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_ZERO_RANGE = 0x10


_EMPTY_PATH = 0x1000  # linux/fcntl.h, AT_EMPTY_PATH
_OPENAT2 = 437  # asm-generic/unistd.h, the same on all machines
_NO_MAGICLINKS, _BENEATH = 0x02, 0x08  # linux/openat2.h
_PDEATHSIG = 1  # linux/prctl.h
_BTIME = 0x800  # linux/stat.h, STATX_BTIME
_RESERVE = 0x40305828  # linux/falloc.h, FS_IOC_RESVSP: _IOW('X', 40, struct space_resv)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _raise(path: str | None = None) -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), path)


def rename_noreplace(old: str, new: str, *, dir_fd: int) -> None:
    """Rename ``old`` to ``new`` in the directory ``dir_fd``; ``FileExistsError`` if ``new`` exists.

    renameat2(2) with RENAME_NOREPLACE. Raises ``OSError`` (ENOSYS, EINVAL) where the kernel or the file system lacks it.
    """
    if _libc().renameat2(dir_fd, os.fsencode(old), dir_fd, os.fsencode(new), _RENAME_NOREPLACE):
        _raise(new)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2) as the kernel has it: no emulation by writing, so ``EOPNOTSUPP`` is an honest answer."""
    if mode in (0, FALLOC_FL_KEEP_SIZE) and _reserved(fd, offset, length):
        if not mode and os.fstat(fd).st_size < offset + length:
            os.ftruncate(fd, offset + length)
        return
    if _libc().fallocate64(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        _raise()


def _reserved(fd: int, offset: int, length: int) -> bool:
    """Reserve space as fallocate(2) with ``FALLOC_FL_KEEP_SIZE`` does, by a call that Python has; False where there is none such.

    The kernel has that ioctl(2) for regular files of every file system (``ioctl_preallocate`` of fs/ioctl.c). Of ``struct
    space_resv`` only the offset from the begin of the file and the length mean something.
    """
    try:
        fcntl.ioctl(fd, _RESERVE, struct.pack("=hhiqqiI4i", 0, os.SEEK_SET, 0, offset, length, 0, 0, 0, 0, 0, 0))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.ENOSYS, errno.EINVAL):
            raise
        return False
    return True


def open_beneath(dir_fd: int, path: str, flags: int) -> int:
    """Open what is at ``path`` below the directory ``dir_fd``, links followed as long as they stay there; ``EXDEV`` if not.

    openat2(2), since Linux 5.6: ``struct open_how`` is three numbers of 64 bits, flags, mode and how names are resolved.
    """
    how = struct.pack("=QQQ", flags, 0, _BENEATH | _NO_MAGICLINKS)
    fd = _libc().syscall(_OPENAT2, dir_fd, os.fsencode(path), how, ctypes.c_size_t(len(how)))
    if fd < 0:
        _raise(path)
    return int(fd)


def die_with(parent: int) -> None:
    """Let the kernel kill this process when the process ``parent``, which forked it, dies; at once if it is dead. ``OSError``.

    prctl(2) with PR_SET_PDEATHSIG: it means the thread that forked, so a parent that has several ends its child with that one.
    """
    import signal

    if _libc().prctl(_PDEATHSIG, *map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0))):
        _raise()
    if os.getppid() != parent:  # it died before it was asked for
        os.kill(os.getpid(), signal.SIGKILL)


def birth(fd: int) -> int:
    """When an open file was made, in nanoseconds since 1970; 0 where the file system or the system does not tell.

    statx(2): of the 256 bytes that it fills, the mask is at 0, the seconds (signed) at 80 and the nanoseconds at 88.
    """
    try:
        statx = _libc().statx  # glibc has it since 2.28
    except AttributeError:
        return 0
    facts = ctypes.create_string_buffer(256)
    if statx(fd, b"", _EMPTY_PATH, _BTIME, facts) or not int.from_bytes(facts.raw[:4], sys.byteorder) & _BTIME:
        return 0
    seconds = int.from_bytes(facts.raw[80:88], sys.byteorder, signed=True)
    return seconds * 1_000_000_000 + int.from_bytes(facts.raw[88:92], sys.byteorder)
