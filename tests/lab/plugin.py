"""The pytest plugin on the outer side: tests marked ``lab`` run in a guest and are reported here one by one."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from . import image, lanes
from .guest import POLL, UNMARKED

pytest_plugins = ["tests.lab.fixtures"]


SHARED = "POOLKIT_LAB_SHARED"
"""Names a file that appears when the machine's other processors are free; until then there is one guest."""


class LostGuest:
    """The failure of a test whose guest is gone, in the form reports want: text, and one line for the summary."""

    def __init__(self, item: pytest.Item, text: str) -> None:
        self.text = text
        self.reprcrash = self
        self.path, self.lineno, _ = item.location
        self.message = text.splitlines()[0]

    def toterminal(self, writer: Any) -> None:
        """Print it."""
        writer.line(self.text)

    def __str__(self) -> str:
        """The whole text (for junit.xml and the like)."""
        return self.text


def in_guest(item: pytest.Item) -> bool:
    """Whether the test is one of the lab's."""
    return item.get_closest_marker("lab") is not None


def starts_guests(item: pytest.Item) -> bool:
    """Whether the test is on the host and starts guests of its own: it says so by one of two fixtures."""
    return not in_guest(item) and not {"lab_guest", "lab_guests", "bootable"}.isdisjoint(
        getattr(item, "fixturenames", ())
    )


class Outer:
    """Hands the session's lab tests to one guest or two, and publishes what comes back as it comes."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.unavailable: str | None = None
        self.lanes: list[lanes.Lane] = []
        self.pending: deque[pytest.Item] = deque()  # what no guest has been given yet
        self.timeouts: dict[str, float] = {}
        self.boot_failures = 0  # in a row
        self.begun = False

    # collection

    def limit(self, item: pytest.Item) -> float:
        """Seconds the test may take: the lab marker's timeout, the timeout marker's, or the setting lab_timeout."""
        named = [marker.kwargs["timeout"] for marker in item.iter_markers("lab") if "timeout" in marker.kwargs]
        for marker in item.iter_markers("timeout"):
            named += [marker.args[0]] if marker.args else [marker.kwargs["timeout"]]
        return float(named[0] if named else self.config.getini("lab_timeout"))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the lab's tests last: what runs on the host fails sooner, and the guest does not take its processors."""
        items.sort(key=in_guest)
        for item in items:
            if in_guest(item):
                self.timeouts[item.nodeid] = self.limit(item)
                if self.config.pluginmanager.hasplugin("timeout"):
                    item.add_marker(pytest.mark.timeout(0), append=False)  # the guest's clock counts, not ours

    # running

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[None]:
        """Build the image before any test's clock runs; switch the guest off when all is done."""
        wanted = [item for item in session.items if in_guest(item) or starts_guests(item)]
        if wanted and not self.config.option.collectonly:
            try:
                image.ensure(self.say)
            except image.LabUnavailable as error:
                self.unavailable = str(error)
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Leave no machine behind, however the session ended."""
        for lane in self.lanes:
            lane.end()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Keep guests out of a test that does not say that it starts any, and out of all that it starts."""
        if not starts_guests(item):
            os.environ[UNMARKED] = item.nodeid
        try:
            return (yield)
        finally:
            os.environ.pop(UNMARKED, None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """At the first lab test run all of them; the later ones are done by then."""
        if not in_guest(item):
            return None
        if not self.begun:
            self.begun = True
            self.forward(item.session)
        return True

    def forward(self, session: pytest.Session) -> None:
        """Have all lab tests run, in as many guests as are worth it."""
        self.pending.extend(item for item in session.items if in_guest(item))
        wanted = self.wanted()
        deadline = time.monotonic() + float(self.config.getini("lab_session_timeout"))
        try:
            if self.unavailable:
                raise image.LabUnavailable(self.unavailable)
            # One that has the machine for itself gets two processors; where others are at work, or may be, each gets one.
            each = 1 if SHARED in os.environ else max(1, min(2, (os.cpu_count() or 1) // wanted))
            self.lanes = [lanes.Lane(self, number, each) for number in range(wanted)]
            for lane in self.lanes:
                lane.launch()
            while sum(lane.step() for lane in self.lanes) and not (session.shouldfail or session.shouldstop):
                if len(self.lanes) == 1 and SHARED in os.environ and self.wanted() > 1:
                    self.lanes.append(lanes.Lane(self, 1, each))
                if time.monotonic() > deadline:
                    self.give_up("the time that all lab tests together may take (lab_session_timeout) is up")
                time.sleep(POLL)
        except image.LabUnavailable as error:
            self.unavailable = str(error)
            while self.pending:
                self.report_unavailable(self.pending.popleft())
        for lane in self.lanes:
            lane.end()

    def wanted(self) -> int:
        """How many guests are worth it now."""
        # What two of them print would be mixed.
        shared = SHARED in os.environ and not os.path.exists(os.environ[SHARED])
        processors = 1 if self.stream or shared else os.cpu_count() or 1
        return lanes.count(len(self.pending), processors, _free_memory())

    def give_up(self, text: str) -> None:
        """Fail the tests that run and those that wait."""
        for lane in self.lanes:
            if lane.running:
                lane.lose(text)
            lane.end()
        while self.pending:
            self.publish(self.pending.popleft(), [], text)

    # what the lanes ask

    def unfinished(self) -> list[pytest.Item]:
        """All tests that may still come to any lane."""
        return [*self.pending, *(item for lane in self.lanes for item in lane.given)]

    def take(self, lane: int) -> pytest.Item | None:
        """The next test for a lane: from its own end of the list."""
        if not self.pending:
            return None
        return self.pending.pop() if lane % 2 else self.pending.popleft()

    def give_back(self, lane: int, item: pytest.Item) -> None:
        """A test that was taken and not run."""
        if lane % 2:
            self.pending.append(item)
        else:
            self.pending.appendleft(item)

    def missing(self, nodeid: str, text: str) -> None:
        """A guest could not collect that test: no guest will."""
        for item in [item for item in self.pending if item.nodeid == nodeid]:
            self.pending.remove(item)
            self.publish(item, [], text)

    def boot_failed(self, text: str) -> None:
        """A guest did not come up: fails a test, and after the second time all of them."""
        self.boot_failures += 1
        if self.pending:
            self.publish(self.pending.popleft(), [], text)
        if self.boot_failures > 1:
            self.give_up("the guest did not boot twice before, so this test was not tried")

    def options(self) -> list[str]:
        """The options of the outer pytest that make sense in there too."""
        option = self.config.option
        words = [f"--tb={option.tbstyle}"]
        words += ["-v"] * max(option.verbose, 0)
        flags = {"showlocals": "--showlocals", "fulltrace": "--full-trace", "runxfail": "--runxfail"}
        words += [word for name, word in flags.items() if getattr(option, name, False)]
        if option.capture == "no":
            words.append("-s")
        if option.assertmode != "rewrite":
            words.append(f"--assert={option.assertmode}")
        if (seed := getattr(option, "hypothesis_seed", None)) is not None:
            words.append(f"--hypothesis-seed={seed}")
        return words

    # reporting

    def publish(
        self, item: pytest.Item, reports: Sequence[dict[str, Any]], lost: str = "", begun: float | None = None
    ) -> None:
        """Publish a test: the reports that came from the guest, and the failure if the rest of it is ``lost``."""
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        phase = "setup"
        for data in reports:
            phase = self._report(item, data)
        if lost:
            self._publish(item, "failed", LostGuest(item, lost), phase, begun or time.monotonic())
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _report(self, item: pytest.Item, data: dict[str, Any]) -> str:
        """Publish a report that came from the guest; returns the phase that follows it."""
        for name in ("user_properties", "sections"):  # JSON made lists of what pytest wants as tuples
            data[name] = [tuple(entry) for entry in data.get(name) or ()]
        data["location"] = tuple(data["location"])
        if isinstance(data["longrepr"], list):
            data["longrepr"] = tuple(data["longrepr"])
        report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
        item.ihook.pytest_runtest_logreport(report=report)
        return {"setup": "call" if report.passed else "teardown", "call": "teardown"}.get(report.when, "teardown")

    def _publish(self, item: pytest.Item, outcome: str, longrepr: Any, phase: str, begun: float) -> None:
        """Publish a report of our own about a test, and close it with an empty teardown."""
        keywords = dict.fromkeys(item.keywords, 1)
        stop = time.time()
        start = stop - (time.monotonic() - begun)
        report = pytest.TestReport(
            item.nodeid, item.location, keywords, outcome, longrepr, phase, (), stop - start, start, stop  # type: ignore[arg-type]
        )  # fmt: skip
        item.ihook.pytest_runtest_logreport(report=report)
        if phase != "teardown":
            closing = pytest.TestReport(item.nodeid, item.location, keywords, "passed", None, "teardown")
            item.ihook.pytest_runtest_logreport(report=closing)

    def report_unavailable(self, item: pytest.Item) -> None:
        """Skip the test with the reason, or fail it in continuous integration."""
        reason = f"needs the lab: {self.unavailable}"
        if os.environ.get("CI") == "true":
            self.publish(item, [], f"{reason} (CI=true: this may not be skipped)")
            return
        path, line, _ = item.location
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        self._publish(item, "skipped", (path, line or 0, f"Skipped: {reason}"), "setup", time.monotonic())
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    @property
    def stream(self) -> Any:
        """Where the guest's output goes at once: to the terminal with ``-s``, else nowhere."""
        return sys.stdout.write if self.config.option.capture == "no" else None

    def say(self, text: str) -> None:
        """Tell of slow steps on the terminal, past the capture."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            if reporter:
                reporter.ensure_newline()
                reporter.write_line(text)


def _free_memory() -> int:
    """Bytes that programs may still take (proc(5), MemAvailable)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(line.split(":") for line in file)
    return int(fields["MemAvailable"].split()[0]) << 10


def pytest_addoption(parser: pytest.Parser) -> None:
    """The lab's settings, for pyproject.toml or ``-o``."""
    parser.addini("lab_timeout", "seconds that a lab test may take unless its marker says otherwise", default="240")
    # The guest's own pytest-timeout comes first, for it can show where a test hangs.
    parser.addini("lab_grace", "seconds after the time-out of a lab test until its guest is killed", default="15")
    parser.addini("lab_session_timeout", "seconds that all lab tests of a session may take", default="10800")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start guests before ``-m`` selects."""
    for item in items:
        if starts_guests(item):
            item.add_marker("guest")


def pytest_configure(config: pytest.Config) -> None:
    """Take part on the outer side only."""
    config.addinivalue_line("markers", "guest: starts guests of its own; set by the fixtures that do")
    config.addinivalue_line("markers", "lab(timeout=240): runs inside the lab's virtual machine")
    if "POOLKIT_LAB_GUEST" not in os.environ:
        config.pluginmanager.register(Outer(config), "lab-outer")
