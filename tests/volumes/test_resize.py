"""Capacities that change: what each format can do, and what stays as it is."""

from __future__ import annotations

import errno
import os
from io import BytesIO

import pytest

from poolkit import errors
from poolkit.engine.pool import Pool
from poolkit.host import libc

from .conftest import MIB, RecordingHost, content, make

tools = pytest.mark.tools("qemu-img", "prlimit")


def test_raw_volumes_change_without_any_program(pool: Pool, host: RecordingHost) -> None:
    volume = make(pool, "disk")
    volume.upload(BytesIO(b"data"))
    volume.resize(3 * MIB)
    assert volume.info.capacity == 3 * MIB and volume.info.allocation < MIB
    volume.resize(4 * MIB, allocate=True)
    assert volume.look().info.allocation >= MIB
    volume.resize(MIB, delta=True)
    assert volume.info.capacity == 5 * MIB
    volume.resize(2 * MIB, delta=True, shrink=True)
    assert volume.info.capacity == 3 * MIB
    assert not volume.resize(3 * MIB)
    assert content(volume)[:4] == b"data"
    assert host.calls == []


@tools
@pytest.mark.parametrize(("format", "shrinks"), [("qcow2", True), ("qed", False)])
def test_images_that_can_change_do(pool: Pool, format: str, shrinks: bool) -> None:
    volume = make(pool, "disk", format, 4 * MIB)
    volume.resize(8 * MIB)
    assert volume.info.capacity == pool.volume("disk").info.capacity == 8 * MIB
    if shrinks:
        volume.resize(4 * MIB, shrink=True)
        assert volume.info.capacity == 4 * MIB
    else:
        with pytest.raises(errors.Unsupported, match="smaller"):
            volume.resize(4 * MIB, shrink=True)


@tools
@pytest.mark.parametrize("format", ["qcow", "vmdk", "vdi", "vpc", "vhdx", "ploop"])
def test_images_that_cannot_change_say_what_to_do(pool: Pool, format: str) -> None:
    volume = make(pool, "disk", format, 4 * MIB)
    with pytest.raises(errors.Unsupported, match=f"format {format} cannot be resized") as caught:
        volume.resize(8 * MIB)
    assert "clone" in (caught.value.hint or "")
    assert volume.look().info.capacity == 4 * MIB


@tools
def test_growth_of_an_image_can_be_reserved(pool: Pool) -> None:
    volume = make(pool, "disk", "qcow2", MIB)
    volume.resize(9 * MIB, allocate=True)
    assert volume.look().info.allocation >= 8 * MIB
    room = os.statvfs(os.path.dirname(volume.path))
    with pytest.raises(errors.NoSpace):
        volume.resize((room.f_bavail + room.f_blocks) * room.f_frsize, allocate=True)
    assert volume.look().info.capacity == 9 * MIB


def test_growth_that_does_not_fit_leaves_the_file_as_it_was(pool: Pool) -> None:
    volume = make(pool, "disk")
    room = os.statvfs(os.path.dirname(volume.path))
    with pytest.raises(errors.NoSpace):
        volume.resize((room.f_bavail + room.f_blocks) * room.f_frsize, allocate=True)
    now = volume.look().info
    assert (now.capacity, now.allocation) == (MIB, 0)


@pytest.mark.parametrize("size", [-1, 1 << 63, 1 << 70])
def test_impossible_sizes_are_refused(pool: Pool, size: int) -> None:
    with pytest.raises(errors.PoolkitError):
        make(pool, "disk").resize(size, shrink=True)


def test_the_holes_of_a_volume_can_be_reserved(pool: Pool) -> None:
    volume = make(pool, "disk", size=8 * MIB)
    volume.upload(BytesIO(b"data"), offset=MIB)
    assert volume.look().info.allocation < MIB
    outcome = volume.resize(8 * MIB, allocate=True)
    assert outcome and "reserved" in outcome.message
    assert volume.look().info.allocation >= 8 * MIB
    assert content(volume)[MIB : MIB + 5] == b"data\0"
    assert not volume.resize(8 * MIB, allocate=True), "there is nothing left to do"


def test_holes_that_cannot_be_reserved_are_not_called_so(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fallocate(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    volume = make(pool, "disk", size=8 * MIB)
    volume.upload(BytesIO(b"data"), offset=MIB)
    monkeypatch.setattr(libc, "fallocate", fallocate)
    with pytest.raises(errors.Unsupported, match="cannot fill the holes"):
        volume.resize(8 * MIB, allocate=True)
    assert content(volume)[MIB : MIB + 5] == b"data\0"


@tools
def test_an_image_reserves_what_is_added_only(pool: Pool) -> None:
    volume = make(pool, "disk", "qcow2", 8 * MIB)
    with pytest.raises(errors.Unsupported, match="when it grows"):
        volume.resize(8 * MIB, allocate=True)
