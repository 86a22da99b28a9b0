"""The benchmarks run, and their table says what was measured; no figure is judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.__main__ import registry
from benchmarks.harness import Row, best, table

ROOT = Path(__file__).parents[1]


def test_every_benchmark_of_the_package_is_found() -> None:
    assert {"refresh", "memory", "startup", "lookup", "xml"} <= set(registry())


def test_a_row_is_judged_by_its_ratio_or_by_its_value() -> None:
    lines = list(
        table(
            [
                Row("faster", 1.0, "us", "the floor", 2.0, bar=0.6),
                Row("slower", 3.0, "us", "the floor", 2.0, bar=1.0),
                Row("alone", 5.0, "ms", bar=4.0),
                Row("no bar", 1234.0, "B"),
            ]
        )
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells == [
        ["faster", "1 us", "the floor", "2 us", "0.50", "0.6", "ok"],
        ["slower", "3 us", "the floor", "2 us", "1.50", "1", "MISSED"],
        ["alone", "5 ms", "", "", "", "4 ms", "MISSED"],
        ["no bar", "1,234 B", "", "", "", "", ""],
    ]


def test_best_measures_in_turns() -> None:
    order: list[str] = []
    times = iter([3.0, 10.0, 2.0, 11.0])

    def measure(name: str) -> float:
        order.append(name)
        return next(times)

    assert best(2, lambda: measure("a"), lambda: measure("b")) == [2.0, 10.0]
    assert order == ["a", "b", "a", "b"]


def test_a_benchmark_runs_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "lookup", "--quick", "--dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| look-up by path, 10,000 volumes" in done.stdout
    assert list(tmp_path.iterdir()) == []
