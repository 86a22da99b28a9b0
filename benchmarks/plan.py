"""A plan with nothing to do, of many pools and volumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Bench, Row, best, seconds
from benchmarks.pools import definition

LIMIT = 3.0
VOLUMES = 10  # in each pool


def run(bench: Bench) -> Iterator[Row]:
    """Milliseconds of a plan, against those of listing all pools and refreshing each of them once, in one process."""
    from poolkit.engine import Engine

    pools = 50 if bench.quick else 1_000
    root, storage, documents = bench.fresh("root"), bench.fresh("storage"), bench.fresh("documents")
    with Engine(root=root) as engine:
        for number in range(pools):
            _pool(engine, f"pool{number:04}", storage, documents)

    def plan() -> float:
        with Engine(root=root, dry_run=True) as engine:
            return seconds(lambda: _nothing_to_do(engine, documents))

    def base() -> float:
        with Engine(root=root) as engine:
            return seconds(lambda: [engine.pool(info.name).refresh() for info in engine.pools()])

    planned, listed = best(bench.rounds, plan, base)
    what = f"plan with nothing to do, {pools:,} pools and {pools * VOLUMES:,} volumes"
    yield Row(what, 1e3 * planned, "ms", "listing, and a refresh of each", 1e3 * listed, LIMIT)


def _pool(engine: object, name: str, storage: Path, documents: Path) -> None:
    files, folder = storage / name, documents / name
    files.mkdir()
    folder.mkdir()
    for number in range(VOLUMES):
        with (files / f"disk{number}").open("wb") as file:
            file.truncate(1 << 20)
        (folder / f"disk{number}.xml").write_text(
            f"<volume>\n  <name>disk{number}</name>\n  <capacity unit='MiB'>1</capacity>\n  <allocation>0</allocation>\n"
            "  <target>\n    <format type='raw'/>\n  </target>\n</volume>\n"
        )
    text = definition(name, files)
    (documents / f"{name}.xml").write_text(text)
    engine.define(text).start()  # type: ignore[attr-defined]


def _nothing_to_do(engine: object, documents: Path) -> None:
    made = engine.plan(documents)  # type: ignore[attr-defined]
    if made or len(made.entries) < VOLUMES:
        raise RuntimeError(f"{made!r} was to be a plan with nothing to do")
