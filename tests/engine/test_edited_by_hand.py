"""Definitions that somebody edits in place: what they say now counts before it can do harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine

FIRST, SECOND = "1" * 8 + "-1111-4111-8111-" + "1" * 12, "2" * 8 + "-2222-4222-8222-" + "2" * 12


def document(name: str, target: Path, uuid: str = "") -> str:
    return f"<pool type='dir'><name>{name}</name>{uuid and f'<uuid>{uuid}</uuid>'}<target><path>{target}</path></target></pool>"


def edit(engine: Engine, name: str, text: str) -> None:
    """In place, as an editor without a file of its own does it: the folder does not change."""
    file = Path(engine.core.store.path(name))
    inode = file.stat().st_ino
    file.write_text(text)
    assert file.stat().st_ino == inode


def test_what_a_pool_does_not_claim_any_more_is_free(engine: Engine, tmp_path: Path) -> None:
    engine.define(document("one", tmp_path / "a", FIRST))
    with pytest.raises(errors.Conflict, match="belongs to pool 'one'"):
        engine.define(document("two", tmp_path / "a"))
    edit(engine, "one", document("one", tmp_path / "b", SECOND))
    engine.define(document("two", tmp_path / "a", FIRST))
    with pytest.raises(errors.PoolExists, match="belongs to pool 'one'"):
        engine.define(document("three", tmp_path / "c", SECOND))


def test_two_pools_with_one_claim_are_not_both_started(engine: Engine, tmp_path: Path) -> None:
    engine.define(document("one", tmp_path / "a"))
    edit(engine, "one", document("one", tmp_path / "b"))
    two = engine.define(document("two", tmp_path / "b"))
    two.start(build=True)
    one = engine.pool("one")
    with pytest.raises(errors.Conflict) as caught:
        one.start(build=True)
    assert (
        str(caught.value) == f"pool 'one' would use the target '{tmp_path}/b', which belongs to the active pool 'two'"
    )
    assert str(caught.value.hint).startswith("stop 'two'")
    assert not one.info.active
    two.destroy()
    one.start()
    with pytest.raises(errors.Conflict, match="belongs to the active pool 'one'"):
        two.start()


def test_a_pool_that_was_started_meanwhile_is_seen_under_the_lock(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.define(document("one", tmp_path / "a"))
    two = engine.define(document("two", tmp_path / "b"))
    edit(engine, "one", document("one", tmp_path / "b"))
    one, scan = engine.pool("one"), type(engine.core).scan

    def meanwhile(*given: object, **how: object) -> object:
        monkeypatch.undo()
        two.start(build=True)
        return scan(*given, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(type(engine.core), "scan", meanwhile)
    with pytest.raises(errors.Conflict, match="belongs to the active pool 'two'"):
        one.start(build=True)
    assert not one.info.active


def test_the_name_of_a_file_that_was_put_there_is_nobodys_uuid(engine: Engine, tmp_path: Path) -> None:
    engine.define(document("one", tmp_path / "a"))
    Path(engine.core.store.path(FIRST)).write_text(document(FIRST, tmp_path / "b"))
    with pytest.raises(errors.PoolExists, match="as its uuid"):
        engine.define(document("two", tmp_path / "c", FIRST))
