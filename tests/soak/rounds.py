"""Rounds of commands with faults in them: each begins with an empty place, and ends at the first thing that does not hold."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from poolkit.engine import Engine
from tests.soak import faults, invariants, verbs
from tests.soak.invariants import Broken
from tests.soak.world import State, World
from tests.soak.zygote import Commands, Ended
from tests.sweep import VARIABLE, setting

Faults = Callable[[random.Random, int, float], faults.Fault]
"""Draws a fault for a verb that makes about so many calls in so many seconds."""

ROUNDS = "POOLKIT_SOAK_ROUNDS"
SEED = "POOLKIT_SOAK_SEED"
COMMANDS = 25
"""In each round."""


def numbers(usual: int) -> range:
    """The rounds that there are: as many as POOLKIT_SOAK_ROUNDS says, or the ``usual`` number, for ``make test``."""
    return range(int(os.environ.get(ROUNDS, usual)))


def seed() -> str:
    """What all draws begin with: POOLKIT_SOAK_SEED, or the seed of the sample, or for ``make soak`` one that is new."""
    if SEED not in os.environ:
        os.environ[SEED] = setting() if setting() != "all" else str(random.SystemRandom().randrange(1_000_000))
    return os.environ[SEED]


@contextmanager
def told_again(number: int, said: list[str]) -> Iterator[None]:
    """Add to what is ``Broken`` in a round how to see it again, and the last of the commands that were ``said``."""
    try:
        yield
    except Broken as broken:
        again = f"{SEED}={seed()} {VARIABLE}={setting()}, round {number}"
        history = "\n".join(said[-8:])
        raise Broken(f"{broken}\n\nthe same again with {again}; the last commands were\n{history}") from None


class Rounds:
    """Runs rounds in ``place``; ``work`` is for what no fault touches. Counts what was struck, and how."""

    def __init__(self, place: Path, work: Path) -> None:
        self.world = World(place, work)
        self.commands = Commands(place, work)
        self.struck: Counter[str] = Counter()
        self.cases = 0
        self._known: dict[str, tuple[int, float]] = {}
        self.usual: set[str] = set()

    def close(self) -> None:
        """End the process that runs the commands."""
        self.commands.close()

    def begin(self) -> State:
        """An empty place with the pool ``p``, which is active."""
        for path in self.world.place.iterdir():
            if path.is_dir() and path.name != "lost+found":
                shutil.rmtree(path)
        self.world.downloaded.parent.mkdir()
        for words in (("define", str(self.world.work / "p.xml")), ("start", "p", "--build")):
            ended = self.run(words)
            assert ended.status == 0, ended
        with Engine(self.world.root) as engine:
            self.usual = invariants.findings(engine)
            return self.world.found(engine)

    def run(self, argv: tuple[str, ...], fault: faults.Fault = faults.NONE) -> Ended:
        """One command line on the world's root."""
        return self.commands(("--root", str(self.world.root), *argv), fault)

    def round(self, number: int, draw: Faults, often: float = 0.75) -> None:
        """A round of commands, of which about so many are struck; ``Broken`` says what does not hold, and how to see it again."""
        label = f"{seed()} {number}"
        chance = random.Random(label)
        state = self.begin()
        said: list[str] = []
        with told_again(number, said):
            for _ in range(COMMANDS):
                call = verbs.choose(chance, state, self.world)
                calls, seconds = self._known.get(call.argv[0], (60, 0.05))
                fault = draw(chance, calls, seconds) if chance.random() < often else faults.NONE
                ended = self.run(call.argv, fault)
                said.append(str(ended).strip())
                self._count(call, ended)
                if ended.fault.kills and chance.random() < 0.25:
                    self._recovery_dies(chance, said)
                state = self.judge(state, call, ended)

    def _recovery_dies(self, chance: random.Random, said: list[str]) -> None:
        """What takes the command back is killed as well; the next one has to end both."""
        calls, seconds = self._known.get("recover", (40, 0.03))
        ended = self.run(("recover",), faults.killing(chance, calls, seconds))
        said.append(str(ended).strip())
        invariants.spoken(verbs.Call(("recover",), {}), ended)
        self._count(verbs.Call(("recover",), {}), ended)

    def judge(self, state: State, call: verbs.Call, ended: Ended) -> State:
        """The state that is found after a command; ``Broken`` if something does not hold."""
        invariants.spoken(call, ended)
        if not ended.fault.action and bool(ended.status) != call.refused:
            raise Broken(f"no fault, and yet: {ended}")
        said = invariants.told(self.world, self.commands)
        return invariants.settled(self.world, state, call, ended, self.usual, said)

    def _count(self, call: verbs.Call, ended: Ended) -> None:
        self.cases += 1
        if not ended.fault.action:
            self._known[call.argv[0]] = ended.calls, ended.seconds
        elif ended.killed or ended.where:
            self.struck[f"{call.argv[0]} {'killed' if ended.fault.kills else 'failed'}"] += 1
