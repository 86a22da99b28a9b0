"""Headers made by a few lines of Python, and a reader that counts what is asked of it.

Real tools make the images elsewhere in these tests. What stands here are the headers no tool makes: hostile numbers,
broken copies, and formats for which Debian has no writer (UDIF, VMDK's COWD and seSparse, UML's COW version 2,
differencing VHD and VDI), built with the field offsets of their specifications.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from poolkit.formats import FdReader, ImageInfo, probe


class Sparse:
    """A file that is not there: zeros with some bytes at some offsets; counts reads and bytes."""

    def __init__(self, parts: Mapping[int, bytes], size: int | None = None) -> None:
        self.parts = dict(parts)
        self.size = max((at + len(data) for at, data in parts.items()), default=0) if size is None else size
        self.reads = 0
        self.bytes = 0

    def pread(self, length: int, offset: int) -> bytes:
        assert 0 <= length <= 1 << 20, "a header decided how much is read"
        assert 0 <= offset < 1 << 63, "a header decided an impossible offset"
        self.reads += 1
        length = max(0, min(length, self.size - offset))
        self.bytes += length
        data = bytearray(length)
        for at, part in self.parts.items():
            start, end = max(at, offset), min(at + len(part), offset + length)
            if start < end:
                data[start - offset : end - offset] = part[start - at : end - at]
        return bytes(data)


def look(data: bytes, size: int | None = None) -> ImageInfo:
    """Probe bytes, followed by zeros up to ``size``."""
    return probe(Sparse({0: data}, len(data) if size is None else size))


def look_at(path: Path | str) -> ImageInfo:
    """Probe a file."""
    with open(path, "rb") as file:
        return probe(FdReader(file.fileno(), file.seek(0, 2)))


def qcow2(
    *,
    version: int = 3,
    size: int = 1 << 20,
    cluster_bits: int = 16,
    crypt: int = 0,
    incompatible: int = 0,
    compatible: int = 0,
    autoclear: int = 0,
    refcount_order: int = 4,
    header_length: int = 104,
    backing: bytes = b"",
    backing_size: int | None = None,
    backing_offset: int | None = None,
    extensions: tuple[tuple[int, bytes], ...] = (),
    snapshots: int = 0,
    after: bytes = b"",
) -> bytes:
    """A qcow2 header with its extensions and backing name; there are no tables behind it, and it names none."""
    length = header_length if version >= 3 else 72
    tail = b"".join(
        struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8) for kind, data in extensions
    ) + bytes(8)
    tail = after + bytes(max(0, length - 104) - len(after)) + tail
    at = (72 if version < 3 else 104) + len(tail)
    offset = (at if backing else 0) if backing_offset is None else backing_offset
    count = len(backing) if backing_size is None else backing_size
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        version,
        offset,
        count,
        cluster_bits,
        size,
        crypt,
        0,
        0x30000,
        0x10000,
        0,
        snapshots,
        0,
    )
    if version >= 3:
        header += struct.pack(">QQQII", incompatible, compatible, autoclear, refcount_order, header_length)
    return header + tail + backing


def qcow(*, size: int = 1 << 20, cluster_bits: int = 12, l2_bits: int = 9, crypt: int = 0, backing: bytes = b"",
         backing_size: int | None = None, backing_offset: int = 48) -> bytes:  # fmt: skip
    """A qcow version 1 header."""
    count = len(backing) if backing_size is None else backing_size
    return (
        struct.pack(
            ">4sIQIIQBB2xIQ",
            b"QFI\xfb",
            1,
            backing_offset if count else 0,
            count,
            0,
            size,
            cluster_bits,
            l2_bits,
            crypt,
            0,
        )
        + backing
    )


def qed(*, cluster: int = 65536, table: int = 4, header: int = 1, features: int = 0, size: int = 1 << 20,
        backing: bytes = b"", backing_size: int | None = None, backing_offset: int = 64) -> bytes:  # fmt: skip
    """A QED header."""
    count = len(backing) if backing_size is None else backing_size
    return (
        struct.pack(
            "<4sIIIQQQQQII", b"QED\0", cluster, table, header, features, 0, 0, 65536, size, backing_offset, count
        )
        + backing
    )


def vdi(*, version: int = 0x10001, kind: int = 1, size: int = 1 << 20, block: int = 1 << 20, blocks: int = 1,
        parent: bytes = bytes(16)) -> bytes:  # fmt: skip
    """A VDI header."""
    head = bytearray(512)
    head[:20] = b"<<< hand made VDI >>"
    struct.pack_into("<4sIIII", head, 64, b"\x7f\x10\xda\xbe", version, 0x190, kind, 0)
    struct.pack_into("<QIII", head, 0x170, size, block, 0, blocks)
    head[0x1B8:0x1C8] = parent
    return bytes(head)


def vhd_footer(*, version: int = 0x10000, size: int = 1 << 20, chs: tuple[int, int, int] = (30, 4, 17), kind: int = 3,
               creator: bytes = b"win ", offset: int = 512, original: int | None = None, bad: int = 0) -> bytes:  # fmt: skip
    """A VHD footer with its checksum (off by ``bad``)."""
    footer = bytearray(512)
    struct.pack_into(
        ">8sIIQI4sIIQQHBBI", footer, 0, b"conectix", 2, version, offset, 0, creator, 0, 0,
        size if original is None else original, size, *chs, kind,
    )  # fmt: skip
    struct.pack_into(">I", footer, 64, (~sum(footer) + bad) & 0xFFFFFFFF)
    return bytes(footer)


def vhd(
    *, entries: int = 1, block: int = 1 << 21, parent: str = "", parent_id: bytes = bytes(16), **footer: object
) -> bytes:
    """A dynamic or differencing VHD: footer copy, dynamic header, footer."""
    end = vhd_footer(**footer)  # type: ignore[arg-type]
    dynamic = bytearray(1024)
    struct.pack_into(">8sQQIII", dynamic, 0, b"cxsparse", (1 << 64) - 1, 1536, 0x10000, entries, block)
    dynamic[40:56] = parent_id
    name = parent.encode("utf-16-be")
    dynamic[64 : 64 + len(name)] = name
    return end + bytes(dynamic) + bytes(512) + end


def vmdk(*, version: int = 1, capacity: int = 2048, grain: int = 128, entries: int = 512, text: bytes = b"",
         text_offset: int = 1, text_size: int = 20, directory: int = 21) -> bytes:  # fmt: skip
    """A hosted sparse VMDK header, and the descriptor behind it."""
    header = struct.pack(
        "<4sIIQQQQIQQQB4sH", b"KDMV", version, 3, capacity, grain, text_offset, text_size, entries, 26, directory, 128, 0,
        b"\n \r\n", 0,
    )  # fmt: skip
    return header + bytes(512 - len(header)) + text + bytes(20 * 512 - len(text))


def descriptor(*extents: str, kind: str = "monolithicFlat", version: str = "version=1", extra: str = "") -> bytes:
    """The text of a VMDK descriptor."""
    lines = [
        "# Disk DescriptorFile",
        version,
        "CID=12345678",
        "parentCID=ffffffff",
        f'createType="{kind}"',
        extra,
        *extents,
    ]
    return "\n".join(line for line in lines if line).encode() + b"\n"


def parallels(*, magic: bytes = b"WithouFreSpacExt", version: int = 2, tracks: int = 2048, entries: int = 1,
              sectors: int = 2048, in_use: int = 0) -> bytes:  # fmt: skip
    """A parallels header."""
    return struct.pack("<16sIIIIIQIIIQ", magic, version, 16, 1, tracks, entries, sectors, in_use, 1, 0, 0)


def bochs(*, kind: bytes = b"Redolog", subtype: bytes = b"Growing", version: int = 0x20000, catalog: int = 64,
          extent: int = 16384, size: int = 1 << 20) -> bytes:  # fmt: skip
    """A Bochs redolog header."""
    start = struct.pack("<32s16s16sIIIII", b"Bochs Virtual HD Image", kind, subtype, version, 512, catalog, 1, extent)
    start += struct.pack("<IQ", 0, size) if version == 0x20000 else struct.pack("<Q", size)
    return start + bytes(512 - len(start))


CLOOP = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"


def cloop(*, block: int = 65536, blocks: int = 16) -> bytes:
    """A cloop header."""
    return CLOOP + bytes(128 - len(CLOOP)) + struct.pack(">II", block, blocks)


def luks1(*, payload: int = 4096, version: int = 1) -> bytes:
    """A LUKS 1 header, without key material."""
    head = struct.pack(">6sH32s32s32sII", b"LUKS\xba\xbe", version, b"aes", b"xts-plain64", b"sha256", payload, 64)
    head += bytes(168 - len(head)) + b"1b1ac1de-0000-4000-8000-000000000000"
    return head + bytes(592 - len(head))


def luks2(json: bytes, *, header: int = 16384, end: bytes = b"\0") -> bytes:
    """A LUKS 2 header around some JSON text."""
    head = struct.pack(">6sHQ", b"LUKS\xba\xbe", 2, header)
    return head + bytes(4096 - len(head)) + json + end


def koly(
    *, capacity: int = 100, data: tuple[int, int] = (0, 512), xml: tuple[int, int] = (0, 0), version: int = 4
) -> bytes:
    """The trailer of an UDIF image."""
    trailer = bytearray(512)
    struct.pack_into(">4sII", trailer, 0, b"koly", version, 512)
    struct.pack_into(">QQ", trailer, 0x18, *data)
    struct.pack_into(">QQ", trailer, 0xD8, *xml)
    struct.pack_into(">Q", trailer, 0x1EC, capacity)
    return bytes(trailer)


def cow2(*, backing: bytes = b"/base.img", size: int = 1 << 20, sector: int = 512) -> bytes:
    """A UML COW header, version 2."""
    return struct.pack(">4sI1024sIQI", b"OOOM", 2, backing, 0, size, sector)


def cow3(*, backing: bytes = b"/base.img", size: int = 1 << 20, sector: int = 512, version: int = 3) -> bytes:
    """A UML COW header, version 3."""
    return struct.pack(">4sIIQIII4096s", b"OOOM", version, 0, size, sector, 4096, 0, backing)


def iso(front: bytes = b"", size: int = 100 * 2048, volume: int = 100) -> Sparse:
    """A disc with a primary volume descriptor, whatever stands in front, and its end mark."""
    pvd = bytearray(2048)
    pvd[:7] = b"\1CD001\1"
    pvd[40:72] = b"LABEL".ljust(32)
    struct.pack_into("<I", pvd, 80, volume)
    struct.pack_into("<H", pvd, 128, 2048)
    return Sparse({0: front, 32768: bytes(pvd), 34816: b"\xffCD001\1"}, size)
