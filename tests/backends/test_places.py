"""Which storage is it: a directory that is another one now makes the pool inactive, and nothing is written there."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import Host, places, worker
from poolkit.host.mounts import Mount, MountTable, read
from poolkit.state.inventory import Inventory

from ..inventories import age
from .fuse import mounted
from .loops import loop_devices, sh

VOLUME = "<volume><name>new.img</name><capacity>4096</capacity></volume>"
MOUNTPOINT = "<pk:mountpoint xmlns:pk='urn:poolkit:pool:1'/>"


def pool(path: Path, extra: str = "", name: str = "images") -> str:
    return f"<pool type='dir'><name>{name}</name><target><path>{path}</path>{extra}</target></pool>"


@contextlib.contextmanager
def tmpfs(target: Path, source: str = "store") -> Iterator[None]:
    sh("mount", "-t", "tmpfs", source, str(target))
    try:
        yield
    finally:
        sh("umount", "--lazy", str(target))


def _refuses_all(made: Pool, why: str) -> None:
    assert not made.info.active
    assert made.info.reason == why
    with pytest.raises(errors.InvalidState, match="is not active"):
        made.create_volume(VOLUME)
    with pytest.raises(errors.InvalidState, match="is not active"):
        made.volumes()
    with pytest.raises(errors.InvalidState, match="is not active"):
        made.refresh()


@pytest.mark.root
def test_an_unmounted_file_system_makes_the_pool_inactive(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    made = engine.define(pool(place))
    with tmpfs(place):
        (place / "old.img").write_bytes(b"x" * 4096)
        made.start()
        assert made.info.active
    root = read().tops["/"]
    assert f"{tmp_path}" not in {mount.target for mount in read()}
    below = f"'{root.source}' ({root.fstype})"
    why = f"'store' (tmpfs) is not mounted at '{place}' any more, and the directory '{place}' is on {below}"
    _refuses_all(made, why)
    assert list(place.iterdir()) == []
    assert made.start(), "start lists what is there now"
    assert [v.name for v in made.volumes()] == []


@pytest.mark.root
def test_a_file_system_mounted_over_the_directory_makes_the_pool_inactive(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    made = engine.define(pool(place))
    made.start()
    with tmpfs(place):
        assert "is on 'store' (tmpfs)" in made.info.reason
        assert not made.info.active
    assert made.info.active, "the directory it was started with is back"


@pytest.mark.parametrize("below", ["", "deep"])
def test_a_directory_that_was_made_again_is_another_one(engine: Engine, tmp_path: Path, below: str) -> None:
    place = tmp_path / "images" / below
    made = engine.define(pool(place))
    made.build()
    (place / "old.img").write_bytes(b"x" * 4096)
    made.start()
    (place / "old.img").unlink()
    place.rmdir()
    made.build()
    _refuses_all(made, f"the directory '{place}' is another one than the pool was started with")
    assert made.start()
    assert [v.name for v in made.volumes()] == []


def test_a_look_needs_no_definition(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was noted of the directory says it, in the words of the type itself; one with more to ask is asked as ever."""
    place = tmp_path / "images"
    made = engine.define(pool(place))
    made.build()
    made.start()
    record = engine.core.record("images")
    assert record.storage is not None
    assert json.loads(record.storage)["alone"] == str(place)

    def looks() -> list[object]:
        found: list[object] = [engine.core.looked_at(record)]
        place.rename(tmp_path / "away")
        found.append(engine.core.looked_at(record))
        place.write_text("a file")
        found.append(engine.core.looked_at(record))
        place.unlink()
        place.mkdir()
        found.append(engine.core.looked_at(record))
        place.rmdir()
        (tmp_path / "away").rename(place)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(type(engine.core.definitions), "running", lambda *_: pytest.fail("the definition was read"))
        alone = looks()
    monkeypatch.setattr(places, "gone", lambda *_: None)
    assert alone == looks()
    assert [bool(look[0]) for look in alone] == [True, False, False, False]  # type: ignore[index]
    definition = engine.parse(pool(place).replace("</pool>", f"{MOUNTPOINT}</pool>"))
    assert "alone" not in json.loads(engine.core.definitions.backend(definition).storage() or "")


def test_what_happens_in_a_directory_leaves_it_the_same(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "images"
    made = engine.define(pool(place))
    made.build()
    made.start()
    made.create_volume(VOLUME)
    place.chmod(0o750)
    os.utime(place, (1, 1))
    place.rename(tmp_path / "away")
    assert made.info.reason == f"the directory '{place}' does not exist"
    (tmp_path / "away").rename(place)
    assert made.info.active
    assert not made.start()


@pytest.mark.root
@pytest.mark.tools("losetup", "mkfs.ext4")
def test_the_same_file_system_mounted_anew_is_the_same(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    (tmp_path / "mnt").mkdir()
    with loop_devices(tmp_path) as loop:
        device = loop(16)
        sh("mkfs.ext4", "-q", device)
        sh("mount", device, str(place))
        made = engine.define(pool(place))
        made.start()
        sh("umount", str(place))
        assert f"'{device}' (ext4) is not mounted at '{place}' any more" in made.info.reason
        sh("mount", device, str(place))
        assert made.info.active
        sh("umount", str(place))
        sh("mkfs.ext4", "-q", "-F", device)
        sh("mount", device, str(place))
        assert made.info.reason == f"the directory '{place}' is another one than the pool was started with"


def _network(source: str) -> list[Mount]:
    return [Mount("8:1", "/", "/", "ext4", "/dev/sda1", "rw"), Mount("0:50", "/", "/mnt/nfs", "nfs4", source, "rw")]


def test_a_network_file_system_is_told_by_the_mount_table_alone() -> None:
    noted = places.note("/mnt/nfs/images", _network("server:/export"))
    again = [_network("server:/export")[0], _network("server:/export")[1]._replace(device="0:71")]
    assert places.replaced(noted, "/mnt/nfs/images", again) == ""
    other = places.replaced(noted, "/mnt/nfs/images", _network("other:/export"))
    assert other.startswith("'server:/export' (nfs4) is not mounted at '/mnt/nfs' any more")
    with pytest.raises(FileNotFoundError):  # what lies below is asked as any other directory
        places.replaced(noted, "/mnt/nfs/images", _network("server:/export")[:1])


def test_start_asks_whether_a_directory_on_a_server_is_gone(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "images"
    table = MountTable([Mount("0:50", "/", str(tmp_path), "nfs4", "server:/export", "rw")])
    monkeypatch.setattr(Host, "mounts", lambda self: table)
    made = engine.define(pool(place))
    place.mkdir()
    made.start()
    assert not made.start()
    place.rmdir()  # as the server may do at any time; that is not asked by those who only look
    assert made.info.active
    with pytest.raises(errors.HostError, match="does not exist"):
        made.start()


@pytest.mark.root
def test_a_mountpoint_is_not_built_or_started_unless_mounted(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    made = engine.define(pool(place).replace("</pool>", f"{MOUNTPOINT}</pool>"))
    assert "<pk:mountpoint" in made.xml()
    refusal = f"pool 'images': nothing is mounted at '{place}', and its definition says that it is a mount point"
    for there in (False, True):
        if there:
            place.mkdir()
        for verb, how in ((made.build, {}), (made.start, {}), (made.start, {"build": True})):
            with pytest.raises(errors.HostError) as caught:
                verb(**how)
            assert str(caught.value) == refusal
            assert caught.value.hint == "mount its file system there first"
        assert place.exists() == there
    with tmpfs(place):
        made.build()
        made.start()
        made.create_volume(VOLUME)
    _refuses_all(made, f"nothing is mounted at '{place}'")
    assert list(place.iterdir()) == []


def test_an_inventory_of_the_second_version_keeps_all_it_knows(tmp_path: Path) -> None:
    path = tmp_path / "i.sqlite"
    inventory = Inventory(str(path))
    inventory.make()
    inventory.put("p", "u", "dir", stamp=7, claims=["target /p"], target="/p")
    inventory.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE pools SET active = 1, boot = 'b', live = '<pool/>'")
    age(path, 2)
    inventory = Inventory(str(path))
    record = inventory.record("p")
    assert record is not None
    assert (record.stamp, record.active, record.live, record.real, record.storage) == (7, 1, "<pool/>", None, None)
    assert [r.name for r in inventory.by_target("/p")] == ["p"]
    inventory.close()


@pytest.fixture
def linked(engine: Engine, tmp_path: Path) -> Pool:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    made = engine.define(pool(tmp_path / "link"))
    made.start()
    made.create_volume("<volume><name>base.qcow2</name><capacity>1048576</capacity>"
                       "<target><format type='qcow2'/></target></volume>")  # fmt: skip
    return made


def test_a_volume_is_found_by_its_real_path_and_by_the_one_defined(
    engine: Engine, linked: Pool, tmp_path: Path
) -> None:
    (tmp_path / "third").symlink_to("link")
    for folder in ("real", "link", "third", "real/../link", "link/"):
        assert engine.volume_by_path(f"{tmp_path}/{folder}/base.qcow2").name == "base.qcow2"
        assert engine.volume_by_key(f"{tmp_path}/{folder}/base.qcow2").name == "base.qcow2"
    assert engine.pool_by_target(str(tmp_path / "real")) == linked
    assert engine.pool_by_target(str(tmp_path / "link")) == linked
    with pytest.raises(errors.VolumeNotFound):
        engine.volume_by_path(f"{tmp_path}/real/other.qcow2")
    linked.destroy()
    with pytest.raises(errors.VolumeNotFound):
        engine.volume_by_path(f"{tmp_path}/real/base.qcow2")


@pytest.mark.tools("qemu-img")
@pytest.mark.parametrize("folder", ["real", "link"])
def test_an_overlay_stands_on_a_volume_by_either_path(linked: Pool, tmp_path: Path, folder: str) -> None:
    base = f"{tmp_path}/{folder}/base.qcow2"
    over = linked.create_volume(
        "<volume><name>over.qcow2</name><capacity>1048576</capacity><target><format type='qcow2'/></target>"
        f"<backingStore><path>{base}</path><format type='qcow2'/></backingStore></volume>"
    )
    assert [(link.path, link.volume, link.problem) for link in over.chain()][1] == (base, "base.qcow2", "")
    linked.create_volume_from("copy.qcow2", over)
    flat = "<volume><name>flat.img</name><target><format type='raw'/></target></volume>"
    assert linked.create_volume_from(flat, over).info.capacity == 1048576


@pytest.mark.root
def test_a_directory_of_a_server_that_does_not_answer_is_not_opened(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "DEADLINE", 0.5)
    (tmp_path / "far").mkdir()
    made = engine.define(pool(tmp_path / "far"))
    with mounted(tmp_path / "far", "silent", "fuse.sshfs"):
        with pytest.raises(
            errors.Unreachable, match=r"^pool 'images': the server of 'nobody' \(fuse.sshfs\), which has"
        ):
            made.start()
        assert not made.info.active
    assert made.start()
