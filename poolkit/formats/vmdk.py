"""VMDK: hosted sparse, stream-optimised, COWD, seSparse and text descriptors (VMware's Virtual Disk Format 5.0).

A descriptor names other files. They are listed and never opened: that is how such an image makes a host read its own
secrets (CVE-2022-47951).
"""

from __future__ import annotations

import re
from struct import Struct
from typing import TYPE_CHECKING

from poolkit.formats._info import (
    Extent,
    ImageInfo,
    Malformed,
    Reader,
    UnknownFeature,
    backing,
    clean,
    fetch,
    need,
    size_of,
)

if TYPE_CHECKING:
    from poolkit.formats.tables import Walk

# magic version flags capacity grain descriptor_offset descriptor_size entries redundant_directory directory overhead
_SPARSE = Struct("<4sIIQQQQIQQQ").unpack_from
_COWD = Struct("<III").unpack_from  # flags sectors grain, from 8
_COWD_PLACES = Struct("<IIIII").unpack_from  # flags sectors grain directory count, from 8
_PAIR = Struct("<QQ").unpack_from
_SESPARSE = Struct("<QQ").unpack_from  # sectors grain, from 16
_AT_END = (1 << 64) - 1  # a directory offset that means "see the footer"
_MAX_SECTORS = 1 << 54
_MAX_DIRECTORY = 32 << 20  # as QEMU's 512 million entries of second level tables allow
_REDUNDANT, _COMPRESSED = 1 << 1, 1 << 16  # flags
_MAX_TEXT = 65536
_MAX_EXTENTS = 2000

_VERSION = re.compile(rb"(?:#[^\n]*\n| +\r?\n)*version=[123]\r?\n")
_EXTENT = re.compile(
    rb'(RW|RDONLY|NOACCESS)[ \t]+(\d{1,20})[ \t]+([A-Z]{1,16})(?:[ \t]+"([^"\n]{0,1024})")?(?:[ \t]+(\d{1,20}))?'
    rb"[^\n]{0,256}$"
)
_EXTENT_LINE = re.compile(rb"^[ \t]*((?:RW|RDONLY|NOACCESS)[ \t][^\r\n]*)", re.MULTILINE)
_CREATE_TYPE = re.compile(rb'^[ \t]*createType[ \t]*=[ \t]*"([^"\n]{0,64})"', re.MULTILINE)
_CID = re.compile(rb"^[ \t]*CID[ \t]*=[ \t]*([0-9a-fA-F]{1,8})", re.MULTILINE)
_PARENT = re.compile(rb'parentFileNameHint[ \t]*=[ \t]*"([^"\n]{0,1024})"')
_SELF_CONTAINED = ("monolithicSparse", "streamOptimized")


def is_descriptor(head: bytes) -> bool:
    """True when the text starts like a descriptor: comments and blank lines, then ``version=1``, ``2`` or ``3``.

    The same rule as QEMU's. ``# Disk DescriptorFile`` is enough too, since VMware's own tools go by it.
    """
    return _VERSION.match(head) is not None or head.startswith(b"# Disk DescriptorFile")


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from whichever of the headers is there."""
    magic = head[:4]
    if magic == b"KDMV":
        _sparse(reader, head, info)
    elif magic == b"COWD":
        need(head, 20, "COWD header")
        info.subtype = "vmfsSparse"
        if head[4:8] != b"\1\0\0\0":
            raise UnknownFeature(f"COWD version {int.from_bytes(head[4:8], 'little')} (1 is known)")
        _, sectors, grain = _COWD(head, 8)
        _geometry(info, sectors, grain)
    elif magic == b"\xbe\xba\xfe\xca":
        need(head, 32, "seSparse header")
        info.subtype = "seSparse"
        _geometry(info, *_SESPARSE(head, 16))
        info.note("QEMU reaches a seSparse extent through its descriptor only")
    else:
        text = _text(reader, head, 0, reader.size)
        if not _VERSION.match(text):
            raise Malformed("a descriptor without a version")
        info.subtype = "descriptor"
        _descriptor(text, info)
        _extents(text, info)
        info.capacity = size_of(sum(extent.size for extent in info.extents))


def _sparse(reader: Reader, head: bytes, info: ImageInfo) -> None:
    need(head, 79, "VMDK header")
    header = head
    if _SPARSE(header)[9] == _AT_END:
        header = fetch(reader, head, 512, reader.size - 1024) if reader.size >= 1536 else b""
        if len(header) < 512 or not header.startswith(b"KDMV"):
            raise Malformed("truncated: the footer of a stream-optimised image is missing")
        info.subtype = "streamOptimized"
    _, version, _, sectors, grain, text_offset, text_size, entries, _, _, _ = _SPARSE(header)
    if version not in (1, 2, 3):
        raise UnknownFeature(f"VMDK version {version} (1 to 3 are known)")
    text = b""
    if text_offset:
        if text_offset > _MAX_SECTORS:
            raise Malformed(f"a descriptor at sector {text_offset}")
        text = _text(reader, head, text_offset * 512, text_size * 512)
        _descriptor(text, info)
    if not text:
        info.subtype = info.subtype or "extent"
        info.note("one extent of an image whose descriptor is another file")
    if text and sectors == 0:
        info.note("the header has no size: QEMU follows the descriptor and opens the extents it names")
        _extents(text, info)
        info.capacity = size_of(sum(extent.size for extent in info.extents))
        return
    if text:
        # the one extent of a self-contained image is the image itself, under the name it was made with
        _extents(text, info, required=False)
        if info.subtype in _SELF_CONTAINED and [extent.type for extent in info.extents] == ["SPARSE"]:
            info.extents = ()
    if not 0 < entries <= 512:
        raise Malformed(f"grain tables of {entries} entries (1 to 512 are possible)")
    _geometry(info, sectors, grain)


def _geometry(info: ImageInfo, sectors: int, grain: int) -> None:
    if not grain or grain > 0x200000:  # 1 GiB; QEMU: "invalid granularity, image may be corrupt"
        raise Malformed(f"grains of {grain} sectors")
    info.cluster_size = grain * 512
    if sectors >= _MAX_SECTORS:
        raise Malformed(f"{sectors} sectors ({_MAX_SECTORS - 1} at most)")
    info.capacity = sectors * 512


def _text(reader: Reader, head: bytes, offset: int, length: int) -> bytes:
    """The descriptor up to its first NUL."""
    text = fetch(reader, head, min(length, _MAX_TEXT), offset)
    text, end, _ = text.partition(b"\0")
    if not end and len(text) == _MAX_TEXT and length > _MAX_TEXT:
        raise Malformed(f"a descriptor of more than {_MAX_TEXT} bytes")
    return text


def _descriptor(text: bytes, info: ImageInfo) -> None:
    kind = _CREATE_TYPE.search(text)
    if kind:
        info.subtype = clean(kind[1])
    cid = _CID.search(text)
    if cid:
        info.details = {"cid": cid[1].decode().lower()}
    parent = _PARENT.search(text)
    if parent and parent[1]:
        info.backing = backing(parent[1])


def _extents(text: bytes, info: ImageInfo, *, required: bool = True) -> None:
    found: list[Extent] = []
    for line in _EXTENT_LINE.finditer(text):
        parts = _EXTENT.match(line[1])
        if parts is None:
            raise Malformed(f"an extent that makes no sense: {clean(line[1][:80])}")
        sectors = int(parts[2])
        if not 0 < sectors < _MAX_SECTORS:
            raise Malformed(f"an extent of {sectors} sectors")
        if len(found) == _MAX_EXTENTS:
            raise Malformed(f"more than {_MAX_EXTENTS} extents")
        name = None if parts[4] is None else clean(parts[4])
        offset = min(int(parts[5] or 0) * 512, _AT_END)
        found.append(Extent(parts[1].decode(), sectors * 512, parts[3].decode(), name, offset))
    info.extents = tuple(found)
    if required and not found:
        raise Malformed("a descriptor without extents")


def tables(walk: Walk, head: bytes, info: ImageInfo) -> None:
    """The grain directories, the tables that they name, and the grains."""
    magic = head[:4]
    if magic == b"COWD":
        _, sectors, grain, directory, count = _COWD_PLACES(head, 8)
        _grains(walk, (directory,), count, 4096, grain * 512, packed=False)
    elif magic == b"KDMV":
        header = head
        if _SPARSE(header)[9] == _AT_END:
            header = walk.bytes("the footer", walk.size - 1024, 512)
        _, _, flags, sectors, grain, _, _, entries, spare, directory, _ = _SPARSE(header)
        if not sectors or not 0 < entries <= 512 or not grain:
            return  # it only describes others
        count = -(-sectors // (grain * entries))
        if count > _MAX_DIRECTORY:
            raise Malformed(f"a grain directory of {count} entries")
        places = (directory, spare) if flags & _REDUNDANT else (directory,)
        _grains(walk, places, count, entries, grain * 512, packed=bool(flags & _COMPRESSED))
    elif magic == b"\xbe\xba\xfe\xca" and len(head) >= 160:
        for what, place in (("the grain directory", 128), ("the grain tables", 144)):
            offset, length = _PAIR(head, place)
            walk.inside(what, offset * 512, length * 512)


def _grains(walk: Walk, directories: tuple[int, ...], count: int, entries: int, grain: int, *, packed: bool) -> None:
    for directory in dict.fromkeys(directories):
        position = 0
        for tables in walk.numbers("a grain directory", directory * 512, count, 4, "little"):
            places = [table * 512 for table in tables]
            walk.blocks("a grain table", places, entries * 4)
            again = not walk.deep and directory != directories[0]  # the second one names copies of the same tables
            for number, place in () if again else walk.chosen(places, entries * 4):
                here, full = position + number * entries * grain, False
                for data in walk.numbers("a grain table", place, entries, 4, "little"):
                    if max(data) > 1:  # 1 stands for a grain of zeros
                        full = True
                        starts = [sector * 512 if sector > 1 else 0 for sector in data]
                        if packed:
                            _packed(walk, max(starts))
                        else:
                            walk.blocks("a grain", starts, grain, here)
                    here += len(data) * grain
                if full and not walk.deep:
                    break  # all tables of such an image are there from the begin, most of them empty
            position += len(places) * entries * grain


def _packed(walk: Walk, last: int) -> None:
    """The last compressed grain that a table names: its own header says how long it is."""
    if last:
        marker = walk.bytes("a compressed grain", last, 12)
        walk.inside("a compressed grain", last, 12 + int.from_bytes(marker[8:], "little"))
