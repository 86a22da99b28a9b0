"""The inventory: blocks of volumes that say what was put into them, and merge what several processes did."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from poolkit.backend import Recorded, Usage, VolumeInfo
from poolkit.state import packing
from poolkit.state.inventory import Inventory

USAGE = Usage(10, 4, 6)
numbers = st.integers(0, (1 << 63) - 1)
details = st.none() | st.dictionaries(st.sampled_from(["backing", "error", "compat"]), st.text(max_size=5), min_size=1)
infos = st.builds(
    VolumeInfo,
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    st.sampled_from(["file", "dir", "block"]),
    st.sampled_from(["raw", "qcow2", ""]),
    numbers,
    numbers,
    numbers,
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 0o7777),
    numbers,
    numbers,
    numbers,
    numbers,
    numbers,
    st.none() | st.text(max_size=5),
    st.none() | st.text(max_size=5),
    details,
)


@given(st.lists(infos, max_size=20, unique_by=lambda v: v.name))
def test_a_block_gives_back_what_was_put_into_it(volumes: list[VolumeInfo]) -> None:
    block = packing.encode({v.name: v for v in volumes})
    assert list(packing.decode(block)) == volumes
    for volume in volumes:
        assert packing.find(block, volume.name) == volume
    assert packing.find(block, "no such name at all") is None


def test_a_size_that_no_file_can_have_does_not_end_a_refresh() -> None:
    block = packing.encode({"v": VolumeInfo("v", capacity=1 << 70)})
    assert next(packing.decode(block)).capacity == (1 << 63) - 1


def _pool(inventory: Inventory, name: str = "p") -> int:
    inventory.make()
    inventory.put(name, f"uuid-{name}", "dir", stamp=1, claims=(), target=f"/{name}")
    record = inventory.record(name)
    assert record is not None
    return record.id


def _volume(name: str, version: int = 0, **more: object) -> VolumeInfo:
    return VolumeInfo(name, "file", "raw", version, 0, 1, version, 1, **more)  # type: ignore[arg-type]


def test_any_order_of_changes_ends_as_in_a_dictionary(tmp_path: Path) -> None:
    chance = random.Random(4)
    with_two = [Inventory(str(tmp_path / "i.sqlite")) for _ in range(2)]
    pool = _pool(with_two[0])
    other = _pool(with_two[0], "other")
    with_two[0].put_volumes(other, [_volume("0500", 99)])
    model: dict[str, VolumeInfo] = {}
    for turn in range(150):
        inventory = chance.choice(with_two)
        kind = chance.randrange(4)
        if kind == 0:
            size = chance.choice([0, 3, 300, 900])
            record = inventory.by_id(pool)
            assert record is not None
            scanned, known = inventory.known(record)
            names = {f"{chance.randrange(1000):04}" for _ in range(size)} if chance.random() < 0.3 else set(known)
            names ^= {f"{chance.randrange(1000):04}" for _ in range(chance.choice([0, 1, 5, 40]))}
            listing = {n: known[n] if n in known and chance.random() < 0.9 else _volume(n, turn) for n in names}
            # Others change something while the scan goes on: theirs is newer.
            made, gone = f"{chance.randrange(1000):04}", f"{chance.randrange(1000):04}"
            with_two[0].put_volumes(pool, [_volume(made, 1000 + turn)])
            with_two[1].drop_volume(pool, gone)
            inventory.save_listing(pool, list(listing.values()), scanned, USAGE)
            model = {**listing, made: _volume(made, 1000 + turn)}
            model.pop(gone, None)
        elif kind == 1:
            name = f"{chance.randrange(1000):04}"
            model[name] = _volume(name, turn, key=f"key-{name}" if chance.random() < 0.5 else None)
            inventory.put_volumes(pool, [model[name]])
        elif kind == 2:
            name = chance.choice(sorted(model) or ["none"])
            model.pop(name, None)
            inventory.drop_volume(pool, name)
        for look in with_two:
            assert look.volumes(pool) == [model[n] for n in sorted(model)]
            name = f"{chance.randrange(1000):04}"
            assert look.volume(pool, name) == model.get(name)
            wanted = model.get(name)
            keyed = [v for _, v in look.find("key", f"key-{name}")]
            assert keyed == ([wanted] if wanted is not None and wanted.key else [])
    assert with_two[0].volumes(other) == [_volume("0500", 99)]
    for inventory in with_two:
        inventory.close()


def test_what_is_recorded_for_a_place_outlives_its_pool(tmp_path: Path) -> None:
    inventory = Inventory(str(tmp_path / "i.sqlite"))
    pool = _pool(inventory)
    inventory.put_volumes(pool, [VolumeInfo("disk", "file", "raw", 1, 1, 1, 7, (1 << 64) - 5)])
    inventory.drop(pool)
    assert inventory.formats("/p") == {"disk": Recorded((1 << 64) - 5, "raw")}
    assert inventory.format("/p", "disk") == Recorded((1 << 64) - 5, "raw")
    assert inventory.format("/p", "other") is None
    pool = _pool(inventory)
    inventory.drop(pool, formats=False)
    assert inventory.formats("/p") == {}
    inventory.close()


def test_a_record_stays_while_its_file_cannot_be_read(tmp_path: Path) -> None:
    inventory = Inventory(str(tmp_path / "i.sqlite"))
    pool = _pool(inventory)
    inventory.record_format("/p", "disk", 7, "raw")
    unread = VolumeInfo("disk", detail={"error": "cannot be looked at", "unread": True})
    for info in (unread, VolumeInfo("disk", "dir", "dir", detail={"covered": "'x' is mounted on it"})):
        inventory.save_listing(pool, [info], 0, USAGE)
        assert inventory.formats("/p") == {"disk": Recorded(7, "raw")}
    inventory.save_listing(pool, [VolumeInfo("disk", "file", "raw", 1, 1, 1, 7, 7)], 0, USAGE)
    assert inventory.formats("/p") == {}, "from now on the listing carries it"
    inventory.close()


def test_a_scan_that_began_first_and_ends_last_learns_of_all_changes(tmp_path: Path) -> None:
    inventory = Inventory(str(tmp_path / "i.sqlite"))
    pool = _pool(inventory)
    inventory.put_volumes(pool, [_volume("old")])
    record = inventory.by_id(pool)
    first, known = inventory.known(record)
    listing = list(known.values())
    inventory.put_volumes(pool, [_volume("new")])
    inventory.drop_volume(pool, "old")
    second = inventory.known(record)[0]
    inventory.save_listing(pool, [_volume("new", 5)], second, USAGE)
    inventory.save_listing(pool, listing, first, USAGE)
    assert [v.name for v in inventory.volumes(pool)] == ["new"]
    inventory.close()


def test_a_few_changes_among_many_volumes(tmp_path: Path) -> None:
    inventory = Inventory(str(tmp_path / "i.sqlite"))
    pool = _pool(inventory)
    volumes = {f"{n:05}": _volume(f"{n:05}") for n in range(3000)}
    inventory.save_listing(pool, list(volumes.values()), 0, USAGE)
    record = inventory.by_id(pool)
    scanned, known = inventory.known(record)
    listing = dict(known)
    del listing["00000"]
    listing["01500"] = _volume("01500", 7)
    listing["!first"] = _volume("!first", 7)
    for n in range(600):
        listing[f"02000-{n:03}"] = _volume(f"02000-{n:03}", 7)
    inventory.save_listing(pool, list(listing.values()), scanned, USAGE)
    assert inventory.volumes(pool) == [listing[n] for n in sorted(listing)]
    for name in ("!first", "00001", "01500", "02000-599", "02999"):
        assert inventory.volume(pool, name) == listing[name]
    assert inventory.volume(pool, "00000") is None
    inventory.close()
