"""A pool of files whose host writes down every program that is run, and rules that every call must keep."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from poolkit.host import Host, Result

SECRET = b"correct horse battery staple"
MIB = 1 << 20


class RecordingHost(Host):
    """A real host that keeps the words of all programs, as they are handed to the kernel."""

    def __init__(self, *, dry_run: bool = False, fault: Callable[[str], None] | None = None) -> None:
        super().__init__(dry_run=dry_run, fault=fault)
        self.calls: list[tuple[str, ...]] = []

    def _view(self) -> Host:
        view = RecordingHost(dry_run=self.dry_run, fault=self.fault)
        view.calls = self.calls
        return view

    def _run(self, argv: Any, *args: Any, **how: Any) -> Result:
        self.calls.append(tuple(argv))
        return super()._run(argv, *args, **how)


def share_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """FICLONE works whatever the file system: what the two share is a copy."""
    real = fcntl.ioctl

    def ioctl(fd: int, request: int, *more: Any) -> Any:
        if request == 0x40049409:  # linux/fs.h, FICLONE
            os.pwrite(fd, os.pread(more[0], os.fstat(more[0]).st_size, 0), 0)
            return 0
        return real(fd, request, *more)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)


def refuse_ioctl(monkeypatch: pytest.MonkeyPatch, refused: int, number: int) -> None:
    """One request of ioctl(2) is refused, with the error of that number; the others are done."""
    real = fcntl.ioctl

    def ioctl(fd: int, request: int, *more: Any) -> Any:
        if request == refused:
            raise OSError(number, os.strerror(number))
        return real(fd, request, *more)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)


def check_call(argv: tuple[str, ...]) -> None:
    """What every call of qemu-img owes: formats said, decimal sizes, operands after ``--`` and absolute."""
    assert argv[0] == "qemu-img"
    if argv[1:] == ("--version",):
        return
    assert argv.count("--") >= 1, argv
    end = argv.index("--")
    options, operands = argv[:end], argv[end + 1 :]
    assert "-f" in options, f"no format: {argv}"
    if "-b" in options:
        assert "-F" in options and "-u" in options, f"a backing image without its format: {argv}"
        assert options[options.index("-b") + 1].startswith("/")
    if argv[1] != "create":
        assert operands[0].startswith("json:{"), f"an image that exists is not described: {argv}"
    for word in operands:
        assert word.startswith(("/proc/self/fd/", "json:{")) or word.isdecimal(), argv
        if word.startswith("json:"):
            assert_nodes(json.loads(word[5:]))
    assert SECRET.decode() not in " ".join(argv)


def assert_nodes(node: dict[str, Any]) -> None:
    """Every node of a block graph has its driver, its open descriptor, and says what is below it."""
    assert node["driver"]
    assert node["file"]["driver"] in ("file", "host_device")
    assert node["file"]["filename"].startswith("/proc/self/fd/")
    if node["driver"] in ("qcow2", "qed", "qcow", "vmdk"):
        assert "backing" in node, "an image that may have a backing image must be told which"
    if node.get("backing"):
        assert_nodes(node["backing"])


class Broken(BytesIO):
    """A stream that ends with an error after its bytes."""

    def readinto(self, into: Any, /) -> int:
        count = super().readinto(into)
        if not count:
            raise OSError(errno.ECONNRESET, "the connection is gone")
        return count


@pytest.fixture
def host() -> Iterator[RecordingHost]:
    recording = RecordingHost()
    yield recording
    for argv in recording.calls:
        if argv[0] == "qemu-img":
            check_call(argv)


@pytest.fixture
def engine(tmp_path: Path, host: RecordingHost) -> Iterator[Engine]:
    with Engine(tmp_path / "root", host=host) as engine:
        yield engine


def new_pool(engine: Engine, place: Path, name: str = "images") -> Pool:
    pool = engine.define(f"<pool type='dir'><name>{name}</name><target><path>{place}</path></target></pool>")
    pool.build()
    pool.start()
    return pool


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def pool(engine: Engine, place: Path) -> Pool:
    return new_pool(engine, place)


@pytest.fixture
def other(engine: Engine, tmp_path: Path) -> Pool:
    return new_pool(engine, tmp_path / "other", "other")


def xml(
    name: str, size: int | None = MIB, format: str | None = None, *, target: str = "", backing: str = "", more: str = ""
) -> str:
    kind = f"<format type='{format}'/>" if format else ""
    capacity = "" if size is None else f"<capacity>{size}</capacity>"
    return f"<volume><name>{name}</name>{capacity}{more}<target>{kind}{target}</target>{backing}</volume>"


def make(pool: Pool, name: str, format: str = "raw", size: int = MIB, **options: Any) -> Volume:
    """A sparse volume."""
    return pool.create_volume(xml(name, size, format, more="<allocation>0</allocation>"), **options)


def put(pool: Pool, name: str, data: bytes) -> Volume:
    """A file that appears behind poolkit's back, listed."""
    (Path(pool.info.target or "") / name).write_bytes(data)
    pool.refresh()
    return pool.volume(name)


def content(volume: Volume) -> bytes:
    out = BytesIO()
    volume.download(out)
    return out.getvalue()


def entries(place: Path) -> dict[str, tuple[int, int, int]]:
    """What is in a directory, hidden files too: (inode, size, mode) by name."""
    return {p.name: (s.st_ino, s.st_size, s.st_mode) for p in place.iterdir() for s in [p.lstat()]}
