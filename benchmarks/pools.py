"""A started pool of a measured engine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Bench, seconds

if TYPE_CHECKING:
    from poolkit.engine.pool import Pool

NAME = "bench"
SETTLED = 2.1
"""Seconds after which a file counts as one that is not just being changed: ``is_young`` in poolkit/families/newfiles.py."""


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


def first_refresh(bench: Bench, files: Path, again: list[float] | None = None) -> float:
    """Seconds of the refresh that finds all files new; the time of a second one is put into ``again``.

    The pool is started on an empty directory. Then all files are moved into it, and afterwards back.
    """
    target = bench.fresh("pool")
    with started_pool(bench, target) as pool:
        _move(files, target)
        try:
            time.sleep(SETTLED)
            took = seconds(pool.refresh)
            if again is not None:
                again.append(seconds(pool.refresh))
            return took
        finally:
            _move(target, files)


def _move(files: Path, to: Path) -> None:
    for name in os.listdir(files):
        os.rename(files / name, to / name)
