"""What a define costs among few and among many pools."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poolkit.engine import Engine
from poolkit.engine.definitions import Definitions

POOL = "<pool type='dir'><name>{0}</name><target><path>/nowhere/{0}</path></target></pool>"


def _count(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What one more define asks of the inventory and of the system."""
    counts = {"statements": 0, "stats": 0, "folders": 0, "reads": 0, "parses": 0}
    statements: list[str] = []
    engine.core.inventory._db.connection.set_trace_callback(statements.append)
    with monkeypatch.context() as patch:

        def counted(owner: object, name: str, what: str) -> None:
            real = getattr(owner, name)

            def call(*args: object, **more: object) -> object:
                counts[what] += 1
                return real(*args, **more)

            patch.setattr(owner, name, call)

        counted(os, "stat", "stats")
        counted(os, "scandir", "folders")
        counted(Definitions, "parse", "parses")
        counted(engine.core.store, "read_with_stamp", "reads")
        engine.define(POOL.format("more"))
    engine.core.inventory._db.connection.set_trace_callback(None)
    counts["statements"] = len(statements)
    engine.pool("more").undefine()
    return counts


def test_one_more_define_costs_the_same_among_many(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.define(POOL.format("first"))
    seen = []
    made = 0
    for many in (10, 100, 400):
        for number in range(made, many):
            Path(engine.core.store.path(f"p{number}")).write_text(POOL.format(f"p{number}"))
        made = many
        assert len(engine.pools()) == many + 1
        engine.define(POOL.format("more"))
        engine.pool("more").undefine()
        seen.append(_count(engine, monkeypatch))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0]["parses"] == 1
    assert seen[0]["reads"] == 1
    assert seen[0]["folders"] == 1
    assert seen[0]["statements"] <= 13
