"""A new file is listed in the moment before it has its name: what others see and do in that moment, and what is left of it."""

from __future__ import annotations

import _thread
import errno
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolkit import errors, formats
from poolkit.engine import Engine
from poolkit.host import Host, descriptors

from .conftest import make, new_pool, share_blocks, xml


class Moments:
    """Does something once, at one fault point, and counts all."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.at: str | None = None
        self.do: Callable[[], object] = lambda: None

    def __call__(self, label: str) -> None:
        self.seen.append(label)
        if label == self.at:
            self.at = None
            self.do()


@pytest.fixture
def moments() -> Moments:
    return Moments()


@pytest.fixture(params=["no name", "temporary"])
def engine(
    request: pytest.FixtureRequest, tmp_path: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    if request.param == "temporary":
        monkeypatch.setattr("poolkit.host.files.Files.has_unnamed", lambda *_: False)
    with Engine(tmp_path / "root", host=Host(fault=moments)) as engine:
        new_pool(engine, tmp_path / "images")
        yield engine


def _listed(engine: Engine) -> dict[str, str]:
    return {volume.name: volume.info.format for volume in engine.pool("images").volumes()}


@pytest.mark.parametrize("verb", ["create", "clone", "import"])
def test_format_and_listing_are_one_transaction(engine: Engine, moments: Moments, verb: str) -> None:
    pool = engine.pool("images")
    source = make(pool, "source")
    moments.seen.clear()
    if verb == "create":
        made = make(pool, "made")
    elif verb == "clone":
        made = source.clone("made")
    else:
        made = pool.import_volume("made", source.path)
    assert moments.seen.count("passed: inventory committed") == 1
    assert moments.seen.index("passed: inventory committed") < moments.seen.index("name made")
    assert pool.volume("made").info == made.info
    assert made.info.inode == os.stat(made.path).st_ino


@pytest.mark.parametrize("label", ["name new", "fsync directory of new"])
def test_a_refresh_that_does_not_find_it_yet_keeps_it_listed(
    engine: Engine, moments: Moments, tmp_path: Path, label: str
) -> None:
    def refresh() -> None:
        with Engine(tmp_path / "root") as other:
            other.pool("images").refresh()

    def beside() -> None:
        thread = threading.Thread(target=refresh)  # whose locks are not those of the verb
        thread.start()
        thread.join()

    moments.at, moments.do = label, beside
    make(engine.pool("images"), "new")
    assert moments.at is None
    assert _listed(engine) == {"new": "raw"}
    os.unlink(tmp_path / "images" / "new")
    engine.pool("images").refresh()
    assert _listed(engine) == {}


def test_a_foreign_file_that_takes_the_name_is_not_listed_as_ours(
    engine: Engine, moments: Moments, tmp_path: Path
) -> None:
    place = tmp_path / "images"
    moments.at, moments.do = "name new", lambda: (place / "new").write_bytes(b"foreign")
    with pytest.raises(errors.VolumeExists):
        make(engine.pool("images"), "new")
    assert _listed(engine) == {}
    assert (place / "new").read_bytes() == b"foreign"
    engine.pool("images").refresh()
    assert engine.pool("images").volume("new").info.physical == 7


def test_a_name_that_is_taken_is_refused_before_anything_is_written(
    engine: Engine, moments: Moments, tmp_path: Path
) -> None:
    pool = engine.pool("images")
    source = make(pool, "source")
    (tmp_path / "images" / "there").write_bytes(b"foreign")
    moments.seen.clear()
    for verb in (lambda: pool.import_volume("there", source.path), lambda: source.clone("there")):
        with pytest.raises(errors.VolumeExists):
            verb()
    assert not [label for label in moments.seen if label.endswith(" there")]
    assert (tmp_path / "images" / "there").read_bytes() == b"foreign"


def test_what_is_stopped_when_it_is_whole_gets_no_name(engine: Engine, moments: Moments, tmp_path: Path) -> None:
    stop = threading.Event()
    moments.at, moments.do = "fsync new", stop.set
    with pytest.raises(errors.Aborted):
        engine.pool("images").create_volume(xml("new"), abort=stop)
    assert moments.at is None and "name new" not in moments.seen
    assert _listed(engine) == {} and os.listdir(tmp_path / "images") == []


@pytest.mark.parametrize("label", ["name new", "fsync directory of new"])
def test_a_failure_takes_it_from_the_listing(engine: Engine, moments: Moments, tmp_path: Path, label: str) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def interrupt() -> None:
        raise KeyboardInterrupt

    pool = engine.pool("images")
    for do, error in ((fail, errors.HostError), (interrupt, KeyboardInterrupt)):
        moments.at, moments.do = label, do
        with pytest.raises(error):
            make(pool, "new")
        assert _listed(engine) == {}
        assert os.listdir(tmp_path / "images") == []
    make(pool, "new")
    assert _listed(engine) == {"new": "raw"}


def test_what_was_left_is_not_mistaken_for_what_has_its_name_since(
    engine: Engine, moments: Moments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The undo of a failed create waits, and meanwhile another volume was made in its place."""
    pool, real = engine.pool("images"), os.unlink

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def refuse(path: str, **how: int) -> None:
        if str(path).endswith("/new"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(path, **how)

    moments.at, moments.do = "fsync directory of new", fail
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(errors.HostError):
            make(pool, "new")
    assert len(engine.core.operations.waiting()) == 1
    assert _listed(engine) == {}
    place = tmp_path / "images"
    os.rename(place / "new", place / "away")
    (place / "new").write_bytes(b"another")
    with Engine(tmp_path / "root") as other:
        other.pool("images").refresh()
        assert other.core.operations.waiting() == []
    assert (place / "new").read_bytes() == b"another"
    assert "new" in _listed(engine)


@pytest.mark.parametrize("threads", [True, False])
def test_bytes_that_do_not_come_to_the_disk_are_a_failure(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: bool
) -> None:
    """A clone that shares blocks is brought to the disk while it is put on record: both are taken back."""
    source = make(engine.pool("images"), "source")
    share_blocks(monkeypatch)
    real, failing = os.fsync, True

    def fsync(fd: int) -> None:
        nonlocal failing
        if failing and "/images/" in os.readlink(f"/proc/self/fd/{fd}"):
            failing = False
            time.sleep(0.05)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        if not threads:
            patch.setattr(_thread, "start_new_thread", none)
        with pytest.raises(errors.HostError, match="Input/output error"):
            source.clone("copy")
    assert _listed(engine) == {"source": "raw"}
    assert os.listdir(tmp_path / "images") == ["source"]
    source.clone("copy")
    assert set(_listed(engine)) == {"source", "copy"}


def test_an_interrupt_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor is closed next, and its number is another file's then."""
    going = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda fd: going.wait(30))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    wait = descriptors.begin_sync(0)
    lines, first = inspect.getsourcelines(wait)
    waits = first + next(number for number, line in enumerate(lines) if "with ended" in line)

    def interrupt() -> None:
        main = threading.main_thread().ident or 0
        while (frame := sys._current_frames()[main]).f_code is not wait.__code__ or frame.f_lineno != waits:
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.5)  # it could be back by then
        going.set()

    try:
        with pytest.raises(KeyboardInterrupt):
            threading.Thread(target=interrupt).start()
            wait()
    finally:
        signal.signal(signal.SIGINT, before)
    assert going.is_set()
    wait()


def test_it_is_listed_with_what_it_stands_on(engine: Engine, tmp_path: Path) -> None:
    pool = engine.pool("images")
    base = make(pool, "base", "raw")
    pool.create_volume(xml("linked", format="qcow2", more=f"<backingStore><path>{base.path}</path></backingStore>"))
    with pytest.raises(errors.HasDependents):
        base.delete()


def test_a_copy_is_told_by_what_was_copied(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file would have to come from the disk to be read; one that is larger than its source is read itself."""
    pool = engine.pool("images")
    source = make(pool, "source")
    with open(source.path, "r+b") as file:
        file.write(b"\1" * 4096)
    pool.refresh()
    real, read = formats.listed, []

    def listed(fd: int, size: int) -> object:
        read.append(os.fstat(fd).st_ino)
        return real(fd, size)

    monkeypatch.setattr(formats, "listed", listed)
    same = pool.volume("source").clone("same")
    assert same.info.inode not in read
    assert same.info == pool.volume("same").info
    larger = pool.volume("source").clone(xml("larger", 2 * source.info.capacity, more="<allocation>0</allocation>"))
    assert larger.info.inode in read
    pool.refresh()
    for name, capacity in (("same", source.info.capacity), ("larger", 2 * source.info.capacity)):
        info = pool.volume(name).info
        assert (info.format, info.capacity, info.detail) == ("raw", capacity, None)
