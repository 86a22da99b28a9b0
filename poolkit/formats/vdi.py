"""VDI, VirtualBox's disk image (VirtualBox's ``VDICore.h``; limits as in QEMU's ``block/vdi.c``)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from poolkit.formats._info import (
    Backing,
    ImageInfo,
    Malformed,
    Reader,
    UnknownFeature,
    cstring,
    fetch,
    need,
    size_of,
    uuid_text,
)

if TYPE_CHECKING:
    from poolkit.formats.tables import Walk

_START = Struct("<IIII").unpack_from  # version header_size image_type flags, from 68
_SIZES = Struct("<QIII").unpack_from  # disk_size block_size block_extra blocks, from 0x170
_MAP = Struct("<II").unpack_from  # map_offset data_offset, from 0x154
_NONE = 0xFFFFFFFE
_TYPES = {1: "dynamic", 2: "static", 3: "undo", 4: "differencing"}
_MAX_BLOCKS = 0x1FFFFF80
_MIB = 1 << 20


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from the header; a parent is known by its uuid alone, for VDI stores no path."""
    need(head, 0x1C8, "VDI header")
    version, _, kind, _ = _START(head, 68)
    if version != 0x00010001:
        raise UnknownFeature(f"VDI version {version >> 16}.{version & 0xFFFF} (1.1 is known)")
    info.subtype = _TYPES.get(kind)
    info.details = {"comment": cstring(fetch(reader, head, 256, 84)), "uuid": uuid_text(head[0x188:0x198])}
    parent = head[0x1B8:0x1C8]
    if parent.strip(b"\0"):
        info.backing = Backing(uuid_text(parent), parent, "uuid", "vdi")
    size, block, _, blocks = _SIZES(head, 0x170)
    if block == 0 or block & (block - 1):
        raise Malformed(f"blocks of {block} bytes (a power of 2 is expected)")
    info.cluster_size = block
    if blocks > _MAX_BLOCKS or size > _MAX_BLOCKS * _MIB:
        raise Malformed(f"{blocks} blocks for {size} bytes ({_MAX_BLOCKS} blocks at most)")
    if size > blocks * block:
        raise Malformed(f"{blocks} blocks of {block} bytes cannot hold {size} bytes")
    if info.subtype is None:
        raise UnknownFeature(f"VDI image type {kind}")
    info.capacity = size_of(size)


def tables(walk: Walk, head: bytes, info: ImageInfo) -> None:
    """The block map, and the blocks that it numbers; the two highest numbers mean none and a block of zeros."""
    start, data = _MAP(head, 0x154)
    _, block, extra, blocks = _SIZES(head, 0x170)
    unit = block + extra
    position = 0
    for entries in walk.numbers("the block map", start, blocks, 4, "little"):
        # A block that begins at 0 is none for ``blocks``: the data never does.
        places = [data + entry * unit if entry < _NONE else 0 for entry in entries]
        walk.blocks("a block", places, unit, position if not extra else None)
        position += len(entries) * block
