"""What defining one pool costs among few and among many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Bench, Row, best, seconds
from benchmarks.pools import definition
from benchmarks.startup import defined

FLAT = 1.25
FEW = 10


def run(bench: Bench) -> Iterator[Row]:
    """A new pool's definition, in an engine that is open; it is undefined again outside of the time."""
    from poolkit.engine import Engine

    many = 100 if bench.quick else 1_000

    def one(root: Path) -> float:
        with Engine(root=root) as engine:
            engine.pools()
            took = seconds(lambda: engine.define(definition("more", root / "more")))
            engine.pool("more").undefine()
        return took

    roots = [defined(bench, count) for count in (FEW, many)]
    few, lots = best(4 * bench.rounds, *(lambda root=root: 1e3 * one(root) for root in roots))
    yield Row(f"define, among {many:,} pools", lots, "ms", f"among {FEW}", few, FLAT)
