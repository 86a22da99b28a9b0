"""Look-up of volumes by path among many."""

from __future__ import annotations

import random
from collections.abc import Iterator

from benchmarks.harness import Bench, Row, best, seconds
from benchmarks.pools import definition

LIMIT = 1.0  # ms


def run(bench: Bench) -> Iterator[Row]:
    """Milliseconds of one look-up, the mean over a random thousand."""
    from poolkit.engine import Engine

    size = 2_000 if bench.quick else 100_000
    files, root = bench.files(size), bench.fresh("root")
    chosen = random.Random(1).sample([str(path) for path in files.iterdir()], 1_000)
    with Engine(root=root) as engine:
        engine.define(definition("bench", files)).start()

    def look() -> None:
        for path in chosen:
            if engine.volume_by_path(path).path != path:
                raise RuntimeError(f"found another volume for {path}")

    def cold() -> float:
        with Engine(root=root) as new:
            return seconds(lambda: new.volume_by_path(chosen[0]))

    with Engine(root=root) as engine:
        warm, first = best(bench.rounds, lambda: seconds(look) / len(chosen), cold)
    yield Row(f"look-up by path, {size:,} volumes", 1e3 * warm, "ms", bar=LIMIT)
    yield Row("... the first one of a new engine", 1e3 * first, "ms")
