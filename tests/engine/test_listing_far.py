"""Listings whose calls a server answers: many at once, asked for ahead, and no more than are needed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors, formats
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import directory, newfiles
from poolkit.formats import usual
from poolkit.host import places, together
from poolkit.host.mounts import Mount
from poolkit.host.together import share
from poolkit.listing import Known, Listing

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


@pytest.mark.usefixtures("old_enough")
def test_files_that_are_looked_at_at_the_same_time_are_listed_as_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "images"
    place.mkdir()
    for number in range(200):
        head = (b"x", b"QFI\xfb\0\0\0\3" + bytes(96), b"", bytes(4096), b"KDMV")[number % 5]
        (place / f"disk{number:03}").write_bytes(head + b"y" * (number % 3 * 4000))
    os.truncate(place / "disk007", 1 << 30)
    (place / "folder").mkdir()
    (place / "link").symlink_to("disk001")
    os.mkfifo(place / "fifo")
    monkeypatch.setattr(together, "_WAIT", -1)
    listed = []
    for at_once in (1, 32):
        monkeypatch.setattr(directory.DirectoryBackend, "at_once", at_once)
        with Engine(tmp_path / f"root{at_once}") as engine:
            pool = engine.define(f"<pool type='dir'><name>p</name><target><path>{place}</path></target></pool>")
            pool.start()
            (place / "disk000").write_bytes(b"changed" * 1000)
            assert pool.refresh().changed
            assert not pool.refresh().changed
            listed.append([volume.info._replace(stamp=0, atime=0) for volume in pool.volumes()])
        (place / "disk000").write_bytes(b"x")
    assert [v.name for v in listed[0]] == sorted({*os.listdir(place)} - {"link", "fifo"})
    changed = {"disk000"}
    assert [v for v in listed[0] if v.name not in changed] == [v for v in listed[1] if v.name not in changed]
    assert len({v.format for v in listed[1]}) >= 4


def test_what_is_shared_is_taken_once_and_the_first_error_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_WAIT", -1)  # each look counts as one that waited
    taken: list[int] = []
    share(taken.extend, range(1000), 8)
    assert sorted(taken) == list(range(1000))
    share(taken.extend, [], 8)
    done: list[int] = []

    def work(items: Iterator[int]) -> None:
        for item in items:
            if item == 5:
                raise ValueError(item)
            done.append(item)

    with pytest.raises(ValueError, match="5"):
        share(work, range(100_000), 4)
    assert 5 not in done
    assert len(done) < 100_000 - 1, "the others went on to the end"


def test_only_who_waits_is_helped(monkeypatch: pytest.MonkeyPatch) -> None:
    workers: set[int] = set()
    arrived = threading.Barrier(4, timeout=60)

    def work(items: Iterator[int]) -> None:
        for item in items:
            workers.add(threading.get_ident())
            if item >= 2:
                arrived.wait()  # four are at work at the same time, or this breaks

    monkeypatch.setattr(together, "_WAIT", 1e9)
    share(lambda items: [workers.add(threading.get_ident()) for _ in items] and None, range(1000), 4)
    assert workers == {threading.get_ident()}, "what waits for nobody is done by one"
    monkeypatch.setattr(together, "_WAIT", -1)
    share(work, range(6), 4)
    assert len(workers) == 4


def test_what_is_shared_can_be_stopped_before_each_item() -> None:
    stop, done = threading.Event(), []

    def check() -> None:
        if stop.is_set():
            raise errors.Aborted("stopped on request")

    def work(items: Iterator[int]) -> None:
        for item in items:
            done.append(item)
            stop.set()

    with pytest.raises(errors.Aborted):
        share(work, range(1000), 4, check)
    assert done == [0]


@pytest.mark.parametrize("size", [100, 4096, 5000, 32774, 1 << 20])
def test_what_is_read_of_a_far_file_is_asked_for_at_once(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How often a file is asked for anything, and that no read waits before the last one is under way."""
    place = tmp_path / "images"
    place.mkdir()
    (place / "disk").write_bytes(b"x" * size)
    calls: list[tuple[str, int]] = []

    def noted(module: Any, name: str, offset: int) -> None:
        real = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            advice = arguments[3:] == (os.POSIX_FADV_RANDOM,)
            calls.append(("alone" if advice else name, arguments[offset] // 4096 if offset else 0))
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    for name, offset in (("pread", 2), ("posix_fadvise", 1)):
        noted(formats, name, offset)
        noted(usual, name, offset)
    for name in ("open", "fstat", "close"):
        noted(newfiles.os, name, 0)
    for far in (False, True):
        found = Listing(Known.of({}))
        fd = os.open(place, os.O_RDONLY)
        try:
            none = lambda *_: None  # noqa: E731
            take = newfiles.taker(fd, time.time_ns(), found, none, none, trust_blocks=False, ahead=far)
            calls.clear()
            take("disk")
        finally:
            taken = list(calls)
            os.close(fd)
        assert list(found.plain) == ["disk"]
        assert [name for name, _ in taken if name in ("open", "fstat", "close")] == ["open", "fstat", "close"]
        reads = [page for name, page in taken if name == "pread"]
        advised = [page for name, page in taken if name == "posix_fadvise"]
        assert len(reads) == 1 + (size >= 512) + (size > 32774)
        assert set(advised) == (set(reads) - {0} if far else set())
        assert [name for name, _ in taken if name == "alone"] == ["alone"] * (far and size > 4096)
        if advised:
            names = [name for name, _ in taken]
            assert names.index("pread") > len(names) - 1 - names[::-1].index("posix_fadvise")


def test_the_sizes_of_a_far_directory_are_asked_for_once_and_with_the_listing(
    images: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = os.statvfs

    def statvfs(path: str) -> os.statvfs_result:
        asked.append(threading.get_ident())
        return real(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(directory.DirectoryBackend, "at_once", 32)
    core = images._core
    backend = core.definitions.backend(images.definition(), core.host.operation())
    asked.clear()
    backend.scan(Listing(Known.of({})))
    first = backend.usage(())
    assert len(asked) == 1
    assert asked[0] != threading.get_ident()
    assert backend.usage(()).capacity == first.capacity
    assert len(asked) == 2, "a later question has its own answer"


def test_of_a_noted_directory_only_what_was_noted_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = [Mount("0:0", "/", "/", "fuse.far", "far", "rw")]
    monkeypatch.setattr(places, "_generation", lambda path: 0)
    monkeypatch.setattr(os, "statvfs", lambda path: type("Facts", (), {"f_fsid": 0}))
    noted = places.note(str(tmp_path), mounts)
    for name in ("_generation", "os.statvfs"):
        monkeypatch.setattr(f"poolkit.host.places.{name}", lambda path: pytest.fail("a server was asked for nothing"))
    assert places.replaced(noted, str(tmp_path), mounts) == ""
    (tmp_path / "other").mkdir()
    assert "is another one" in places.replaced(noted, str(tmp_path / "other"), mounts)
