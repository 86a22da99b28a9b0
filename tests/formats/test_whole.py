"""What an image's tables name must be in the file: real images are accepted, and what is left of one that was cut is not.

A cut that takes nothing away but zeros may pass; then what QEMU reads is what the sound image holds.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from poolkit import formats
from poolkit.formats import FdReader, ImageInfo, as_format, check, qemu_driver, tables
from tests.formats import samples
from tests.formats.samples import Sparse
from tests.formats.test_hostile import vhdx

MIB = 1 << 20
SIZE = 5 * MIB + 3 * 512  # no multiple of any cluster

IMAGES = [
    ("qcow2", ""), ("qcow2", "cluster_size=512"), ("qcow2", "cluster_size=2M"), ("qcow2", "extended_l2=on"),
    ("qcow2", "compat=0.10"), ("qcow2", "preallocation=metadata"), ("qcow2", "preallocation=falloc"),
    ("qcow2", "refcount_bits=1"), ("qcow2", "-c"), ("qcow2", "-c compression_type=zstd"),
    ("qcow2", "bitmap"), ("qcow2", "snapshot"),
    ("qed", ""), ("qcow", ""), ("qcow", "-c"), ("vmdk", ""), ("vmdk", "subformat=streamOptimized"),
    ("vpc", ""), ("vpc", "force_size=on"), ("vpc", "subformat=fixed"), ("vdi", ""), ("vdi", "static=on"),
    ("vhdx", ""), ("vhdx", "block_size=1M"), ("vhdx", "subformat=fixed"), ("ploop", ""), ("ploop", "cluster_size=65536"),
]  # fmt: skip


def tool(*argv: object) -> None:
    subprocess.run([str(word) for word in argv], check=True, capture_output=True)


def problem(path: Path, format: str, *, deep: bool = True) -> str | None:
    with open(path, "rb") as file:
        reader = FdReader(file.fileno(), os.fstat(file.fileno()).st_size)
        return check(reader, as_format(reader, format), deep=deep)


def of(path: Path, format: str, out: Path) -> bytes | None:
    """What QEMU reads of an image; None where it fails."""
    argv = ["qemu-img", "convert", "-f", str(qemu_driver(format)), "-O", "raw", str(path), str(out)]
    return out.read_bytes() if subprocess.run(argv, capture_output=True).returncode == 0 else None


@pytest.mark.tools("qemu-img", "qemu-io")
@pytest.mark.parametrize(("format", "how"), IMAGES, ids=[" ".join(words).strip() for words in IMAGES])
def test_a_real_image_is_whole_and_a_cut_one_loses_nothing_unseen(tmp_path: Path, format: str, how: str) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    raw, image, cut, out = (tmp_path / name for name in ("raw", "image", "cut", "out"))
    data = bytearray(SIZE)
    for _ in range(10):
        place, length = chance.randrange(0, 5 * MIB - 100_000, 512), chance.choice((512, 4096, 70_000))
        data[place : place + length] = chance.randbytes(length)
    raw.write_bytes(data)
    options: list[str] = []
    for word in how.split():
        options += ["-c"] if word == "-c" else ["-o", word] if "=" in word else []
    driver = str(qemu_driver(format))
    argv = ["qemu-img", "convert", "-f", "raw", "-O", driver, *options, str(raw), str(image)]
    done = subprocess.run(argv, capture_output=True)
    assert not done.returncode or (format, how) == ("qcow", "-c")  # QEMU 7.2 fails there when all is written
    if how == "bitmap":
        tool("qemu-img", "bitmap", "--add", image, "marks")
    if how == "snapshot":
        tool("qemu-img", "snapshot", "-c", "before", image)
    if how in ("bitmap", "snapshot"):
        tool("qemu-io", "-f", "qcow2", "-c", "write -P 5 1M 300k", image)
    assert problem(image, format, deep=False) is None
    assert problem(image, format) is None
    sound, whole = of(image, format, out), image.read_bytes()
    assert sound is not None
    assert sound[:MIB] == data[:MIB]
    ends = {
        len(whole) // 2,
        *(len(whole) - n for n in (1, 2, 100, 300, 511, 512)),
        1000,
        *(chance.randrange(len(whole)) for _ in range(12)),
    }
    refused = 0
    for end in sorted(ends):
        cut.write_bytes(whole[:end])
        if problem(cut, format) is None:
            assert problem(cut, format, deep=False) is None, "a glance sees no more than a look"
            left = of(cut, format, out)
            assert left == sound, f"cut at {end} of {len(whole)}, seed {seed}"
        else:
            refused += 1
    assert refused, "nothing of an image cut at 1000 bytes is left"


@pytest.mark.tools("qemu-img")
@pytest.mark.parametrize(("format", "how"), [
    ("qed", ""), ("vmdk", ""), ("vmdk", "subformat=streamOptimized"), ("qcow2", ""), ("vdi", ""), ("vpc", ""), ("ploop", ""),
])  # fmt: skip
def test_a_glance_shows_a_copy_that_is_not_over(tmp_path: Path, format: str, how: str) -> None:
    raw, image, cut = (tmp_path / name for name in ("raw", "image", "cut"))
    with raw.open("wb") as file:
        file.truncate(3 << 30)  # more than one table of the second level
        for place in (0, 5 * MIB, 1 << 30, (2 << 30) + 70_000 * 512):
            file.seek(place)
            file.write(random.randbytes(200_000))
    options = ["-o", how] if how else []
    tool("qemu-img", "convert", "-f", "raw", "-O", qemu_driver(format), *options, raw, image)
    whole = image.read_bytes()
    assert problem(image, format, deep=False) is None
    for tenths in range(1, 10):
        cut.write_bytes(whole[: len(whole) * tenths // 10])
        assert "truncated" in str(problem(cut, format, deep=False)), f"cut at {tenths}0 percent"


@pytest.mark.tools("qemu-img")
@pytest.mark.parametrize(("format", "most"), [("vmdk", 6), ("qed", 4)])
def test_a_glance_costs_a_few_small_reads(tmp_path: Path, format: str, most: int) -> None:
    raw, image = tmp_path / "raw", tmp_path / "image"
    with raw.open("wb") as file:
        file.truncate(4 << 40)
        file.seek(MIB)
        file.write(b"x" * MIB)
        file.seek(-MIB, 2)
        file.write(b"x" * MIB)
    tool("qemu-img", "convert", "-f", "raw", "-O", qemu_driver(format), raw, image)
    reads: list[int] = []

    class Counting(FdReader):
        def pread(self, length: int, offset: int) -> bytes:
            reads.append(length)
            return super().pread(length, offset)

    with open(image, "rb") as file:
        reader = Counting(file.fileno(), os.fstat(file.fileno()).st_size)
        info = as_format(reader, format)
        reads.clear()
        assert check(reader, info, deep=False) is None
    assert len(reads) <= most and sum(reads) <= tables.GLANCE + tables.NEWEST + 8192, reads


@pytest.mark.tools("qemu-img", "qemu-io")
def test_an_image_that_ends_inside_its_last_cluster_is_whole(tmp_path: Path) -> None:
    """QEMU writes such ones with extended second level tables: only the parts of a cluster that are used are there."""
    path = tmp_path / "a"
    tool("qemu-img", "create", "-f", "qcow2", "-o", "extended_l2=on", path, "10M")
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 7 5M 4k", path)
    assert path.stat().st_size % 65536
    assert problem(path, "qcow2") is None
    os.truncate(path, path.stat().st_size - 512)
    assert "truncated: a cluster ends" in str(problem(path, "qcow2"))


@pytest.mark.tools("qemu-img")
def test_the_data_of_an_image_may_be_in_another_file(tmp_path: Path) -> None:
    raw, path = tmp_path / "raw", tmp_path / "a"
    raw.write_bytes(random.randbytes(MIB))
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", f"data_file={tmp_path}/data", raw, path)
    assert problem(path, "qcow2") is None
    os.truncate(path, path.stat().st_size // 2)
    assert "truncated" in str(problem(path, "qcow2"))


@pytest.mark.tools("bximage")
@pytest.mark.parametrize("kind", ["growing", "sparse"])
def test_bochs_images(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    tool("bximage", "-func=create", "-hd=10M", f"-imgmode={kind}", "-q", path)
    assert problem(path, "bochs") is None
    image = bytearray(path.read_bytes())
    table = 512 if kind == "growing" else 256
    image[table : table + 4] = struct.pack("<I", 1)  # the first extent, or page, is the second of the file
    path.write_bytes(image.ljust(8 * MIB, b"\0"))
    assert problem(path, "bochs") is None
    path.write_bytes(image[:-1])
    assert "truncated" in str(problem(path, "bochs"))


@pytest.mark.tools("create_compressed_fs")
def test_cloop_images(tmp_path: Path) -> None:
    source, path = tmp_path / "source", tmp_path / "a"
    source.write_bytes(random.randbytes(MIB))
    tool("create_compressed_fs", "-q", source, path)
    assert problem(path, "cloop") is None
    for left in (path.stat().st_size - 1, path.stat().st_size // 2, 200):
        os.truncate(path, left)
        assert "truncated" in str(problem(path, "cloop"))


@pytest.mark.tools("uml_mkcow")
def test_uml_images(tmp_path: Path) -> None:
    base, path = tmp_path / "base", tmp_path / "a"
    base.write_bytes(bytes(MIB))
    tool("uml_mkcow", path, base)
    assert problem(path, "cow") is None
    image = bytearray(path.read_bytes())
    assert "truncated" in str(problem_of(bytes(image[:4200]), "cow"))
    image[8192] |= 1 << 3  # the fourth sector was written: the map begins at the second page
    start = 8192 + 4096
    assert problem_of(bytes(image.ljust(start + 4 * 512, b"\0")[: start + 4 * 512]), "cow") is None
    assert "truncated: a sector" in str(
        problem_of(bytes(image.ljust(start + 4 * 512, b"\0")[: start + 4 * 512 - 1]), "cow")
    )


def problem_of(data: bytes, format: str, *, deep: bool = True) -> str | None:
    reader = Sparse({0: data})
    return check(reader, as_format(reader, format), deep=deep)


def cowd() -> bytes:
    """A COWD extent by hand, as no tool here makes them: directory at sector 4, a table of 4096 grains at 5, one grain."""
    head = struct.pack("<4sIIIIII", b"COWD", 1, 3, 4096, 1, 4, 1)
    table = struct.pack("<I", 37) + bytes(4 * 4095)
    return head.ljust(4 * 512, b"\0") + struct.pack("<I", 5).ljust(512, b"\0") + table + b"data".ljust(512, b"\0")


def test_cowd_extents() -> None:
    assert problem_of(cowd(), "vmdk") is None
    assert "truncated: a grain ends" in str(problem_of(cowd()[:-1], "vmdk"))
    assert "truncated: a grain table ends" in str(problem_of(cowd()[:5000], "vmdk", deep=False))


def test_regions_of_a_sesparse_extent() -> None:
    head = struct.pack("<QQQQ", 0xCAFEBABE, 0x200000001, 4096, 8).ljust(128, b"\0") + struct.pack("<QQQQ", 2, 1, 3, 1)
    assert problem_of(head.ljust(4 * 512, b"\0"), "vmdk") is None
    assert "the grain tables" in str(problem_of(head.ljust(4 * 512 - 1, b"\0"), "vmdk"))


def test_a_dynamic_vhd_without_its_footer_is_told_and_used() -> None:
    """Its data is there, and there is a copy of the footer at the start; on devices and in backups such ones are filled up."""
    image = samples.vhd()[:1536] + struct.pack(">I", 0xFFFFFFFF).ljust(512, b"\xff")
    reader = Sparse({0: image}, 1 << 16)
    info = as_format(reader, "vpc")
    assert check(reader, info) is None
    assert "footer" in info.notes[-1]


def test_a_vhdx_whose_allocation_table_is_beyond_the_end() -> None:
    entry = bytes.fromhex("6677c22d23f600429d64115e9bfd4a08") + struct.pack("<QII", 3 << 20, 2 << 20, 1)
    reader = vhdx(count=2, extra={(192 << 10) + 48: entry})
    assert "truncated: the allocation table ends" in str(check(reader, as_format(reader, "vhdx"), deep=False))


# -- bounds -----------------------------------------------------------------------------------------------------------


def huge(l1_size: int, size: int = 1 << 60) -> Sparse:
    """A qcow2 image of which every entry of the first level names a table of its own, in a file without end."""
    head = bytearray(samples.qcow2(size=1 << 50).ljust(512, b"\0"))
    struct.pack_into(">IQ", head, 36, l1_size, 1 << 20)
    entries = struct.pack(f">{l1_size}Q", *(1 << 63 | (n + 100) << 16 for n in range(l1_size)))
    return Sparse({0: bytes(head), 1 << 20: entries}, size)


def test_more_tables_than_may_be_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LIMIT", 4 * MIB)
    reader = huge(1000)
    info = as_format(reader, "qcow2")
    reader.bytes = 0
    assert check(reader, info) is None
    assert reader.bytes <= 4 * MIB + 4096
    assert "was not checked" in info.notes[-1]
    small = huge(10)
    info = as_format(small, "qcow2")
    assert check(small, info) is None and not info.notes


def test_a_glance_reads_little_whatever_the_header_says() -> None:
    reader = huge(4096)
    info = as_format(reader, "qcow2")
    reader.reads = reader.bytes = 0
    assert check(reader, info, deep=False) is None and not info.notes
    assert (reader.reads, reader.bytes) == (3, 100 + 4096 + 4096 * 8)
    reader = huge(512)
    info = as_format(reader, "qcow2")
    reader.reads = reader.bytes = 0
    assert check(reader, info, deep=False) is None
    assert (reader.reads, reader.bytes) == (2, 100 + 512 * 8), (
        "what nearly all images cost, and two small reads where there are reference counts"
    )
    reader = huge(100_000)
    info = as_format(reader, "qcow2")
    reader.bytes = 0
    assert check(reader, info, deep=False) is None
    assert reader.bytes <= tables.GLANCE + 4096


def test_the_short_way_of_a_glance_gives_the_long_ones_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = huge(3, size=103 << 16)
    cases = []
    for size in (103 << 16, (103 << 16) - 1, (1 << 20) + 24, (1 << 20) + 23, 100, 80):
        for at, value in ((36, 3), (36, 0), (48, 1 << 40), (60, 2), (56, 1)):
            parts = {place: bytearray(data) for place, data in whole.parts.items()}
            struct.pack_into(">I", parts[0], at, value & 0xFFFFFFFF)
            reader = Sparse({place: bytes(data)[: max(0, size - place)] for place, data in parts.items()}, size)
            cases.append((reader, as_format(reader, "qcow2")))
    short = [check(reader, info, deep=False) for reader, info in cases]
    assert None in short and len(set(short)) > 3
    monkeypatch.setattr(formats.qcow2, "plain", lambda *_: False)
    assert [check(reader, info, deep=False) for reader, info in cases] == short


@pytest.mark.parametrize(
    ("at", "value"),
    [(36, 1 << 31), (56, 1 << 30), (60, 1 << 20)],
    ids=["first level", "reference counts", "snapshots"],
)
def test_no_number_of_a_header_is_a_length_of_a_loop(at: int, value: int) -> None:
    head = bytearray(samples.qcow2().ljust(4096, b"\0"))
    struct.pack_into(">I", head, at, value)
    reader = Sparse({0: bytes(head)}, 1 << 62)
    assert "larger than any program makes" in str(check(reader, as_format(reader, "qcow2")))
    assert reader.reads < 10


def test_a_header_that_is_broken_is_not_followed() -> None:
    reader = Sparse({0: samples.qcow2(cluster_bits=5)})
    info = as_format(reader, "qcow2")
    reader.reads = 0
    assert check(reader, info) == info.error
    assert reader.reads == 0


def test_a_disk_that_fails_is_an_answer() -> None:
    class Failing(Sparse):
        def pread(self, length: int, offset: int) -> bytes:
            if offset:
                raise OSError(5, "Input/output error")
            return super().pread(length, offset)

    reader = Failing(huge(10).parts, 1 << 40)
    assert check(reader, ImageInfo("qcow2", 1 << 30, cluster_size=65536)) == "cannot be read: Input/output error"


def test_every_format_with_tables_has_a_walk() -> None:
    for name in formats._TABLES:
        module = import_module("poolkit.formats." + formats._WALKS.get(name, name))
        assert callable(module.tables)
