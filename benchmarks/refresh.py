"""Refresh of a directory pool of raw images: the C floor, poolkit's first and unchanged refresh, libvirtd's refresh."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.harness import Bench, Row, best, seconds
from benchmarks.pools import started_pool

FIRST, UNCHANGED, FLAT = 3.0, 1.0, 1.25


def run(bench: Bench) -> Iterator[Row]:
    """First and unchanged refresh against the floor per size, and how the cost of one file grows between the sizes."""
    sizes = (1_000, 10_000) if bench.quick else (10_000, 100_000)
    floor = bench.floor()
    per_file: dict[str, list[float]] = {"first": [], "unchanged": []}
    for size in sizes:
        files = bench.files(size)
        floor(files)  # the first pass warms the kernel's caches for everybody
        calls: list[Callable[[], float]] = [
            partial(floor, files),
            partial(first, bench, files),
            second(bench, files),
        ]
        libvirt = peer(bench, files)
        if libvirt is not None:
            calls.append(libvirt)
        times = [1e6 * total / size for total in best(bench.rounds, *calls)]
        base, names = times[0], f"{size:,} files"
        yield Row(f"first refresh, {names}", times[1], "us/file", "C floor", base, FIRST)
        yield Row(f"unchanged refresh, {names}", times[2], "us/file", "C floor", base, UNCHANGED)
        if libvirt is not None:
            yield Row(f"libvirtd pool-refresh, {names}", times[3], "us/file", "C floor", base)
        per_file["first"].append(times[1])
        per_file["unchanged"].append(times[2])
    small, large = sizes
    for kind, (few, many) in per_file.items():
        yield Row(f"{kind} refresh, {large:,} files", many, "us/file", f"{small:,} files", few, FLAT)


def first(bench: Bench, files: Path) -> float:
    """Seconds of the first refresh that sees the files: the pool is started empty, then they are moved in."""
    target = bench.fresh("pool")
    with started_pool(bench, target) as pool:
        os.rename(files, target)
        try:
            return seconds(pool.refresh)
        finally:
            os.rename(target, files)


def second(bench: Bench, files: Path) -> Callable[[], float]:
    """A refresh of a pool that knows all its files, each time with a new engine, as a new process would."""
    root = bench.fresh("root")
    with started_pool(bench, files, root=root):
        pass

    def measure() -> float:
        with started_pool(bench, files, root=root) as pool:
            return seconds(pool.refresh)

    return measure


def peer(bench: Bench, files: Path) -> Callable[[], float] | None:
    """The same for libvirtd, less the time that virsh needs to connect."""
    libvirtd = bench.libvirtd()
    if libvirtd is None:
        return None
    name = libvirtd.pool(files)

    def measure() -> float:
        connect = seconds(lambda: libvirtd.virsh("uri"))
        return max(0.0, seconds(lambda: libvirtd.virsh("pool-refresh", name)) - connect)

    return measure
