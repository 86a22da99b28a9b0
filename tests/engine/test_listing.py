"""A listing on its way to the inventory: what stays a name, what comes packed, and what a look at it gives."""

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

from poolkit import errors, formats
from poolkit.backend import Usage, VolumeInfo
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import directory, entries, newfiles
from poolkit.formats import ImageInfo, usual
from poolkit.host import beside, places, together
from poolkit.host.mounts import Mount
from poolkit.host.together import share
from poolkit.listing import Known, Listing
from poolkit.state import packing
from poolkit.state.inventory import Inventory
from tests.engine.test_descriptors import opened
from tests.formats.test_usual import image

USAGE = Usage(10, 5, 5)
COUNT = 600  # more than two blocks
NONE = ("no process", "no descriptor")
"""What a copy of the process cannot be had for."""


@pytest.fixture(autouse=True)
def _what_was_opened_is_closed() -> Iterator[None]:
    before = opened()
    yield
    assert opened() <= before  # fewer: garbage of other tests is collected whenever it is


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Pool]:
    place = tmp_path / "images"
    place.mkdir()
    for number in range(COUNT):
        (place / f"disk{number:03}").write_bytes(b"x" * 4096)
        os.utime(place / f"disk{number:03}", (1, 1))
    with Engine(tmp_path / "root") as engine:
        pool = engine.define(f"<pool type='dir'><name>p</name><target><path>{place}</path></target></pool>")
        pool.start()
        yield pool


def _age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were made just now count as old: their stamps are kept."""
    monkeypatch.setattr(newfiles, "_TICK", 0)
    monkeypatch.setattr(newfiles, "_SECOND", 0)


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


def test_an_unchanged_listing_makes_no_volume(images: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _age(monkeypatch)
    images.refresh()
    made: list[str] = []
    real = packing._volume

    def noted(n: int, name: str, *rest: Any) -> VolumeInfo:
        made.append(name)
        return real(n, name, *rest)

    monkeypatch.setattr(packing, "_volume", noted)
    assert not images.refresh().changed
    (Path(images.info.target or "") / "new").write_bytes(b"x" * 4096)
    assert images.refresh().changed
    assert made == []
    assert len(images.volumes()) == COUNT + 1
    with Engine(tmp_path / "root") as other:  # a new process reads the stamps
        made.clear()
        assert not other.pool("p").refresh().changed
        assert made == []


def test_a_changed_file_has_the_format_on_record_whatever_its_new_content(
    images: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _age(monkeypatch)
    images.refresh()
    with (Path(images.info.target or "") / "disk300").open("r+b") as file:
        file.write(b"QFI\xfb\0\0\0\3" + bytes(512))
    assert images.refresh().changed
    info = images.volume("disk300").info
    assert (info.format, (info.detail or {}).get("looks_like")) == ("raw", "qcow2")
    assert images.volume("disk299").info.detail is None
    assert images.refresh().warnings, "what is told of an unchanged volume is told again"


def test_a_new_file_that_cannot_be_read_is_listed_with_the_reason(
    images: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(images.info.target or "")
    (place / "bad").write_bytes(b"x" * 8192)
    bad = os.stat(place / "bad").st_ino
    real = os.pread

    def pread(fd: int, count: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == bad:
            raise OSError(5, os.strerror(5))
        return real(fd, count, offset)

    for module in (formats, usual):
        monkeypatch.setattr(module, "pread", pread)
    images.refresh()
    assert "Input/output error" in images.volume("bad").info.problem
    assert len(images.volumes()) == COUNT + 1


def _take(folder: Path, found: Listing, now: int) -> None:
    """Add the file ``f`` of a folder as a scan does."""

    def other(fd: int, name: str, facts: os.stat_result, image: object) -> None:
        assert isinstance(image, ImageInfo)
        found.add(entries.volume(name, facts, now, image.format, image.capacity or 0, None))

    fd = os.open(folder, os.O_RDONLY)
    try:
        newfiles.taker(fd, now, found, other, lambda _: ("raw", None), trust_blocks=True)("f")
    finally:
        os.close(fd)


def test_packed_and_whole_volumes_are_stored_alike(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 5000)
    facts = file.stat()
    found = Listing(Known.of({}))
    _take(tmp_path, found, facts.st_ctime_ns)
    whole = entries.volume("f", facts, facts.st_ctime_ns, "raw", facts.st_size, None)
    assert list(found) == [whole]
    assert packing.encode(dict(found.plain)) == packing.encode({"f": whole})
    assert packing.entries(packing.encode(dict(found.plain))) == found.plain


def test_a_stamp_is_kept_only_where_a_later_change_would_show() -> None:
    second = 1_000_000_000
    now = 100 * second
    young = {
        now + 1: True,  # a clock that was set back
        now - 49_999_999: True,
        now - 50_000_000: False,
        now - second: True,  # a file system of whole seconds, by the looks of it
        now - second + 1: False,
        now - 2 * second: False,
    }
    assert {ctime: newfiles.is_young(ctime, now) for ctime in young} == young


@pytest.mark.parametrize(
    ("size", "blocks", "trusted", "read"),
    [(1 << 20, 0, True, False), (1 << 20, 8, True, True), (1 << 20, 0, False, True), (4096, 0, True, True)],
)
def test_nothing_is_read_of_a_file_that_has_no_blocks(
    size: int, blocks: int, trusted: bool, read: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a small one, which may be in its inode, and where a server tells late of blocks."""
    file = tmp_path / "f"
    file.write_bytes(b"x" * 512 * blocks)
    os.truncate(file, size)
    if bool(file.stat().st_blocks) is not bool(blocks):
        pytest.skip("this file system has other blocks")
    looked: list[int] = []
    real = usual.glance
    monkeypatch.setattr(usual, "glance", lambda fd, size, **how: (looked.append(size), real(fd, size, **how))[1])
    found = Listing(Known.of({}))
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        none = lambda *_: None  # noqa: E731
        hollow = newfiles.taker(fd, time.time_ns(), found, none, none, trust_blocks=trusted)("f")
    finally:
        os.close(fd)
    assert looked == [size] * read and hollow is (not read)
    assert [(v.format, v.capacity) for v in found] == [("raw", size)]


@pytest.mark.parametrize("age", [0, 49_000_000, 51_000_000, 3_000_000_000])
def test_the_stamp_of_a_new_file_is_kept_when_it_is_old_enough(age: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 5000)
    os.utime(tmp_path / "f")
    changed = os.stat(tmp_path / "f").st_ctime_ns
    found = Listing(Known.of({}))
    _take(tmp_path, found, changed + age)
    whole = changed % 1_000_000_000 == 0  # once in many runs, or where the file system has no more
    assert bool(found.stamps["f"]) is (age >= (2_000_000_000 if whole else 50_000_000))


@pytest.mark.parametrize(("content", "format"), [(b"x" * 8192, "raw"), (bytes(image()), "qcow2")])
def test_an_inode_number_of_64_bits_is_kept(
    content: bytes, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = (1 << 64) - 5
    (tmp_path / "f").write_bytes(content)
    facts = os.stat_result((0o100600, number, 1, 1, 0, 0, len(content), 1, 1, 1))
    found = Listing(Known.of({}))

    class Facts:
        st_blocks, st_atime_ns, st_mtime_ns, st_ctime_ns = 16, 1, 1, 1

        def __iter__(self) -> Iterator[int]:
            return iter(facts)

        def __getattr__(self, name: str) -> object:
            return getattr(facts, name)

    monkeypatch.setattr(newfiles.os, "fstat", lambda fd: Facts())
    _take(tmp_path, found, 1 << 62)
    assert [(v.inode, v.format) for v in found] == [(number, format)]
    assert [v.inode for v in packing.decode(packing.encode(found.others))] == [number]


def test_what_one_scan_saw_unchanged_and_another_missed_stays(tmp_path: Path) -> None:
    inventory = Inventory(str(tmp_path / "i.sqlite"))
    inventory.make()
    inventory.put("p", "uuid", "dir", stamp=1, claims=(), target="/p")
    record = inventory.record("p")
    assert record is not None
    inventory.save_listing(
        record.id, [VolumeInfo("a", "file", "qcow2", stamp=1, inode=1, detail={"compat": "1.1"})], 0, USAGE
    )
    version, known = inventory.known(inventory.record("p"))
    found = Listing(known)
    found.same.append("a")
    inventory.save_listing(record.id, [], version, USAGE)
    assert inventory.volumes(record.id) == []
    inventory.save_listing(record.id, found, version, USAGE)
    assert [v.detail for v in inventory.volumes(record.id)] == [{"compat": "1.1"}]
    inventory.close()


def test_files_that_are_looked_at_at_the_same_time_are_listed_as_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _age(monkeypatch)
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


@pytest.mark.parametrize("end", ["well", "killed", "failed", "halfway", *NONE])
def test_what_a_copy_of_the_process_compares_is_what_one_process_finds(
    images: Pool, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    _age(monkeypatch)
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


def test_the_copy_reads_no_record_and_touches_nothing_that_is_mounted(
    images: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _age(monkeypatch)
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
