"""What an apply made is remembered: durably, in one line each, whatever crashes and whoever else writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolkit import Engine, errors
from poolkit.engine.plan.marks import Mark, Marks
from poolkit.host import Host
from tests.backends.deaths import killed_at
from tests.sweep import Points, Sampled

from .conftest import World


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "root") as engine:
        yield engine


def marks_of(engine: Engine) -> Marks:
    return Marks(engine.core, "/a/folder")


def names(engine: Engine) -> list[str]:
    return [mark.name for mark in marks_of(engine)]


def test_each_mark_is_one_line_more_and_nothing_else_is_written(engine: Engine) -> None:
    with marks_of(engine) as marks:
        for number in range(100):
            before = Path(marks.path).read_bytes() if number else b""
            marks.add(Mark("volume", f"v{number:03}", "images", "u", f"{number}"))
            data = Path(marks.path).read_bytes()
            assert data.startswith(before)
            assert len(data) - len(before) < 150
        marks.add(Mark("volume", "v000", "images", "u", "0"))
        assert Path(marks.path).read_bytes() == data
        marks.drop("volume", "v001", "images")
        marks.drop("volume", "v001", "images")
    assert names(engine) == ["v000", *(f"v{n:03}" for n in range(2, 100))]


def test_what_is_mostly_of_the_past_is_written_anew(engine: Engine) -> None:
    with marks_of(engine) as marks:
        for number in range(300):
            marks.add(Mark("volume", f"v{number}", "images"))
            marks.drop("volume", f"v{number}", "images")
    with marks_of(engine) as marks:
        marks.add(Mark("pool", "kept"))
    assert names(engine) == ["kept"]
    assert len(Path(marks.path).read_bytes().splitlines()) == 2
    assert os.stat(marks.path).st_mode & 0o777 == 0o600


def test_a_line_that_was_cut_short_is_none_and_harms_no_other(engine: Engine) -> None:
    with marks_of(engine) as marks:
        marks.add(Mark("pool", "a"))
        marks.add(Mark("pool", "b"))
    whole = Path(marks.path).read_bytes()
    for length in range(len(whole.rpartition(b"\n")[0].rpartition(b"\n")[0]) + 1, len(whole)):
        Path(marks.path).write_bytes(whole[:length])
        assert names(engine) == ["a"]
        with marks_of(engine) as again:
            again.add(Mark("pool", "c"))
        assert names(engine) == ["a", "c"]
    Path(marks.path).write_bytes(whole[:5] + b"\n" + whole)
    with pytest.raises(errors.HostError, match="is damaged in line 1"):
        names(engine)


def test_two_that_apply_one_folder_lose_nothing(engine: Engine) -> None:
    with marks_of(engine) as one, marks_of(engine) as other:
        for number in range(5):
            one.add(Mark("pool", f"one{number}"))
            other.add(Mark("pool", f"other{number}"))
        with marks_of(engine) as third:
            third.drop("pool", "one0", None)
    assert names(engine) == ["one1", "one2", "one3", "one4", *(f"other{n}" for n in range(5))]


def test_what_was_told_as_done_is_remembered_after_a_death(tmp_path: Path, sampled: Sampled[int]) -> None:
    for step in sampled(range(1, 20)):
        root = tmp_path / str(step)
        told = root / "told"
        root.mkdir()

        def make(engine: Engine, told: Path = told) -> None:
            with marks_of(engine) as marks:
                for name in ("a", "b", "c"):
                    marks.add(Mark("pool", name))
                    with told.open("a") as file:
                        file.write(name)

        points = Points()
        died = killed_at(root, step, make, points)
        with Engine(root) as engine:
            kept = "".join(names(engine))
            assert kept.startswith(told.read_text() if told.exists() else "")
            make(engine)
            assert names(engine) == ["a", "b", "c"]
        if not died:
            break
    assert points.count > 1


def test_a_file_that_got_the_number_of_one_that_was_made_is_not_pruned(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pool("images")
    world.volume("images", "mine")
    born = 1_000
    monkeypatch.setattr("poolkit.host.libc.birth", lambda fd: born)
    world.apply()
    (world.documents / "images/mine.xml").unlink()
    assert world.signs(prune=True) == {"volume images/mine": "remove"}
    born = 2_000
    assert world.signs(prune=True) == {}


@pytest.mark.tools("qemu-img")
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_volume_that_was_resized_is_still_pruned(world: World, format: str) -> None:
    world.pool("images")
    world.volume("images", "mine", 1 << 20, format)
    world.apply()
    for size in (3 << 20, 2 << 20):
        world.volume("images", "mine", size, format)
        world.apply(shrink=True)
    (world.documents / "images/mine.xml").unlink()
    assert world.signs(prune=True) == {"volume images/mine": "remove"}
    world.apply(prune=True, delete=True)
    assert os.listdir(world.storage / "images") == []


def test_a_mark_that_cannot_be_written_is_an_error_of_its_entry(world: World) -> None:
    world.pool("images")

    def fault(label: str) -> None:
        if label == "fsync the marks":
            raise OSError(28, os.strerror(28))

    with Engine(world.root, host=Host(fault=fault)) as engine:
        done = engine.plan(world.documents).apply()
    assert [type(r.error) for r in done.failed] == [errors.NoSpace]
    world.apply()
