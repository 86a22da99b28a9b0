"""What tests of backends share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from poolkit.host import Host
from tests.backends.nodes import nodes, pair

__all__ = ["nodes", "pair"]  # fixtures

DEADLINES = (
    ("poolkit.backends.netfs", "MOUNT_TIMEOUT"),
    ("poolkit.families.initiator", "DISCOVERY"),
    ("poolkit.families.initiator", "LOGIN"),
    ("poolkit.families.initiator", "LOGOUT"),
    ("poolkit.families.servers", "TIMEOUT"),
    ("poolkit.families.disknodes", "_WAIT"),
    ("poolkit.host.worker", "DEADLINE"),
    ("poolkit.host.worker", "SILENCE"),
)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the lab's guest poolkit waits longer for what is only slow; tests of dead servers set deadlines of their own."""
    if "POOLKIT_LAB_GUEST" in os.environ:
        import importlib

        from tests.lab.speed import scaled

        for module, name in DEADLINES:
            monkeypatch.setattr(f"{module}.{name}", scaled(getattr(importlib.import_module(module), name)))


@pytest.fixture(scope="module")
def one_child() -> Iterator[None]:
    """One child process does what may hang for all engines of the module: in the guest each takes seconds to start."""
    children: list[Any] = []
    make, end = Host.__init__, Host.close

    def init(self: Host, **how: Any) -> None:
        make(self, **how)
        self.children = children

    Host.__init__, Host.close = init, lambda self: None  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Host.__init__, Host.close = make, end  # type: ignore[method-assign]
        for child in children:
            child.end()
