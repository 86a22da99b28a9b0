"""What somebody else changes of a storage that hosts share: seen at the next look, and told once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.backends.dir import DirBackend
from poolkit.engine import Engine
from poolkit.engine.pool import Pool

Told = list[tuple[str, str | None]]


class Shared:
    """A folder that tells of its changes: another host makes them, and counts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = folder.with_name("count")
        self.count.write_text("0")

    def change(self, name: str, size: int | None) -> None:
        """Make, resize or delete a volume, elsewhere."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        if size is not None:
            path.write_bytes(bytes(size))
        self.count.write_text(str(int(self.count.read_text()) + 1))


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    (tmp_path / "vols").mkdir()
    there = Shared(tmp_path / "vols")
    monkeypatch.setattr(DirBackend, "storage", lambda self: there.count.read_text())
    monkeypatch.setattr(DirBackend, "changed_since", lambda self, noted: "")
    monkeypatch.setattr(DirBackend, "moved_since", lambda self, noted: self.storage() != noted)
    return there


@pytest.fixture
def pool(engine: Engine, shared: Shared) -> Pool:
    shared.change("a", 1024)
    pool = engine.define(f"<pool type='dir'><name>p</name><target><path>{shared.folder}</path></target></pool>")
    pool.start()
    return pool


@pytest.fixture
def told(engine: Engine, pool: Pool) -> Iterator[Told]:
    found: Told = []
    end = engine.subscribe(lambda event: found.append((event.kind, event.volume)))
    yield found
    end()


LOOKS: dict[str, Callable[[Engine, Pool], object]] = {
    "volumes": lambda engine, pool: pool.volumes(),
    "volume": lambda engine, pool: pool.volume("b"),
    "xml": lambda engine, pool: pool.volumes_xml(),
    "info": lambda engine, pool: pool.info,
    "pools": lambda engine, pool: engine.pools(),
    "refresh": lambda engine, pool: pool.refresh(),
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_change_elsewhere_shows_at_the_next_look(
    engine: Engine, pool: Pool, shared: Shared, told: Told, look: str
) -> None:
    shared.change("b", 2048)
    shared.change("a", 4096)
    LOOKS[look](engine, pool)
    assert told == [("volume-changed", "a"), ("volume-created", "b"), ("refreshed", None)]
    assert {v.name: v.info.capacity for v in pool.volumes()} == {"a": 4096, "b": 2048}
    shared.change("b", None)
    told.clear()
    assert [v.name for v in pool.volumes()] == ["a"]
    assert told == [("volume-deleted", "b"), ("refreshed", None)]


def test_another_process_that_looks_first_is_enough(engine: Engine, pool: Pool, shared: Shared, told: Told) -> None:
    shared.change("b", 2048)
    with Engine(Path(engine.locations.storage).parent) as another:
        assert [v.name for v in another.pool("p").volumes()] == ["a", "b"]
    assert [v.name for v in pool.volumes()] == ["a", "b"]
    assert told == [], "it was listed already"


def test_what_this_host_changed_itself_is_no_news(pool: Pool, shared: Shared, told: Told) -> None:
    pool.create_volume("<volume><name>mine</name><capacity>1048576</capacity></volume>")
    shared.change("unused", None)  # the storage counts it as well
    told.clear()
    assert [v.name for v in pool.volumes()] == ["a", "mine"]
    assert told == []


def test_nothing_is_listed_while_nothing_changes(
    pool: Pool, shared: Shared, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.change("b", 2048)
    pool.volumes()
    told.clear()
    monkeypatch.setattr(DirBackend, "scan", lambda *words, **how: pytest.fail("it was listed"))
    assert [v.name for v in pool.volumes()] == ["a", "b"]
    assert told == []


def test_a_listing_that_fails_leaves_the_last_one(
    pool: Pool, shared: Shared, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: object, **how: object) -> None:
        raise errors.HostError("it cannot be read")

    shared.change("b", 2048)
    with monkeypatch.context() as broken:
        broken.setattr(DirBackend, "scan", fail)
        assert [v.name for v in pool.volumes()] == ["a"]
        assert "it cannot be read" in pool.info.reason
    assert [v.name for v in pool.volumes()] == ["a", "b"]
    assert told == [("volume-created", "b"), ("refreshed", None)]
