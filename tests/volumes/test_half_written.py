"""A volume that is written in place and left half-written stays marked until it is whole, and is told of by every look."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.backend import Source, VolumeInfo
from poolkit.backends.dir import DirBackend
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from poolkit.host import Host
from poolkit.state.database import VERSION
from poolkit.state.unfinished import Mark
from tests.inventories import age

from .conftest import MIB, Broken, make, new_pool, xml


def half(pool: Pool, name: str = "disk", offset: int = 0) -> Volume:
    """A volume that an upload has left half-written."""
    volume = make(pool, name)
    with pytest.raises(errors.HostError):
        volume.upload(Broken(b"new" * 1000), offset=offset)
    assert problem(pool, name).startswith("it is half-written: it was being written to")
    return volume


def problem(pool: Pool, name: str = "disk") -> str:
    """What the listing and a look say of a volume, which is the same."""
    said = {volume.info.problem for volume in pool.volumes() if volume.name == name}
    said |= {pool.volume(name).info.problem, pool.volume(name).look().info.problem}
    assert len(said) == 1
    return said.pop()


ENDS: dict[str, Callable[[Volume], object]] = {
    "uploaded again": lambda v: v.upload(BytesIO(b"x" * 10)),
    "uploaded whole": lambda v: v.upload(BytesIO(bytes(MIB)), length=MIB),
    "wiped": lambda v: v.wipe(),
    "adopted": lambda v: v.adopt(),
    "made anew": lambda v: (v.delete(), v.pool.create_volume(xml(v.name))),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_ends_it(pool: Pool, name: str) -> None:
    assert ENDS[name](half(pool))
    assert problem(pool) == ""


STAYS: dict[str, Callable[[Volume], object]] = {
    "written behind it": lambda v: v.upload(BytesIO(b"x"), offset=5),
    "written in part": lambda v: v.upload(BytesIO(b"x" * 10), length=10),
    "made larger": lambda v: v.resize(2 * MIB),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_does_not(pool: Pool, name: str) -> None:
    assert STAYS[name](half(pool))
    assert "upload it again, wipe it" in problem(pool)


def test_another_failure_joins_the_first(pool: Pool) -> None:
    volume = half(pool, offset=2000)
    assert "from byte 2000 on" in problem(pool)
    with pytest.raises(errors.HostError):
        volume.upload(Broken(b"x"), offset=1000)
    volume.upload(BytesIO(b"x"), offset=2000)
    assert "from byte 1000 on" in problem(pool)


def test_work_that_fails_before_its_first_byte_changes_no_mark(pool: Pool, engine: Engine) -> None:
    volume = make(pool, "disk")
    with pytest.raises(errors.InvalidArgument):
        volume.upload(BytesIO(b"x"), offset=2 * MIB)
    assert problem(pool) == ""
    half(pool, "other", offset=100)
    with pytest.raises(errors.InvalidArgument):
        pool.volume("other").upload(BytesIO(b"x"), offset=2 * MIB)
    assert "from byte 100 on" in problem(pool, "other")


def test_another_file_with_the_name_is_not_marked(pool: Pool, place: Path) -> None:
    half(pool)
    (place / "new").write_bytes(b"x")
    os.rename(place / "new", place / "disk")
    pool.refresh()
    assert problem(pool) == ""


def test_the_mark_outlives_the_pool(engine: Engine, pool: Pool, place: Path) -> None:
    half(pool)
    pool.destroy()
    pool.undefine()
    assert "half-written" in problem(new_pool(engine, place, "again"))


def test_copies_say_what_they_are_copies_of(pool: Pool) -> None:
    made = half(pool).clone("copy")
    assert made.outcome is not None and any(
        "'disk' of pool 'images' is half-written" in line for line in made.outcome.warnings
    )
    volume = pool.volume("disk")
    volume.download(BytesIO())
    assert volume.outcome is not None and any("is half-written" in line for line in volume.outcome.warnings)
    assert problem(pool, "copy") == ""


def test_refresh_and_start_count_them(pool: Pool) -> None:
    half(pool)
    half(pool, "another")
    assert any("2 volumes are half-written: 'another' and 'disk'" in str(line) for line in pool.refresh().warnings)
    pool.destroy()
    assert any("2 volumes are half-written" in str(line) for line in pool.start().warnings)


def test_it_is_not_told_of_work_that_is_under_way(pool: Pool, engine: Engine) -> None:
    class Looking(BytesIO):
        def readinto(self, into: Any, /) -> int:
            seen.append({v.name: v.info.problem for v in pool.volumes()}["disk"])
            return super().readinto(into)

    seen: list[str] = []
    make(pool, "disk").upload(Looking(b"x" * 1000))
    assert seen and set(seen) == {""}


def test_overwriting_in_place_marks_as_well(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pools of logical units have; here with files, of which the second time all are written."""
    broken = [True]

    def overwrite(self: DirBackend, info: VolumeInfo, source: Source) -> VolumeInfo:
        with self.open_volume(info, write=True) as fd, source.open() as other:
            self.host.step("copy")
            os.pwrite(fd, os.pread(other, 100, 0), 0)
            if broken.pop():
                raise OSError(errno.EIO, "the medium is gone")
        return self.look(info.name, info)

    monkeypatch.setattr(DirBackend, "overwrite", overwrite, raising=False)
    target, source = make(pool, "disk"), make(pool, "source")
    with pytest.raises(errors.HostError):
        target.overwrite(source)
    assert "it was being overwritten" in problem(pool)
    broken.append(False)
    assert target.overwrite(source)
    assert problem(pool) == ""


@pytest.mark.tools("qemu-img", "prlimit")
def test_an_image_that_is_replaced_as_a_whole_is_never_half(pool: Pool) -> None:
    image = make(pool, "image", "qcow2")
    with pytest.raises(errors.HostError):
        image.upload(Broken(b"QFI\xfb"))
    assert problem(pool, "image") == ""


def test_what_cannot_be_noted_does_not_stop_the_work(tmp_path: Path) -> None:
    def full(label: str) -> None:
        if label.startswith("commit") and armed:
            raise OSError(errno.ENOSPC, "full")

    armed: list[bool] = []
    with Engine(tmp_path / "root", host=Host(fault=full)) as engine:
        pool = new_pool(engine, tmp_path / "images")
        volume = make(pool, "disk")
        armed.append(True)
        try:
            volume.upload(BytesIO(b"x" * 1000))
        except errors.NoSpace:
            pass  # the listing could not be stored, which is another matter
        assert (tmp_path / "images" / "disk").read_bytes()[:1000] == b"x" * 1000


def test_an_inventory_of_the_version_before_has_no_marks(tmp_path: Path) -> None:
    with Engine(tmp_path / "root") as engine:
        make(new_pool(engine, tmp_path / "images"), "disk")
        path = engine.core.inventory.path
    age(path, VERSION - 1)
    with Engine(tmp_path / "root") as engine:
        pool = engine.pool("images")
        assert problem(pool) == ""
        pool.volume("disk").delete()
        half(pool)


@pytest.mark.parametrize(
    ("mark", "work", "ended"),
    [
        ((0, None), (0, None), True),
        ((10, None), (0, None), True),
        ((0, None), (10, None), False),
        ((0, None), (0, 99), False),
        ((0, None), (0, 100), True),
        ((10, 50), (10, 50), True),
        ((10, 50), (10, 49), False),
        ((10, 500), (0, 100), True),
    ],
)
def test_the_ranges_of_marks(mark: tuple[int, int | None], work: tuple[int, int | None], ended: bool) -> None:
    assert Mark("a", "wiped", *mark).ended_by(Mark("a", "wiped", *work), 100) == ended
    assert Mark("a", "wiped", *mark).ended_by(Mark("b", "wiped", 50, 51), 100), "it is another volume's"
