"""Pools of type fs in the lab: file systems that few kernels of build machines have, on real disks with udev's names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.host import Host
from poolkit.testing import BackendContract

from ..lab.fixtures import sh
from ..sweep import Sampled

pytestmark = pytest.mark.lab(disks=1)

EXAMPLES = Path(__file__).parents[2] / "examples" / "xml"


def definition(device: str, target: Path, kind: str) -> str:
    return (
        f"<pool type='fs'><name>disk</name><source><device path='{device}'/><format type='{kind}'/></source>"
        f"<target><path>{target}</path></target></pool>"
    )


@pytest.mark.parametrize("kind", ["vfat", "udf"])
class TestContract(BackendContract):
    @pytest.fixture
    def pool_xml(self, lab_disks: list[str], tmp_path: Path, kind: str) -> str:
        return definition(lab_disks[0], tmp_path / "mnt", kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_build_start_and_a_volume(engine: Engine, lab_disks: list[str], tmp_path: Path, kind: str) -> None:
    pool = engine.define(definition(lab_disks[0], tmp_path / "mnt", kind))
    assert pool.build()
    assert not pool.build()
    assert pool.start()
    pool.create_volume("<volume><name>v</name><capacity>1048576</capacity></volume>")
    (line,) = [x for x in Path("/proc/self/mountinfo").read_text().splitlines() if f" {tmp_path}/mnt " in x]
    assert f" - {kind} " in line
    assert {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))
    assert 900 << 20 < pool.info.capacity <= 1 << 30
    assert pool.destroy()
    with pytest.raises(errors.Unsafe, match=f"holds {kind}; making a file system would destroy that"):
        other = definition(os.path.realpath(lab_disks[0]), tmp_path / "other", kind).replace(">disk<", ">thief<")
        engine.create(other, build=True)
    assert pool.start()
    assert "v" in [volume.name for volume in pool.volumes()]
    pool.destroy()


def test_iso9660_is_read_only(engine: Engine, lab_disks: list[str], tmp_path: Path) -> None:
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "boot.img").write_bytes(b"boot" * 4096)
    sh("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", str(tmp_path / "image"), str(tmp_path / "content"))
    pool = engine.define(definition(lab_disks[0], tmp_path / "mnt", "iso9660"))
    with pytest.raises(errors.Unsupported, match="holds nothing that is known, and iso9660 cannot be made"):
        pool.build()
    sh("dd", f"if={tmp_path}/image", f"of={lab_disks[0]}", "bs=1M", "conv=fsync")
    assert pool.build()
    assert not pool.build()
    pool.start()
    (volume,) = pool.volumes()
    assert (volume.name, volume.info.capacity) == ("boot.img", 16384)
    with pytest.raises(errors.PermissionDenied, match="Read-only file system"):
        pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
    pool.destroy()
    auto = engine.define(definition(lab_disks[0], tmp_path / "mnt", "auto"))
    assert auto.start()
    auto.destroy()


def test_the_examples_run_as_they_are(engine: Engine, lab_disks: list[str]) -> None:
    sh("modprobe", "-a", "dm_mod")
    sh("pvcreate", "-y", lab_disks[0])
    sh("vgcreate", "-y", "VolGroup00", lab_disks[0])
    sh("lvcreate", "-y", "-n", "VirtImages", "-L", "64m", "VolGroup00")
    sh("lvcreate", "-y", "-n", "scratch", "-L", "64m", "VolGroup00")
    sh("mkfs.ext4", "-q", "/dev/VolGroup00/VirtImages")
    sh("udevadm", "settle")
    label = Path("/dev/disk/by-label/scratch")
    label.parent.mkdir(exist_ok=True)
    label.symlink_to("/dev/VolGroup00/scratch")
    try:
        for name in ("pool-fs.xml", "pool-fs-options.xml"):
            pool = engine.define((EXAMPLES / name).read_text())
            assert pool.build()
            assert pool.start()
            assert pool.info.active
            pool.create_volume("<volume><name>v</name><capacity>1048576</capacity></volume>")
            assert pool.destroy()
            assert pool.delete()
    finally:
        label.unlink(missing_ok=True)
        sh("vgremove", "-y", "-f", "VolGroup00", check=False)


def test_failing_at_every_step(lab_disks: list[str], tmp_path: Path, sampled: Sampled[int]) -> None:
    """The real thing fails half-way: the machine is as before, and the next attempt succeeds."""
    root, target = tmp_path / "root", tmp_path / "mnt"
    with Engine(root) as engine:
        engine.define(definition(lab_disks[0], target, "vfat"))
    for step in sampled(range(1, 100)):
        count = 0

        def fault(label: str) -> None:
            nonlocal count
            if label.startswith("passed:"):
                return  # nothing can fail there
            count += 1
            if count == step:  # noqa: B023
                raise OSError(5, "injected", label)

        with Engine(root, host=Host(fault=fault)) as engine:
            try:
                engine.pool("disk").start(build=True)
            except errors.HostError:
                if engine.pool("disk").info.active:
                    break  # all was done, and only the record of the work remained to be cleared
                assert not target.exists(), f"step {step}"
                assert sh("wipefs", lab_disks[0]) == "", f"step {step}"
                continue
            break
    assert count > 7
    with Engine(root) as engine:
        assert engine.pool("disk").info.active
        engine.pool("disk").destroy()
