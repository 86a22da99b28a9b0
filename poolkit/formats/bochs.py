"""Bochs disk images: redologs (growing, undoable, volatile) and sparse (Bochs' ``iodev/hdimage/hdimage.h``)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from poolkit.formats._info import ImageInfo, Malformed, Reader, UnknownFeature, cstring, need, size_of

if TYPE_CHECKING:
    from poolkit.formats.tables import Walk

_NONE = 0xFFFFFFFF
_SPARSE_HEADER = 256
_REDOLOG = Struct("<IIIII").unpack_from  # version header catalog bitmap extent, from 64
_SPARSE = Struct("<IIIQ").unpack_from  # version page_size pages disk, from 4


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from either header; QEMU reads growing images alone."""
    if head.startswith(b"Bochs"):
        _redolog(head, info)
    else:
        need(head, 24, "Bochs sparse header")
        version, page, _, size = _SPARSE(head, 4)
        info.subtype = "sparse"
        if version not in (1, 2):
            raise UnknownFeature(f"Bochs sparse version {version}")
        if not page or page & (page - 1):
            raise Malformed(f"pages of {page} bytes")
        info.cluster_size = page
        info.capacity = size_of(size)


def _redolog(head: bytes, info: ImageInfo) -> None:
    need(head, 96, "Bochs header")
    kind, subtype = cstring(head[32:48]), cstring(head[48:64])
    info.subtype = subtype.lower()
    if kind != "Redolog" or subtype not in ("Growing", "Undoable", "Volatile"):
        raise UnknownFeature(f"Bochs image of type {kind}/{subtype}")
    version, _, catalog, _, extent = _REDOLOG(head, 64)
    if version not in (0x10000, 0x20000):
        raise UnknownFeature(f"Bochs version {version:#x}")
    # QEMU's bounds: CVE-2014-0142 and CVE-2014-0147 divided by zero and overflowed here
    if extent & (extent - 1) or not 512 <= extent <= 0x800000:
        raise Malformed(f"extents of {extent} bytes (a power of 2 from 512 bytes to 8 MiB is possible)")
    if catalog > 0x100000:
        raise Malformed(f"a catalogue of {catalog} entries")
    info.cluster_size = extent
    offset = 88 if version == 0x20000 else 84
    size = size_of(int.from_bytes(head[offset : offset + 8], "little"))
    if size > catalog * extent:
        raise Malformed(f"{catalog} extents of {extent} bytes cannot hold {size} bytes")
    info.capacity = size
    if subtype != "Growing":
        raise UnknownFeature(f"an {subtype.lower()} redolog holds changes to another image that it does not name")


def tables(walk: Walk, head: bytes, info: ImageInfo) -> None:
    """The catalogue (or page table), and what is used of the extents that it numbers."""
    if info.subtype == "sparse":
        _, page, pages, _ = _SPARSE(head, 4)
        start = -(-(_SPARSE_HEADER + pages * 4) // page) * page
        position = 0
        for entries in walk.numbers("the page table", _SPARSE_HEADER, pages, 4, "little"):
            walk.blocks("a page", [start + e * page if e != _NONE else 0 for e in entries], page, position)
            position += len(entries) * page
        return
    _, header, catalog, bitmap, extent = _REDOLOG(head, 64)
    start = header + catalog * 4
    mapped = -(-bitmap // 512) * 512
    unit = mapped + -(-extent // 512) * 512
    for entries in walk.numbers("the catalogue", header, catalog, 4, "little"):
        extents = [entry for entry in entries if entry != _NONE]
        for entry in extents if walk.deep else extents and (max(extents),):
            here = start + entry * unit
            if here + unit > walk.size:
                # A bit of the map in front of an extent says that its sector was written.
                bits = walk.bytes("the map of an extent", here, bitmap)
                used = max((n * 8 + byte.bit_length() for n, byte in enumerate(bits) if byte), default=0)
                walk.inside("an extent", here + mapped, used * 512)
