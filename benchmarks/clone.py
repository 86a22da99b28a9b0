"""Clone of a sparse 1 GiB raw volume beside cp and qemu-img convert, on xfs, btrfs and ext4 (loop mounts, as root).

Every side ends with its data on the disk (fsync), because a clone does so before it has its name. Beside them is the least
that a crash-safe clone on record waits for (``durable.c``), which is a program of a page, to be compared with cp, and a clone
whose records wait for no disk, since they are in memory.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Bench, Row, Skip, best, seconds
from benchmarks.pools import started_pool

if TYPE_CHECKING:
    from poolkit.engine.pool import Pool

SIZE, EXTENT = 1 << 30, 1 << 20
MKFS = {"xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"], "btrfs": ["mkfs.btrfs", "-q"], "ext4": ["mkfs.ext4", "-q", "-F"]}
NOT_MORE, FASTER = 1.1, 1.0


def run(bench: Bench) -> Iterator[Row]:
    """For each file system the clone against both peers; where nothing can be mounted, on the scratch directory."""
    bench.need("clones: the peer", "qemu-img")
    if os.geteuid():
        bench.note("clones on xfs, btrfs and ext4: mounting needs root; measured on the scratch directory")
        yield from clones(bench, bench.fresh("clone"), "scratch")
        return
    for kind, command in MKFS.items():
        try:
            bench.need(f"clones on {kind}", command[0])
        except Skip as reason:
            bench.note(str(reason))
            continue
        with mounted(bench, command) as place:
            yield from clones(bench, place, kind)


def clones(bench: Bench, place: Path, kind: str) -> Iterator[Row]:
    """The rows of one file system."""
    size = SIZE // 8 if bench.quick else SIZE
    directory = place / "images"
    directory.mkdir()
    source = directory / "source"
    with source.open("wb") as file:
        file.truncate(size)
        for start in range(0, size, 10 * EXTENT):
            os.pwrite(file.fileno(), os.urandom(EXTENT), start)
        os.fsync(file.fileno())
    with (
        started_pool(bench, directory) as pool,
        tempfile.TemporaryDirectory(dir="/dev/shm") as memory,
        started_pool(bench, directory, root=Path(memory)) as unrecorded,
    ):

        def clone_in(pool: Pool) -> float:
            volume = pool.volume("source")
            took = seconds(lambda: volume.clone("clone"))
            pool.volume("clone").delete()
            return took

        def poolkit() -> float:
            return clone_in(pool)

        def without_record() -> float:
            return clone_in(unrecorded)

        def copy() -> float:
            return process(
                ["cp", "--reflink=auto", "--sparse=auto", "--", str(source), str(place / "copy")], place / "copy"
            )

        def convert() -> float:
            words = ["qemu-img", "convert", "-f", "raw", "-O", "raw", "--", str(source), str(place / "converted")]
            return process(words, place / "converted")

        least, record = (
            bench.compiled("durable.c", "clones: the least that is durable"),
            bench.fresh("record") / "record",
        )
        record.write_bytes(bytes(1 << 16))
        with record.open("rb") as file:
            os.fsync(file.fileno())

        def durable() -> float:
            took = seconds(lambda: subprocess.run([least, source, place / "least", record], check=True))
            (place / "least").unlink()
            return took

        ours, cp, qemu, bare, light = best(2 * bench.rounds, poolkit, copy, convert, durable, without_record)
    yield Row(f"clone of 1 GiB with 10 % data, {kind}", 1e3 * ours, "ms", "cp --reflink=auto", 1e3 * cp, NOT_MORE)
    yield Row(f"clone of 1 GiB with 10 % data, {kind}", 1e3 * ours, "ms", "qemu-img convert", 1e3 * qemu, FASTER)
    yield Row(f"... the least that is durable and on record, {kind}", 1e3 * bare, "ms", "cp --reflink=auto", 1e3 * cp)
    yield Row(f"... with poolkit's records in memory, {kind}", 1e3 * light, "ms", "cp --reflink=auto", 1e3 * cp)


def process(argv: list[str], made: Path) -> float:
    """Seconds of a program that makes a file, which is on the disk at the end and then removed."""

    def work() -> None:
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        for path in (made, made.parent):
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)

    took = seconds(work)
    made.unlink()
    return took


@contextmanager
def mounted(bench: Bench, command: list[str]) -> Iterator[Path]:
    """A new file system on a loop device."""
    image, point = bench.fresh("disk") / "disk.img", bench.fresh("mount")
    with image.open("wb") as file:
        file.truncate(3 << 30)
    subprocess.run([*command, str(image)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)
        image.unlink()
