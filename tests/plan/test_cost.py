"""What a plan asks, in queries of the inventory and calls of backends: as often for many volumes as for few."""

from __future__ import annotations

import pytest

from poolkit.families.filepool import FileBackend
from poolkit.state.database import Database

from .conftest import World


def asked(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a plan with nothing to do asks."""
    calls: list[str] = []

    def counted(cls: type, name: str) -> None:
        really = getattr(cls, name)

        def call(self: object, *args: object, **how: object) -> object:
            calls.append(name)
            return really(self, *args, **how)

        patch.setattr(cls, name, call)

    with monkeypatch.context() as patch:
        for cls, name in (
            (Database, "rows"), (Database, "row"), (FileBackend, "look"), (FileBackend, "state"), (FileBackend, "volumes"),
            (FileBackend, "scan"), (FileBackend, "open"),
        ):  # fmt: skip
            counted(cls, name)
        assert not world.plan()
    return sorted(calls)


def test_a_plan_asks_nothing_for_each_volume(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.pool("images")
    for number in range(3):
        world.volume("images", f"v{number:03}")
    world.apply()
    few = asked(world, monkeypatch)
    assert "scan" in few
    for number in range(3, 60):
        world.volume("images", f"v{number:03}")
    world.apply()
    assert asked(world, monkeypatch) == few


def test_an_apply_of_nothing_plans_twice_and_asks_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.pool("images")
    for number in range(10):
        world.volume("images", f"v{number}")
    world.apply()
    scans = 0
    really = FileBackend.scan

    def scan(self: FileBackend, *args: object, **how: object) -> object:
        nonlocal scans
        scans += 1
        return really(self, *args, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(FileBackend, "scan", scan)
    assert world.plan().apply()
    assert scans == 2
