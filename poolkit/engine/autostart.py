"""Starting many pools at once: side by side, each behind those it stands on, and each with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

from poolkit import errors
from poolkit.engine import order
from poolkit.engine.core import Core
from poolkit.engine.operation import Outcome
from poolkit.host import systemd
from poolkit.state.store import Locations

DEADLINE = 120.0
"""Seconds that the start of one pool may take: four servers that do not answer, each tried for as long as mount(8) may take."""
AT_ONCE = 8
"""Pools that are started at one time: most of a start is waiting for programs, servers and disks."""
GRACE = 20.0
"""Seconds after its deadline in which a start is waited for to take back what it did: a dead server is noticed in 15."""
_TICK = 0.1

Result = Literal["started", "unchanged", "failed", "timed-out", "skipped"]


class Started(NamedTuple):
    """What became of one pool: ``outcome`` where it is up, else ``error``. ``seconds`` is how long its start took."""

    pool: str
    result: Result
    outcome: Outcome | None = None
    error: errors.PoolkitError | None = None
    seconds: float = 0.0


class _Attempt:
    """The start of one pool in a thread of its own, which nothing waits for that could hang with it."""

    def __init__(self, name: str, start: Callable[[str, threading.Event], Outcome], done: threading.Condition) -> None:
        self.name = name
        self.abort = threading.Event()
        self.began = time.monotonic()
        self.ended: float | None = None
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self._start, self._done = start, done
        threading.Thread(target=self._run, name=f"start {name}", daemon=True).start()

    def _run(self) -> None:
        try:
            self.outcome = self._start(self.name, self.abort)
        except BaseException as error:
            self.error = error
        with self._done:
            self.ended = time.monotonic()
            self._done.notify_all()

    def result(self, deadline: float) -> Started | None:
        """What became of it; None while it is at work."""
        seconds = (self.ended or time.monotonic()) - self.began
        late = seconds >= deadline
        if self.ended is None:
            if not late:
                return None
            self.abort.set()
            if seconds < deadline + GRACE:
                return None
            hint = "its storage hangs, and the work on it is left behind; what it had begun is taken back when it ends"
            return Started(self.name, "timed-out", error=_late(self.name, deadline, hint), seconds=seconds)
        if self.outcome is not None:
            return Started(self.name, "started" if self.outcome else "unchanged", self.outcome, seconds=seconds)
        if isinstance(self.error, errors.Aborted) and late:
            return Started(self.name, "timed-out", error=_late(self.name, deadline, None), seconds=seconds)
        if isinstance(self.error, errors.PoolkitError):
            return Started(self.name, "failed", error=self.error, seconds=seconds)
        bug = errors.HostError(f"pool '{self.name}': its start ended with {self.error!r:.200}", pool=self.name)
        bug.__cause__ = self.error
        return Started(self.name, "failed", error=bug, seconds=seconds)


def _late(name: str, deadline: float, hint: str | None) -> errors.Unreachable:
    return errors.Unreachable(
        f"pool '{name}' was not up within {deadline:g} seconds, and its start was given up",
        pool=name,
        hint=hint or errors.Hint("does its storage answer? with more time: ", errors.Option("deadline", deadline * 2)),
    )


def plan(core: Core, names: Iterable[str]) -> order.Plan:
    """The order of these pools; one whose document cannot be read stands for itself."""
    found = {}
    for name in names:
        found[name] = order.Facts(name)
        try:
            definition = core.definitions.load(name)
            backend = core.definitions.backend(definition)
            found[name] = order.facts(definition, file_backed=backend.file_backed)
        except errors.PoolkitError:
            pass  # its start says what is wrong
    return order.plan(found)


def run(
    plan: order.Plan,
    start: Callable[[str, threading.Event], Outcome],
    *,
    deadline: float,
    at_once: int,
    abort: threading.Event,
) -> Iterator[Started]:
    """Start the pools of a plan; gives what became of each when that is known.

    A pool is not tried without those it stands on: a directory whose file system is not mounted is another directory.
    """
    changed = threading.Condition()
    waiting = list(plan.names)
    at_work: list[_Attempt] = []
    ended: dict[str, Started] = {}

    def end(result: Started) -> Started:
        ended[result.pool] = result
        warning, had = plan.warning(result.pool), result.outcome
        if warning is None or had is None:
            return result
        return result._replace(
            outcome=Outcome(had.changed, had.message, warnings=(*had.warnings, warning), plan=had.plan)
        )

    while waiting or at_work:
        for name in list(waiting):
            before = plan.stands_on[name] | plan.waits_for[name]
            lacks = next((n for n in sorted(plan.stands_on[name]) if n in ended and ended[n].error is not None), None)
            if abort.is_set():
                waiting.remove(name)
                stopped = errors.Aborted(f"pool '{name}' was not started: stopped on request", pool=name)
                yield end(Started(name, "skipped", error=stopped))
            elif lacks is not None:
                waiting.remove(name)
                yield end(Started(name, "skipped", error=_without(name, lacks)))
            elif before <= ended.keys() and len(at_work) < at_once:
                waiting.remove(name)
                at_work.append(_Attempt(name, start, changed))
        with changed:
            if all(attempt.ended is None for attempt in at_work):
                changed.wait(_TICK)
        for attempt in list(at_work):
            if abort.is_set():
                attempt.abort.set()
            result = attempt.result(deadline)
            if result is not None:
                at_work.remove(attempt)
                yield end(result)


def _without(name: str, below: str) -> errors.InvalidState:
    return errors.InvalidState(
        f"pool '{name}' was not started: it stands on pool '{below}', which is not up", pool=name,
        hint=errors.Hint("when that one is up: ", errors.remedy("start", name)),
    )  # fmt: skip


def starter(locations: Locations) -> str | None:
    """The systemd unit that starts the marked pools of these folders when the machine or the user's session begins.

    None if no unit that is enabled does. One is known by its ``ExecStart=``, whatever its name is.
    """
    default = locations == Locations.choose()
    for unit, text in systemd.enabled(user=default and not locations.storage.startswith("/etc/")):
        for line in text.splitlines():
            if not line.startswith("ExecStart=") or "--autostart" not in (words := line[10:].split()):
                continue
            root = next((b for a, b in pairwise(words) if a == "--root"), None)
            root = next((w.removeprefix("--root=") for w in words if w.startswith("--root=")), root)
            if any("poolkit" in word for word in words) and Locations.choose(root) == locations:
                return unit
    return None
