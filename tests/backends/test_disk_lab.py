"""Disk pools on virtio, SCSI and multipath disks of a real kernel with udev: the contract, links, refusals, deaths."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.testing import BackendContract
from tests.backends.deaths import deaths
from tests.lab.fixtures import settle, sh, wait_until
from tests.sweep import Sampled

pytestmark = pytest.mark.lab
MIB = 1 << 20
EXAMPLES = Path(__file__).parents[2] / "examples" / "xml"


def xml(device: str, label: str = "gpt", target: str = "/dev", name: str = "disk") -> str:
    return (
        f"<pool type='disk'><name>{name}</name><source><device path='{device}'/><format type='{label}'/></source>"
        f"<target><path>{target}</path></target></pool>"
    )


def volume(name: str, capacity: int = 8 * MIB, format: str = "none") -> str:
    return (
        f"<volume><name>{name}</name><capacity>{capacity}</capacity><target><format type='{format}'/></target></volume>"
    )


def name_of(device: str) -> str:
    return os.path.basename(os.path.realpath(device))


def kernel(device: str) -> dict[str, tuple[int, int]]:
    """Name -> start and size in sectors, by the kernel."""
    found = Path("/sys/class/block", name_of(device)).glob("*/partition")
    return {
        part.parent.name: (int((part.parent / "start").read_text()), int((part.parent / "size").read_text()))
        for part in found
    }


def on_disk(device: str) -> dict[str, tuple[int, int]]:
    """The same by sfdisk; the kernel knows 1 KiB of an extended partition."""
    found = json.loads(sh("sfdisk", "--json", os.path.realpath(device)))["partitiontable"].get("partitions", [])
    return {
        os.path.basename(p["node"]): (p["start"], 2 if p["type"] in ("5", "f") else p["size"]) for p in found
    }  # fmt: skip


class TestContract(BackendContract):
    told_apart = False  # a partition is where it begins

    @pytest.fixture
    def pool_xml(self, lab_disks: list[str]) -> str:
        base = name_of(lab_disks[0])
        self.volume_names = (f"{base}1", f"{base}2")
        return xml(lab_disks[0])


def test_partitions_of_a_scsi_disk_below_by_path(engine: Engine, lab_scsi_disks: list[str]) -> None:
    place = Path("/dev/disk/by-path")
    (path,) = [str(p) for p in place.iterdir() if p.resolve() == Path(lab_scsi_disks[0]).resolve()][:1]
    base = name_of(path)
    pool = engine.define(xml(path, "dos", str(place)))
    pool.build()
    pool.start()
    made = [pool.create_volume(volume(f"{base}{n}", 10 * MIB)) for n in (1, 2)]
    assert [v.path for v in made] == [f"{path}-part1", f"{path}-part2"]
    assert [v.key for v in pool.volumes()] == [v.path for v in made]
    assert engine.volume_by_path(f"{path}-part2").name == f"{base}2"
    pool.create_volume(volume(f"{base}3", 500 * MIB, "extended"))
    pool.create_volume(volume(f"{base}4", 10 * MIB))
    for number in (5, 6, 7):
        pool.create_volume(volume(f"{base}{number}", 10 * MIB, "linux-lvm"))
    assert kernel(path) == on_disk(path)
    pool.volume(f"{base}6").delete()
    settle()
    assert kernel(path) == on_disk(path)
    assert sorted(kernel(path)) == [f"{base}{n}" for n in (1, 2, 3, 4, 5, 6)]
    pool.refresh()
    assert pool.volume(f"{base}6").path == f"{path}-part6"
    assert os.path.realpath(f"{path}-part6") == f"/dev/{base}6"


def test_who_uses_a_partition_is_named(engine: Engine, lab_disks: list[str], tmp_path: Path) -> None:
    device = lab_disks[0]
    base = name_of(device)
    pool = engine.define(xml(device, target="/dev/disk/by-id"))
    pool.build()
    pool.start()
    swap, lvm, free = (pool.create_volume(volume(f"{base}{n}", 32 * MIB)) for n in (1, 2, 3))
    assert swap.path == f"{device}-part1"
    sh("mkswap", swap.path)
    sh("swapon", swap.path)
    sh("vgcreate", "-y", "vg-in-use", lvm.path)
    sh("lvcreate", "-y", "-n", "lv", "-l", "2", "vg-in-use")
    try:
        for used, words in ((swap, "swap space"), (lvm, "part of 'vg--in--use-lv'")):
            for verb in (used.delete, used.wipe):
                with pytest.raises(errors.Busy) as caught:
                    verb()
                assert words in str(caught.value)
        assert free.resize(64 * MIB)
        assert free.delete()
        assert pool.create_volume(volume(f"{base}3", 16 * MIB)).path == f"{device}-part3"
        assert kernel(device) == on_disk(device)
        pool.destroy()
        with pytest.raises(errors.Busy):
            pool.build(overwrite=True)
    finally:
        sh("swapoff", swap.path)
        sh("vgremove", "-y", "vg-in-use")


@pytest.mark.lab(timeout=300)
def test_a_death_at_any_point_leaves_no_stray_partition(
    engine: Engine, lab_disks: list[str], sampled: Sampled[int]
) -> None:
    device = lab_disks[0]
    base = name_of(device)
    root = Path(engine.locations.storage).parent
    engine.define(xml(device, "dos"))
    for cleaned in deaths(root, lambda engine: engine.pool("disk").build(), sampled):
        if not any("undone" in line for line in cleaned.recovered) and sh("wipefs", device):
            break  # all was done, and only the record of the work remained to be cleared
        assert not sh("wipefs", device)
        assert cleaned.pool("disk").definition().source.format == "dos"
    pool = engine.pool("disk")
    pool.start()
    before = kernel(device), on_disk(device)
    for cleaned in deaths(root, lambda engine: engine.pool("disk").create_volume(volume(f"{base}1")), sampled):
        settle()
        if cleaned.pool("disk").volumes():
            break
        assert (kernel(device), on_disk(device)) == before
        assert cleaned.pool("disk").info.active
    assert list(kernel(device)) == [f"{base}1"]
    pool.volume(f"{base}1").upload(BytesIO(b"content" * 1000))
    before = kernel(device), on_disk(device)
    for cleaned in deaths(root, lambda engine: engine.pool("disk").volume(f"{base}1").resize(16 * MIB), sampled):
        settle()
        if cleaned.pool("disk").volume(f"{base}1").info.capacity == 16 * MIB:
            break
        assert (kernel(device), on_disk(device)) == before
    assert kernel(device) == on_disk(device) == {f"{base}1": (2048, 16 * 2048)}
    out = BytesIO()
    pool.volume(f"{base}1").download(out, length=7000)
    assert out.getvalue() == b"content" * 1000


def test_the_example_of_a_plain_disk(engine: Engine, lab_scsi: Callable[..., list]) -> None:
    """/dev/sda of 4 GiB, of which scsi_debug keeps what is written in 64 MiB."""
    others = [disk / "device" for disk in Path("/sys/block").glob("sd*")]
    places = [device.resolve().name for device in others]  # host:channel:target:lun
    for device in others:
        (device / "delete").write_text("1")
    settle()  # who has one open keeps its name from being free for another
    (host,) = lab_scsi(size_mb=64, virtual_gb=4)
    assert host.disks == ["/dev/sda"]
    Path("/tmp/script").write_text("label: dos\nstart=2048, type=f\n")
    sh("sh", "-c", "sfdisk --quiet /dev/sda </tmp/script")
    settle()
    pool = engine.define((EXAMPLES / "pool-disk.xml").read_text())
    pool.start()
    assert pool.info.capacity == 4 << 30
    assert [v.name for v in pool.volumes()] == ["sda1"]
    made = pool.create_volume((EXAMPLES / "volume-partition.xml").read_text())
    assert (made.name, made.path, made.info.capacity) == ("sda5", "/dev/sda5", 2 << 30)
    assert made.definition().target.format == "linux-swap"
    assert made.delete()
    pool.destroy()
    for place in places:
        number, *rest = place.split(":")
        Path(f"/sys/class/scsi_host/host{number}/scan").write_text(" ".join(rest))
    settle()


@pytest.fixture
def mpatha() -> Iterator[str]:
    """The guest's disk with two paths, by multipathd."""
    sh("modprobe", "-a", "virtio_scsi", "sd_mod", "dm_multipath", "dm_service_time", "scsi_dh_alua")
    Path("/etc/multipath").mkdir(exist_ok=True)
    Path("/etc/multipath.conf").write_text(
        "defaults {\n find_multipaths no\n user_friendly_names yes\n polling_interval 1\n}\n"
        'blacklist {\n devnode "^(vd|dm|loop|sr|ram)"\n wwid "0QEMU.*SCSI[12]$"\n}\n'
    )
    sh("multipathd")
    try:
        wait_until(lambda: os.path.exists("/dev/mapper/mpatha"), "the multipath device")
        yield "/dev/mapper/mpatha"
    finally:
        settle()
        for line in sh("dmsetup", "ls").splitlines():
            if "part" in line or "mpathap" in line:
                sh("dmsetup", "remove", "--retry", line.split()[0], check=False)
        if os.path.exists("/dev/mapper/mpatha"):
            sh("wipefs", "--all", "--quiet", "/dev/mapper/mpatha", check=False)
        sh("multipath", "-F", check=False)
        sh("multipathd", "shutdown", check=False)
        for disk in Path("/sys/block").glob("sd*"):
            sh("multipath", "-w", f"/dev/{disk.name}", check=False)


@pytest.mark.tools("kpartx")
def test_the_example_of_a_multipath_disk(engine: Engine, mpatha: str) -> None:
    pool = engine.define((EXAMPLES / "pool-disk-gpt.xml").read_text())
    assert pool.build()
    assert not pool.build()
    pool.start()
    with pytest.raises(errors.InvalidArgument) as caught:
        pool.create_volume(volume("data"))
    first = str(caught.value.hint).removeprefix("name the volume ")
    assert first == "mpathap1"
    one = pool.create_volume(volume(first, 10 * MIB))
    assert one.name == "mpatha-part1"  # as Debian's rules for kpartx have it, whatever was asked for
    assert one.path == f"/dev/mapper/{one.name}"
    again = f"{one.name[:-1]}2"
    two = pool.create_volume(volume(again, 10 * MIB))
    data = os.urandom(MIB)
    two.upload(BytesIO(data))
    assert one.delete()
    out = BytesIO()
    two.download(out, length=MIB)
    assert out.getvalue() == data
    pool.destroy()
    pool.start()
    assert [v.name for v in pool.volumes()] == [again]
    assert pool.volume(again).delete()
    pool.destroy()
    assert pool.delete()
