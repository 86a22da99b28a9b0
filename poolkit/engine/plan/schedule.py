"""Which entry of a plan comes next: what it waits for has ended, and nobody else works on its pool."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from poolkit.engine.plan.entries import Entry


class Ended(NamedTuple):
    """An entry that needs no work, or cannot be worked on because ``lost`` failed."""

    entry: Entry
    lost: Entry | None = None


class Schedule:
    """The entries of one plan, each taken when it may begin. ``work`` says whether there is anything to do for one.

    Costs a few look-ups for each entry and what it waits for. An entry without work ends with the last that it waits for, so
    that what waits for it waits for those as well.
    """

    def __init__(self, entries: Sequence[Entry], work: Callable[[Entry], bool]) -> None:
        self._entries = entries
        self._work = work
        at = {entry.ident: number for number, entry in enumerate(entries)}
        self._missing = [{at[ident] for ident in entry.after if ident in at} for entry in entries]
        self._above: list[list[int]] = [[] for _ in entries]
        for number, below in enumerate(self._missing):
            for one in below:
                self._above[one].append(number)
        self._lost: dict[int, Entry] = {}
        self._open = dict.fromkeys(range(len(entries)))
        self._ready = deque(number for number, below in enumerate(self._missing) if not below)
        self._queues: dict[str, list[int]] = {}
        self._free: deque[str] = deque()
        """Pools that have something to do and that nobody works on."""
        self._busy: dict[str, int] = {}
        self.ended: deque[Ended] = deque()
        """What ended by itself, for the caller to take."""
        self._look()

    def __bool__(self) -> bool:
        return bool(self._open)

    def left(self) -> Iterator[Entry]:
        """What was not begun."""
        begun = set(self._busy.values())
        return (self._entries[number] for number in self._open if number not in begun)

    def take(self) -> Entry | None:
        """The next that may begin, None if there is none at the moment. What waits in a circle begins in order."""
        while not self._free:
            if self._busy or not self._open:
                return None
            first = next(iter(self._open))
            self._missing[first].clear()
            self._ready.append(first)
            self._look()
        pool = self._free.popleft()
        number = heapq.heappop(self._queues[pool])
        self._busy[pool] = number
        return self._entries[number]

    def end(self, entry: Entry, *, failed: bool) -> None:
        """What was taken has ended."""
        pool = _pool(entry)
        number = self._busy.pop(pool)
        if failed:
            self._lost[number] = entry
        self._close(number)
        if self._queues[pool]:
            self._free.append(pool)
        self._look()

    def _close(self, number: int) -> None:
        del self._open[number]
        lost = self._lost.get(number)
        for above in self._above[number]:
            if lost is not None:
                self._lost.setdefault(above, lost)
            if number in self._missing[above]:
                self._missing[above].remove(number)
                if not self._missing[above]:
                    self._ready.append(above)

    def _look(self) -> None:
        while self._ready:
            number = self._ready.popleft()
            entry = self._entries[number]
            lost = self._lost.get(number)
            if not self._work(entry):
                self.ended.append(Ended(entry))
                self._close(number)
            elif lost is not None:
                self.ended.append(Ended(entry, lost))
                self._close(number)
            else:
                pool = _pool(entry)
                queue = self._queues.setdefault(pool, [])
                if not queue and pool not in self._busy:
                    self._free.append(pool)
                heapq.heappush(queue, number)


def _pool(entry: Entry) -> str:
    return entry.pool or entry.name
