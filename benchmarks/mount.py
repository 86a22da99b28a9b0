"""Start of an fs pool beside a bare mount of the same device: the command for both, and the library's call."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.harness import PYTHON, Bench, Row, Skip, best, run_seconds, seconds

BAR = 1.5


def run(bench: Bench) -> Iterator[Row]:
    """Mount and unmount in turns; only the mounting is measured. ``mount`` is a process in both, the engine's call is not."""
    if os.geteuid():
        raise Skip("mount: needs root")
    bench.need("mount", "losetup", "mkfs.ext4", "mount")
    from poolkit.engine import Engine

    target, root = bench.fresh("target"), bench.fresh("root")
    with ExitStack() as stack:
        device = _device(bench, stack)
        engine = stack.enter_context(Engine(root=root))
        pool = engine.define(
            f"<pool type='fs'><name>bench</name><source><device path='{device}'/><format type='ext4'/></source>"
            f"<target><path>{target}</path></target></pool>"
        )
        pool.build()
        # What was changed a moment ago is looked into again at each start (a tick of 2 s), and few pools are new.
        time.sleep(2.5)
        pool.start()
        pool.destroy()

        def bare() -> float:
            options = "nosuid,nodev,noexec"
            try:
                return run_seconds(["mount", "-t", "ext4", "-o", options, "--", device, str(target)])
            finally:
                subprocess.run(["umount", target], check=True)

        def library() -> float:
            try:
                return seconds(pool.start)
            finally:
                pool.destroy()

        def command() -> float:
            try:
                return run_seconds([PYTHON, "-m", "poolkit", "--root", str(root), "start", "bench"])
            finally:
                pool.destroy()

        base, own = best(bench.rounds * 20, bare, library)  # milliseconds each: few samples would measure the noise
        (process,) = best(bench.rounds, command)
    yield Row("start of an fs pool", own * 1e3, "ms", "mount", base * 1e3, BAR)
    yield Row("start of an fs pool, whole command", process * 1e3, "ms", "mount", base * 1e3)


def _device(bench: Bench, stack: ExitStack) -> str:
    """A loop device that is gone with the stack."""
    image = Path(bench.fresh("device")) / "image"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    done = subprocess.run(
        ["losetup", "--find", "--show", str(image)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Skip(f"mount: no loop device: {done.stderr.strip()}")
    device = done.stdout.strip()
    stack.callback(subprocess.run, ["losetup", "--detach", device], check=False)
    return device
