"""The dir backend keeps the contract, on a real file system."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from poolkit import errors
from poolkit.backends.dir import DirBackend
from poolkit.engine import Engine
from poolkit.families import directory
from poolkit.host import Host
from poolkit.host.directory import Directory
from poolkit.host.mounts import Mount
from poolkit.testing import BackendContract


def pool(path: Path, extra: str = "", name: str = "images") -> str:
    return f"<pool type='dir'><name>{name}</name><target><path>{path}</path>{extra}</target></pool>"


class TestContract(BackendContract):
    @pytest.fixture
    def pool_xml(self, tmp_path: Path) -> str:
        return pool(tmp_path / "images")


def test_build_gives_mode_and_owner(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "images"
    owner = os.getuid()
    made = engine.define(
        pool(place, f"<permissions><mode>0750</mode><owner>{owner}</owner><group>{os.getgid()}</group></permissions>")
    )
    made.build()
    assert stat.S_IMODE(place.stat().st_mode) == 0o750
    place.chmod(0o700)
    assert made.build()
    assert stat.S_IMODE(place.stat().st_mode) == 0o750
    assert not made.build()


def test_sizes_are_those_of_df(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine.define(pool(tmp_path / "images"))
    made.build()
    real = os.statvfs(tmp_path)
    # A file system of 1000 blocks: 200 are used, and 50 of the free ones are root's alone.
    facts = os.statvfs_result((real.f_bsize, 4096, 1000, 800, 750, *tuple(real)[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: facts)
    made.start()
    info = made.info
    assert [info.capacity, info.allocation, info.available] == [1000 * 4096, 200 * 4096, 750 * 4096]


def test_the_dump_has_the_real_permissions(engine: Engine, tmp_path: Path) -> None:
    made = engine.define(pool(tmp_path / "images"))
    made.build()
    made.start()
    assert made.definition().target.permissions.mode == 0o711
    assert made.definition(inactive=True).target.permissions.mode is None


def test_start_without_build_says_what_to_do(engine: Engine, tmp_path: Path) -> None:
    made = engine.define(pool(tmp_path / "images"))
    with pytest.raises(errors.HostError) as caught:
        made.start()
    assert str(caught.value) == f"pool 'images': the directory '{tmp_path}/images' does not exist"
    assert caught.value.hint == (
        "if it is on a file system that is not mounted, mount that first; if it never was there, make it: "
        "engine.pool('images').build()"
    )
    assert not made.info.active


def test_a_directory_that_vanishes_makes_the_pool_inactive_with_the_reason(engine: Engine, tmp_path: Path) -> None:
    made = engine.define(pool(tmp_path / "images"))
    made.build()
    made.start()
    (tmp_path / "images").rmdir()
    assert not made.info.active
    assert made.info.reason == f"the directory '{tmp_path}/images' does not exist"
    with pytest.raises(errors.InvalidState, match="does not exist"):
        made.volumes()


def test_delete_refuses_what_is_not_empty(engine: Engine, tmp_path: Path) -> None:
    made = engine.define(pool(tmp_path / "images"))
    made.build()
    (tmp_path / "images" / "keep").write_text("precious")
    with pytest.raises(errors.Unsafe, match="it is not empty"):
        made.delete()
    (tmp_path / "images" / "keep").unlink()
    assert made.delete()
    assert not made.delete()


def test_only_plain_entries_are_listed(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "images"
    place.mkdir()
    (place / "file").write_bytes(b"x" * 10)
    (place / "folder").mkdir()
    (place / "link").symlink_to("/etc/passwd")
    (place / "dangling").symlink_to("nowhere")
    os.mkfifo(place / "fifo")
    (place / ".poolkit-0123").write_bytes(b"unfinished")
    (place / "new\nline").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(place) + b"/not-utf8-\xff")).write_bytes(b"")
    made = engine.define(pool(place))
    made.start()
    assert [v.name for v in made.volumes()] == ["file", "folder"]
    assert {v.name: v.info.type for v in made.volumes()} == {"file": "file", "folder": "dir"}


def test_an_entry_that_cannot_be_read_is_listed_with_its_error(engine: Engine, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        place = Path("/tmp") / f"poolkit-unreadable-{os.getpid()}"
        place.mkdir()
        (place / "bad").write_bytes(b"x" * 5000)
        (place / "bad").chmod(0)
        (place / "good").write_bytes(b"x" * 5000)
        with Engine(place / ".root") as mine:
            made = mine.define(pool(place))
            made.start()
            listed = {v.name: v.info for v in made.volumes()}
        assert listed["bad"].detail == {"error": "cannot be opened: Permission denied", "unread": True}
        assert listed["bad"].capacity == 5000
        assert listed["good"].detail is None
    finally:
        import shutil

        shutil.rmtree(place)
        if os.getuid() == 0:
            os.seteuid(0)
            os.setegid(0)


def test_new_volumes_take_the_pools_defaults(engine: Engine, tmp_path: Path) -> None:
    xml = pool(tmp_path / "images").replace(
        "</pool>",
        "<pk:volumes xmlns:pk='urn:poolkit:pool:1'><pk:permissions><pk:mode>0640</pk:mode></pk:permissions></pk:volumes></pool>",
    )
    made = engine.define(xml)
    made.build()
    made.start()
    first = made.create_volume("<volume><name>a</name><capacity>1</capacity></volume>")
    assert first.info.mode == 0o640
    own = "<volume><name>b</name><capacity>1</capacity><target><permissions><mode>0600</mode></permissions></target></volume>"
    assert made.create_volume(own).info.mode == 0o600


def test_allocation_decides_what_is_reserved(engine: Engine, tmp_path: Path) -> None:
    made = engine.define(pool(tmp_path / "images"))
    made.build()
    made.start()
    size = 4 << 20
    xml = "<volume><name>{}</name><capacity>{}</capacity>{}</volume>"
    full = made.create_volume(xml.format("full", size, ""))
    sparse = made.create_volume(xml.format("sparse", size, "<allocation>0</allocation>"))
    assert full.info.allocation >= size
    assert sparse.info.allocation < size
    assert full.info.capacity == sparse.info.capacity == size


def test_more_than_is_free_is_refused_before_anything_is_written(engine: Engine, tmp_path: Path) -> None:
    made = engine.define(pool(tmp_path / "images"))
    made.build()
    made.start()
    facts = os.statvfs(tmp_path)
    more = facts.f_bavail * facts.f_frsize + (1 << 30)
    with pytest.raises(errors.NoSpace, match="are free"):
        made.create_volume(f"<volume><name>huge</name><capacity>{more}</capacity></volume>")
    assert os.listdir(tmp_path / "images") == []
    assert made.volumes() == []


def test_a_name_that_appeared_meanwhile_is_not_replaced(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "images"
    made = engine.define(pool(place))
    made.build()
    made.start()
    (place / "taken").write_text("precious")
    with pytest.raises(errors.VolumeExists):
        made.create_volume("<volume><name>taken</name><capacity>1</capacity></volume>")
    assert (place / "taken").read_text() == "precious"


def test_a_listed_volume_that_is_gone_can_be_made_again(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "images"
    made = engine.define(pool(place))
    made.build()
    made.start()
    made.create_volume("<volume><name>v</name><capacity>1</capacity></volume>")
    (place / "v").unlink()
    assert made.create_volume("<volume><name>v</name><capacity>2</capacity></volume>").info.capacity == 2


@pytest.mark.parametrize(
    ("fstype", "trusted"),
    [("ext4", True), ("xfs", True), ("btrfs", True), ("tmpfs", True)]
    + [(name, False) for name in ("fuse.sshfs", "fuseblk", "overlay", "nfs4", "zfs", "9p", "virtiofs")],
)
def test_blocks_are_believed_where_the_kernel_counts_them_in_time(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fstype: str, trusted: bool
) -> None:
    there = Mount("0:99", "/", str(tmp_path), fstype, "source", "rw")
    monkeypatch.setattr(Host, "mounts", lambda self: [there])
    definition = engine.parse(pool(tmp_path / "images"))
    assert DirBackend(definition, engine.host.operation()).trust_blocks is trusted


@pytest.mark.root
@pytest.mark.parametrize("where", ["the folder itself", "above it"])
@pytest.mark.parametrize("permissions", ["", "<permissions><mode>0700</mode><owner>64055</owner></permissions>"])
def test_build_follows_no_link_that_others_made(tmp_path: Path, where: str, permissions: str) -> None:
    real = tmp_path / "precious"
    (real / "images").mkdir(parents=True)
    before = [(p.stat().st_mode, p.stat().st_uid) for p in (real, real / "images")]
    link = tmp_path / "link"
    link.symlink_to(real / "images" if where == "the folder itself" else real)
    os.lchown(link, 64055, 64055)
    place = link if where == "the folder itself" else link / "images"
    text = f"<pool type='dir'><name>p</name><target><path>{place}</path>{permissions}</target></pool>"
    with Engine(tmp_path / "root") as engine:
        pool = engine.define(text)
        with pytest.raises(errors.Unsafe, match="of user 64055"):
            pool.build()
        with pytest.raises(errors.Unsafe, match="of user 64055"):
            pool.start()
        assert [(p.stat().st_mode, p.stat().st_uid) for p in (real, real / "images")] == before
        os.lchown(link, 0, 0)
        pool.build()
        pool.start()
        if permissions:
            assert (real / "images").stat().st_uid == 64055, "a link that root made is followed, as libvirt does"


# A file that changes within the tick of the clock after it was listed shows no other stamp.
@pytest.mark.parametrize(("age", "believed"), [(0, False), (49_000_000, False), (51_000_000, True)])
@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("first", [True, False], ids=["new", "known"])
def test_what_changed_just_now_is_looked_at_again(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: int, believed: bool, kind: str, first: bool
) -> None:
    place = tmp_path / "images"
    place.mkdir()
    (place / "v").write_bytes(b"x" * 5000) if kind == "file" else (place / "v").mkdir()
    now = (place / "v").stat().st_ctime_ns + age
    monkeypatch.setattr(directory, "time", SimpleNamespace(time_ns=lambda: now))
    backend = DirBackend(engine.parse(pool(place)), engine.host.operation())
    if first:
        (info,) = backend.volumes({})
    else:
        info = backend.look("v", None)
    (again,) = backend.volumes({"v": info._replace(mode=0)})  # as if its mode had changed without a trace
    assert (again.mode == 0) is believed


@pytest.mark.parametrize(("age", "believed"), [(0, False), (1_900_000_000, False), (2_100_000_000, True)])
def test_whole_seconds_are_believed_when_they_are_over(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: int, believed: bool
) -> None:
    (tmp_path / "v").write_bytes(b"x")
    second = time.time_ns() // 10**9 * 10**9
    facts = (tmp_path / "v").stat()
    names = [name for name in dir(facts) if name.startswith("st_")]
    coarse = SimpleNamespace(**{name: getattr(facts, name) for name in names} | {"st_ctime_ns": second})
    monkeypatch.setattr(Directory, "lstat", lambda self, name: coarse)
    monkeypatch.setattr(directory, "time", SimpleNamespace(time_ns=lambda: second + age))
    info = DirBackend(engine.parse(pool(tmp_path)), engine.host.operation()).look("v", None)
    assert (info.stamp != 0) is believed


def rewritten(path: Path) -> None:
    path.write_bytes(b"y" * path.stat().st_size)


def replaced(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    path.write_bytes(path.with_suffix(".old").read_bytes())


@pytest.mark.parametrize("change", [rewritten, replaced, lambda path: path.chmod(0o640)])
def test_a_change_that_hides_its_time_is_noticed(
    engine: Engine, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    place = tmp_path / "images"
    place.mkdir()
    (place / "v").write_bytes(b"x" * 5000)
    facts = (place / "v").stat()
    backend = DirBackend(engine.parse(pool(place)), engine.host.operation())
    known = backend.look("v", None)
    while not known.stamp:
        known = backend.look("v", None)
    change(place / "v")
    os.utime(place / "v", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    again = {info.name: info for info in backend.volumes({"v": known})}["v"]
    assert again.stamp != known.stamp
    assert again is not known
