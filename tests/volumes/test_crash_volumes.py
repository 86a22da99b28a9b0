"""Killed or failing at any step of a volume verb, the directory is as before or as after."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine, creating
from poolkit.host import Host
from tests.engine.test_crash import _leftovers, _run_and_die
from tests.formats import samples
from tests.sweep import Points, Sampled

from .conftest import MIB, new_pool, xml

Verb = Callable[[Engine, Path], object]
OLD = samples.qcow2(size=MIB).ljust(65536, b"\0")
NEW = samples.qcow2(size=2 * MIB).ljust(65536, b"\0")
tools = pytest.mark.tools("qemu-img", "prlimit")


def prepare(place: Path) -> None:
    with Engine(place / "root") as engine:
        pool = new_pool(engine, place / "images", "p")
        (place / "images" / "image").write_bytes(OLD)
        pool.refresh()
        pool.create_volume(xml("disk", MIB, more="<allocation>0</allocation>")).upload(BytesIO(b"data" * 1000))


def many(engine: Engine, place: Path) -> None:
    """Three volumes in two portions."""
    creating.AT_ONCE = 2  # in a child, or taken back by the fixture
    engine.pool("p").create_volumes([xml("new"), xml("new1", more="<allocation>0</allocation>"), xml("new2")])


@pytest.fixture(autouse=True)
def _as_many_as_ever() -> Iterator[None]:
    yield
    creating.AT_ONCE = AT_ONCE


AT_ONCE = creating.AT_ONCE
VERBS: dict[str, Verb] = {
    "create many": many,
    "create raw": lambda e, d: e.pool("p").create_volume(xml("new")),
    "create qcow2": lambda e, d: e.pool("p").create_volume(xml("new", format="qcow2")),
    "copy": lambda e, d: e.pool("p").volume("disk").clone("new", reflink=False),
    "copy an image": lambda e, d: e.pool("p").volume("image").clone("new"),
    "convert": lambda e, d: e.pool("p").volume("disk").clone(xml("new", 2 * MIB, "qcow2")),
    "import": lambda e, d: e.pool("p").import_volume("new", BytesIO(NEW)),
    "link": lambda e, d: e.pool("p").volume("disk").clone("new", linked=True),
    "upload an image": lambda e, d: e.pool("p").volume("image").upload(BytesIO(NEW)),
    "wipe an image": lambda e, d: e.pool("p").volume("image").wipe("random"),
    "resize raw": lambda e, d: e.pool("p").volume("disk").resize(2 * MIB, allocate=True),
}
CASES = [
    pytest.param(n, marks=tools if n in ("create qcow2", "convert", "link", "wipe an image") else ()) for n in VERBS
]


def check(place: Path, name: str, where: str) -> bool:
    """The pool is as before (False) or as after (True), to the last file; anything else fails."""
    assert _leftovers(place) == [], where
    images = place / "images"
    names = sorted(p.name for p in images.iterdir())
    if name == "upload an image":
        data = (images / "image").read_bytes()
        assert names == ["disk", "image"] and data in (OLD, NEW), where
        after = data == NEW
    elif name == "wipe an image":
        after = (images / "image").read_bytes() != OLD
        assert names == ["disk", "image"], where
    elif name == "resize raw":
        size = (images / "disk").stat().st_size
        assert names == ["disk", "image"] and size in (MIB, 2 * MIB), where
        after = size == 2 * MIB
    else:
        new = ["new", "new1", "new2"] if name == "create many" else ["new"]
        assert names in (["disk", "image"], ["disk", "image", *new]), where
        after = "new" in names
    assert (images / "disk").read_bytes()[:4000] == b"data" * 1000, where
    with Engine(place / "root") as engine:
        pool = engine.pool("p")
        pool.refresh()
        assert sorted(v.name for v in pool.volumes()) == names, where
        assert all("error" not in (v.info.detail or {}) for v in pool.volumes()), where
        assert (pool.volume("image").info.format, pool.volume("image").info.capacity) in (
            ("qcow2", MIB),
            ("qcow2", 2 * MIB),
        ), where
        if after and name in ("create qcow2", "convert", "link"):
            assert pool.volume("new").info.format == "qcow2", where
        if after and name in ("create raw", "create many", "copy"):
            assert pool.volume("new").info.format == "raw", where
    return after


@pytest.mark.parametrize("name", CASES)
def test_killed_at_every_step(name: str, tmp_path: Path, sampled: Sampled[int]) -> None:
    for step in sampled(range(1, 100)):
        passed = Points()
        place = tmp_path / str(step)
        place.mkdir()
        prepare(place)
        if not _run_and_die(place, VERBS[name], step, passed):
            break
        with Engine(place / "root"):  # the next process takes back or completes
            pass
        if not check(place, name, f"killed at step {step}"):
            with Engine(place / "root") as engine:
                VERBS[name](engine, place)
            assert check(place, name, f"again after step {step}")
    assert passed.count > 2, "the verb has no fault points: nothing was tested"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EPERM], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", CASES)
def test_failing_at_every_step(name: str, number: int, tmp_path: Path, sampled: Sampled[int]) -> None:
    for step in sampled(range(1, 100)):
        place = tmp_path / str(step)
        place.mkdir()
        prepare(place)
        count = 0

        def fault(label: str) -> None:
            nonlocal count
            if label.startswith("passed:"):
                return  # nothing can fail there
            count += 1
            if count == step:  # noqa: B023 - called within this turn of the loop
                raise OSError(number, os.strerror(number))

        with Engine(place / "root", host=Host(fault=fault)) as engine:
            try:
                VERBS[name](engine, place)
                failed = False
            except errors.HostError as error:
                failed = True
                assert os.strerror(number) in str(error)
        after = check(place, name, f"failed at step {step}")
        if not failed:
            assert after
            break
        if not after:
            with Engine(place / "root") as engine:
                VERBS[name](engine, place)
    assert count > 2


@tools
@pytest.mark.parametrize("algorithm", ["zero", "random"])
def test_the_old_data_of_a_wipe_that_was_killed_is_gone_after_the_recovery(tmp_path: Path, algorithm: str) -> None:
    prepare(tmp_path)
    with (tmp_path / "images" / "image").open("r+b") as old:
        assert _run_and_die(tmp_path, lambda e, _: e.pool("p").volume("image").wipe(algorithm), f"wipe {algorithm}")
        old.seek(0)
        assert old.read() == OLD
        with Engine(tmp_path / "root") as engine:
            assert any("vol-wipe" in line for line in engine.recovered)
        old.seek(0)
        assert os.fstat(old.fileno()).st_nlink == 0
        assert (old.read() == OLD) == (algorithm == "zero"), "zero promises no more than that the blocks are freed"
    assert check(tmp_path, "wipe an image", "after the recovery")


@tools
def test_a_volume_is_not_overwritten_by_the_recovery_when_nothing_had_replaced_it(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert _run_and_die(tmp_path, lambda e, _: e.pool("p").volume("image").wipe("random"), "rename image")
    with Engine(tmp_path / "root"):
        pass
    assert not check(tmp_path, "wipe an image", "after the recovery")


IN_PLACE: dict[str, Verb] = {
    "upload": lambda e, d: e.pool("p").volume("disk").upload(BytesIO(b"new" * (MIB // 3))),
    "wipe": lambda e, d: e.pool("p").volume("disk").wipe("random"),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_what_was_left_half_written_is_told(name: str, tmp_path: Path) -> None:
    order = ["before", "marked", "told", "after"]
    seen: list[str] = []
    for step in range(1, 30):
        place = tmp_path / str(step)
        place.mkdir()
        prepare(place)
        before = (place / "images" / "disk").read_bytes()
        if not _run_and_die(place, IN_PLACE[name], step):
            break
        with Engine(place / "root") as engine:
            lines = [line for line in engine.recovered if "volume 'disk' of pool 'p' was being" in line]
            marked = engine.pool("p").volume("disk").look().info.problem
        changed = (place / "images" / "disk").read_bytes() != before
        seen.append("marked" if marked else "told" if lines else "after" if changed else "before")
        assert _leftovers(place) == []
        with Engine(place / "root") as engine:
            assert engine.recovered == [], "it is told once"
            assert engine.pool("p").volume("disk").info.problem == marked, "the mark came or went by itself"
    assert "marked" in seen and seen == sorted(seen, key=order.index), (
        "something was changed before it would have been told"
    )


def test_what_came_to_its_end_is_not_told(tmp_path: Path) -> None:
    prepare(tmp_path)
    with Engine(tmp_path / "root") as engine:
        for verb in IN_PLACE.values():
            verb(engine, tmp_path)
        with pytest.raises(errors.InvalidArgument, match="has room for"):
            engine.pool("p").volume("disk").upload(BytesIO(bytes(2 * MIB)))
    with Engine(tmp_path / "root") as engine:
        assert engine.recovered == []
    assert _leftovers(tmp_path) == []
