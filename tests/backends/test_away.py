"""A backend of any type says what may hang in it: that is done by a child, and given up when the storage does not answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors, registry
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import Host, worker

from .toys.hanging import HangingBackend
from .toys.installed import installed


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(worker, "SILENCE", 0.5)
    yield from installed(HangingBackend)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    (tmp_path / "index").write_text("a\nb\n")
    return tmp_path / "index"


@pytest.fixture
def pool(engine: Engine, index: Path) -> Pool:
    pool = engine.define(f"<pool type='hanging'><name>p</name><source><index path='{index}'/></source></pool>")
    pool.start()
    return pool


def test_what_may_hang_is_done_by_a_child(pool: Pool) -> None:
    pids = {(volume.info.detail or {})["pid"] for volume in pool.volumes()}
    assert len(pids) == 1 and os.getpid() not in pids
    assert (pool.info.capacity, pool.info.allocation, pool.info.available) == (100, 2, 98)


def test_verbs_and_streams_go_through(pool: Pool) -> None:
    volume = pool.create_volume("<volume><name>c</name><capacity>8</capacity></volume>")
    assert [one.name for one in pool.volumes()] == ["a", "b", "c"]
    volume.upload(BytesIO(b"8 bytes!"))
    out = BytesIO()
    volume.download(out)
    assert out.getvalue() == b"8 bytes!"
    with pytest.raises(errors.Unsupported, match="pools of type 'hanging' cannot delete volumes"):
        volume.delete()


def test_storage_that_does_not_answer_is_given_up(pool: Pool, index: Path) -> None:
    text = index.read_text()
    index.unlink()
    os.mkfifo(index)
    with pytest.raises(errors.Unreachable) as caught:
        pool.refresh()
    assert str(caught.value) == "pool 'p': its storage did not answer within 10 seconds"
    assert [volume.name for volume in pool.volumes()] == ["a", "b"], "the last good listing stays"
    index.unlink()
    index.write_text(text + "d\n")
    pool.refresh()
    assert [volume.name for volume in pool.volumes()] == ["a", "b", "d"]


def test_what_is_done_here_and_there(engine: Engine, pool: Pool) -> None:
    """Every public method of a backend is to be had, wherever it is done."""
    backend = registry.executor(pool.definition(), Host())
    for name in dir(HangingBackend):
        if not name.startswith("_"):
            assert callable(getattr(backend, name)) == callable(getattr(HangingBackend, name)) or name == "index"
