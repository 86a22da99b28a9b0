"""Attaching and detaching a volume of a shared volume group: poolkit's, beside the bare ``lvchange`` that it comes down to.

Needs device-mapper and root; in the lab, with lvmlockd as well:
``python -m tests.lab run "bash $PWD/tests/lab/locks.sh 1 && python3 -m benchmarks attach"``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.harness import Bench, Row, Skip, best, run_seconds, seconds
from benchmarks.lvm import quiet, tell
from poolkit.engine import Engine
from poolkit.families import lvmlocks
from poolkit.host.node import Node

BAR = 1.3
GROUP = "poolkit-attach"
UUID = "3e3fce45-4f53-4fa7-bb32-11f34168b82b"
POOL = (
    f"<pool type='shared-lvm'><name>{GROUP}</name><uuid>{UUID}</uuid><source><device path='{{device}}'/>"
    f"<name>{GROUP}</name><lock type='{{lock}}'/></source></pool>"
)
VOLUME = "<volume><name>v</name><capacity>8388608</capacity></volume>"


def run(bench: Bench) -> Iterator[Row]:
    """Under each lock, by turns with the bare command; under lvmlockd where it runs."""
    if os.geteuid() or "device-mapper" not in Path("/proc/misc").read_text():
        raise Skip("attaching: needs root and device-mapper (python -m tests.lab run python3 -m benchmarks attach)")
    bench.need("attaching", "losetup", "vgcreate", "lvchange")
    cases = [("none", "both"), ("system-id", "compute"), ("system-id", "both")]
    ask = ["lvmlockctl", "--info"]
    if shutil.which(ask[0]) and not subprocess.run(ask, capture_output=True, check=False).returncode:
        cases.append(("lvmlockd", "compute"))
    else:
        bench.note("attaching under lvmlockd: it does not run here (in the lab, after: bash tests/lab/locks.sh 1)")
    for lock, role in cases:
        with ExitStack() as stack:
            yield from _measured(bench, stack, lock, role)


def _measured(bench: Bench, stack: ExitStack, lock: str, role: str) -> Iterator[Row]:
    root = bench.fresh("root")
    image = bench.fresh("attach") / "disk"
    image.touch()
    os.truncate(image, 512 << 20)  # sparse; LVM gives 256 MiB to sanlock
    device = tell("losetup", "--find", "--show", str(image)).strip()
    stack.callback(tell, "losetup", "--detach", device)
    node = Node("one", "both")
    with Engine(root, node=node) as engine:
        pool = engine.define(POOL.format(device=device, lock=lock))
        pool.build()
        pool.start()
        volume = pool.create_volume(VOLUME)
        if lock == "system-id" and role == "compute":
            volume.attach(node="two")
    stack.callback(_removed, root, node)
    config = lvmlocks.config(lock, UUID, guarded=role == "compute")
    words = ("--ignoreactivationskip", "--yes", "--", f"{GROUP}/v")
    engine = stack.enter_context(Engine(root, node=Node("two" if role == "compute" else "one", role)))
    pool = engine.pool(GROUP)
    pool.refresh()
    volume = pool.volume("v")
    up = ["lvchange", *config, "--activate", "ey" if lock == "lvmlockd" else "y", *words]
    down = ["lvchange", *config, "--activate", "n", *words[1:]]
    # Where the group notes who has a volume, that is a change of its own.
    note = [
        ["lvchange", *lvmlocks.config(lock, UUID), how, "tag", "--", f"{GROUP}/v"] for how in ("--addtag", "--deltag")
    ]
    noted = lock == "system-id" and role == "both"

    def bare(argv: list[str], before: list[str]) -> Callable[[], float]:
        return lambda: (quiet(lambda: run_seconds(before)) if noted else 0) + quiet(lambda: run_seconds(argv))

    calls = [
        bare(up, note[0]),
        bare(down, note[1]),
        lambda: quiet(lambda: seconds(volume.attach)),
        lambda: quiet(lambda: seconds(volume.detach)),
    ]
    lvchange_up, lvchange_down, attach, detach = best(3 * bench.rounds, *calls)
    what = f"lock {lock}, {'compute node' if role == 'compute' else 'recorded' if noted else 'nothing recorded'}"
    against = "lvchange twice" if noted else "lvchange"
    yield Row(f"attach, {what}", 1000 * attach, "ms", against, 1000 * lvchange_up, BAR)
    yield Row(f"detach, {what}", 1000 * detach, "ms", against, 1000 * lvchange_down, BAR)


def _removed(root: Path, node: Node) -> None:
    with Engine(root, node=node) as engine:
        pool = engine.pool(GROUP)
        pool.refresh()
        volume = pool.volume("v")
        for holder in (volume.info.detail or {}).get("attached", []):
            volume.detach(node=holder, force=True)
        volume.delete()
        pool.destroy()
        pool.delete()
