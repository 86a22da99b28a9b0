"""What a define costs among few and among many pools."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poolkit.engine import Engine
from poolkit.engine.definitions import Definitions
from poolkit.state import schema

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
    assert seen[0]["folders"] == 0
    assert seen[0]["stats"] <= 8
    assert seen[0]["statements"] <= 14  # that forget the operation before, too


def test_a_start_looks_at_no_other_pools_than_those_of_its_directory(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (tmp_path / f"t{number}").mkdir()
        engine.define(
            f"<pool type='dir'><name>p{number}</name><target><path>{tmp_path}/t{number}</path></target></pool>"
        )
        if number < 19:
            engine.pool(f"p{number}").start()
    asked: list[str] = []
    real = os.stat

    def stat(path: object, *arguments: object, **more: object) -> object:
        asked.append(str(path))
        return real(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    engine.pool("p19").start()
    assert {path for path in asked if path.startswith(f"{tmp_path}/t")} == {f"{tmp_path}/t19"}
    plan = engine.core.inventory._db.rows(
        f"EXPLAIN QUERY PLAN SELECT name FROM pools WHERE active AND {schema.INODE} = json_extract(?, '$') AND boot = ?",
        ("1", ""),
    )
    assert "USING INDEX pools_directory" in plan[0][3]
