"""A pool of a million volumes: what the command needs to list it, and to say that a volume is not there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import PYTHON, Bench, Row
from benchmarks.pools import NAME, started_pool

PEAK = 200  # MiB
ANSWER = 4.0
"""How many times the processor time of asking for a volume that is there it may take to say that one is not."""

# A small process between: what the kernel says of a process begins with the size of the one that started it.
CHILD = """\
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(used.ru_maxrss / 1024, 1e3 * (used.ru_utime + used.ru_stime))
"""


def run(bench: Bench) -> Iterator[Row]:
    """The peak of ``vol-list`` in both forms, and the processor time of ``vol-info``."""
    count = 20_000 if bench.quick else 1_000_000
    root = bench.fresh("root")
    recorded(bench, root, count)
    command = [str(Path(PYTHON).with_name("poolkit")), "--root", str(root)]
    for form in ([], ["--details"], ["--json"]):
        peak, took = measured([*command, "vol-list", NAME, *form])
        what = " ".join(["vol-list", *form])
        yield Row(f"{what}, {count:,} volumes, peak of memory", peak, "MiB", bar=PEAK)
        yield Row(f"{what}, {count:,} volumes", 1e3 * took / count, "us CPU/volume")
    info = [*command, "vol-info", "--pool", NAME]
    there, lacking = (
        min(measured([*info, name])[1] for _ in range(bench.rounds)) for name in ("disk0000007", "disk00000.7")
    )
    yield Row(f"vol-info of none of {count:,} volumes", lacking, "ms CPU", "of one", there, ANSWER)


def recorded(bench: Bench, root: Path, count: int) -> None:
    """A pool with so many volumes on record; the files themselves nobody asks for, but for one."""
    from poolkit.backend import Usage
    from poolkit.listing import NUMBERS, Known, Listing

    place = bench.fresh("images")
    (place / "disk0000007").write_bytes(b"x" * 4096)
    with started_pool(bench, place, root=root) as pool:
        inventory, number = pool._core.inventory, pool._core.record(NAME).id
        found = Listing(Known.of({}))
        for n in range(count):
            found.plain[f"disk{n:07}"] = NUMBERS.pack(1 << 20, 4096, 1 << 20, n, n + 2, 0o600, 0, 0, 1, 1, 1)
            found.stamps[f"disk{n:07}"] = n
        inventory.save_listing(number, found, inventory.version(number), Usage(1 << 40, 1 << 30, 1 << 39))


def measured(argv: list[str]) -> tuple[float, float]:
    """Peak of memory in MiB and processor time in ms of a command."""
    told = subprocess.run([PYTHON, "-c", CHILD, *argv], check=True, stdout=subprocess.PIPE, text=True).stdout
    peak, took = map(float, told.split())
    return peak, took
