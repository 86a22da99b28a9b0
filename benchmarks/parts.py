"""Where the microseconds of a first listing go: its steps one after another, in processor time of one process."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import images
from benchmarks.harness import Bench, Row, best
from benchmarks.pools import started_pool

FAR, END = 32_769, 512  # where a disc has its magic, and a fixed VHD its footer
CLUSTER = 65536

Reads = dict[str, list[tuple[int, int]]]
"""What a step reads more than the one before: lengths and places."""

RAW: Reads = {
    "and a read of 1 KiB": [(1024, 0)],
    "and the reads at 32 KiB and at the end": [(5, FAR), (4, (1 << 20) - END)],
}
OVERLAY: Reads = {
    "and a read of 1 KiB": [(1024, 0)],
    "and the read at 32 KiB": [(5, FAR)],
    "and the three reads of tables": [(8, CLUSTER), (128, 2 * CLUSTER + 8), (16, 3 * CLUSTER)],
}


def run(bench: Bench) -> Iterator[Row]:
    """Each row has all that the row before has, and one thing more."""
    count = 1_000 if bench.quick else 10_000
    yield from _rows(bench, "first listing", bench.files(count), RAW)
    if shutil.which("qemu-img"):
        yield from _rows(bench, "first listing of overlays", images.overlays(bench, count), OVERLAY)
    else:
        bench.note("first listing of overlays: qemu-img not installed (apt install qemu-utils)")


def _rows(bench: Bench, what: str, files: Path, reads: Reads) -> Iterator[Row]:
    folder = os.open(files, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = os.listdir(files)
        steps = steps_of(folder, names, reads)
        times = best(2 * bench.rounds, *(_timed(step) for step in steps.values()))
        saved = best(bench.rounds, lambda: saving(bench, files))[0]
    finally:
        os.close(folder)
    for step, took in zip(steps, times, strict=True):
        yield Row(f"{what}, {step}", 1e6 * took / len(names), "us/file")
    yield Row(f"{what}, what storing it adds", 1e6 * saved / len(names), "us/file")


def _timed(step: Callable[[], object]) -> Callable[[], float]:
    return lambda: cpu(step)


def cpu(call: Callable[[], object]) -> float:
    """Seconds of processor time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def steps_of(folder: int, names: list[str], reads: Reads) -> dict[str, Callable[[], object]]:
    """The steps by what each adds."""
    from poolkit.families.directory import detail_of
    from poolkit.families.newfiles import taker
    from poolkit.formats import usual
    from poolkit.host.directory import LOOK
    from poolkit.listing import Known, Listing

    def opened(look: Callable[[int], object], places: list[tuple[int, int]]) -> Callable[[], object]:
        def step() -> None:
            for name in names:
                fd = os.open(name, LOOK, dir_fd=folder)
                look(fd)
                for length, place in places:
                    os.pread(fd, length, place)
                os.close(fd)

        return step

    def taken(names: Callable[[], Iterator[Any]]) -> Callable[[], object]:
        def step() -> None:
            found = Listing(Known.of({}))
            take = taker(
                folder,
                time.time_ns(),
                found,
                lambda *_: None,
                lambda one: (one.format, detail_of(one)),
                trust_blocks=True,
            )
            for name in names():
                take(name)

        return step

    def entries() -> Iterator[str]:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_file(follow_symlinks=False):
                    yield entry.name

    steps = {"open and close": opened(lambda fd: None, []), "and fstat": opened(os.fstat, [])}
    places: list[tuple[int, int]] = []
    for what, more in reads.items():
        places = [*places, *more]
        steps[what] = opened(os.fstat, places)
    return {
        **steps,
        "the same and the judgement of what was read": opened(lambda fd: usual.glance(fd, os.fstat(fd).st_size), []),
        "and the packed row, its stamp and its name": taken(lambda: iter(names)),
        "and the reading of the directory": taken(entries),
    }


def saving(bench: Bench, files: Path) -> float:
    """Seconds of storing a listing of new files: sorting, blocks with checksums, what they stand on, the transaction."""
    from poolkit.backend import Usage
    from poolkit.engine import standing
    from poolkit.listing import Known, Listing

    found = Listing(Known.of({}))
    with started_pool(bench, files) as full:
        core = full._core
        backend = core.definitions.backend(full.definition(), core.host.operation())
        backend.scan(found)
    with started_pool(bench, bench.fresh("empty")) as pool:
        inventory, number = pool._core.inventory, pool._core.record(pool.name).id
        scanned = inventory.version(number)

        def save() -> None:
            below = standing.below(backend, core.host.operation(), found)
            inventory.save_listing(number, found, scanned, Usage(0, 0, 0), below)

        return cpu(save)
