"""VHD, called vpc by QEMU and libvirt: dynamic, differencing and fixed (Microsoft's VHD specification, version 1.0)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from poolkit.formats import raw
from poolkit.formats._info import (
    Backing,
    ImageInfo,
    Malformed,
    Reader,
    UnknownFeature,
    backing,
    clean,
    fetch,
    need,
    size_of,
    uuid_text,
)

if TYPE_CHECKING:
    from poolkit.formats.tables import Walk

# features version data_offset timestamp creator creator_version os original_size size cylinders heads sectors type
# checksum, from 8
_FOOTER = Struct(">IIQI4sIIQQHBBII").unpack_from
_DYNAMIC = Struct(">QIII").unpack_from  # table_offset version entries block_size, from 16
_NONE = 0xFFFFFFFF
_TYPES = {2: "fixed", 3: "dynamic", 4: "differencing"}
_GEOMETRY_LIMIT = 65535 * 16 * 255  # sectors; the largest geometry means "look at the size instead"
_MAX_SECTORS = 0xFF000000


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from the footer (or its copy at the start) and the dynamic header.

    Three readers know three sizes; this is QEMU's, since it is what a guest gets: the geometry when the creator is
    Virtual PC or QEMU, unless it is the largest one, else the current size.
    """
    footer = reader.pread(512, reader.size - 512) if info.tail else head[:512]
    need(footer, 512, "VHD footer")
    _, version, data_offset, _, creator, _, _, original, size, cylinders, heads, sectors, kind, checksum = _FOOTER(
        footer, 8
    )
    info.details = {"creator": clean(creator.rstrip(b" \0")), "original_size": original, "current_size": size}
    info.subtype = _TYPES.get(kind)
    if info.tail:
        info.hints = raw.hints(head)
    if version != 0x00010000:
        raise UnknownFeature(f"VHD version {version >> 16}.{version & 0xFFFF} (1.0 is known)")
    geometry = cylinders * heads * sectors
    if creator in (b"vpc ", b"qemu") and geometry != _GEOMETRY_LIMIT:
        size = geometry * 512
    problem = None
    if checksum != ~(sum(footer) - sum(footer[64:68])) & 0xFFFFFFFF:
        problem = "the checksum of the footer is wrong"
    elif info.subtype is None:
        raise UnknownFeature(f"VHD type {kind}")
    elif info.tail and kind != 2:
        problem = f"a {info.subtype} VHD without the copy of the footer at its start"
    if kind in (3, 4) and not info.tail:
        _dynamic(reader, head, info, data_offset, kind)
    if size > _MAX_SECTORS * 512:
        raise Malformed(f"virtual size {size} ({_MAX_SECTORS * 512} at most)")
    info.capacity = size_of(size)
    if problem:
        raise Malformed(problem)


def _dynamic(reader: Reader, head: bytes, info: ImageInfo, offset: int, kind: int) -> None:
    header = fetch(reader, head, 1024, offset)
    if len(header) < 1024 or not header.startswith(b"cxsparse"):
        raise Malformed(f"no dynamic header at {offset}")
    _, _, entries, block = _DYNAMIC(header, 16)
    if not 512 <= block <= 1 << 31 or block & (block - 1):
        raise Malformed(f"blocks of {block} bytes (a power of 2 is expected)")
    info.cluster_size = block
    if kind == 4:
        field = header[64:576]
        name = field.decode("utf-16-be", errors="replace").partition("\0")[0]
        if name:
            info.backing = backing(name.encode())
            info.backing.format, info.backing.kind = "vpc", "file"
        else:
            info.backing = Backing(uuid_text(header[40:56]), header[40:56], "uuid", "vpc")
        info.note("QEMU opens a differencing VHD without its parent and shows wrong data")
    if entries > 0x1FFFFFFF:
        raise Malformed(f"a block table of {entries} entries")


def tables(walk: Walk, head: bytes, info: ImageInfo) -> None:
    """The block table, and the blocks, each with a map of its sectors in front; for a fixed one its size."""
    if info.tail:
        walk.inside("the data", 0, walk.capacity + 512)
        return
    start, _, entries, block = _DYNAMIC(walk.bytes("the dynamic header", *_place(head)), 16)
    mapped = -(-(block // 4096) // 512) * 512 or 512
    for piece in walk.numbers("the block table", start, entries, 4, "big"):
        places = [entry * 512 + mapped if entry != _NONE else 0 for entry in piece]
        walk.blocks("a block", places, block)
    if walk.reader.size >= 512 and b"conectix" not in walk.reader.pread(1024, max(0, walk.size - 1024)):
        info.note("the footer at the end is missing: cut short, or filled up?")


def _place(head: bytes) -> tuple[int, int]:
    return int.from_bytes(head[16:24], "big"), 1024
