"""What tests of the engine share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import newfiles
from tests.engine.test_descriptors import opened

COUNT = 600
"""Files of ``images``: more than two blocks."""


@pytest.fixture
def nothing_stays_open() -> Iterator[None]:
    """Fails a test that leaves a descriptor open."""
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


@pytest.fixture
def old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were made just now count as old: their stamps are kept."""
    monkeypatch.setattr(newfiles, "_TICK", 0)
    monkeypatch.setattr(newfiles, "_SECOND", 0)
