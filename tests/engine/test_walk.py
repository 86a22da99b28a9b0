"""Listings that are read in portions: how much of them is in memory, and what comes when others change them meanwhile."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.backend import Usage, VolumeInfo
from poolkit.cli import main, output
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.state import blocks, inventory, packing

Large = Callable[[int], Pool]


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Large]:
    """A started pool of as many volumes as one likes, which are on record alone."""
    with Engine(root=tmp_path / "root") as engine:

        def made(count: int) -> Pool:
            target = tmp_path / "images"
            target.mkdir()
            pool = engine.define(f"<pool type='dir'><name>images</name><target><path>{target}</path></target></pool>")
            pool.start()
            number = engine.core.record("images").id
            volumes = [VolumeInfo(f"disk{n:05}", "file", "raw", 1 << 20, n) for n in range(count)]
            known = engine.core.inventory.version(number)
            engine.core.inventory.save_listing(number, volumes, known, Usage(1, 1, 1))
            return pool

        yield made


def test_volumes_are_made_as_they_are_asked_for(large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = large(3_000)
    unpacked = []
    monkeypatch.setattr(packing, "decode", lambda block, real=packing.decode: unpacked.append(block) or real(block))
    each = pool.iter_volumes()
    assert next(each).name == "disk00000"
    assert len(unpacked) == 1
    assert [v.name for v in each] == [f"disk{n:05}" for n in range(1, 3_000)]
    assert pool.volumes() == list(pool.iter_volumes())


def test_each_volume_that_stays_comes_once_whatever_others_do(large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "PAGE", 2)
    monkeypatch.setattr(packing, "SIZE", 8)
    pool = large(120)
    chance = random.Random(11)
    store = pool._core.inventory
    number = pool._core.record("images").id
    stay = {f"disk{n:05}" for n in range(120)}
    seen: list[str] = []
    for turn, volume in enumerate(pool.iter_volumes()):
        seen.append(volume.name)
        if turn % 10 == 0:
            for _ in range(6):  # blocks are divided before, at and after the place that the reader has reached
                store.put_volumes(number, [VolumeInfo(f"disk{chance.randrange(120):05}-{chance.randrange(99)}")])
        if turn % 17 == 0:
            gone = f"disk{chance.randrange(120):05}"
            store.drop_volume(number, gone)
            stay.discard(gone)
        if turn == 60:  # all blocks are made anew
            there = [VolumeInfo(name, "file", "raw", 9, 9) for name in chain(stay, ["another"])]
            store.save_listing(number, there, store.version(number), Usage(1, 1, 1))
    assert stay <= set(seen)
    assert seen == sorted(set(seen))


def test_nothing_of_a_damaged_listing_is_handed_out(large: Large) -> None:
    pool = large(600)
    with closing(sqlite3.connect(pool._core.inventory.path)) as db, db:
        db.execute("UPDATE blocks SET volumes = substr(volumes, 1, 100) WHERE first > 'disk00300'")
    with pytest.raises(errors.HostError, match="damaged on the disk"):
        next(pool.iter_volumes())


def test_a_name_that_is_not_there_is_compared_with_those_next_to_it(
    large: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = large(20_000)
    unpacked = []
    monkeypatch.setattr(packing, "names", lambda block, real=packing.names: unpacked.append(block) or real(block))
    monkeypatch.setattr(packing, "decode", None)  # no volume is made for it
    with pytest.raises(errors.VolumeNotFound) as caught:
        pool.volume("disk12345.raw")
    assert caught.value.hint == "did you mean 'disk12345'?"
    assert len(unpacked) <= 2 * inventory._NEAR


def test_of_a_small_pool_every_name_may_be_meant(large: Large) -> None:
    with pytest.raises(errors.VolumeNotFound) as caught:
        large(2_000).volume("risk00017")
    assert caught.value.hint == "did you mean 'disk00017'?"


ROWS = [("a", "1 B"), ("longer than all", "10 B"), ("c", "123456789 B"), ("d\x1b[2J", "x")]


@pytest.mark.parametrize("held", [0, 1, 2, 3, 4, 5])
def test_a_long_table_is_the_same_however_much_of_it_is_held(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "HELD", held)
    heads, paint = ("Name", "Size"), output.Paint(None)
    walks = []
    lines = list(output.long_table(heads, lambda: walks.append(1) or iter(ROWS), paint, right=("Size",)))
    assert lines == output.table(heads, ROWS, paint, right=("Size",))
    assert len(walks) == (1 if held >= len(ROWS) else 2)
    assert list(output.long_table(heads, lambda: iter([]), paint)) == ["Name  Size"]


def test_a_list_in_json_is_what_the_library_makes_of_it(
    large: Large, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pool = large(0)
    for count in (0, 1, 300):
        number = pool._core.record("images").id
        volumes = [
            VolumeInfo(f"n\u00e4me\n{n}", "file", "raw", 1, 1, detail={"also": ["a", "b"]}) for n in range(count)
        ]
        known = pool._core.inventory.version(number)
        pool._core.inventory.save_listing(number, volumes, known, Usage(1, 1, 1))
        assert main(["--root", str(tmp_path / "root"), "vol-list", "images", "--json"]) == 0
        said = capsys.readouterr().out
        assert len(json.loads(said)) == count
        assert said == json.dumps(json.loads(said), indent=2) + "\n"
