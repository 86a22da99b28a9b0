"""Volumes that no descriptor reaches, as sources and targets of copies between pools."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import Host, spool
from tests.volumes.conftest import new_pool

from .toys.far import BLOCK, FarBackend
from .toys.installed import installed

SIZE = 256 * BLOCK
DATA = os.urandom(3 * BLOCK)
CONTENT = DATA + bytes(SIZE - 2 * len(DATA)) + DATA


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    yield from installed(FarBackend)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "far" / "one"
    place.mkdir(parents=True)
    for number in range(SIZE // BLOCK):
        if (data := CONTENT[number * BLOCK : (number + 1) * BLOCK]).strip(b"\0"):
            (place / str(number)).write_bytes(data)
    (place / "size").write_text(str(SIZE))
    return place.parent


def far(engine: Engine, folder: Path) -> Pool:
    pool = engine.define(f"<pool type='far'><name>far</name><source><folder path='{folder}'/></source></pool>")
    pool.start()
    return pool


def test_a_copy_into_a_directory_keeps_holes(engine: Engine, folder: Path, tmp_path: Path) -> None:
    source = far(engine, folder).volume("one")
    made = source.clone("copy", pool=new_pool(engine, tmp_path / "images"))
    assert Path(made.path).read_bytes() == CONTENT
    assert os.stat(made.path).st_blocks * 512 <= 2 * len(DATA) + BLOCK


def test_a_larger_copy_reads_as_zeros_behind_the_source(engine: Engine, folder: Path, tmp_path: Path) -> None:
    source = far(engine, folder).volume("one")
    pool = new_pool(engine, tmp_path / "images")
    wanted = f"<volume><name>larger</name><capacity>{2 * SIZE}</capacity><target><format type='raw'/></target></volume>"
    made = pool.create_volume_from(wanted, source)
    assert Path(made.path).read_bytes() == CONTENT + bytes(SIZE)


def test_a_copy_is_converted_both_ways(engine: Engine, folder: Path, tmp_path: Path) -> None:
    pool = far(engine, folder)
    images = new_pool(engine, tmp_path / "images")
    wanted = f"<volume><name>image</name><capacity>{SIZE}</capacity><target><format type='qcow2'/></target></volume>"
    image = images.create_volume_from(wanted, pool.volume("one"))
    assert image.info.format == "qcow2"
    back = pool.create_volume_from(f"<volume><name>back</name><capacity>{SIZE}</capacity></volume>", image)
    again = back.clone("again", pool=images)
    assert again.info.format == "raw" and Path(again.path).read_bytes() == CONTENT
    blocks = {block.name for block in (folder / "back").iterdir()}
    assert blocks == {block.name for block in (folder / "one").iterdir()}


@pytest.mark.parametrize("how", [{"linked": True}, {"reflink": True}])
def test_blocks_cannot_be_shared(engine: Engine, folder: Path, tmp_path: Path, how: dict[str, bool]) -> None:
    source = far(engine, folder).volume("one")
    pool = new_pool(engine, tmp_path / "images")
    with pytest.raises(errors.Unsupported, match="not in files"):
        source.clone("copy", pool=pool, **how)
    assert pool.volumes() == []


def test_a_source_that_fails_in_the_middle_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    def fault(label: str) -> None:
        if label == "fetch 255":
            raise OSError(5, "Input/output error")

    with Engine(tmp_path / "root", host=Host(fault=fault)) as engine:
        source = far(engine, folder).volume("one")
        pool = new_pool(engine, tmp_path / "images")
        with pytest.raises(errors.PoolkitError):
            source.clone("copy", pool=pool)
        assert pool.volumes() == [] and os.listdir(tmp_path / "images") == []


def test_a_full_folder_for_temporary_files_is_named(
    engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    room = os.statvfs(tmp_path)
    with pytest.raises(errors.NoSpace, match="free for temporary files"):
        with spool.spooled(room.f_bfree * room.f_frsize + (1 << 40), lambda fd: None):
            pass
