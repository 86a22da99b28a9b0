"""UML's copy-on-write files, versions 2 and 3 (the kernel's ``arch/um/drivers/cow_user.c``)."""

from __future__ import annotations

from struct import Struct

from poolkit.formats._info import ImageInfo, Malformed, Reader, UnknownFeature, backing, fetch, need, size_of

_V2 = Struct(">QI").unpack_from  # size sector_size, from 1036
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
