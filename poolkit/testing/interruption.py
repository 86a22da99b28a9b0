"""Verbs that die, or fail, at one of their steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Literal

from poolkit import errors
from poolkit.engine import Engine
from poolkit.host import Host

How = Literal["killed", "failing"]
Came = Literal["", "killed", "failed", "survived"]
"""What came of an interruption; nothing where the verb has no such step."""


def interrupted(root: str | os.PathLike[str], step: int, how: How, verb: Callable[[Engine], object]) -> Came:
    """Run ``verb`` on the engine of ``root`` in a process of its own that is interrupted at its step of that number (from 1).

    A step is a point at which the host is about to change something, or has just recorded how to take a change back.
    ``killed`` ends the process there, as a crash does: what is left is for the next engine to clean up. ``failing`` lets the
    step fail; points whose labels begin with "passed:", where nothing can fail any more, are no steps then. A verb that
    ends well although a step of it failed has survived. What goes wrong otherwise is an ``AssertionError``.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def fault(label: str) -> None:
            nonlocal count
            if how == "failing" and label.startswith("passed:"):
                return  # nothing can fail there any more
            count += 1
            if count == step:
                if how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(5, "injected", label)

        status = 1
        try:
            with Engine(root, host=Host(fault=fault)) as engine:
                verb(engine)
            status = 4 if how == "failing" and count >= step else 0
        except errors.PoolkitError:
            status = 3 if how == "failing" and count >= step else 1
            raise
        finally:
            if status == 1:
                import traceback

                traceback.print_exc()
            os._exit(status)
    _, wait = os.waitpid(child, 0)
    if os.WIFSIGNALED(wait) and os.WTERMSIG(wait) == signal.SIGKILL and how == "killed":
        return "killed"
    status = os.waitstatus_to_exitcode(wait)
    ends: dict[int, Came] = {0: "", 3: "failed", 4: "survived"}
    if status not in ends:
        raise AssertionError(f"the verb failed by itself (status {status}), its error is in what was printed")
    return ends[status]
