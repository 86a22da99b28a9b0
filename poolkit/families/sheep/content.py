"""The data of a VDI: object by object, from and to descriptors and streams.

An object belongs to a VDI, to a snapshot below it, which it then shares, or to nobody, and then it is zeros. What is shared is
never written to: the VDI gets an object of its own with what it held.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from poolkit import errors
from poolkit.backend import Transfer
from poolkit.content import copying
from poolkit.families.sheep.cluster import Cluster
from poolkit.families.sheep.wire import Inode
from poolkit.host import streams
from poolkit.host.descriptors import blank, write_at
from poolkit.host.port import Host

_ASKED = 4096  # entries of the map that are read at once: of 16 GiB
_PIECE = 4 << 20  # bytes that go at once, at most


class Disk:
    """The data of one VDI, of ``size`` bytes."""

    def __init__(self, cluster: Cluster, inode: Inode, size: int | None = None) -> None:
        self.cluster = cluster
        self.inode = inode
        self.size = inode.size if size is None else size
        self.block = 1 << inode.shift
        self._first = -1
        self._owners: list[int] = []

    def owner(self, index: int) -> int:
        """The VDI that has the data of an object; 0 for nobody."""
        first = index - index % _ASKED
        if first != self._first:
            count = min(_ASKED, -(-self.size // self.block) - first)
            self._owners, self._first = self.cluster.entries(self.inode, first, count), first
        return self._owners[index - first]

    def pieces(self, start: int, end: int, *, holes: bool = False) -> Iterator[tuple[int, int]]:
        """The ranges between two bytes that hold data, as (offset, length) within an object; with ``holes`` all ranges."""
        while start < end:
            length = min(self.block - start % self.block, end - start, _PIECE)
            if holes or self.owner(start // self.block):
                yield start, length
            start += length

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of one object."""
        index, at = divmod(offset, self.block)
        owner = self.owner(index)
        return self.cluster.read(owner, index, at, length) if owner else bytes(length)

    def write(self, offset: int, data: bytes) -> None:
        """Write into one object, which becomes the disk's own first."""
        index, at = divmod(offset, self.block)
        owner = self.owner(index)
        if owner == self.inode.vid:
            self.cluster.write(self.inode, index, data, at)
            return
        if owner:
            whole = bytearray(self.cluster.read(owner, index, 0, self.block))
            whole[at : at + len(data)] = data
            data, at = bytes(whole), 0
        elif at:
            data, at = bytes(at) + data, 0  # an object that is made has no hole at its begin
        self.cluster.write(self.inode, index, data, create=True)
        self.cluster.take(self.inode, index)
        self._owners[index - self._first] = self.inode.vid


def receive(host: Host, disk: Disk, fd: int, size: int) -> None:
    """Write ``size`` bytes of an open file or device into a disk of zeros; what is zero is not written."""
    for start, end in copying.runs(fd, size):
        for offset, length in disk.pieces(start, end, holes=True):
            data = os.pread(fd, length, offset)
            if len(data) < length:
                raise errors.SourceChanged("the source became shorter while it was copied; the copy was removed")
            host.files.fault("copy")
            if not blank(data):
                disk.write(offset, data)
            host.progress(offset, size, "copy")


def copy(host: Host, source: Disk, disk: Disk) -> None:
    """Write the data of a disk into another one of zeros, of the same cluster."""
    for offset, length in source.pieces(0, source.size):
        data = source.read(offset, length)
        host.files.fault("copy")
        while data:
            room = disk.block - offset % disk.block
            if not blank(data[:room]):
                disk.write(offset, data[:room])
            offset, data = offset + min(room, len(data)), data[room:]
        host.progress(offset, source.size, "copy")


def send(host: Host, disk: Disk, fd: int) -> None:
    """Write a disk into an open file or device that reads as zeros; holes are left out."""
    for offset, length in disk.pieces(0, disk.size):
        write_at(fd, disk.read(offset, length), offset)
        host.progress(offset, disk.size, "copy")
    if stat.S_ISREG(os.fstat(fd).st_mode) and os.fstat(fd).st_size < disk.size:
        os.ftruncate(fd, disk.size)


def upload(host: Host, disk: Disk, stream: BinaryIO, transfer: Transfer) -> None:
    """Write a stream into a disk, within its size; ``sparse`` writes no zeros where there is no data.

    What was written stays when the stream turns out to be too long, or ends early.
    """
    position = transfer.offset
    end = position + transfer.length if transfer.length else disk.size
    known = streams.remaining(stream)
    if not transfer.length and known is not None and position + known > disk.size:
        raise _too_much(disk.size)
    buffer = memoryview(bytearray(min(disk.block, _PIECE)))
    read = streams.reader(host, stream)
    while position < end:
        count = read(buffer[: min(len(buffer) - position % len(buffer), end - position)])
        if not count:
            break
        host.files.fault("upload")
        data = bytes(buffer[:count])
        if not transfer.sparse or disk.owner(position // disk.block) or not blank(data):
            disk.write(position, data)
        position += count
        host.progress(position - transfer.offset, end - transfer.offset, "upload")
    if transfer.length and position < end:
        raise errors.InvalidArgument(
            f"the data ended after {position - transfer.offset} of {transfer.length} bytes; those are written"
        )
    if not transfer.length and position >= disk.size and read(buffer[:1]):
        raise _too_much(disk.size)


def _too_much(size: int) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"more data than the volume has room for: it ends at byte {size}",
        hint="resize the volume first, or give a length",
    )


def download(host: Host, disk: Disk, stream: BinaryIO, transfer: Transfer) -> int:
    """Write a range of a disk to a stream; returns how many bytes. With ``sparse`` a regular file gets holes."""
    end = transfer.offset + transfer.length if transfer.length else disk.size
    out = streams.descriptor(stream)
    holes = transfer.sparse and out is not None and stat.S_ISREG(os.fstat(out).st_mode)
    stream.flush()
    for offset, length in disk.pieces(transfer.offset, end, holes=True):
        host.files.fault("download")
        if holes and out is not None and not disk.owner(offset // disk.block):
            here = os.lseek(out, 0, os.SEEK_CUR)
            copying.zero(out, here, min(length, max(0, os.fstat(out).st_size - here)))
            os.ftruncate(out, max(os.fstat(out).st_size, here + length))
            os.lseek(out, here + length, os.SEEK_SET)
        else:
            streams.put(host, stream, disk.read(offset, length))
        host.progress(offset + length - transfer.offset, end - transfer.offset, "download")
    return end - transfer.offset


def wipe(host: Host, disk: Disk, algorithm: str) -> None:
    """Overwrite what is the disk's own with zeros (``zero``) or free it (``trim``); what is shared is let go of.

    ``Unsupported`` for ``trim`` where the cluster's version does not free what is let go of.
    """
    cluster, inode = disk.cluster, disk.inode
    frees = cluster.counts_references(inode.vid)
    if algorithm == "trim" and not frees:
        raise errors.Unsupported(
            "this version of Sheepdog cannot take space back (0.9 and later can)",
            hint="use another algorithm, such as zero",
        )
    if algorithm == "zero":
        for offset, length in disk.pieces(0, disk.size):
            if disk.owner(offset // disk.block) == inode.vid:
                host.files.fault("wipe")
                cluster.write(inode, offset // disk.block, bytes(length), offset % disk.block)
            host.progress(offset, disk.size, "zero")
    if frees:
        cluster.drop(inode, 0, inode.objects)
    else:
        for index in range(inode.objects):
            if disk.owner(index) not in (0, inode.vid):
                cluster.drop(inode, index, 1)
    host.progress(1, 1, "wiped")
