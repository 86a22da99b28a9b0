"""Refresh of a directory on a file system that is far away: each call takes two milliseconds, many at the same time no longer."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Bench, Row, Skip, seconds
from benchmarks.pools import NAME, definition

DELAY = 2_000  # microseconds a call
AT_ONCE = 32
BAR = 1.5

Asked = tuple[int, int]
"""How many requests the file system answered that somebody waited for, and how many of them were reads of the directory."""


def run(bench: Bench) -> Iterator[Row]:
    """First and unchanged refresh against the bare calls in C, in turns, and against the calls that the file system counted."""
    if os.geteuid() or not os.path.exists("/dev/fuse"):
        raise Skip("far: needs root and /dev/fuse")
    program, floor = bench.compiled("far.c", "far servers"), bench.compiled("floor.c", "far servers")
    size = 500 if bench.quick else 2_000
    found = [(refreshes(bench, program, size), bare(bench, program, floor, size)) for _ in range(bench.rounds)]
    first, (calls, _) = min(first for (first, _), _ in found)
    again, (_, reads) = min(again for (_, again), _ in found)
    files, names = (min(times[n] for _, times in found) for n in (0, 1))
    wait = DELAY / 1e3
    where = f"{size:,} files, 2 ms a call"
    together = f"{calls:,} calls, {AT_ONCE} at once"
    yield Row(f"first refresh, {where}", first, "ms", together, calls * wait / AT_ONCE, BAR)
    yield Row("... beside the bare calls", first, "ms", f"C floor of {AT_ONCE} threads", files + names)
    yield Row("... beside one call after another", first, "ms", f"{calls:,} calls", calls * wait)
    yield Row(f"unchanged refresh, {where}", again, "ms", "reading the directory in C", names, BAR)
    yield Row("... beside its calls", again, "ms", f"{reads} reads of the directory", reads * wait)


def refreshes(bench: Bench, program: Path, size: int) -> tuple[tuple[float, Asked], tuple[float, Asked]]:
    """Milliseconds of a first refresh, and of one where nothing changed; with nothing in the kernel's caches."""
    from poolkit.engine import Engine

    target = bench.fresh("far")
    with far_away(program, target, size) as far, Engine(root=bench.fresh("root")) as engine:
        pool = engine.define(definition(NAME, target))
        asked(far)
        first = 1e3 * seconds(pool.start)
        calls = asked(far)
        if len(pool.volumes()) != size:
            raise RuntimeError(f"{len(pool.volumes())} of {size} files are listed")
        asked(far)
        return (first, calls), (1e3 * seconds(pool.refresh), asked(far))


def bare(bench: Bench, program: Path, floor: Path, size: int) -> tuple[float, float]:
    """Milliseconds of the bare calls for all files by as many threads, and of reading the directory, with empty caches."""
    target = bench.fresh("far")
    with far_away(program, target, size):
        told = subprocess.run([floor, target, str(AT_ONCE)], check=True, stdout=subprocess.PIPE, text=True).stdout
    count, files, names = map(int, told.split())
    if count != size:
        raise RuntimeError(f"{count} of {size} files are there")
    return files / 1e6, names / 1e6


@contextmanager
def far_away(program: Path, target: Path, size: int) -> Iterator[subprocess.Popen[str]]:
    """The file system of ``far.c``, mounted at ``target``."""
    argv = [program, target, str(size), str(DELAY)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as far:
        try:
            while not os.path.ismount(target):
                if far.poll() is not None:
                    raise RuntimeError(f"{program} ended with status {far.returncode}")
                time.sleep(0.01)
            yield far
        finally:
            assert far.stdin is not None
            far.stdin.close()


def asked(far: subprocess.Popen[str]) -> Asked:
    """What it was asked since this was called before."""
    assert far.stdin is not None and far.stdout is not None
    far.stdin.write("\n")
    far.stdin.flush()
    calls, reads = map(int, far.stdout.readline().split())
    return calls, reads
