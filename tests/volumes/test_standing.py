"""What others stand on is not taken from under them: every verb, every way to name a base, and what it costs to know."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.backend import Usage, VolumeInfo
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.standing import place as place_of
from poolkit.engine.volume import Volume
from poolkit.host import Host
from poolkit.host.mounts import Mount, MountTable, locate, may_wait
from poolkit.listing import Listing
from poolkit.state import backing
from poolkit.state.backing import Edge
from poolkit.state.inventory import Inventory
from tests.inventories import age
from tests.volumes.conftest import MIB, make, new_pool, put, xml

pytestmark = pytest.mark.tools("qemu-img")

HARM: dict[str, tuple[str, Callable[..., object]]] = {
    "delete": ("deleted", lambda v, **how: v.delete(**how)),
    "wipe": ("wiped", lambda v, **how: v.wipe(**how)),
    "shrink": ("made smaller", lambda v, **how: v.resize(MIB // 2, shrink=True, **how)),
    "upload": ("overwritten", lambda v, **how: v.upload(BytesIO(b"x" * 512), **how)),
}


def overlay(pool: Pool, name: str, base: Volume | str, format: str = "raw") -> Volume:
    path = base if isinstance(base, str) else base.path
    store = f"<backingStore><path>{path}</path><format type='{format}'/></backingStore>"
    return pool.create_volume(xml(name, MIB, "qcow2", backing=store))


def image(place: Path, name: str, base: str, format: str = "qcow2", base_format: str = "raw") -> None:
    """An overlay that somebody else makes, with the base named as it is said."""
    argv = ["qemu-img", "create", "-q", "-u", "-f", format, "-b", base, "-F", base_format, f"{place}/{name}", "1M"]
    subprocess.run(argv, check=True, cwd=place)


def standing(harm: Callable[..., object], volume: Volume) -> errors.HasDependents:
    with pytest.raises(errors.HasDependents) as caught:
        harm(volume)
    return caught.value


def test_a_base_cannot_be_taken_while_another_process_makes_an_overlay_on_it(tmp_path: Path) -> None:
    """The other process stops in the middle of its work until this one has tried everything."""
    root = tmp_path / "root"
    with Engine(root) as engine:
        pool = new_pool(engine, tmp_path / "bases", "bases")
        new_pool(engine, tmp_path / "tops", "tops")
        make(pool, "base")
    half, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:

            def fault(label: str) -> None:
                if label == "qemu-img":
                    os.write(half[1], b"x")
                    os.read(go_on[0], 1)

            with Engine(root, host=Host(fault=fault)) as engine:
                overlay(engine.pool("tops"), "top", f"{tmp_path}/bases/base")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.read(half[0], 1) == b"x"
    try:
        with Engine(root) as engine:
            base = engine.pool("bases").volume("base")
            for _, harm in HARM.values():
                with pytest.raises(errors.Busy, match="vol-create of volume 'base'"):
                    harm(base)
            assert base.look().info.capacity == MIB, "others may read it"
    finally:
        os.write(go_on[1], b"xx")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with Engine(root) as engine:
        standing(lambda v: v.delete(), engine.pool("bases").volume("base"))
        engine.pool("tops").volume("top").delete()
        engine.pool("bases").volume("base").delete()


@pytest.mark.parametrize("verb", HARM)
def test_every_verb_that_would_hurt_a_base_names_what_stands_on_it(pool: Pool, other: Pool, verb: str) -> None:
    done, harm = HARM[verb]
    base = make(pool, "base")
    overlay(pool, "near", base)
    for at in range(4):
        overlay(other, f"far{at}", base)
    before = Path(base.path).read_bytes()
    error = standing(harm, base)
    assert str(error) == (
        f"volume 'base' cannot be {done}: the volumes 'images/near', 'other/far0', 'other/far1' and 2 others stand on it"
    )
    assert error.hint == "take them away first; if they are not needed, add force=True"
    assert error.as_dict()["dependents"] == {
        "volumes": [{"pool": p, "volume": v} for p, v in (("images", "near"), ("other", "far0"), ("other", "far1"))],
        "volume_count": 5,
        "pools": [],
        "flavors": [],
    }
    assert Path(base.path).read_bytes() == before
    harm(base, force=True)
    for name in ("near", *(f"far{at}" for at in range(4))):
        (pool if name == "near" else other).volume(name).delete()
    if verb != "delete":
        harm(base)


@pytest.mark.parametrize("verb", HARM)
def test_a_dry_run_foresees_it(pool: Pool, tmp_path: Path, verb: str) -> None:
    overlay(pool, "over", make(pool, "base"))
    with Engine(tmp_path / "root", dry_run=True) as engine:
        standing(HARM[verb][1], engine.pool("images").volume("base"))


def test_what_hurts_nobody_goes_on(pool: Pool) -> None:
    base = make(pool, "base")
    over = overlay(pool, "over", base)
    base.resize(2 * MIB)
    base.adopt("raw")
    over.resize(2 * MIB)
    over.wipe()  # an empty image, which stands on nothing
    assert base.delete().changed


@pytest.mark.parametrize("format", ["qcow2", "qcow", "qed", "vmdk"])
def test_every_format_with_a_backing_image_counts(pool: Pool, place: Path, format: str) -> None:
    kind = format if format == "vmdk" else "raw"  # a VMDK stands on a VMDK
    base = make(pool, "base", kind)
    if format == "vmdk":
        argv = ["qemu-img", "create", "-q", "-f", format, "-b", base.path, "-F", kind, f"{place}/over"]
        subprocess.run(argv, check=True, cwd=place)
    else:
        image(place, "over", base.path, format)
    pool.refresh()
    assert (pool.volume("over").info.format, standing(Volume.delete, base).volume_count) == (format, 1)
    pool.volume("over").delete()
    base.delete()


WAYS: dict[str, Callable[[Path], str]] = {
    "absolute": lambda place: f"{place}/base",
    "relative": lambda place: "base",
    "doubled": lambda place: f"{place}//./base",
    "up and down": lambda place: f"../{place.name}/base",
    "file": lambda place: f"file:{place}/base",
    "json": lambda place: (
        "json:" + json.dumps({"driver": "raw", "file": {"driver": "file", "filename": f"{place}/base"}})
    ),
    "linked folder": lambda place: f"{place.parent}/folder/base",
    "linked file": lambda place: f"{place.parent}/file",
    "hard link": lambda place: f"{place.parent}/hard",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_base_is_known_however_it_is_named(pool: Pool, place: Path, way: str) -> None:
    base = make(pool, "base")
    (place.parent / "folder").symlink_to(place)
    (place.parent / "file").symlink_to(place / "base")
    if way == "hard link":
        os.link(place / "base", place.parent / "hard")
    image(place, "over", WAYS[way](place))
    pool.refresh()
    assert standing(Volume.wipe, base).volumes == (("images", "over"),)
    if way == "hard link":
        base.delete()  # its data stays under the other name
    else:
        standing(Volume.delete, base)
        base.delete(force=True)
        assert pool.volume("over").info.problem.startswith("what it stands on is missing")


@pytest.mark.root
def test_the_same_file_below_another_mount_is_the_same_base(pool: Pool, place: Path) -> None:
    base = make(pool, "base")
    (alias := place.parent / "alias").mkdir()
    subprocess.run(["mount", "--bind", str(place), str(alias)], check=True)
    try:
        image(place, "over", f"{alias}/base")
        pool.refresh()
        standing(Volume.delete, base)
    finally:
        subprocess.run(["umount", str(alias)], check=True)


def test_links_on_the_way_to_a_folder_are_followed_once_for_all_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "real" / "folder").mkdir(parents=True)
    (tmp_path / "linked").symlink_to("real")
    for name in ("mounted", "fuse"):
        (folder / name).mkdir()
    names = ["file", "gone", "to-file", "to-nothing", "loop", "mounted", "fuse", "fuse/inside", "file/below", ".", ".."]
    (folder / "file").touch()
    for name, aim in {"to-file": "../folder/file", "to-nothing": "nothing", "loop": "loop"}.items():
        (folder / name).symlink_to(aim)
    mounts = MountTable(
        Mount("0:1", "/", f"{folder}/{name}", kind, "x", "rw")
        for name, kind in (("mounted", "ext4"), ("fuse", "fuse.x"))
    )
    monkeypatch.setattr(Host, "mounts", lambda self: MountTable([Mount("8:1", "/", "/", "ext4", "x", "rw"), *mounts]))
    ways = [f"{tmp_path}/{way}/{name}{end}" for way in ("real/folder", "linked/folder", "linked/../real/folder", "none")
            for name in names for end in ("", "/")]  # fmt: skip
    paths = ["relative", "/", "//", f"{tmp_path}/real/folder/loop/below", *ways]
    host = Host()
    for path in paths:
        real, mount = path, None
        with suppress(OSError):
            real, mount = locate(path, host.mounts(), may_wait) if path.startswith("/") else (path, None)
        found = place_of(host, path)
        assert found.real == real, path
        if mount is None or may_wait(mount.fstype):
            assert (found.node, found.missing) == (None, False), path
        else:
            assert found.missing is not os.path.exists(real), path
            assert (found.node is None) is found.missing, path
            assert found.missing or found.node == "{0.st_dev:x}:{0.st_ino:x}".format(os.stat(real)), path
    asked: list[object] = []
    readlink = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path, **how: (asked.append(path), readlink(path, **how))[1])
    host = Host()
    assert all(place_of(host, f"{tmp_path}/linked/folder/base{number}").missing for number in range(100))
    assert 0 < len(asked) < 20


def test_a_pool_that_is_a_link_has_its_bases_by_both_names(engine: Engine, tmp_path: Path, other: Pool) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    pool = new_pool(engine, tmp_path / "link", "linked")
    base = make(pool, "base")
    overlay(other, "said", base)
    overlay(other, "real", f"{tmp_path}/real/base")
    assert standing(Volume.delete, base).volume_count == 2


def test_a_data_file_and_an_extent_are_stood_on_too(pool: Pool, place: Path) -> None:
    options = f"data_file={place}/data,data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, f"{place}/head", "1M"], check=True)
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", f"{place}/disk.vmdk", "1M"],
        check=True,
    )
    pool.refresh()
    assert standing(Volume.delete, pool.volume("data")).volumes == (("images", "head"),)
    assert standing(Volume.delete, pool.volume("disk-flat.vmdk")).volumes == (("images", "disk.vmdk"),)


def test_a_name_that_means_nothing_here_is_no_base(pool: Pool, place: Path) -> None:
    make(pool, "base")
    for at, name in enumerate(("nbd://server/base", "json:{", "rbd:pool/base", f"{place}/ba\udcff")):
        with open(place / f"o{at}", "wb") as file:
            text = name.encode("utf-8", "surrogateescape")
            file.write(b"QFI\xfb" + (2).to_bytes(4, "big") + (104).to_bytes(8, "big") + len(text).to_bytes(4, "big"))
            file.write((16).to_bytes(4, "big") + (1 << 20).to_bytes(8, "big") + bytes(72) + text)
            file.truncate(1 << 20)
    pool.refresh()
    pool.volume("base").delete()


# -- missing ----------------------------------------------------------------------------------------------------------


def test_a_missing_base_is_told_until_it_is_back(pool: Pool, other: Pool, place: Path) -> None:
    base = make(pool, "base")
    overlay(other, "over", base)
    base.delete(force=True)
    lacks = f"what it stands on is missing: '{place}/base'"
    assert [v.info.problem for v in other.volumes()] == [lacks]
    assert other.volume("over").look().info.detail["missing"] == [f"{place}/base"]  # type: ignore[index]
    assert str(other.refresh().warnings[0]).startswith("1 volume stands on images that are missing: 'over'")
    make(pool, "base")
    assert other.volume("over").info.problem == ""
    (place / "base").unlink()  # behind poolkit
    assert other.volume("over").look().info.problem == lacks
    other.refresh()
    assert other.volume("over").info.problem == lacks
    put(pool, "base", bytes(MIB))
    other.refresh()
    assert other.volume("over").info.problem == ""


def test_what_was_missing_is_told_at_start(pool: Pool, other: Pool) -> None:
    base = make(pool, "base")
    overlay(other, "over", base)
    other.destroy()
    base.delete()  # what an inactive pool has is not known
    assert "images that are missing: 'over'" in other.start().warnings[0]


def test_a_listed_volume_that_is_gone_can_be_forgotten(pool: Pool, place: Path) -> None:
    base = make(pool, "base")
    overlay(pool, "over", base)
    (place / "base").unlink()
    assert not base.delete().changed


# -- a base that stays while an overlay is made -------------------------------------------------------------------------


def test_linked_clones_count(pool: Pool, other: Pool) -> None:
    base = make(pool, "base")
    base.clone("linked", pool=other, linked=True)
    base.clone("copied", pool=other)
    assert standing(Volume.delete, base).volumes == (("other", "linked"),)


def test_after_another_root_took_it_over_only_active_pools_count(engine: Engine, pool: Pool, other: Pool) -> None:
    base = make(pool, "base")
    overlay(other, "over", base)
    other.destroy()
    other.undefine()
    assert base.delete().changed


# -- what it costs ------------------------------------------------------------------------------------------------------


def steps(inventory: Inventory, work: Callable[[], object]) -> int:
    """How many instructions SQLite's machine runs in ``work``, to the hundred."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    inventory._db.connection.set_progress_handler(tick, 100)
    work()
    inventory._db.connection.set_progress_handler(None, 0)
    return count * 100


def many(tmp_path: Path, count: int) -> tuple[Inventory, int, int]:
    inventory = Inventory(str(tmp_path / f"{count}.sqlite"))
    inventory.make()
    numbers = []
    for name in ("base", "over"):
        inventory.put(name, name, "dir", stamp=1, claims=(), target=f"/{name}")
        record = inventory.record(name)
        assert record is not None
        numbers.append(record.id)
    volumes = [VolumeInfo(f"v{n:06}", "file", "qcow2", inode=n) for n in range(count)]
    below = [Edge(v.name, "/base/template", "/base/template", "1:1") for v in volumes]
    usage = Usage(1, 1, 1)
    inventory.set_active(numbers[0], "<pool/>", "boot", None, [VolumeInfo("template")], usage)
    inventory.set_active(numbers[1], "<pool/>", "boot", None, volumes, usage, below=below)
    return inventory, *numbers


def test_a_mass_deletion_is_not_quadratic(tmp_path: Path) -> None:
    """What deleting one overlay asks and changes does not grow with the number of overlays of the same base."""

    def delete(inventory: Inventory, pool: int, name: str) -> None:
        query = backing.on_paths([f"/over/{name}"], (pool, name), "boot")
        assert inventory.standing(query, 3) == ([], 0)
        inventory.said_of("2:2")
        inventory.drop_volume(pool, name, paths=[f"/over/{name}"])

    cost = {}
    for count in (400, 12_000):
        inventory, _, over = many(tmp_path, count)
        cost[count] = steps(inventory, lambda: [delete(inventory, over, f"v{n:06}") for n in range(100, 120)])  # noqa: B023
        assert len(inventory.edges(over)) == count - 20
        inventory.close()
    assert cost[12_000] < 2 * cost[400]


def test_a_refresh_that_changed_nothing_writes_no_row(tmp_path: Path) -> None:
    inventory, _, over = many(tmp_path, 1000)
    record = inventory.by_id(over)
    assert record is not None
    edges, before = inventory.edges(over), inventory._db.connection.total_changes
    scanned, known = inventory.known(record)
    inventory.save_listing(over, Listing.of(list(known.values()), known), scanned, Usage(1, 1, 1), edges)
    assert inventory._db.connection.total_changes - before < 5
    inventory.close()


def test_what_stands_on_a_template_is_counted_in_one_query(tmp_path: Path) -> None:
    inventory, base, _ = many(tmp_path, 12_000)
    asked: list[str] = []
    inventory._db.connection.set_trace_callback(asked.append)
    found, count = inventory.standing(backing.on_paths(["/base/template"], (base, "template"), "boot"), 3)
    inventory._db.connection.set_trace_callback(None)
    assert (found, count) == ([("over", f"v{n:06}") for n in range(3)], 12_000)
    assert len(asked) == 2
    inventory.close()


# -- older inventories --------------------------------------------------------------------------------------------------


def test_an_inventory_of_the_third_version_learns_it_by_a_refresh(pool: Pool, tmp_path: Path) -> None:
    base = make(pool, "base")
    overlay(pool, "over", base)
    pool._core.inventory.close()
    age(pool._core.inventory.path, 3)
    with Engine(tmp_path / "root") as engine:
        pool = engine.pool("images")
        assert len(pool.volumes()) == 2
        pool.refresh()
        standing(Volume.delete, pool.volume("base"))


def facts(error: errors.PoolkitError) -> Any:
    return error.as_dict()["error"]


def test_the_error_is_one_of_those_that_protect_data(pool: Pool) -> None:
    base = make(pool, "base")
    overlay(pool, "over", base)
    error = standing(Volume.delete, base)
    assert isinstance(error, errors.Unsafe)
    assert (facts(error), error.exit_code) == ("has-dependents", errors.Unsafe.exit_code)
    assert str(error) == "volume 'base' cannot be deleted: the volume 'over' stands on it"
