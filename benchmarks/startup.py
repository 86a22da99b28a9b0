"""What one call of the command costs from start to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import PYTHON, Bench, Row, best, run_seconds
from benchmarks.pools import definition

START, MANY = 2.5, 3.0


def run(bench: Bench) -> Iterator[Row]:
    """``poolkit list`` against the import of one library, and with many pools against one."""
    many = 20 if bench.quick else 1_000
    one_root, many_root = defined(bench, 1), defined(bench, many)
    command = str(Path(PYTHON).with_name("poolkit"))
    few_list = [command, "--root", str(one_root), "list", "--all"]
    many_list = [command, "--root", str(many_root), "list", "--all"]
    lxml, python, few, lots = best(
        (1 if bench.quick else 4) * bench.rounds,
        lambda: 1e3 * run_seconds([PYTHON, "-c", "import lxml.etree"]),
        lambda: 1e3 * run_seconds([PYTHON, "-c", "pass"]),
        lambda: 1e3 * run_seconds(few_list),
        lambda: 1e3 * run_seconds(many_list),
    )
    yield Row("poolkit list, 1 pool", few, "ms", "python -c 'import lxml.etree'", lxml, START)
    yield Row("poolkit list, 1 pool", few, "ms", "python -c pass", python)
    yield Row(f"poolkit list, {many:,} pools", lots, "ms", "1 pool", few, MANY)


def defined(bench: Bench, count: int) -> Path:
    """A root with ``count`` inactive pools."""
    from poolkit.engine import Engine

    root = bench.fresh("root")
    with Engine(root=root) as engine:
        for number in range(count):
            engine.define(definition(f"pool{number}", root / f"target{number}"))
    return root
