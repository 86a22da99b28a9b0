"""What the kernel moves may be less than it was asked for: nothing may be lost, and nothing lost may be called a success."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import poolkit
from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from tests.formats import samples

from .conftest import MIB, make

# Data, a hole, data, and an odd end: whatever a copy makes of runs shows in it.
BYTES = os.urandom(300_001) + bytes(MIB) + os.urandom(200_003)
SIZE = len(BYTES)
PIECE = 3001  # bytes that go at most at once; no number that a border of a block falls on


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every call moves a little only, as each may (write(2), pread(2), sendfile(2) ...); the names of those that were made."""
    called: list[str] = []

    def cut(name: str, shorten: Callable[..., tuple[Any, ...]]) -> None:
        real = getattr(os, name)

        def call(*args: Any, **how: Any) -> Any:
            called.append(name)
            return real(*shorten(*args), **how)

        monkeypatch.setattr(os, name, call)

    cut("write", lambda fd, data: (fd, memoryview(data)[:PIECE]))
    cut("pwrite", lambda fd, data, at: (fd, memoryview(data)[:PIECE], at))
    cut("pread", lambda fd, length, at: (fd, min(length, PIECE), at))
    cut("sendfile", lambda out, fd, at, length: (out, fd, at, min(length, PIECE)))
    cut("splice", lambda fd, out, length: (fd, out, min(length, PIECE)))
    cut("copy_file_range", lambda a, b, length, *at: (a, b, min(length, PIECE), *at))
    cut("readv", lambda fd, views: (fd, [views[0][:PIECE]]))
    yield called


def filled(pool: Pool) -> Any:
    volume = pool.create_volume(
        f"<volume><name>v</name><capacity unit='B'>{SIZE}</capacity><allocation>0</allocation></volume>"
    )
    Path(volume.path).write_bytes(BYTES)
    return volume


@pytest.mark.parametrize("sparse", [False, True])
def test_an_upload_is_whole(pool: Pool, short: list[str], sparse: bool, tmp_path: Path) -> None:
    volume = pool.create_volume(f"<volume><name>v</name><capacity unit='B'>{SIZE}</capacity></volume>")
    volume.upload(BytesIO(BYTES), sparse=sparse)
    assert Path(volume.path).read_bytes() == BYTES and "pwrite" in short


class _Raw(BytesIO):
    """Takes less than it is given, as a stream without a buffer may."""

    def write(self, data: Any) -> int:
        return super().write(memoryview(data)[:PIECE])


@pytest.mark.parametrize("kind", ["file", "sparse", "sparse over data", "unbuffered", "object", "pipe"])
def test_a_download_is_whole(pool: Pool, short: list[str], kind: str, tmp_path: Path) -> None:
    volume = filled(pool)
    path = tmp_path / "out"
    if kind == "object":
        out = _Raw()
        assert volume.download(out) == SIZE
        assert out.getvalue() == BYTES
        return
    if kind == "pipe":
        with path.open("wb") as file, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file) as cat:
            volume.download(cat.stdin)
            assert cat.stdin is not None
            cat.stdin.close()
    else:
        path.write_bytes(b"x" * SIZE if kind == "sparse over data" else b"")
        with path.open("r+b", buffering=0 if kind == "unbuffered" else -1) as file:
            volume.download(file, sparse="sparse" in kind)
    assert path.read_bytes() == BYTES


@pytest.mark.parametrize("reflink", [None, False])
def test_a_copy_is_whole(pool: Pool, short: list[str], reflink: bool | None) -> None:
    assert Path(filled(pool).clone("copy", reflink=reflink).path).read_bytes() == BYTES


@pytest.mark.parametrize("algorithm", ["zero", "nnsa", "dod"])
def test_a_wipe_is_whole(pool: Pool, short: list[str], algorithm: str) -> None:
    volume = filled(pool)
    volume.wipe(algorithm)
    assert BYTES[:32] not in Path(volume.path).read_bytes() and BYTES[-32:] not in Path(volume.path).read_bytes()


def test_a_header_is_read_whole(pool: Pool, place: Path, short: list[str]) -> None:
    (place / "image").write_bytes(samples.qcow2(size=MIB).ljust(65536, b"\0"))
    pool.refresh()
    assert pool.volume("image").info.capacity == MIB


def test_definitions_secrets_and_journals_are_whole(engine: Engine, short: list[str], tmp_path: Path) -> None:
    name = "n" * 190
    engine.define(f"<pool type='dir'><name>{name}</name><target><path>{tmp_path}/x</path></target></pool>").build()
    assert engine.pool(name).definition().target.path == f"{tmp_path}/x"
    secret = engine.define_secret(
        "<secret ephemeral='no' private='no'><usage type='volume'><volume>/v</volume></usage></secret>"
    )
    value = os.urandom(60_000)
    secret.set_value(value)
    assert secret.value().reveal() == value and "write" in short


# In data, at its end, in the hole, in the last run.
@pytest.mark.parametrize("cut", [0, 100_000, 300_001, MIB, SIZE - 1])
def test_a_sparse_download_of_a_volume_that_shrank_is_no_success(
    engine: Engine, pool: Pool, tmp_path: Path, cut: int
) -> None:
    volume = filled(pool)

    def cut_off(label: str) -> None:
        if label == "download":
            os.truncate(volume.path, cut)

    engine.host.fault = cut_off
    with (tmp_path / "out").open("wb") as out, pytest.raises(errors.HostError, match=r"the volume ended at byte \d+"):
        volume.download(out, sparse=True)


@pytest.mark.root
@pytest.mark.parametrize("sparse", [False, True])
def test_a_download_that_does_not_fit_is_no_success(pool: Pool, tmp_path: Path, sparse: bool) -> None:
    volume = make(pool, "v", size=3 * MIB // 2)
    Path(volume.path).write_bytes(os.urandom(3 * MIB // 2))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1280k", "tmpfs", small], check=True)
    try:
        with (small / "out").open("wb", buffering=0) as out, pytest.raises(errors.NoSpace):
            volume.download(out, sparse=sparse)
    finally:
        subprocess.run(["umount", small], check=True)


# -- the code ---------------------------------------------------------------------------------------------------------

WRITES = {"write", "pwrite", "writev", "pwritev"}
COUNTS = {"sendfile", "splice", "copy_file_range", "read", "pread", "readv", "preadv"}


def _calls() -> Iterator[tuple[str, str, int, bool]]:
    """Each call that moves bytes: file, name, line, and whether what it returns is dropped."""
    root = Path(poolkit.__file__).parent
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text())
        dropped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                assert not {a.name for a in node.names} & (WRITES | COUNTS - {"pread"}), f"{path}: call it as os.NAME"
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "pread" or (called.startswith("os.") and called[3:] in WRITES | COUNTS):
                    yield str(path.relative_to(root)), called.removeprefix("os."), node.lineno, id(node) in dropped


def test_one_place_writes() -> None:
    assert {where for where, name, *_ in _calls() if name in WRITES} == {"host/descriptors.py"}


def test_no_count_is_dropped() -> None:
    found = list(_calls())
    assert len(found) > 10, "the search finds nothing"
    assert [f"{where}:{line}" for where, _, line, dropped in found if dropped] == []
