"""The pytest plugin inside the guest: runs what the outer pytest gives it, and tells it each step as a line of JSON.

``/lab/chosen.json`` is the list of ``{"id": ..., "timeout": ...}`` that may come; events go to ``/lab/events``. The answer to
the event ``next`` of number N is the file ``/lab/next/N``: the test to run, or nothing at the end.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from .speed import scaled, slowness

pytest_plugins = ["tests.lab.fixtures"]

CHOSEN = Path("/lab/chosen.json")
EVENTS = Path("/lab/events")
ANSWERS = Path("/lab/next")
POLL = 0.02  # seconds between looks for an answer


class Inside:
    """Selects, orders and reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.chosen = {entry["id"]: entry["timeout"] for entry in json.loads(CHOSEN.read_text())}
        self.failures: list[str] = []
        self.limits: dict[str, float] = {}
        self.asked = 0
        self.line = EVENTS.open("a", encoding="utf-8")

    def tell(self, event: str, **data: object) -> None:
        """Send one event."""
        self.line.write(json.dumps({"event": event, **data}, default=repr) + "\n")
        self.line.flush()

    def limit(self, item: pytest.Item) -> float:
        """Set the seconds that a test may take on this machine as it is now; returns them."""
        seconds = scaled(self.chosen[item.nodeid])
        if self.config.pluginmanager.hasplugin("timeout"):
            item.add_marker(pytest.mark.timeout(seconds), append=False)
        return seconds

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep why a module could not be collected."""
        if not report.passed:
            self.failures.append(f"{report.nodeid}:\n{report.longreprtext}")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the chosen tests; say which ones are not here and why."""
        found = {item.nodeid: item for item in items}
        items[:] = [found[nodeid] for nodeid in self.chosen if nodeid in found]
        for item in items:
            self.limit(item)
        why = "\n".join(self.failures) or "its file has no such test there"
        for nodeid in self.chosen:
            if nodeid not in found:
                self.tell("missing", id=nodeid, text=f"the guest could not collect this test: {why}")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run one test after the other as they are given; each is known before the last one's fixtures are taken down."""
        items = {item.nodeid: item for item in session.items}
        item = self.ask(items)
        while item is not None:
            following = self.ask(items)
            self.limits[item.nodeid] = self.limit(item)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldstop:
                break
            item = following
        return True

    def ask(self, items: dict[str, pytest.Item]) -> pytest.Item | None:
        """The next test of ours, or None at the end."""
        self.asked += 1
        self.tell("next", number=self.asked)
        answer = ANSWERS / str(self.asked)
        while not answer.exists():
            time.sleep(POLL)
        return items.get(answer.read_text())

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """The test begins: the outer side's clock starts."""
        self.tell("start", id=nodeid, limit=self.limits[nodeid], slowness=slowness())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of a test is over."""
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.tell("report", id=report.nodeid, data=data)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """The test is over."""
        self.tell("finish", id=nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Take part, and know the lab's marker where no configuration file does."""
    config.addinivalue_line("markers", "lab: runs inside the lab's virtual machine")
    config.pluginmanager.register(Inside(config), "lab-inside")


def reboot(session: pytest.Session, why: str) -> None:
    """Ask the outer side for a fresh guest after this test, because what it left cannot be cleaned up."""
    inside = session.config.pluginmanager.get_plugin("lab-inside")
    if inside:
        inside.tell("reboot", why=why)
    session.shouldstop = f"the guest needs a fresh start: {why}"
