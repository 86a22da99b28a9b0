"""Copies and wipes on the file systems that differ: xfs and btrfs share blocks, ext4 does not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from tests.backends.loops import loop_devices

from .conftest import MIB, content, make, new_pool, xml

pytestmark = [pytest.mark.root, pytest.mark.tools("losetup", "mount")]
KINDS = {
    "xfs": ("mkfs.xfs", ["-q", "-m", "reflink=1"], 400), "btrfs": ("mkfs.btrfs", ["-q"], 256),
    "ext4": ("mkfs.ext4", ["-q", "-F"], 200),
}  # fmt: skip


@pytest.fixture(params=[pytest.param(k, marks=pytest.mark.tools(v[0])) for k, v in KINDS.items()])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def disk(kind: str, tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own."""
    program, options, size = KINDS[kind]
    point = tmp_path / "mounted"
    point.mkdir()
    with loop_devices(tmp_path) as new:
        device = new(size)
        subprocess.run([program, *options, device], check=True, capture_output=True)
        done = subprocess.run(["mount", device, point], check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"the kernel cannot mount {kind}: {done.stderr.strip()}")
        try:
            yield point
        finally:
            subprocess.run(["umount", point], check=True)


@pytest.fixture
def on_disk(engine: Engine, disk: Path) -> Iterator[Pool]:
    pool = new_pool(engine, disk / "images", "ondisk")
    yield pool
    pool.destroy()


def free(disk: Path) -> int:
    os.sync()
    facts = os.statvfs(disk)
    return facts.f_bavail * facts.f_frsize


def test_blocks_are_shared_where_they_can_be_and_holes_stay(on_disk: Pool, disk: Path, kind: str) -> None:
    source = make(on_disk, "disk", size=64 * MIB)
    for number in range(8):
        source.upload(BytesIO(os.urandom(2 * MIB)), offset=number * 8 * MIB + MIB)
    before = free(disk)
    clones = [source.clone(f"clone{n}") for n in range(3)]
    used = before - free(disk)
    if kind == "ext4":
        assert 40 * MIB < used < 60 * MIB, "three copies of 16 MiB, without their holes"
        with pytest.raises(errors.Unsupported, match="cannot share blocks"):
            source.clone("shared", reflink=True)
    else:
        assert used < 8 * MIB, "the copies share their blocks"
        assert source.clone("shared", reflink=True).info.capacity == 64 * MIB
        before = free(disk)
        real = source.clone("real", reflink=False)
        assert before - free(disk) > 12 * MIB, "reflink=False really copies"
        assert content(real) == content(source)
    for clone in clones:
        assert content(clone) == content(source)
    clones[0].wipe("random")
    assert content(clones[1]) == content(source), "wiping one copy leaves the others alone"


def test_a_clone_to_another_file_system(on_disk: Pool, other: Pool) -> None:
    source = make(on_disk, "disk", size=32 * MIB)
    source.upload(BytesIO(b"data" * 1000), offset=10 * MIB)
    clone = source.clone("clone", pool=other)
    assert content(clone) == content(source)
    assert clone.look().info.allocation < MIB
    with pytest.raises(errors.Unsupported, match="cannot share blocks"):
        source.clone("shared", pool=other, reflink=True)


def test_a_disk_that_fills_up_is_as_before(on_disk: Pool, disk: Path) -> None:
    room = free(disk)
    with pytest.raises(errors.NoSpace):
        on_disk.create_volume(xml("full", room * 2))
    source = make(on_disk, "disk", size=room * 2)
    names = sorted(p.name for p in (disk / "images").iterdir())
    with pytest.raises(errors.NoSpace):
        source.clone("whole", preallocation="falloc")
    with (
        open("/dev/zero", "rb", buffering=0) as zeros,
        pytest.raises(errors.NoSpace),
    ):
        source.upload(zeros)  # type: ignore[arg-type]
    assert sorted(p.name for p in (disk / "images").iterdir()) == names
    source.wipe("trim")
    assert free(disk) > room - 16 * MIB
    assert sorted(v.name for v in on_disk.volumes()) == names


@pytest.mark.tools("qemu-img", "prlimit")
def test_a_conversion_that_fills_the_disk_leaves_nothing(on_disk: Pool, other: Pool, disk: Path) -> None:
    room = free(disk)
    source = make(other, "disk", size=room + 64 * MIB)
    with open("/dev/urandom", "rb", buffering=0) as noise:
        source.upload(noise, length=room + 32 * MIB)  # type: ignore[arg-type]
    with pytest.raises(errors.NoSpace):
        source.clone(xml("clone", None, "qcow2"), pool=on_disk)
    assert list((disk / "images").iterdir()) == []


def test_every_wipe_of_the_storage_leaves_zeros_or_nothing(on_disk: Pool) -> None:
    for full, name in ((True, "full"), (False, "sparse")):
        volume = on_disk.create_volume(xml(name, 4 * MIB)) if full else make(on_disk, name, size=4 * MIB)
        volume.upload(BytesIO(b"secret" * 100_000))
        volume.wipe("zero")
        assert content(volume) == bytes(4 * MIB)


@pytest.mark.tools("lsattr")
def test_copy_on_write_is_turned_off_on_btrfs(on_disk: Pool, kind: str) -> None:
    volume = on_disk.create_volume(xml("disk", target="<nocow/>"))
    told = subprocess.run(["lsattr", volume.path], capture_output=True, text=True, check=True).stdout
    assert ("C" in told.split()[0]) is (kind == "btrfs")
