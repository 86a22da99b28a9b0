"""Logical pools on real volume groups: the contract, layouts, thin pools, snapshots, refusals, and death half-way."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.content import copying
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from poolkit.testing import BackendContract
from tests.backends.deaths import deaths
from tests.lab.fixtures import empty, sh, virtio_disks, wipe
from tests.sweep import Sampled

pytestmark = pytest.mark.lab
MIB = 1 << 20
EXTENT = 4 * MIB


def xml(*devices: str, name: str = "guests", vg: str = "vg-guests", extra: str = "") -> str:
    source = "".join(f"<device path='{path}'/>" for path in devices)
    return f"<pool type='logical'><name>{name}</name><source>{source}<name>{vg}</name></source>{extra}</pool>"


EXAMPLES = Path(__file__).parents[2] / "examples" / "xml"
THIN = "<pk:thin_pool xmlns:pk='urn:poolkit:pool:1' name='tp'><pk:capacity unit='MiB'>200</pk:capacity></pk:thin_pool>"


def volume(name: str, capacity: int = 8 * MIB, allocation: int | None = None, backing: str = "") -> str:
    some = "" if allocation is None else f"<allocation>{allocation}</allocation>"
    below = f"<backingStore><path>{backing}</path></backingStore>" if backing else ""
    return f"<volume><name>{name}</name><capacity>{capacity}</capacity>{some}{below}</volume>"


def content(volume: Volume, length: int = 0) -> bytes:
    out = BytesIO()
    volume.download(out, length=length)
    return out.getvalue()


def left() -> str:
    """Physical volumes (without one there is neither a group nor a logical volume) and devices that are there."""
    return (sh("pvs", "--noheadings") + sh("dmsetup", "ls").replace("No devices found", "")).strip()


@pytest.fixture
def example(lab_disks: list[str]) -> Iterator[Callable[[str], str]]:
    """Gives the text of an example, as it is written, after linking the devices it names to empty disks."""
    links: list[str] = []

    def read(name: str) -> str:
        text = (EXAMPLES / name).read_text()
        for path, disk in zip(re.findall("<device path='(.*?)'", text), lab_disks, strict=False):
            os.symlink(os.path.realpath(disk), path)
            links.append(path)
        return text

    yield read
    for path in links:
        os.unlink(path)


@pytest.fixture
def started(engine: Engine, lab_disks: list[str]) -> Pool:
    pool = engine.define(xml(*lab_disks[:2]))
    pool.build()
    pool.start()
    return pool


@pytest.fixture(scope="class")
def group_disk(request: pytest.FixtureRequest) -> Iterator[str]:
    disk = virtio_disks()[0]
    yield disk
    empty(request, [disk])


class TestContract(BackendContract):
    """On one group, which is built by the first test that needs it: half of the time would go into making it anew."""

    FROM_NOTHING = ("test_the_lifecycle_is_repeatable", "test_a_dry_run_changes_nothing")

    @pytest.fixture
    def pool_xml(self, request: pytest.FixtureRequest, group_disk: str) -> Iterator[str]:
        if request.function.__name__ in self.FROM_NOTHING:
            assert wipe([group_disk]) == []
        yield xml(group_disk)
        sh("lvremove", "--yes", "vg-guests", check=False)


def test_every_layout_is_listed_with_its_extents(
    engine: Engine, lab_disks: list[str], example: Callable[[str], str]
) -> None:
    vg = "vg0"
    sh("vgcreate", "-y", vg, *lab_disks[:2])
    sh("lvcreate", "-y", "-n", "linear", "-l", "4", vg)
    sh("lvcreate", "-y", "-n", "striped", "-l", "4", "-i", "2", vg)
    sh("lvcreate", "-y", "-n", "raid", "-l", "4", "--type", "raid1", "-m", "1", vg)
    sh("lvcreate", "-y", "-n", "snap", "-l", "2", "-s", f"{vg}/linear")
    sh("lvcreate", "-y", "-n", "tp", "-L", "64m", "--type", "thin-pool", vg)
    sh("lvcreate", "-y", "-n", "thin", "-V", "128m", "--thinpool", "tp", vg)
    sh("lvcreate", "-y", "-n", "thin-snap", "-s", f"{vg}/thin")  # LVM leaves thin snapshots inactive
    pool = engine.define(example("pool-logical-existing.xml"))  # adopted by its name alone
    assert not pool.build()
    pool.start()
    found = {v.name: v for v in pool.volumes()}
    assert sorted(found) == ["linear", "raid", "snap", "striped", "thin", "thin-snap"]
    sizes = {name: (v.info.capacity // MIB, v.info.allocation // MIB) for name, v in found.items()}
    assert sizes == {
        "linear": (16, 16),
        "striped": (16, 16),
        "raid": (16, 2 * (16 + 4)),  # both legs with an extent of metadata each
        "snap": (16, 8),
        "thin": (128, 0),
        "thin-snap": (128, 0),
    }
    first, second = (os.path.realpath(disk) for disk in lab_disks[:2])
    pieces = {name: (v.info.detail or {}).get("extents") for name, v in found.items()}
    assert pieces["linear"] == [[first, 0, 4 * EXTENT]]
    assert pieces["striped"] == [[first, 4 * EXTENT, 6 * EXTENT], [second, 0, 2 * EXTENT]]
    assert {device for device, _, _ in pieces["raid"]} == {first, second}
    assert pieces["thin"] is None
    assert found["snap"].definition().backing_store.path == "/dev/vg0/linear"
    assert found["linear"].path == "/dev/vg0/linear"
    assert found["linear"].key == sh("lvs", "--noheadings", "-o", "lv_uuid", "vg0/linear").strip()
    assert "not active" in found["thin-snap"].warning
    with pytest.raises(errors.InvalidState, match="'thin-snap' is not active, so it has no device"):
        content(found["thin-snap"])
    assert not pool.refresh()
    live = engine.parse(pool.xml())
    assert [d.path for d in live.source.devices] == [first, second]
    assert pool.definition(inactive=True).source.devices == ()
    (source,) = engine.discover("logical")
    assert (source.name, [d.path for d in source.devices]) == (vg, [first, second])
    # What is behind poolkit's back shows: with every volume inactive the pool is down, and starting repairs it.
    sh("vgchange", "-aln", vg)
    assert pool.info.reason == "no logical volume of the group 'vg0' is active"
    assert pool.start()
    assert pool.info.active


def test_one_active_volume_does_not_hide_the_others(engine: Engine, started: Pool) -> None:
    for name in ("first", "second"):
        started.create_volume(volume(name))
    assert started.destroy()
    assert not os.path.exists("/dev/vg-guests")
    sh("lvchange", "-ay", "vg-guests/first")
    assert started.start()
    assert os.path.exists("/dev/vg-guests/second")


def test_thin_volumes(engine: Engine, example: Callable[[str], str]) -> None:
    pool = engine.define(example("pool-logical-thin.xml"))
    assert pool.build()
    assert not pool.build()
    pool.start()
    thin = pool.create_volume(volume("disk", 512 * MIB, 0))
    assert (thin.info.capacity, thin.info.allocation) == (512 * MIB, 0)
    assert [v.name for v in pool.volumes()] == ["disk"]
    thin.upload(BytesIO(b"data" * MIB))
    copy = thin.clone("copy")  # a snapshot in the thin pool: nothing is copied
    assert content(copy, 4 * MIB) == b"data" * MIB
    thin.upload(BytesIO(bytes(4 * MIB)))
    assert content(copy, 4 * MIB) == b"data" * MIB
    small = pool.create_volume(volume("small", 16 * MIB, 0))
    small.upload(BytesIO(b"data" * MIB))
    assert small.info.allocation > 0
    small.wipe()
    assert small.look().info.allocation == 0, "wiping gives space back"
    assert not content(small).strip(b"\0")
    small.delete()
    assert thin.delete()
    assert content(copy, 4 * MIB) == b"data" * MIB
    with pytest.raises(errors.Unsupported, match="'copy' is thin: its space comes as it is written"):
        copy.resize(600 * MIB, allocate=True)
    copy.resize(600 * MIB)
    assert copy.look().info.capacity == 600 * MIB
    copy.delete()
    # A read-only volume outside of the thin pool can be the origin of a thin one, which would go with it.
    sh("lvcreate", "-y", "-an", "-Zn", "-Wn", "-pr", "-n", "base", "-l", "2", "vg_thin")
    sh("lvcreate", "-y", "-s", "--thinpool", "pool0", "-n", "child", "vg_thin/base")
    pool.refresh()
    base = pool.volume("base")
    with pytest.raises(errors.InvalidState, match="'child'"):
        base.delete()
    assert pool.volume("child").delete()
    assert base.look().info.capacity == 8 * MIB
    assert base.delete()
    pool.destroy()
    assert pool.delete()
    assert left() == ""


def test_snapshots(started: Pool) -> None:
    origin = started.create_volume(volume("origin"))
    with pytest.raises(errors.Unsupported, match="the group 'vg-guests' has no thin pool"):
        started.create_volume(volume("thin", 8 * MIB, MIB))
    origin.upload(BytesIO(b"before"))
    snap = started.create_volume(volume("snap", 8 * MIB, 4 * MIB, origin.path))
    origin.upload(BytesIO(b"after!"))
    assert content(snap, 6) == b"before"
    assert snap.info.capacity == 8 * MIB
    assert snap.info.allocation == 4 * MIB
    for call in (lambda: origin.resize(16 * MIB), origin.delete):
        with pytest.raises(errors.InvalidState, match="the volume 'snap' stands on it"):
            call()
    with pytest.raises(errors.Unsupported, match="'snap' is a snapshot: it has the size of 'origin'"):
        snap.resize(16 * MIB)
    snap.resize(8 * MIB, allocate=True)
    assert snap.look().info.allocation > 8 * MIB, "room for the change of every byte, and to note it"
    assert content(snap, 6) == b"before"
    snap.delete()
    origin.resize(16 * MIB)
    assert content(origin, 6) == b"after!"
    assert origin.delete()


def test_layouts_of_new_volumes(started: Pool) -> None:
    layout = "<pkv:layout xmlns:pkv='urn:poolkit:volume:1' stripes='2'/></volume>"
    striped = started.create_volume(volume("striped", 13 * MIB).replace("</volume>", layout))
    assert striped.info.capacity == 16 * MIB
    assert len({piece[0] for piece in striped.info.detail["extents"]}) == 2
    assert not striped.resize(13 * MIB)  # sizes are whole extents: asking again for what was asked for changes nothing
    mirrored = started.create_volume(volume("mirrored"), backend={"mirrors": 1})
    assert (mirrored.info.capacity, mirrored.info.allocation) == (8 * MIB, 2 * (8 + 4) * MIB)
    sh("lvcreate", "-y", "-n", "fast", "-l", "3", "vg-guests")
    sh("lvconvert", "-y", "--type", "cache", "--cachevol", "fast", "vg-guests/striped")
    started.refresh()
    assert sorted(v.name for v in started.volumes()) == ["mirrored", "striped"]
    cached = started.volume("striped")
    assert cached.info.capacity == 16 * MIB
    assert "backing" not in (cached.info.detail or {}), "what holds its data is no origin"
    assert cached.delete()
    assert sh("lvs", "--noheadings", "-o", "lv_name", "vg-guests").split() == ["mirrored"]


def test_a_device_in_use_is_not_built_on(engine: Engine, lab_disks: list[str], tmp_path: Path) -> None:
    empty, used, member, unused = lab_disks
    pool = engine.define(xml(empty, used))
    sh("mkfs.ext4", "-q", used)
    with pytest.raises(errors.Unsafe) as caught:
        pool.build()
    assert str(caught.value) == f"pool 'guests': '{used}' holds ext4, which building would destroy"
    sh("mount", used, "/mnt")
    with pytest.raises(errors.Busy, match=f"'{used}' is in use: mounted at '/mnt'"):
        pool.build(overwrite=True)
    sh("umount", "/mnt")
    sh("vgcreate", "-y", "theirs", member)
    other = engine.define(xml(member, name="other", vg="vg-other"))
    with pytest.raises(errors.Unsafe, match=f"'{member}' belongs to the volume group 'theirs'"):
        other.build(overwrite=True)
    twice = engine.define(xml(unused, os.path.realpath(unused), name="twice", vg="vg-twice"))
    with pytest.raises(errors.InvalidArgument, match="are the same device"):
        twice.build()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(errors.Unsafe, match="is not a block device"):
        engine.define(xml(str(file), name="file", vg="vg-file")).build()
    with pytest.raises(errors.HostError, match="the device '/dev/nowhere' does not exist"):
        engine.define(xml("/dev/nowhere", name="none", vg="vg-none")).build()
    assert sh("pvs", "--noheadings", "-o", "vg_name").split() == ["theirs"]
    with pytest.raises(errors.Unsafe, match="the volume group 'theirs' exists and consists of"):
        engine.define(xml("/dev/elsewhere", name="wrong", vg="theirs")).build()
    assert pool.build(overwrite=True)
    assert not pool.build()


def test_open_volumes_are_named(started: Pool) -> None:
    held = started.create_volume(volume("held"))
    with open(held.path, "rb"):
        me = f"open in process {os.getpid()}"
        with pytest.raises(errors.Busy, match=f"cannot be stopped: volume 'held' is {me}"):
            started.destroy()
        with pytest.raises(errors.Busy, match=f"'held' cannot be deleted while it is in use: {me}"):
            held.delete()
        with pytest.raises(errors.Busy, match=me):
            held.resize(4 * MIB, shrink=True)
        assert started.info.active
    sh("mkfs.ext4", "-q", held.path)
    sh("mount", held.path, "/mnt")
    try:
        with pytest.raises(errors.Busy, match="volume 'held' is mounted at '/mnt'"):
            started.destroy()
        with pytest.raises(errors.Busy, match="mounted at '/mnt'"):
            held.wipe()
    finally:
        sh("umount", "/mnt")
    with pytest.raises(errors.InvalidArgument):
        held.resize(4 * MIB)
    held.resize(4 * MIB, shrink=True)
    assert held.look().info.capacity == 4 * MIB


def test_the_group_goes_only_when_it_is_empty(engine: Engine, example: Callable[[str], str]) -> None:
    pool = engine.define(example("pool-logical.xml"))
    pool.build()
    pool.start()
    kept = pool.create_volume(volume("kept"))
    with pytest.raises(errors.NoSpace) as caught:
        pool.create_volume(volume("large", 1 << 40))
    assert str(caught.value).startswith("pool 'HostVG': volume 'large' needs 1099511627776 bytes, and ")
    assert sh("lvs", "--noheadings", "-o", "lv_name", "HostVG").split() == ["kept"]
    pool.destroy()
    with pytest.raises(errors.Unsafe, match="the volume group 'HostVG' has the volumes kept; nothing was deleted"):
        pool.delete()
    pool.start()
    kept.delete()
    pool.destroy()
    assert pool.delete()
    assert not pool.delete()
    assert left() == ""


def test_a_volume_that_was_replaced_is_left_alone(started: Pool) -> None:
    stale = started.create_volume(volume("disk"))
    sh("lvremove", "-y", "vg-guests/disk")
    sh("lvcreate", "-y", "-n", "disk", "-l", "2", "vg-guests")
    with pytest.raises(errors.Unsafe, match="'/dev/vg-guests/disk' was replaced since it was listed"):
        stale.delete()
    started.refresh()
    assert started.volume("disk").delete()


def test_a_device_that_is_another_volume_is_not_opened(engine: Engine, started: Pool) -> None:
    one, two = (started.create_volume(volume(name)).info for name in ("one", "two"))
    backend = engine.core.definitions.backend(started.definition())
    for info, path in ((one, two.path), (two, one.path)):
        with (
            pytest.raises(errors.Unsafe, match="listed; it was left alone"),
            backend.open_volume(info._replace(path=path)),
        ):
            pass
    for info in (one, two):
        with backend.open_volume(info) as fd:
            assert copying.size_of(fd) == info.capacity


def test_copies_from_and_to_files(engine: Engine, started: Pool, tmp_path: Path) -> None:
    files = engine.define(f"<pool type='dir'><name>files</name><target><path>{tmp_path}/files</path></target></pool>")
    files.build()
    files.start()
    data = os.urandom(3 * MIB)
    raw = files.create_volume(volume("raw", 6 * MIB, 0))
    raw.upload(BytesIO(data))
    sh("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw.path, f"{tmp_path}/files/image")
    files.refresh()
    # The extents had other data before: none of it shows in the holes of the copies.
    dirty = started.create_volume(volume("dirty", 64 * MIB))
    dirty.upload(BytesIO(b"\xff" * 64 * MIB))
    dirty.delete()
    for name in ("raw", "image"):
        copy = files.volume(name).clone(name, pool=started)
        assert copy.info.capacity == 8 * MIB
        assert content(copy) == data + bytes(5 * MIB)
    wrong = "sha256:" + 64 * "0"
    image = Path(f"{tmp_path}/files/image")
    for number, origin in enumerate((image, raw.path, BytesIO(image.read_bytes()))):
        if number:  # what is read to its end cannot be read again
            with pytest.raises(errors.Unsafe, match="checksum"):
                started.import_volume("wrong", raw.path, checksum=wrong)
        taken = started.import_volume(f"taken{number}", origin)
        assert taken.info.capacity == 8 * MIB and content(taken) == data + bytes(5 * MIB)
        taken.delete()
    assert sh("lvs", "--noheadings", "-o", "lv_name", "vg-guests").split() == ["image", "raw"]
    back = started.volume("image").clone("back", pool=files)
    assert Path(back.path).read_bytes() == data + bytes(5 * MIB)


def test_a_group_that_lost_a_device(engine: Engine, lab_disks: list[str]) -> None:
    """What is whole starts and works, a mirror goes on with the copy it has, and the rest says which device is missing."""
    pool = engine.define(xml(*lab_disks[:2]))
    pool.build()
    pool.start()
    pool.create_volume(volume("one"))
    pool.create_volume(volume("wide"), backend={"stripes": 2})
    pool.create_volume(volume("mirror"), backend={"mirrors": 1})
    uuid = sh("pvs", "--noheadings", "-o", "pv_uuid", os.path.realpath(lab_disks[1])).strip()
    missing = f"the physical volume {uuid} is missing"
    pool.destroy()
    sh("wipefs", "-a", lab_disks[1])
    warnings = pool.start().warnings
    assert any(missing in w and "'wide' cannot be used" in w for w in warnings)
    assert pool.info.active
    found = {v.name: v for v in pool.volumes()}
    assert {name: bool(v.info.problem) for name, v in found.items()} == {"one": False, "mirror": False, "wide": True}
    assert found["wide"].info.problem == f"{missing}, and the volume has data on it"
    assert "a copy less" in found["mirror"].warning
    for name in ("one", "mirror"):
        found[name].upload(BytesIO(b"written"))
        assert content(found[name], 7) == b"written"
    for verb in (lambda: found["wide"].upload(BytesIO(b"x")), lambda: content(found["wide"]), found["wide"].wipe):
        with pytest.raises(errors.InvalidState, match=uuid):
            verb()
    with pytest.raises(errors.HostError) as caught:
        pool.create_volume(volume("new"))
    assert str(caught.value) == f"pool 'guests': its volume group cannot be changed while {missing}"
    sh("lvchange", "--yes", "--activate", "ly", "--activationmode", "partial", "vg-guests/wide")
    pool.refresh()
    with pytest.raises(errors.InvalidState, match="cannot be written to"):
        pool.volume("wide").upload(BytesIO(b"x"))
    pool.volume("wide").delete()
    pool.destroy()
    sh("vgreduce", "--removemissing", "--force", "vg-guests")


def test_another_group_of_the_same_name_is_not_the_pools(engine: Engine, started: Pool, lab_disks: list[str]) -> None:
    started.create_volume(volume("v"))
    started.destroy()
    started.start()
    sh("vgchange", "-an", "vg-guests")
    sh("vgrename", "vg-guests", "vg-before")
    sh("vgcreate", "-y", "vg-guests", lab_disks[2])
    for made in ((), ("lvcreate", "-y", "-n", "v", "-l", "1", "vg-guests")):
        if made:
            sh(*made)
        info = started.info
        assert not info.active and info.reason == "another volume group has the name 'vg-guests' now"
    started.start()
    assert [v.info.capacity for v in started.volumes()] == [EXTENT]


# -- death ------------------------------------------------------------------------------------------------------------


@pytest.mark.lab(timeout=300)
def test_death_while_building_leaves_nothing(lab_disks: list[str], tmp_path: Path, sampled: Sampled[int]) -> None:
    root = tmp_path / "root"
    with Engine(root) as engine:
        engine.define(xml(lab_disks[0], extra=THIN))
    for engine in deaths(root, lambda engine: engine.pool("guests").build(), sampled):
        assert left() == ""
        assert engine.core.operations.failed() == []
        assert not engine.pool("guests").info.active
    assert sh("lvs", "--noheadings", "-o", "lv_name").split() == ["tp"]


@pytest.mark.lab(timeout=300)
def test_death_while_starting_or_creating_leaves_all_as_it_was(
    lab_disks: list[str], tmp_path: Path, sampled: Sampled[int]
) -> None:
    root = tmp_path / "root"
    with Engine(root) as engine:
        pool = engine.define(xml(lab_disks[0]))
        pool.build()
        pool.start()
        pool.create_volume(volume("kept"))
        pool.destroy()
    for engine in deaths(root, lambda engine: engine.pool("guests").start(), sampled):
        active = os.path.exists("/dev/vg-guests/kept")
        assert engine.pool("guests").info.active == active
        if active:
            engine.pool("guests").destroy()  # it died after the inventory's commit: the pool was up
        assert engine.core.operations.failed() == []
    for engine in deaths(root, lambda engine: engine.pool("guests").create_volume(volume("new")), sampled):
        there = sh("lvs", "--noheadings", "-o", "lv_name", "vg-guests").split()
        assert there == sorted(v.name for v in engine.pool("guests").volumes())
        assert set(there) <= {"kept", "new"}
        if "new" in there:
            engine.pool("guests").volume("new").delete()
        assert engine.core.operations.failed() == []
