"""The quick way through qcow2 images: it says what the full one says, or nothing."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poolkit import formats
from poolkit.formats import FdReader, ImageInfo, usual

from .test_listed import FIELDS, overlay

CLUSTER = 65536


def image(clusters: int = 1, size: int = 1 << 30) -> bytearray:
    """An overlay as QEMU writes it, with its tables, and so many clusters of data below one second level table."""
    data = overlay(size=size).ljust(CLUSTER, b"\0")
    used = 4 + (1 + clusters if clusters else 0)
    counts = struct.pack(">H", 1) * used
    first = struct.pack(">QQ", 4 * CLUSTER | 1 << 63 if clusters else 0, 0)
    second = b"".join(struct.pack(">Q", (5 + n) * CLUSTER | 1 << 63) for n in range(clusters))
    for part in (
        struct.pack(">Q", 2 * CLUSTER),
        counts,
        first,
        *((second, bytes(clusters * CLUSTER)) if clusters else ()),
    ):
        data += part.ljust(-(-len(part) // CLUSTER) * CLUSTER, b"\0")
    return data


def look(data: bytes) -> tuple[ImageInfo | tuple[usual.Usual, int] | None, ImageInfo, str | None]:
    """The quick answer, the full one, and what a listing would say is missing."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        fd, size = file.fileno(), len(data)
        full = formats.probe_fd(fd, size)
        return usual.glance(fd, size), full, formats.check(FdReader(fd, size), full, deep=False)


def compare(data: bytes) -> bool:
    """Whether the quick way has an answer, which is the full one then."""
    quick, full, missing = look(data)
    if not isinstance(quick, tuple):
        return False
    kind, capacity = quick
    assert missing is None
    assert capacity == full.capacity
    fields = [field for field in FIELDS if field != "capacity"]
    assert [getattr(kind.image, field) for field in fields] == [getattr(full, field) for field in fields]
    assert kind.image.backing == full.backing
    return True


@pytest.mark.parametrize("clusters", [0, 1, 20])
def test_a_sound_image_needs_no_other_way(clusters: int) -> None:
    assert compare(bytes(image(clusters)))


def test_sizes_and_places_make_no_other_kind() -> None:
    kinds = set()
    for clusters, size in ((0, 1 << 30), (3, 1 << 29), (7, 1 << 20)):
        quick = look(bytes(image(clusters, size)))[0]
        assert isinstance(quick, tuple)
        assert quick[1] == size
        kinds.add(quick[0])
    assert len(kinds) == 1


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 599), st.integers(0, 255), max_size=3), st.integers(0, 3))
@example({24: 0xFF}, 1)  # a capacity beyond what a file can have
@example({31: 1}, 1)  # and one that is no multiple of 512
@example({35: 1}, 1)  # encrypted
@example({63: 1}, 1)  # a snapshot
@example({64: 0x7F, 65: 0x10, 66: 0xDA, 67: 0xBE}, 1)  # the mark of VDI
def test_a_damaged_header_is_told_as_in_full(damage: dict[int, int], clusters: int) -> None:
    data = image(clusters)
    for place, value in damage.items():
        data[place] = value
    compare(bytes(data))


@settings(deadline=None)
@given(
    st.sampled_from([CLUSTER, 2 * CLUSTER, 3 * CLUSTER, 4 * CLUSTER]), st.integers(0, 63), st.integers(0, 255),
    st.integers(0, 3), st.integers(-70_000, 70_000),
)  # fmt: skip
@example(3 * CLUSTER, 0, 0xFF, 1, 0)  # flags that QEMU does not know
@example(2 * CLUSTER, 13, 1, 1, 0)  # the cluster behind the end counts as used
def test_damaged_tables_are_told_as_in_full(table: int, place: int, value: int, clusters: int, more: int) -> None:
    data = image(clusters)
    if table + place < len(data):
        data[table + place] = value
    compare(bytes(data[:more] if more < 0 else data + bytes(more)))


@pytest.mark.parametrize("clusters", [1, 20])
def test_an_image_that_was_cut_short_is_never_told_as_whole(clusters: int) -> None:
    data = bytes(image(clusters))
    for left in range(512, len(data) - 511, 4096 if clusters == 1 else CLUSTER // 2):
        quick, _, missing = look(data[:left])
        assert missing is not None or left > len(data) - CLUSTER, "a part of the last cluster is not missed by a glance"
        assert missing is None or not isinstance(quick, tuple)


def test_a_disc_stays_one_that_passes_for_both() -> None:
    data = image()
    data[32769:32774] = b"CD001"
    quick, full, _ = look(bytes(data))
    assert isinstance(quick, ImageInfo)
    assert quick == full
    assert quick.ambiguous


def test_what_is_said_of_one_image_is_not_said_of_another() -> None:
    """Two kinds in turns: what is remembered of the last one is asked for by all that counts."""
    other = image()
    other[72 + 7] = 1  # dirty
    named = bytearray(bytes(image()).replace(b"base.qcow2", b"root.qcow2"))
    for _ in range(2):
        for data in (image(), other, named):
            assert compare(bytes(data))


@pytest.mark.tools("qemu-img", "qemu-io")
@pytest.mark.parametrize("options", [(), ("-o", "cluster_size=4k"), ("-o", "refcount_bits=64")])
def test_images_of_qemu_are_usual(options: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, "64M"], check=True)
    for at in (0, 33):
        assert compare(path.read_bytes()), "the way of all images takes three times as long"
        write = ["qemu-io", "-f", "qcow2", "-c", f"write {at}M 1M", path]
        subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    assert compare(path.read_bytes())


def test_reads_are_few_and_small_whatever_a_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = os.pread

    def pread(fd: int, length: int, offset: int) -> bytes:
        sizes.append(length)
        return real(fd, length, offset)

    monkeypatch.setattr(usual, "pread", pread)
    assert compare(bytes(image()))
    assert len(sizes) == 5
    for place in (36, 37, 40, 48, 56, 57):
        sizes.clear()
        data = image()
        data[place] = 0xFF
        look(bytes(data))
        assert len(sizes) <= 5
        assert max(sizes) <= 4096
