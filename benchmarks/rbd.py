"""Listing and filling an rbd pool: against the distribution's modules, Ceph's own program, and libvirtd."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness import Bench, Row, Skip
from benchmarks.libvirtd import PrivateLibvirtd
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from tests.backends.rbd import SECRET, definition, started
from tests.ceph import PROGRAMS, Cluster

MIB = 1 << 20
SYSTEM = "/usr/bin/python3"  # the Python that the distribution's modules are for

# What libvirt asks of each image, one after the other, with nothing around it.
BARE = """
import sys, time, rados, rbd
host, key, pool = sys.argv[1], sys.stdin.readline().strip(), sys.argv[2]
cluster = rados.Rados(rados_id="poolkit", conf={"mon_host": host, "key": key, "log_to_stderr": "false"})
cluster.connect()
with cluster.open_ioctx(pool) as context:
    began = time.perf_counter()
    for one in rbd.RBD().list2(context):
        with rbd.Image(context, one["name"], read_only=True) as image:
            stat, used = image.stat(), []
            if image.features() & 16 and not image.flags() & 2:
                image.diff_iterate(0, stat["size"], None, lambda at, size, there: used.append(size), False, True)
    print(time.perf_counter() - began)
cluster.shutdown()
"""


def run(bench: Bench) -> Iterator[Row]:
    """Measure."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        raise Skip(f"rbd: {', '.join(missing)} not installed")
    cluster = Cluster()
    try:
        cluster.make_pool("bench")
        cluster.make_pool("bytes")
        cluster.statistics("bench", "bytes")
        with Engine(bench.fresh("rbd")) as engine:
            yield from _listing(bench, cluster, engine)
            yield from _upload(bench, cluster, engine)
    finally:
        cluster.close()


def _best(bench: Bench, act: Callable[[], object]) -> float:
    found = []
    for _ in range(bench.rounds):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return min(found)


def _listing(bench: Bench, cluster: Cluster, engine: Engine) -> Iterator[Row]:
    count = 100 if bench.quick else 1000
    code = (
        "import sys, rados, rbd\n"
        "c = rados.Rados(rados_id='poolkit', conf={'mon_host': sys.argv[1], 'key': sys.stdin.readline().strip()}); c.connect()\n"
        "with c.open_ioctx('bench') as x:\n"
        f"    for n in range({count}): rbd.RBD().create(x, f'image{{n}}', 1 << 30)\n"
        "c.shutdown()\n"
    )
    _bare(cluster, code, "bench")
    pool = started(engine, cluster, ("bench",))
    first = _best(bench, lambda: _anew(engine, pool))
    again = _best(bench, pool.refresh)
    bare = min(float(_bare(cluster, BARE, "bench")) for _ in range(bench.rounds))
    program = _best(bench, lambda: cluster.rbd("ls", "-l", "bench"))
    what = f"{count} images listed"
    yield Row(f"{what} for the first time", first, "s", "the modules alone", bare, 1.2)
    yield Row(f"{what} for the first time", first, "s", "rbd ls -l", program, 1.0)
    yield Row(f"{what} again, unchanged", again, "s", "the modules alone", bare, 1.0)
    if why := PrivateLibvirtd.missing():
        bench.note(f"rbd beside libvirtd: {why}")
        return
    folder = bench.fresh("libvirtd")
    with PrivateLibvirtd(folder) as peer:
        define(cluster, peer, bench.fresh("documents"), "bench")
        theirs = _best(bench, lambda: peer.virsh("pool-refresh", "disks"))
    yield Row(f"{what} for the first time", first, "s", "libvirtd's refresh", theirs, 0.5)
    yield Row(f"{what} again, unchanged", again, "s", "libvirtd's refresh", theirs, 0.5)


def _anew(engine: Engine, pool: Pool) -> None:
    """A listing that knows nothing of the last one."""
    record = engine.core.require_active(pool.name, "refresh")
    backend = engine.core.definitions.backend(engine.core.definitions.running(record), engine.host.operation())
    found = list(backend.volumes({}))
    backend.usage(found)


def _bare(cluster: Cluster, code: str, pool: str) -> str:
    done = subprocess.run(
        [SYSTEM, "-c", code, f"v2:127.0.0.1:{cluster.port}", pool], input=cluster.keys["poolkit"], text=True,
        stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Skip("rbd: the distribution's Python has no module rbd (apt install python3-rados python3-rbd)")
    return done.stdout


def define(cluster: Cluster, peer: PrivateLibvirtd, folder: Path, pool: str, more: str = "") -> None:
    """Give a libvirtd the key of the cluster and the pool ``disks``, which has the elements ``more`` as well, and start that."""
    words = (
        f"<secret ephemeral='no' private='yes'><uuid>{SECRET}</uuid><usage type='ceph'><name>c</name></usage></secret>"
    )
    (folder / "secret.xml").write_text(words)
    (folder / "pool.xml").write_text(definition(cluster, pool).replace("<rbd:config", f"{more}<rbd:config"))
    for command in (
        ["secret-define", str(folder / "secret.xml")],
        ["secret-set-value", SECRET, cluster.keys["poolkit"]],
    ):
        uri = peer.uri.replace("storage+", "secret+")
        subprocess.run(["virsh", "-q", "-c", uri, *command], check=True, capture_output=True)
    peer.virsh("pool-define", folder / "pool.xml")
    peer.virsh("pool-start", "disks")


def _upload(bench: Bench, cluster: Cluster, engine: Engine) -> Iterator[Row]:
    size = (64 if bench.quick else 512) * MIB
    file = bench.scratch / "disk"
    with file.open("wb") as out:  # a half of it holes, as in a new system
        for start in range(0, size, 8 * MIB):
            out.seek(start)
            out.write(os.urandom(4 * MIB))
        out.truncate(size)
    pool = engine.define(definition(cluster, "bytes", name="bytes"))
    pool.start()
    ours, theirs = [], []
    for number in range(bench.rounds):
        made = pool.create_volume(f"<volume><name>ours{number}</name><capacity>{size}</capacity></volume>")
        began = time.perf_counter()
        with file.open("rb") as stream:
            made.upload(stream, sparse=True)
        ours.append(time.perf_counter() - began)
        assert made.info.allocation == size // 2, "holes are kept"
        began = time.perf_counter()
        cluster.rbd("import", "--no-progress", str(file), f"bytes/theirs{number}")
        theirs.append(time.perf_counter() - began)
        made.delete()
        cluster.rbd("rm", "--no-progress", f"bytes/theirs{number}")
    yield Row(f"upload of {size // MIB} MiB, a half of it holes", min(ours), "s", "rbd import", min(theirs), 1.2)
    made = pool.create_volume(f"<volume><name>full</name><capacity>{size}</capacity></volume>")
    with file.open("rb") as stream:
        made.upload(stream)
    ours, theirs = [], []
    for number in range(bench.rounds):
        place = bench.scratch / f"out{number}"
        began = time.perf_counter()
        with place.open("wb") as stream:
            made.download(stream, sparse=True)
        ours.append(time.perf_counter() - began)
        place.unlink()
        began = time.perf_counter()
        cluster.rbd("export", "--no-progress", "bytes/full", str(place))
        theirs.append(time.perf_counter() - began)
        place.unlink()
    yield Row(f"download of {size // MIB} MiB into a file", min(ours), "s", "rbd export", min(theirs), 1.2)
