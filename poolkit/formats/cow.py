"""UML's copy-on-write files, versions 2 and 3 (the kernel's ``arch/um/drivers/cow_user.c``)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from poolkit.formats._info import ImageInfo, Malformed, Reader, UnknownFeature, backing, fetch, need, size_of

if TYPE_CHECKING:
    from poolkit.formats.tables import Walk

_V2 = Struct(">QI").unpack_from  # size sector_size, from 1036
_V3_SIZE = 4128
_V3 = Struct(">QII").unpack_from  # size sector_size alignment, from 12


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from the header; the name of the backing file may fill its field without a final NUL."""
    need(head, 8)
    version = int.from_bytes(head[4:8], "big")
    info.subtype = f"v{version}"
    if version == 2:
        need(head, 1048, "COW header")
        size, sector = _V2(head, 1036)
        name = head[8:1032]
    elif version == 3:
        need(head, 32, "COW header")
        size, sector, _ = _V3(head, 12)
        name = fetch(reader, head, 4096, 32)
    else:
        raise UnknownFeature(f"COW version {version} (2 and 3 are known)")
    name = name.partition(b"\0")[0]
    if name:
        info.backing = backing(name)
    if not sector or sector & (sector - 1):
        raise Malformed(f"sectors of {sector} bytes")
    info.cluster_size = sector
    info.capacity = size_of(size)


def tables(walk: Walk, head: bytes, info: ImageInfo) -> None:
    """The map with a bit for each sector that was written, and the last of those."""
    if info.subtype == "v2":
        size, sector = _V2(head, 1036)
        align, start = sector, 1048
    else:
        size, sector, align = _V3(head, 12)
        if not 0 < align <= 1 << 20:
            raise Malformed(f"an alignment of {align} bytes")
        start = -(-_V3_SIZE // align) * align
    length = (size + sector * 8 - 1) // (sector * 8)
    data = -(-(start + length) // align) * align
    position, last = 0, -1
    for piece in walk.read("the map of sectors", start, length):
        used = piece.rstrip(b"\0")
        if used:
            # the lowest bit of a byte is its first sector
            last = (position + len(used) - 1) * 8 + used[-1].bit_length() - 1
        position += len(piece)
    if last >= 0:
        walk.inside("a sector", data + last * sector, min(sector, size - last * sector))
