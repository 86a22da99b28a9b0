"""UDIF, Apple's disk image: the trailer ``koly`` in the last 512 bytes tells the rest."""

from __future__ import annotations

from struct import Struct

from poolkit.formats import raw
from poolkit.formats._info import ImageInfo, Malformed, Reader, UnknownFeature, size_of

_START = Struct(">4sII").unpack_from  # signature version header_size
_PAIR = Struct(">QQ").unpack_from  # offset length
_PARTS = (("data fork", 0x18), ("resource fork", 0x28), ("property list", 0xD8))


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from the trailer; every part it points at must end before it."""
    trailer = reader.size - 512
    koly = reader.pread(512, trailer)
    if len(koly) < 512:
        raise Malformed("truncated while it was read")
    info.hints = raw.hints(head)
    _, version, length = _START(koly)
    if version != 4 or length != 512:
        raise UnknownFeature(f"UDIF version {version} with a trailer of {length} bytes (version 4, 512 are known)")
    for what, place in _PARTS:
        offset, length = _PAIR(koly, place)
        if offset + length > trailer:
            raise Malformed(f"the {what} ends at {offset + length}, after the trailer at {trailer}")
    info.capacity = size_of(int.from_bytes(koly[0x1EC:0x1F4], "big") * 512)
