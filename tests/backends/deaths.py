"""Deaths and failures at every point of a verb: a process that is killed there leaves the cleaning to the next engine."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from poolkit.engine import Engine
from poolkit.host import Host
from poolkit.testing import interrupted
from tests.sweep import Points, Sampled


def killed_at(root: Path, number: int, verb: Callable[[Engine], object], passed: Points | None = None) -> bool:
    """Run ``verb`` in a process that is killed at its fault point of that number; False if it has no such point.

    ``passed`` counts the points it came to.
    """
    passed = passed or Points()
    child = os.fork()
    if not child:

        def fault(label: str) -> None:
            if passed.add() == number:
                os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            engine = Engine(root, host=Host())
            engine.host.fault = fault
            verb(engine)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert status == 0, "the verb failed by itself"
    return False


class _Lasting(Host):
    """Keeps the child that works on network file systems, which is slow to start, for the next engine."""

    def close(self) -> None:
        """Not yet."""


def deaths(root: Path, verb: Callable[[Engine], object], sampled: Sampled[int]) -> Iterator[Engine]:
    """After a death at each of the ``sampled`` points: the engine that cleaned up. In the end the verb has its way."""
    host = _Lasting()
    try:
        for number in sampled(itertools.count(1)):
            passed = Points()
            if not killed_at(root, number, verb, passed):
                break
            with Engine(root, host=host) as engine:
                yield engine
    finally:
        Host.close(host)
    assert passed.count > 1, "there were hardly any points to die at"


def failures(root: Path, verb: Callable[[Engine], object], sampled: Sampled[int]) -> Iterator[Engine]:
    """As :func:`deaths`, where the process lives on and each of the ``sampled`` points fails instead."""
    host = _Lasting()
    try:
        for number in sampled(itertools.count(1)):
            if interrupted(root, number, "failing", verb) in ("", "survived"):
                break
            with Engine(root, host=host) as engine:
                yield engine
    finally:
        Host.close(host)
    assert number > 1, "there were hardly any points to fail at"
