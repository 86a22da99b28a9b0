"""The XML of all volumes of a pool; libvirt's beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness import Bench, Row, best, seconds
from benchmarks.pools import started_pool

LIMIT = 30  # microseconds a volume


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
        yield Row("... virsh vol-dumpxml, one connection", ours, "us/volume", "libvirtd", theirs[0])


def peer(bench: Bench, files: Path) -> Callable[[], float] | None:
    """All documents through one virsh process, less the time that virsh needs to connect."""
    libvirtd = bench.libvirtd()
    if libvirtd is None:
        return None
    pool = libvirtd.pool(files)
    # By name: a look-up by path walks all volumes, which is not what is measured here.
    commands = "".join(f"vol-dumpxml {path.name} {pool}\n" for path in sorted(files.iterdir()))

    def measure() -> float:
        connect = seconds(lambda: libvirtd.virsh("uri"))
        return max(0.0, seconds(lambda: libvirtd.virsh(commands=commands)) - connect)

    return measure
