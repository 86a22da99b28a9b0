"""Moving bytes to and from what takes only commands for whole blocks: a disk behind a protocol, without a descriptor.

The counterpart of :mod:`poolkit.content.copying` and :mod:`poolkit.content.wiping`, with the same promises.
"""

from __future__ import annotations

import errno
import os
from typing import BinaryIO, Protocol

from poolkit import errors
from poolkit.backend import Transfer
from poolkit.content import copying, wiping
from poolkit.host import streams
from poolkit.host.descriptors import write_at
from poolkit.host.port import Host

PIECE = 1 << 18
"""Bytes of one command: every target takes so many at once, and more gains little over a local network."""
_WIPED = 1 << 24  # bytes of one command that overwrites: some targets take their time for each


class Blocks(Protocol):
    """A device of so many bytes in blocks of so many. Errors are poolkit's own."""

    size: int
    block: int

    def read(self, first: int, count: int) -> bytes:
        """Whole blocks."""

    def write(self, first: int, data: bytes) -> None:
        """Whole blocks."""

    def zero(self, first: int, count: int, *, unmap: bool = False) -> bool:
        """Make blocks read as zeros, and give their space back with ``unmap``; False where that is not to be had."""

    def flush(self) -> None:
        """Have all that was written reach the medium."""


def pread(blocks: Blocks, length: int, offset: int) -> bytes:
    """Bytes from ``offset`` on, fewer at the end of the device."""
    end = min(offset + length, blocks.size)
    if end <= offset:
        return b""
    first, last = offset // blocks.block, -(-end // blocks.block)
    data = blocks.read(first, last - first)
    return data[offset - first * blocks.block : end - first * blocks.block]


def pwrite(blocks: Blocks, data: bytes, offset: int) -> None:
    """Write bytes; of blocks that are changed in part the rest is read before."""
    unit = blocks.block
    first, last = offset // unit, (offset + len(data) - 1) // unit
    head, tail = offset - first * unit, (last + 1) * unit - offset - len(data)
    before = blocks.read(first, 1)[:head] if head else b""
    after = blocks.read(last, 1)[unit - tail :] if tail else b""
    blocks.write(first, before + data + after)


def upload(host: Host, blocks: Blocks, stream: BinaryIO, transfer: Transfer) -> int:
    """As ``copying.upload``: within the device's size. Returns the number of bytes."""

    def put(data: memoryview, position: int) -> None:
        for start in range(0, len(data), PIECE):
            pwrite(blocks, bytes(data[start : start + PIECE]), position + start)

    count = copying.receive(host, stream, transfer, blocks.size, put)
    blocks.flush()
    return count


def download(host: Host, blocks: Blocks, stream: BinaryIO, transfer: Transfer) -> int:
    """As ``copying.download``, without holes: the bytes of a range; returns how many."""
    end = transfer.offset + transfer.length if transfer.length else blocks.size
    position = transfer.offset
    while position < end:
        data = pread(blocks, min(PIECE, end - position), position)
        host.files.fault("download")
        streams.put(host, stream, data)
        position += len(data)
        host.progress(position - transfer.offset, end - transfer.offset, "download")
    return end - transfer.offset


def copy_to(host: Host, blocks: Blocks, fd: int) -> None:
    """Write all bytes into an open file or device that reads as zeros; runs of zeros are left out."""
    position = 0
    while position < blocks.size:
        data = pread(blocks, min(PIECE, blocks.size - position), position)
        host.files.fault("copy")
        if data.count(0) != len(data):
            write_at(fd, data, position)
        position += len(data)
        host.progress(position, blocks.size, "copy")
    try:
        if os.fstat(fd).st_size < blocks.size:
            os.ftruncate(fd, blocks.size)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a block device has its size
            raise


def wipe(host: Host, blocks: Blocks, algorithm: str) -> None:
    """As ``wiping.wipe``, of the whole device."""
    wiping.check_algorithm(algorithm)
    host.files.fault(f"wipe {algorithm}")
    if algorithm in ("zero", "trim"):
        if not _by_the_device(host, blocks, unmap=algorithm == "trim"):
            if algorithm == "trim":
                raise errors.Unsupported(
                    "the storage cannot take space back (no unmap)", hint="use another algorithm, such as zero"
                )
            _pass(host, blocks, b"\0", 0, 1)
    else:
        passes = wiping.PASSES[algorithm]
        count = len(passes) + (algorithm in wiping.VERIFIED)
        for number, pattern in enumerate(passes):
            _pass(host, blocks, pattern, number, count)
        if algorithm in wiping.VERIFIED:
            _verify(host, blocks, passes[-1], count)
    blocks.flush()
    host.progress(1, 1, "wiped")


def _by_the_device(host: Host, blocks: Blocks, *, unmap: bool) -> bool:
    total, each = blocks.size // blocks.block, _WIPED // blocks.block
    for first in range(0, total, each):
        host.files.fault("wipe")
        if not blocks.zero(first, min(each, total - first), unmap=unmap):
            return False
        host.progress(first * blocks.block, blocks.size, "zero")
    return True


def _pass(host: Host, blocks: Blocks, pattern: bytes, number: int, count: int) -> None:
    for position in range(0, blocks.size, PIECE):
        length = min(PIECE, blocks.size - position)
        host.files.fault("wipe")
        blocks.write(position // blocks.block, wiping.piece(pattern, position, length))
        host.progress(number * blocks.size + position + length, count * blocks.size, f"pass {number + 1} of {count}")
    blocks.flush()  # the next pass must not replace this one in a cache


def _verify(host: Host, blocks: Blocks, pattern: bytes, count: int) -> None:
    for position in range(0, blocks.size, PIECE):
        length = min(PIECE, blocks.size - position)
        if pread(blocks, length, position) != wiping.piece(pattern, position, length):
            raise errors.HostError(f"byte {position} and on read back other data than was written: the medium is bad")
        host.progress((count - 1) * blocks.size + position, count * blocks.size, f"pass {count} of {count}")
