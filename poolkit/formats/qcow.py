"""qcow, version 1 of QEMU's copy-on-write format (QEMU's ``block/qcow.c``)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from poolkit.formats._info import ImageInfo, Malformed, Reader, UnknownFeature, backing, fetch, need, size_of

if TYPE_CHECKING:
    from poolkit.formats.tables import Walk

# backing_offset backing_size mtime size cluster_bits l2_bits crypt l1_offset
_HEADER = Struct(">QIIQBB2xIQ").unpack_from
_MAX_NAME = 1023


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from the 48-byte header and the backing file's name, whose format qcow cannot record."""
    need(head, 48, "qcow header")
    name_offset, name_size, _, size, cluster_bits, l2_bits, crypt, _ = _HEADER(head, 8)
    if not 9 <= cluster_bits <= 16:
        raise Malformed(f"clusters of 2^{cluster_bits} bytes (2^9 to 2^16 are possible)")
    if not 6 <= l2_bits <= 13:
        raise Malformed(f"second level tables of 2^{l2_bits} entries (2^6 to 2^13 are possible)")
    info.cluster_size = 1 << cluster_bits
    if crypt > 1:
        raise UnknownFeature(f"encryption method {crypt}")
    if crypt:
        info.encryption = "qcow"
    if name_offset and name_size:
        if name_size > _MAX_NAME:
            raise Malformed(f"a backing file name of {name_size} bytes ({_MAX_NAME} at most)")
        name = fetch(reader, head, name_size, name_offset)
        if len(name) < name_size:
            raise Malformed("truncated: the backing file name lies beyond the end of the file")
        info.backing = backing(name)
        if b"\0" in name:
            raise Malformed("the backing file name contains a NUL byte")
    if size <= 1:
        raise Malformed(f"virtual size {size} (2 bytes at least)")
    info.capacity = size_of(size)


def tables(walk: Walk, head: bytes, info: ImageInfo) -> None:
    """Two levels of tables; a compressed cluster has its length in the highest bits of its entry."""
    *_, size, cluster_bits, l2_bits, _, first = _HEADER(head, 8)
    cluster = 1 << cluster_bits
    reach = cluster << l2_bits
    shift = 63 - cluster_bits
    position = 0
    for piece in walk.numbers("the first level table", first, -(-size // reach), 8, "big"):
        walk.blocks("a second level table", piece, 8 << l2_bits)
        for number, second in enumerate(piece if walk.deep else ()):
            here = position + number * reach
            for data in walk.numbers("a second level table", second, 1 << l2_bits, 8, "big") if second else ():
                plain = [0 if entry >> 63 else entry for entry in data]
                walk.blocks("a cluster", plain, cluster, here)
                for entry in data if max(data) >> 63 else ():
                    if entry >> 63:
                        length = entry >> shift & cluster - 1
                        walk.inside("a compressed cluster", entry & (1 << shift) - 1, length)
                here += len(data) * cluster
        position += len(piece) * reach
