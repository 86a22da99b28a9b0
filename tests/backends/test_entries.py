"""One bad entry of a directory stays one bad entry: whatever is wrong with it, the pool starts and lists the rest."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool

from .fuse import mounted
from .loops import sh


@pytest.fixture
def images(engine: Engine, tmp_path: Path) -> Pool:
    place = tmp_path / "images"
    (place / "bad").mkdir(parents=True)
    (place / "good.img").write_bytes(b"x" * 8192)
    return engine.define(f"<pool type='dir'><name>images</name><target><path>{place}</path></target></pool>")


def _covers(pool: Pool, name: str) -> str:
    return str((pool.volume(name).info.detail or {}).get("covered"))


@pytest.mark.root
@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs FUSE")
@pytest.mark.parametrize("kind", ["foreign", "dead", "silent"])
def test_a_mounted_entry_is_listed_and_never_touched(images: Pool, tmp_path: Path, kind: str) -> None:
    with mounted(tmp_path / "images" / "bad", kind):
        outcome = images.start()
        assert [v.name for v in images.volumes()] == ["bad", "good.img"]
        assert images.volume("bad").warning == "'nobody' (fuse) is mounted on it, so it is not touched"
        assert outcome.warnings == (), "a mount in a pool's directory is no damage"
        images.refresh()
        bad = images.volume("bad").look()
        assert "is mounted on it" in bad.warning
        with pytest.raises(errors.Unsafe, match="is mounted on it, so it is not touched"):
            bad.delete()
    images.refresh()
    assert images.volume("bad").warning == ""
    assert images.volume("bad").delete()


@pytest.mark.root
@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs FUSE")
def test_a_known_directory_that_is_mounted_over_later(images: Pool, tmp_path: Path) -> None:
    images.start()
    with mounted(tmp_path / "images" / "bad", "silent"):
        images.refresh()
        assert "is mounted on it" in images.volume("bad").warning


@pytest.mark.root
def test_a_mount_over_a_file_leaves_its_record(images: Pool, tmp_path: Path) -> None:
    file = tmp_path / "images" / "good.img"
    images.start()
    with contextlib.ExitStack() as stack:
        sh("mount", "--bind", "/proc/version", str(file))
        stack.callback(sh, "umount", str(file))
        assert "damaged, unreadable" in images.refresh().warnings[0]
        volume = images.volume("good.img")
        assert volume.info.format == "raw"
        assert "is mounted on it" in _covers(images, "good.img")
        for verb in (volume.wipe, volume.delete, lambda: volume.download(io.BytesIO())):
            with pytest.raises(errors.Unsafe, match="is mounted on it"):
                verb()
    images.refresh()
    assert images.volume("good.img").info.problem == ""
    assert file.read_bytes() == b"x" * 8192


@pytest.mark.root
def test_a_directory_of_the_own_file_system_may_be_mounted_there(images: Pool, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    bad = tmp_path / "images" / "bad"
    with contextlib.ExitStack() as stack:
        sh("mount", "--bind", str(tmp_path / "other"), str(bad))
        stack.callback(sh, "umount", str(bad))
        images.start()
        assert images.volume("bad").warning == ""


@pytest.mark.root
def test_an_entry_without_a_text_for_a_name_is_not_looked_at(images: Pool, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path / "images") + b"/\xff"
    os.mkdir(odd)
    with mounted(Path(os.fsdecode(odd)), "dead"):
        images.start()
        assert [v.name for v in images.volumes()] == ["bad", "good.img"]


def _failing(monkeypatch: pytest.MonkeyPatch, names: set[str], code: int) -> None:
    """Looking at, and opening, an entry of one of ``names`` fails with ``code``; of all others it works."""

    def broken(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **more: Any) -> Any:
            if isinstance(path, str) and os.path.basename(path) in names:
                raise OSError(code, os.strerror(code))
            return real(path, *arguments, **more)

        return call

    monkeypatch.setattr(os, "stat", broken(os.stat))
    monkeypatch.setattr(os, "open", broken(os.open))
    monkeypatch.setattr(os, "lstat", broken(os.lstat))


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EUCLEAN])
def test_every_error_of_an_entry_stays_with_it(
    images: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "images" / "other.img").write_bytes(b"y" * 8192)
    with monkeypatch.context() as patch:
        _failing(patch, {"good.img"}, code)
        images.start()
        assert images.volume("good.img").info.problem == f"cannot be looked at: {os.strerror(code)}"
        assert [w.partition(";")[0] for w in images.refresh().warnings] == [
            "1 volume is damaged, unreadable or not what the record says: 'good.img'"
        ]
        assert [v.name for v in images.volumes()] == ["bad", "good.img", "other.img"]
        assert images.volume("good.img").info.problem.endswith(os.strerror(code))
        assert not images.volume("good.img").info.recorded, "a format that nobody could read is not on record"
        assert images.volume("good.img").look().info.problem == f"cannot be looked at: {os.strerror(code)}"
    images.refresh()
    assert images.volume("good.img").info.problem == ""
    assert images.volume("good.img").info.format == "raw"


def test_what_was_known_of_an_entry_stays_while_it_fails(
    images: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.start()
    before = images.volume("good.img").info
    with monkeypatch.context() as patch:
        _failing(patch, {"good.img"}, errno.EIO)
        failed = images.volume("good.img").look().info
    assert failed.problem == "cannot be looked at: Input/output error"
    assert (failed.format, failed.capacity, failed.inode, failed.recorded) == ("raw", 8192, before.inode, True)


def test_a_lack_of_descriptors_is_no_fault_of_an_entry(images: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, {"good.img"}, errno.EMFILE)
    with pytest.raises(errors.HostError, match="open files"):
        images.start()
    assert not images.info.active
