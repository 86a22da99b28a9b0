"""The pytest plugin on the outer side: tests marked ``lab`` run in a guest and are reported here one by one."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import image
from .guest import Guest, GuestError
from .measure import Measure
from .run import COLLECT_TIMEOUT, FINISH_TIMEOUT, Chosen, GuestRun, Lost

pytest_plugins = ["tests.lab.fixtures"]

PROJECT = Path(__file__).resolve().parents[2]


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


class Outer:
    """Holds the guest of the session and forwards tests to it."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.unavailable: str | None = None
        self.guest: Guest | None = None
        self.run: GuestRun | None = None
        self.timeouts: dict[str, float] = {}
        self.deadline = float("inf")
        self.missing: dict[str, str] = {}  # tests that the guest could not collect, and why
        self.boot_failures = 0  # in a row
        self.fresh = False  # the guest asked for a fresh boot

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
        wanted = [item for item in session.items if in_guest(item) or "lab_guest" in getattr(item, "fixturenames", ())]
        if wanted and not self.config.option.collectonly:
            try:
                image.ensure(self.say)
            except image.LabUnavailable as error:
                self.unavailable = f"needs the lab: {error}"
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Leave no machine behind, however the session ended."""
        self.end(wait=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Forward a lab test to the guest and report what comes back."""
        if not in_guest(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        if self.unavailable:
            self.report_unavailable(item)
        else:
            self.forward(item)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        if nextitem is None or not in_guest(nextitem):
            self.end()
        return True

    def forward(self, item: pytest.Item) -> None:
        """Run one test in the guest, which is booted if none is running."""
        begun = time.monotonic()
        phase = "setup"
        try:
            if begun > self.deadline:
                raise Lost("the time that all lab tests together may take (lab_session_timeout) is up")
            run = self.run or self.begin(item.session, item)
            deadline = time.monotonic() + COLLECT_TIMEOUT
            while item.nodeid not in self.missing:
                event = run.next_event(min(deadline, self.deadline), self.stream)
                if event is None:
                    raise Lost(f"the guest's pytest ended without finishing this test; it said:\n{run.output()}")
                if event["event"] == "missing":
                    self.missing[event["id"]] = event["text"]
                elif event["event"] == "reboot":
                    self.fresh = True
                elif event["event"] == "start":
                    deadline = time.monotonic() + self.timeouts[item.nodeid] + float(self.config.getini("lab_grace"))
                elif event["event"] == "report":
                    phase = self.report(item, event["data"])
                elif event["event"] == "finish":
                    break
            else:
                self.publish(item, "failed", LostGuest(item, self.missing[item.nodeid]), phase, begun)
        except image.LabUnavailable as error:
            self.unavailable = f"needs the lab: {error}"
            self.report_unavailable(item)
        except (Lost, GuestError) as error:
            text = str(error)
            if self.run is not None and (said := self.run.output().strip()) and said not in text:
                text += f"\nthe end of what its pytest printed:\n{said}"
            self.end(wait=False)
            self.publish(item, "failed", LostGuest(item, text), phase, begun)
        if self.fresh:
            self.end()

    def begin(self, session: pytest.Session, first: pytest.Item) -> GuestRun:
        """Boot a guest and start its pytest over ``first`` and all lab tests after it."""
        if self.boot_failures > 1:
            raise Lost("the guest did not boot twice before, so this test was not tried")
        if self.deadline == float("inf"):
            self.deadline = time.monotonic() + float(self.config.getini("lab_session_timeout"))
        root = self.config.rootpath
        sources = [root] if root == PROJECT or PROJECT.is_relative_to(root) else [root, PROJECT]
        self.fresh = False
        self.missing.clear()
        self.guest = Guest("lab", hardware=True, sources=sources, say=self.say)
        self.boot_failures += 1
        self.guest.start()
        self.boot_failures = 0
        waiting = [item for item in session.items[session.items.index(first) :] if in_guest(item)]
        chosen = [Chosen(item.nodeid, self.timeouts[item.nodeid]) for item in waiting]
        self.run = GuestRun(self.guest, root, chosen, self.options(), Measure.current())
        return self.run

    def end(self, *, wait: bool = True) -> None:
        """Collect coverage and switch the guest off; do not ``wait`` for a pytest that was left in the middle."""
        if self.run is not None:
            run, self.run = self.run, None
            if lost := run.close(FINISH_TIMEOUT if wait else 0):
                self.say(lost)
        if self.guest is not None:
            self.guest.stop()
            self.guest = None

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

    def report(self, item: pytest.Item, data: dict[str, Any]) -> str:
        """Publish a report that came from the guest; returns the phase that follows it."""
        for name in ("user_properties", "sections"):  # JSON made lists of what pytest wants as tuples
            data[name] = [tuple(entry) for entry in data.get(name) or ()]
        data["location"] = tuple(data["location"])
        if isinstance(data["longrepr"], list):
            data["longrepr"] = tuple(data["longrepr"])
        report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
        item.ihook.pytest_runtest_logreport(report=report)
        return {"setup": "call" if report.passed else "teardown", "call": "teardown"}.get(report.when, "teardown")

    def publish(self, item: pytest.Item, outcome: str, longrepr: Any, phase: str, begun: float) -> None:
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
        now = time.monotonic()
        reason = str(self.unavailable)
        if os.environ.get("CI") == "true":
            text = f"{reason} (CI=true: this may not be skipped)"
            self.publish(item, "failed", LostGuest(item, text), "setup", now)
        else:
            path, line, _ = item.location
            self.publish(item, "skipped", (path, line or 0, f"Skipped: {reason}"), "setup", now)

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


def pytest_addoption(parser: pytest.Parser) -> None:
    """The lab's settings, for pyproject.toml or ``-o``."""
    parser.addini("lab_timeout", "seconds that a lab test may take unless its marker says otherwise", default="120")
    # The guest's own pytest-timeout comes first, for it can show where a test hangs.
    parser.addini("lab_grace", "seconds after the time-out of a lab test until its guest is killed", default="15")
    parser.addini("lab_session_timeout", "seconds that all lab tests of a session may take", default="3600")


def pytest_configure(config: pytest.Config) -> None:
    """Take part on the outer side only."""
    config.addinivalue_line("markers", "lab(timeout=120): runs inside the lab's virtual machine")
    if "POOLKIT_LAB_GUEST" not in os.environ:
        config.pluginmanager.register(Outer(config), "lab-outer")
