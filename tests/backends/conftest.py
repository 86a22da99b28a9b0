"""What tests of backends share."""

from __future__ import annotations

import os

import pytest

DEADLINES = (
    ("poolkit.backends.netfs", "MOUNT_TIMEOUT"),
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
