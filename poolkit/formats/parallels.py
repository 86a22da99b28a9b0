"""Parallels and ploop deltas (QEMU's ``docs/interop/parallels.txt``); libvirt's name is ``ploop``."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from poolkit.formats._info import ImageInfo, Malformed, Reader, UnknownFeature, need, size_of

if TYPE_CHECKING:
    from poolkit.formats.tables import Walk

# version heads cylinders tracks bat_entries sectors inuse data_offset flags ext_offset
_HEADER = Struct("<IIIIIQIIIQ").unpack_from
_IN_USE = 0x746F6E59


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from the 64-byte header; the old magic counts 32-bit sectors only."""
    need(head, 64, "parallels header")
    version, _, _, tracks, entries, sectors, in_use, _, _, _ = _HEADER(head, 16)
    if version != 2:
        raise UnknownFeature(f"parallels version {version} (2 is known)")
    old = head.startswith(b"WithoutFreeSpace")
    info.subtype = "v1" if old else "v2"
    if old:
        sectors &= 0xFFFFFFFF
    if not 0 < tracks <= 0x7FFFFFFF // 513:  # QEMU's bound: a cluster must fit its signed 32-bit sizes
        raise Malformed(f"clusters of {tracks} sectors")
    info.cluster_size = tracks * 512
    if entries > 0x7FFFFFFF // 4:
        raise Malformed(f"an allocation table of {entries} entries")
    if in_use == _IN_USE:
        info.features = ("dirty",)
    info.capacity = size_of(sectors * 512)


def tables(walk: Walk, head: bytes, info: ImageInfo) -> None:
    """The allocation table behind the header; it counts clusters, in the old version sectors."""
    _, _, _, tracks, entries, *_ = _HEADER(head, 16)
    unit = 512 if info.subtype == "v1" else tracks * 512
    position = 0
    for piece in walk.numbers("the allocation table", 64, entries, 4, "little"):
        walk.blocks("a cluster", [entry * unit for entry in piece], tracks * 512, position)
        position += len(piece) * tracks * 512
