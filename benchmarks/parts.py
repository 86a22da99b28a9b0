"""Where the microseconds of a first listing go: its steps one after another, in processor time of one process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Row, best
from benchmarks.pools import started_pool

FAR, END = 32_769, 512  # where a disc has its magic, and a fixed VHD its footer


def run(bench: Bench) -> Iterator[Row]:
    """Each row has all that the row before has, and one thing more."""
    size = 1_000 if bench.quick else 10_000
    files = bench.files(size)
    folder = os.open(files, os.O_RDONLY | os.O_DIRECTORY)
    try:
        steps = steps_of(folder, os.listdir(files))
        times = best(2 * bench.rounds, *(_timed(step) for step in steps.values()))
        saved = best(bench.rounds, lambda: saving(bench, files))[0]
    finally:
        os.close(folder)
    for what, took in zip(steps, times, strict=True):
        yield Row(f"first listing, {what}", 1e6 * took / size, "us/file")
    yield Row("first listing, what storing it adds", 1e6 * saved / size, "us/file")


def _timed(step: Callable[[], object]) -> Callable[[], float]:
    return lambda: cpu(step)


def cpu(call: Callable[[], object]) -> float:
    """Seconds of processor time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def steps_of(folder: int, names: list[str]) -> dict[str, Callable[[], object]]:
    """The steps by what each adds."""
    from poolkit import formats
    from poolkit.families.newfiles import taker
    from poolkit.host.directory import LOOK
    from poolkit.listing import Known, Listing

    def opened(*calls: Callable[[int], object]) -> Callable[[], object]:
        def step() -> None:
            for name in names:
                fd = os.open(name, LOOK, dir_fd=folder)
                for call in calls:
                    call(fd)
                os.close(fd)

        return step

    def first(fd: int) -> object:
        return os.pread(fd, 4096, 0)

    def far(fd: int) -> object:
        return os.pread(fd, 5, FAR), os.pread(fd, 4, (1 << 20) - END)

    def taken(names: Callable[[], Iterator[Any]]) -> Callable[[], object]:
        def step() -> None:
            take = taker(folder, time.time_ns(), Listing(Known.of({})), lambda *_: None, trust_blocks=True)
            for name in names():
                take(name)

        return step

    def entries() -> Iterator[str]:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_file(follow_symlinks=False):
                    yield entry.name

    return {
        "open and close": opened(),
        "and fstat": opened(os.fstat),
        "and a read of 4 KiB": opened(os.fstat, first),
        "and the reads at 32 KiB and at the end": opened(os.fstat, first, far),
        "the same and the judgement of what was read": opened(os.fstat, lambda fd: formats.listed(fd, 1 << 20)),
        "and the packed row, its stamp and its name": taken(lambda: iter(names)),
        "and the reading of the directory": taken(entries),
    }


def saving(bench: Bench, files: Path) -> float:
    """Seconds of storing a listing of new files: sorting, blocks with checksums, the inventory's transaction."""
    from poolkit.backend import Usage
    from poolkit.listing import Known, Listing

    found = Listing(Known.of({}))
    with started_pool(bench, files) as full:
        core = full._core
        core.definitions.backend(full.definition(), core.host.operation()).scan(found)
    with started_pool(bench, bench.fresh("empty")) as pool:
        inventory, number = pool._core.inventory, pool._core.record(pool.name).id
        scanned = inventory.version(number)
        return cpu(lambda: inventory.save_listing(number, found, scanned, Usage(0, 0, 0)))
