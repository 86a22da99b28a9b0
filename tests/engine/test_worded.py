"""Errors of the system on poolkit's own files are poolkit's: worded, with what was tried, whatever the verb."""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.health import examine
from poolkit.host import kernel

ERRORS = (errno.EMFILE, errno.EIO, errno.EROFS, errno.ENOSPC, errno.EACCES)
PLACES = {
    "mountinfo": "/proc/self/mountinfo",
    "boot_id": "/boot_id",
    "gate": "/gate",
    "work": "/run/work",
    "lock of secrets": "/%secrets/gate",
    "journal": "/state/journal",
    "definitions": "/root/storage",
    "inventory": "/state/inventory.sqlite",
    "secrets": "/root/secrets",
}
POOL = "<pool type='dir'><name>{0}</name><target><path>{1}/{0}</path></target></pool>"
VOLUME = "<volume><name>w</name><capacity>1</capacity></volume>"
VERBS: dict[str, Callable[[Engine, Path], Any]] = {
    "pools": lambda engine, place: engine.pools(),
    "define": lambda engine, place: engine.define(POOL.format("q", place)),
    "refresh": lambda engine, place: engine.pool("p").refresh(),
    "destroy": lambda engine, place: engine.pool("p").destroy(),
    "vol-info": lambda engine, place: engine.pool("p").volume("v").look(),
    "vol-create": lambda engine, place: engine.pool("p").create_volume(VOLUME),
    "vol-delete": lambda engine, place: engine.pool("p").volume("v").delete(),
    "autostart": lambda engine, place: engine.pool("p").autostart(),
    "secret": lambda engine, place: engine.secrets()[0].set_value(b"value"),
    "secret-define": lambda engine, place: engine.define_secret("<secret><description>d</description></secret>"),
    "recover": lambda engine, place: engine.recover(),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with Engine(tmp_path / "root") as engine:
        pool = engine.define(POOL.format("p", tmp_path))
        pool.start(build=True)
        pool.create_volume("<volume><name>v</name><capacity>1</capacity></volume>")
        engine.define_secret("<secret><description>a</description></secret>")
    return tmp_path / "root"


def _inject(patch: pytest.MonkeyPatch, number: int, part: str) -> list[str]:
    """Make every way to open or list what has ``part`` in its path fail."""
    hit: list[str] = []

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *args: Any, **more: Any) -> Any:
            if isinstance(path, str) and part in path:
                hit.append(path)
                raise OSError(number, os.strerror(number), path)
            return real(path, *args, **more)

        return call

    for name in ("open", "listdir", "scandir"):
        patch.setattr(os, name, failing(getattr(os, name)))
    patch.setattr(builtins, "open", failing(builtins.open))
    return hit


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("place", PLACES)
def test_an_error_on_our_own_files_is_worded(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    hits = 0
    for name, verb in VERBS.items():
        kernel.boot.cache_clear()
        with monkeypatch.context() as patch:
            hit = _inject(patch, number, PLACES[place])
            try:
                with Engine(root) as engine:
                    verb(engine, tmp_path)
            except errors.PoolkitError as error:
                assert os.strerror(number) in str(error) or "inventory" in str(error) or hit == [], (name, error)
            hits += len(hit)
    kernel.boot.cache_clear()
    assert hits or place == "inventory"  # SQLite opens that itself


def test_what_a_killed_change_of_a_secret_left_is_found_and_removed(root: Path) -> None:
    left = root / "secrets" / ".poolkit-0011223344556677"
    with Engine(root) as engine:
        left.write_bytes(b"a value")
        found = [f for f in examine(root, lambda: engine) if f.name == "temporary file"]
        assert [(f.status, str(left) in f.message) for f in found] == [("problem", True)]
        assert engine.recover() == [f"removed: '{left}', left by a process that died while it changed a secret"]
        assert not left.exists()
        left.write_bytes(b"a value")
        assert engine.secrets()[0].undefine()
        assert not left.exists(), "its value may be that of the secret that was undefined"


@pytest.mark.root
@pytest.mark.parametrize("kind", ["value", "xml"])
def test_a_secret_that_another_user_put_there_is_not_used(root: Path, kind: str) -> None:
    with Engine(root) as engine:
        secret = engine.secrets()[0]
        secret.set_value(b"mine")
        os.chown(root / "secrets" / f"{secret.uuid}.{kind}", 12345, 12345)
        if kind == "value":
            with pytest.raises(errors.Unsafe, match="another user"):
                secret.value()
        else:
            assert engine.secrets() == []
            assert "another user" in engine.secret_store.damaged[0]


def test_what_is_refused_to_a_user_is_named_whole_and_says_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.mkdir

    def refused(path: Any, *args: Any, **more: Any) -> None:
        if path == "images":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        real(path, *args, **more)

    (tmp_path / "there").mkdir(mode=0o750)
    with Engine(tmp_path / "root") as engine:
        pool = engine.define(
            f"<pool type='dir'><name>p</name><target><path>{tmp_path}/there/images</path></target></pool>"
        )
        monkeypatch.setattr(os, "mkdir", refused)
        with pytest.raises(errors.PermissionDenied) as caught:
            pool.build()
    me = os.geteuid()
    assert str(caught.value) == f"cannot build pool 'p' ('{tmp_path}/there/images'): Permission denied"
    assert caught.value.hint == (
        f"'{tmp_path}/there' is of user {me} and group {os.getegid()} with mode 0750; you are user {me}"
    )


@pytest.mark.parametrize("below", ["", "/x", "/x/y"])
def test_a_root_that_is_no_folder_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        errors.InvalidArgument, match=f"^'{tmp_path}/file' is not a folder, so '{tmp_path}/file{below}'"
    ):
        Engine(f"{tmp_path}/file{below}")
    assert (tmp_path / "file").is_file()


def test_a_root_behind_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(errors.InvalidArgument, match="is a symbolic link that leads nowhere"):
        Engine(tmp_path / "link")
    (tmp_path / "nothing").mkdir()
    with Engine(tmp_path / "link") as engine:
        assert engine.pools() == []
