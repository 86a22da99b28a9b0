"""Headers made to hurt: the numbers that once divided by zero, overflowed or filled memory in other programs.

Time is not measured here, for a busy machine would lie; the work is: how many reads, how many bytes, how much memory.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from poolkit.formats import as_format, probe
from tests.formats import samples
from tests.formats.samples import Sparse

MIB = 1 << 20
U32, U63, U64 = (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1
MAX_READS = 70
MAX_BYTES = 512 << 10

BAD = {
    # name: (header, words of the error)
    "qcow2-cluster-0": (samples.qcow2(cluster_bits=0), "clusters"),
    "qcow2-cluster-8": (samples.qcow2(cluster_bits=8), "clusters"),
    "qcow2-cluster-22": (samples.qcow2(cluster_bits=22), "clusters"),
    "qcow2-cluster-200": (samples.qcow2(cluster_bits=200), "clusters"),
    "qcow2-cluster-max": (samples.qcow2(cluster_bits=U32), "clusters"),
    "qcow2-refcount-7": (samples.qcow2(refcount_order=7), "reference counts"),
    "qcow2-refcount-max": (samples.qcow2(refcount_order=U32), "reference counts"),
    "qcow2-header-0": (samples.qcow2(header_length=0), "header of 0"),
    "qcow2-header-72": (samples.qcow2(header_length=72), "header of 72"),
    "qcow2-header-max": (samples.qcow2()[:100] + b"\xff" * 4 + bytes(9), "a header of"),
    "qcow2-crypt-3": (samples.qcow2(crypt=3), "encryption method"),
    "qcow2-name-1024": (samples.qcow2(backing=b"x" * 1024), "backing file name"),
    "qcow2-name-max": (samples.qcow2(backing=b"x", backing_size=U32), "backing file name"),
    "qcow2-name-far": (samples.qcow2(backing=b"x", backing_offset=U64), "backing file name"),
    "qcow2-name-behind": (samples.qcow2(backing=b"x", backing_offset=60000, backing_size=9), "truncated"),
    "qcow2-name-crosses-cluster": (samples.qcow2(backing=b"x", backing_offset=65530, backing_size=9), "backing"),
    "qcow2-extension-max": (samples.qcow2(extensions=((1, b""),))[:108] + b"\xff" * 4, "header extension"),
    "qcow2-many-extensions": (samples.qcow2(extensions=((1, b""),) * 65), "more than 64"),
    "qcow2-format-16": (samples.qcow2(backing=b"b", extensions=((0xE2792ACA, b"x" * 16),)), "format name"),
    "qcow2-data-file-long": (samples.qcow2(incompatible=4, extensions=((0x44415441, b"x" * 1024),)), "data file name"),
    "qcow2-crypto-pointer-size": (samples.qcow2(crypt=2, extensions=((0x0537BE77, b"x" * 8),)), "pointer"),
    "qcow2-crypto-pointer-far": (samples.qcow2(crypt=2, extensions=((0x0537BE77, b"\xff" * 16),)), "encryption header"),
    "qcow2-compression-2": (samples.qcow2(incompatible=8, header_length=112, after=b"\2"), "compression type 2"),
    "qcow2-compression-missing": (samples.qcow2(incompatible=8), "compression type"),
    "qcow-size-0": (samples.qcow(size=0), "virtual size 0"),
    "qcow-size-1": (samples.qcow(size=1), "virtual size 1"),
    "qcow-size-max": (samples.qcow(size=U64), "virtual size"),
    "qcow-cluster-8": (samples.qcow(cluster_bits=8), "clusters"),
    "qcow-cluster-17": (samples.qcow(cluster_bits=17), "clusters"),
    "qcow-cluster-255": (samples.qcow(cluster_bits=255), "clusters"),
    "qcow-l2-5": (samples.qcow(l2_bits=5), "second level"),
    "qcow-l2-255": (samples.qcow(l2_bits=255), "second level"),
    "qcow-crypt-2": (samples.qcow(crypt=2), "encryption"),
    "qcow-name-1024": (samples.qcow(backing=b"x" * 1024), "backing"),
    "qcow-name-max": (samples.qcow(backing=b"x", backing_size=U32), "backing"),
    "qcow-name-far": (samples.qcow(backing=b"x", backing_offset=U64), "backing"),
    "qcow-short": (samples.qcow()[:47], "truncated"),
    "qed-cluster-0": (samples.qed(cluster=0), "clusters of 0"),
    "qed-cluster-odd": (samples.qed(cluster=65537), "clusters"),
    "qed-cluster-max": (samples.qed(cluster=1 << 31), "clusters"),
    "qed-table-0": (samples.qed(table=0), "tables of 0"),
    "qed-table-max": (samples.qed(table=U32), "tables"),
    "qed-header-0": (samples.qed(header=0), "header of no"),
    "qed-features": (samples.qed(features=8), "feature bits"),
    "qed-size-max": (samples.qed(size=U64), "virtual size"),
    "qed-size-beyond-tables": (samples.qed(cluster=4096, table=1, size=512 * 512 * 4096 + 1), "tables"),
    "qed-name-0": (samples.qed(features=1, backing_size=0), "backing"),
    "qed-name-max": (samples.qed(features=1, backing_size=U32), "backing"),
    "qed-name-far": (samples.qed(features=1, backing=b"x", backing_offset=U32), "backing"),
    "vdi-blocks-max": (samples.vdi(blocks=U32), "blocks"),
    "vdi-bomb": (samples.vdi(size=0x1FFFFF00 << 20, blocks=0x1FFFFF81), "blocks"),
    "vdi-size-max": (samples.vdi(size=U64), "blocks"),
    "vdi-size-beyond-blocks": (samples.vdi(size=2 * MIB), "cannot hold"),
    "vdi-block-0": (samples.vdi(block=0), "blocks of 0"),
    "vdi-block-odd": (samples.vdi(block=3), "blocks of 3"),
    "vdi-short": (samples.vdi()[:0x1C7], "truncated"),
    "vpc-size-max": (samples.vhd(size=U64), "virtual size"),
    "vpc-sectors-max": (samples.vhd(size=0xFF000001 * 512), "virtual size"),
    "vpc-block-0": (samples.vhd(block=0), "blocks of 0"),
    "vpc-block-odd": (samples.vhd(block=3 << 20), "blocks"),
    "vpc-entries-max": (samples.vhd(entries=U32), "block table"),
    "vpc-dynamic-far": (samples.vhd(offset=U64), "dynamic header"),
    "vpc-dynamic-0": (samples.vhd(offset=0), "dynamic header"),
    "vpc-type-9": (samples.vhd(kind=9), "type 9"),
    "vmdk-grain-0": (samples.vmdk(grain=0), "grains of 0"),
    "vmdk-grain-max": (samples.vmdk(grain=U63), "grains"),
    "vmdk-entries-0": (samples.vmdk(entries=0), "grain tables"),
    "vmdk-entries-max": (samples.vmdk(entries=U32), "grain tables"),
    "vmdk-version-4": (samples.vmdk(version=4), "version 4"),
    "vmdk-text-far": (samples.vmdk(text_offset=U64), "descriptor at sector"),
    "vmdk-capacity-max": (samples.vmdk(capacity=U64), "sectors"),
    "vmdk-short": (samples.vmdk()[:78], "truncated"),
    "ploop-tracks-0": (samples.parallels(tracks=0), "clusters of 0"),
    "ploop-tracks-max": (samples.parallels(tracks=U32), "clusters"),
    "ploop-entries-max": (samples.parallels(entries=U32), "entries"),
    "ploop-sectors-max": (samples.parallels(sectors=U64), "virtual size"),
    "ploop-version-3": (samples.parallels(version=3), "version 3"),
    "bochs-catalog-max": (samples.bochs(catalog=U32), "catalogue"),
    "bochs-extent-0": (samples.bochs(extent=0), "extents of 0"),
    "bochs-extent-1": (samples.bochs(extent=1), "extents of 1"),
    "bochs-extent-max": (samples.bochs(extent=1 << 31), "extents"),
    "bochs-size-max": (samples.bochs(size=U64), "virtual size"),
    "bochs-size-beyond": (samples.bochs(size=1 << 40), "cannot hold"),
    "bochs-version": (samples.bochs(version=0x30000), "version 0x30000"),
    "bochs-sparse-version": (struct.pack("<IIIIQ", 0x02468ACE, 3, 4096, 1, 4096), "version 3"),
    "bochs-sparse-page": (struct.pack("<IIIIQ", 0x02468ACE, 2, 0, 1, 4096), "pages of 0"),
    "qed-name-behind": (samples.qed(features=1, backing_size=9, backing_offset=5000), "truncated"),
    "vdi-type-9": (samples.vdi(kind=9), "image type 9"),
    "bochs-type": (samples.bochs(kind=b"Other"), "type Other"),
    "cloop-block-0": (samples.cloop(block=0), "blocks of 0"),
    "cloop-block-513": (samples.cloop(block=513), "blocks of 513"),
    "cloop-block-max": (samples.cloop(block=U32 & ~511), "blocks"),
    "cloop-blocks-max": (samples.cloop(blocks=U32), "blocks"),
    "luks-version-3": (samples.luks1(version=3), "version 3"),
    "luks1-payload-1": (samples.luks1(payload=1), "inside the header"),
    "luks1-payload-max": (samples.luks1(payload=U32), "truncated"),
    "luks2-header-max": (samples.luks2(b"{}", header=U64), "LUKS2 header"),
    "luks2-header-0": (samples.luks2(b"{}", header=0), "LUKS2 header"),
    "luks2-no-end": (samples.luks2(b"{}", end=b""), "does not end"),
    "luks2-long": (samples.luks2(b" " * 40_000, header=4 << 20), "too long"),
    "luks2-empty": (samples.luks2(b""), "usable segment"),
    "luks2-list": (samples.luks2(b"[]"), "usable segment"),
    "luks2-deep": (samples.luks2(b"[" * 12_000), "usable segment"),
    "luks2-digits": (samples.luks2(b'{"segments":{"0":{"offset":' + b"9" * 9000 + b"}}}"), "usable segment"),
    "luks2-text-offset": (samples.luks2(b'{"segments":{"0":{"offset":"x","size":"dynamic"}}}'), "usable segment"),
    "luks2-odd-digits": (samples.luks2('{"segments":{"0":{"offset":"²","size":"1"}}}'.encode()), "usable segment"),
    "luks2-no-utf8": (samples.luks2(b'{"segments":{"\xff":1}}'), "usable segment"),
    "luks2-far": (samples.luks2(b'{"segments":{"0":{"offset":"18446744073709551615","size":"dynamic"}}}'), "truncated"),
    "luks2-size": (samples.luks2(b'{"segments":{"0":{"offset":"16","size":"-1"}}}'), "without a size"),
    "luks2-sector": (samples.luks2(b'{"segments":{"0":{"offset":"16","size":"1","sector_size":7}}}'), "sectors of 7"),
    "luks2-huge-sector": (
        samples.luks2(b'{"segments":{"0":{"offset":"16","size":"1","sector_size":1e999}}}'),
        "usable",
    ),
    "cow-version-1": (samples.cow3(version=1), "version 1"),
    "cow-size-max": (samples.cow2(size=U64), "virtual size"),
    "cow3-size-max": (samples.cow3(size=U64), "virtual size"),
    "cow-sector-0": (samples.cow2(sector=0), "sectors of 0"),
    "cow-short": (samples.cow2()[:1047], "truncated"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_header_is_an_error_of_its_file(name: str) -> None:
    data, words = BAD[name]
    reader = Sparse({0: data})
    info = probe(reader)
    assert info.format == {"bochs": "bochs", "luks1": "luks", "luks2": "luks", "cow3": "cow"}.get(
        name.partition("-")[0], name.partition("-")[0]
    )
    assert info.error is not None
    assert words in info.error
    assert info.error.isprintable()
    assert info.capacity is None
    assert reader.reads <= MAX_READS
    assert reader.bytes <= MAX_BYTES


def vhdx(
    *, table: int = 192 << 10, count: int = 1, region: tuple[int, int] = (1 << 20, 1 << 20), items: int = 3,
    size: int = 1 << 30, block: int = 1 << 21, sector: int = 512, flags: int = 0, version: int = 1,
    extra: dict[int, bytes] | None = None,
) -> Sparse:  # fmt: skip
    """A VHDX put together from the few structures that matter."""
    guid = bytes.fromhex
    header = bytearray(4096)
    struct.pack_into("<4sIQ", header, 0, b"head", 0, 7)
    struct.pack_into("<HH", header, 64, 0, version)
    regions = struct.pack("<4sIII", b"regi", 0, count, 0)
    regions += guid("06a27c8b90479a4bb8fe575f050f886e") + struct.pack("<QII", *region, 1)
    metadata = struct.pack("<8sHH20x", b"metadata", 0, items)
    values = struct.pack("<II", block, flags), struct.pack("<Q", size), struct.pack("<I", sector)
    names = "3767a1ca36fa434db3b633f0aa44e76b", "2442a52f1bcd7648b2115dbed83bf4b8", "1dbf41816fa90947ba47f233a8faab5f"
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        metadata += guid(name) + struct.pack("<IIII", 65536 + number * 64, len(value), 0, 0)
    parts = {0: b"vhdxfile", 64 << 10: bytes(header), table: regions, 1 << 20: metadata}
    for number, value in enumerate(values):
        parts[(1 << 20) + 65536 + number * 64] = value
    return Sparse({**parts, **(extra or {})}, 4 << 20)


def test_a_vhdx_put_together_by_hand() -> None:
    info = probe(vhdx())
    assert (info.format, info.capacity, info.cluster_size, info.subtype, info.error) == (
        "vhdx", 1 << 30, 1 << 21, "dynamic", None,
    )  # fmt: skip
    assert probe(vhdx(table=256 << 10)).capacity == 1 << 30, "the second region table serves as well"
    assert "512" in probe(vhdx(sector=4096)).notes[0]


def test_vhdx_with_a_dirty_log() -> None:
    header = struct.pack("<4sIQ", b"head", 0, 9).ljust(48, b"\0") + b"g" * 16 + struct.pack("<HH", 0, 1)
    info = probe(vhdx(extra={128 << 10: header}))
    assert (info.features, info.capacity, info.error) == (("dirty",), 1 << 30, None)


@pytest.mark.parametrize("place", [192 << 10, 1 << 20])
def test_vhdx_that_needs_what_nobody_knows(place: int) -> None:
    if place == 192 << 10:
        extra = {place + 16: b"?" * 16 + struct.pack("<QII", 0, 0, 1)}
    else:
        extra = {place + 32: b"?" * 16 + struct.pack("<IIII", 0, 0, 4, 0)}
    info = probe(vhdx(extra=extra))
    assert (info.unsupported, info.capacity) == (True, None)
    assert "required" in str(info.error)


def test_vhdx_with_a_parent() -> None:
    key, value = "relative_path".encode("utf-16-le"), "..\\base.vhdx".encode("utf-16-le")
    locator = bytes(18) + struct.pack("<H", 1) + struct.pack("<IIHH", 64, 128, len(key), len(value))
    locator = locator.ljust(64, b"\0") + key
    locator = locator.ljust(128, b"\0") + value
    base = 1 << 20
    entry = bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c") + struct.pack("<IIII", 70000, len(locator), 0, 0)
    reader = vhdx(flags=2, items=4, extra={base + 32 + 96: entry, base + 70000: locator})
    info = probe(reader)
    assert info.backing is not None
    assert (info.backing.name, info.backing.format, info.subtype) == ("..\\base.vhdx", "vhdx", "differencing")
    nameless = probe(vhdx(flags=2)).backing
    assert nameless is not None
    assert (nameless.kind, nameless.raw) == ("uuid", b"")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": U32}, "region table of"),
        ({"count": 0}, "names no metadata"),
        ({"table": 300 << 10}, "neither region table"),
        ({"region": (U64, U32)}, "truncated"),
        ({"region": (1 << 20, 100)}, "ends outside"),
        ({"region": (2 << 20, 1 << 20)}, "no metadata table"),
        ({"items": 65535}, "metadata table of"),
        ({"items": 0}, "missing"),
        ({"items": 1}, "missing"),
        ({"block": 0}, "blocks of 0"),
        ({"block": 3 << 20}, "blocks of"),
        ({"block": 1 << 31}, "blocks of"),
        ({"sector": 0}, "sectors of 0"),
        ({"size": U64}, "virtual size"),
        ({"size": 65 << 40}, "64 TiB"),
        ({"version": 2}, "version 2"),
        ({"extra": {1 << 20: bytes(8)}}, "no metadata table"),
        ({"extra": {64 << 10: bytes(8)}}, "neither header"),
    ],
)
def test_hostile_vhdx(options: dict[str, object], words: str) -> None:
    reader = vhdx(**options)  # type: ignore[arg-type]
    info = probe(reader)
    assert info.error is not None
    assert words in info.error
    assert info.capacity is None
    assert reader.reads <= MAX_READS
    assert reader.bytes <= MAX_BYTES


MEMORY = {
    "luks2-lists": samples.luks2(b"[" + b"[]," * 10_000 + b"[]]", header=4 << 20),
    "luks2-objects": samples.luks2(b"[" + b"{}," * 10_000 + b"{}]", header=4 << 20),
    "vmdk-extents": samples.descriptor(*['RW 77777 FLAT "' + "x" * 9 + '" 1234567'] * 1500),
    "vmdk-lines": samples.descriptor(*["RW"] * 20_000),
    "vmdk-blanks": b"# Disk DescriptorFile\nversion=1\n" + b" " * 65_000,
    "vmdk-quotes": b"# Disk DescriptorFile\nversion=1\nRW 1 FLAT" + b' "' * 30_000,
    "vmdk-hints": b"# Disk DescriptorFile\nversion=1\n" + b'parentFileNameHint="' * 3200,
    "vmdk-spaces-first": b" " * 4096,
    "qcow2-extensions": samples.qcow2(cluster_bits=21, extensions=((1, bytes(30_000)),) * 60),
    **{name: data for name, (data, _) in BAD.items() if "max" in name or "bomb" in name},
}


@pytest.mark.parametrize("name", MEMORY)
def test_no_header_takes_memory(name: str) -> None:
    reader = Sparse({0: MEMORY[name]})
    probe(reader)  # imports and caches do not count
    tracemalloc.start()
    try:
        probe(reader)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB
    assert reader.reads <= 2 * MAX_READS
    assert reader.bytes <= 2 * MAX_BYTES


def test_a_format_on_record_is_never_guessed() -> None:
    """A guest that writes a header into its raw disk changes a remark, not the format."""
    data = samples.qcow2(backing=b"/etc/shadow", extensions=((0xE2792ACA, b"raw"),))
    info = as_format(Sparse({0: data}, 8 * MIB), "raw")
    assert (info.format, info.capacity, info.backing, info.data_file, info.ambiguous) == (
        "raw",
        8 * MIB,
        None,
        None,
        False,
    )
    assert info.also == ("qcow2",)
    assert info.notes == ("the format on record is raw; the content looks like qcow2",)


def test_a_format_on_record_is_read_where_its_mark_is() -> None:
    """The guest of a fixed VHD owns the first sector, not the footer."""
    guest = samples.qcow2(backing=b"/etc/shadow")
    fixed = as_format(Sparse({0: guest, 8 * MIB: samples.vhd_footer(kind=2, size=8 * MIB)}, 8 * MIB + 512), "vpc")
    assert (fixed.format, fixed.capacity, fixed.subtype, fixed.backing, fixed.error) == (
        "vpc",
        8 * MIB,
        "fixed",
        None,
        None,
    )
    assert fixed.also == ("qcow2",)
    disc = as_format(samples.iso(guest), "iso")
    assert (disc.format, disc.capacity, disc.backing, disc.ambiguous, disc.error) == ("iso", 204800, None, False, None)
    trailer = as_format(Sparse({0: guest, 4096: samples.koly()}), "dmg")
    assert (trailer.format, trailer.capacity, trailer.tail, trailer.error) == ("dmg", 51200, True, None)
    inner = as_format(Sparse({0: samples.parallels() + samples.vdi()[64:]}), "vdi")
    assert (inner.format, inner.capacity, inner.also, inner.error) == ("vdi", MIB, ("ploop",), None)
    wrong = as_format(Sparse({0: guest}, MIB), "vdi")
    assert (wrong.capacity, wrong.error) == (None, "the format on record is vdi; the content looks like qcow2")


TWO_FILES = """
import os, sys
from poolkit.formats import FORMATS, FdReader, as_format, content, describe, probe
import poolkit.formats.qcow2tables, poolkit.formats.description
import poolkit.formats.signatures, json, encodings.utf_16_be, encodings.utf_16_le, re
for name in FORMATS:
    __import__('poolkit.formats.' + {'ploop': 'parallels'}.get(name, name))
seen = []
for path in sys.argv[1:]:  # what is compiled when it is first made is there then
    with open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        reader = FdReader(file.fileno(), size)
        probe(reader); content(reader); as_format(reader, "vmdk")
    describe(path)
sys.addaudithook(lambda event, args: seen.append((event, args)) if event.split('.')[0] in WATCHED else None)
WATCHED = {'open', 'os', 'subprocess', 'socket', 'shutil', 'ctypes', 'import', 'exec', 'glob'}
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    seen.clear()
    probe(FdReader(fd, size)); content(FdReader(fd, size)); as_format(FdReader(fd, size), 'vmdk')
    assert not seen, (path, seen)
    describe(path)
    assert [(e, a[0]) for e, a in seen] == [('open', path)], (path, seen)
    os.close(fd)
"""


def test_nothing_but_the_file_is_opened(tmp_path: Path) -> None:
    """Headers that name host files, servers and a FIFO; the interpreter itself reports every file, socket and process."""
    fifo = tmp_path / "the-fifo"
    subprocess.run(["mkfifo", str(fifo)], check=True)
    bait = [
        *(
            samples.qcow2(backing=name)
            for name in (b"/etc/passwd", b"the-fifo", str(fifo).encode(), b"nbd://127.0.0.1:1/x")
        ),
        samples.qcow2(backing=b'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}'),
        samples.qcow2(incompatible=4, extensions=((0x44415441, b"/etc/passwd"),)),
        samples.qcow(backing=b"/etc/passwd"),
        samples.qed(features=1, backing=b"/etc/passwd"),
        samples.cow2(backing=b"/etc/passwd"),
        samples.cow3(backing=b"/etc/passwd"),
        samples.vhd(kind=4, parent="/etc/passwd"),
        samples.vmdk(capacity=0, text=samples.descriptor('RW 1 FLAT "/etc/passwd" 0')),
        samples.vmdk(text=samples.descriptor('parentFileNameHint="/etc/passwd"', 'RW 1 FLAT "/etc/shadow" 0')),
        *(data for data, _ in BAD.values()),
    ]
    bait += [
        samples.descriptor(f'RW 8 FLAT "{name}" 0') for name in ("/etc/passwd", "../x", str(fifo), "nbd:127.0.0.1:1")
    ]
    paths = []
    for number, data in enumerate(bait):
        path = tmp_path / f"{number}.img"
        path.write_bytes(data)
        paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", TWO_FILES, *paths], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
