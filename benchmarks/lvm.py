"""Refresh of a volume group of many logical volumes: poolkit's, beside one report of ``lvs`` and libvirtd's refresh.

Needs device-mapper and root; in the lab: ``python -m tests.lab run python3 -m benchmarks lvm``.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.harness import Bench, Row, Skip, best, run_seconds, seconds
from benchmarks.libvirtd import PrivateLibvirtd
from poolkit.engine import Engine

BAR = 1.5
GROUP = "poolkit-bench"
POOL = f"<pool type='logical'><name>{GROUP}</name><source><name>{GROUP}</name></source></pool>"


def run(bench: Bench) -> Iterator[Row]:
    """One group, refreshed in every way in turns."""
    # The node /dev/mapper/control may be there without the driver: LVM's tools make it.
    if os.geteuid() or "device-mapper" not in Path("/proc/misc").read_text():
        raise Skip("volume groups: need root and device-mapper (python -m tests.lab run python3 -m benchmarks lvm)")
    bench.need("volume groups", "losetup", "vgcreate", "lvs")
    count = 50 if bench.quick else 500
    with ExitStack() as stack:
        make_group(bench, stack, count)
        engine = stack.enter_context(Engine(bench.fresh("root")))
        pool = engine.define(POOL)
        pool.start()
        stack.callback(pool.destroy)
        assert len(pool.volumes()) == count
        calls: dict[str, Callable[[], float]] = {
            "lvs": lambda: quiet(lambda: run_seconds(["lvs", "--reportformat", "json", GROUP])),
            "refresh": lambda: quiet(lambda: seconds(pool.refresh)),
        }
        libvirtd = bench.libvirtd()
        if libvirtd:
            define(bench, libvirtd)
            stack.callback(libvirtd.virsh, "pool-destroy", GROUP)
            calls["libvirtd pool-refresh"] = lambda: quiet(
                lambda: seconds(lambda: libvirtd.virsh("pool-refresh", GROUP))
            )
            calls["virsh"] = lambda: quiet(lambda: seconds(lambda: libvirtd.virsh("uri")))
        times = dict(zip(calls, best(bench.rounds, *calls.values()), strict=True))
    if libvirtd:  # the time that virsh needs to start and connect is none of the refresh's
        times["libvirtd pool-refresh"] -= times.pop("virsh")
    base = times.pop("lvs")
    for what, time in times.items():
        bar = BAR if what == "refresh" else None
        yield Row(f"{what}, {count} logical volumes", 1000 * time, "ms", "one report of lvs", 1000 * base, bar)


def make_group(bench: Bench, stack: ExitStack, count: int) -> None:
    """The group on a loop device, gone when ``stack`` is left; its volumes are written into its metadata in one go."""
    image = bench.fresh("lvm") / "disk"
    image.touch()
    os.truncate(image, (count + 16) << 22)
    device = tell("losetup", "--find", "--show", str(image)).strip()
    stack.callback(tell, "losetup", "--detach", device)
    tell("vgcreate", "--yes", GROUP, device)
    stack.callback(tell, "pvremove", "--yes", device)
    stack.callback(tell, "vgremove", "--force", "--yes", GROUP)
    tell("lvcreate", "--yes", "--extents", "1", "--name", "lv0", GROUP)
    text = image.with_name("metadata")
    tell("vgcfgbackup", "--file", str(text), GROUP)
    text.write_text(multiply(text.read_text(), count))
    tell("lvremove", "--yes", f"{GROUP}/lv0")  # the copies have other UUIDs, and its device would be in their way
    tell("vgcfgrestore", "--yes", "--file", str(text), GROUP)


def multiply(metadata: str, count: int) -> str:
    """The metadata of a group with one volume, with ``count`` copies of it: other names, UUIDs and extents."""
    found = re.search(r"\n\t\tlv0 \{\n.*?\n\t\t\}\n", metadata, re.DOTALL)
    assert found is not None
    volumes = []
    for number in range(count):
        one = found[0].replace("\t\tlv0 {", f"\t\tlv{number} {{").replace('"pv0", 0', f'"pv0", {number}')
        volumes.append(re.sub(r'id = "(.{6})-.{4}', rf'id = "\g<1>-{number:04d}', one, count=1))
    return metadata.replace(found[0], "".join(volumes))


def define(bench: Bench, libvirtd: PrivateLibvirtd) -> None:
    """The same group as a pool of libvirtd."""
    document = bench.fresh("document") / "pool.xml"
    document.write_text(POOL)
    libvirtd.virsh("pool-define", document)
    libvirtd.virsh("pool-start", GROUP)


def quiet(measure: Callable[[], float]) -> float:
    """What ``measure`` says once udev is idle: it looks into every device that somebody opened for writing."""
    subprocess.run(["udevadm", "settle", "--timeout=300"], check=False)
    return measure()


def tell(*argv: str) -> str:
    """Run a program that must succeed; its output."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
