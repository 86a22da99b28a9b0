"""qcow2, versions 2 and 3 (QEMU's ``docs/interop/qcow2.rst``; limits as QEMU's block/qcow2.c enforces them)."""

from __future__ import annotations

from functools import lru_cache
from struct import Struct, unpack

from poolkit.formats._info import MAX_SIZE, Malformed, UnknownFeature, backing, clean, fetch
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolkit.formats._info import ImageInfo, Reader


# version backing_offset backing_size cluster_bits size crypt snapshots
_V2 = Struct(">4xIQIIQI24xI").unpack_from
# incompatible compatible autoclear refcount_order header_length
_V3 = Struct(">QQQII").unpack_from
_EXTENSION = Struct(">II").unpack_from
_CRYPTO = Struct(">QQ").unpack_from
# l1_size l1_offset refcount_offset refcount_clusters snapshots snapshots_offset, from 36
_PLACES = Struct(">IQQIIQ").unpack_from
_OFFSET = 0x00FFFFFFFFFFFE00  # of an entry of a table
SMALL, FEW = 512, 4
"""Entries of a first level table and clusters of reference counts of an ordinary image."""

GLANCED = 100
"""Bytes of the header that a glance at the tables needs: up to the size of reference counts, which version 2 has not."""

NEXT = 64
"""Clusters behind the end that are asked for: who fills an image takes one after the other."""

_BACKING_FORMAT = 0xE2792ACA
_FEATURE_NAMES = 0x6803F857
_DATA_FILE = 0x44415441
_ENCRYPTION = 0x0537BE77

_DATA_FILE_BIT = 1 << 2
_COMPRESSION_BIT = 1 << 3
_INCOMPATIBLE = ("dirty", "corrupt", "data_file", "compression_type", "extended_l2")
_MAX_NAME = 1023
_USUAL_LENGTH = 512  # QEMU writes some 410 bytes of extensions
_MAX_EXTENSIONS = 64  # QEMU writes five at most; a longer list is made to waste time


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from the header, its extensions and the backing file's name; usually nothing more is read."""
    if len(head) < 72:
        raise Malformed(f"truncated: a qcow2 header has at least 72 bytes, {len(head)} are there")
    version, name_offset, name_size, cluster_bits, size, crypt, snapshots = _V2(head)
    incompatible = 0
    header_length = 72
    problem = None
    if version == 3:
        info.compat = "1.1"
        if len(head) < 104:
            raise Malformed(f"truncated: a version 3 header has at least 104 bytes, {len(head)} are there")
        incompatible, compatible, autoclear, refcount_order, header_length = _V3(head, 72)
        if header_length < 104:
            raise Malformed(f"a header of {header_length} bytes (version 3 has at least 104)")
        if incompatible or compatible or autoclear:
            _features(info, incompatible, compatible, autoclear)
        if refcount_order > 6:
            raise Malformed(f"reference counts of 2^{refcount_order} bits (at most 64 bits)")
    elif version == 2:
        info.compat = "0.10"
    else:
        raise UnknownFeature(f"qcow2 version {version} (2 and 3 are known)")
    if not 9 <= cluster_bits <= 21:
        raise Malformed(f"clusters of 2^{cluster_bits} bytes (2^9 to 2^21 are possible)")
    info.cluster_size = cluster_size = 1 << cluster_bits
    info.snapshots = snapshots
    if header_length > cluster_size:
        raise Malformed(f"a header of {header_length} bytes in a cluster of {cluster_size}")
    if crypt:
        if crypt > 2:
            raise UnknownFeature(f"encryption method {crypt}")
        info.encryption = "qcow" if crypt == 1 else "luks"
    if size & 511:
        info.note(f"virtual size {size} is no multiple of 512; QEMU shows {size & ~511}")
    end = cluster_size
    if name_offset and name_size:
        if name_offset > cluster_size or name_size > _MAX_NAME or name_size > cluster_size - name_offset:
            raise Malformed(f"a backing file name of {name_size} bytes at {name_offset}")
        end = name_offset + name_size
        name = head[name_offset:end] if end <= len(head) else fetch(reader, head, name_size, name_offset)
        if len(name) < name_size:
            raise Malformed("truncated: the backing file name lies beyond the end of the file")
        info.backing = backing(name)
        if b"\0" in name:
            problem = "the backing file name contains a NUL byte"
        end = name_offset
    usual = _usual(head[header_length : min(end, header_length + _USUAL_LENGTH)])
    if usual is None or incompatible:
        _unusual(reader, head, info, header_length, end, incompatible)
    elif usual and info.backing is not None:
        info.backing.format = usual
    if size > MAX_SIZE:
        raise Malformed(f"virtual size {size} is beyond what any file can hold")
    if crypt == 2 and not _has_luks(reader, head, header_length, end, cluster_size):
        raise Malformed("LUKS encryption is announced and its header is missing")
    if problem:
        raise Malformed(problem)
    info.capacity = size


def _unusual(reader: Reader, head: bytes, info: ImageInfo, start: int, end: int, incompatible: int) -> None:
    """What one image in a thousand has: extensions to look at one by one, or incompatible features."""
    name = None
    for kind, offset, length in _extensions(reader, head, start, end):
        if kind == _BACKING_FORMAT:
            if length >= 16:
                raise Malformed(f"a backing format name of {length} bytes (15 at most)")
            if info.backing is not None:
                info.backing.format = clean(fetch(reader, head, length, offset)) or None
        elif kind == _DATA_FILE:
            if length > _MAX_NAME:
                raise Malformed(f"a data file name of {length} bytes ({_MAX_NAME} at most)")
            name = clean(fetch(reader, head, length, offset))
    if name is not None and not incompatible & _DATA_FILE_BIT:
        info.note("a data file name is stored, but the image does not use one")
    elif incompatible & _DATA_FILE_BIT:
        info.data_file = name or ""
    if incompatible >> 5:
        bits = ", ".join(str(bit) for bit in range(5, 64) if incompatible >> bit & 1)
        raise UnknownFeature(f"unknown incompatible feature bits: {bits}")
    if incompatible & _COMPRESSION_BIT:
        if start <= 104:
            raise Malformed("a compression type is announced and missing")
        compression = fetch(reader, head, 1, 104)
        if compression > b"\1":
            raise UnknownFeature(f"compression type {compression[0]}")
        if compression == b"\1":
            info.features = tuple("zstd" if f == "compression_type" else f for f in info.features)
    if incompatible & 16 and (info.cluster_size or 0) < 16384:
        raise Malformed("extended L2 entries need clusters of at least 16 KiB")
    if incompatible & _DATA_FILE_BIT and not name:
        raise Malformed("an external data file is announced and not named")


@lru_cache(maxsize=128)
def _usual(area: bytes) -> str | None:
    """The backing format (or nothing) in an area of extensions that ends and says no more than that; None otherwise.

    The overlays of a pool share a few such areas, byte for byte, which makes this worth remembering.
    """
    offset, end, format = 0, len(area), ""
    while offset + 8 <= end:
        kind, length = _EXTENSION(area, offset)
        if kind == 0:
            return format
        offset += 8
        if length > end - offset:
            return None
        if kind == _BACKING_FORMAT and length < 16:
            format = clean(area[offset : offset + length])
        elif kind != _FEATURE_NAMES:
            return None
        offset += (length + 7) & ~7
    return None


def _features(info: ImageInfo, incompatible: int, compatible: int, autoclear: int) -> None:
    names = [name for bit, name in enumerate(_INCOMPATIBLE) if incompatible >> bit & 1]
    if compatible & 1:
        names.append("lazy_refcounts")
    if autoclear & 1:
        names.append("bitmaps")
    if autoclear & 2:
        names.append("data_file_raw")
    info.features = tuple(names)


def _extensions(reader: Reader, head: bytes, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Each header extension's kind, offset and length; a file that ends early ends them."""
    for _ in range(_MAX_EXTENSIONS):
        start = fetch(reader, head, 8, offset) if offset + 8 <= end else b""
        if len(start) < 8:
            return
        kind, length = _EXTENSION(start)
        if kind == 0:
            return
        offset += 8
        if length > end - offset:
            raise Malformed(f"header extension {kind:#010x} of {length} bytes does not fit")
        yield kind, offset, length
        offset += (length + 7) & ~7
    raise Malformed(f"more than {_MAX_EXTENSIONS} header extensions")


def _has_luks(reader: Reader, head: bytes, start: int, end: int, cluster_size: int) -> bool:
    """True when the extension that points at the LUKS header is there and points at one."""
    for kind, offset, length in _extensions(reader, head, start, end):
        if kind == _ENCRYPTION:
            if length != 16:
                raise Malformed(f"an encryption header pointer of {length} bytes (16 expected)")
            pointer = fetch(reader, head, 16, offset)
            if len(pointer) == 16:
                where, size = _CRYPTO(pointer)
                if where % cluster_size or where + size > reader.size:
                    raise Malformed(f"an encryption header of {size} bytes at {where}")
                return fetch(reader, head, 6, where) == b"LUKS\xba\xbe"
    return False


def extension(reader: Reader, head: bytes, cluster_size: int, wanted: int) -> bytes | None:
    """The first 24 bytes of a header extension, None where it is not there."""
    version, name_offset, name_size = _V2(head)[:3]
    start = 72 if version == 2 else _V3(head, 72)[4]
    for kind, offset, length in _extensions(
        reader, head, start, name_offset if name_offset and name_size else cluster_size
    ):
        if kind == wanted:
            return fetch(reader, head, min(length, 24), offset)
    return None


def counts_beyond(reader: Reader, head: bytes) -> bool:
    """Whether a cluster right behind the file's end counts as used, as it does where the rest of an image is missing.

    Two reads of some bytes; ``head`` are the first ``GLANCED`` ones. It may also be left over from a program that died: then all
    of the image is there nevertheless.
    """
    if len(head) < 72:
        return False
    _, _, refcounts, tables, _, _ = _PLACES(head, 36)
    bits = head[23]
    order = head[99] if head[7] == 3 and len(head) == GLANCED else 4  # of version 2: 16 bits
    if not 9 <= bits <= 21 or order > 6:
        return False
    cluster, size = 1 << bits, reader.size
    block, number = divmod(-(-size // cluster), cluster * 8 >> order)
    if (block + 1) * 8 > tables * cluster:
        return False
    entry = reader.pread(8, refcounts + block * 8)
    place = int.from_bytes(entry, "big") & ~0x1FF
    if not place or len(entry) < 8:
        return False
    start = number << order >> 3
    found = reader.pread(min(NEXT << order >> 3, cluster - start), place + start) if place < size else b"\1"
    return found.count(0) != len(found)


def plain(reader: Reader, head: bytes, cluster_size: int) -> bool:
    """Whether all that the header and a small first level table name is there: the common answer, in one small read.

    False says nothing: ``qcow2tables`` is for what is wrong, and for tables that are larger.
    """
    if len(head) < 72:
        return False
    count, first, refcounts, clusters, snapshots, _ = _PLACES(head, 36)
    size = reader.size
    if (
        count > SMALL
        or clusters > FEW
        or snapshots
        or first + count * 8 > size
        or refcounts + clusters * cluster_size > size
    ):
        return False
    entries = reader.pread(count * 8, first)
    if len(entries) < count * 8:
        return False
    if entries.count(0) == len(entries):
        return True
    last: int = max(entry & _OFFSET for entry in unpack(f">{count}Q", entries))
    return last + cluster_size <= size
