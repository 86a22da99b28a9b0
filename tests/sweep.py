"""Tests that go through many cases, such as a death at every step: all cases in ``make soak``, a sample elsewhere.

    def test_killed_at_every_step(sampled, tmp_path):
        for step in sampled(range(1, 200)):
            if not killed_at(step):
                break

The sample is drawn anew in each run. The seed is in the head of the run and below each failure; ``POOLKIT_SWEEP=SEED``
takes the same cases again, and ``POOLKIT_SWEEP=all`` takes every one, for which a test has as much more time. The variable goes
into the lab's guests as well.

A virtual machine without KVM takes minutes for what a machine does in seconds: of its tests a whole run takes a sample, too,
and ``make soak`` all. With any other selection than that of a whole run all that are selected come.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

import pytest

Case = TypeVar("Case")
Sampled = Callable[[Iterable[Case]], Iterator[Case]]

VARIABLE = "POOLKIT_SWEEP"
STRIDE = 4  # of so many cases one is taken, on the average
SEVERAL = 12  # the same for tests with several machines, each of which takes a minute and more
WHOLE = "lab or guest"  # the selection by which scripts/run-tests starts all tests in virtual machines
_BOOT = frozenset(("lab_guest", "lab_guests"))  # the fixtures by which a test has virtual machines of its own
_taken = pytest.StashKey[list[str]]()


def setting() -> str:
    """The seed of this run, or ``all``; drawn once, and handed on to the processes that this one starts."""
    return os.environ.setdefault(VARIABLE, str(random.SystemRandom().randrange(1_000_000)))


def sample(cases: Iterable[Case], seed: str, label: str, stride: int = STRIDE) -> Iterator[Case]:
    """About one of ``stride`` cases, each with the same chance and at least one; ``cases`` need not have an end.

    ``label`` tells apart what is drawn with one seed. With the seed ``all`` every case comes.
    """
    if seed == "all":
        yield from cases
        return
    chance = random.Random(f"{seed} {label}")  # a text, so that the draw is the same with every Python
    skip = chance.randrange(stride)
    taken = False
    last: list[Case] = []
    for case in cases:
        last = [case]
        if skip:
            skip -= 1
            continue
        yield case
        taken = True
        skip = chance.randrange(2 * stride - 1)
    if not taken:
        yield from last


class Points:
    """Counts the fault points that a verb passes, also in a child that was forked after this was made."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)  # shared with the children

    @property
    def count(self) -> int:
        """How many there were so far."""
        return int.from_bytes(self._memory[:], "little")

    def add(self) -> int:
        """One more; returns its number, from 1."""
        number = self.count + 1
        self._memory[:] = number.to_bytes(8, "little")
        return number


@pytest.fixture
def sampled(request: pytest.FixtureRequest) -> Sampled[object]:
    """``for case in sampled(cases)``: a sample of the cases, or all of them in ``make soak``. More in tests/sweep.py."""
    taken = request.node.stash.setdefault(_taken, [])
    turns = 0

    def draw(cases: Iterable[Case]) -> Iterator[Case]:
        nonlocal turns
        turns += 1
        for case in sample(cases, setting(), f"{request.node.nodeid} {turns}"):
            taken.append(str(case))
            yield case

    return draw


def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed before anything is started that needs it."""
    config.addinivalue_line("markers", "sweep: takes a sample of many cases; set by the fixture 'sampled' alone")
    setting()


def pytest_report_header() -> str:
    """Say what is needed to take the same cases again."""
    seed = setting()
    return f"sweeps: {'every case' if seed == 'all' else f'a sample of the cases; the same again: {VARIABLE}={seed}'}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that take samples, so that ``-m sweep`` selects them; of tests in virtual machines take a sample."""
    timed = setting() == "all" and config.pluginmanager.hasplugin("timeout")
    longer = STRIDE * float(config.getini("timeout") or 0) if timed else 0.0
    for item in items:
        if "sampled" in getattr(item, "fixturenames", ()) or hasattr(getattr(item, "function", None), "at_every_step"):
            item.add_marker("sweep")
            if longer and item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(longer))
    left = [
        item
        for item in items
        if item.get_closest_marker("lab") or not _BOOT.isdisjoint(getattr(item, "fixturenames", ()))
    ]
    groups: dict[tuple[str, bool], list[pytest.Item]] = {}
    for item in left:
        item.add_marker("sweep")
        groups.setdefault((item.nodeid.partition("::")[0], "::TestContract::" in item.nodeid), []).append(item)
    if config.option.markexpr != WHOLE or setting() == "all":
        return  # some were asked for, or all
    taken: set[pytest.Item] = set()
    for (module, _), group in groups.items():
        several = any("lab_guests" in getattr(item, "fixturenames", ()) for item in group)
        taken.update(sample(group, setting(), f"tests of {module}", SEVERAL if several else STRIDE))
    aside = set(left) - taken
    config.hook.pytest_deselected(items=[item for item in left if item in aside])
    items[:] = [item for item in items if item not in aside]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Below a failure, say which cases were taken and how to take them again."""
    report = yield
    if report.failed and (taken := item.stash.get(_taken, [])):
        report.sections.append(("sweep", f"{VARIABLE}={setting()} takes these cases again: {', '.join(taken)}"))
    return report
