"""Loop devices for tests on this machine: block devices backed by files of the test's own folder."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def sh(*argv: str, check: bool = True, input: str = "") -> str:
    """Run a program; its standard output. A failure raises with what it said."""
    done = subprocess.run(argv, input=input, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def loop_devices(folder: Path) -> Iterator[Callable[..., str]]:
    """Gives a function that makes a loop device of so many MiB; all are gone at the end, with what is mounted of them."""
    made: list[str] = []

    def make(mebibytes: int = 64) -> str:
        image = folder / f"loop{len(made)}.img"
        with image.open("wb") as file:
            file.truncate(mebibytes << 20)
        made.append(sh("losetup", "--find", "--show", str(image)).strip())
        return made[-1]

    try:
        yield make
    finally:
        for device in made:
            while shutil.which("findmnt") and sh("findmnt", "-n", "-o", "TARGET", "--source", device, check=False):
                if subprocess.run(["umount", device], capture_output=True, check=False).returncode:
                    break
            sh("losetup", "--detach", device, check=False)


def mounts_below(folder: Path) -> list[str]:
    """Mount points below a folder, as the kernel has them."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]
