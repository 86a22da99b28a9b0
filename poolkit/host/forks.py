"""What a fork(2) must not cut in half: calls into SQLite, and descriptors whose lock says that this process is at work.

A child has only the thread that forked. What another thread was in the middle of stays so for ever in the child's copy: a
mutex of SQLite that nobody lets go of, a database that counts as locked. So a fork waits until no other thread is in such
a part, and no thread enters one meanwhile.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress

from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import RLock, get_ident
    from typing import Any
else:
    from _thread import RLock, get_ident  # the very ones of `threading`, without all else that is in it


PATIENCE = 5.0
"""Seconds that a fork waits for other threads; such parts take milliseconds. What is cut after that, the child is told."""

_turn: Any = RLock()
_inside: dict[int, int] = {}  # how deep each thread is in such a part
_forkers: list[int] = []
_held: set[int] = set()
_cut: list[int] = []
_in_child: list[Callable[[bool], None]] = []


@contextmanager
def undivided() -> Iterator[None]:
    """A part that no fork of another thread cuts. Short, and never waiting for another thread; may be nested."""
    me = get_ident()
    outer = _inside.get(me, 0)
    try:  # from here on: Ctrl-C may come between any two lines, and what is counted in must be counted out
        with _turn:
            while _forkers and me not in _inside and me not in _forkers:
                _wait()
            _inside[me] = outer + 1
        yield
    finally:
        with _turn:
            if outer:
                _inside[me] = outer
            else:
                _inside.pop(me, None)


def _wait() -> None:
    """Let other threads have their turn: however often this one has taken it."""
    held = _turn._release_save()
    try:
        time.sleep(0.0005)
    finally:
        _turn._acquire_restore(held)


def in_child(function: Callable[[bool], None]) -> None:
    """Call ``function`` in each child that is forked; True tells it that a part was cut after all."""
    _in_child.append(function)


def hold(fd: int) -> None:
    """A descriptor whose lock (flock(2)) is this process's alone: children close it. Call it in the part that opens it."""
    _held.add(fd)


def release(fd: int) -> None:
    """Give up the lock, whoever has the descriptor too, and close it. In a child of its owner it does nothing."""
    import fcntl

    with undivided():
        if fd in _held:
            _held.discard(fd)
            with suppress(OSError):  # closing gives it up as well, and the work that it stood for has its own errors
                fcntl.flock(fd, fcntl.LOCK_UN)
            with suppress(OSError):
                os.close(fd)


def _before() -> None:
    me = get_ident()
    _turn.acquire()
    _forkers.append(me)
    until = time.monotonic() + PATIENCE
    while any(thread != me for thread in _inside) and time.monotonic() < until:
        _wait()
    _cut[:] = _inside


def _after_in_parent() -> None:
    _forkers.remove(get_ident())
    _turn.release()


def _after_in_child() -> None:
    global _turn  # noqa: PLW0603 - of this process
    _turn = RLock()
    _forkers.clear()
    _inside.clear()
    for fd in _held:
        with suppress(OSError):
            os.close(fd)
    _held.clear()
    for function in _in_child:
        function(bool(_cut))


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
