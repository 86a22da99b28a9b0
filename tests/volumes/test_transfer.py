"""Bytes in and out of volumes: ranges, holes, pipes, and images that are replaced as a whole."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from io import BytesIO, RawIOBase
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine.pool import Pool
from tests.formats import samples

from .conftest import MIB, content, entries, make, put, xml

tools = pytest.mark.tools("qemu-img", "prlimit")


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (-1, 0),
        (0, -1),
        (1 << 63, 0),
        (0, 1 << 63),
        (MIB + 1, 0),
        (0, MIB + 1),
        (MIB, 1),
        (MIB // 2, MIB),
        (1 << 62, 1 << 62),
    ],
)
def test_ranges_outside_of_the_volume_are_refused_before_anything_moves(
    pool: Pool, place: Path, offset: int, length: int
) -> None:
    volume = make(pool, "disk")
    before = entries(place)
    out = BytesIO()
    for call in (volume.upload, volume.download):
        with pytest.raises(errors.InvalidArgument, match="disk"):
            call(BytesIO(b"x" * 100) if call == volume.upload else out, offset=offset, length=length)
    assert entries(place) == before and out.getvalue() == b""
    assert content(volume) == bytes(MIB)


def test_a_range_is_written_and_read(pool: Pool) -> None:
    volume = make(pool, "disk")
    volume.upload(BytesIO(b"abcdef"), offset=10, length=4)
    assert content(volume)[:20] == bytes(10) + b"abcd" + bytes(6)
    out = BytesIO()
    assert volume.download(out, offset=11, length=2) == 2
    assert out.getvalue() == b"bc"
    assert volume.download(BytesIO(), offset=MIB) == 0


def test_more_data_than_fits_is_an_error(pool: Pool) -> None:
    volume = make(pool, "disk", size=4096)
    with pytest.raises(errors.InvalidArgument, match="ends at byte 4096"):
        volume.upload(BytesIO(bytes(4097)))
    assert volume.look().info.capacity == 4096


def test_a_file_that_does_not_fit_changes_nothing(pool: Pool, tmp_path: Path) -> None:
    volume = pool.create_volume("<volume><name>small</name><capacity>4096</capacity></volume>")
    large = tmp_path / "large"
    large.write_bytes(b"head" + b"x" * 4096)
    with large.open("rb") as stream, pytest.raises(errors.InvalidArgument, match="it ends at byte 4096"):
        volume.upload(stream)
    assert Path(volume.path).read_bytes() == bytes(4096)
    with large.open("rb") as stream:
        stream.read(4)
        volume.upload(stream)
    assert Path(volume.path).read_bytes() == b"x" * 4096


def test_less_data_than_said_is_an_error(pool: Pool) -> None:
    with pytest.raises(errors.InvalidArgument, match="ended after 3 of 10"):
        make(pool, "disk").upload(BytesIO(b"abc"), length=10)


def test_sparse_makes_and_keeps_holes(pool: Pool, tmp_path: Path) -> None:
    volume = pool.create_volume(xml("disk", 8 * MIB))
    assert volume.info.allocation >= 8 * MIB
    volume.upload(BytesIO(bytes(4 * MIB) + b"x" * MIB + bytes(3 * MIB)), sparse=True)
    assert volume.look().info.allocation <= 2 * MIB
    assert content(volume) == bytes(4 * MIB) + b"x" * MIB + bytes(3 * MIB)
    with (tmp_path / "out").open("wb") as out:
        assert volume.download(out, sparse=True) == 8 * MIB
    assert (tmp_path / "out").read_bytes() == content(volume)
    assert (tmp_path / "out").stat().st_blocks * 512 <= 2 * MIB


def test_sparse_into_a_file_that_has_data_clears_it(pool: Pool, tmp_path: Path) -> None:
    volume = make(pool, "disk", size=2 * MIB)
    volume.upload(BytesIO(b"x"), offset=MIB)
    (tmp_path / "out").write_bytes(b"\xff" * 2 * MIB)
    with (tmp_path / "out").open("r+b") as out:
        volume.download(out, sparse=True)
    assert (tmp_path / "out").read_bytes() == content(volume)


def test_pipes_both_ways(pool: Pool) -> None:
    volume = make(pool, "disk", size=4 * MIB)
    data = os.urandom(3 * MIB)
    read, write = os.pipe()

    def feed() -> None:
        with open(write, "wb") as stream:
            stream.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with open(read, "rb", buffering=0) as stream:
        volume.upload(stream)
    thread.join()
    assert content(volume) == data + bytes(MIB)
    with subprocess.Popen(["sha256sum"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        volume.download(process.stdin)  # type: ignore[arg-type]
        process.stdin.close()
        told = process.stdout.read().split()[0].decode()
    import hashlib

    assert told == hashlib.sha256(data + bytes(MIB)).hexdigest()


def test_a_stream_with_read_only_is_enough(pool: Pool) -> None:
    class Reader:
        def __init__(self, data: bytes) -> None:
            self.stream = BytesIO(data)

        def read(self, size: int) -> bytes:
            return self.stream.read(min(size, 1000))

    volume = make(pool, "disk", size=8192)
    volume.upload(Reader(b"y" * 5000))  # type: ignore[arg-type]
    assert content(volume)[:5001] == b"y" * 5000 + b"\0"


def test_an_abort_stops_an_upload(pool: Pool) -> None:
    abort = threading.Event()
    volume = make(pool, "disk", size=8 * MIB)
    with pytest.raises(errors.Aborted):
        volume.upload(BytesIO(bytes(8 * MIB)), abort=abort, progress=lambda *facts: abort.set())
    assert volume.look().info.capacity == 8 * MIB


def aborted_soon(work: Callable[[threading.Event], object]) -> None:
    """``work`` is stopped by an abort that comes after it began to wait."""
    abort = threading.Event()
    timer = threading.Timer(0.3, abort.set)
    timer.start()
    try:
        with pytest.raises(errors.Aborted):
            work(abort)
    finally:
        timer.cancel()
        timer.join()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_an_abort_reaches_streams_that_stall(pool: Pool, kind: str, buffering: int) -> None:
    volume = make(pool, "disk", size=8 * MIB)
    if kind == "pipe":
        far, near = os.pipe()
    else:
        far, near = (end.detach() for end in socket.socketpair())
    with open(far, "rb", buffering=buffering) as reading, open(near, "wb", buffering=0) as writing:
        writing.write(b"data")
        aborted_soon(lambda abort: volume.upload(reading, abort=abort))
        with open(os.dup(near), "wb", buffering=buffering) as other:
            aborted_soon(lambda abort: volume.download(other, abort=abort))


@pytest.mark.timeout(60)
def test_what_a_stream_has_read_ahead_is_not_waited_for(pool: Pool) -> None:
    volume = make(pool, "disk")
    read, write = os.pipe()
    with open(read, "rb") as stream, open(write, "wb", buffering=0) as feed:
        feed.write(b"header" + b"abcdef")
        assert stream.read(6) == b"header"
        volume.upload(stream, length=6)  # its other end stays open
        feed.write(b"more")
        assert stream.read(4) == b"more"
    assert content(volume)[:7] == b"abcdef\0"


def test_sockets_get_all_bytes(pool: Pool) -> None:
    volume = make(pool, "disk", size=3 * MIB)
    data = os.urandom(3 * MIB)
    volume.upload(BytesIO(data))
    ours, theirs = socket.socketpair()
    got = bytearray()

    def drain() -> None:
        while part := theirs.recv(1 << 16):
            got.extend(part)

    thread = threading.Thread(target=drain)
    thread.start()
    with open(ours.detach(), "wb") as out:
        assert volume.download(out) == 3 * MIB
    thread.join()
    theirs.close()
    assert bytes(got) == data


def test_a_stream_that_lends_the_descriptor_below_it_is_written_through_its_methods(pool: Pool, tmp_path: Path) -> None:
    volume = make(pool, "disk")
    volume.upload(BytesIO(b"data"))
    with gzip.open(tmp_path / "out.gz", "wb") as packed:
        volume.download(packed)  # type: ignore[arg-type]
    with gzip.open(tmp_path / "out.gz") as packed:
        assert packed.read() == content(volume)
    with gzip.open(tmp_path / "out.gz") as packed:
        make(pool, "again").upload(packed)  # type: ignore[arg-type]
    assert content(pool.volume("again")) == content(volume)


# -- images -------------------------------------------------------------------------------------------------------------


@tools
def test_an_image_is_replaced_as_a_whole(pool: Pool, tmp_path: Path) -> None:
    volume = make(pool, "disk", "qcow2", MIB)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "new", "5M"], check=True)
    os.chmod(volume.path, 0o640)
    data = (tmp_path / "new").read_bytes()
    assert volume.upload(BytesIO(data))
    assert volume.info.capacity == 5 * MIB and volume.info.format == "qcow2"
    assert content(volume) == data
    assert volume.info.mode == 0o640
    pool.refresh()
    assert pool.volume("disk").info.format == "qcow2"


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (b"not an image at all" * 100, {}, "looks like raw"),
        (samples.qcow2(backing=b"/etc/shadow"), {}, "stands on a backing image, '/etc/shadow'"),
        (samples.qcow2(incompatible=4, extensions=((0x44415441, b"/etc/passwd"),)), {}, "another file"),
        (samples.qcow2(), {"offset": 512}, "only be uploaded as a whole"),
        (samples.qcow2()[:50], {}, "is not used as qcow2"),
        (samples.vdi(), {}, "looks like vdi"),
        (samples.qcow2(), {"length": 1 << 20}, "ended after"),
    ],
    ids=["text", "backing", "data file", "offset", "truncated", "other format", "short"],
)
def test_what_is_no_sound_image_of_that_format_changes_nothing(
    pool: Pool, place: Path, data: bytes, options: dict[str, Any], said: str
) -> None:
    volume = put(pool, "disk", samples.qcow2(size=MIB).ljust(65536, b"\0"))
    before, bytes_before = entries(place), content(volume)
    with pytest.raises(errors.PoolkitError, match=said):
        volume.upload(BytesIO(data), **options)
    assert entries(place) == before
    assert content(pool.volume("disk")) == bytes_before


def test_an_overlay_is_uploaded_when_that_is_meant(pool: Pool) -> None:
    volume = put(pool, "disk", samples.qcow2(size=MIB))
    image = samples.qcow2(size=MIB, backing=b"/base", extensions=((0xE2792ACA, b"raw"),))
    volume.upload(BytesIO(image), backing=True)
    assert (pool.volume("disk").info.detail or {})["backing"] == "/base"


def test_a_stream_that_fails_leaves_the_old_image(pool: Pool, place: Path) -> None:
    class Failing(RawIOBase):
        count = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            self.count += 1
            if self.count > 2:
                raise OSError(5, "Input/output error")
            buffer[:1] = b"Q"
            return 1

    volume = put(pool, "disk", samples.qcow2(size=MIB))
    before = entries(place)
    with pytest.raises(errors.HostError, match="Input/output error"):
        volume.upload(Failing())  # type: ignore[arg-type]
    assert entries(place) == before


def test_directories_have_no_bytes(pool: Pool, place: Path) -> None:
    (place / "folder").mkdir()
    pool.refresh()
    for call in (pool.volume("folder").upload, pool.volume("folder").download):
        with pytest.raises(errors.PoolkitError, match="directory"):
            call(BytesIO())
    pool.volume("folder").delete()
    (place / "full").mkdir()
    (place / "full" / "file").touch()
    pool.refresh()
    with pytest.raises(errors.Unsafe, match="not empty"):
        pool.volume("full").delete()


def test_descriptors_are_given_back(pool: Pool) -> None:
    volume = make(pool, "disk")
    volume.clone("warm").delete()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        volume.upload(BytesIO(b"x"))
        content(volume)
        volume.clone("clone").delete()
        with pytest.raises(errors.PoolkitError):
            volume.download(BytesIO(), offset=number + 2 * MIB)
        with pytest.raises(errors.PoolkitError):
            volume.clone("disk")
    assert len(os.listdir("/proc/self/fd")) <= before  # fewer: garbage of other tests is collected whenever it is
