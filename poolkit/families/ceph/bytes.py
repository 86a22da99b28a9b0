"""The bytes of RBD images: from and to descriptors and streams, with holes where the image has none of its own."""

from __future__ import annotations

import functools
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, TypeVar

from poolkit import errors
from poolkit.backend import Transfer
from poolkit.content import copying
from poolkit.families.ceph.interface import Image
from poolkit.host import streams
from poolkit.host.descriptors import write_at
from poolkit.host.port import Host

T = TypeVar("T")

_PIECE = 4 << 20  # bytes that go at once: an object of an image, by default
_AT_ONCE = 8  # pieces on their way to the cluster or from it; more gain nothing
_ASKED = 1 << 30  # bytes of an image whose holes are asked for at once
_HOLE = 1 << 16  # smallest run of zeros that is not written
_ZEROS = bytes(_HOLE)


def data(image: Image, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The ranges between two bytes that hold data, the parent's included, as (offset, length)."""
    while start < end:
        length = min(_ASKED, end - start)
        for offset, size, exists in image.data(start, length):
            if exists:
                yield offset, size
        start += length


def receive(host: Host, image: Image, fd: int, size: int) -> None:
    """Write ``size`` bytes of an open file or device into an image of zeros; what is zero is not written."""

    def pieces() -> Iterator[Callable[[], int]]:
        for start, end in copying.runs(fd, size):
            for at, length in _pieces(start, end):
                piece = os.pread(fd, length, at)
                if len(piece) < length:
                    raise errors.SourceChanged("the source became shorter while it was copied; the copy was removed")
                yield functools.partial(_put, image, at, piece, blank=True)

    image.flush()  # the cache of the client keeps nothing back before a first flush (rbd_cache_writethrough_until_flush)
    for position in _overlapped(pieces()):
        host.progress(position, size, "copy")
    image.flush()


def send(host: Host, image: Image, fd: int, size: int) -> None:
    """Write an image into an open file or device that reads as zeros; holes are left out."""
    for position, piece in _read(image, 0, size):
        for start, run in _solid(piece):
            write_at(fd, run, position + start)
        host.progress(position, size, "copy")
    if stat.S_ISREG(os.fstat(fd).st_mode) and os.fstat(fd).st_size < size:
        os.ftruncate(fd, size)
    host.progress(size, size, "copy")


def upload(host: Host, image: Image, stream: BinaryIO, transfer: Transfer, size: int) -> int:
    """Write a stream into an image, within ``size``; with ``sparse`` zeros give space back. Returns how many bytes.

    What was written stays when the stream turns out to be too long, or ends early.
    """
    begin, end = transfer.offset, transfer.offset + transfer.length if transfer.length else size
    known = streams.remaining(stream)
    if not transfer.length and known is not None and begin + known > size:
        raise _too_much(size)
    read = streams.reader(host, stream)
    ring = [memoryview(bytearray(_PIECE)) for _ in range(_AT_ONCE + 1)]
    position = begin

    def pieces() -> Iterator[Callable[[], int]]:
        nonlocal position
        while position < end:
            ring.append(ring.pop(0))  # the first is free again: as many as are in it are not on their way
            count = read(ring[-1][: min(_PIECE - position % _PIECE, end - position)])
            if not count:
                return
            host.files.fault("upload")
            yield functools.partial(_put, image, position, ring[-1][:count], blank=False, sparse=transfer.sparse)
            position += count

    image.flush()
    for done in _overlapped(pieces()):
        host.progress(done - begin, end - begin, "upload")
    image.flush()
    if transfer.length and position < end:
        raise errors.InvalidArgument(
            f"the data ended after {position - begin} of {transfer.length} bytes; those are written"
        )
    if not transfer.length and position == size and read(ring[0][:1]):
        raise _too_much(size)
    return position - begin


def _too_much(size: int) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"more data than the volume has room for: it ends at byte {size}",
        hint="resize the volume first, or give a length",
    )


def download(host: Host, image: Image, stream: BinaryIO, transfer: Transfer, size: int) -> int:
    """Write a range of an image to a stream; returns how many bytes. What the image does not hold is not asked for.

    With ``sparse`` a regular file gets holes.
    """
    begin, end = transfer.offset, transfer.offset + transfer.length if transfer.length else size
    out = streams.descriptor(stream)
    sparse = transfer.sparse and out is not None and stat.S_ISREG(os.fstat(out).st_mode)
    stream.flush()
    zeros = bytes(_PIECE)
    position = begin

    def skip(to: int) -> None:
        """Zeros up to the byte ``to``."""
        nonlocal position
        if sparse and out is not None and to > position:
            _hole(out, to - position)
            position = to
        while position < to:
            count = min(_PIECE, to - position)
            streams.put(host, stream, zeros[:count])
            position += count
            host.progress(position - begin, end - begin, "download")

    for at, piece in _read(image, begin, end):
        host.files.fault("download")
        for start, run in _solid(piece) if sparse else [(0, memoryview(piece))]:
            skip(at + start)
            streams.put(host, stream, run)
            position = at + start + len(run)
        host.progress(position - begin, end - begin, "download")
    skip(end)
    return end - begin


def _hole(out: int, length: int) -> None:
    """Zeros from the offset of a file on, without space, and the offset behind them."""
    here, size = os.lseek(out, 0, os.SEEK_CUR), os.fstat(out).st_size
    copying.zero(out, here, min(size - here, length))
    os.ftruncate(out, max(size, here + length))
    os.lseek(out, here + length, os.SEEK_SET)


def wipe(host: Host, image: Image, size: int, algorithm: str) -> None:
    """Make an image read as zeros (``zero``), or give its space back (``trim``)."""
    act = image.zero if algorithm == "zero" else image.discard
    for position in range(0, size, _PIECE * 16):
        act(position, min(_PIECE * 16, size - position))
        host.progress(position, size, algorithm)
    image.flush()
    host.progress(size, size, algorithm)


# -- pieces -----------------------------------------------------------------------------------------------------------


def _pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    """A range in pieces that end where objects do, as (offset, length)."""
    while start < end:
        length = min(_PIECE - start % _PIECE, end - start)
        yield start, length
        start += length


def _overlapped(calls: Iterator[Callable[[], T]]) -> Iterator[T]:
    """What the calls return, in their order; some are made at the same time, since most of that is spent in waiting."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        try:
            for call in calls:
                waiting.append(threads.submit(call))
                if len(waiting) == _AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def _read(image: Image, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The data of a range, piece by piece, each with its offset; what is not told are zeros."""

    def read(at: int, length: int) -> tuple[int, bytes]:
        piece = image.read(at, length)
        if len(piece) < length:
            raise errors.HostError(f"the volume ended at byte {at + len(piece)}, before the {end} that were there")
        return at, piece

    ranges = (one for offset, length in data(image, start, end) for one in _pieces(offset, offset + length))
    return _overlapped(functools.partial(read, *one) for one in ranges)


def _put(image: Image, position: int, piece: bytes | memoryview, *, blank: bool, sparse: bool = False) -> int:
    """Write a piece, without its zeros where the image is blank, or with zeros that take no space; where it ends."""
    end = position + len(piece)
    if not (blank or sparse):
        image.write(position, piece)
        return end
    done = 0
    for start, run in _solid(piece):
        if start > done and not blank:
            image.zero(position + done, start - done)
        image.write(position + start, run)
        done = start + len(run)
    if position + done < end and not blank:
        image.zero(position + done, end - position - done)
    return end


def _solid(piece: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """The runs of a piece between whole blocks of zeros, each with where it begins."""
    view, begun = memoryview(piece), -1
    for start in range(0, len(view), _HOLE):
        block = view[start : start + _HOLE]
        zeros = not any(block[:64]) and bytes(block) == _ZEROS[: len(block)]
        if zeros and begun >= 0:
            yield begun, view[begun:start]
            begun = -1
        elif not zeros and begun < 0:
            begun = start
    if begun >= 0:
        yield begun, view[begun:]
