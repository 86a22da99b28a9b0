"""Symbolic links in a directory pool: counted, and followed below the directory where the definition says so."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from tests.formats import samples

FOLLOW = "<pk:follow xmlns:pk='urn:poolkit:pool:1'/>"
MIB = 1 << 20


def pool_of(engine: Engine, place: Path, more: str = FOLLOW) -> Pool:
    place.mkdir(exist_ok=True)
    (place / "inner").mkdir()
    (place / "inner" / "file").write_bytes(b"data" * 1000)
    (place / "image").write_bytes(samples.qcow2(size=MIB).ljust(65536, b"\0"))
    (place.parent / "outside").write_bytes(b"precious")
    for name, aim in {
        "a": "inner/file", "b": str(place / "image"), "c": "a", "dir": "inner", "gone": "nothing", "out": "../outside",
        "far": str(place.parent / "outside"), "round": "inner/../../outside", "loop": "loop", "proc": "/proc/self/exe",
    }.items():  # fmt: skip
        (place / name).symlink_to(aim)
    pool = engine.define(f"<pool type='dir'><name>p</name><target><path>{place}</path></target>{more}</pool>")
    pool.start()
    return pool


def names(pool: Pool) -> list[str]:
    return [volume.name for volume in pool.volumes()]


def test_links_are_counted_and_not_listed(engine: Engine, tmp_path: Path) -> None:
    pool = pool_of(engine, tmp_path / "images", "")
    assert names(pool) == ["image", "inner"]
    said = [str(line) for line in pool.refresh().warnings]
    assert said == ["pool 'p': 10 symbolic links are not listed: 'a', 'b', 'c' and 7 others"]


def test_links_to_files_below_the_directory_are_volumes(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "images"
    pool = pool_of(engine, place)
    assert names(pool) == ["a", "b", "c", "image", "inner"]
    assert any(
        "7 symbolic links are not listed: 'dir', 'far', 'gone' and 4 others" in str(w) for w in pool.refresh().warnings
    )
    facts = {v.name: (v.info.format, v.info.capacity, v.path, v.key) for v in pool.volumes()}
    assert facts["a"] == ("raw", 4000, f"{place}/inner/file", f"{place}/a")
    assert facts["b"] == ("qcow2", MIB, f"{place}/image", f"{place}/b")
    assert facts["c"][2] == f"{place}/inner/file", "through the other link"
    for volume in (pool.volume("a"), pool.volume("c").look()):
        out = BytesIO()
        volume.download(out)
        assert out.getvalue() == b"data" * 1000
    copy = pool.volume("a").clone("copy")
    assert (place / "copy").read_bytes() == b"data" * 1000 and copy.path == f"{place}/copy"


CHANGES: dict[str, Callable[[Volume], object]] = {
    "upload": lambda v: v.upload(BytesIO(b"new")),
    "wipe": lambda v: v.wipe(),
    "resize": lambda v: v.resize(2 * MIB),
}


@pytest.mark.parametrize("link", ["a", "b"])
@pytest.mark.parametrize("verb", CHANGES)
def test_nothing_is_changed_through_a_link(engine: Engine, tmp_path: Path, verb: str, link: str) -> None:
    place = tmp_path / "images"
    pool = pool_of(engine, place)
    before = (place / "image").read_bytes()
    with pytest.raises(errors.Unsafe, match="symbolic link"):
        CHANGES[verb](pool.volume(link))
    assert (place / "image").read_bytes() == before and (place / "inner" / "file").read_bytes() == b"data" * 1000
    assert (place / link).is_symlink()


def test_deleting_a_link_leaves_the_file(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "images"
    pool = pool_of(engine, place)
    assert pool.volume("b").delete()
    assert not (place / "b").is_symlink() and (place / "image").exists()
    assert names(pool) == ["a", "c", "image", "inner"]
    with pytest.raises(errors.VolumeExists):
        pool.create_volume("<volume><name>a</name><capacity>1</capacity></volume>")


def test_a_link_that_was_changed_since_does_not_lead_out(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "images"
    pool = pool_of(engine, place)
    volume = pool.volume("a")
    for aim in (tmp_path / "outside", "../outside", "/etc/passwd", "image"):
        (place / "a").unlink()
        (place / "a").symlink_to(aim)
        out = BytesIO()
        with pytest.raises(errors.PoolkitError):
            volume.download(out)
        assert out.getvalue() == b""
    os.unlink(place / "a")
    pool.refresh()
    assert "a" not in names(pool)
