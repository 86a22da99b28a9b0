"""Somebody else may write into the directory of a pool: what was checked is what is worked on, and nothing else."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.backend import VolumeInfo
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from poolkit.families.filepool import FileBackend
from tests.formats import samples

from .conftest import MIB, make, put, xml

VERBS: dict[str, Callable[[Volume], object]] = {
    "wipe": lambda v: v.wipe(),
    "resize": lambda v: v.resize(2 * MIB),
    "upload": lambda v: v.upload(BytesIO(b"overwritten")),
    "delete": lambda v: v.delete(),
    "clone": lambda v: v.clone("clone"),
    "download": lambda v: v.download(BytesIO()),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("plant", ["link to a file", "dangling link", "fifo", "device", "directory", "other file"])
def test_what_took_the_place_of_a_volume_is_not_touched(
    pool: Pool, place: Path, tmp_path: Path, verb: str, plant: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious" * 1000)
    volume = make(pool, "disk")
    (place / "disk").unlink()
    if plant == "link to a file":
        (place / "disk").symlink_to(victim)
    elif plant == "dangling link":
        (place / "disk").symlink_to(tmp_path / "nowhere")
    elif plant == "fifo":
        os.mkfifo(place / "disk")
    elif plant == "device":
        (place / "disk").symlink_to("/dev/null")
    elif plant == "directory":
        (place / "disk").mkdir()
    else:
        (place / "disk").write_bytes(b"something else")
    try:
        VERBS[verb](volume)
    except errors.PoolkitError as error:
        assert str(error)
    assert victim.read_bytes() == b"precious" * 1000
    assert not (tmp_path / "nowhere").exists()


@contextmanager
def swapping(place: Path, name: str, victim: Path) -> Iterator[list[int]]:
    """While the body runs ``name`` is now the volume, now a link to the victim; the list has the number of turns."""
    turns = [0]
    stop = threading.Event()
    good, bad = place / ".good", place / ".bad"
    os.link(place / name, good)

    def swap() -> None:
        while not stop.is_set():
            bad.unlink(missing_ok=True)
            bad.symlink_to(victim)
            os.replace(bad, place / name)
            bad.unlink(missing_ok=True)
            os.link(good, bad)
            os.replace(bad, place / name)
            turns[0] += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield turns
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("verb", ["wipe", "resize", "upload", "download", "clone"])
def test_a_name_that_is_swapped_all_the_time_never_leads_outside(
    pool: Pool, place: Path, tmp_path: Path, verb: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious" * 1000)
    volume = make(pool, "disk")
    outcomes = set()
    with swapping(place, "disk", victim) as turns:
        for number in range(150):
            try:
                if verb == "wipe":
                    volume.wipe(force=True)
                elif verb == "resize":
                    volume.resize(MIB + 4096 * (number + 1), force=True)
                elif verb == "upload":
                    volume.upload(BytesIO(b"overwritten"), force=True)
                elif verb == "download":
                    out = BytesIO()
                    volume.download(out)
                    assert b"precious" not in out.getvalue()
                else:
                    clone = volume.clone(f"clone{number}")
                    assert b"precious" not in Path(clone.path).read_bytes()
                outcomes.add("done")
            except errors.PoolkitError as error:
                outcomes.add(type(error).__name__)
    assert victim.read_bytes() == b"precious" * 1000
    assert turns[0] and outcomes, "the race was not run"


@pytest.mark.parametrize("verb", ["wipe", "resize", "upload"])
def test_a_file_with_several_names_is_changed_only_when_that_is_meant(
    pool: Pool, place: Path, tmp_path: Path, verb: str
) -> None:
    somebodys = tmp_path / "somebodys"
    somebodys.write_bytes(b"precious".ljust(MIB, b"\0"))
    os.link(somebodys, place / "disk")
    pool.refresh()
    volume = pool.volume("disk")
    with pytest.raises(errors.Unsafe, match="2 names") as caught:
        VERBS[verb](volume)
    assert "force=True" in (caught.value.hint or "")
    assert somebodys.read_bytes()[:8] == b"precious" and somebodys.stat().st_size == MIB
    if verb == "wipe":
        volume.wipe(force=True)
        assert somebodys.read_bytes() == bytes(MIB)
    volume.delete()
    assert somebodys.exists(), "delete takes one name away"


@pytest.mark.tools("qemu-img", "prlimit")
@pytest.mark.parametrize("format", ["raw", "qcow2", "vmdk"])
def test_nobody_else_can_read_a_volume_at_any_moment(engine: Engine, pool: Pool, place: Path, format: str) -> None:
    seen: set[int] = set()

    def look(label: str) -> None:
        for path in place.iterdir():
            seen.add(stat.S_IMODE(path.lstat().st_mode))

    old = os.umask(0)
    try:
        engine.host.fault = look
        made = make(pool, "disk", format)
        made.clone(xml("clone", None, "qcow2" if format == "raw" else "raw"))
        made.clone("copy")
        made.upload(BytesIO(b"x")) if format == "raw" else None
    finally:
        engine.host.fault = None
        os.umask(old)
    assert seen == {0o600}


def test_the_mode_is_there_when_the_name_is(engine: Engine, pool: Pool, place: Path) -> None:
    seen: set[int] = set()

    def look(label: str) -> None:
        if (place / "disk").exists():
            seen.add(stat.S_IMODE((place / "disk").stat().st_mode))

    engine.host.fault = look
    made = pool.create_volume(xml("disk", target="<permissions><mode>0640</mode></permissions>"))
    assert seen == {0o640} and made.info.mode == 0o640


@pytest.mark.root
def test_ownership_goes_to_the_new_file_and_to_nothing_it_could_be_swapped_with(pool: Pool, place: Path) -> None:
    permissions = "<permissions><mode>0600</mode><owner>64055</owner><group>64055</group></permissions>"
    made = pool.create_volume(xml("disk", target=permissions))
    assert (made.info.owner, made.info.group) == (64055, 64055)
    (place / "link").symlink_to("/etc/hostname")
    owner = os.stat("/etc/hostname").st_uid
    with pytest.raises(errors.VolumeExists):
        pool.create_volume(xml("link", target=permissions))
    assert os.stat("/etc/hostname").st_uid == owner


def test_an_upload_notices_that_the_image_was_replaced(engine: Engine, pool: Pool, place: Path) -> None:
    volume = put(pool, "disk", samples.qcow2(size=MIB))

    def replace(label: str) -> None:
        if label == "fsync disk":
            (place / "new").write_bytes(b"somebody else's")
            (place / "new").replace(place / "disk")

    engine.host.fault = replace
    with pytest.raises(errors.Unsafe, match="was replaced meanwhile"):
        volume.upload(BytesIO(samples.qcow2(size=2 * MIB)))
    assert (place / "disk").read_bytes() == b"somebody else's"
    assert [p.name for p in place.iterdir()] == ["disk"]


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_file_that_replaced_the_listed_one_is_not_deleted(pool: Pool, place: Path, format: str) -> None:
    volume = put(pool, "disk", samples.qcow2() if format == "qcow2" else b"old")
    (place / "new").write_bytes(b"precious")
    (place / "new").rename(place / "disk")
    with pytest.raises(errors.Unsafe, match="was replaced since it was listed") as caught:
        volume.delete()
    assert "refresh" in (caught.value.hint or "")
    assert (place / "disk").read_bytes() == b"precious"
    pool.refresh()
    assert pool.volume("disk").delete()


def test_the_same_inode_number_on_another_device_is_another_file(pool: Pool, engine: Engine, place: Path) -> None:
    make(pool, "disk")
    other = os.stat("/dev/null")  # stands for a file that is mounted over the volume
    assert other.st_dev != place.stat().st_dev
    backend = FileBackend(pool.definition(), engine.host.operation())
    with backend.open() as directory, pytest.raises(errors.Unsafe, match="was replaced"):
        backend._same_file(directory, VolumeInfo("disk", inode=other.st_ino), other)
