"""Deaths at every point of a verb: the process is killed there, and the next engine has to clean up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from poolkit.engine import Engine
from poolkit.host import Host


def killed_at(root: Path, number: int, verb: Callable[[Engine], object]) -> bool:
    """Run ``verb`` in a process that is killed at its fault point of that number; False if it has no such point."""
    child = os.fork()
    if not child:
        left = number

        def fault(label: str) -> None:
            nonlocal left
            left -= 1
            if not left:
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


def deaths(root: Path, verb: Callable[[Engine], object]) -> Iterator[Engine]:
    """After each possible death: the engine that cleaned up."""
    number = 1
    host = _Lasting()
    try:
        while killed_at(root, number, verb):
            with Engine(root, host=host) as engine:
                yield engine
            number += 1
    finally:
        Host.close(host)
    assert number > 2, "there were hardly any points to die at"
