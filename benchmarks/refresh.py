"""Refresh of a directory pool of raw images: the C floor, poolkit's first and unchanged refresh, libvirtd's refresh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.harness import Bench, Row, best, seconds
from benchmarks.pools import first_refresh, started_pool

BARS = {"first refresh": 2.0, "unchanged refresh": 0.75}
FLAT = 1.15
"""The kernel's own calls cost more in a large directory, so it is the ratio to the floor that is to stay."""


def run(bench: Bench) -> Iterator[Row]:
    """Refreshes against the floor for two sizes, and how the cost of one file grows from the one to the other."""
    sizes = (200, 2_000) if bench.quick else (10_000, 100_000)
    costs = [cost(bench, size) for size in sizes]
    for size, times in zip(sizes, costs, strict=True):
        base = times["floor"]
        for what, time in times.items():
            if what != "floor":
                yield Row(f"{what}, {size:,} files", time, "us/file", "C floor", base, BARS.get(what))
    small, large = sizes
    for what in BARS:
        few, many = (times[what] / times["floor"] for times in costs)
        yield Row(f"{what}, {large:,} files", many, "floors", f"{small:,} files", few, FLAT)


def cost(bench: Bench, size: int) -> dict[str, float]:
    """Microseconds per file of each kind of refresh, taken in turns."""
    files, others, floor = bench.files(size), bench.new_files(size), bench.floor()
    for each in (files, others):
        floor(each)  # the first pass warms the kernel's caches for everybody
    root = bench.fresh("root")
    with started_pool(bench, files, root=root) as pool:
        calls: dict[str, Callable[[], float]] = {
            "floor": partial(floor, files),
            "first refresh": partial(first_refresh, bench, others),
            "unchanged refresh": lambda: seconds(pool.refresh),
            "unchanged refresh, new engine": partial(another, bench, files, root),
        }
        if libvirtd := bench.libvirtd():
            name = libvirtd.pool(files)
            calls["libvirtd pool-refresh"] = lambda: seconds(lambda: libvirtd.virsh("pool-refresh", name))
            calls["virsh"] = lambda: seconds(lambda: libvirtd.virsh("uri"))
        times = dict(zip(calls, best(bench.rounds, *calls.values()), strict=True))
    if libvirtd:  # the time that virsh needs to start and connect is none of the refresh's
        times["libvirtd pool-refresh"] -= times.pop("virsh")
    return {what: 1e6 * total / size for what, total in times.items()}


def another(bench: Bench, files: Path, root: Path) -> float:
    """Seconds of a refresh by an engine that has just been opened, as that of a new process: it reads the inventory."""
    with started_pool(bench, files, root=root) as pool:
        return seconds(pool.refresh)
