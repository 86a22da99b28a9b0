"""Refresh and start of a pool of 64 logical units: poolkit's, beside the kernel's own rescan with one ``lsblk``, and libvirtd's.

Needs root and the module scsi_debug; in the lab: ``python -m tests.lab run python3 -m benchmarks luns``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.harness import Bench, Row, Skip, best, seconds
from benchmarks.lvm import quiet, tell
from poolkit.engine import Engine

BAR = 1.5
START_BAR = 1000.0  # milliseconds that a start may take beyond what the kernel needs
POOL = (
    "<pool type='scsi'><name>{0}</name><source><adapter name='{0}'/></source><target><path>/dev</path></target></pool>"
)


def run(bench: Bench) -> Iterator[Row]:
    """One host, refreshed in every way in turns."""
    found = shutil.which("modprobe") and subprocess.run(
        ["modprobe", "-n", "scsi_debug"], check=False, capture_output=True
    )
    if os.geteuid() or not found or found.returncode:
        raise Skip("logical units: need root and scsi_debug (python -m tests.lab run python3 -m benchmarks luns)")
    count = 8 if bench.quick else 64
    with ExitStack() as stack:
        tell("modprobe", "-a", "sd_mod")
        tell("modprobe", "scsi_debug", "dev_size_mb=16", "num_tgts=1", f"max_luns={count}")
        stack.callback(tell, "rmmod", "scsi_debug")
        stack.callback(tell, "udevadm", "settle", "--timeout=300")
        (adapter,) = Path("/sys/bus/pseudo/drivers/scsi_debug").glob("adapter*/host*")
        engine = stack.enter_context(Engine(bench.fresh("root")))
        pool = engine.define(POOL.format(adapter.name))
        pool.start()
        stack.callback(pool.destroy)
        assert len(pool.volumes()) == count

        def again() -> float:
            pool.destroy()
            return quiet(lambda: seconds(pool.start))

        calls: dict[str, Callable[[], float]] = {
            "floor": lambda: quiet(lambda: seconds(lambda: rescan(adapter))),
            "refresh": lambda: quiet(lambda: seconds(pool.refresh)),
            "start": again,
        }
        libvirtd = bench.libvirtd()
        if libvirtd:
            document = bench.fresh("document") / "pool.xml"
            document.write_text(POOL.format(adapter.name))
            libvirtd.virsh("pool-define", document)
            libvirtd.virsh("pool-start", adapter.name)
            stack.callback(libvirtd.virsh, "pool-destroy", adapter.name)
            calls["libvirtd pool-refresh"] = lambda: quiet(
                lambda: seconds(lambda: libvirtd.virsh("pool-refresh", adapter.name))
            )
            calls["virsh"] = lambda: quiet(lambda: seconds(lambda: libvirtd.virsh("uri")))
        times = dict(zip(calls, best(bench.rounds, *calls.values()), strict=True))
    if libvirtd:  # the time that virsh needs to start and connect is none of the refresh's
        times["libvirtd pool-refresh"] -= times.pop("virsh")
    floor, start = times.pop("floor"), times.pop("start")
    for what, time in times.items():
        bar = BAR if what == "refresh" else None
        yield Row(f"{what}, {count} logical units", 1000 * time, "ms", "rescan and lsblk", 1000 * floor, bar)
    yield Row(f"start beyond the kernel's rescan, {count} logical units", 1000 * (start - floor), "ms", bar=START_BAR)


def rescan(adapter: Path) -> None:
    """What ``iscsiadm --rescan`` has the kernel do, and one look at all that is there."""
    for unit in adapter.glob("target*/*:*/rescan"):
        unit.write_text("1")
    Path(f"/sys/class/scsi_host/{adapter.name}/scan").write_text("- - -")
    tell("lsblk", "--json")
