"""The sizes of a pool are those of its storage after every verb, and not only after a refresh."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from poolkit import errors
from poolkit.backend import Usage, VolumeInfo
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.state.inventory import Inventory
from tests.backends.loops import loop_devices, sh

MIB = 1 << 20


def volume(name: str, size: int = 8 * MIB, format: str = "", allocation: int | None = None) -> str:
    target = f"<target><format type='{format}'/></target>" if format else ""
    some = "" if allocation is None else f"<allocation>{allocation}</allocation>"
    return f"<volume><name>{name}</name><capacity>{size}</capacity>{some}{target}</volume>"


class Storage(NamedTuple):
    """A pool on storage of its own, and the names that its next volumes may have."""

    pool: Pool
    names: tuple[str, ...]


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    with loop_devices(tmp_path) as make:
        device = make(256)
        yield device
        sh("partx", "--delete", device, check=False)


@pytest.fixture(params=["fs", "disk"])
def storage(request: pytest.FixtureRequest, engine: Engine, loop: str, tmp_path: Path) -> Iterator[Storage]:
    place = tmp_path / "mnt" if request.param == "fs" else Path("/dev")
    format = "ext4" if request.param == "fs" else "gpt"
    source = f"<source><device path='{loop}'/><format type='{format}'/></source>"
    pool = engine.define(
        f"<pool type='{request.param}'><name>p</name>{source}<target><path>{place}</path></target></pool>"
    )
    pool.start(build=True)
    partition = Path(loop).name + "p"
    yield Storage(pool, ("a", "b", "c") if request.param == "fs" else tuple(f"{partition}{n}" for n in (1, 2, 3)))
    pool.destroy()


def sizes(pool: Pool) -> tuple[int, int, int]:
    return pool.info[7:10]


def check(pool: Pool, verb: Callable[[], Any]) -> Any:
    """Do a verb, and compare the sizes on record with what a refresh finds; for a disk, with the pool's own document."""
    result = verb()
    told = sizes(pool)
    document = pool.definition()
    assert (document.capacity, document.allocation, document.available) == told
    pool.refresh()
    assert told == sizes(pool)
    if pool.info.type == "disk":
        assert told[1] == sum(v.info.capacity for v in pool.volumes())
        assert told[2] == sum(e.end - e.start for e in document.source.devices[0].free_extents)
    return result


@pytest.mark.root
@pytest.mark.tools("losetup", "sfdisk", "partx", "mkfs.ext4", "wipefs")
def test_sizes_are_true_after_every_verb(storage: Storage) -> None:
    pool = storage.pool
    first, second, third = storage.names
    empty = sizes(pool)
    made = check(pool, lambda: pool.create_volume(volume(first)))
    assert sizes(pool)[1] >= empty[1] + 8 * MIB
    assert sizes(pool)[2] <= empty[2] - 8 * MIB
    check(pool, lambda: made.upload(BytesIO(b"x" * 4 * MIB)))
    check(pool, lambda: made.clone(second))
    before = sizes(pool)
    check(pool, lambda: pool.volume(second).resize(24 * MIB, allocate=pool.info.type == "fs"))
    assert sizes(pool)[1] >= before[1] + 15 * MIB
    check(pool, lambda: pool.volume(second).resize(4 * MIB, shrink=True))
    check(pool, lambda: pool.volume(second).wipe())
    check(pool, lambda: pool.create_volume(volume(third)))
    check(pool, pool.volume(third).delete)
    check(pool, lambda: pool.import_volume(third, BytesIO(b"x" * 8 * MIB)))
    for name in (first, second, third):
        check(pool, pool.volume(name).delete)
    assert abs(sizes(pool)[1] - empty[1]) < MIB  # the directory may have grown


@pytest.mark.tools("qemu-img")
@pytest.mark.parametrize("format", ["qcow2", "qed", "vdi", "vmdk"])
def test_images_count_as_what_they_take(engine: Engine, tmp_path: Path, format: str) -> None:
    """On a file system that others use the sizes cannot be compared with a refresh: it is asked that they are taken anew."""
    pool = engine.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/p</path></target></pool>")
    pool.start(build=True)
    for verb in (
        lambda: pool.create_volume(volume("v", MIB, format)),
        lambda: pool.volume("v").clone("w"),
        lambda: pool.volume("v").wipe(),
        lambda: pool.volume("w").delete(),
    ):
        forge(pool)
        verb()
        assert sizes(pool)[0] > 1


def forge(pool: Pool) -> None:
    """Sizes on record that no file system has."""
    number = pool._core.record(pool.name).id
    with pool._core.inventory.transaction() as db:
        db.execute("UPDATE pools SET capacity = 1, allocation = 1, available = 1 WHERE id = ?", (number,))


def test_a_look_that_finds_a_change_takes_the_sizes(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/p</path></target></pool>")
    pool.start(build=True)
    made = pool.create_volume(volume("v"))
    forge(pool)
    Path(made.path).write_bytes(b"x" * MIB)
    made.look()
    assert sizes(pool)[0] > 1


def test_sizes_that_cannot_be_had_do_not_fail_the_verb(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = engine.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/p</path></target></pool>")
    pool.start(build=True)
    before = sizes(pool)

    def refuse(*_: object) -> Usage:
        raise errors.Unreachable("the server does not answer")

    monkeypatch.setattr("poolkit.families.directory.DirectoryBackend.usage", refuse)
    assert pool.create_volume(volume("v")).outcome
    assert sizes(pool) == before


# -- several at once ----------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.tools("losetup", "mkfs.ext4", "wipefs")
@pytest.mark.parametrize("storage", ["fs"], indirect=True)
def test_a_hundred_creators_leave_the_sizes_right(storage: Storage, tmp_path: Path) -> None:
    pool = storage.pool
    failed: list[BaseException] = []

    def create(worker: int) -> None:
        try:
            with Engine(tmp_path / "root", wait=60) as engine:
                for at in range(10):
                    engine.pool("p").create_volume(volume(f"v{worker}-{at}", MIB))
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=create, args=(n,)) for n in range(10)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert not failed
    told = sizes(pool)
    assert sum(v.info.type == "file" for v in pool.volumes()) == 100
    pool.refresh()
    assert told == sizes(pool)


def inventory(tmp_path: Path) -> tuple[Inventory, int]:
    made = Inventory(str(tmp_path / "i.sqlite"))
    made.make()
    made.put("p", "u", "dir", stamp=1, claims=(), target="/p")
    record = made.record("p")
    assert record is not None
    made.set_active(record.id, "<pool/>", "boot", None, [], Usage(100, 0, 100))
    return made, record.id


def used(made: Inventory, number: int) -> int:
    record = made.by_id(number)
    assert record is not None
    return record.allocation


def test_sizes_taken_before_the_change_of_another_are_taken_again(tmp_path: Path) -> None:
    made, pool = inventory(tmp_path)
    start = made.version(pool)
    # Two have looked before either stored: the second must not put back what the first has.
    assert made.put_volumes(pool, [VolumeInfo("a")], sizes=(start, Usage(100, 10, 90))) is None
    again = made.put_volumes(pool, [VolumeInfo("b")], sizes=(start, Usage(100, 10, 90)))
    assert again is not None
    assert used(made, pool) == 10
    third = made.drop_volume(pool, "a", sizes=(made.version(pool), Usage(100, 5, 95)))
    assert third is None
    made.set_sizes(pool, again, Usage(100, 20, 80))  # late: what the third took has all of this
    assert used(made, pool) == 5
    made.close()


def test_a_refresh_does_not_put_older_sizes_back(tmp_path: Path) -> None:
    made, pool = inventory(tmp_path)
    scanned = made.version(pool)
    made.put_volumes(pool, [VolumeInfo("a")], sizes=(scanned, Usage(100, 10, 90)))
    made.save_listing(pool, [], scanned, Usage(100, 0, 100))
    assert used(made, pool) == 10
    made.save_listing(pool, [VolumeInfo("a")], made.version(pool), Usage(100, 11, 89))
    assert used(made, pool) == 11
    made.close()
