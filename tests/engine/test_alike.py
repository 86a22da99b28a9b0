"""Volumes that are alike but for names and numbers, such as the overlays of one template: listed, stored and told together."""

from __future__ import annotations

import json
import marshal
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.backend import Usage, VolumeInfo
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import directory, newfiles
from poolkit.host import beside
from poolkit.listing import NUMBERS, Alike, Known, Like, Listing
from poolkit.state import packing
from poolkit.state.inventory import Inventory
from tests.formats.test_usual import image
from tests.inventories import age

COUNT = 600  # more than two blocks
USAGE = Usage(1, 1, 1)
LIKE = Like("file", "qcow2", {"compat": "1.1"})


def numbers(n: int) -> bytes:
    return NUMBERS.pack(n, 0, 0, n, n, 0, 0, 0, 0, 0, 0)


def definition(place: Path) -> str:
    return f"<pool type='dir'><name>p</name><target><path>{place}</path></target></pool>"


def fill(place: Path) -> None:
    """Overlays of a template in the same folder, two images that stand alone, a raw one, and one of a kind of its own."""
    place.mkdir()
    data = image()
    for number in range(COUNT):
        (place / f"disk{number:03}").write_bytes(data)
    alone = image(2)
    alone[8:20] = bytes(12)
    for path, content in (
        ("alone1", alone),
        ("alone2", alone),
        ("base.qcow2", b"x" * 4096),
        ("old", image(1)[:300_000]),
    ):
        (place / path).write_bytes(content)
    for path in place.iterdir():
        os.utime(path, (1, 1))


@pytest.fixture(autouse=True)
def old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were made just now count as old: their stamps are kept."""
    monkeypatch.setattr(newfiles, "_TICK", 0)
    monkeypatch.setattr(newfiles, "_SECOND", 0)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    fill(tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture
def pool(tmp_path: Path, place: Path) -> Iterator[Pool]:
    with Engine(tmp_path / "root") as engine:
        pool = engine.define(definition(place))
        pool.start()
        yield pool


def listed(pool: Pool) -> dict[str, VolumeInfo]:
    return {volume.name: volume.info._replace(atime=0) for volume in pool.volumes()}


def kept_as_stored(pool: Pool) -> None:
    """What an engine remembers of a listing is what another one reads."""
    core = pool._core
    record = core.record("p")
    remembered = core.inventory.known(record)[1]
    core.inventory._kept.clear()
    read = core.inventory.known(record)[1]
    assert remembered.stamps == read.stamps
    alone, again = (
        {**known.told, **{n: v for one in known.alike.values() for n, v in _volumes(one)}}
        for known in (remembered, read)
    )
    assert alone == again


def _volumes(one: Alike) -> Iterator[tuple[str, VolumeInfo]]:
    return ((name, one.like.volume(name, numbers)) for name, numbers in one.numbers.items())


def test_overlays_are_listed_as_each_alone_would_be(pool: Pool) -> None:
    together = listed(pool)
    assert len(together) == COUNT + 4
    for name in ("disk000", "disk599", "alone1", "base.qcow2", "old"):
        core = pool._core
        backend = core.definitions.backend(pool.definition(), core.host.operation())
        assert backend.look(name, None)._replace(atime=0) == together[name]
    assert (together["disk007"].detail or {})["backing"] == "base.qcow2"
    kept_as_stored(pool)


def test_an_unchanged_listing_of_overlays_opens_no_file_and_writes_no_row(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.refresh()
    database = pool._core.inventory._db.connection
    before = database.total_changes
    monkeypatch.setattr(newfiles, "taker", lambda *_, **__: lambda name: pytest.fail(f"{name} was opened"))
    monkeypatch.setattr(Known, "__getitem__", lambda self, name: pytest.fail("a record was read"))
    for _ in range(2):
        assert not pool.refresh().changed
        assert database.total_changes - before < 10
        pool._core.inventory._kept.clear()  # the next one reads what is stored


def test_what_changes_among_them_is_known(pool: Pool, place: Path) -> None:
    stored = pool._core.inventory
    number = pool._core.record("p").id
    (place / "disk100").unlink()
    (place / "disk101").write_bytes(b"y" * 4096)
    (place / "disk102").write_bytes(bytes(image(3, 1 << 20)).replace(b"base.qcow2", b"other.qcow"))
    (place / "new").write_bytes(image())
    pool.refresh()
    kept_as_stored(pool)
    found = listed(pool)
    assert "disk100" not in found
    assert (found["disk101"].format, (found["disk101"].detail or {}).get("looks_like")) == ("qcow2", "raw")
    assert (found["disk102"].capacity, (found["disk102"].detail or {})["backing"][:5]) == (1 << 20, "other")
    on_base = {edge.name for edge in stored.edges(number) if edge.said == f"{place}/base.qcow2"}
    assert on_base == {"new", "old", *(f"disk{n:03}" for n in range(COUNT) if n not in (100, 101, 102))}
    pool.volume("disk103").delete()
    kept_as_stored(pool)
    assert {edge.name for edge in stored.edges(number) if edge.said == f"{place}/base.qcow2"} == on_base - {"disk103"}
    with pytest.raises(errors.HasDependents) as caught:
        pool.volume("base.qcow2").delete()
    assert caught.value.volume_count == len(on_base) - 1


def test_what_is_missing_is_told_of_each(pool: Pool, place: Path) -> None:
    (place / "base.qcow2").unlink()
    for _ in range(2):
        warning = next(str(w) for w in pool.refresh().warnings if "missing" in str(w))
        assert f"{COUNT + 1} volumes stand on images that are missing" in warning
    assert "is missing" in pool.volume("disk300").info.problem
    (place / "base.qcow2").write_bytes(b"x" * 4096)
    assert not any("missing" in str(warning) for warning in pool.refresh().warnings)
    assert not pool.volume("disk300").info.problem


def test_an_image_does_not_stand_on_itself(pool: Pool, place: Path) -> None:
    """One that has the name of its backing file stands among overlays that name it as well."""
    (place / "base.qcow2").write_bytes(image())
    pool.volume("base.qcow2").adopt("qcow2")
    pool.refresh()
    edges = pool._core.inventory.edges(pool._core.record("p").id)
    assert {edge.name for edge in edges} == {"old", *(f"disk{n:03}" for n in range(COUNT))}


def test_overlays_of_a_moved_folder_stand_on_what_is_there(tmp_path: Path, pool: Pool, place: Path) -> None:
    """Each is as it was, and means another file by the same name."""
    pool.destroy()
    moved = tmp_path / "moved"
    place.rename(moved)
    with Engine(tmp_path / "root") as engine:
        pool = engine.define(definition(moved))
        pool.start()
        said = {edge.said for edge in pool._core.inventory.edges(pool._core.record("p").id)}
        assert said == {f"{moved}/base.qcow2"}
        with pytest.raises(errors.HasDependents):
            pool.volume("base.qcow2").delete()


@pytest.mark.parametrize("end", ["well", "killed"])
def test_a_copy_of_the_process_hands_them_over_as_they_are_stored(
    end: str, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[Any] = []
    real: Callable[[Listing, Any], None] = Listing.join

    def join(self: Listing, portion: Any) -> None:
        came.append(portion)
        real(self, portion)

    monkeypatch.setattr(Listing, "join", join)
    monkeypatch.setattr(directory, "_MANY", 10)
    monkeypatch.setattr(beside, "possible", lambda: True)
    if end == "killed":
        monkeypatch.setattr(beside, "_work", lambda *_: os._exit(1))
    with Engine(tmp_path / "root") as engine:
        pool = engine.define(definition(place))
        pool.start()
        in_halves = listed(pool)
    monkeypatch.setattr(beside, "possible", lambda: False)
    with Engine(tmp_path / "other") as engine:
        pool = engine.define(definition(place))
        pool.start()
        assert listed(pool) == in_halves
    packed = {len(names) for like, names, _, _, _ in came if like is not None}
    assert (max(packed) > COUNT / 3) if end == "well" else not packed


def test_images_of_many_kinds_are_told_one_by_one(
    tmp_path: Path, place: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newfiles, "_KINDS", 0)
    with Engine(tmp_path / "other") as engine:
        other = engine.define(definition(place))
        other.start()
        assert listed(other) == listed(pool)
        kept_as_stored(other)
        assert not other.refresh().changed
        edges = [inventory.edges(inventory.record("p").id) for inventory in (p._core.inventory for p in (pool, other))]
        assert edges[0] == edges[1]


def test_blocks_of_earlier_versions_are_read() -> None:
    names = ["a", "b", "c"]
    rare = {"0": [None, None, 0], "2": ["key", None, 1]}
    words = [names, [["file", "qcow2"], ["file", "raw"]], [0, 1, 0], rare, [{"compat": "1.1"}, {"compat": "0.10"}]]
    content = (3).to_bytes(4, "little") + b"".join(map(numbers, range(3))) + json.dumps(words).encode()
    block = zlib.crc32(content).to_bytes(4, "little") + content
    volumes = {volume.name: volume for volume in packing.decode(block)}
    assert [volumes[name].detail for name in names] == [{"compat": "1.1"}, None, {"compat": "0.10"}]
    assert [volumes[name].key for name in names] == [None, None, "key"]
    stamps, told, alike = packing.outline(block)
    assert (list(stamps), told, alike) == (names, {name: volumes[name] for name in "ca"}, [])
    again = packing.encode(packing.entries(block))
    assert list(packing.decode(again)) == list(volumes.values())
    assert packing.find(again, "a") == volumes["a"]


@pytest.mark.parametrize("mixed", [False, True])
def test_a_block_has_its_volumes_as_they_were_put_in(mixed: bool) -> None:
    other = Like("file", "qcow2", {"compat": "0.10"})
    entries: dict[str, packing.Entry] = {f"a{n}": (numbers(n), LIKE) for n in range(3)}
    if mixed:
        entries |= {"b": numbers(7), "c": (numbers(8), other), "d": VolumeInfo("d", "dir", "dir")}
        entries |= {"e": VolumeInfo("e", "block", "raw", 5, key="k", detail={"odd": 1})}
        entries |= {"f": VolumeInfo("f", "file", "qcow2", inode=(1 << 64) - 1, detail={"odd": 2})}
    block = packing.encode(entries)
    found = packing.entries(block)
    assert list(found) == list(entries)
    assert {name: found[name] for name in entries if name != "f"} == {n: entries[n] for n in entries if n != "f"}
    volumes = {volume.name: volume for volume in packing.decode(block)}
    assert volumes["a1"] == LIKE.volume("a1", numbers(1))
    if mixed:
        assert volumes["f"] == entries["f"]
        told = packing.outline(block)
        assert told[1] == {name: volumes[name] for name in "cef"}
        assert told[2] == [Alike(LIKE, {f"a{n}": numbers(n) for n in range(3)})]


def known(fetched: list[str | None]) -> tuple[Known, dict[str, VolumeInfo]]:
    """What is known of five volumes: two are told, one like others, two are read by ``fetched``, of which one is gone."""
    volumes = {
        "told": VolumeInfo("told", "file", "vmdk", stamp=1, detail={"odd": 1}),
        "folder": VolumeInfo("folder", "dir", "dir", stamp=5),
        "plain": VolumeInfo("plain", "file", "raw", stamp=2),
        "like": LIKE.volume("like", numbers(3)),
    }

    def fetch(name: str | None) -> list[VolumeInfo]:
        fetched.append(name)
        return [volumes["plain"], VolumeInfo("told", "file", "raw"), VolumeInfo("since", "file", "raw")]

    stamps = {"told": 1, "folder": 5, "plain": 2, "like": 3, "gone": 4}
    alike = {LIKE.key(): Alike(LIKE, {"like": numbers(3)})}
    return Known(stamps, {name: volumes[name] for name in ("told", "folder")}, fetch, alike), volumes


def test_what_is_known_is_read_when_it_is_asked_for() -> None:
    fetched: list[str | None] = []
    one, volumes = known(fetched)
    assert one["told"] is volumes["told"] and fetched == []
    assert one.held("plain") is None
    assert one["plain"] is volumes["plain"] and one.held("plain") is volumes["plain"] and fetched == ["plain"]
    assert one["like"] == volumes["like"] and one["like"] is one["like"]
    for name, asked in (("gone", "gone"), ("since", None)):  # deleted, or made, after the stamps were read
        fetched.clear()
        with pytest.raises(KeyError):
            one[name]
        assert fetched == [asked] * (asked is not None)


def test_all_that_is_known_is_read_at_once() -> None:
    fetched: list[str | None] = []
    one, volumes = known(fetched)
    assert len(one) == 5 and fetched == []
    for _ in range(2):
        assert {name: one[name] for name in one} == volumes
        with pytest.raises(KeyError):
            one["gone"]
    assert fetched == [None]
    assert Known.of(one) is one
    other = Known.of(volumes)
    assert dict(other) == volumes and other.stamps == {name: v.stamp for name, v in volumes.items()}
    with pytest.raises(KeyError):
        other["gone"]


@pytest.mark.parametrize("gone", ["", "plain", "like", "told"])
def test_a_listing_has_what_is_the_same_and_what_is_new(gone: str) -> None:
    one, volumes = known([])
    one.stamps = {name: stamp for name, stamp in one.stamps.items() if name != "gone"}
    same = [name for name in volumes if name != gone]
    found = Listing(one)
    for name in same:
        found.add(one[name])
    assert found.same == same and not found.others
    found.plain["new"] = numbers(5)
    found.numbers_like(LIKE)["overlay"] = numbers(6)
    found.add(VolumeInfo("other", "file", "qed", stamp=7, detail={"odd": 2}))
    found.add(VolumeInfo("bare", "dir", "dir", stamp=8))
    assert list(found.names()) == [volume.name for volume in found] == [*same, "new", "overlay", "other", "bare"]
    assert len(found) == len(list(found)) and found[-1].name == "bare"
    assert found.stamps == {"other": 7, "bare": 8}
    with_detail = {volume.name for volume in found if volume.detail is not None}
    assert with_detail == {"overlay", "other", "told", "like"} - {gone}
    assert {volume.name: volume for volume in found.told()} == {v.name: v for v in found if v.name in with_detail}
    assert {name: v.detail for v, names in found.kinds() for name in names} == {
        v.name: v.detail for v in found if v.name in with_detail
    }


def test_a_listing_of_any_volumes_tells_the_same_objects_from_new_ones() -> None:
    _, volumes = known([])
    now = [volumes["plain"], volumes["like"]._replace(capacity=9), VolumeInfo("new", "file", "raw")]
    found = Listing.of(iter(now), volumes)
    assert (found.same, list(found.others)) == (["plain"], ["like", "new"])
    assert list(found) == now and Listing.of(found) is found
    assert list(Listing.of(iter(now)).others.values()) == now, "where nothing is known all are new"


@pytest.mark.parametrize(("packed", "inode"), [(0, 0), (1, 1), (-1, (1 << 64) - 1)])
def test_inode_numbers_are_unsigned(packed: int, inode: int) -> None:
    assert LIKE.volume("a", NUMBERS.pack(1, 2, 3, 4, packed, *[0] * 6)).inode == inode


def test_portions_of_a_listing_are_joined_to_another_one() -> None:
    one, _ = known([])
    found, other = Listing(one), Listing(one)
    for n in range(5):
        found.plain[f"p{n}"] = found.numbers_like(LIKE)[f"a{n}"] = numbers(n)
        found.stamps |= {f"p{n}": n, f"a{n}": n}
        found.add(VolumeInfo(f"o{n}", "file", "qed", stamp=n))
    found.links.append("link")
    portions = list(found.portions(2))
    assert max(len(names) for _, names, *_ in portions) == 2
    for portion in portions:
        other.join(marshal.loads(marshal.dumps(portion)))
    assert list(other) == list(found)
    assert (other.stamps, other.links, other.same) == (found.stamps, ["link"], [])


def test_an_inventory_of_the_seventh_version_still_knows_what_stands_on_what(pool: Pool, tmp_path: Path) -> None:
    number = pool._core.record("p").id
    before = pool._core.inventory.edges(number)
    assert len(before) == COUNT + 1
    pool._core.inventory.close()
    path = pool._core.inventory.path
    age(path, 7)
    inventory = Inventory(path)
    assert inventory.edges(number) == before
    inventory.close()


def test_a_place_that_no_file_has_is_no_end_of_a_listing(pool: Pool, place: Path) -> None:
    """The reference counts of an image lie at 2^64 - 1 by its header."""
    data = image()
    data[48:56] = b"\xff" * 8
    (place / "hostile").write_bytes(data)
    pool.refresh()
    assert "truncated" in pool.volume("hostile").info.problem
