"""Many volumes made in one go: as each alone would be, all of them or none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine import Engine, creating, refreshing
from poolkit.host import Host
from tests.engine.test_descriptors import opened

from .conftest import MIB, new_pool, xml

tools = pytest.mark.tools("qemu-img", "prlimit")


@pytest.fixture(autouse=True)
def _what_was_opened_is_closed_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A second close could be that of what somebody else has opened since."""
    twice: list[int] = []
    real = os.close

    def close(fd: int) -> None:
        try:
            real(fd)
        except OSError:
            twice.append(fd)
            raise

    monkeypatch.setattr(os, "close", close)
    before = opened()
    yield
    assert opened() <= before  # fewer: garbage of other tests is collected whenever it is
    assert twice == []


@pytest.fixture
def pool(engine: Engine, tmp_path: Path) -> Any:
    return new_pool(engine, tmp_path / "images", "p")


@tools
@pytest.mark.parametrize("at_once", [1, 2, 200])
def test_they_are_as_if_made_one_by_one(
    at_once: int, engine: Engine, pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creating, "AT_ONCE", at_once)
    sparse = "<allocation>0</allocation>"
    documents = {
        "{}raw": xml("{}raw"),
        "{}sparse": xml("{}sparse", more=sparse),
        "{}image": xml("{}image", format="qcow2"),
        "{}odd ä": xml("{}odd ä", more=sparse),
    }
    seen: list[str] = []
    engine.subscribe(lambda event: seen.append(f"{event.kind} {event.volume}"))
    made = pool.create_volumes([text.format("m-") for text in documents.values()])
    for text in documents.values():
        pool.create_volume(text.format("s-"))
    assert [volume.name for volume in made] == [name.format("m-") for name in documents]
    assert seen[: len(made)] == [f"volume-created {volume.name}" for volume in made]
    for name in documents:
        many, single = (pool.volume(name.format(way)).info for way in ("m-", "s-"))
        assert many._replace(name="", stamp=0, inode=0, atime=0, mtime=0, ctime=0) == single._replace(
            name="", stamp=0, inode=0, atime=0, mtime=0, ctime=0
        )
    before = {volume.name: volume.info.format for volume in pool.volumes()}
    for volume in made:
        if volume.info.format == "raw":
            # What a guest writes does not decide: the format is on record.
            with open(volume.path, "r+b") as file:
                file.write((tmp_path / "images" / "m-image").read_bytes()[:4096])
    pool.refresh()
    assert {volume.name: volume.info.format for volume in pool.volumes()} == before


def test_sizes_and_record_are_those_after_the_last(pool: Any) -> None:
    before = pool.info
    pool.create_volumes([xml(f"v{number}", 64 * MIB) for number in range(5)])
    now = pool.info
    # All of 320 MiB but for what others, who work on the same file system, may give back meanwhile.
    assert now.allocation - before.allocation >= 200 * MIB
    assert len(pool.volumes()) == 5


@pytest.mark.parametrize("at_once", [1, 2, 200])
@pytest.mark.parametrize("bad", ["there already", "too large", "no such format"])
def test_none_is_left_if_one_fails(
    bad: str, at_once: int, pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creating, "AT_ONCE", at_once)
    images = tmp_path / "images"
    (images / "there").write_bytes(b"mine")
    last = {
        "there already": xml("there"),
        "too large": xml("large", 1 << 60),
        "no such format": xml("foreign", format="bochs"),
    }[bad]
    with pytest.raises(errors.PoolkitError) as caught:
        pool.create_volumes([xml("a"), xml("b"), xml("c"), last])
    assert caught.value.volume == {"there already": "there", "too large": "large", "no such format": "foreign"}[bad]
    assert sorted(os.listdir(images)) == ["there"]
    assert (images / "there").read_bytes() == b"mine"
    assert [volume.name for volume in pool.volumes()] == []
    pool.refresh()
    assert [volume.name for volume in pool.volumes()] == ["there"]


@pytest.mark.parametrize("fails", [False, True])
def test_where_no_file_is_without_a_name_they_appear_one_by_one(
    fails: bool, tmp_path: Path, engine: Engine, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are taken back all the same."""
    monkeypatch.setattr("poolkit.host.files.Files.has_unnamed", lambda *_: False)
    images, seen = tmp_path / "images", list[str]()
    documents = [xml("a"), xml("b", more="<allocation>0</allocation>"), xml("large", 1 << 60 if fails else MIB)]
    with Engine(tmp_path / "root", host=Host(fault=seen.append)) as other:
        if fails:
            with pytest.raises(errors.PoolkitError):
                other.pool("p").create_volumes(documents)
        else:
            other.pool("p").create_volumes(documents)
    expected = [] if fails else ["a", "b", "large"]
    assert seen.index("name a") < seen.index("fsync b")
    assert sorted(os.listdir(images)) == [volume.name for volume in pool.volumes()] == expected


@tools
def test_one_may_stand_on_another(pool: Any, tmp_path: Path) -> None:
    base = tmp_path / "images" / "base"
    over = xml("over", format="qcow2", more=f"<backingStore><path>{base}</path><format type='qcow2'/></backingStore>")
    pool.create_volumes([xml("base", format="qcow2"), over, xml("last")])
    with pytest.raises(errors.HasDependents, match="over"):
        pool.volume("base").delete()


def test_names_are_asked_for_once(pool: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="definitions 2 and 4 have the same name, 'twice'"):
        pool.create_volumes([xml("a"), xml("twice"), xml("b"), xml("twice")])
    assert pool.volumes() == []
    assert pool.create_volumes([]) == []


def test_an_error_says_in_which_definition(pool: Any) -> None:
    with pytest.raises(errors.InvalidDefinition, match=r"^<definition 2>:1:"):
        pool.create_volumes([xml("a"), "<volume><name>b</name><capacity>many</capacity></volume>"])


def test_a_dry_run_makes_none(tmp_path: Path) -> None:
    with Engine(tmp_path / "root") as engine:
        new_pool(engine, tmp_path / "images", "p")
    with Engine(tmp_path / "root", host=Host(dry_run=True)) as engine:
        made = engine.pool("p").create_volumes([xml("a"), xml("b")])
        plan = made[0].outcome.plan
        assert len(plan) == 2 and all("create" in line for line in plan)
    assert os.listdir(tmp_path / "images") == []


def test_it_can_be_stopped(pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creating, "AT_ONCE", 2)
    stop = Event()
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int, what: str) -> None:
        told.append((done, total))
        if done >= 2 and what == "volumes":
            stop.set()

    with pytest.raises(errors.Aborted):
        pool.create_volumes([xml(f"v{n}") for n in range(6)], abort=stop, progress=progress)
    assert (2, 6) in told
    assert os.listdir(tmp_path / "images") == []
    assert pool.volumes() == []


def test_none_gets_its_name_when_it_is_stopped_at_last(tmp_path: Path, engine: Engine, pool: Any) -> None:
    stop, seen = Event(), list[str]()

    def fault(label: str) -> None:
        seen.append(label)
        if label == "fsync b":  # all are filled
            stop.set()

    with Engine(tmp_path / "root", host=Host(fault=fault)) as other, pytest.raises(errors.Aborted):
        other.pool("p").create_volumes([xml("a"), xml("b")], abort=stop)
    assert "fsync b" in seen and not [label for label in seen if label.startswith("name ")]
    assert pool.volumes() == []


def test_only_what_changes_as_it_gets_its_name_is_looked_at_again(
    tmp_path: Path, engine: Engine, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All were described before."""
    looked: list[str] = []
    real = refreshing.look

    def look(core: Any, backend: Any, record: Any, name: str, *more: Any) -> Any:
        looked.append(name)
        return real(core, backend, record, name, *more)

    def fault(label: str) -> None:
        if label == "fsync directory of b":
            os.truncate(tmp_path / "images" / "b", 3 * MIB)

    monkeypatch.setattr(refreshing, "look", look)
    with Engine(tmp_path / "root", host=Host(fault=fault)) as other:
        other.pool("p").create_volumes([xml("a"), xml("b")])
    assert looked == ["b"]
    assert {volume.name: volume.info.capacity for volume in pool.volumes()} == {"a": MIB, "b": 3 * MIB}


def test_others_wait(engine: Engine, pool: Any, tmp_path: Path) -> None:
    """The pool is theirs while they are made: nobody makes one of the names meanwhile."""
    refused: list[str] = []

    def fault(label: str) -> None:
        if label.startswith("name ") and not refused:
            with Engine(tmp_path / "root") as other, pytest.raises(errors.Busy) as caught:
                other.pool("p").create_volume(xml("b"))
            refused.append(str(caught.value))

    with Engine(tmp_path / "root", host=Host(fault=fault)) as first:
        first.pool("p").create_volumes([xml("a"), xml("b")])
    assert refused and "vol-create" in refused[0]
    assert sorted(volume.name for volume in pool.volumes()) == ["a", "b"]
