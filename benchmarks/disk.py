"""Refresh of a disk of 100 partitions: poolkit's, beside one ``sfdisk --json`` and libvirtd's refresh.

Needs root and a loop device; ``python -m tests.lab run python3 -m benchmarks disk`` measures it in the lab.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.harness import Bench, Row, Skip, best, run_seconds, seconds

BAR = 1.5
COUNT = 100
MIB = 1 << 20


def run(bench: Bench) -> Iterator[Row]:
    """One disk, read in every way in turns."""
    if os.geteuid():
        raise Skip("disk: needs root")
    bench.need("disk", "losetup", "sfdisk", "partx")
    from poolkit.engine import Engine

    with ExitStack() as stack:
        device = make_disk(bench, stack)
        document = (
            f"<pool type='disk'><name>bench</name><source><device path='{device}'/><format type='gpt'/></source>"
            "<target><path>/dev</path></target></pool>"
        )
        pool = stack.enter_context(Engine(bench.fresh("root"))).define(document)
        pool.start()
        stack.callback(pool.destroy)
        assert len(pool.volumes()) == COUNT
        calls: dict[str, Callable[[], float]] = {
            "sfdisk": lambda: run_seconds(["sfdisk", "--json", device]),
            "refresh": lambda: seconds(pool.refresh),
        }
        libvirtd = bench.libvirtd()
        if libvirtd:
            path = bench.fresh("document") / "pool.xml"
            path.write_text(document)
            libvirtd.virsh("pool-define", path)
            libvirtd.virsh("pool-start", "bench")
            stack.callback(libvirtd.virsh, "pool-destroy", "bench")
            calls["libvirtd pool-refresh"] = lambda: seconds(lambda: libvirtd.virsh("pool-refresh", "bench"))
            calls["virsh"] = lambda: seconds(lambda: libvirtd.virsh("uri"))
        times = dict(zip(calls, best(bench.rounds * 3, *calls.values()), strict=True))
    if libvirtd:  # the time that virsh needs to start and connect is none of the refresh's
        times["libvirtd pool-refresh"] -= times.pop("virsh")
    base = times.pop("sfdisk")
    for what, time in times.items():
        bar = BAR if what == "refresh" else None
        yield Row(f"{what}, disk of {COUNT} partitions", 1000 * time, "ms", "sfdisk --json", 1000 * base, bar)


def make_disk(bench: Bench, stack: ExitStack) -> str:
    """A loop device with the partitions, gone with the stack."""
    image = Path(bench.fresh("disk")) / "image"
    with image.open("wb") as file:
        file.truncate((COUNT + 8) * MIB)
    done = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skip(f"disk: no loop device: {done.stderr.strip()}")
    device = done.stdout.strip()
    stack.callback(subprocess.run, ["losetup", "--detach", device], check=False)
    script = "label: gpt\n" + "".join(f"start={2048 * (n + 1)}, size=2048\n" for n in range(COUNT))
    sfdisk = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", device]
    subprocess.run(sfdisk, input=script, text=True, check=True)
    subprocess.run(["partx", "--add", device], check=True)
    stack.callback(subprocess.run, ["partx", "--delete", device], check=False)
    return device
