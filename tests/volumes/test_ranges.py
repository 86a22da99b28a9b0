"""Ranges of bytes on descriptors: what is read, zeroed, reserved and refused, to the last byte of each."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.backend import Transfer
from poolkit.content import copying, space
from poolkit.host import Host, libc
from tests.backends.loops import loop_devices

KIB, MIB = 1 << 10, 1 << 20
DATA = bytes(range(1, 256)) * 20000  # no zero in it


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    yield fd
    os.close(fd)


@pytest.fixture
def without_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no fallocate(2)."""

    def refuse(*args: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(libc, "fallocate", refuse)


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """So many bytes are free for an ordinary user, and twice that for root."""
    real = tuple(os.statvfs("/"))
    facts = os.statvfs_result((512, 512, 8 * count // 512, 2 * count // 512, count // 512, *real[5:]))
    monkeypatch.setattr(os, "fstatvfs", lambda fd: facts)


def allocated(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def whole(fd: int) -> bytes:
    return os.pread(fd, 1 << 30, 0)


# -- what is there ----------------------------------------------------------------------------------------------------


def test_only_files_and_block_devices_have_a_size(tmp_path: Path, fd: int) -> None:
    os.pwrite(fd, DATA, 5)
    assert copying.size_of(fd) == len(DATA) + 5
    for path in (tmp_path, "/dev/null"):
        other = os.open(path, os.O_RDONLY)
        try:
            with pytest.raises(errors.Unsafe, match="neither a regular file nor a block device"):
                copying.size_of(other)
            assert copying.stamp_of(other) == ()
        finally:
            os.close(other)


@pytest.mark.root
@pytest.mark.tools("losetup")
def test_a_block_device_has_a_size_and_no_free_space(tmp_path: Path) -> None:
    with loop_devices(tmp_path) as new:
        fd = os.open(new(3), os.O_RDWR)
        try:
            assert copying.size_of(fd) == 3 * MIB
            assert copying.stamp_of(fd) == ()
            assert copying.free_space(fd) is None
            copying.require_space(fd, 1 << 60)
        finally:
            os.close(fd)


def test_runs_of_data_end_where_they_are_asked_to(fd: int) -> None:
    os.ftruncate(fd, 8 * MIB)
    for place in (MIB, 5 * MIB):
        os.pwrite(fd, DATA[:MIB], place)
    assert list(copying.runs(fd, 8 * MIB)) == [(MIB, 2 * MIB), (5 * MIB, 6 * MIB)]
    assert list(copying.runs(fd, 5 * MIB + 7)) == [(MIB, 2 * MIB), (5 * MIB, 5 * MIB + 7)]
    assert list(copying.runs(fd, 5 * MIB)) == [(MIB, 2 * MIB)]
    assert list(copying.runs(fd, MIB)) == list(copying.runs(fd, 0)) == []


def test_where_holes_cannot_be_told_all_is_data(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    os.ftruncate(fd, MIB)
    monkeypatch.setattr(os, "lseek", refuse)
    assert list(copying.runs(fd, MIB)) == [(0, MIB)]


# -- zeroing ----------------------------------------------------------------------------------------------------------


RANGES = [(0, 1), (1, 4095), (4095, 4098), (0, MIB), (MIB - 1, 2 * MIB + 3), (7, len(DATA) - 7), (5, 0), (5, -5)]


@pytest.mark.parametrize(("offset", "length"), RANGES)
@pytest.mark.parametrize("helped", [True, False])
def test_a_range_and_nothing_else_becomes_zero(
    fd: int, request: pytest.FixtureRequest, offset: int, length: int, helped: bool
) -> None:
    if not helped:
        request.getfixturevalue("without_help")
    os.pwrite(fd, DATA, 0)
    copying.zero(fd, offset, length)
    count = max(length, 0)
    assert whole(fd) == DATA[:offset] + bytes(count) + DATA[offset + count :]


@pytest.mark.root
@pytest.mark.tools("losetup")
def test_a_range_of_a_device_and_nothing_else_becomes_zero(tmp_path: Path) -> None:
    size = 4 * MIB
    data = (DATA * 2)[:size]
    with loop_devices(tmp_path) as new:
        fd = os.open(new(4), os.O_RDWR)
        try:
            for offset, length in RANGES:
                os.pwrite(fd, data, 0)
                count = max(min(length, size - offset) // 512 * 512, min(length, 300), 0)
                copying.zero(fd, offset, count)
                assert os.pread(fd, size, 0) == data[:offset] + bytes(count) + data[offset + count :]
        finally:
            os.close(fd)


@pytest.mark.parametrize("length", [0, MIB // 2, MIB + 5, 3 * MIB, 4 * MIB])
def test_a_copy_onto_other_data_ends_at_its_length(tmp_path: Path, fd: int, length: int) -> None:
    os.ftruncate(fd, 5 * MIB)
    for place in (MIB, 3 * MIB):
        os.pwrite(fd, DATA[: MIB // 2], place)
    (tmp_path / "target").write_bytes(b"\xff" * (10 * MIB))
    with (tmp_path / "target").open("r+b") as target:
        copying.duplicate(Host(), fd, target.fileno(), length, reflink=False, blank=False)
    expected = whole(fd)[:length] + b"\xff" * (10 * MIB - length)
    assert (tmp_path / "target").read_bytes() == expected


# -- space ------------------------------------------------------------------------------------------------------------


def test_space_is_what_an_ordinary_user_has(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, MIB)
    assert copying.free_space(fd) == MIB
    copying.require_space(fd, MIB)
    with pytest.raises(errors.NoSpace, match=f"{MIB + 1} bytes are needed and {MIB} are free"):
        copying.require_space(fd, MIB + 1)


def test_a_copy_needs_the_space_of_its_data(tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    os.ftruncate(fd, 4 * MIB)
    os.pwrite(fd, DATA[:MIB], MIB)
    with (tmp_path / "target").open("w+b") as target:
        free(monkeypatch, MIB // 2)
        with pytest.raises(errors.NoSpace):
            copying.duplicate(Host(), fd, target.fileno(), 4 * MIB, reflink=False)
        assert os.fstat(target.fileno()).st_size == 0
        free(monkeypatch, 2 * MIB)
        copying.duplicate(Host(), fd, target.fileno(), 4 * MIB, reflink=False)
        assert whole(target.fileno()) == whole(fd)[: 2 * MIB]


def test_no_more_is_reserved_than_there_is(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    os.ftruncate(fd, 3 * MIB)
    free(monkeypatch, MIB)
    with pytest.raises(errors.NoSpace, match=f"{MIB + 512} bytes were asked for and {MIB} are free"):
        space.reserve(Host(), fd, 0, MIB + 512)
    assert allocated(fd) == 0
    assert space.reserve(Host(), fd, 0, MIB)
    assert MIB <= allocated(fd) < 2 * MIB
    assert space.reserve(Host(), fd, 0, 2 * MIB), "what it has is counted"
    with pytest.raises(errors.NoSpace):
        space.reserve(Host(), fd, MIB, 2 * MIB)  # it may lie anywhere
    assert os.fstat(fd).st_size == 3 * MIB


@pytest.mark.parametrize("full", [None, "off", "falloc", "full"])
def test_reserving_all_of_a_file(fd: int, full: str | None) -> None:
    os.ftruncate(fd, 2 * MIB)
    assert space.reserve(Host(), fd, MIB, 0, full=full)
    assert (allocated(fd) >= 2 * MIB) is (full in ("falloc", "full"))
    assert whole(fd) == bytes(2 * MIB)


@pytest.mark.parametrize("beyond", [True, False])
def test_reserving_behind_the_end(fd: int, beyond: bool) -> None:
    os.pwrite(fd, DATA[:MIB], 0)
    assert space.reserve(Host(), fd, MIB, MIB, beyond=beyond)
    assert os.fstat(fd).st_size == (MIB if beyond else 2 * MIB)
    assert allocated(fd) >= 2 * MIB and whole(fd).rstrip(b"\0") == DATA[:MIB]


def test_data_is_never_overwritten_to_reserve_its_space(fd: int, without_help: None) -> None:
    os.ftruncate(fd, 3 * MIB)
    assert space.reserve(Host(), fd, 0, 2 * MIB + 7)
    assert 2 * MIB < allocated(fd) < 3 * MIB and os.fstat(fd).st_size == 3 * MIB
    os.pwrite(fd, DATA[:4096], 0)
    assert not space.reserve(Host(), fd, 0, 3 * MIB)
    assert not space.reserve(Host(), fd, 0, 3 * MIB, full="full")
    assert whole(fd).rstrip(b"\0") == DATA[:4096]


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "length", "fits"),
    [(0, 0, True), (0, 100, True), (100, 0, True), (99, 1, True), (0, 101, False), (101, 0, False), (99, 2, False)],
)
def test_a_range_lies_within_a_volume_or_not(offset: int, length: int, fits: bool) -> None:
    if fits:
        assert space.check_range("v", Transfer(offset, length), 100) == 100
        return
    with pytest.raises(errors.InvalidArgument, match="volume 'v' has 100 bytes"):
        space.check_range("v", Transfer(offset, length), 100)


class Once:
    """A stream of which nobody knows how long it is."""

    def __init__(self, data: bytes) -> None:
        self._data = BytesIO(data)
        self.read = self._data.read


@pytest.mark.parametrize("stream", [BytesIO, Once])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("offset", [0, 3])
def test_an_upload_fills_its_room_to_the_last_byte(fd: int, stream: Any, sparse: bool, offset: int) -> None:
    room = offset + len(DATA)
    assert copying.upload(Host(), fd, stream(DATA), Transfer(offset, 0, sparse), room) == len(DATA)
    assert whole(fd) == bytes(offset) + DATA
    with pytest.raises(errors.InvalidArgument, match=f"it ends at byte {room - 1}"):
        copying.upload(Host(), fd, stream(DATA), Transfer(offset, 0, sparse), room - 1)
    assert len(whole(fd)) == room


@pytest.mark.parametrize("zeros", [64 * KIB - 1, 64 * KIB, MIB, 3 * MIB + 5])
@pytest.mark.parametrize("last", [b"", b"x"])
def test_zeros_of_an_upload_become_a_hole_or_zeros(fd: int, zeros: int, last: bytes) -> None:
    os.pwrite(fd, DATA, 0)
    data = bytes(zeros) + last
    assert copying.upload(Host(), fd, BytesIO(data), Transfer(4096, 0, True), None) == len(data)
    assert whole(fd) == DATA[:4096] + data + DATA[4096 + len(data) :]
    copying.upload(Host(), fd, BytesIO(bytes(zeros)), Transfer(8 * MIB, 0, True), None)
    assert os.fstat(fd).st_size == 8 * MIB + zeros, "a file grows by zeros at its end, too"


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (MIB // 2, 0), (MIB, 2 * MIB), (MIB + 5, 10), (3 * MIB, 0), (0, MIB)]
)
def test_a_range_is_given_out_where_the_stream_is(tmp_path: Path, fd: int, offset: int, length: int) -> None:
    os.ftruncate(fd, 5 * MIB)
    os.pwrite(fd, DATA[:MIB], MIB)
    expected = whole(fd)[offset : offset + length if length else None]
    for sparse in (True, False):
        (tmp_path / "out").write_bytes(b"\xff" * (6 * MIB))
        with (tmp_path / "out").open("r+b") as out:
            out.seek(777)
            assert copying.download(Host(), fd, out, Transfer(offset, length, sparse), 5 * MIB) == len(expected)
            assert out.tell() == 777 + len(expected) or not sparse
        found = (tmp_path / "out").read_bytes()
        assert found == b"\xff" * 777 + expected + b"\xff" * (6 * MIB - 777 - len(expected))


@pytest.mark.parametrize("short", [True, False], ids=["by ioctl", "by fallocate"])
def test_space_is_reserved_without_the_c_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool) -> None:
    """Where the kernel takes Python's own call the other one is not made; both do the same, and neither writes zeros."""
    if short:
        monkeypatch.setattr(libc, "_libc", lambda: pytest.fail("the C library was loaded"))
    else:
        monkeypatch.setattr(libc, "_reserved", lambda *_: False)
    with open(tmp_path / "file", "w+b") as file:
        fd = file.fileno()
        file.write(b"x" * 100)
        file.flush()
        libc.fallocate(fd, libc.FALLOC_FL_KEEP_SIZE, 0, 1 << 20)
        assert os.fstat(fd).st_size == 100
        assert os.fstat(fd).st_blocks * 512 >= 1 << 20
        libc.fallocate(fd, 0, 1 << 20, 1 << 20)
        assert os.fstat(fd).st_size == 2 << 20
        assert os.fstat(fd).st_blocks * 512 >= 2 << 20
        libc.fallocate(fd, 0, 0, 1 << 20)
        assert os.fstat(fd).st_size == 2 << 20, "nothing is cut off"
        assert os.pread(fd, 200, 0) == b"x" * 100 + bytes(100)


def test_what_cannot_be_reserved_is_told(tmp_path: Path) -> None:
    """With the kernel's own error, which the caller goes by."""
    (tmp_path / "file").touch()
    with open(tmp_path / "file", "rb") as file, pytest.raises(OSError, match="Bad file descriptor"):
        libc.fallocate(file.fileno(), 0, 0, 4096)
    read, write = os.pipe()
    try:
        with pytest.raises(OSError, match="Illegal seek"):
            libc.fallocate(write, 0, 0, 4096)
    finally:
        os.close(read)
        os.close(write)
