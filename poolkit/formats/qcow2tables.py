"""The tables of a qcow2 image: its two levels, those of snapshots, reference counts and bitmaps.

Limits are those that QEMU's ``block/qcow2.h`` and ``block/qcow2-bitmap.c`` enforce.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct

from poolkit.formats._info import ImageInfo, Malformed
from poolkit.formats.qcow2 import _OFFSET, _PLACES, extension
from poolkit.formats.tables import Walk, numbers

_SNAPSHOT = Struct(">QIHH16xII").unpack_from  # l1_offset l1_size id_size name_size vm_state_size extra_size
_DIRECTORY = Struct(">IIQQ").unpack_from  # bitmaps reserved size offset
_BITMAP = Struct(">QIIBBHI").unpack_from  # table_offset table_size flags type granularity name_size extra_size

_COMPRESSED = 1 << 62
_NOT_COMPRESSED = bytes(top for top in range(256) if not top & 0x40)
_BITMAPS = 0x23852875
_MAX_L1 = 32 << 20
_MAX_REFCOUNTS = 8 << 20
_MAX_SNAPSHOTS = 65536
_MAX_BITMAPS = 65535
_MAX_BITMAP_TABLE = 0x8000000


def tables(walk: Walk, head: bytes, info: ImageInfo) -> None:
    """Raise at the first table or cluster that is not there."""
    l1_size, l1, refcounts, clusters, snapshots, offset = _PLACES(head, 36)
    cluster = info.cluster_size or 0
    if l1_size * 8 > _MAX_L1 or clusters * cluster > _MAX_REFCOUNTS or snapshots > _MAX_SNAPSHOTS:
        raise Malformed("tables that are larger than any program makes")
    walk.inside("the table of reference counts", refcounts, clusters * cluster)
    walk.inside("the table of snapshots", offset, snapshots * 40)
    levels = _Levels(walk, info)
    levels.first("the first level table", l1, l1_size)
    if not walk.deep:
        return
    for piece in walk.numbers("the table of reference counts", refcounts, clusters * cluster // 8, 8, "big"):
        walk.blocks("a block of reference counts", [entry & ~0x1FF for entry in piece], cluster)
    for table, size, capacity in _snapshots(walk, offset, snapshots):
        walk.capacity = capacity or info.capacity or 0
        levels.first("the first level table of a snapshot", table, size)
    if "bitmaps" in info.features:
        _bitmaps(walk, head, cluster)


class _Levels:
    """The two levels that lead to the data; a second level table that snapshots share is read once."""

    def __init__(self, walk: Walk, info: ImageInfo) -> None:
        self._walk = walk
        self._cluster = info.cluster_size or 0
        self._seen: set[int] = set()
        self._wide = "extended_l2" in info.features
        self._own = info.data_file is None  # else the data is in another file
        self._zlib = "zstd" not in info.features
        self._ends: set[int] = set()

    def first(self, what: str, offset: int, size: int) -> None:
        """Follow a first level table of ``size`` entries."""
        if size * 8 > _MAX_L1:
            raise Malformed(f"{what} has {size} entries")
        walk, cluster = self._walk, self._cluster
        reach = cluster // (16 if self._wide else 8) * cluster
        position = 0
        for piece in walk.numbers(what, offset, size, 8, "big"):
            tables = [entry & _OFFSET for entry in piece]
            walk.blocks("a second level table", tables, cluster)
            for number, table in enumerate(tables if walk.deep else ()):
                if table and table not in self._seen:
                    self._seen.add(table)
                    self._second(table, position + number * reach)
            position += len(tables) * reach

    def _second(self, offset: int, position: int) -> None:
        step = 16 if self._wide else 8
        for piece in self._walk.read("a second level table", offset, self._cluster):
            if self._own and piece.count(0) != len(piece):
                self._clusters(piece, position)
            position += len(piece) // step * self._cluster

    def _clusters(self, table: bytes, position: int) -> None:
        walk, cluster = self._walk, self._cluster
        step = 16 if self._wide else 8
        if not table[::step].translate(None, _NOT_COMPRESSED):
            # The flags are in the highest byte and the lowest bits, which are too small to matter here.
            plain = bytearray(table)
            plain[::8] = bytes(len(table) // 8)
            entries = numbers(plain, 8, "big")
            if max(entries[::2] if self._wide else entries) + cluster <= walk.size:
                return
        words = numbers(table, 8, "big")
        entries = words[::2] if self._wide else words
        for number, entry in enumerate(entries):
            if entry & _COMPRESSED:
                self._compressed(entry)
            elif start := entry & _OFFSET:
                here = position + number * cluster
                if self._wide:
                    # Of the 32 parts of a cluster those are there that have their bit set.
                    used = (words[2 * number + 1] & 0xFFFFFFFF).bit_length() * cluster // 32
                    walk.inside("a cluster", start, min(used, walk.capacity - here) if here < walk.capacity else used)
                else:
                    walk.blocks("a cluster", (start,), cluster, here)

    def _compressed(self, entry: int) -> None:
        """Compressed data ends somewhere in its last sector, of which the file need not have more."""
        walk = self._walk
        shift = 70 - self._cluster.bit_length() + 1  # 62 - (cluster_bits - 8)
        start = entry & (1 << shift) - 1
        sectors = ((entry & _COMPRESSED - 1) >> shift) + 1
        end = (start & ~0x1FF) + sectors * 512
        if end <= walk.size:
            return
        walk.inside("a compressed cluster", start, end - 511 - start)
        if start in self._ends:
            return  # many entries may name one cluster, and each look at it costs as much as the first
        walk.charge(walk.size - start + self._cluster)
        self._ends.add(start)
        data = walk.reader.pread(walk.size - start, start)
        if not (self._inflates(data) if self._zlib else _zstd_ends(data)):
            raise Malformed(f"truncated: the compressed cluster at {start} does not end before the file does")

    def _inflates(self, data: bytes) -> bool:
        try:
            return len(zlib.decompressobj(-12).decompress(data, self._cluster)) == self._cluster
        except zlib.error:
            return False


def _zstd_ends(data: bytes) -> bool:
    """Whether a Zstandard frame (RFC 8878, section 3.1.1) ends within ``data``; nothing is decompressed."""
    if len(data) < 5 or not data.startswith(b"\x28\xb5\x2f\xfd"):
        return False
    flags = data[4]
    single = flags >> 5 & 1
    place = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
    while place + 3 <= len(data):
        block = int.from_bytes(data[place : place + 3], "little")
        place += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
        if block & 1:
            return place + (4 if flags & 4 else 0) <= len(data)
    return False


def _snapshots(walk: Walk, offset: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Place and entries of each snapshot's first level table, and the size its disk had (0: not said)."""
    for _ in range(count):
        entry = walk.bytes("the table of snapshots", offset, 40)
        table, size, identity, name, _, extra = _SNAPSHOT(entry)
        length = 40 + extra + identity + name
        walk.inside("the table of snapshots", offset, length)
        capacity = walk.bytes("the table of snapshots", offset + 48, 8) if extra >= 16 else b""
        yield table, size, int.from_bytes(capacity, "big")
        offset += (length + 7) & ~7


def _bitmaps(walk: Walk, head: bytes, cluster: int) -> None:
    found = extension(walk.reader, head, cluster, _BITMAPS)
    if found is None or len(found) < 24:
        return
    count, _, size, offset = _DIRECTORY(found)
    if count > _MAX_BITMAPS:
        raise Malformed(f"{count} bitmaps ({_MAX_BITMAPS} at most)")
    walk.inside("the directory of bitmaps", offset, size)
    for _ in range(count):
        table, entries, _, _, _, name, extra = _BITMAP(walk.bytes("the directory of bitmaps", offset, 24))
        if entries > _MAX_BITMAP_TABLE:
            raise Malformed(f"a bitmap of {entries} clusters")
        for piece in walk.numbers("the table of a bitmap", table, entries, 8, "big"):
            walk.blocks("a bitmap", [entry & _OFFSET for entry in piece], cluster)
        offset += (24 + extra + name + 7) & ~7
