"""Whether all of an image is there: what its tables name must lie within the file.

A reader module whose format has tables has ``tables(walk, head, info)``: it tells the walk where each table and each
block of data is, and the walk raises at the first that the file has not. ``info`` was filled by the module's ``read``.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence

from poolkit.formats._info import Malformed, Reader

LIMIT = 1 << 30
"""Bytes of tables that are read of one image: those of 8 TiB of data in QEMU's usual clusters of 64 KiB."""

GLANCE = 1 << 16
"""Bytes of tables that are read for a listing: the first level of 4 TiB in such clusters."""

NEWEST = 1 << 18
"""Bytes of second level tables that are read for a listing beside: one of qed, and up to 32 of vmdk, of which most are one."""

SUSPECTED = 1 << 22
"""Bytes of tables that are read for a listing of an image of which a part seems to be missing."""

_NEWEST = 32
_PIECE = 1 << 18
_WIDTHS = {4: "I", 8: "Q"}


class Unchecked(Exception):
    """More tables than may be read. Never leaves this package."""


class Walk:
    """A walk through the tables of one image; ``deep`` goes on to those below the first and to the data they name."""

    __slots__ = ("capacity", "deep", "left", "reader", "size")

    def __init__(self, reader: Reader, capacity: int, *, deep: bool, limit: int | None = None) -> None:
        self.reader = reader
        self.size = reader.size
        self.capacity = capacity
        self.deep = deep
        self.left = limit if limit is not None else LIMIT if deep else GLANCE

    def charge(self, count: int) -> None:
        """Count ``count`` bytes of work as if they were of tables; ``Unchecked`` when there was too much of it."""
        if count > self.left:
            raise Unchecked
        self.left -= count

    def inside(self, what: str, offset: int, length: int) -> None:
        """``Malformed`` unless ``length`` bytes at ``offset`` are there; none at all always are."""
        if length and offset + length > self.size:
            raise Malformed(f"truncated: {what} ends at {offset + length}, the file at {self.size}")

    def read(self, what: str, offset: int, length: int) -> Iterator[bytes]:
        """The bytes of a table that must be there, in pieces whose length is a multiple of 4096 but for the last."""
        self.inside(what, offset, length)
        while length:
            wanted = min(_PIECE, length)
            self.charge(wanted)
            data = self.reader.pread(wanted, offset)
            if len(data) < wanted:
                raise Malformed("truncated while it was read")
            offset += wanted
            length -= wanted
            yield data

    def bytes(self, what: str, offset: int, length: int) -> bytes:
        """A small table at once; a length that only a header bounds is for :meth:`read`."""
        return b"".join(self.read(what, offset, length))

    def numbers(self, what: str, offset: int, count: int, width: int, order: str) -> Iterator[array[int]]:
        """The entries of a table of ``count`` numbers, each of ``width`` bytes in the byte order ``order``, in pieces."""
        for piece in self.read(what, offset, count * width):
            yield numbers(piece, width, order)

    def chosen(self, starts: Sequence[int], length: int) -> Iterator[tuple[int, int]]:
        """Number and place of the tables of ``length`` bytes that are to be read: all, or for a glance the newest ones.

        An image grows at its end, so that what it lacks after a cut is what the tables nearest to the end name. Whoever has
        found one with anything in it needs no other.
        """
        if self.deep:
            yield from ((number, start) for number, start in enumerate(starts) if start)
            return
        most = min(max(NEWEST // length, 1), _NEWEST)
        # They mostly stand in order already, which makes this quick.
        newest = sorted(range(len(starts)), key=starts.__getitem__, reverse=True)[:most]
        self.left += len(newest) * length
        yield from ((number, starts[number]) for number in newest if starts[number])

    def blocks(self, what: str, starts: Sequence[int], length: int, position: int | None = None) -> None:
        """``Malformed`` unless a block of ``length`` bytes is there at each of ``starts`` that is not 0.

        With ``position`` they hold the disk's bytes from there on, one after the other: of the last one no more must be
        there than the disk has.
        """
        if not starts or max(starts) + length <= self.size:
            return
        for number, start in enumerate(starts):
            if start and start + length > self.size:
                rest = length if position is None else self.capacity - position - number * length
                self.inside(what, start, rest if 0 < rest < length else length)


def numbers(data: bytes | bytearray, width: int, order: str) -> array[int]:
    """Bytes as unsigned numbers."""
    found = array(_WIDTHS[width], data)
    if order != sys.byteorder:
        found.byteswap()
    return found
