"""Volumes whose bytes have no descriptor of their own: they are attached while they are open, and detached at the end."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import Host
from tests.volumes.conftest import new_pool

from .toys.installed import installed
from .toys.packed import PackedBackend

DATA = os.urandom(4096) * 64


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    yield from installed(PackedBackend)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "packed"
    folder.mkdir()
    (folder / "base.gz").write_bytes(gzip.compress(DATA))
    (folder / "top-on-base.gz").write_bytes(gzip.compress(DATA[::-1]))
    return folder


def packed(engine: Engine, folder: Path) -> Pool:
    pool = engine.define(f"<pool type='packed'><name>packed</name><source><folder path='{folder}'/></source></pool>")
    pool.start()
    return pool


def left(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".open")


def test_a_copy_into_another_pool_attaches_and_detaches(engine: Engine, folder: Path, tmp_path: Path) -> None:
    source = packed(engine, folder).volume("base")
    made = source.clone("copy", pool=new_pool(engine, tmp_path / "images"))
    assert Path(made.path).read_bytes() == DATA
    assert left(folder) == []


def test_a_copy_that_fails_detaches(engine: Engine, folder: Path, tmp_path: Path) -> None:
    source = packed(engine, folder).volume("base")
    target = new_pool(engine, tmp_path / "images")
    (folder / "base.gz").write_bytes(gzip.compress(DATA)[:-100])
    with pytest.raises(errors.PoolkitError):
        source.clone("copy", pool=target)
    assert left(folder) == [] and target.volumes() == []


@pytest.mark.parametrize("label", ["create", "passed: inventory committed"])
def test_a_death_while_it_is_attached_is_cleaned_up(tmp_path: Path, folder: Path, label: str) -> None:
    root = tmp_path / "root"
    with Engine(root) as engine:
        packed(engine, folder)
        new_pool(engine, tmp_path / "images")
    child = os.fork()
    if not child:

        def fault(at: str) -> None:
            if at.startswith(label) and left(folder):
                os._exit(9)

        with Engine(root, host=Host(fault=fault)) as engine:
            engine.pool("packed").volume("base").clone("copy", pool=engine.pool("images"))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 9:
        assert left(folder) == ["base.open"]
    else:
        assert label != "create", "it never was in the middle of the copy"
    with Engine(root) as engine:
        assert engine.core.operations.failed() == []
    assert left(folder) == []


def test_what_a_volume_stands_on_is_shown(engine: Engine, folder: Path) -> None:
    pool = packed(engine, folder)
    chain = pool.volume("top-on-base").chain()
    assert [(link.pool, link.volume, link.problem) for link in chain] == [
        ("packed", "top-on-base", ""), ("packed", "base", "")
    ]  # fmt: skip
    assert [link.volume for link in pool.volume("base").chain()] == ["base"]
