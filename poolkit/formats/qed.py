"""QED, QEMU's enhanced disk format (QEMU's ``docs/interop/qed_spec.txt``)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from poolkit.formats._info import ImageInfo, Malformed, Reader, UnknownFeature, backing, fetch, need, size_of

if TYPE_CHECKING:
    from poolkit.formats.tables import Walk

# cluster_size table_size header_size features compat autoclear l1_offset size backing_offset backing_size
_HEADER = Struct("<IIIQQQQQII").unpack_from
_BACKING, _NEED_CHECK, _NO_PROBE = 1, 2, 4
_MAX_NAME = 1023


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from the 64-byte header; a backing format is recorded for raw only, as the NO_PROBE flag."""
    need(head, 64, "qed header")
    cluster, table, clusters, features, _, _, _, size, name_offset, name_size = _HEADER(head, 4)
    if cluster & (cluster - 1) or not 4096 <= cluster <= 64 << 20:
        raise Malformed(f"clusters of {cluster} bytes (a power of 2 from 4 KiB to 64 MiB is possible)")
    info.cluster_size = cluster
    if table not in (1, 2, 4, 8, 16):
        raise Malformed(f"tables of {table} clusters (1, 2, 4, 8 or 16 are possible)")
    if not clusters:
        raise Malformed("a header of no clusters")
    if features & _BACKING:
        if name_size > _MAX_NAME or not name_size or name_offset + name_size > clusters * cluster:
            raise Malformed(f"a backing file name of {name_size} bytes at {name_offset}")
        name = fetch(reader, head, name_size, name_offset)
        if len(name) < name_size:
            raise Malformed("truncated: the backing file name lies beyond the end of the file")
        info.backing = backing(name, "raw" if features & _NO_PROBE else None)
        if b"\0" in name:
            raise Malformed("the backing file name contains a NUL byte")
    if features & _NEED_CHECK:
        info.features = ("dirty",)
    if features >> 3:
        raise UnknownFeature(f"unknown feature bits {features & ~7:#x}")
    entries = table * cluster // 8
    if size > entries * entries * cluster:
        raise Malformed(f"virtual size {size} is more than the tables can map")
    info.capacity = size_of(size)


def tables(walk: Walk, head: bytes, info: ImageInfo) -> None:
    """Two levels of tables of the same size; 1 in the second means a cluster of zeros."""
    cluster, table, clusters, _, _, _, first, *_ = _HEADER(head, 4)
    entries = table * cluster // 8
    reach = entries * cluster
    walk.inside("the header", 0, clusters * cluster)
    position = 0
    walk.inside("the first level table", first, table * cluster)
    needed = entries if walk.deep else min(entries, -(-walk.capacity // reach))
    for piece in walk.numbers("the first level table", first, needed, 8, "little"):
        walk.blocks("a second level table", piece, table * cluster)
        for number, second in walk.chosen(piece, table * cluster):
            here = position + number * reach
            if here < walk.capacity:
                for data in walk.numbers("a second level table", second, entries, 8, "little"):
                    walk.blocks("a cluster", data, cluster, here)
                    here += len(data) * cluster
                if not walk.deep:
                    break
        position += len(piece) * reach
