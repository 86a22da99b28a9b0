"""One volume of a pool is looked at anew, and nothing else is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.backend import Usage, VolumeInfo
from poolkit.engine import Engine
from poolkit.engine.events import Event
from poolkit.engine.pool import Pool
from poolkit.families.directory import DirectoryBackend


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
