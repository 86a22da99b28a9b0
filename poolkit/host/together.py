"""Many waits at the same time: where each system call waits for a server, what costs is the number of waits one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

_WAIT = 1e-4
"""Seconds of work on one thing from which on it has waited for somebody: a system call that need not takes a hundredth."""


def share(
    work: Callable[[Iterator[T]], None], items: Iterable[T], count: int, check: Callable[[], object] = lambda: None
) -> None:
    """Have at most ``count`` threads, of which the caller's is one, do ``work`` on ``items``: each is taken by one of them.

    The caller's works alone until it has waited twice in succession: threads that need not wait only hinder one another. When
    all have ended the first error is raised; after one the others take no more. ``check`` is called before each item is
    taken, to stop by an error. ``work`` must be fit for threads: system calls let others go on, Python itself does not.
    """
    each = iter(items)
    taking = threading.Lock()  # an iterator serves one at a time
    failed: list[BaseException] = []
    threads: list[threading.Thread] = []

    def taken() -> Iterator[T]:
        while not failed:
            check()
            with taking:
                try:
                    item = next(each)
                except StopIteration:
                    return
            yield item

    def alone() -> Iterator[T]:
        waits = 0  # one long look may be another process's turn on the processor
        for item in taken():
            start = perf_counter()
            yield item
            waits = waits + 1 if perf_counter() - start > _WAIT else 0
            if waits == 2:
                break
        else:
            return
        threads.extend(threading.Thread(target=run, args=(taken(),), daemon=True) for _ in range(count - 1))
        for thread in threads:
            thread.start()
        yield from taken()

    def run(mine: Iterator[T]) -> None:
        try:
            work(mine)
        except BaseException as error:  # also Ctrl-C: the others end before it goes on
            failed.append(error)

    run(alone())
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def meanwhile(call: Callable[[], T]) -> Callable[[], T]:
    """Begin ``call`` in a thread of its own; the function that waits for what it returns, or raises its error."""
    result: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait() -> T:
        thread.join()
        if failed:
            raise failed[0]
        return result[0]

    return wait
