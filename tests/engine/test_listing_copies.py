"""The copy of the process that helps with a listing: what it finds, how it ends, and when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import directory, newfiles
from poolkit.host import beside
from poolkit.listing import Known, Listing
from tests.engine.conftest import COUNT

pytestmark = pytest.mark.usefixtures("nothing_stays_open")

NONE = ("no process", "no descriptor")
"""What a copy of the process cannot be had for."""


def _copied(monkeypatch: pytest.MonkeyPatch, end: str) -> list[int]:
    """The copies of this process that listings make; ``end`` says how they end, or what there is none for."""
    copies: list[int] = []
    real = os.fork

    def fork() -> int:
        if end == "no process":
            raise BlockingIOError(11, "Resource temporarily unavailable")
        pid = real()
        if pid:
            copies.append(pid)
        elif end == "killed":
            os.kill(os.getpid(), 9)
        elif end != "well":
            ends = iter({"failed": [0.0], "halfway": [1, 1, 1, 0.7]}[end])
            beside.write_all = lambda fd, data: _written(fd, data, next(ends))  # of the copy alone
        return pid

    def memfd_create(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(beside, "possible", lambda: True)
    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(newfiles, "_PORTION", 7)
    if end == "no descriptor":
        monkeypatch.setattr(os, "memfd_create", memfd_create)
    return copies


def _written(fd: int, data: bytes, part: float) -> None:
    """Write that part of it; if it is not all, the disk is full."""
    os.write(fd, data[: int(len(data) * part)])
    if part < 1:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("end", ["well", "killed", "failed", "halfway", *NONE])
def test_what_a_copy_of_the_process_lists_is_what_one_process_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    place = tmp_path / "images"
    place.mkdir()
    for number in range(300):
        (place / f"disk{number:03}").write_bytes((b"x", b"QFI\xfb\0\0\0\3", b"\0")[number % 3] * 5000)
    (place / "folder").mkdir()
    for number in range(9):
        (place / f"link{number}").symlink_to("disk001")
    monkeypatch.setattr(directory, "_MANY", 100)
    copies = _copied(monkeypatch, end)
    came: list[str] = []
    looked: list[str] = []
    join, real = Listing.join, os.open
    monkeypatch.setattr(Listing, "join", lambda self, portion: (came.extend(portion[1]), join(self, portion)))
    monkeypatch.setattr(os, "open", lambda path, *how, **more: (looked.append(path), real(path, *how, **more))[1])
    with Engine(tmp_path / "root") as engine:
        pool = engine.define(f"<pool type='dir'><name>p</name><target><path>{place}</path></target></pool>")
        assert any("9 symbolic links are not listed" in words for words in pool.start().warnings)
        names = [volume.name for volume in pool.volumes()]
        assert names == sorted(name for name in os.listdir(place) if not name.startswith("link"))
        assert {v.info.format for v in pool.volumes()} == {"raw", "qcow2", "dir"}
        assert len(came) > 50 if end == "well" else len(came) < 50
        assert bool(came) is (end in ("well", "halfway"))
        assert not set(came) & set(looked), "what came is not looked at again"
        assert len(copies) == (0 if end in NONE else 1)
        for pid in copies:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        (place / "new").write_bytes(b"x")
        assert pool.refresh().changed
        assert len(copies) <= 1, "only what is all new is worth it"


@pytest.mark.usefixtures("old_enough")
@pytest.mark.parametrize("end", ["well", "killed", "failed", "halfway", *NONE])
def test_what_a_copy_of_the_process_compares_is_what_one_process_finds(
    images: Pool, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    place = Path(images.info.target or "")
    (place / "folder").mkdir()
    for number in range(20):
        (place / f"image{number}").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(600))
    images.refresh()
    monkeypatch.setattr(directory, "_MANY_KNOWN", 100)
    copies = _copied(monkeypatch, end)
    assert not images.refresh().changed
    before = {v.name: v.info for v in images.volumes()}
    for number in range(0, 60, 2):
        (place / f"disk{number:03}").write_bytes(b"changed" * 1000)
        (place / f"disk{number + 100:03}").unlink()
        (place / f"new{number}").write_bytes(b"KDMV" if number % 3 else b"x" * 5000)
    for number in range(300, 320):
        (place / f"disk{number}").unlink()
        (place / f"disk{number}").mkdir()
    assert images.refresh().changed
    found = {v.name: v.info for v in images.volumes()}
    assert found.keys() == set(os.listdir(place))
    assert {v.allocation for v in found.values() if v.name in {f"disk{n:03}" for n in range(0, 60, 2)}} == {8192}
    assert {found[f"disk{number}"].type for number in range(300, 320)} == {"dir"}
    same = {"folder", *(f"image{n}" for n in range(20)), *(f"disk{n}" for n in range(400, COUNT))}
    assert {name: found[name] for name in same} == {name: before[name] for name in same}
    assert not images.refresh().changed
    assert len(copies) == (0 if end in NONE else 3)
    for pid in copies:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.usefixtures("old_enough")
def test_the_copy_reads_no_record_and_touches_nothing_that_is_mounted(
    images: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.refresh()
    looked: list[str] = []
    ours = os.stat

    def stat(path: Any, **how: Any) -> os.stat_result:
        assert not how["follow_symlinks"], "what a link leads to may be mounted"
        looked.append(str(path))
        return ours(path, **how)

    known = images._core.inventory.known(images._core.record("p"))[1]
    special = {name for name in known.stamps if name.endswith("7")}
    found = Listing(known)
    monkeypatch.setattr(Known, "__getitem__", lambda self, name: pytest.fail("a record was read"))

    @contextmanager
    def doing(work: Any) -> Iterator[Any]:  # here, so that what it does can be seen
        def hand_on(take: Any) -> bool:
            for one in work():
                take(one)
            return True

        yield hand_on

    monkeypatch.setattr(beside, "doing", doing)
    walked: list[str] = []
    fd = os.open(images.info.target or "", os.O_RDONLY)
    try:
        with os.scandir(fd) as entries, monkeypatch.context() as patched:
            patched.setattr(os, "stat", stat)
            newfiles.compared_in_parts(
                fd, lambda _, each: walked.extend(entry.name for entry in each), found, entries, special
            )
    finally:
        os.close(fd)
    assert special < set(walked), "what is mounted is not the copy's to look at"
    assert not special & set(looked)
    assert sorted([*walked, *found.same]) == sorted(known.stamps), "each is one's or the other's"
    assert set(looked) == set(found.same)
    assert len(looked) > COUNT / 3


@pytest.mark.parametrize(("said", "idle"), [([1], True), ([9, 1], True), ([2, 2, 2], False), ([3, 3, 3], False)])
def test_a_copy_needs_a_processor_that_is_idle(monkeypatch: pytest.MonkeyPatch, said: list[int], idle: bool) -> None:
    assert beside._running() >= 1
    looks = iter(said)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(os, "listdir", lambda path: ["1"])
    monkeypatch.setattr(beside, "_running", lambda: next(looks))
    assert beside.possible() is idle
    assert list(looks) == []


@pytest.mark.parametrize("lacks", ["nothing", "a second processor", "the number of processors"])
def test_a_copy_needs_a_second_processor(monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: None if lacks == "the number of processors" else 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0} if lacks == "a second processor" else {0, 1})
    monkeypatch.setattr(os, "listdir", lambda path: ["1"])
    monkeypatch.setattr(beside, "_running", lambda: 1)
    assert beside.possible() is (lacks == "nothing")


def test_an_abort_ends_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split()
    with pytest.raises(KeyboardInterrupt), beside.doing(lambda: iter(lambda: time.sleep(600), 1)):
        assert set(children.read_text().split()) > set(before)
        raise KeyboardInterrupt
    assert set(children.read_text().split()) <= set(before), "neither running nor waiting to be reaped"


def test_a_copy_dies_with_its_parent_and_holds_no_lock_of_it(tmp_path: Path) -> None:
    place = tmp_path / "images"
    place.mkdir()
    for number in range(300):
        (place / f"disk{number:03}").touch()
    program = f"""
import os, time
from poolkit.engine import Engine
from poolkit.families import directory, newfiles
from poolkit.host import beside
directory._MANY, newfiles._PORTION, beside.possible = 100, 1, lambda: True
def slow(fd, data):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(1)
beside.write_all = slow
with Engine({str(tmp_path / "root")!r}) as engine:
    engine.pool("p").start()
"""
    with Engine(tmp_path / "root") as engine:
        images = engine.define(f"<pool type='dir'><name>p</name><target><path>{place}</path></target></pool>")
        _killed(program, images)
        assert images.start().changed


def _killed(program: str, images: Pool) -> None:
    """Kill a program with a copy; the copy ends, and the pool is not held by it."""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        copy = int(parent.stdout.readline())
        with pytest.raises(errors.Busy):
            images.start()
        parent.kill()
        parent.wait()
    until = time.monotonic() + 20
    while Path(f"/proc/{copy}/fd").exists() and list(Path(f"/proc/{copy}/fd").iterdir()):
        assert time.monotonic() < until, "the copy goes on without its parent"
        time.sleep(0.01)


def test_a_process_with_threads_has_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(beside, "_running", lambda: 0)  # however busy the machine is
    waiting = threading.Event()
    thread = threading.Thread(target=waiting.wait)
    thread.start()
    try:
        assert not beside.possible()
    finally:
        waiting.set()
        thread.join()
