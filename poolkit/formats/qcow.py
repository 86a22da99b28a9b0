"""qcow, version 1 of QEMU's copy-on-write format (QEMU's ``block/qcow.c``)."""

from __future__ import annotations

from struct import Struct

from poolkit.formats._info import ImageInfo, Malformed, Reader, UnknownFeature, backing, fetch, need, size_of

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
