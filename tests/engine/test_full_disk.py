"""A file system that is full to the last byte, or read-only, with the state of poolkit and its volumes on it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.state.inventory import Inventory
from poolkit.state.locks import Locks
from tests.backends.loops import loop_devices, sh

Mount = Callable[[str], Path]

KINDS = {
    "ext4-1k": (16, "mkfs.ext4", "-q", "-m", "0", "-b", "1024"),
    "ext4-4k": (16, "mkfs.ext4", "-q", "-m", "0", "-b", "4096"),
    "xfs": (300, "mkfs.xfs", "-q"),
    "btrfs": (114, "mkfs.btrfs", "-q"),
    "btrfs-mixed": (114, "mkfs.btrfs", "-q", "--mixed"),  # where metadata finds no block either
    "tmpfs": (8, "mount"),
}


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    place = tmp_path / "disk"
    place.mkdir()
    with loop_devices(tmp_path) as make:

        def mounted(kind: str) -> Path:
            size, *mkfs = KINDS[kind]
            if kind == "tmpfs":
                sh("mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(place))
            else:
                device = make(int(size))
                sh(*map(str, mkfs), device)
                sh("mount", device, str(place))
            return place

        yield mounted
        sh("umount", str(place), check=False)


def _pk(disk: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "poolkit", "--root", str(disk / "root"), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def _pool(disk: Path) -> None:
    document = disk.parent / "p.xml"
    document.write_text(f"<pool type='dir'><name>p</name><target><path>{disk}/pool</path></target></pool>")
    for words in (("define", str(document)), ("start", "p", "--build"), ("refresh", "p")):
        assert _pk(disk, *words).returncode == 0
    with Engine(disk / "root") as engine:
        for n in range(3):
            engine.pool("p").create_volume(f"<volume><name>v{n}</name><capacity unit='KiB'>64</capacity></volume>")


def _fill(disk: Path) -> None:
    """Take every block, then every byte of the last one, then every inode that needs a block."""
    with open(disk / "filler", "wb") as file:
        offset, step = 0, 1 << 30
        while step:
            try:
                if step >= 1 << 16:
                    os.posix_fallocate(file.fileno(), offset, step)
                else:
                    os.pwrite(file.fileno(), bytes(step), offset)
                    os.fsync(file.fileno())
                offset += step
            except OSError:
                step //= 2
    for n in range(5000):
        try:
            with open(disk / f"small{n}", "wb", buffering=0) as file:
                file.write(b"x" * 200)
                os.fsync(file.fileno())
        except OSError:
            return
    pytest.fail("the file system takes still more")


@pytest.mark.root
@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_on_a_full_disk_can_be_found_and_deleted(mount: Mount, kind: str) -> None:
    if not any(os.access(f"{folder}/{KINDS[kind][1]}", os.X_OK) for folder in ("/usr/sbin", "/sbin", "/usr/bin")):
        pytest.skip(f"needs {KINDS[kind][1]}")
    disk = mount(kind)
    _pool(disk)
    _fill(disk)
    for words in (("list",), ("vol-list", "p"), ("vol-info", "v0", "--pool", "p"), ("refresh", "p")):
        done = _pk(disk, *words)
        assert (words, done.returncode, done.stderr) == (words, 0, "")
    done = _pk(disk, "vol-create-as", "p", "new", "1MiB")
    assert done.returncode == 11, done.stderr
    other = disk.parent / "q.xml"
    other.write_text(f"<pool type='dir'><name>q</name><target><path>{disk}/q</path></target></pool>")
    done = _pk(disk, "define", str(other))
    assert done.returncode in (0, 11)  # a file system with a block for small things left takes it
    assert done.returncode == 0 or str(disk) in done.stderr
    done = _pk(disk, "vol-delete", "v0", "--pool", "p")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (disk / "pool" / "v0").exists()
    assert _pk(disk, "vol-list", "p", "--name").stdout.split() == ["v1", "v2"]


@pytest.mark.root
def test_a_read_only_disk_can_be_read(mount: Mount) -> None:
    disk = mount("tmpfs")
    _pool(disk)
    os.utime(disk / "root" / "storage" / "p.xml")  # the index is behind, and cannot be brought in step
    os.truncate(disk / "pool" / "v1", 1000)  # and what is listed of a volume is not so any more
    sh("mount", "-o", "remount,ro", str(disk))
    before = sorted(disk.rglob("*"))
    for words in (
        ("list", "--all"), ("info", "p"), ("dumpxml", "p"), ("vol-list", "p"), ("vol-info", "v1", "--pool", "p"),
        ("vol-dumpxml", "v1", "--pool", "p"), ("vol-download", "v1", "--pool", "p", str(disk.parent / "copy")),
        ("secret-list",), ("recover",),
    ):  # fmt: skip
        done = _pk(disk, *words)
        assert (words, done.returncode, done.stderr) == (words, 0, "")
    assert (disk.parent / "copy").stat().st_size == 1000
    for words in (("refresh", "p"), ("vol-delete", "v0", "--pool", "p"), ("destroy", "p")):
        done = _pk(disk, *words)
        assert (words, done.returncode) == (words, 12)
        assert str(disk) in done.stderr
    assert sorted(disk.rglob("*")) == before


def test_a_root_that_is_not_there_is_an_error_for_who_reads(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    for words in (("list",), ("info", "p"), ("vol-list", "p"), ("secret-list",), ("recover",), ("undefine", "p")):
        done = _pk(disk, *words)
        assert (words, done.returncode) == (words, 2)
        assert f"there is no folder '{disk}/root'" in done.stderr
    assert not disk.exists()
    (tmp_path / "p.xml").write_text("<pool type='dir'><name>p</name><target><path>/p</path></target></pool>")
    assert _pk(disk, "define", str(tmp_path / "p.xml")).returncode == 0
    assert _pk(disk, "list", "--all", "--name").stdout == "p\n"


def _no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, flags: int) -> int:
        if path.endswith("/gate"):
            return os.open(path, flags, 0o600)
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr("poolkit.host.private.open_private", full)


def test_where_no_file_can_be_made_the_folder_is_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks, others = Locks(str(tmp_path)), Locks(str(tmp_path))
    with locks.work("p", "x", volume="v"):
        pass
    _no_file(monkeypatch)
    with locks.work("p", "x", volume="v"):
        with pytest.raises(errors.Busy, match="on a full disk"), others.work("p", "y", volume="w"):
            pass
        with pytest.raises(errors.NoSpace), locks.work("p", "x", volume="w"):  # within its own, but there is one folder
            pass
        monkeypatch.undo()
        with pytest.raises(errors.Busy), others.work("p", "y", volume="w"):
            pass
        with locks.work("p", "x", volume="w"):
            pass
    with others.work("p", "y"):
        assert [w.verb for w in locks.current("p")] == ["y"]
        _no_file(monkeypatch)
        with pytest.raises(errors.Busy, match="y by process"), locks.work("p", "x", wait=0.01):
            pass
    with locks.work("p", "x"):
        pass


def test_who_looks_is_not_in_the_way_of_a_lock_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the work on a pool has its folder locked for a moment, and that is no work."""
    locks = Locks(str(tmp_path))
    with locks.work("p", "x", volume="v"):
        pass
    look = os.open(tmp_path / "p", os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    sleep = time.sleep

    def looked(seconds: float) -> None:
        fcntl.flock(look, fcntl.LOCK_UN)
        sleep(seconds)

    _no_file(monkeypatch)
    monkeypatch.setattr(time, "sleep", looked)
    with locks.work("p", "x", volume="v"):
        with pytest.raises(errors.Busy), Locks(str(tmp_path)).work("p", "y", volume="w"):
            pass
    os.close(look)


@pytest.mark.parametrize("kind", [errors.NoSpace, errors.HostError, errors.PermissionDenied, errors.Busy])
def test_a_volume_that_is_deleted_is_so_even_if_no_listing_can_be_stored(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[errors.PoolkitError]
) -> None:
    pool = engine.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/p</path></target></pool>")
    pool.start(build=True)
    volume = pool.create_volume("<volume><name>v</name><capacity>5</capacity></volume>")
    with monkeypatch.context() as patch:

        def full(*args: object, **more: object) -> None:
            raise kind("the file system is full")

        patch.setattr(Inventory, "drop_volume", full)
        outcome = volume.delete()
    assert outcome
    assert "until the next refresh" in outcome.warnings[0]
    pool.refresh()
    assert pool.volumes() == []
