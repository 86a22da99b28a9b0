"""Upload and download of 1 GiB through a pipe beside cp through a pipe."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from benchmarks.harness import Bench, Row, best, seconds
from benchmarks.pools import started_pool

NOT_MORE = 1.5


def run(bench: Bench) -> Iterator[Row]:
    """Both directions; what is read is in the page cache for all, and what is written is on the disk at the end."""
    size = 128 << 20 if bench.quick else 1 << 30
    place = bench.fresh("transfer")
    directory = place / "images"
    directory.mkdir()
    data = place / "data"
    with data.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    with (directory / "disk").open("wb") as file:
        file.truncate(size)
    with started_pool(bench, directory) as pool:
        volume = pool.volume("disk")

        def upload() -> float:
            with subprocess.Popen(["cat", str(data)], stdout=subprocess.PIPE, bufsize=0) as cat:
                return seconds(lambda: volume.upload(cast("IO[bytes]", cat.stdout)))  # type: ignore[arg-type]

        def cp_in() -> float:
            return through(f"cat '{data}' | cp /dev/stdin '{place}/copy'", place / "copy")

        def download() -> float:
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0) as cat:
                stream = cast("IO[bytes]", cat.stdin)

                def work() -> None:
                    volume.download(stream)  # type: ignore[arg-type]
                    stream.close()
                    cat.wait()

                return seconds(work)

        def cp_out() -> float:
            return seconds(lambda: shell(f"cp '{data}' /dev/stdout | cat >/dev/null"))

        up, cp_up, down, cp_down = best(bench.rounds, upload, cp_in, download, cp_out)
    mib = size >> 20
    yield Row(f"upload of {mib} MiB from a pipe", 1e3 * up, "ms", "cp /dev/stdin", 1e3 * cp_up, NOT_MORE)
    yield Row(f"download of {mib} MiB to a pipe", 1e3 * down, "ms", "cp to /dev/stdout", 1e3 * cp_down, NOT_MORE)


def through(line: str, made: Path) -> float:
    """Seconds of a shell line that fills a file, which is on the disk at the end."""
    made.touch()

    def work() -> None:
        shell(line)
        fd = os.open(made, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    return seconds(work)


def shell(line: str) -> None:
    """Run a pipeline; the paths in it are ours."""
    subprocess.run(["sh", "-c", line], check=True)
