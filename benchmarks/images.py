"""First refresh of a directory pool of 10,000 qcow2 overlays beside the C floor."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Bench, Row, best, seconds
from benchmarks.pools import started_pool

NOT_MORE = 3.0


def run(bench: Bench) -> Iterator[Row]:
    """Overlays as qemu-img makes them, each with its backing image and the format of that."""
    bench.need("refresh of qcow2 images", "qemu-img")
    count = 1_000 if bench.quick else 10_000
    files, floor = overlays(bench, count), bench.floor()
    floor(files)

    def first() -> float:
        target = bench.fresh("pool")
        with started_pool(bench, target) as pool:
            os.rename(files, target)
            try:
                return seconds(pool.start)  # another directory than before, which is listed anew
            finally:
                os.rename(target, files)

    base, ours = (1e6 * total / count for total in best(bench.rounds, lambda: floor(files), first))
    yield Row(f"first refresh, {count:,} qcow2 overlays", ours, "us/file", "C floor", base, NOT_MORE)


def overlays(bench: Bench, count: int) -> Path:
    """One overlay made by qemu-img and copied; a refresh reads headers only, which the copies share."""
    directory = bench.fresh("overlays")
    model = directory / "disk000000.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/srv/base.img", "-F", "raw", str(model), "1G"],
        check=True,
    )
    data = model.read_bytes()
    for number in range(1, count):
        (directory / f"disk{number:06}.qcow2").write_bytes(data)
    os.sync()
    return directory
