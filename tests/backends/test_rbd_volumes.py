"""What the verbs of rbd pools do in a real cluster, looked at with Ceph's own program and its libraries."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.backends.rbd import RbdBackend
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import ceph
from tests.ceph import PROGRAMS, Cluster, until
from tests.volumes.conftest import new_pool

from .loops import loop_devices
from .rbd import SECRET, Fresh, definition, fresh, noise, only, secret, started, volume

pytestmark = pytest.mark.tools(*PROGRAMS)
MIB = 1 << 20
SIZE = 16 * MIB


@pytest.fixture
def pools(cluster: Cluster) -> Iterator[Fresh]:
    yield from fresh(cluster)


@pytest.fixture
def place(pools: Fresh) -> tuple[str, str]:
    return pools.namespace()


@pytest.fixture
def pool(engine: Engine, cluster: Cluster, place: tuple[str, str]) -> Pool:
    return started(engine, cluster, place)


def told(cluster: Cluster, place: tuple[str, str], name: str) -> dict[str, Any]:
    """What ``rbd info`` says of an image."""
    found: dict[str, Any] = json.loads(cluster.rbd("info", "--format", "json", "/".join((*place, name))).stdout)
    return found


def bytes_of(cluster: Cluster, place: tuple[str, str], name: str) -> bytes:
    return cluster.rbd("export", "--no-progress", "/".join((*place, name)), "-").stdout


def filled(pool: Pool, name: str, size: int = SIZE) -> bytes:
    """A volume with data at its begin and its end, and a hole between them."""
    head, tail = noise(MIB + 5), noise(100)
    made = pool.create_volume(volume(name, size))
    made.upload(BytesIO(head))
    made.upload(BytesIO(tail), offset=size - len(tail))
    return head + bytes(size - len(head) - len(tail)) + tail


@pytest.mark.parametrize("way", ["libraries", "modules"])
def test_either_way_does_the_same(
    way: str, engine: Engine, cluster: Cluster, place: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(way, tmp_path, monkeypatch)
    pool = started(engine, cluster, place)
    data = filled(pool, "disk")
    clone = pool.volume("disk").clone("clone", linked=True)
    clone.resize(2 * SIZE)
    out = BytesIO()
    clone.download(out)
    assert out.getvalue() == data + bytes(SIZE)
    clone.wipe()
    clone.delete()
    pool.volume("disk").clone("copy")
    assert bytes_of(cluster, place, "copy") == data
    pool.refresh()
    assert [one.name for one in pool.volumes()] == ["copy", "disk"]


# -- listing -----------------------------------------------------------------------------------------------------------


def test_names_and_addresses_are_those_of_libvirt(pool: Pool, place: tuple[str, str]) -> None:
    made = pool.create_volume(volume("disk"))
    assert made.key == made.path == "/".join((*place, "disk"))
    text = made.xml()
    assert "<volume type='network'>" in text and "<format type='raw'/>" in text and "backingStore" not in text


def test_the_figures_are_those_of_the_cluster_and_the_pool(engine: Engine, cluster: Cluster, pools: Fresh) -> None:
    name = pools.pool()
    pool = started(engine, cluster, (name,))
    pool.create_volume(volume("disk")).upload(BytesIO(noise(3 * MIB)))

    def counted() -> bool:
        pool.refresh()
        found = cluster.command(prefix="df")
        stored = {one["name"]: one["stats"]["stored"] for one in found["pools"]}[name]
        # librados counts in KiB
        all_of_it = tuple(found["stats"][f"total_{what}bytes"] // 1024 * 1024 for what in ("", "avail_"))
        return stored >= 3 * MIB and (pool.info.capacity, pool.info.available, pool.info.allocation) == (
            *all_of_it,
            stored,
        )

    until("the figures to agree", counted)


def test_allocation_is_what_is_written(engine: Engine, cluster: Cluster, place: tuple[str, str], pool: Pool) -> None:
    made = pool.create_volume(volume("disk", SIZE))
    assert made.info.allocation == 0
    made.upload(BytesIO(b"x"), offset=5 * MIB)
    assert made.info.allocation == 4 * MIB
    slow = pool.create_volume(volume("slow", SIZE), backend={"features": "layering"})
    assert slow.info.allocation == SIZE, "without fast-diff nothing is counted"
    document = definition(cluster, *place).replace(
        "<rbd:config", "<refresh><volume allocation='capacity'/></refresh><rbd:config"
    )
    pool.destroy()
    engine.define(document.replace("</name>", f"</name><uuid>{pool.uuid}</uuid>", 1))
    pool.start()
    assert pool.volume("disk").info.allocation == SIZE


def test_an_image_that_has_not_changed_is_not_opened(
    engine: Engine, cluster: Cluster, place: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = started(engine, cluster, place)
    for name in ("one", "two", "three"):
        pool.create_volume(volume(name))
    from poolkit.families.ceph import libraries

    opened: list[str] = []
    real = libraries.LibraryImages.open

    def watched(self: Any, name: str, **how: Any) -> Any:
        opened.append(name)
        return real(self, name, **how)

    monkeypatch.setattr(libraries.LibraryImages, "open", watched)
    monkeypatch.setattr(ceph, "_way", lambda way: libraries.Connection)
    definition = pool.definition()

    def listed(known: dict[str, Any]) -> dict[str, Any]:
        opened.clear()
        return {one.name: one for one in RbdBackend(definition, engine.host.operation()).volumes(known)}

    first = listed({})
    assert sorted(opened) == ["one", "three", "two"]
    assert listed(first) == first and opened == []
    pool.volume("two").upload(BytesIO(b"x"))  # an object that was not there
    second = listed(first)
    assert opened == ["two"] and second["two"].allocation == 4 * MIB
    cluster.rbd("snap", "create", "/".join((*place, "three")) + "@s")
    third = listed(second)
    assert opened == ["three"] and third["three"].detail["snapshots"] == ["s"]
    cluster.rbd("rm", "--no-progress", "/".join((*place, "one")))
    cluster.rbd("create", "--size", "8M", "/".join((*place, "one")))
    assert listed(third)["one"].detail["id"] != third["one"].detail["id"] and opened == ["one"]


def test_work_in_progress_is_not_listed(cluster: Cluster, place: tuple[str, str], pool: Pool) -> None:
    with ceph.connect("poolkit", cluster.settings("poolkit")) as connection, connection.images(*place) as images:
        for name in (".poolkit-1234", "-n", "fine"):
            images.create(name, MIB, {})
    outcome = pool.refresh()
    assert [one.name for one in pool.volumes()] == ["fine"]
    assert any("begins with '-'" in words for words in outcome.warnings)


# -- making ------------------------------------------------------------------------------------------------------------


def test_how_an_image_is_made(cluster: Cluster, place: tuple[str, str], pool: Pool, pools: Fresh) -> None:
    data = pools.pool()
    options = {"features": ["layering", "exclusive-lock"], "order": 23, "data_pool": data}
    pool.create_volume(volume("by-options"), backend=options)
    more = (
        f"<pkv:rbd xmlns:pkv='urn:poolkit:volume:1' object_size='8388608' features='layering,exclusive-lock' data_pool='{data}' "
        "stripe_unit='65536' stripe_count='4'/>"
    )
    pool.create_volume(volume("by-document", more=more))
    for name, extra in (("by-options", set()), ("by-document", {"striping"})):
        found = told(cluster, place, name)
        assert (found["order"], found["data_pool"]) == (23, data)
        assert set(found["features"]) == {"layering", "exclusive-lock", "data-pool"} | extra
    assert (found["stripe_unit"], found["stripe_count"]) == (65536, 4)
    pool.create_volume(volume("both", more=more), backend={"order": 20})
    assert told(cluster, place, "both")["order"] == 20, "the call takes precedence over the document"
    for name in ("by-options", "by-document", "both"):
        pool.volume(name).delete()


@pytest.mark.parametrize(
    ("more", "options", "error", "words"),
    [
        ("", {"order": 5}, errors.InvalidArgument, "4 KiB to 32 MiB"),
        ("", {"object_size": 5 << 20}, errors.InvalidArgument, "power of two"),
        ("", {"features": "layering,magic"}, errors.InvalidArgument, "'magic' is no feature"),
        ("", {"stripe_unit": 65536}, errors.InvalidArgument, "both stripe_unit and stripe_count"),
        ("", {"data_pool": "none"}, errors.NotFound, "does not have the data pool"),
        ("", {"stripes": 2}, errors.Unsupported, "does not know 'stripes'"),
        ("<target><format type='qcow2'/></target>", {}, errors.Unsupported, "no volumes of format 'qcow2'"),
        ("<backingStore><path>/x</path><format type='raw'/></backingStore>", {}, errors.Unsupported, "by cloning"),
        ("<target><encryption format='luks'/></target>", {}, errors.Unsupported, "encrypted"),
    ],
)  # fmt: skip
def test_what_no_image_can_have(
    pool: Pool, more: str, options: dict[str, Any], error: type[errors.PoolkitError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        pool.create_volume(volume("disk", more=more), backend=options)
    assert "disk" in str(caught.value) or caught.value.volume == "disk"
    pool.refresh()
    assert pool.volumes() == []


def test_names_that_rbd_has_not(pool: Pool) -> None:
    with pytest.raises(errors.InvalidArgument, match="'@'"):
        pool.create_volume(volume("a@b"))
    with pytest.raises(errors.InvalidArgument, match="capacity"):
        pool.create_volume("<volume><name>a</name></volume>")


# -- clones and snapshots ------------------------------------------------------------------------------------------------


def test_a_linked_clone_stands_on_a_snapshot(cluster: Cluster, place: tuple[str, str], pool: Pool) -> None:
    data = filled(pool, "base")
    first = pool.volume("base").clone("first", linked=True)
    second = pool.volume("base").clone("second", linked=True)
    snapshots = pool.volume("base").look().info.detail["snapshots"]  # type: ignore[index]
    assert len(snapshots) == 1, "nothing was written since the first snapshot, so the second clone stands on it as well"
    assert bytes_of(cluster, place, "first") == data
    assert first.info.allocation == 0
    parent = told(cluster, place, "second")["parent"]
    assert (parent["image"], parent["snapshot"]) == ("base", snapshots[0])
    top = second.clone("top", linked=True)
    assert [(link.volume, link.problem) for link in top.chain()] == [("top", ""), ("second", ""), ("base", "")]
    pool.volume("base").upload(BytesIO(b"new"))
    pool.volume("base").clone("third", linked=True)
    assert len(pool.volume("base").look().info.detail["snapshots"]) == 2  # type: ignore[index]
    assert bytes_of(cluster, place, "first") == data


def test_a_clone_of_a_snapshot_that_is_named(cluster: Cluster, place: tuple[str, str], pool: Pool) -> None:
    data = filled(pool, "base")
    cluster.rbd("snap", "create", "/".join((*place, "base")) + "@then")
    pool.volume("base").wipe()
    pool.volume("base").clone("old", backend={"snapshot": "then"})
    assert bytes_of(cluster, place, "old") == data
    with pytest.raises(errors.InvalidArgument, match="no snapshot 'never'") as caught:
        pool.volume("base").clone("other", backend={"snapshot": "never"})
    assert "then" in (caught.value.hint or "")


def test_a_flattened_clone_stands_alone(cluster: Cluster, place: tuple[str, str], pool: Pool) -> None:
    data = filled(pool, "base")
    pool.volume("base").clone("alone", linked=True, backend={"flatten": True})
    assert "parent" not in told(cluster, place, "alone")
    assert bytes_of(cluster, place, "alone") == data
    assert "snapshots" not in (pool.volume("base").look().info.detail or {}), "its snapshot is of no use any more"
    pool.volume("base").delete()


def test_a_clone_has_the_features_and_objects_of_its_source(
    cluster: Cluster, place: tuple[str, str], pool: Pool
) -> None:
    pool.create_volume(volume("base"), backend={"features": "layering,exclusive-lock", "order": 20})
    for name, linked in (("clone", True), ("copy", False)):
        pool.volume("base").clone(name, linked=linked)
        found = told(cluster, place, name)
        assert (found["order"], set(found["features"])) == (20, {"layering", "exclusive-lock"})


def test_a_larger_clone_reads_as_zeros_behind_its_source(cluster: Cluster, place: tuple[str, str], pool: Pool) -> None:
    data = filled(pool, "base")
    for name, linked in (("clone", True), ("copy", False)):
        pool.create_volume_from(volume(name, SIZE + MIB), pool.volume("base"), linked=linked)
        assert bytes_of(cluster, place, name) == data + bytes(MIB)


def test_a_copy_to_another_pool_of_the_cluster(engine: Engine, cluster: Cluster, pool: Pool, pools: Fresh) -> None:
    data = filled(pool, "base")
    there = pools.namespace()
    other = engine.define(definition(cluster, *there, name="other"))
    other.start()
    pool.volume("base").clone("copy", pool=other)
    pool.volume("base").clone("clone", pool=other, linked=True)
    assert bytes_of(cluster, there, "copy") == bytes_of(cluster, there, "clone") == data
    chain = other.volume("clone").chain()
    assert [(link.pool, link.volume) for link in chain] == [("other", "clone"), ("disks", "base")]


def test_what_has_snapshots_or_clones_is_not_deleted_by_the_way(
    cluster: Cluster, place: tuple[str, str], pool: Pool
) -> None:
    filled(pool, "base")
    clone = pool.volume("base").clone("clone", linked=True)
    with pytest.raises(errors.Unsafe, match="has snapshots") as caught:
        pool.volume("base").delete()
    assert "delete_snapshots" in (caught.value.hint or "")
    with pytest.raises(errors.InvalidState, match="/clone"):
        pool.volume("base").delete(delete_snapshots=True)
    assert told(cluster, place, "base")["snapshot_count"] == 1
    clone.delete()
    assert pool.volume("base").delete(delete_snapshots=True)
    assert cluster.rbd("ls", "/".join(place)).stdout == b""
    assert pool.volumes() == []


def test_other_pools_have_no_snapshots_to_delete(engine: Engine, tmp_path: Path) -> None:
    made = new_pool(engine, tmp_path / "images").create_volume(volume("disk"))
    with pytest.raises(errors.Unsupported, match="snapshots") as caught:
        made.delete(delete_snapshots=True)
    assert "by its name" in (caught.value.hint or "") and Path(made.path).exists()


def test_a_dry_run_makes_no_snapshot(engine: Engine, cluster: Cluster, place: tuple[str, str], pool: Pool) -> None:
    filled(pool, "base")
    with Engine(engine.locations.storage.rpartition("/")[0], dry_run=True) as dry:
        outcome = dry.pool("disks").volume("base").clone("clone", linked=True).outcome
    assert outcome is not None and any("clone" in line for line in outcome.plan)
    assert told(cluster, place, "base")["snapshot_count"] == 0
    assert cluster.rbd("ls", "/".join(place)).stdout == b"base\n"


# -- bytes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.tools("qemu-img")
def test_a_qcow2_file_becomes_an_image_and_comes_back(
    engine: Engine, cluster: Cluster, place: tuple[str, str], pool: Pool, tmp_path: Path
) -> None:
    data = filled(pool, "base")
    files = new_pool(engine, tmp_path / "files")
    wanted = (
        f"<volume><name>image.qcow2</name><capacity>{SIZE}</capacity><target><format type='qcow2'/></target></volume>"
    )
    image = files.create_volume_from(wanted, pool.volume("base"))
    with open(image.path, "rb") as file:
        assert file.read(4) == b"QFI\xfb"
    back = image.clone("back", pool=pool)
    assert back.info.format == "raw" and bytes_of(cluster, place, "back") == data
    assert back.info.allocation == 8 * MIB, "the hole is one in the new image, too"
    raw = back.clone("raw", pool=files)
    assert Path(raw.path).read_bytes() == data and os.stat(raw.path).st_blocks * 512 < 3 * MIB


@pytest.mark.root
@pytest.mark.tools("losetup", "sfdisk", "partx", "lsblk", "wipefs")
def test_a_partition_becomes_an_image_and_comes_back(
    engine: Engine, cluster: Cluster, place: tuple[str, str], pool: Pool, tmp_path: Path
) -> None:
    data = filled(pool, "base")
    with loop_devices(tmp_path) as make:
        device = make()
        source = f"<source><device path='{device}'/><format type='gpt'/></source>"
        disk = engine.define(f"<pool type='disk'><name>disk</name>{source}<target><path>/dev</path></target></pool>")
        disk.start(build=True)
        try:
            partition = disk.create_volume_from(volume(f"{os.path.basename(device)}p1", SIZE), pool.volume("base"))
            assert Path(partition.path).read_bytes()[:SIZE] == data
            back = partition.clone("back", pool=pool)
            assert bytes_of(cluster, place, "back")[:SIZE] == data
            assert back.info.allocation == 8 * MIB, "the hole is one in the new image, too"
        finally:
            for made in disk.volumes():
                made.delete()
            disk.destroy()


def test_a_monitor_with_an_ipv6_address(tmp_path: Path) -> None:
    six = Cluster("::1")
    try:
        six.make_pool("rbd")
        with Engine(tmp_path / "root6") as engine:
            pool = started(engine, six, ("rbd",))
            pool.create_volume(volume("disk", MIB)).upload(BytesIO(b"six"))
            out = BytesIO()
            pool.volume("disk").download(out, length=3)
            assert out.getvalue() == b"six"
            assert "name='::1'" in pool.xml().replace('"', "'")
            pool.destroy()
    finally:
        six.close()


def test_holes_of_a_file_cost_nothing(cluster: Cluster, place: tuple[str, str], pool: Pool, tmp_path: Path) -> None:
    data = noise(MIB) + bytes(SIZE - 2 * MIB) + noise(MIB)
    file = tmp_path / "disk"
    with file.open("wb") as out:
        out.write(data[:MIB])
        out.seek(SIZE - MIB)
        out.write(data[-MIB:])
    made = pool.create_volume(volume("disk", SIZE))
    with file.open("rb") as stream:
        made.upload(stream, sparse=True)
    assert made.info.allocation == 8 * MIB and bytes_of(cluster, place, "disk") == data
    back = tmp_path / "back"
    with back.open("wb") as stream:
        stream.write(b"before")
        assert made.download(stream, sparse=True) == SIZE
        stream.write(b"behind")
    assert back.read_bytes() == b"before" + data + b"behind" and os.stat(back).st_blocks * 512 < 3 * MIB
    part = BytesIO()
    made.download(part, offset=MIB - 3, length=MIB)
    assert part.getvalue() == data[MIB - 3 : 2 * MIB - 3]


def test_an_upload_ends_where_the_image_does(pool: Pool, tmp_path: Path) -> None:
    made = pool.create_volume(volume("disk", MIB))
    with pytest.raises(errors.InvalidArgument, match="more data"):
        made.upload(BytesIO(bytes(MIB + 1)))
    (tmp_path / "long").write_bytes(b"x" * (MIB + 1))
    with (tmp_path / "long").open("rb") as stream, pytest.raises(errors.InvalidArgument, match="more data"):
        made.upload(stream)
    with pytest.raises(errors.InvalidArgument, match="ended after 3 of 5"):
        made.upload(BytesIO(b"abc"), length=5)
    with pytest.raises(errors.InvalidArgument, match="not within it"):
        made.download(BytesIO(), offset=MIB, length=1)


@pytest.mark.parametrize("algorithm", ["zero", "trim"])
def test_a_wiped_clone_shows_nothing_of_its_parent(
    cluster: Cluster, place: tuple[str, str], pool: Pool, algorithm: str
) -> None:
    filled(pool, "base")
    clone = pool.volume("base").clone("clone", linked=True)
    clone.wipe(algorithm)
    assert bytes_of(cluster, place, "clone") == bytes(SIZE)
    outcome = pool.volume("base").wipe(algorithm)
    assert any("snapshots, which keep its data" in words for words in outcome.warnings)
    with pytest.raises(errors.Unsupported, match="promise too much"):
        clone.wipe("dod")


# -- identity and secrets --------------------------------------------------------------------------------------------------


def test_an_image_that_was_replaced_is_left_alone(cluster: Cluster, place: tuple[str, str], pool: Pool) -> None:
    made = pool.create_volume(volume("disk"))
    path = "/".join((*place, "disk"))
    cluster.rbd("rm", "--no-progress", path)
    cluster.rbd("create", "--size", "8M", path)
    for act in (made.delete, made.wipe, lambda: made.resize(SIZE), lambda: made.upload(BytesIO(b"x"))):
        with pytest.raises(errors.Unsafe, match="replaced"):
            act()
    assert cluster.rbd("du", path).returncode == 0 and bytes_of(cluster, place, "disk") == bytes(8 * MIB)


@pytest.mark.parametrize("form", ["text", "line", "bytes"])
def test_the_key_as_ceph_prints_it_or_as_libvirt_keeps_it(
    engine: Engine, cluster: Cluster, place: tuple[str, str], form: str
) -> None:
    secret(engine, cluster)
    key = cluster.keys["poolkit"].encode()
    engine.secret(SECRET).set_value({"text": key, "line": key + b"\n", "bytes": base64.b64decode(key)}[form])
    pool = engine.define(definition(cluster, *place))
    pool.start()
    assert pool.info.active


def test_the_key_is_nowhere_to_be_seen(
    engine: Engine, cluster: Cluster, place: tuple[str, str], pool: Pool, tmp_path: Path
) -> None:
    key = cluster.keys["poolkit"]
    seen: list[str] = []
    read = [0]

    class Watching(BytesIO):
        """Looks at all processes while they are at work."""

        def readinto(self, buffer: Any) -> int:
            read[0] += 1
            for pid in filter(str.isdigit, os.listdir("/proc")):
                for what in ("cmdline", "environ"):
                    try:
                        if key.encode() in Path(f"/proc/{pid}/{what}").read_bytes():
                            seen.append(f"{pid} {what}")
                    except OSError:
                        continue
            return super().readinto(buffer)

    made = pool.create_volume(volume("disk"))
    made.upload(Watching(noise(2 * MIB)))
    with pytest.raises(errors.PoolkitError) as caught:
        made.upload(Watching(noise(9 * MIB)))
    assert read[0] and seen == [] and key not in f"{caught.value!r} {caught.value.hint}"
    stored = {SECRET}
    kept = [
        path for path in (tmp_path / "root").rglob("*")
        if path.is_file() and not any(word in path.name for word in stored) and key.encode() in path.read_bytes()
    ]  # fmt: skip
    assert kept == []
    assert key not in pool.xml() and key not in made.xml()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("key", "x", "<auth>"), ("keyring", "/etc/ceph/x", "secret"), ("mon_host", "h", "<host>")],
)
def test_options_that_other_elements_decide_are_refused(
    engine: Engine, cluster: Cluster, place: tuple[str, str], name: str, value: str, words: str
) -> None:
    secret(engine, cluster)
    pool = engine.define(definition(cluster, *place, **{name: value}))
    with pytest.raises(errors.InvalidArgument, match=name) as caught:
        pool.start()
    assert words in (caught.value.hint or "")


@pytest.mark.tools("qemu-img")
def test_qemu_opens_what_blockdev_says(pool: Pool, cluster: Cluster, tmp_path: Path) -> None:
    if not list(Path("/usr/lib").glob("*/qemu/block-rbd.so")):
        pytest.skip("not applicable: QEMU has no rbd here")
    made = pool.create_volume(volume("disk", SIZE))
    node = made.blockdev(target="vda")
    key = tmp_path / "key"
    key.write_text(cluster.keys["poolkit"])
    done = subprocess.run(
        ["qemu-img", "info", "--output=json", "--object", f"secret,id=vda-auth,format=base64,file={key}",
         "json:" + json.dumps({k: v for k, v in node.items() if k != "node-name"})],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["virtual-size"] == SIZE
