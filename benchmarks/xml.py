"""The XML of all volumes of a pool; libvirt's beside it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness import Bench, Row, best, seconds
from benchmarks.pools import started_pool

LIMIT = 30  # microseconds a volume
DEBIAN_PYTHON = "/usr/bin/python3"  # the package python3-libvirt is for Debian's own Python

CHILD = """\
import sys, time
import libvirt
volumes = libvirt.open(sys.argv[1]).storagePoolLookupByName(sys.argv[2]).listAllVolumes()
start = time.perf_counter()
for volume in volumes:
    volume.XMLDesc()
print(time.perf_counter() - start)
"""


def run(bench: Bench) -> Iterator[Row]:
    """Microseconds per volume for the documents of all, in one call."""
    size = 1_000 if bench.quick else 10_000
    files = bench.files(size)
    libvirt = peer(bench, files)
    with started_pool(bench, files) as pool:
        if len(pool.volumes_xml()) != size:
            raise RuntimeError(f"not the XML of {size} volumes")
        times = best(bench.rounds, lambda: seconds(pool.volumes_xml), *([libvirt] if libvirt else []))
    ours, *theirs = [1e6 * total / size for total in times]
    yield Row(f"XML of {size:,} volumes in one call", ours, "us/volume", bar=LIMIT)
    if theirs:
        yield Row("... beside one call of libvirt for each", ours, "us/volume", "libvirtd", theirs[0])


def peer(bench: Bench, files: Path) -> Callable[[], float] | None:
    """The documents of the same volumes from libvirt through its Python binding; getting the list is not counted."""
    if subprocess.run([DEBIAN_PYTHON, "-c", "import libvirt"], check=False, stderr=subprocess.DEVNULL).returncode:
        bench.note("libvirt's XML: its Python binding is not installed (apt install python3-libvirt)")
        return None
    libvirtd = bench.libvirtd()
    if libvirtd is None:
        return None
    argv = [DEBIAN_PYTHON, "-c", CHILD, libvirtd.uri, libvirtd.pool(files)]

    def measure() -> float:
        return float(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout)

    return measure
