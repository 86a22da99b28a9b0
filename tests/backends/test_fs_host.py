"""Pools of type fs on loop devices of this machine: the contract, what build refuses, busy mounts, death at every step."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.host import Host
from poolkit.testing import BackendContract

from .loops import loop_devices, mounts_below, sh

pytestmark = [
    pytest.mark.root,
    pytest.mark.tools("losetup", "mkfs.ext4", "mkfs.vfat", "mkfs.xfs", "mkfs.btrfs", "blkid", "wipefs"),
]

SIZES = {"ext4": 64, "xfs": 320, "btrfs": 128}  # MiB; xfs and btrfs make none below 300 and 109


def kernel_has(kind: str) -> bool:
    return kind in Path("/proc/filesystems").read_text().split()


def definition(device: str, target: Path, kind: str = "ext4", extra: str = "") -> str:
    return (
        "<pool type='fs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'><name>disk</name>"
        f"<source><device path='{device}'/><format type='{kind}'/></source>"
        f"<target><path>{target}</path></target>{extra}</pool>"
    )


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., str]]:
    with loop_devices(tmp_path) as make:
        yield make


@pytest.mark.parametrize("kind", SIZES)
class TestContract(BackendContract):
    @pytest.fixture
    def pool_xml(self, loop: Callable[[int], str], tmp_path: Path, kind: str) -> str:
        if not kernel_has(kind):
            pytest.skip(f"needs {kind} in this kernel")
        self.device, self.place = loop(SIZES[kind]), tmp_path / "mnt"
        return definition(self.device, self.place, kind)

    def traces(self) -> object:
        signature = "" if (mounts := mounts_below(self.place.parent)) else sh("wipefs", self.device)
        return mounts, self.place.exists(), signature


def test_a_mounted_pool_is_mounted_safely(engine: Engine, loop: Callable[..., str], tmp_path: Path) -> None:
    options = "<fs:mount_opts><fs:option name='noatime'/><fs:option name='commit=30'/></fs:mount_opts>"
    pool = engine.define(definition(loop(), tmp_path / "mnt", extra=options))
    pool.start(build=True)
    (line,) = [x for x in Path("/proc/self/mountinfo").read_text().splitlines() if f" {tmp_path}/mnt " in x]
    assert {"nosuid", "nodev", "noexec", "noatime"} <= set(line.split()[5].split(","))
    pool.destroy()
    assert mounts_below(tmp_path) == []


def test_build_refuses_what_it_did_not_make(engine: Engine, loop: Callable[..., str], tmp_path: Path) -> None:
    device = loop()
    sh("mkfs.ext4", "-q", device)
    pool = engine.define(definition(device, tmp_path / "mnt"))
    with pytest.raises(errors.Unsafe) as caught:
        pool.build()
    assert str(caught.value) == f"pool 'disk': '{device}' holds ext4; making a file system would destroy that"
    assert pool.build(overwrite=True)
    assert not pool.build()
    pool.start()
    pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
    with pytest.raises(errors.InvalidState):
        pool.build(overwrite=True)
    pool.destroy()
    assert not pool.build()
    pool.start()
    assert "v" in [v.name for v in pool.volumes()]
    pool.destroy()


def test_build_leaves_nothing_of_what_was_there(engine: Engine, loop: Callable[..., str], tmp_path: Path) -> None:
    device = loop()
    sh("mkfs.vfat", device)
    pool = engine.define(definition(device, tmp_path / "mnt"))
    with pytest.raises(errors.Unsafe, match="holds vfat"):
        pool.build()
    pool.build(overwrite=True)
    assert sh("blkid", "-p", "-o", "value", "-s", "TYPE", device).strip() == "ext4"


def test_build_refuses_a_device_in_use(engine: Engine, loop: Callable[..., str], tmp_path: Path) -> None:
    device = loop()
    sh("mkfs.ext4", "-q", device)
    (tmp_path / "other").mkdir()
    sh("mount", device, str(tmp_path / "other"))
    pool = engine.define(definition(device, tmp_path / "mnt"))
    with pytest.raises(errors.Busy) as caught:
        pool.build(overwrite=True)
    assert str(caught.value) == f"'{device}' is in use: mounted at '{tmp_path}/other'"


def test_a_busy_mount_names_who_holds_it(engine: Engine, loop: Callable[..., str], tmp_path: Path) -> None:
    pool = engine.define(definition(loop(), tmp_path / "mnt"))
    pool.start(build=True)
    hold = "import sys, time; sys.stdout.write('ready'); sys.stdout.flush(); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold], cwd=tmp_path / "mnt", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(5)
        try:
            with pytest.raises(errors.Busy) as caught:
                pool.destroy()
        finally:
            process.kill()
    assert str(caught.value).startswith(f"pool 'disk': '{tmp_path}/mnt' is in use by ")
    assert f"(process {process.pid})" in str(caught.value)
    pool.create_volume("<volume><name>v</name><capacity>1048576</capacity></volume>")
    with open(tmp_path / "mnt" / "v", "rb"):
        with pytest.raises(errors.Busy, match=rf"\(process {os.getpid()}\)"):
            pool.destroy()
    assert pool.info.active
    assert pool.destroy()


def test_a_mount_that_vanishes_makes_the_pool_inactive(
    engine: Engine, loop: Callable[..., str], tmp_path: Path
) -> None:
    device = loop()
    pool = engine.define(definition(device, tmp_path / "mnt"))
    pool.start(build=True)
    sh("umount", str(tmp_path / "mnt"))
    assert not pool.info.active
    assert pool.info.reason == f"nothing is mounted at '{tmp_path}/mnt'"
    assert pool.start()
    sh("umount", str(tmp_path / "mnt"))
    sh("mount", "-t", "tmpfs", "other", str(tmp_path / "mnt"))
    try:
        assert pool.info.reason == f"'other' (tmpfs) is mounted at '{tmp_path}/mnt', not '{device}'"
        with pytest.raises(errors.Conflict) as caught:
            pool.start()
        assert str(caught.value) == (
            f"pool 'disk': 'other' (tmpfs) is mounted at '{tmp_path}/mnt' already, not '{device}'"
        )
        pool.destroy()
        assert mounts_below(tmp_path) == [f"{tmp_path}/mnt"], "what another one has mounted is left alone"
        with pytest.raises(errors.Unsafe, match="is mounted there"):
            pool.delete()
    finally:
        sh("umount", str(tmp_path / "mnt"))
    assert pool.delete()


def test_an_empty_device_says_what_to_do(engine: Engine, loop: Callable[..., str], tmp_path: Path) -> None:
    device = loop()
    pool = engine.define(definition(device, tmp_path / "mnt"))
    with pytest.raises(errors.ToolFailed, match=f"'{device}' could not be mounted") as caught:
        pool.start()
    assert caught.value.hint == "nothing known is on the device; make the file system: engine.pool('disk').build()"
    assert not (tmp_path / "mnt").exists(), "the directory that start had made is gone again"
    sh("mkfs.vfat", device)
    with pytest.raises(errors.ToolFailed) as caught:
        pool.start()
    assert caught.value.hint == "the device holds vfat, and the definition says ext4"


@pytest.mark.tools("btrfs")
def test_a_btrfs_that_lacks_a_device_says_so(engine: Engine, loop: Callable[..., str], tmp_path: Path) -> None:
    if not kernel_has("btrfs"):
        pytest.skip("this kernel has no btrfs")
    first, second = loop(SIZES["btrfs"]), loop(SIZES["btrfs"])
    sh("mkfs.btrfs", "--quiet", "--data", "raid1", "--metadata", "raid1", first, second)
    target = tmp_path / "mnt"
    pool = engine.define(definition(first, target, "btrfs"))
    pool.start()
    pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
    pool.destroy()
    sh("dd", "if=/dev/zero", f"of={second}", "bs=64K", "seek=1", "count=1", "conv=fsync")
    sh("btrfs", "device", "scan", "--forget", second)
    with pytest.raises(errors.ToolFailed, match="has 2 devices, and the kernel does not know all of them") as caught:
        pool.start()
    assert "<fs:option name='degraded'/>" in str(caught.value.hint)
    extra = "<fs:mount_opts><fs:option name='degraded'/></fs:mount_opts>"
    pool = engine.define(definition(first, target, "btrfs", extra))
    assert any("1 of the 2 devices of its file system are missing" in str(line) for line in pool.start().warnings)
    assert [volume.name for volume in pool.volumes()] == ["v"]
    pool.destroy()


def test_auto_mounts_the_only_file_system(engine: Engine, loop: Callable[..., str], tmp_path: Path) -> None:
    device = loop()
    pool = engine.define(definition(device, tmp_path / "mnt", "auto"))
    with pytest.raises(errors.Unsafe, match="cannot be told: holds nothing that is known"):
        pool.start()
    with pytest.raises(errors.Unsupported, match="holds nothing that is known, and auto names no file system"):
        pool.build()
    sh("mkfs.ext4", "-q", device)
    assert pool.build()
    assert not pool.build()
    assert pool.start()
    assert pool.info.active
    pool.destroy()


def test_auto_mounts_a_directory(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old").write_bytes(b"x" * 4096)
    pool = engine.define(definition(str(tmp_path / "data"), tmp_path / "mnt", "auto"))
    pool.start(build=True)
    assert [v.name for v in pool.volumes()] == ["old"]
    (line,) = [x for x in Path("/proc/self/mountinfo").read_text().splitlines() if f" {tmp_path}/mnt " in x]
    assert {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))
    pool.destroy()
    assert mounts_below(tmp_path) == []


def test_any_name_of_a_mount_point_is_one_line(engine: Engine, loop: Callable[..., str], tmp_path: Path) -> None:
    odd = tmp_path / "a\rb\u2028c\x85d\x0be\x1cf"
    odd.mkdir()
    sh("mount", "-t", "tmpfs", "other", str(odd))
    try:
        assert Host().mount_at(str(odd)) is not None
        pool = engine.define(definition(loop(), tmp_path / "mnt"))
        pool.start(build=True)
        pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
        with open(tmp_path / "mnt" / "v", "rb"), pytest.raises(errors.Busy, match=rf"\(process {os.getpid()}\)"):
            pool.destroy()
        assert pool.destroy()
    finally:
        sh("umount", str(odd))
