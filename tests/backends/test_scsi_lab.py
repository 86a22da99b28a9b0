"""SCSI pools on real hosts: scsi_debug, virtio-scsi with its links, the kernel's own target; beside libvirtd."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from benchmarks.libvirtd import PrivateLibvirtd
from poolkit import errors
from poolkit.backends.scsi import ScsiBackend
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import scsibus
from poolkit.host import Host, worker
from poolkit.testing import BackendContract

from ..lab.fixtures import ScsiHost, settle, sh, unload, wait_until
from ..lab.speed import scaled
from .lio import Lio
from .targets import Tgt

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("one_child")]

MIB = 1 << 20
EXAMPLES = Path(__file__).parents[2] / "examples" / "xml"
DEBUG = Path("/sys/bus/pseudo/drivers/scsi_debug")
Debug = Callable[..., list[ScsiHost]]


def xml(host: str, target: str = "/dev", name: str = "luns") -> str:
    return (
        f"<pool type='scsi'><name>{name}</name><source><adapter type='scsi_host' name='{host}'/></source>"
        f"<target><path>{target}</path></target></pool>"
    )


def key_of(device: str) -> str:
    """What libvirt takes for a key: the answer of udev's own program."""
    return sh("/lib/udev/scsi_id", "--replace-whitespace", "--whitelisted", "--device", device).strip()


@pytest.fixture
def lio() -> Iterator[Lio]:
    made = Lio()
    yield made
    made.close()


@pytest.fixture(scope="module")
def two_units() -> Iterator[str]:
    """A host of the kernel's target with two units, for all tests of the contract."""
    made = Lio()
    loop = made.loop()
    for lun in (0, 1):
        loop.give(made.store(f"dd0{lun}", 16 * MIB), lun)
    yield f"host{loop.number}"
    made.close()


class TestContract(BackendContract):
    @pytest.fixture
    def pool_xml(self, two_units: str) -> str:
        return xml(two_units)


def test_units_have_names_paths_and_keys_that_last(engine: Engine, lab_scsi_disks: list[str]) -> None:
    """A virtio controller, known by its place on the PCI bus, with links for every way to name a disk."""
    host = os.path.realpath(f"/sys/class/block/{os.path.basename(os.path.realpath(lab_scsi_disks[0]))}/device")
    number = int(os.path.basename(host).partition(":")[0])
    (address,) = re.findall(r"/0000:00:([0-9a-f]{2})\.0/", host)
    document = (EXAMPLES / "pool-scsi-parentaddr.xml").read_text()  # as written, but for the place
    theirs = {
        "unique_id='1'": "unique_id='0'",
        "slot='0x1f'": f"slot='0x{address}'",
        "function='0x2'": "function='0x0'",
    }
    for word, ours in theirs.items():
        document = document.replace(word, ours)
    pool = engine.define(document)
    pool.start()
    first, second = pool.volumes()
    assert [v.name for v in (first, second)] == ["unit:0:0:0", "unit:0:0:1"]
    assert first.path == f"/dev/disk/by-path/pci-0000:00:{address}.0-scsi-0:0:0:0"
    assert first.key == key_of(first.path) == "0QEMU_QEMU_HARDDISK_SCSI1"
    pool.destroy()
    pool.undefine()
    pool = engine.define(xml(f"scsi_host{number}", "/dev/disk/by-id"))
    pool.start()
    assert pool.volume("unit:0:0:0").path == lab_scsi_disks[0]
    assert pool.volume("unit:0:0:0").key == first.key
    assert engine.volume_by_key(second.key).path == lab_scsi_disks[1]
    found = [source for source in engine.discover("scsi") if source.source.adapter.type == "scsi_host"]
    assert any(one.source.adapter.parent_address is not None for one in found)
    pool.destroy()


def test_what_a_unit_holds_is_shown_and_changes_nothing(engine: Engine, lab_scsi_disks: list[str]) -> None:
    number = Path("/sys/class/block", os.path.basename(os.path.realpath(lab_scsi_disks[0])), "device").resolve().name
    pool = engine.define(xml(f"host{number.partition(':')[0]}", "/dev/disk/by-id"))
    sh("parted", "-s", lab_scsi_disks[0], "mklabel", "gpt", "mkpart", "p", "1MiB", "64MiB")
    sh("pvcreate", "-y", lab_scsi_disks[1])
    sh("vgcreate", "-y", "in-use", lab_scsi_disks[1])
    settle()
    try:
        pool.start()
        table, member = pool.volumes()
        assert "gpt" in (table.info.detail or {})["holds"]
        assert (member.info.detail or {})["holds"] == ["LVM2_member"]
        assert table.path == lab_scsi_disks[0], "a link that comes with the content is no stable path"
        assert member.path == lab_scsi_disks[1]
        # Both are in use: by a mounted partition and by a logical volume.
        sh("mkfs.ext4", "-q", f"{lab_scsi_disks[0]}-part1")
        sh("mkdir", "-p", "/tmp/mnt")
        sh("mount", f"{lab_scsi_disks[0]}-part1", "/tmp/mnt")
        sh("lvcreate", "-y", "-n", "lv", "-l", "2", "in-use")
        for volume, words in ((table, "mounted at '/tmp/mnt'"), (member, "part of 'in--use-lv'")):
            for verb in (volume.wipe, lambda volume=volume: volume.upload(BytesIO(b"x"))):
                with pytest.raises(errors.Busy, match=re.escape(words)):
                    verb()
            pool.refresh()
            assert pool.volume(volume.name).key == volume.key
        out = BytesIO()
        table.download(out, length=MIB)
        assert out.getvalue()[512:520] == b"EFI PART"
    finally:
        sh("umount", "/tmp/mnt", check=False)
        sh("vgremove", "-y", "in-use", check=False)
        pool.destroy()


def test_units_come_go_grow_and_are_swapped(engine: Engine, lio: Lio) -> None:
    one, two, three = (lio.store(name) for name in ("aa01", "aa02", "aa03"))
    loop = lio.loop()
    loop.give(one, 1)  # there is no LUN 0
    loop.give(two, 300)  # flat space addressing
    pool = engine.define(xml(f"host{loop.number}"))
    pool.start()
    assert [v.name for v in pool.volumes()] == ["unit:0:1:1", "unit:0:1:300"]
    assert [v.key for v in pool.volumes()] == [key_of(v.path) for v in pool.volumes()]
    first = pool.volume("unit:0:1:1")
    first.upload(BytesIO(b"mine" * 1000))

    loop.give(three, 2)
    assert pool.refresh()
    assert [v.name for v in pool.volumes()] == ["unit:0:1:1", "unit:0:1:2", "unit:0:1:300"]
    loop.take(2)
    with pytest.raises(errors.VolumeNotFound):
        pool.volume("unit:0:1:2").wipe()
    pool.refresh()
    assert "unit:0:1:2" not in [v.name for v in pool.volumes()]

    loop.take(1)
    loop.give(three, 1)
    before = three.file.read_bytes()
    for verb in (first.wipe, lambda: first.upload(BytesIO(b"x")), lambda: first.download(BytesIO())):
        with pytest.raises(errors.Unsafe) as caught:
            verb()
        assert first.key in str(caught.value)
        assert key_of(first.path) in str(caught.value)
    assert three.file.read_bytes() == before
    swapped = pool.refresh()
    assert any("another logical unit" in words for words in swapped.warnings)
    assert pool.volume("unit:0:1:1").key == key_of(first.path) != first.key
    pool.volume("unit:0:1:1").upload(BytesIO(b"theirs"))
    assert one.file.read_bytes()[:4] == b"mine"
    pool.destroy()


def test_a_swap_that_the_kernel_was_not_told_of(engine: Engine, lab_scsi: Debug) -> None:
    """The kernel keeps the WWID of the day on which it found the unit; the unit itself is asked."""
    (host,) = lab_scsi(luns=1)
    pool = engine.define(xml(host.name))
    pool.start()
    (volume,) = pool.volumes()
    assert volume.upload(BytesIO(b"x" * 4096))
    (DEBUG / "vpd_use_hostno").write_text("0")  # another serial number and another NAA, at the same place
    now = key_of(host.disks[0])
    assert now != volume.key
    assert scsibus.luns(Host(), [int(host.name[4:])])[0].wwid == volume.key
    with pytest.raises(errors.Unsafe, match=f"{now}, and was {volume.key}"):
        volume.wipe()
    out = BytesIO()
    with open(host.disks[0], "rb") as disk:
        assert disk.read(4096) == b"x" * 4096
    assert any(now in words for words in pool.refresh().warnings)
    pool.volume(volume.name).download(out, length=4096)
    assert out.getvalue() == b"x" * 4096
    pool.destroy()


def test_a_unit_grows_and_another_appears(engine: Engine, lab_scsi: Debug) -> None:
    (host,) = lab_scsi(luns=1, virtual_gb=1)
    pool = engine.define(xml(host.name))
    pool.start()
    assert pool.info.capacity == 1 << 30
    (DEBUG / "virtual_gb").write_text("2049")  # beyond 2^32 sectors
    (DEBUG / "max_luns").write_text("2")
    pool.refresh()
    assert [v.info.capacity for v in pool.volumes()] == [2049 << 30, 2049 << 30]
    assert pool.info.capacity == 2 * (2049 << 30)
    last = pool.volume("unit:0:0:1")
    last.upload(BytesIO(b"end" * 100), offset=(2049 << 30) - 300)
    with pytest.raises(errors.InvalidArgument):
        last.upload(BytesIO(b"x" * 301), offset=(2049 << 30) - 300, length=301)
    pool.destroy()


@pytest.mark.parametrize(
    ("parameters", "capacity"), [({"sector_size": 4096}, 16 * MIB), ({"no_lun_0": 1, "luns": 2}, 16 * MIB)]
)
def test_odd_units(engine: Engine, lab_scsi: Debug, parameters: dict[str, int], capacity: int) -> None:
    (host,) = lab_scsi(**parameters)
    pool = engine.define(xml(host.name))
    pool.start()
    assert [v.info.capacity for v in pool.volumes()] == [capacity]
    (volume,) = pool.volumes()
    data = os.urandom(10_000)
    volume.upload(BytesIO(data), offset=1000)
    out = BytesIO()
    volume.download(out, offset=1000, length=10_000)
    assert out.getvalue() == data
    volume.wipe()
    out = BytesIO()
    volume.download(out, offset=1000, length=10_000)
    assert out.getvalue() == bytes(10_000)
    pool.destroy()


def test_a_unit_without_a_size(engine: Engine, lab_scsi: Debug) -> None:
    """As the kernel has a unit whose medium or size it could not learn."""
    (host,) = lab_scsi()
    lun = scsibus.luns(Host(), [int(host.name[4:])])[0]._replace(size=0)
    info = ScsiBackend(engine.parse(xml(host.name)), Host())._info(lun, lun.node)
    assert info is not None
    assert (info.capacity, info.detail, info.key) == (0, None, key_of(host.disks[0]))


def test_a_read_only_unit(engine: Engine, lab_scsi: Debug) -> None:
    (host,) = lab_scsi(wp=1)
    pool = engine.define(xml(host.name))
    pool.start()
    (volume,) = pool.volumes()
    assert (volume.info.detail or {})["read_only"] is True
    for verb in (volume.wipe, lambda: volume.upload(BytesIO(b"x"))):
        with pytest.raises(errors.Unsafe, match="is read-only"):
            verb()
    volume.download(BytesIO(), length=4096)
    pool.destroy()


@pytest.fixture
def two_initiators(tmp_path: Path) -> Iterator[list[str]]:
    """A unit of an iSCSI target that two initiators see, as two devices of two SCSI hosts."""
    sh("modprobe", "-a", "iscsi_tcp", "sd_mod")
    Path("/run/lock/iscsi").mkdir(parents=True, exist_ok=True)
    sh("iscsid")
    wait_until(lambda: sh("pgrep", "-x", "iscsid", check=False), "iscsid")
    server = Tgt(tmp_path, "127.0.0.1:3269", control=9)
    try:
        name = server.target("iqn.2004-10.com.example:reserved", 32)
        for who in ("one", "two"):
            sh("iscsiadm", "-m", "iface", "-I", who, "-o", "new")
            initiator = f"iqn.2004-10.com.example:{who}"
            sh("iscsiadm", "-m", "iface", "-I", who, "-o", "update", "-n", "iface.initiatorname", "-v", initiator)
        sh("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", "127.0.0.1:3269", "-I", "one", "-I", "two")
        sh("iscsiadm", "-m", "node", "-T", name, "--login")
        found: list[str] = []

        def both() -> bool:
            found[:] = [path.name for path in Path("/sys/block").glob("sd*") if "/session" in str(path.resolve())]
            return len(found) == 2

        wait_until(both, "the unit by two sessions")
        yield [f"/dev/{disk}" for disk in found]
        sh("iscsiadm", "-m", "node", "-T", name, "--logout")
    finally:
        server.close()
        sh("killall", "-q", "-w", "iscsid", check=False)


def test_a_reserved_unit(engine: Engine, two_initiators: list[str]) -> None:
    """Two hosts see one unit; the other one has reserved it for itself."""
    path, theirs = two_initiators
    number = Path("/sys/class/block", os.path.basename(path), "device").resolve().name.partition(":")[0]
    pool = engine.define(xml(f"host{number}"))
    pool.start()
    (volume,) = pool.volumes()
    sh("sg_persist", "--out", "--register", "--param-sark=abc", theirs)
    sh("sg_persist", "--out", "--reserve", "--param-rk=abc", "--prout-type=1", theirs)  # others may read
    assert not pool.refresh().warnings
    with pytest.raises(errors.Busy, match="reserved by another host"):
        volume.upload(BytesIO(b"x" * 4096))
    volume.download(BytesIO(), length=4096)
    sh("sg_persist", "--out", "--release", "--param-rk=abc", "--prout-type=1", theirs)
    sh("sg_persist", "--out", "--reserve", "--param-rk=abc", "--prout-type=3", theirs)  # nobody may
    pool.refresh()
    assert "another host has reserved it" in (pool.volume(volume.name).info.detail or {})["error"]
    assert pool.volume(volume.name).key == key_of(path)
    with pytest.raises(errors.Busy, match="reserved by another host"):
        pool.volume(volume.name).download(BytesIO(), length=4096)
    sh("sg_persist", "--out", "--clear", "--param-rk=abc", theirs)
    pool.refresh()
    assert not (pool.volume(volume.name).info.detail or {}).get("error")
    pool.destroy()


def test_a_target_that_stops_answering(engine: Engine, lab_scsi: Debug, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are lost while the pool is refreshed and written to; it works again when they are not."""
    monkeypatch.setattr(worker, "SILENCE", scaled(0.5))
    monkeypatch.setattr(worker, "DEADLINE", scaled(1))
    (host,) = lab_scsi(luns=1)
    pool = engine.define(xml(host.name))
    pool.start()
    (volume,) = pool.volumes()
    listed = volume.info
    (device,) = Path(f"/sys/class/scsi_host/{host.name}/device").glob("target*/*:*")
    (device / "timeout").write_text("20")  # seconds of the kernel's own patience with a command
    (DEBUG / "opts").write_text("4")  # Documentation: ignore every nth command, so that it times out
    (DEBUG / "every_nth").write_text("1")
    try:
        with pytest.raises(errors.Unreachable):
            pool.refresh()
        assert pool.info.active
        assert "the last refresh failed" in pool.info.reason
        assert [v.info for v in pool.volumes()] == [listed]
        with pytest.raises((errors.Unreachable, errors.HostError)):
            volume.upload(BytesIO(bytes(MIB)))
    finally:
        (DEBUG / "every_nth").write_text("0")
        (DEBUG / "opts").write_text("0")
    wait_until(
        lambda: (device / "state").read_text().strip() in ("running", "offline"), "the end of error handling", 60
    )
    (device / "state").write_text("running\n")
    wait_until(lambda: _refreshed(pool), "the pool's recovery", 60)
    assert pool.info.reason == ""
    pool.volume(volume.name).upload(BytesIO(bytes(MIB)))
    pool.destroy()


def _refreshed(pool: Pool) -> bool:
    try:
        pool.refresh()
    except errors.PoolkitError:
        return False
    return not (pool.volumes()[0].info.detail or {}).get("error")


def test_content_goes_from_and_to_other_pools(engine: Engine, lab_scsi: Debug, tmp_path: Path) -> None:
    (host,) = lab_scsi(luns=1)
    pool = engine.define(xml(host.name))
    pool.start()
    files = engine.define(f"<pool type='dir'><name>files</name><target><path>{tmp_path}</path></target></pool>")
    files.start()
    (volume,) = pool.volumes()
    data = os.urandom(MIB)
    volume.upload(BytesIO(data))
    copy = files.create_volume_from("copy", volume)
    assert (tmp_path / "copy").read_bytes()[:MIB] == data
    assert copy.info.capacity == volume.info.capacity
    image = files.create_volume(
        "<volume><name>image</name><capacity>2097152</capacity><target><format type='qcow2'/></target></volume>"
    )
    image.upload(BytesIO(_qcow2(tmp_path, b"inside" * 1000)))
    assert volume.overwrite(image)
    assert (tmp_path / "image").read_bytes()[:3] == b"QFI"
    out = BytesIO()
    volume.download(out)
    assert out.getvalue() == (b"inside" * 1000).ljust(16 * MIB, b"\0"), "what it held before must not show"
    with pytest.raises(errors.InvalidArgument, match="bytes"):
        large = files.create_volume("<volume><name>large</name><capacity>17000000</capacity></volume>")
        volume.overwrite(large)
    with pytest.raises(errors.Unsupported):
        copy.overwrite(volume)
    with pytest.raises(errors.Unsupported) as caught:
        pool.create_volume("<volume><name>new</name><capacity>1</capacity></volume>")
    assert "made by the storage behind the host adapter" in str(caught.value.hint)
    with pytest.raises(errors.Unsupported, match="cannot delete volumes"):
        volume.delete()
    pool.destroy()


def _qcow2(folder: Path, data: bytes) -> bytes:
    """An image of 2 MiB that begins with ``data``."""
    raw, image = folder / ".raw", folder / ".image"
    raw.write_bytes(data.ljust(2 * MIB, b"\0"))
    sh("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image))
    return image.read_bytes()


def test_adapters_that_are_not_there(engine: Engine, lab_scsi: Debug) -> None:
    pool = engine.define(xml("host77"))
    with pytest.raises(errors.HostError, match="there is no SCSI host adapter 'host77'"):
        pool.start()
    with pytest.raises(errors.InvalidArgument, match="no name of a SCSI host adapter"):
        engine.define(xml("eth0", name="wrong"))
    (host,) = lab_scsi()
    pool = engine.define(xml(host.name, name="here"))
    pool.start()
    unload("scsi_debug")
    assert not pool.info.active
    assert "there is no SCSI host adapter" in pool.info.reason
    pool.destroy()


def test_libvirtd_lists_the_same(engine: Engine, lab_scsi_disks: list[str], lio: Lio, tmp_path: Path) -> None:
    """Names, paths, keys, sizes and the whole XML, but for times, which libvirt takes from the device node."""
    if why := PrivateLibvirtd.missing():
        pytest.fail(why)
    number = Path("/sys/class/block", os.path.basename(os.path.realpath(lab_scsi_disks[0])), "device").resolve().name
    sh("parted", "-s", lab_scsi_disks[0], "mklabel", "gpt")
    settle()
    loop = lio.loop()
    loop.give(lio.store("cc01"), 4)
    loop.give(lio.store("cc02"), 300)
    for host, target in ((number.partition(":")[0], "/dev/disk/by-path"), (str(loop.number), "/dev")):
        document = xml(f"scsi_host{host}", target, f"p{host}")
        pool = engine.define(document)
        pool.start()
        folder = tmp_path / host
        folder.mkdir()
        (tmp_path / f"{host}.xml").write_text(pool.xml(inactive=True))
        with PrivateLibvirtd(folder) as peer:
            peer.virsh("pool-create", tmp_path / f"{host}.xml")
            names = peer.virsh("vol-list", pool.name).split()[::2]
            assert sorted(names) == sorted(v.name for v in pool.volumes())
            for volume in pool.volumes():
                theirs = peer.virsh("vol-dumpxml", "--pool", pool.name, volume.name)
                assert _lines(theirs) == _lines(volume.xml())
            assert _lines(peer.virsh("pool-dumpxml", pool.name)) == _lines(pool.xml())
            peer.virsh("pool-destroy", pool.name)
        pool.destroy()


def _lines(document: str) -> list[str]:
    return re.sub(r"\s*<timestamps>.*?</timestamps>", "", document, flags=re.DOTALL).strip().splitlines()


def test_the_example(engine: Engine, lab_scsi: Debug) -> None:
    """host0 of the example is whatever adapter came first."""
    document = (EXAMPLES / "pool-scsi.xml").read_text()
    (name,) = re.findall(r"name='(?:scsi_)?host(\d+)'", document.replace('"', "'"))
    if not scsibus.exists(Host(), int(name)):
        lab_scsi(hosts=int(name) + 1)
    pool = engine.define(document)
    pool.start()
    assert pool.info.active
    pool.destroy()
