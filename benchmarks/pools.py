"""A started pool of a measured engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Bench

if TYPE_CHECKING:
    from poolkit.engine.pool import Pool

NAME = "bench"


def definition(name: str, target: Path) -> str:
    """The document of a directory pool."""
    return f"<pool type='dir'><name>{name}</name><target><path>{target}</path></target></pool>"


@contextmanager
def started_pool(bench: Bench, target: Path, *, root: Path | None = None) -> Iterator[Pool]:
    """A started pool on ``target``, in an engine with a root of its own unless ``root`` names one used before."""
    from poolkit.engine import Engine

    with Engine(root=root or bench.fresh("root")) as engine:
        pool = engine.define(definition(NAME, target))
        pool.start()
        yield pool
