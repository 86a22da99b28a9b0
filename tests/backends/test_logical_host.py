"""Volume groups on loop devices of this machine: all that needs no device-mapper, which is all but volumes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.backend import Source, Transfer, VolumeInfo
from poolkit.backends.dir import DirPool
from poolkit.content import copying
from poolkit.engine import Engine
from poolkit.families import blockdevice
from poolkit.families.blockdevice import BlockBackend
from poolkit.host import Host
from poolkit.model import PoolTarget
from tests.backends.loops import loop_devices, sh
from tests.sweep import Sampled

pytestmark = [pytest.mark.root, pytest.mark.tools("losetup", "vgcreate", "mkfs.ext4")]


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[list[str]]:
    with loop_devices(tmp_path) as make:
        yield [make(), make()]


@pytest.fixture
def vg(devices: list[str]) -> Iterator[str]:
    name = f"poolkit-{os.getpid()}"
    yield name
    subprocess.run(["vgremove", "--force", "--yes", name], capture_output=True, check=False)
    subprocess.run(["pvremove", "--yes", *devices], capture_output=True, check=False)


def xml(vg: str, *devices: str) -> str:
    paths = "".join(f"<device path='{path}'/>" for path in devices)
    return f"<pool type='logical'><name>guests</name><source>{paths}<name>{vg}</name></source></pool>"


def labels(*devices: str) -> dict[str, str]:
    rows = (line.split() for line in sh("pvs", "--noheadings", "-o", "pv_name,vg_name").splitlines())
    return {row[0]: [*row, ""][1] for row in rows if row[0] in devices}


def test_the_life_of_an_empty_group(engine: Engine, devices: list[str], vg: str) -> None:
    pool = engine.define(xml(vg, *devices))
    assert pool.build()
    assert labels(*devices) == dict.fromkeys(devices, vg)
    assert not pool.build()
    assert pool.start()
    assert pool.info.active
    assert pool.info.available == pool.info.capacity > 100 << 20
    assert pool.volumes() == []
    assert not pool.refresh()
    assert [d.path for d in pool.definition().source.devices] == devices
    assert [s.name for s in engine.discover("logical")].count(vg) == 1
    assert pool.destroy()
    assert pool.delete()
    assert not pool.delete()
    assert labels(*devices) == {}


def test_a_group_that_vanished_is_the_reason_for_a_pool_that_is_down(
    engine: Engine, devices: list[str], vg: str
) -> None:
    pool = engine.define(xml(vg, *devices))
    pool.build()
    pool.start()
    sh("vgremove", vg)
    assert pool.info.reason == f"there is no volume group '{vg}'"
    with pytest.raises(errors.HostError, match=f"there is no volume group '{vg}'"):
        pool.start()
    assert pool.delete()  # the labels that vgremove left
    assert labels(*devices) == {}


def test_a_file_system_is_named_and_only_overwrite_destroys_it(engine: Engine, devices: list[str], vg: str) -> None:
    sh("mkfs.ext4", "-q", devices[1])
    pool = engine.define(xml(vg, *devices))
    with pytest.raises(errors.Unsafe) as caught:
        pool.build()
    assert str(caught.value) == f"pool 'guests': '{devices[1]}' holds ext4, which building would destroy"
    assert labels(*devices) == {}
    with Engine(engine.locations.storage.rpartition("/")[0], dry_run=True) as dry:
        plan = dry.pool("guests").build(overwrite=True).plan
    assert [line.split()[0] for line in plan] == ["pvcreate", "wipefs", "pvcreate", "vgcreate"]
    assert labels(*devices) == {}
    assert pool.build(overwrite=True)


def test_overwrite_spares_the_group_of_another_host(engine: Engine, devices: list[str], vg: str) -> None:
    sh("vgcreate", f"{vg}-far", devices[0])
    sh("vgchange", "--yes", "--systemid", "elsewhere", f"{vg}-far")
    assert labels(*devices) == {}
    pool = engine.define(xml(vg, *devices))
    with pytest.raises(errors.Unsafe, match=f"'{devices[0]}' belongs to the volume group '{vg}-far'"):
        pool.build(overwrite=True)
    assert "LVM2_member" in sh("wipefs", devices[0])
    sh("wipefs", "--all", devices[0])
    sh("pvcreate", devices[0])
    assert pool.build(overwrite=True)


def test_death_while_building_leaves_nothing(
    tmp_path: Path, devices: list[str], vg: str, sampled: Sampled[int]
) -> None:
    from tests.backends.deaths import deaths

    root = tmp_path / "root"
    with Engine(root) as engine:
        engine.define(xml(vg, *devices))
    for engine in deaths(root, lambda engine: engine.pool("guests").build(), sampled):
        assert labels(*devices) == {}
        assert engine.core.operations.failed() == []
    assert labels(*devices) == dict.fromkeys(devices, vg)


def test_an_undo_leaves_what_others_made(tmp_path: Path, devices: list[str], vg: str) -> None:
    from tests.backends.deaths import killed_at

    root = tmp_path / "root"
    with Engine(root) as engine:
        engine.define(xml(vg, devices[0]))
    assert killed_at(
        root, 4, lambda engine: engine.pool("guests").build()
    )  # labelled; the undo of vgcreate is recorded
    assert labels(*devices) == {devices[0]: ""}
    sh("pvremove", "-y", devices[0])
    sh("vgcreate", "-y", vg, devices[0])  # somebody made a group of that name on that device
    with Engine(root) as engine:
        assert engine.recovered
        assert engine.core.operations.failed() == []
    assert labels(*devices) == {devices[0]: vg}


def test_a_machine_without_lvm_says_what_is_missing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolkit.host.programs.SEARCH_PATH", ("/nowhere",))
    with pytest.raises(errors.ToolMissing) as caught:
        engine.define(xml("vg", "/dev/loop0")).build()
    assert str(caught.value) == "the program 'vgs' is not installed"
    assert caught.value.hint == "on Debian: apt install lvm2"


class Devices(BlockBackend):
    """The bytes of a volume, without anything of LVM."""

    type = "devices"

    def look(self, name: str, known: VolumeInfo | None) -> VolumeInfo:
        assert known is not None
        return known


@pytest.fixture
def block(devices: list[str]) -> tuple[Devices, VolumeInfo]:
    pool = DirPool(name="p", target=PoolTarget(path="/nonexistent"))
    return Devices(pool, Host()), VolumeInfo("v", "block", capacity=64 << 20, path=devices[0])


def test_the_bytes_of_a_device(block: tuple[Devices, VolumeInfo]) -> None:
    backend, volume = block
    data = os.urandom(1 << 20)
    backend.upload(volume, BytesIO(data), Transfer(offset=4096))
    out = BytesIO()
    assert backend.download(volume, out, Transfer(4096, len(data))) == len(data)
    assert out.getvalue() == data
    backend.wipe(volume, "zero")
    with backend.open_volume(volume) as fd:
        assert copying.size_of(fd) == 64 << 20
        assert not any(os.pread(fd, 2 << 20, 0))
    for transfer in (Transfer(65 << 20), Transfer(0, 65 << 20), Transfer(63 << 20, 2 << 20)):
        with pytest.raises(errors.InvalidArgument, match="volume 'v' has 67108864 bytes; the range from"):
            backend.upload(volume, BytesIO(data), transfer)
    with pytest.raises(errors.InvalidArgument, match="it ends at byte 67108864"):
        backend.upload(volume, BytesIO(data), Transfer((64 << 20) - 4096))


@pytest.mark.tools("qemu-img")
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_nothing_of_what_was_there_shows_in_a_copy(
    block: tuple[Devices, VolumeInfo], tmp_path: Path, format: str
) -> None:
    backend, volume = block
    data = os.urandom(1 << 20)
    image = tmp_path / "image"
    image.write_bytes(data)
    os.truncate(image, 3 << 20)
    if format == "qcow2":
        sh("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(image), f"{image}.qcow2")
        image = Path(f"{image}.qcow2")

    @contextmanager
    def opener() -> Iterator[int]:
        with image.open("rb") as file:
            yield file.fileno()

    source = Source(backend.pool, VolumeInfo("image", format=format, capacity=3 << 20), str(image), opener)
    backend.upload(volume, BytesIO(b"\xff" * (64 << 20)), Transfer())
    with backend.open_volume(volume, write=True) as fd:
        backend.fill(fd, source)
        assert os.pread(fd, 1 << 20, 0) == data
        for position in range(1, 64):
            assert not any(os.pread(fd, 1 << 20, position << 20)), f"old data at {position} MiB"
    image.write_bytes(bytes(65 << 20))
    large = Source(backend.pool, VolumeInfo("large", format="raw", capacity=65 << 20), str(image), opener)
    with (
        backend.open_volume(volume, write=True) as fd,
        pytest.raises(errors.InvalidArgument, match="has 68157440 bytes"),
    ):
        backend.fill(fd, large)


def test_a_mounted_device_is_not_written(block: tuple[Devices, VolumeInfo], tmp_path: Path) -> None:
    backend, volume = block
    assert blockdevice.holds(backend.host, str(volume.path)) == ()
    sh("mkfs.ext4", "-q", str(volume.path))
    assert blockdevice.holds(backend.host, str(volume.path)) == ("ext4",)
    place = tmp_path / "mnt"
    place.mkdir()
    sh("mount", str(volume.path), str(place))
    for call in (
        lambda: backend.wipe(volume),
        lambda: backend.upload(volume, BytesIO(b"x"), Transfer()),
        lambda: blockdevice.holds(Host(), str(volume.path)),
    ):
        with pytest.raises(errors.Busy, match=f"'{volume.path}' is in use: mounted at '{place}'"):
            call()


def test_only_block_devices_are_opened(tmp_path: Path, devices: list[str]) -> None:
    file, fifo, link = (tmp_path / name for name in ("file", "fifo", "link"))
    file.touch()
    os.mkfifo(fifo)
    link.symlink_to("/dev/zero")
    for path in (file, fifo, link, tmp_path):
        with pytest.raises(errors.Unsafe, match=f"'{path}' is not a block device"):
            blockdevice.holds(Host(), str(path))
    with pytest.raises(errors.HostError, match="the device '/dev/none' does not exist"):
        blockdevice.holds(Host(), "/dev/none")
    link.unlink()
    link.symlink_to(devices[0])
    assert blockdevice.holds(Host(), str(link)) == ()
    assert Host().devices.number(str(link)) == Host().devices.number(devices[0]) != ""
    assert Host().devices.number(str(file)) == Host().devices.number("/dev/none") == ""


def test_processes_that_have_a_device_open_are_named(devices: list[str]) -> None:
    device = Host().devices.number(devices[0])
    with open(devices[0], "rb"):
        assert f"open in process {os.getpid()} (" in "".join(blockdevice.users(Host(), device, processes=True))
    assert blockdevice.users(Host(), device, processes=True) == []


def test_a_device_that_is_no_logical_volume_is_not_opened(engine: Engine, devices: list[str], vg: str) -> None:
    backend = engine.core.definitions.backend(engine.parse(xml(vg)))
    info = VolumeInfo("v", "block", "raw", 64 << 20, key="abcdef-0123-4567-89ab-cdef-0123-456789", path=devices[0])
    for one in (info, info._replace(key="")):
        with (
            pytest.raises(errors.Unsafe, match="listed; it was left alone"),
            backend.open_volume(one),
        ):
            pass
