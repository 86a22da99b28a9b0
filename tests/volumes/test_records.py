"""What is on record of a file is what was read of it, and it belongs to that file alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import directory
from poolkit.formats import listed
from poolkit.formats.usual import glance
from poolkit.host import libc
from tests.formats import samples

from .conftest import MIB, content, make, put, xml

QCOW2 = samples.qcow2(size=MIB).ljust(65536, b"\0")
DISC = samples.iso().pread(100 * 2048, 0)


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Switch errors of the disk on and off."""

    def switch(on: bool) -> None:
        def fail(fd: int, size: int, **how: bool) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr("poolkit.formats.listed", fail if on else listed)
        monkeypatch.setattr("poolkit.formats.usual.glance", fail if on else glance)

    return switch


def test_what_could_not_be_read_is_no_fact(pool: Pool, place: Path, unreadable: Callable[[bool], None]) -> None:
    unreadable(True)
    volume = put(pool, "disk", QCOW2)
    assert volume.info.format == ""
    assert "Input/output error" in volume.info.problem
    assert "<format" not in volume.xml()
    with pytest.raises(errors.HostError, match="format is not known"):
        volume.clone("copy")
    with pytest.raises(errors.HostError, match="format is not known"):
        pool.create_volume(
            xml("over", None, "qcow2", backing=f"<backingStore><path>{volume.path}</path></backingStore>")
        )
    with pytest.raises(errors.HostError, match="Input/output"):
        volume.adopt()
    unreadable(False)
    assert any("1 volume" in warning for warning in pool.refresh().warnings) is False
    assert pool.volume("disk").info.format == "qcow2", "it was tried again although nothing changed"


def test_it_is_no_fact_after_undefine_either(engine: Engine, pool: Pool, unreadable: Callable[[bool], None]) -> None:
    unreadable(True)
    put(pool, "disk", QCOW2)
    text = pool.xml(inactive=True)
    pool.destroy()
    pool.undefine()
    unreadable(False)
    pool = engine.define(text)
    pool.start()
    assert pool.volume("disk").info.format == "qcow2"


def test_an_error_does_not_undo_a_record(pool: Pool, place: Path, unreadable: Callable[[bool], None]) -> None:
    volume = make(pool, "disk")
    (place / "disk").write_bytes(QCOW2)
    unreadable(True)
    pool.refresh()
    assert pool.volume("disk").info.format == "raw"
    unreadable(False)
    pool.refresh()
    assert pool.volume("disk").info.format == "raw"
    assert content(volume.look()) == QCOW2


def test_a_record_made_for_a_file_goes_before_what_was_listed_of_another(
    engine: Engine, pool: Pool, place: Path
) -> None:
    put(pool, "disk", QCOW2)
    (place / "new").write_bytes(QCOW2)
    os.replace(place / "new", place / "disk")  # as far as a process came that died before the listing was changed
    engine.core.inventory.record_format(str(place), "disk", (place / "disk").stat().st_ino, "raw")
    assert pool.volume("disk").look().info.format == "raw"
    pool.refresh()
    assert pool.volume("disk").info.format == "raw"
    (place / "new").write_bytes(QCOW2)
    os.replace(place / "new", place / "disk")
    pool.refresh()
    assert pool.volume("disk").info.format == "qcow2", "another file has no part in it"


def test_a_file_that_cannot_be_opened(pool: Pool, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def deny(path: object, flags: int, *args: int, **how: int) -> int:
        if path == "disk":
            raise PermissionError(errno.EACCES, "Permission denied", "disk")
        return real(path, flags, *args, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", deny)
    assert put(pool, "disk", QCOW2).info.format == ""
    monkeypatch.setattr(os, "open", real)
    outcome = pool.refresh()
    assert pool.volume("disk").info.format == "qcow2"
    assert not outcome.warnings


def test_a_disc_that_was_half_there_becomes_one(pool: Pool, place: Path) -> None:
    assert put(pool, "disc", DISC[:20_000]).info.format == "raw"
    assert put(pool, "disc", DISC).info.format == "iso"
    assert put(pool, "disc", bytes(range(256)) * 400).info.format == "raw"
    assert put(pool, "disc", samples.iso(samples.qcow2()).pread(100 * 2048, 0)).info.format == "raw", "two formats"


def test_a_disc_can_be_kept_as_a_raw_disk(pool: Pool) -> None:
    volume = put(pool, "disc", DISC)
    assert volume.adopt("raw")
    assert pool.volume("disc").info.format == "raw"


def test_record_and_content_that_disagree_are_counted(pool: Pool) -> None:
    make(pool, "fine")
    make(pool, "disk", size=len(QCOW2))
    Path(pool.volume("disk").path).write_bytes(QCOW2)
    outcome = pool.refresh()
    assert pool.volume("disk").info.format == "raw"
    assert (pool.volume("disk").info.detail or {})["looks_like"] == "qcow2"
    assert [w for w in outcome.warnings if "1 volume is" in w and "'disk'" in w]
    assert pool.volume("fine").info.problem == ""


def test_a_file_with_the_inode_number_of_another_is_put_in_doubt(
    pool: Pool, engine: Engine, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ext4 and xfs give the number of a deleted file to the next one; here the birth time of the new one is later."""
    born = [0]
    monkeypatch.setattr(directory.libc, "birth", lambda fd: born[0])
    make(pool, "disk", size=len(QCOW2))
    born[0] = pool.volume("disk").info.ctime + 1
    (place / "disk").write_bytes(QCOW2)  # the same inode number
    pool.refresh()
    for _ in range(2):  # being listed twice settles nothing
        volume = pool.volume("disk")
        assert volume.info.format == "raw", "a guest could have written this header if the clock was set back"
        assert "inode number" in volume.warning
        with pytest.raises(errors.Unsafe, match="several formats"):
            volume.clone("copy")
        os.utime(place / "disk")
        pool.refresh()
    assert volume.adopt("qcow2")
    pool.refresh()
    assert pool.volume("disk").info.format == "qcow2" and pool.volume("disk").info.problem == ""


def test_the_record_of_a_doubted_file_outlives_undefine(
    pool: Pool, engine: Engine, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(pool, "disk", size=len(QCOW2))
    monkeypatch.setattr(directory.libc, "birth", lambda fd: 1 << 62)
    (place / "disk").write_bytes(QCOW2)
    pool.refresh()
    text = pool.xml(inactive=True)
    pool.destroy()
    pool.undefine()
    pool = engine.define(text)
    pool.start()
    assert pool.volume("disk").info.format == "raw"


def test_the_time_of_birth(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    facts = path.stat()
    with open(path, "rb") as file:
        born = libc.birth(file.fileno())
        if born:
            assert facts.st_ctime_ns - 60_000_000_000 < born <= facts.st_ctime_ns
            path.write_bytes(b"more")
            assert libc.birth(file.fileno()) == born
    with pytest.raises(OSError):
        os.fstat(10_000)
    assert libc.birth(10_000) == 0


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM], ids=errno.errorcode.get)
@pytest.mark.parametrize("verb", ["wipe", "upload", "resize", "clone", "link"])
def test_an_image_whose_header_cannot_be_read_is_left_alone(
    pool: Pool, place: Path, monkeypatch: pytest.MonkeyPatch, verb: str, number: int
) -> None:
    volume = put(pool, "image", QCOW2)
    calls: dict[str, Callable[[], object]] = {
        "wipe": lambda: volume.wipe("random"),
        "upload": lambda: volume.upload(BytesIO(QCOW2)),
        "resize": lambda: volume.resize(2 * MIB),
        "clone": lambda: volume.clone("copy"),
        "link": lambda: volume.clone("copy", linked=True),
    }

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("poolkit.formats.as_format", fail)
        with pytest.raises(errors.HostError, match="so its capacity is not known"):
            calls[verb]()
    assert os.listdir(place) == ["image"] and (place / "image").read_bytes() == QCOW2
    assert volume.look().info.capacity == MIB, "what it is stays on record"


@pytest.mark.parametrize("failing", range(1, 5))
def test_one_read_that_fails_makes_no_other_image_of_it(
    pool: Pool, place: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    volume = put(pool, "image", QCOW2)
    pread, calls = os.pread, 0

    def fail(fd: int, length: int, offset: int) -> bytes:
        nonlocal calls
        calls += os.readlink(f"/proc/self/fd/{fd}") == f"{place}/image"
        if calls == failing:
            calls += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, length, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        with suppress(errors.HostError):
            volume.wipe("zero")
    assert volume.look().info.capacity == MIB
    os.utime(place / "image")
    with monkeypatch.context() as patch:
        calls = 0
        patch.setattr(os, "pread", fail)
        pool.refresh()
    pool.refresh()
    info = pool.volume("image").info
    assert (info.format, info.capacity, info.problem) == ("qcow2", MIB, ""), "it is looked at again"
