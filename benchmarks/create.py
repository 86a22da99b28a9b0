"""Many sparse raw volumes made in one process, in one go and one by one, beside libvirt's Python binding.

libvirt brings each file to the disk, but not its name, and keeps no record of its format.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

from benchmarks.harness import Bench, Row, best, seconds
from benchmarks.pools import started_pool
from benchmarks.xml import DEBIAN_PYTHON

FASTER = 1.0
DOCUMENT = "<volume><name>v{}</name><capacity>1073741824</capacity><allocation>0</allocation></volume>"

CHILD = f"""\
import sys, time
import libvirt
pool = libvirt.open(sys.argv[1]).storagePoolLookupByName(sys.argv[2])
documents = [{DOCUMENT!r}.format(number) for number in range(int(sys.argv[3]))]
start = time.perf_counter()
volumes = [pool.createXML(document) for document in documents]
print(time.perf_counter() - start)
for volume in volumes:
    volume.delete()
"""


def run(bench: Bench) -> Iterator[Row]:
    """Milliseconds a volume."""
    count = 50 if bench.quick else 1_000
    libvirt = peer(bench, count)
    documents = [DOCUMENT.format(number) for number in range(count)]
    with started_pool(bench, bench.fresh("made")) as pool:

        def measured(make: Callable[[], object]) -> float:
            took = seconds(make)
            for number in range(count):
                pool.volume(f"v{number}").delete()
            return took

        def together() -> float:
            return measured(lambda: pool.create_volumes(documents))

        def singly() -> float:
            return measured(lambda: [pool.create_volume(document) for document in documents])

        times = best(2, together, singly, *([libvirt] if libvirt else []))
    at_once, one_by_one, *theirs = [1e3 * total / count for total in times]
    against, base, bar = ("libvirtd", theirs[0], FASTER) if theirs else ("", None, None)
    yield Row(f"{count:,} sparse raw volumes, in one go", at_once, "ms/volume", against, base, bar)
    yield Row(f"{count:,} sparse raw volumes, one by one", one_by_one, "ms/volume", against, base)


def peer(bench: Bench, count: int) -> Callable[[], float] | None:
    """The same by libvirt through its Python binding; its documents and its connection are not counted."""
    if subprocess.run([DEBIAN_PYTHON, "-c", "import libvirt"], check=False, stderr=subprocess.DEVNULL).returncode:
        bench.note("libvirt's volumes: its Python binding is not installed (apt install python3-libvirt)")
        return None
    libvirtd = bench.libvirtd()
    if libvirtd is None:
        return None
    argv = [DEBIAN_PYTHON, "-c", CHILD, libvirtd.uri, libvirtd.pool(bench.fresh("theirs")), str(count)]

    def measure() -> float:
        return float(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout)

    return measure
