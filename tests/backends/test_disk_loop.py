"""Disk pools on loop devices of this host: the contract, every table, placement, numbers, refusals, undo of real changes."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import disknodes
from poolkit.host import Host
from poolkit.testing import BackendContract
from tests.durability import recording
from tests.machine import held
from tests.sweep import Sampled
from tests.volumes.conftest import Broken

pytestmark = [pytest.mark.root, pytest.mark.tools("losetup", "sfdisk", "partx", "lsblk", "wipefs")]
MIB = 1 << 20


def sh(*argv: str, input: str | None = None) -> str:
    done = subprocess.run(argv, input=input, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Loop devices over sparse files; gone after the test."""
    made: list[str] = []

    def make(size: int = 200 * MIB, *options: str) -> str:
        image = tmp_path / f"disk{len(made)}.img"
        with image.open("wb") as file:
            file.truncate(size)
        made.append(sh("losetup", "--find", "--show", *options, str(image)).strip())
        return made[-1]

    yield make
    for device in made:
        subprocess.run(["partx", "--delete", device], capture_output=True, check=False)
        sh("losetup", "--detach", device)


@pytest.fixture
def disk(make_disk: Callable[..., str]) -> str:
    return make_disk()


def xml(device: str, label: str = "gpt", name: str = "disk") -> str:
    format = f"<format type='{label}'/>" if label else ""
    return (
        f"<pool type='disk'><name>{name}</name><source><device path='{device}'/>{format}</source>"
        "<target><path>/dev</path></target></pool>"
    )


def volume(name: str, capacity: int = 8 * MIB, format: str = "") -> str:
    target = f"<target><format type='{format}'/></target>" if format else ""
    return f"<volume><name>{name}</name><capacity>{capacity}</capacity>{target}</volume>"


def started(engine: Engine, device: str, label: str = "gpt") -> Pool:
    pool = engine.define(xml(device, label))
    pool.build()
    pool.start()
    return pool


def add(pool: Pool, number: int, capacity: int = 8 * MIB, format: str = "") -> str:
    name = os.path.basename(pool.definition().source.devices[0].path) + f"p{number}"
    return pool.create_volume(volume(name, capacity, format)).name


def table(device: str) -> dict[int, tuple[int, int, str]]:
    """Number -> start and size in MiB, type: by sfdisk, in sectors of 512 bytes."""
    found = json.loads(sh("sfdisk", "--json", device))["partitiontable"].get("partitions", [])
    return {
        int(p["node"].rpartition("p")[2]): (p["start"] // 2048, p["size"] // 2048, p["type"]) for p in found
    }  # fmt: skip


def kernel(device: str) -> dict[int, tuple[int, int]]:
    """Number -> start and size in MiB that the kernel has."""
    base = Path("/sys/class/block") / os.path.basename(device)
    return {
        int((part / "partition").read_text()): (
            int((part / "start").read_text()) // 2048,
            int((part / "size").read_text()) // 2048,
        )
        for part in base.iterdir()
        if (part / "partition").exists()
    }


def free(pool: Pool) -> list[tuple[int, int]]:
    return [(e.start // MIB, e.end // MIB) for e in pool.definition().source.devices[0].free_extents]


class OnLoop(BackendContract):
    told_apart = False  # a partition is where it begins
    label = "gpt"

    @pytest.fixture(autouse=True)
    def names(self, disk: str) -> None:
        self.volume_names = (f"{os.path.basename(disk)}p1", f"{os.path.basename(disk)}p2")

    @pytest.fixture
    def pool_xml(self, disk: str) -> str:
        return xml(disk, self.label)


class TestGpt(OnLoop):
    pass


class TestDos(OnLoop):
    label = "dos"


@pytest.mark.tools("parted")
class TestMac(OnLoop):
    label = "mac"

    @pytest.fixture(autouse=True)
    def names(self, disk: str) -> None:
        # The first partition of a mac table is the table.
        self.volume_names = (f"{os.path.basename(disk)}p2", f"{os.path.basename(disk)}p3")

    test_a_volume_grows = test_a_resize_is_seen_by_the_next_listing = None  # see test_what_cannot_be_resized_says_so
    test_what_was_grown_plans_to_nothing = None


@pytest.mark.tools("parted")
@pytest.mark.parametrize("label", ["mac", "bsd", "sun", "dvh", "pc98"])
def test_tables_of_other_machines(engine: Engine, disk: str, label: str) -> None:
    pool = engine.define(xml(disk, label))
    assert pool.build()
    assert not pool.build()
    pool.start()
    assert pool.definition().source.format == label
    (before,) = free(pool)
    first = {"mac": 2}.get(label, 1)
    made = pool.volume(add(pool, first, 16 * MIB))
    again = pool.volume(add(pool, first + 1, 4 * MIB, "linux-swap"))
    assert made.info.capacity >= 16 * MIB
    assert os.path.exists(made.path)
    pool.refresh()
    assert pool.info.allocation == made.info.capacity + again.info.capacity
    extents = [v.definition().source.devices[0].extents[0] for v in (made, again)]
    assert extents[0].end <= extents[1].start
    data = os.urandom(4096)
    made.upload(BytesIO(data))
    out = BytesIO()
    made.download(out, length=4096)
    assert out.getvalue() == data
    with pytest.raises(errors.Unsupported, match=f"partitions in a table of type {label} cannot be resized"):
        made.resize(32 * MIB)
    with pytest.raises(errors.InvalidState):
        pool.delete()
    made.delete()
    again.delete()
    assert not pool.volumes()
    assert not kernel(disk).keys() - {1, 9}  # the table of mac, and the header of dvh, may have nodes
    assert free(pool) == [before]
    pool.destroy()
    assert pool.delete()
    assert not pool.delete()


def test_the_smallest_extent_that_fits_is_taken(engine: Engine, disk: str) -> None:
    pool = started(engine, disk)
    for number, size in enumerate((10, 20, 10, 5, 10), 1):
        add(pool, number, size * MIB)
    pool.volume(os.path.basename(disk) + "p2").delete()
    pool.volume(os.path.basename(disk) + "p4").delete()
    assert free(pool) == [(11, 31), (41, 46), (56, 199)]
    add(pool, 2, 3 * MIB)
    assert table(disk)[2][:2] == (41, 3)
    add(pool, 4, 6 * MIB + 1)
    assert table(disk)[4][:2] == (11, 6)
    assert pool.volume(os.path.basename(disk) + "p4").info.capacity == 6 * MIB + 512
    assert free(pool) == [(18, 31), (44, 46), (56, 199)]
    pool.refresh()
    assert pool.info.available == sum(e.end - e.start for e in pool.definition().source.devices[0].free_extents)
    assert pool.info.capacity == 200 * MIB
    assert pool.info.allocation == sum(v.info.capacity for v in pool.volumes())
    assert kernel(disk) == {n: place[:2] for n, place in table(disk).items()}
    with pytest.raises(errors.NoSpace) as caught:
        add(pool, 6, 160 * MIB)
    largest = pool.definition().source.devices[0].free_extents[-1]
    assert str(caught.value) == (
        f"pool 'disk': no free extent has {160 * MIB} bytes; the largest has {largest.end - largest.start}"
    )


def test_primary_then_logical(engine: Engine, disk: str) -> None:
    pool = started(engine, disk, "dos")
    base = os.path.basename(disk) + "p"
    for number in (1, 2, 3):
        add(pool, number)
    add(pool, 4, 100 * MIB, "extended")
    assert table(disk)[4] == (25, 100, "f")
    with pytest.raises(errors.Unsupported, match="an extended partition already"):
        add(pool, 5, 10 * MIB, "extended")
    for number, kind in ((5, "linux"), (6, "linux-swap"), (7, "linux-lvm"), (8, "fat32"), (9, "linux-raid")):
        add(pool, number, 10 * MIB, kind)
    assert {n: t for n, (_, _, t) in table(disk).items() if n > 4} == {5: "83", 6: "82", 7: "8e", 8: "c", 9: "fd"}
    assert [v.info.format for v in pool.volumes()] == [
        "linux", "linux", "linux", "extended", "linux", "linux-swap", "linux-lvm", "fat32", "linux-raid",
    ]  # fmt: skip
    pool.refresh()
    assert pool.info.allocation == (3 * 8 + 5 * 10) * MIB
    with pytest.raises(errors.Unsupported, match="is an extended partition, which has no content"):
        pool.volume(f"{base}4").wipe()
    with pytest.raises(errors.InvalidState) as caught:
        pool.volume(f"{base}4").delete()
    assert str(caught.value) == f"pool 'disk': the extended partition '{base}4' holds " + ", ".join(
        f"{base}{n}" for n in range(5, 10)
    )
    # A hole between logical partitions is used without touching the records that chain them.
    marks = {n: os.urandom(16) for n in (5, 6, 8, 9)}
    for number, mark in marks.items():
        pool.volume(f"{base}{number}").upload(BytesIO(mark))
    gone = pool.volume(f"{base}7").delete()
    assert gone
    with pytest.raises(errors.Unsafe) as stale:
        pool.volume(f"{base}8").delete()
    assert "was replaced since it was listed; it was left alone" in str(stale.value)
    pool.refresh()
    names = [v.name for v in pool.volumes()]
    assert names == [f"{base}{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8)]
    add(pool, 9, 9 * MIB)
    assert table(disk)[9][0] < table(disk)[7][0]
    assert kernel(disk) == {n: place[:2] for n, place in table(disk).items() if n != 4} | {4: kernel(disk)[4]}
    for number, was in ((5, 5), (6, 6), (7, 8), (8, 9)):
        out = BytesIO()
        pool.volume(f"{base}{number}").download(out, length=16)
        assert out.getvalue() == marks[was]


@pytest.mark.tools("parted")
def test_records_that_parted_moved_are_not_overwritten(engine: Engine, disk: str) -> None:
    sh("parted", "--script", disk, "mklabel", "msdos", "mkpart", "extended", "1MiB", "100%")
    for start, end in ((10, 20), (60, 70), (30, 40)):
        sh("parted", "--script", disk, "mkpart", "logical", f"{start}MiB", f"{end}MiB")
    pool = engine.define(xml(disk, "dos"))
    assert not pool.build()
    pool.start()
    before = {v.name: v.definition().source.devices[0].extents for v in pool.volumes()}
    assert len(before) == 4
    for number in range(8, 13):
        add(pool, number, 5 * MIB)
    assert {name: pool.volume(name).definition().source.devices[0].extents for name in before} == before
    spans = sorted((p[0], p[0] + p[1]) for n, p in table(disk).items() if n > 4)
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))
    assert "no errors" in sh("sfdisk", "--verify", disk).lower()


def test_four_primary_partitions_are_the_most(engine: Engine, disk: str) -> None:
    pool = started(engine, disk, "dos")
    for number in (1, 2, 3, 4):
        add(pool, number)
    with pytest.raises(errors.NoSpace) as caught:
        add(pool, 5)
    assert str(caught.value) == (
        "pool 'disk': the disk has 4 primary partitions and no extended one; a table of type dos has room for 4"
    )


def test_gpt_holds_128(engine: Engine, disk: str) -> None:
    script = "label: gpt\n" + "\n".join(f"start={2048 * (n + 1)}, size=2048" for n in range(127))
    sh("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk, input=script + "\n")
    pool = engine.define(xml(disk, ""))
    pool.start()
    assert add(pool, 128, MIB) == f"{os.path.basename(disk)}p128"
    assert len(pool.volumes()) == 128
    assert len(kernel(disk)) == 128
    with pytest.raises(errors.NoSpace, match="has 128 partitions, which is the most that a table of type gpt"):
        add(pool, 129, MIB)
    with pytest.raises(errors.Unsupported, match="a table of type gpt has no extended partitions"):
        add(pool, 129, MIB, "extended")


def test_beyond_two_tib(engine: Engine, make_disk: Callable[..., str]) -> None:
    device = make_disk(3 << 40)
    pool = started(engine, device, "dos")
    (extent,) = pool.definition().source.devices[0].free_extents
    assert (extent.start, extent.end) == (MIB, 2 << 40)
    pool.destroy()
    pool.undefine()
    sh("wipefs", "--all", "--quiet", device)
    started(engine, device, "")  # without a wish, what can use the whole disk
    assert json.loads(sh("sfdisk", "--json", device))["partitiontable"]["label"] == "gpt"


def test_sectors_of_4096_bytes(engine: Engine, make_disk: Callable[..., str]) -> None:
    device = make_disk(200 * MIB, "--sector-size", "4096")
    for label in ("gpt", "dos"):
        pool = started(engine, device, label)
        name = add(pool, 1, 10 * MIB + 1)
        assert pool.volume(name).info.capacity == 10 * MIB + 4096
        assert pool.volume(name).definition().source.devices[0].extents[0].start == MIB
        if label == "dos":
            add(pool, 2, 50 * MIB, "extended")
            add(pool, 3)
            add(pool, 4)
            add(pool, 5)
            add(pool, 6)
            pool.volume(os.path.basename(device) + "p6").delete()
        for v in pool.volumes()[::-1]:
            v.delete()
        assert kernel(device) == {}
        pool.destroy()
        pool.delete()
        pool.undefine()


@pytest.mark.parametrize("which", ["primary", "backup"])
def test_one_of_gpts_two_tables_is_enough(engine: Engine, disk: str, which: str) -> None:
    pool = started(engine, disk)
    name = add(pool, 1)
    pool.destroy()
    with open(disk, "r+b", buffering=0) as device:
        device.seek(512 if which == "primary" else -512, os.SEEK_SET if which == "primary" else os.SEEK_END)
        device.write(b"x" * 512)
    said = f"the {which} partition table of '{disk}' is damaged"
    assert any(said in str(line) for line in pool.start().warnings)
    assert [v.name for v in pool.volumes()] == [name]
    assert any(said in str(line) for line in pool.refresh().warnings)
    assert not pool.build() if pool.destroy() else None
    pool.start()
    add(pool, 2)
    assert pool.refresh().warnings == (), "both are written anew"
    assert pool.info.active, "it is the same table still"


def test_a_disk_without_a_readable_table_is_not_taken_for_another_kind(engine: Engine, disk: str) -> None:
    pool = started(engine, disk)
    add(pool, 1)
    pool.destroy()
    with open(disk, "r+b", buffering=0) as device:
        for place, whence in ((512, os.SEEK_SET), (-512, os.SEEK_END)):
            device.seek(place, whence)
            device.write(b"x" * 512)
    for verb in (pool.start, pool.build):
        with pytest.raises(errors.HostError, match="gpt") as caught:
            verb()
        assert "change the definition" not in str(caught.value.hint)
    assert pool.build(overwrite=True)


def test_a_partition_that_was_left_half_written_is_marked(engine: Engine, disk: str) -> None:
    pool = started(engine, disk)
    name = add(pool, 1)
    with pytest.raises(errors.HostError):
        pool.volume(name).upload(Broken(b"x" * MIB))
    pool.refresh()
    assert "half-written" in pool.volume(name).look().info.problem
    pool.volume(name).adopt()
    assert pool.volume(name).info.problem == ""
    with pytest.raises(errors.Unsupported, match="have no format of their own"):
        pool.volume(name).adopt()
    with pytest.raises(errors.HostError):
        pool.volume(name).upload(Broken(b"x" * MIB))
    pool.volume(name).delete()
    assert pool.volume(add(pool, 1)).info.problem == "", "another partition, at the same place"


def test_a_refresh_reads_the_beginning_of_the_disk_once(
    engine: Engine, disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each refresh anew: another table may be there by then."""
    pool = started(engine, disk)
    read: list[str] = []
    real = disknodes.head

    def head(host: Host, path: str) -> bytes:
        read.append(path)
        return real(host, path)

    monkeypatch.setattr(disknodes, "head", head)
    for count in (1, 2):
        pool.refresh()
        assert read == [disk] * count


@pytest.mark.tools("mkfs.ext4")
def test_a_used_disk_is_refused_in_the_words_of_what_it_holds(engine: Engine, disk: str) -> None:
    pool = engine.define(xml(disk))
    sh("mkfs.ext4", "-q", disk)
    with pytest.raises(errors.Unsafe) as caught:
        pool.build()
    assert str(caught.value) == f"pool 'disk': '{disk}' holds ext4, which building would destroy"
    assert caught.value.hint == "if that is meant, add overwrite=True"
    with pytest.raises(errors.HostError) as down:
        pool.start()
    assert str(down.value) == f"pool 'disk': the disk '{disk}' has no partition table"
    assert down.value.hint == "make one: engine.pool('disk').build()"
    assert pool.build(overwrite=True)
    pool.start()
    add(pool, 1)
    pool.destroy()
    pool.undefine()
    pool = engine.define(xml(disk, "dos"))
    with pytest.raises(errors.Unsafe) as other:
        pool.build()
    assert str(other.value) == f"pool 'disk': '{disk}' holds mbr and gpt with 1 partition, which building would destroy"
    with pytest.raises(errors.HostError) as wrong:
        pool.start()
    assert str(wrong.value) == f"pool 'disk': the disk '{disk}' has a partition table of type gpt, not dos"
    assert pool.build(overwrite=True)
    assert table(disk) == {}
    assert kernel(disk) == {}
    assert sh("wipefs", "--noheadings", "--output", "TYPE", disk).split() == ["dos"]


def test_names_are_the_kernels(engine: Engine, disk: str) -> None:
    pool = started(engine, disk)
    base = os.path.basename(disk) + "p"
    with pytest.raises(errors.InvalidArgument) as caught:
        pool.create_volume(volume("data"))
    assert str(caught.value) == (
        f"pool 'disk': the next partition of '{disk}' is '{base}1', and no other name can be chosen"
    )
    assert caught.value.hint == f"name the volume {base}1"
    with pytest.raises(errors.Unsupported, match="does not know 'preallocation'"):
        pool.create_volume(volume(f"{base}1"), preallocation="full")
    assert table(disk) == {}
    made = pool.create_volume(volume(f"{base}1"))
    assert made.path == f"/dev/{base}1"
    assert made.key == made.path
    assert made.info.type == "block"
    assert made.definition().source.devices[0].path == disk
    with pytest.raises(errors.VolumeExists):
        pool.create_volume(volume(f"{base}1"))
    with pytest.raises(errors.Unsupported, match="have no volumes of format 'qcow2'"):
        pool.create_volume(volume(f"{base}2", format="qcow2"))


@pytest.mark.tools("mkfs.ext4")
def test_what_is_in_use_stays(engine: Engine, disk: str, tmp_path: Path) -> None:
    pool = started(engine, disk)
    name = add(pool, 1, 32 * MIB)
    used = pool.volume(name)
    sh("mkfs.ext4", "-q", used.path)
    place = tmp_path / "mnt"
    place.mkdir()
    sh("mount", used.path, str(place))
    try:
        (place / "file").write_text("content")
        for verb in (used.delete, used.wipe, lambda: used.upload(BytesIO(b"x"))):
            with pytest.raises(errors.Busy) as caught:
                verb()
            assert f"mounted at '{place}'" in str(caught.value)
        with pytest.raises(errors.Busy, match="mounted at"):
            used.resize(16 * MIB, shrink=True)
        # The rest of the disk can be worked on, and what is mounted can grow.
        other = add(pool, 2)
        pool.volume(other).delete()
        assert used.resize(64 * MIB)
        assert kernel(disk)[1] == table(disk)[1][:2] == (1, 64)
        pool.destroy()
        with pytest.raises(errors.Busy, match="mounted at"):
            pool.build(overwrite=True)
        assert not pool.build()
        assert (place / "file").read_text() == "content"
    finally:
        sh("umount", str(place))
    pool.start()
    # Open is in use as well: a machine may run from it.
    with open(used.path, "rb"):
        with pytest.raises(errors.Busy, match=rf"open in process {os.getpid()}"):
            used.delete()
    assert kernel(disk) == {1: (1, 64)}
    assert used.delete()
    assert kernel(disk) == {}


def test_growth_ends_where_the_next_begins(engine: Engine, disk: str) -> None:
    pool = started(engine, disk)
    first = pool.volume(add(pool, 1, 10 * MIB))
    add(pool, 2, 10 * MIB)
    add(pool, 3, 10 * MIB)
    with pytest.raises(errors.NoSpace) as caught:
        first.resize(11 * MIB)
    assert str(caught.value) == (
        f"pool 'disk': volume '{first.name}' can grow to {10 * MIB} bytes and not to {11 * MIB}: what follows it is in use"
    )
    mark = os.urandom(64)
    first.upload(BytesIO(mark))
    pool.volumes()[1].delete()
    uuid = json.loads(sh("sfdisk", "--json", disk))["partitiontable"]["partitions"][0]["uuid"]
    assert first.resize(20 * MIB)
    assert json.loads(sh("sfdisk", "--json", disk))["partitiontable"]["partitions"][0]["uuid"] == uuid
    out = BytesIO()
    first.download(out, length=64)
    assert out.getvalue() == mark
    assert first.resize(5 * MIB, shrink=True)
    assert kernel(disk)[1] == (1, 5)


def test_a_new_partition_shows_nothing_of_an_old_one(engine: Engine, disk: str) -> None:
    pool = started(engine, disk)
    name = add(pool, 1)
    sh("mkswap", f"/dev/{name}")
    pool.volume(name).delete()
    add(pool, 1)
    assert not sh("wipefs", f"/dev/{name}")


def test_owner_and_mode_are_those_of_the_node(engine: Engine, disk: str) -> None:
    pool = started(engine, disk)
    name = add(pool, 1)
    facts = os.stat(f"/dev/{name}")
    assert facts.st_mode & 0o7777
    found = pool.volume(name).definition().target.permissions
    assert (found.mode, found.owner, found.group) == (facts.st_mode & 0o7777, facts.st_uid, facts.st_gid)
    wanted = "<permissions><mode>0640</mode><owner>107</owner><group>108</group></permissions>"
    text = volume(f"{name[:-1]}2").replace("</volume>", f"<target>{wanted}</target></volume>")
    found = pool.create_volume(text).definition().target.permissions
    facts = os.stat(f"/dev/{name[:-1]}2")
    assert (facts.st_mode & 0o7777, facts.st_uid, facts.st_gid) == (0o640, 107, 108)
    assert (found.mode, found.owner, found.group) == (0o640, 107, 108)


def test_nodes_come_back_with_the_start(engine: Engine, disk: str) -> None:
    pool = started(engine, disk)
    name = add(pool, 1)
    pool.destroy()
    sh("partx", "--delete", disk)
    assert not os.path.exists(f"/dev/{name}")
    pool.start()
    assert os.path.exists(f"/dev/{name}")


def test_what_is_written_to_a_partition_is_on_the_disk(
    engine: Engine, disk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = started(engine, disk)
    files = engine.define(f"<pool type='dir'><name>files</name><target><path>{tmp_path}/files</path></target></pool>")
    files.build()
    files.start()
    raw = files.create_volume(volume("raw", 4 * MIB))
    raw.upload(BytesIO(os.urandom(MIB)))
    made = pool.volume(add(pool, 1))
    with recording(Path(disk), monkeypatch) as seen:
        made.upload(BytesIO(os.urandom(MIB)))
        assert made.path in seen.paths.values()
        assert seen.bytes == {}, "an upload is done, and may be lost"
        copy = raw.clone(f"{made.name[:-1]}2", pool=pool)
        assert copy.path in seen.paths.values()
        assert seen.bytes == {}, "a clone is done, and may be lost"


def test_clones_between_disk_and_directory(engine: Engine, disk: str, tmp_path: Path) -> None:
    pool = started(engine, disk)
    files = engine.define(f"<pool type='dir'><name>files</name><target><path>{tmp_path}/files</path></target></pool>")
    files.build()
    files.start()
    image = files.create_volume(volume("image", 4 * MIB, "qcow2"))
    raw = files.create_volume(volume("raw", 4 * MIB))
    data = os.urandom(MIB)
    raw.upload(BytesIO(data))
    base = os.path.basename(disk) + "p"
    copy = raw.clone(volume(f"{base}1", 8 * MIB, "linux"), pool=pool)
    assert copy.info.capacity == 8 * MIB
    out = BytesIO()
    copy.download(out)
    assert out.getvalue() == data + bytes(7 * MIB)
    empty = image.clone(f"{base}2", pool=pool)
    out = BytesIO()
    empty.download(out)
    assert out.getvalue() == bytes(4 * MIB)
    back = copy.clone("back", pool=files)
    out = BytesIO()
    back.download(out, length=MIB)
    assert out.getvalue() == data
    with pytest.raises(errors.Unsupported, match="a partition cannot be a linked clone"):
        raw.clone(volume(f"{base}3"), pool=pool, linked=True)


def ends(device: str) -> bytes:
    """The first 40 MiB, with all that the tests write, and the last MiB."""
    with open(device, "rb") as file:
        head = file.read(40 * MIB)
        file.seek(-MIB, os.SEEK_END)
        return head + file.read()


class Stop(errors.HostError):
    """A fault that the engine may get over where the work is complete already."""


def trips(work: Callable[[Host], None], sampled: Sampled[int], least: int = 2, limit: int = 60) -> Iterator[int]:
    """Do ``work`` again and again, stopped at each of the ``sampled`` fault points, until it gets through.

    There must be ``least`` points.
    """
    for last in sampled(range(1, limit)):
        passed = 0

        def fault(label: str) -> None:
            nonlocal passed
            if label.startswith("passed:"):
                return  # nothing can fail there
            passed += 1
            if passed == last:  # noqa: B023 - called within this turn of the loop
                raise Stop(label)

        try:
            work(Host(fault=fault))
        except Stop:
            yield last
        else:
            assert passed >= least, "there were hardly any points to fail at"
            return
    raise AssertionError("it never got through")


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_a_failing_create_on_sectors_of_4096_bytes(
    engine: Engine, make_disk: Callable[..., str], label: str, sampled: Sampled[int]
) -> None:
    device = make_disk(200 * MIB, "--sector-size", "4096")
    started(engine, device, label)
    if label == "dos":
        sh("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--disk-id", device, "0x0")
    before = sh("partx", "--show", device), kernel(device)

    def work(host: Host) -> None:
        with Engine(engine.locations.storage.rpartition("/")[0], host=host) as other:
            other.pool("disk").create_volume(volume(f"{os.path.basename(device)}p1"))

    for _ in trips(work, sampled):
        assert (sh("partx", "--show", device), kernel(device)) == before
    assert kernel(device) == {1: (1, 8)}


def test_a_disk_that_grew_has_its_new_space(engine: Engine, make_disk: Callable[..., str], tmp_path: Path) -> None:
    device = make_disk()
    pool = started(engine, device)
    add(pool, 1)
    os.truncate(tmp_path / "disk0.img", 300 * MIB)
    sh("losetup", "--set-capacity", device)
    assert free(pool) == [(9, 299)]
    add(pool, 2, 250 * MIB)
    assert free(pool) == [(259, 299)]
    assert "no errors" in sh("sfdisk", "--verify", device).lower()


def test_a_primary_table_that_is_gone_is_told(engine: Engine, disk: str) -> None:
    pool = started(engine, disk)
    add(pool, 1)
    with open(disk, "r+b") as file:
        file.seek(512)
        file.write(bytes(512))
    assert "damaged" in " ".join(pool.refresh().warnings), "the copy at the end is whole"
    pool.destroy()
    pool.undefine()
    pool = engine.define(xml(disk, "dos"))
    with pytest.raises(errors.HostError, match="has a partition table of type gpt, not dos"):
        pool.start()


@pytest.mark.tools("parted")
def test_number_three_of_sun_is_left_out(engine: Engine, disk: str) -> None:
    pool = started(engine, disk, "sun")
    made = [add(pool, number, 16 * MIB) for number in (1, 2, 4, 5)]
    assert [v.name for v in pool.volumes()] == made


@pytest.mark.parametrize("label", ["gpt", "dos", pytest.param("mac", marks=pytest.mark.tools("parted"))])
def test_a_failing_create_leaves_the_disk_as_it_was(
    engine: Engine, disk: str, label: str, sampled: Sampled[int]
) -> None:
    pool = started(engine, disk, label)
    first = {"mac": 2}.get(label, 1)
    add(pool, first)
    before = sh("partx", "--show", disk), kernel(disk)
    name = f"{os.path.basename(disk)}p{first + 1}"

    def work(host: Host) -> None:
        with Engine(engine.locations.storage.rpartition("/")[0], host=host) as other:
            other.pool("disk").create_volume(volume(name))

    for _ in trips(work, sampled, least=4):
        assert (sh("partx", "--show", disk), kernel(disk)) == before
    assert name in [v.name for v in pool.volumes()]


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_a_failing_resize_or_delete_leaves_the_disk_as_it_was(
    engine: Engine, disk: str, label: str, sampled: Sampled[int]
) -> None:
    pool = started(engine, disk, label)
    name = add(pool, 1)
    before = sh("partx", "--show", disk), kernel(disk)

    def grow(host: Host) -> None:
        with Engine(engine.locations.storage.rpartition("/")[0], host=host) as other:
            other.pool("disk").volume(name).resize(16 * MIB)

    for _ in trips(grow, sampled):
        assert (sh("partx", "--show", disk), kernel(disk)) == before
    assert kernel(disk)[1] == (1, 16)
    before = sh("partx", "--show", disk), kernel(disk)

    def remove(host: Host) -> None:
        with Engine(engine.locations.storage.rpartition("/")[0], host=host) as other:
            other.pool("disk").volume(name).delete()

    for _ in trips(remove, sampled):
        # Once the entry is gone nothing brings it back, and the engine has only its own records to write.
        if table(disk):
            assert (sh("partx", "--show", disk), kernel(disk)) == before
    assert kernel(disk) == {}


@pytest.mark.tools("parted")
@pytest.mark.parametrize("label", ["mac", "bsd", "sun", "dvh", "pc98"])
def test_a_failing_build_of_another_table_leaves_nothing(
    engine: Engine, disk: str, label: str, sampled: Sampled[int]
) -> None:
    engine.define(xml(disk, label))

    def work(host: Host) -> None:
        with Engine(engine.locations.storage.rpartition("/")[0], host=host) as other:
            other.pool("disk").build()

    for _ in trips(work, sampled):
        assert subprocess.run(["parted", "--script", disk, "print"], capture_output=True, check=False).returncode == 1
    pool = engine.pool("disk")
    pool.start()
    pool.destroy()
    pool.undefine()
    pool = engine.define(xml(disk, "dos"))
    with pytest.raises(errors.Unsafe):
        pool.build()
    assert pool.build(overwrite=True)
    pool.start()
    add(pool, 1)


@pytest.mark.tools("mkfs.ext4")
def test_a_failing_build_brings_back_what_was_there(engine: Engine, disk: str, sampled: Sampled[int]) -> None:
    pool = engine.define(xml(disk, "dos"))
    sh("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk, input="label: gpt\n,10M\n,20M\n")
    sh("partx", "--add", disk)
    sh("mkfs.ext4", "-q", f"{disk}p2")
    before = ends(disk), kernel(disk)

    def work(host: Host) -> None:
        with Engine(engine.locations.storage.rpartition("/")[0], host=host) as other:
            other.pool("disk").build(overwrite=True)

    for _ in trips(work, sampled, least=6):
        assert ends(disk) == before[0]
        assert kernel(disk) == before[1]
    assert table(disk) == {}
    sh("wipefs", "--all", "--quiet", disk)
    for _ in trips(work, sampled):
        assert not sh("wipefs", disk)
    assert pool.start()


def test_the_undo_of_a_dead_process_spares_what_others_made(engine: Engine, disk: str) -> None:
    """The partition that a killed process had begun was deleted since, and another one made in its place."""
    pool = started(engine, disk)
    name = f"{os.path.basename(disk)}p1"
    marks = {"seen": 0}

    def fault(label: str) -> None:
        if "undo recorded" in label and "sfdisk" in label:
            marks["seen"] += 1
            sh(
                "sfdisk",
                "--quiet",
                "--no-reread",
                "--no-tell-kernel",
                "--append",
                disk,
                input="start=2048, size=8192\n",
            )
            sh("partx", "--add", disk)
            raise Stop(label)

    with Engine(engine.locations.storage.rpartition("/")[0], host=Host(fault=fault)) as other:
        with pytest.raises(Stop):
            other.pool("disk").create_volume(volume(name))
    assert marks["seen"] == 1
    assert table(disk)[1][:2] == (1, 4)
    assert kernel(disk) == {1: (1, 4)}
    assert pool.refresh()


def test_a_dry_run_tells_the_commands(engine: Engine, disk: str) -> None:
    pool = started(engine, disk)
    name = add(pool, 1)
    with Engine(engine.locations.storage.rpartition("/")[0], dry_run=True) as dry:
        plan = dry.pool("disk").create_volume(volume(name[:-1] + "2")).outcome.plan
        assert [line.split()[0] for line in plan] == ["sfdisk", "partx"]
        assert [line.split()[0] for line in dry.pool("disk").volume(name).delete().plan] == ["partx", "sfdisk"]
        assert [line.split()[0] for line in dry.pool("disk").volume(name).resize(9 * MIB).plan] == [
            "sfdisk",
            "resizepart",
        ]
    assert table(disk).keys() == kernel(disk).keys() == {1}


def test_a_disk_that_vanished_makes_the_pool_inactive(
    engine: Engine, make_disk: Callable[..., str], tmp_path: Path
) -> None:
    device = make_disk()
    link = tmp_path / "disk"
    link.symlink_to(device)
    pool = started(engine, str(link))
    link.unlink()
    assert not pool.info.active
    assert pool.info.reason == f"there is no disk '{link}'"
    with pytest.raises(errors.HostError) as caught:
        pool.start()
    assert str(caught.value) == f"pool 'disk': there is no disk '{link}'"


def test_a_disk_of_lvm_has_no_partitions(engine: Engine, disk: str) -> None:
    label = bytearray(1024)
    label[512:520] = b"LABELONE"
    label[536:544] = b"LVM2 001"
    Path(disk).write_bytes(bytes(label))
    pool = engine.define(xml(disk, "lvm2"))
    pool.start()
    assert pool.volumes() == []
    assert pool.info.available == 0
    with pytest.raises(errors.Unsupported, match="belongs to LVM as a whole"):
        add(pool, 1)
    pool.destroy()
    with pytest.raises(errors.Unsupported, match="a table of type lvm2 cannot be written"):
        pool.build(overwrite=True)


def test_a_number_that_means_another_partition_by_now_is_left_alone(engine: Engine, disk: str) -> None:
    pool = engine.define(xml(disk, "dos"))
    pool.build()
    pool.start()
    base = os.path.basename(disk)
    for number in (1, 2, 3):
        pool.create_volume(volume(f"{base}p{number}", 8 * MIB))
    pool.create_volume(volume(f"{base}p4", 100 * MIB, "extended"))
    for number in (5, 6, 7):
        pool.create_volume(volume(f"{base}p{number}", 8 * MIB))
    pool.volume(f"{base}p7").upload(BytesIO(b"keep me"))
    listed = pool.volume(f"{base}p6")
    sh("sfdisk", "--no-reread", "--no-tell-kernel", "--delete", disk, "5")  # what was 7 is 6 now
    sh("partx", "--delete", disk)
    sh("partx", "--add", disk)
    for verb in (
        listed.wipe,
        lambda: listed.upload(BytesIO(b"x")),
        lambda: listed.resize(16 * MIB),
        lambda: listed.clone("v"),
    ):
        with pytest.raises(errors.Unsafe, match=f"'{base}p6' was replaced since it was listed"):
            verb()
    pool.refresh()
    out = BytesIO()
    pool.volume(f"{base}p6").download(out, length=7)
    assert out.getvalue() == b"keep me"


@pytest.mark.tools("qemu-storage-daemon")
def test_a_partition_that_a_machine_has_open_is_not_written_to(tmp_path: Path, disk: str) -> None:
    with Engine(tmp_path / "root") as engine:
        pool = engine.define(xml(disk))
        pool.build()
        pool.start()
        volume = pool.create_volume(
            f"<volume><name>{os.path.basename(disk)}p1</name><capacity unit='MiB'>8</capacity></volume>"
        )
        with held(volume.path) as pid:
            for write in (volume.wipe, lambda: volume.upload(BytesIO(b"x" * 512))):
                with pytest.raises(errors.Busy, match=f"is in use by process {pid}"):
                    write()
            volume.download(BytesIO())
            assert volume.outcome is not None and "torn" in volume.outcome.warnings[0]
        assert volume.wipe()


def test_a_node_that_leads_to_another_place_of_the_disk_is_not_opened(engine: Engine, disk: str) -> None:
    pool = started(engine, disk)
    add(pool, 1)
    add(pool, 2)
    (first, second) = (volume.info for volume in pool.volumes())
    backend = engine.core.definitions.backend(pool.definition())
    for info, moved in ((first, {"path": second.path}), (second, {"path": first.path}), (first, {"path": disk})):
        with (
            pytest.raises(errors.Unsafe, match="since it was listed"),
            backend.open_volume(info._replace(**moved)),
        ):
            pass
    for info in (first, second):
        with backend.open_volume(info) as fd:
            assert os.lseek(fd, 0, os.SEEK_END) == 8 * MIB


def test_a_file_that_is_written_while_a_partition_is_filled_from_it(engine: Engine, disk: str, tmp_path: Path) -> None:
    pool = started(engine, disk)
    images = tmp_path / "images"
    images.mkdir()
    (images / "source").write_bytes(b"x" * MIB)
    other = engine.define(f"<pool type='dir'><name>d</name><target><path>{images}</path></target></pool>")
    other.start()

    def fault(label: str) -> None:
        if label == "copy":
            facts = (images / "source").stat()
            (images / "source").write_bytes(b"y" * MIB)
            os.utime(images / "source", ns=(facts.st_atime_ns, facts.st_mtime_ns))

    engine.host.fault = fault
    with pytest.raises(errors.SourceChanged, match="was changed while it was copied"):
        other.volume("source").clone(volume(f"{os.path.basename(disk)}p1"), pool=pool)
    engine.host.fault = None
    assert table(disk) == {}


@pytest.mark.tools("qemu-img", "qemu-system-x86_64")
def test_a_machine_gets_the_partition_as_raw_bytes_whatever_is_in_it(engine: Engine, disk: str, tmp_path: Path) -> None:
    pool = started(engine, disk)
    partition = pool.volume(add(pool, 1, format="linux"))
    image = tmp_path / "image"
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/hostname", str(image), "1M")
    partition.upload(BytesIO(image.read_bytes()))
    text = partition.disk_xml()
    assert "<disk type='block' device='disk'>" in text and f"<source dev='{partition.path}'/>" in text
    assert "<driver name='qemu' type='raw' cache='none' io='native'/>" in text
    node = partition.blockdev()
    assert node["file"] == {"driver": "host_device", "filename": partition.path, "aio": "native"}
    assert json.loads(sh("qemu-img", "info", "--output=json", "json:" + json.dumps(node)))["format"] == "raw"
    told = sh(
        "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "16", "-S", "-nodefaults", "-display", "none", "-qmp",
        "stdio", "-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=vda",
        input='{"execute":"qmp_capabilities"}{"execute":"query-named-block-nodes"}{"execute":"quit"}',
    )  # fmt: skip
    nodes = next(a["return"] for line in told.splitlines() if isinstance((a := json.loads(line)).get("return"), list))
    assert {one["drv"] for one in nodes} == {"raw", "host_device"}, "nothing but the partition was opened"
