"""Commands are killed, and system calls fail, at random: nothing is lost, nothing is left over, and every word is poolkit's own.

A few rounds here; ``make soak`` takes many, and as many as POOLKIT_SOAK_ROUNDS says.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from tests.backends.loops import loop_devices, sh
from tests.conftest import unavailable
from tests.engine.test_full_disk import KINDS
from tests.soak import faults, full, power
from tests.soak.rounds import Rounds, numbers
from tests.sweep import Sampled

pytestmark = [pytest.mark.tools("gcc", "qemu-img", "prlimit"), pytest.mark.timeout(300 * len(numbers(1)))]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where an fsync costs nothing."""
    place = tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    yield Path(place)
    shutil.rmtree(place)


@pytest.fixture
def rounds(memory: Path, tmp_path: Path) -> Iterator[Rounds]:
    """Rounds in memory."""
    rounds = Rounds(memory, tmp_path)
    yield rounds
    rounds.close()


def test_killed_at_random(rounds: Rounds, sampled: Sampled[int]) -> None:
    for number in sampled(numbers(4)):
        rounds.round(number, faults.killing)
    assert sum(rounds.struck.values()) >= rounds.cases / 8, f"hardly anything was struck: {rounds.struck}"


def test_calls_fail_at_random(rounds: Rounds, sampled: Sampled[int]) -> None:
    for number in sampled(numbers(4)):
        rounds.round(number, faults.failing)
    assert sum(rounds.struck.values()) >= rounds.cases / 8, f"hardly anything was struck: {rounds.struck}"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a file system of its own is mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    return place


@pytest.mark.root
@pytest.mark.tools("losetup", "mount", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs")
def test_the_power_fails_at_random(disk: Path, memory: Path, sampled: Sampled[tuple[int, str]]) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        unavailable("needs /dev/fuse")
    rounds = Rounds(disk, memory)
    try:
        for number, kind in sampled(product(numbers(1), power.KINDS)):
            power.failures(rounds, kind, number, 8)
        assert rounds.cases >= 8
    finally:
        rounds.close()


@pytest.mark.root
@pytest.mark.tools("losetup", "mount", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs")
def test_the_disk_is_full(disk: Path, memory: Path, sampled: Sampled[tuple[int, str]]) -> None:
    rounds = Rounds(disk, memory)
    try:
        for number, kind in sampled(product(numbers(1), KINDS)):
            with _mounted(kind, disk, memory):
                full.full(rounds, number, kind)
        assert sum(rounds.struck.values()), "nothing met the end of the disk"
    finally:
        rounds.close()


@contextmanager
def _mounted(kind: str, disk: Path, folder: Path) -> Iterator[None]:
    size, *mkfs = KINDS[kind]
    with loop_devices(folder) as make:
        if kind == "tmpfs":
            sh("mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(disk))
        else:
            device = make(int(size))
            sh(*map(str, mkfs), device)
            sh("mount", device, str(disk))
        try:
            yield
        finally:
            sh("umount", str(disk), check=False)
