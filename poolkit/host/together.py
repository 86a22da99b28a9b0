"""Many waits at the same time: where each system call waits for a server, what costs is the number of waits one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def share(work: Callable[[Iterator[T]], None], items: Sequence[T], count: int) -> None:
    """Have at most ``count`` threads, of which the caller's is one, do ``work`` on ``items``: each is taken by one of them.

    When all have ended the first error is raised; after one the others take no more. ``work`` must be fit for threads: system
    calls let others go on, Python itself does not.
    """
    each = iter(items)  # of a sequence: taking the next is one step, which no other thread comes into
    failed: list[BaseException] = []

    def until_one_failed() -> Iterator[T]:
        for item in each:
            if failed:
                return
            yield item

    def run() -> None:
        try:
            work(until_one_failed())
        except BaseException as error:  # also Ctrl-C: the others end before it goes on
            failed.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(count, len(items)) - 1)]
    for thread in threads:
        thread.start()
    run()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
