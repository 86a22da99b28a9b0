"""One guest after another that takes lab tests from the common list: what it is given, what it tells, how it ends.

Two lanes take from the two ends of the list, so that each stays among the tests of one module as long as it can, and both
end at about the same time however long the tests take.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .guest import Guest, GuestError
from .measure import Measure
from .run import COLLECT_TIMEOUT, FINISH_TIMEOUT, Chosen, GuestRun

if TYPE_CHECKING:
    from .plugin import Outer

PROJECT = Path(__file__).resolve().parents[2]
PER_LANE = 20  # tests that are worth the boot of another guest
LANE_MEMORY = 3 << 30  # bytes that a lane's qemu and the programs beside it may need


def count(tests: int, processors: int, memory: int) -> int:
    """How many guests to use for that many tests on a machine with so many processors and bytes of free memory."""
    return max(1, min(2, processors, tests // PER_LANE, memory // LANE_MEMORY))


class Lane:
    """Boots a guest when there are tests to run, and another when that one dies or asks to be replaced."""

    def __init__(self, outer: Outer, number: int, processors: int) -> None:
        self.outer = outer
        self.number = number
        self.processors = processors
        self.guest: Guest | None = None
        self.run: GuestRun | None = None
        self.given: deque[pytest.Item] = deque()  # the test that runs, if one does, and the one it will go on with
        self.running = False
        self.reports: list[dict[str, Any]] = []  # of the test that runs
        self.begun = 0.0
        self.deadline = 0.0
        self.slowness = 1.0  # as the guest has measured it last

    # what the outer side does with it

    def launch(self) -> None:
        """Switch a guest on, without waiting for it."""
        root = self.outer.config.rootpath
        sources = [root] if root == PROJECT or PROJECT.is_relative_to(root) else [root, PROJECT]
        name = "lab" if self.number == 0 else f"lab{self.number + 1}"
        self.guest = Guest(name, cpus=self.processors, hardware=True, sources=sources, say=self.outer.say)
        self.guest.launch()

    def step(self) -> bool:
        """Take a look, without waiting: handle what the guest told, or find out that it is lost. False: it is idle."""
        if self.run is None:
            if not self.outer.pending:
                return False
            try:
                self._begin()
            except GuestError as error:
                self.end()
                self.outer.boot_failed(str(error))
            return True
        ended = self.run.over or not (self.guest and self.guest.running)  # asked first: all it told is there then
        while (event := self.run.event()) is not None:
            self._handle(event)
        if ended:
            self._ended()
        elif time.monotonic() > self.deadline:
            self.lose(self.guest.obituary("was killed, for the test took too long") if self.guest else "")
        return True

    def end(self) -> None:
        """Switch the guest off at once; what it was given goes back to the list."""
        if self.run is not None:
            run, self.run = self.run, None
            if lost := run.close():
                self.outer.say(lost)
        if self.guest is not None:
            self.guest.stop()
            self.guest = None
        while self.given:
            self.outer.give_back(self.number, self.given.pop())

    def lose(self, text: str) -> None:
        """Fail the test that ran (or would have been the next), and let the rest go on elsewhere."""
        assert self.run is not None
        if (said := self.run.output().strip()) and said not in text:
            text += f"\nthe end of what its pytest printed:\n{said}"
        reports, begun = self.reports, self.begun or time.monotonic()
        item = self.given.popleft() if self.given else None
        self.running = False
        self.end()
        item = item or self.outer.take(self.number)  # a pytest that never asked fails one test, or this would not end
        if item:
            self.outer.publish(item, reports, text, begun)

    # inside

    def _begin(self) -> None:
        """Wait for the guest and start its pytest over all tests that are left: it collects them, and asks for each."""
        if self.guest is None:
            self.launch()
        assert self.guest is not None
        self.guest.wait_ready()
        self.outer.boot_failures = 0
        chosen = [Chosen(item.nodeid, self.outer.timeouts[item.nodeid]) for item in self.outer.unfinished()]
        config = self.outer.config
        self.run = GuestRun(
            self.guest, config.rootpath, chosen, self.outer.options(), Measure.current(), self.outer.stream
        )
        self.running = False
        self.reports = []
        self.deadline = time.monotonic() + COLLECT_TIMEOUT

    def _handle(self, event: dict[str, Any]) -> None:
        assert self.run is not None
        kind = event["event"]
        if kind == "missing":
            self.outer.missing(event["id"], event["text"])
        elif kind == "next":
            item = self.outer.take(self.number)
            self.run.answer(event["number"], item.nodeid if item else "")
            if item:
                self.given.append(item)
            else:
                self.deadline = max(self.deadline, time.monotonic() + self.slowness * FINISH_TIMEOUT)
        elif kind == "start":
            self.running, self.reports, self.begun = True, [], time.monotonic()
            self.slowness = event["slowness"]
            grace = self.slowness * float(self.outer.config.getini("lab_grace"))
            self.deadline = self.begun + event["limit"] + grace
        elif kind == "report":
            self.reports.append(event["data"])
        elif kind == "finish":
            self.running = False
            self.outer.publish(self.given.popleft(), self.reports)
            self.deadline = time.monotonic() + self.slowness * FINISH_TIMEOUT

    def _ended(self) -> None:
        """The guest's pytest is over, or the guest itself."""
        assert self.run is not None
        if not self.run.over:
            self.lose(self.guest.obituary("died") if self.guest else "")
        elif self.running or (self.given and not self.run.replaced):
            self.lose(f"the guest's pytest ended without finishing this test; it said:\n{self.run.output()}")
        else:
            self.end()  # it did all it was given, or asks for a fresh guest
