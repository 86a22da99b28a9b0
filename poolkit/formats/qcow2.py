"""qcow2, versions 2 and 3 (QEMU's ``docs/interop/qcow2.rst``; limits as QEMU's block/qcow2.c enforces them)."""

from __future__ import annotations

from struct import Struct

from poolkit.formats._info import ImageInfo, Malformed, Reader, UnknownFeature, backing, clean, fetch, size_of

# magic version backing_offset backing_size cluster_bits size crypt l1_size l1_offset refcount_offset
# refcount_clusters snapshots snapshots_offset
_V2 = Struct(">4sIQIIQIIQQIIQ").unpack_from
# incompatible compatible autoclear refcount_order header_length
_V3 = Struct(">QQQII").unpack_from
_EXTENSION = Struct(">II").unpack_from
_CRYPTO = Struct(">QQ").unpack_from

_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE = 0x44415441
_ENCRYPTION = 0x0537BE77

_DATA_FILE_BIT = 1 << 2
_COMPRESSION_BIT = 1 << 3
_INCOMPATIBLE = ("dirty", "corrupt", "data_file", "compression_type", "extended_l2")
_MAX_NAME = 1023
_MAX_EXTENSIONS = 64  # QEMU writes five at most; a longer list is made to waste time


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from the header, its extensions and the backing file's name; usually nothing more is read."""
    if len(head) < 72:
        raise Malformed(f"truncated: a qcow2 header has at least 72 bytes, {len(head)} are there")
    (
        _,
        version,
        name_offset,
        name_size,
        cluster_bits,
        size,
        crypt,
        _,
        _,
        _,
        _,
        snapshots,
        _,
    ) = _V2(head)
    incompatible = autoclear = 0
    header_length = 72
    if version == 3:
        info.compat = "1.1"
        if len(head) < 104:
            raise Malformed(f"truncated: a version 3 header has at least 104 bytes, {len(head)} are there")
        incompatible, compatible, autoclear, refcount_order, header_length = _V3(head, 72)
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
    if not 72 <= header_length <= cluster_size or (version == 3 and header_length < 104):
        raise Malformed(f"a header of {header_length} bytes in a cluster of {cluster_size}")
    if crypt:
        if crypt > 2:
            raise UnknownFeature(f"encryption method {crypt}")
        info.encryption = "qcow" if crypt == 1 else "luks"
    if size & 511:
        info.note(f"virtual size {size} is no multiple of 512; QEMU shows {size & ~511}")
    end = cluster_size
    problem = None
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
    found_crypto = _extensions(reader, head, info, header_length, end, incompatible)
    if incompatible & _COMPRESSION_BIT:
        if header_length <= 104:
            raise Malformed("a compression type is announced and missing")
        kind = fetch(reader, head, 1, 104)
        if kind > b"\1":
            raise UnknownFeature(f"compression type {kind[0]}")
        if kind == b"\1":
            info.features = tuple("zstd" if f == "compression_type" else f for f in info.features)
    if incompatible >> 5:
        bits = ", ".join(str(bit) for bit in range(5, 64) if incompatible >> bit & 1)
        raise UnknownFeature(f"unknown incompatible feature bits: {bits}")
    if incompatible & 16 and cluster_bits < 14:
        raise Malformed("extended L2 entries need clusters of at least 16 KiB")
    if incompatible & _DATA_FILE_BIT and not info.data_file:
        raise Malformed("an external data file is announced and not named")
    info.capacity = size_of(size)
    if crypt == 2 and not found_crypto:
        raise Malformed("LUKS encryption is announced and its header is missing")
    if problem:
        raise Malformed(problem)


def _features(info: ImageInfo, incompatible: int, compatible: int, autoclear: int) -> None:
    names = [name for bit, name in enumerate(_INCOMPATIBLE) if incompatible >> bit & 1]
    if compatible & 1:
        names.append("lazy_refcounts")
    if autoclear & 1:
        names.append("bitmaps")
    if autoclear & 2:
        names.append("data_file_raw")
    info.features = tuple(names)


def _extensions(reader: Reader, head: bytes, info: ImageInfo, offset: int, end: int, incompatible: int) -> bool:
    """Walk the header extensions; true when a sound encryption header was seen. A file that ends early ends them."""
    found_crypto = False
    have = len(head)
    for _ in range(_MAX_EXTENSIONS):
        if offset + 8 > end:
            break
        if offset + 8 <= have:
            kind, length = _EXTENSION(head, offset)
        else:
            start = fetch(reader, head, 8, offset)
            if len(start) < 8:
                break
            kind, length = _EXTENSION(start)
        if kind == 0:
            break
        offset += 8
        if length > end - offset:
            raise Malformed(f"header extension {kind:#010x} of {length} bytes does not fit")
        if kind == _BACKING_FORMAT:
            if length >= 16:
                raise Malformed(f"a backing format name of {length} bytes (15 at most)")
            if info.backing is not None:
                info.backing.format = clean(fetch(reader, head, length, offset)) or None
        elif kind == _DATA_FILE:
            name = clean(fetch(reader, head, min(length, _MAX_NAME), offset))
            if incompatible & _DATA_FILE_BIT:
                info.data_file = name
                if length > _MAX_NAME:
                    raise Malformed(f"a data file name of {length} bytes ({_MAX_NAME} at most)")
            else:
                info.note("a data file name is stored, but the image does not use one")
        elif kind == _ENCRYPTION:
            if length != 16:
                raise Malformed(f"an encryption header pointer of {length} bytes (16 expected)")
            pointer = fetch(reader, head, 16, offset)
            if len(pointer) == 16 and info.encryption == "luks":
                where, size = _CRYPTO(pointer)
                if where % (info.cluster_size or 1) or where + size > reader.size:
                    raise Malformed(f"an encryption header of {size} bytes at {where}")
                found_crypto = fetch(reader, head, 6, where) == b"LUKS\xba\xbe"
        offset += (length + 7) & ~7
    else:
        raise Malformed(f"more than {_MAX_EXTENSIONS} header extensions")
    return found_crypto
