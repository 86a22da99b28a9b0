"""One volume of a pool is looked at anew, and nothing else is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.backend import Transfer, Usage, VolumeInfo
from poolkit.engine import Engine
from poolkit.engine.events import Event
from poolkit.engine.pool import Pool
from poolkit.families.directory import DirectoryBackend
from poolkit.host import mounts
from poolkit.host.mounts import Mount, MountTable
from poolkit.state.unfinished import Mark as HalfWritten
from poolkit.state.unfinished import Unfinished


@pytest.fixture
def images(tmp_path: Path, engine: Engine) -> Iterator[Pool]:
    place = tmp_path / "images"
    place.mkdir()
    for name in "abc":
        (place / name).write_bytes(b"x" * 4096)
    pool = engine.define(f"<pool type='dir'><name>images</name><target><path>{place}</path></target></pool>")
    pool.start()
    yield pool


def _place(pool: Pool) -> Path:
    return Path(pool.info.target or "")


def test_a_new_a_changed_and_a_deleted_file_are_seen_by_name(
    images: Pool, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DirectoryBackend, "scan", None)  # the folder is not read
    events: list[Event] = []
    engine.subscribe(events.append)
    place = _place(images)
    for name in ("new", "unseen"):
        (place / name).write_bytes(b"QFI\xfb\0\0\0\3" + bytes(100))
    (place / "a").write_bytes(b"x" * 8192)
    (place / "b").unlink()
    time.sleep(0.1)  # a file that was changed just now can change again without showing it

    outcome = images.refresh(volume="new")
    assert outcome
    assert outcome.message == "volume 'new' is new"
    assert outcome.warnings, "the image is cut short"
    assert images.volume("new").info.format == "qcow2"
    assert images.volume("a").info.capacity == 4096, "only one volume was to be looked at"
    assert images.refresh("a").message == "volume 'a' is listed anew"
    assert images.volume("a").info.capacity == 8192
    assert not images.refresh("a")
    images.refresh("c")  # when it was listed it may have been too young to be believed
    assert not images.refresh("c")
    assert images.refresh("b").message == "volume 'b' is not there any more"
    assert [v.name for v in images.volumes()] == ["a", "c", "new"]
    assert [(e.kind, e.volume) for e in events[:1]] == [("refreshed", "new")]
    with pytest.raises(errors.VolumeNotFound, match="no volume 'b'"):
        images.refresh("b")
    with pytest.raises(errors.InvalidArgument):
        images.refresh("../a")


def test_the_format_on_record_stays_whatever_a_guest_wrote(images: Pool) -> None:
    with (_place(images) / "a").open("r+b") as file:
        file.write(b"QFI\xfb\0\0\0\3" + bytes(100))
    outcome = images.refresh("a")
    assert outcome.warnings
    assert images.volume("a").info.format == "raw"


def test_a_file_that_is_not_known_is_not_trusted_while_the_record_of_formats_is_lost(
    images: Pool, engine: Engine
) -> None:
    (_place(images) / "new").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(4096))
    Path(f"{engine.core.inventory.path}.damaged").write_bytes(b"")
    images.refresh("new")
    detail = images.volume("new").info.detail or {}
    assert detail.get("ambiguous") or detail.get("error"), detail


def test_a_missing_base_is_noticed_and_forgotten(images: Pool, tmp_path: Path) -> None:
    (_place(images) / "base").write_bytes(b"")
    base = str(_place(images) / "base")
    head = b"QFI\xfb\0\0\0\3" + (104).to_bytes(8, "big") + len(base).to_bytes(4, "big") + (16).to_bytes(4, "big")
    head += (1 << 20).to_bytes(8, "big") + bytes(4) + (1).to_bytes(4, "big") + (1 << 16).to_bytes(8, "big") + bytes(52)
    (_place(images) / "overlay").write_bytes(
        (head[:100] + (104).to_bytes(4, "big") + base.encode()).ljust(1 << 18, b"\0")
    )
    images.refresh("overlay")
    assert "missing" not in (images.volume("overlay").info.detail or {})
    os.unlink(base)
    assert images.refresh("overlay").warnings
    assert (images.volume("overlay").info.detail or {})["missing"] == [base]


def test_one_of_very_many_costs_one_block(images: Pool, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    store = engine.core.inventory
    number = engine.core.record("images").id
    many = [VolumeInfo(f"disk{n:05}", "file", "raw", 1, n) for n in range(5_000)]
    store.save_listing(number, many, store.version(number), Usage(1, 1, 1))
    monkeypatch.setattr(type(store), "volumes", None)
    monkeypatch.setattr(type(store), "known", None)
    assert images.refresh("a")
    assert images.volume("a").info.capacity == 4096


def test_a_dry_run_and_a_pool_that_is_not_active(images: Pool, tmp_path: Path) -> None:
    (_place(images) / "new").write_bytes(b"x")
    with Engine(tmp_path / "root", dry_run=True) as dry:
        assert dry.pool("images").refresh("new")
    assert not images.lists("new")
    images.destroy()
    with pytest.raises(errors.InvalidState, match="not active"):
        images.refresh("new")


def test_a_look_at_what_has_not_changed_takes_no_lock(
    images: Pool, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the rule of a refresh; whatever else there might be to say of the volume is asked the long way."""
    place = _place(images)
    time.sleep(0.1)  # a file that was changed just now can change again without showing it
    images.refresh()
    volume = images.volume("a")
    looks: list[str] = []
    long = DirectoryBackend.look

    def look(self: Any, name: str, *known: Any, **how: Any) -> VolumeInfo:
        looks.append(name)
        return long(self, name, *known, **how)

    monkeypatch.setattr(DirectoryBackend, "look", look)
    with engine.core.locks.work("images", "vol-wipe", volume="a"):
        os.utime(place / "a", ns=((place / "a").stat().st_atime_ns, volume.info.mtime))  # shows in ctime alone
        with pytest.raises(errors.Busy):
            volume.look()
    volume = volume.look()
    time.sleep(0.1)
    volume = volume.look()
    count = len(looks)
    assert volume.info.stamp
    with engine.core.locks.work("images", "vol-wipe", volume="a"):
        assert volume.look().info._replace(atime=0) == volume.info._replace(atime=0)
    assert len(looks) == count

    def asks(what: str) -> None:
        nonlocal count
        volume.look()
        assert len(looks) > count, what
        count = len(looks)

    core = engine.core
    marks = Unfinished(core.inventory.database)
    marks.put(f"{place}/a", HalfWritten.of(volume.info.inode, "wiped", Transfer()))
    asks("it is marked as half-written")
    marks.drop(f"{place}/a")
    core.inventory.record_format(str(place), "a", volume.info.inode, "raw")
    asks("another format may be on record")
    with core.inventory.transaction() as db:
        db.execute("DELETE FROM formats")
    journal = Path(engine.locations.state) / "journal" / "0.journal"
    journal.parent.mkdir(mode=0o700, exist_ok=True)
    journal.touch(0o600)
    assert core.has_journals()
    asks("what a dead process had begun comes first")
    journal.unlink()
    (Path(engine.locations.state) / "inventory.sqlite.damaged").touch()
    asks("formats on record may be missing")
    (Path(engine.locations.state) / "inventory.sqlite.damaged").unlink()
    target = Mount("0:99", "/", f"{place}/a", "tmpfs", "over", "rw")
    with monkeypatch.context() as patch:
        patch.setattr(mounts, "read", lambda read=mounts.read: MountTable([*read(), target]))
        assert "mounted" in (volume.look().info.detail or {})["covered"]
    images.refresh()
    (place / "a").write_bytes(b"y" * 4096)
    asks("it was changed")
    place.rename(place.with_name("away"))
    with pytest.raises(errors.InvalidState, match="does not exist"):
        volume.look()
