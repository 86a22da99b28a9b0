"""A listing on its way to the inventory: what stays a name, what comes packed, and what a look at it gives."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poolkit import formats
from poolkit.backend import Usage, VolumeInfo
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import entries, newfiles
from poolkit.formats import ImageInfo, usual
from poolkit.listing import Known, Listing
from poolkit.state import packing
from poolkit.state.inventory import Inventory
from tests.engine.conftest import COUNT
from tests.formats.test_usual import image

USAGE = Usage(10, 5, 5)
pytestmark = pytest.mark.usefixtures("nothing_stays_open")


@pytest.mark.usefixtures("old_enough")
def test_an_unchanged_listing_makes_no_volume(images: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images.refresh()
    made: list[str] = []
    real = packing._volume

    def noted(n: int, name: str, *rest: Any) -> VolumeInfo:
        made.append(name)
        return real(n, name, *rest)

    monkeypatch.setattr(packing, "_volume", noted)
    assert not images.refresh().changed
    (Path(images.info.target or "") / "new").write_bytes(b"x" * 4096)
    assert images.refresh().changed
    assert made == []
    assert len(images.volumes()) == COUNT + 1
    with Engine(tmp_path / "root") as other:  # a new process reads the stamps
        made.clear()
        assert not other.pool("p").refresh().changed
        assert made == []


@pytest.mark.usefixtures("old_enough")
def test_a_changed_file_has_the_format_on_record_whatever_its_new_content(
    images: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.refresh()
    with (Path(images.info.target or "") / "disk300").open("r+b") as file:
        file.write(b"QFI\xfb\0\0\0\3" + bytes(512))
    assert images.refresh().changed
    info = images.volume("disk300").info
    assert (info.format, (info.detail or {}).get("looks_like")) == ("raw", "qcow2")
    assert images.volume("disk299").info.detail is None
    assert images.refresh().warnings, "what is told of an unchanged volume is told again"


def test_a_new_file_that_cannot_be_read_is_listed_with_the_reason(
    images: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(images.info.target or "")
    (place / "bad").write_bytes(b"x" * 8192)
    bad = os.stat(place / "bad").st_ino
    real = os.pread

    def pread(fd: int, count: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == bad:
            raise OSError(5, os.strerror(5))
        return real(fd, count, offset)

    for module in (formats, usual):
        monkeypatch.setattr(module, "pread", pread)
    images.refresh()
    assert "Input/output error" in images.volume("bad").info.problem
    assert len(images.volumes()) == COUNT + 1


def _take(folder: Path, found: Listing, now: int) -> None:
    """Add the file ``f`` of a folder as a scan does."""

    def other(fd: int, name: str, facts: os.stat_result, image: object) -> None:
        assert isinstance(image, ImageInfo)
        found.add(entries.volume(name, facts, now, image.format, image.capacity or 0, None))

    fd = os.open(folder, os.O_RDONLY)
    try:
        newfiles.taker(fd, now, found, other, lambda _: ("raw", None), trust_blocks=True)("f")
    finally:
        os.close(fd)


def test_packed_and_whole_volumes_are_stored_alike(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 5000)
    facts = file.stat()
    found = Listing(Known.of({}))
    _take(tmp_path, found, facts.st_ctime_ns)
    whole = entries.volume("f", facts, facts.st_ctime_ns, "raw", facts.st_size, None)
    assert list(found) == [whole]
    assert packing.encode(dict(found.plain)) == packing.encode({"f": whole})
    assert packing.entries(packing.encode(dict(found.plain))) == found.plain


def test_a_stamp_is_kept_only_where_a_later_change_would_show() -> None:
    second = 1_000_000_000
    now = 100 * second
    young = {
        now + 1: True,  # a clock that was set back
        now - 49_999_999: True,
        now - 50_000_000: False,
        now - second: True,  # a file system of whole seconds, by the looks of it
        now - second + 1: False,
        now - 2 * second: False,
    }
    assert {ctime: newfiles.is_young(ctime, now) for ctime in young} == young


@pytest.mark.parametrize(
    ("size", "blocks", "trusted", "read"),
    [(1 << 20, 0, True, False), (1 << 20, 8, True, True), (1 << 20, 0, False, True), (4096, 0, True, True)],
)
def test_nothing_is_read_of_a_file_that_has_no_blocks(
    size: int, blocks: int, trusted: bool, read: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a small one, which may be in its inode, and where a server tells late of blocks."""
    file = tmp_path / "f"
    file.write_bytes(b"x" * 512 * blocks)
    os.truncate(file, size)
    if bool(file.stat().st_blocks) is not bool(blocks):
        pytest.skip("this file system has other blocks")
    looked: list[int] = []
    real = usual.glance
    monkeypatch.setattr(usual, "glance", lambda fd, size, **how: (looked.append(size), real(fd, size, **how))[1])
    found = Listing(Known.of({}))
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        none = lambda *_: None  # noqa: E731
        hollow = newfiles.taker(fd, time.time_ns(), found, none, none, trust_blocks=trusted)("f")
    finally:
        os.close(fd)
    assert looked == [size] * read and hollow is (not read)
    assert [(v.format, v.capacity) for v in found] == [("raw", size)]


@pytest.mark.parametrize("age", [0, 49_000_000, 51_000_000, 3_000_000_000])
def test_the_stamp_of_a_new_file_is_kept_when_it_is_old_enough(age: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 5000)
    os.utime(tmp_path / "f")
    changed = os.stat(tmp_path / "f").st_ctime_ns
    found = Listing(Known.of({}))
    _take(tmp_path, found, changed + age)
    whole = changed % 1_000_000_000 == 0  # once in many runs, or where the file system has no more
    assert bool(found.stamps["f"]) is (age >= (2_000_000_000 if whole else 50_000_000))


@pytest.mark.parametrize(("content", "format"), [(b"x" * 8192, "raw"), (bytes(image()), "qcow2")])
def test_an_inode_number_of_64_bits_is_kept(
    content: bytes, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = (1 << 64) - 5
    (tmp_path / "f").write_bytes(content)
    facts = os.stat_result((0o100600, number, 1, 1, 0, 0, len(content), 1, 1, 1))
    found = Listing(Known.of({}))

    class Facts:
        st_blocks, st_atime_ns, st_mtime_ns, st_ctime_ns = 16, 1, 1, 1

        def __iter__(self) -> Iterator[int]:
            return iter(facts)

        def __getattr__(self, name: str) -> object:
            return getattr(facts, name)

    monkeypatch.setattr(newfiles.os, "fstat", lambda fd: Facts())
    _take(tmp_path, found, 1 << 62)
    assert [(v.inode, v.format) for v in found] == [(number, format)]
    assert [v.inode for v in packing.decode(packing.encode(found.others))] == [number]


def test_what_one_scan_saw_unchanged_and_another_missed_stays(tmp_path: Path) -> None:
    inventory = Inventory(str(tmp_path / "i.sqlite"))
    inventory.make()
    inventory.put("p", "uuid", "dir", stamp=1, claims=(), target="/p")
    record = inventory.record("p")
    assert record is not None
    inventory.save_listing(
        record.id, [VolumeInfo("a", "file", "qcow2", stamp=1, inode=1, detail={"compat": "1.1"})], 0, USAGE
    )
    version, known = inventory.known(inventory.record("p"))
    found = Listing(known)
    found.same.append("a")
    inventory.save_listing(record.id, [], version, USAGE)
    assert inventory.volumes(record.id) == []
    inventory.save_listing(record.id, found, version, USAGE)
    assert [v.detail for v in inventory.volumes(record.id)] == [{"compat": "1.1"}]
    inventory.close()
