"""A disk on which next to nothing is left, now so many bytes and now another number."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

from tests.soak import faults, verbs
from tests.soak.rounds import Rounds, seed, told_again

COMMANDS = 15
FULL = faults.Fault(faults.FAIL, faults.FOREVER, 0, errno.ENOSPC)
"""What stands for the disk's own errors: no call is struck."""


def fill(place: Path, left: int) -> None:
    """Take all space of a file system but for about ``left`` bytes, by a new file ``filler``."""
    filler = place / "filler"
    with filler.open("xb", buffering=0) as file:
        step = 1 << 24
        while step >= 512:  # no block is smaller
            facts = os.statvfs(place)
            if facts.f_bavail * facts.f_frsize < left + step:
                step //= 2
                continue
            size = filler.stat().st_size
            try:
                if step >= 4096:
                    os.posix_fallocate(file.fileno(), size, step)
                else:
                    os.pwrite(file.fileno(), bytes(step), size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step //= 2


def full(rounds: Rounds, number: int, kind: str) -> None:
    """A round of commands on a file system that is full before each, and has room again when it is looked at."""
    chance = random.Random(f"{seed()} {kind} {number}")
    place = rounds.world.place
    state = rounds.begin()
    said: list[str] = []
    with told_again(number, said):
        for _ in range(COMMANDS):
            call = verbs.choose(chance, state, rounds.world)
            fill(place, chance.choice((0, 0, chance.randrange(1 << 16), chance.randrange(1 << 20))))
            try:
                ended = rounds.run(call.argv, FULL)
            finally:
                # btrfs has space set aside for taking a name away, and none for cutting a file.
                (place / "filler").unlink()
            said.append(str(ended).strip())
            rounds.cases += 1
            rounds.struck[f"{call.argv[0]} on a full disk"] += ended.status == 11
            state = rounds.judge(state, call, ended)
