"""Peak memory per volume of a refresh, and of holding the list of all volumes; libvirtd's beside it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

from benchmarks.harness import PYTHON, Bench, Row
from benchmarks.pools import definition

LIMIT = 1024  # bytes a volume

# A process of its own: the peak of one that has done other work before says nothing. VmHWM is the peak of this program's
# memory alone (ru_maxrss would begin with that of the process it was forked from).
CHILD = """\
import os, sys
from poolkit.engine import Engine

def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024

root, target, files, document = sys.argv[1:]
with Engine(root=root) as engine:
    pool = engine.define(document)
    pool.start()
    pool.refresh()
    len(pool.volumes())
    before = peak()
    os.rename(files, target)
    try:
        pool.start()
        refreshed = peak()
        volumes = pool.volumes()
        print(before, refreshed, peak(), len(volumes))
    finally:
        os.rename(target, files)
"""


def run(bench: Bench) -> Iterator[Row]:
    """Growth of the peak over that of the same process with an empty pool, per volume."""
    size = 2_000 if bench.quick else 100_000
    files, target, root = bench.files(size), bench.fresh("pool"), bench.fresh("root")
    argv = [PYTHON, "-c", CHILD, str(root), str(target), str(files), definition("bench", target)]
    told = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    before, refreshed, listed, count = map(int, told.split())
    if count != size:
        raise RuntimeError(f"poolkit listed {count} of {size} volumes")
    libvirt = peer(bench, size)
    refresh = (refreshed - before) / size
    yield Row(f"peak memory of a first refresh, {size:,} volumes", refresh, "B/volume", bar=LIMIT)
    yield Row("... with the list of all volumes held", (listed - before) / size, "B/volume")
    if libvirt is not None:
        yield Row("... first refresh again", refresh, "B/volume", "libvirtd", libvirt)


def peer(bench: Bench, size: int) -> float | None:
    """libvirtd's growth for the same files, per volume; a new daemon, which has no freed memory to use again."""
    new = bench.new_libvirtd()
    if new is None:
        return None
    files, target = bench.files(size), bench.fresh("pool")
    with new as libvirtd:
        name = libvirtd.pool(target)
        before = libvirtd.memory()
        os.rename(files, target)
        try:
            libvirtd.virsh("pool-refresh", name)
            return (libvirtd.memory() - before) / size
        finally:
            os.rename(target, files)
