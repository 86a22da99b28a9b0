"""Power failures: commands on a recorded disk, and then the disk as a failure at some moment would have left it."""

from __future__ import annotations

import io
import random
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from poolkit.engine import Engine
from poolkit.host import kernel
from tests.backends.loops import sh
from tests.soak import faults, invariants, verbs
from tests.soak.blocks import Crashes, Recorded, attached, mounted
from tests.soak.invariants import Broken
from tests.soak.rounds import Rounds, seed, told_again
from tests.soak.world import State
from tests.soak.zygote import Ended

KINDS = {
    "ext4": (64, "mkfs.ext4", "-q"),
    "ext4-1k": (64, "mkfs.ext4", "-q", "-b", "1024"),
    "xfs": (300, "mkfs.xfs", "-q"),
    "btrfs": (128, "mkfs.btrfs", "-q"),
}
"""The file systems, with the smallest size (MiB) that each takes, and what makes them."""
COMMANDS = 12
ACTIVE = ("pool", "active")


class Moment(NamedTuple):
    """A command that was at work between two positions of the log, and the state that it found."""

    begin: int
    end: int
    state: State
    call: verbs.Call


def failures(rounds: Rounds, kind: str, number: int, count: int) -> None:
    """A round of commands on a file system, and ``count`` power failures in it. ``Broken`` says what does not hold."""
    size, *mkfs = KINDS[kind]
    chance = random.Random(f"{seed()} {kind} {number}")
    place = rounds.world.place
    with Recorded(rounds.world.work, int(size) << 20) as disk:
        with attached(disk.file) as device:
            sh(*map(str, mkfs), device)
            with mounted(device, place):
                past = list(_past(rounds, disk, chance))
        crashes = Crashes(disk.log, int(size) << 20)
    crashed = rounds.world.work / "crashed"
    for position in sorted(chance.randint(past[0].begin, past[-1].end) for _ in range(count)):
        moment = [one for one in past if one.begin <= position][-1]
        doubtful = crashes.at(position, chance, crashed)
        where = f"power failure on {kind} at {position} in {moment.begin}-{moment.end}, {doubtful} writes in doubt"
        history = [" ".join(one.call.argv) for one in past if one.begin <= position]
        with ExitStack() as stack:
            if chance.random() < 0.5:
                stack.enter_context(attached(rounds.world.work / "raw0.img"))  # the disk gets another number this time
            device = stack.enter_context(attached(crashed))
            stack.enter_context(mounted(device, place))
            stack.enter_context(_another_boot(rounds))
            stack.enter_context(told_again(number, history))
            _judge(rounds, moment, position, where)
        rounds.struck[f"{moment.call.argv[0]} in a power failure"] += 1
        rounds.cases += 1
    crashed.unlink()


def _past(rounds: Rounds, disk: Recorded, chance: random.Random) -> Iterator[Moment]:
    state = rounds.begin()
    for _ in range(COMMANDS):
        call = verbs.choose(chance, state, rounds.world)
        while not call.changes:
            call = verbs.choose(chance, state, rounds.world)
        begin = disk.position()
        ended = rounds.run(call.argv)
        if ended.status:
            raise Broken(f"no fault, and yet: {ended}")
        yield Moment(begin, disk.position(), state, call)
        with Engine(rounds.world.root) as engine:
            state = rounds.world.found(engine)


def _judge(rounds: Rounds, moment: Moment, position: int, where: str) -> None:
    call, state = moment.call, moment.state
    over = position >= moment.end
    if over:
        state = verbs.after(state, call)
    changes = {fact: value for fact, value in call.changes.items() if fact != ACTIVE}
    call = call._replace(changes={} if over else changes)
    fault = faults.Fault(faults.KILL_ALL, 1)
    ended = Ended(call.argv, fault, 0 if over else -9, "", "", 0, where, 0.0)
    said = invariants.told(rounds.world, rounds.commands)
    if "inactive" not in rounds.run(("info", "p")).out:
        raise Broken(f"the pool is not there, or is taken for active since another boot: {ended}")
    started = rounds.run(("start", "p"))
    if started.status:
        raise Broken(f"cannot be started after {ended}: {started}")
    invariants.settled(rounds.world, {**state, ACTIVE: False}, call, ended, rounds.usual, said)
    for words in (("vol-create-as", "p", "next", "65536"), ("vol-delete", "next", "--pool", "p")):
        if (then := rounds.run(words)).status:
            raise Broken(f"the next verb fails after {ended}: {then}")


@contextmanager
def _another_boot(rounds: Rounds) -> Iterator[None]:
    """The machine was started again, as far as poolkit can tell: in its processes and in this one."""
    file = rounds.world.work / "boot_id"
    file.write_text(f"{uuid.uuid4()}\n")
    rounds.commands.control.boot(file)
    kernel.boot.cache_clear()
    vars(kernel)["open"] = lambda *_, **__: io.FileIO(file)
    try:
        yield
    finally:
        del vars(kernel)["open"]
        kernel.boot.cache_clear()
        rounds.commands.control.boot(None)
