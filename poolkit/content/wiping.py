"""Making data unreadable: the algorithms that libvirt names, on any descriptor of a file or block device.

What each of them promises is in :data:`PROMISES`. All passes go through the file system or device as any write does: on
copy-on-write and journalling file systems, on SSDs and on storage that shares blocks, the old blocks may survive
elsewhere, whatever is written. Only encryption from the first day, or destroying the medium, helps there.

The sequences are those of scrub(1) 2.6, the program libvirt runs for them. Gutmann's is table 1 of "Secure Deletion of Data
from Magnetic and Solid-State Memory" (USENIX Security 1996); Schneier's is from "Applied Cryptography" (2nd ed., 1996).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

from poolkit import errors
from poolkit.content import copying
from poolkit.host import libc
from poolkit.host.descriptors import write_at
from poolkit.host.port import Host

RANDOM = b""  # a pass of fresh random bytes, as an element of a sequence

_BLKDISCARD, _BLKZEROOUT = 0x1277, 0x127F  # linux/fs.h, _IO(0x12, 119) and _IO(0x12, 127)
_PIECE = 1 << 20
_TURNS = [b"\x92\x49\x24", b"\x49\x24\x92", b"\x24\x92\x49"]
_CANNOT = frozenset((errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENOTTY))

PASSES: dict[str, tuple[bytes, ...]] = {
    "nnsa": (RANDOM, RANDOM, b"\0"),
    "dod": (RANDOM, b"\0", b"\xff"),
    "bsi": tuple(bytes([n]) for n in (0xFF, 0xFE, 0xFD, 0xFB, 0xF7, 0xEF, 0xDF, 0xBF, 0x7F)),
    "gutmann": (
        *[RANDOM] * 4, b"\x55", b"\xaa", *_TURNS, *(bytes([n * 0x11]) for n in range(16)), *_TURNS,
        b"\x6d\xb6\xdb", b"\xb6\xdb\x6d", b"\xdb\x6d\xb6", *[RANDOM] * 4,
    ),
    "schneier": (b"\0", b"\xff", *[RANDOM] * 5),
    "pfitzner7": (RANDOM,) * 7,
    "pfitzner33": (RANDOM,) * 33,
    "random": (RANDOM,),
}  # fmt: skip
"""The passes of the algorithms that overwrite: a pattern that is repeated, or ``RANDOM``."""

VERIFIED = frozenset(("nnsa", "dod"))
"""Algorithms that end with reading the last pattern back."""

PROMISES = {
    "zero": "the volume reads as zeros; its old blocks may be freed instead of overwritten",
    "nnsa": "overwritten twice with random bytes and once with zeros, which are read back (NNSA NAP-14.1-C)",
    "dod": "overwritten with random bytes, zeros and ones, the last read back (DoD 5220.22-M 8-306 d)",
    "bsi": "overwritten nine times with fixed patterns (BSI)",
    "gutmann": "overwritten 35 times with the patterns of Gutmann's paper, made for disks of 1996",
    "schneier": "overwritten with zeros, ones and five times random bytes",
    "pfitzner7": "overwritten seven times with random bytes",
    "pfitzner33": "overwritten 33 times with random bytes",
    "random": "overwritten once with random bytes",
    "trim": "the old blocks are given back to the storage; nothing is overwritten",
}
"""What one may expect of each algorithm, in a few words; names and order are libvirt's."""

ALGORITHMS = tuple(PROMISES)


def check_offered(name: str, volume: str, offered: Sequence[str], why: str) -> None:
    """As :func:`check_algorithm`, and ``Unsupported`` for one that is not offered; ``why`` has ``{}`` for its name."""
    if check_algorithm(name) not in offered:
        raise errors.Unsupported(
            f"volume '{volume}': {why.format(repr(name))}", volume=volume, hint=f"use {' or '.join(offered)}"
        )


def check_algorithm(name: str) -> str:
    """``name`` if it is an algorithm, else ``InvalidArgument``."""
    if name not in PROMISES:
        raise errors.InvalidArgument(f"there is no way of wiping '{name}'", hint=f"one of: {', '.join(ALGORITHMS)}")
    return name


def check_storage(host: Host, fd: int, algorithm: str) -> None:
    """``Unsupported`` if the storage of the open file, which is empty, cannot do what ``algorithm`` needs."""
    if algorithm == "trim":
        _trim(host, fd, 4096, False)


def wipe(host: Host, fd: int, size: int, algorithm: str, *, thin: bool = False) -> None:
    """Wipe the first ``size`` bytes of a file or device with one of :data:`ALGORITHMS`.

    With ``thin`` it is a device that gets its space as it is written: ``zero`` gives that back. Repeatable. Raises
    ``Unsupported`` for ``trim`` where the storage cannot take space back, and ``HostError`` when what is read back is not what
    was written.
    """
    check_algorithm(algorithm)
    host.files.fault(f"wipe {algorithm}")
    block = stat.S_ISBLK(os.fstat(fd).st_mode)
    if not size:
        return
    if algorithm == "trim":
        _trim(host, fd, size, block)
    elif algorithm == "zero" and thin:
        _zero_thin(host, fd, size)
    elif algorithm == "zero":
        if not _zero(host, fd, size, block):
            _overwrite(host, fd, size, b"\0", 0, 1)
    else:
        passes = PASSES[algorithm]
        verified = algorithm in VERIFIED
        count = len(passes) + verified
        for number, pattern in enumerate(passes):
            _overwrite(host, fd, size, pattern, number, count)
        if verified:
            _verify(host, fd, size, passes[-1], count)
    os.fsync(fd)
    host.progress(1, 1, "wiped")


def _trim(host: Host, fd: int, size: int, block: bool) -> None:
    try:
        if block:
            copying.on_device(host, fd, _BLKDISCARD, 0, size, "trim")
        else:
            libc.fallocate(fd, libc.FALLOC_FL_PUNCH_HOLE | libc.FALLOC_FL_KEEP_SIZE, 0, size)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        raise errors.Unsupported(
            "the storage cannot take space back (no discard)", hint="use another algorithm, such as zero"
        ) from error


def _zero(host: Host, fd: int, size: int, block: bool) -> bool:
    """By the kernel, which needs not write what it can mark; False if that is not to be had."""
    try:
        if block:
            copying.on_device(host, fd, _BLKZEROOUT, 0, size, "zero")
            return True
        sparse = os.fstat(fd).st_blocks * 512 < size
        hole = libc.FALLOC_FL_PUNCH_HOLE | libc.FALLOC_FL_KEEP_SIZE
        # A volume that had all its space keeps it.
        libc.fallocate(fd, hole if sparse else libc.FALLOC_FL_ZERO_RANGE, 0, size)
        return True
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False


def _zero_thin(host: Host, fd: int, size: int) -> None:
    """Give all space back, and write zeros over what still reads as something else (no discard, or an origin below)."""
    with contextlib.suppress(errors.Unsupported):
        _trim(host, fd, size, True)
    zeros = bytes(_PIECE)
    position = 0
    while position < size:
        data = os.pread(fd, min(_PIECE, size - position), position)
        if not data:
            raise errors.HostError(f"the device ends at byte {position}, before its size of {size}")
        count = len(data)
        if data != zeros[:count]:
            host.files.fault("wipe")
            write_at(fd, zeros[:count], position)
        position += count
        host.progress(position, size, "zero")


def _overwrite(host: Host, fd: int, size: int, pattern: bytes, number: int, count: int) -> None:
    piece = _piece(pattern)
    position = 0
    while position < size:
        if not pattern:
            piece = os.urandom(_PIECE)
        host.files.fault("wipe")
        # The pattern goes on where the last piece ended, as if it were one long run from the start.
        shift = position % len(pattern) if pattern else 0
        data = memoryview(piece)[shift : shift + min(_PIECE, size - position)]
        write_at(fd, data, position)
        position += len(data)
        host.progress(number * size + position, count * size, f"pass {number + 1} of {count}")
    os.fsync(fd)  # the next pass must not replace this one in the page cache


def _verify(host: Host, fd: int, size: int, pattern: bytes, count: int) -> None:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # read the storage, not the cache
    piece = _piece(pattern)
    position = 0
    while position < size:
        data = os.pread(fd, min(_PIECE, size - position), position)
        shift = position % len(pattern)
        if not data or data != piece[shift : shift + len(data)]:
            raise errors.HostError(f"byte {position} and on read back other data than was written: the medium is bad")
        position += len(data)
        host.progress((count - 1) * size + position, count * size, f"pass {count} of {count}")


def piece(pattern: bytes, position: int, length: int) -> bytes:
    """The bytes of a pass at a position: the pattern as if it were one long run from the start, or random ones."""
    if not pattern:
        return os.urandom(length)
    shift = position % len(pattern)
    return (pattern * (length // len(pattern) + 2))[shift : shift + length]


def _piece(pattern: bytes) -> bytes:
    return pattern * (_PIECE // len(pattern) + 2) if pattern else b""
