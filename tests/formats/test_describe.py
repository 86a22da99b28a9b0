"""The description of a named file, and what it costs to import and to ask."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from poolkit import formats
from poolkit.errors import InvalidArgument
from poolkit.formats import FdReader, ImageInfo, as_format, describe, probe, probe_fd
from tests.formats import samples
from tests.formats.samples import Sparse
from tests.formats.test_hostile import vhdx

PROMISED = {
    "path", "format", "virtual_size", "backing_file", "backing_format", "data_file", "encrypted", "compat", "cluster_size",
    "also", "ambiguous", "error",
}  # fmt: skip


def test_description(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    image = bytearray(
        samples.qcow2(backing=b"ba\x1bse", extensions=((0xE2792ACA, b"raw"),), snapshots=3).ljust(512, b"\0")
    )
    image[64:72] = struct.pack(">Q", len(image))
    path.write_bytes(image + bytes(3 * 40))
    answer = describe(str(path))
    assert set(answer) >= PROMISED
    assert {key: answer[key] for key in PROMISED} == {
        "path": str(path), "format": "qcow2", "virtual_size": 1 << 20, "backing_file": "ba\\x1bse", "backing_format": "raw",
        "data_file": None, "encrypted": False, "compat": "1.1", "cluster_size": 65536, "also": [], "ambiguous": False,
        "error": None,
    }  # fmt: skip
    assert (answer["backing_kind"], answer["snapshots"]) == ("file", 3)
    assert json.loads(json.dumps(answer)) == answer


def test_description_of_extents(tmp_path: Path) -> None:
    path = tmp_path / "a.vmdk"
    path.write_bytes(samples.descriptor('RW 8 FLAT "x" 4'))
    assert describe(str(path))["extents"] == [
        {"access": "RW", "size": 4096, "type": "FLAT", "file": "x", "offset": 2048}
    ]


def test_a_link_is_followed_because_the_caller_named_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(samples.qcow2())
    (tmp_path / "link").symlink_to("a")
    assert describe(str(tmp_path / "link"))["format"] == "qcow2"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "is a directory"),
        (os.mkfifo, "is a FIFO"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.symlink_to("/dev/null"), "is a character device"),
    ],
)
def test_what_is_no_file_gets_an_error(tmp_path: Path, make: object, words: str) -> None:
    path = tmp_path / "x"
    make(path)  # type: ignore[operator]
    answer = describe(str(path))
    assert set(answer) >= PROMISED
    assert words in answer["error"]
    assert (answer["format"], answer["virtual_size"], answer["encrypted"]) == (None, None, None)


def test_a_nul_in_a_path_is_an_error() -> None:
    assert "NUL" in describe("a\0b")["error"]


def test_checksums_of_vhdx_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.vhdx"
    reader = vhdx()
    path.write_bytes(reader.pread(1 << 20, 0) + reader.pread(1 << 20, 1 << 20) + bytes(2 << 20))
    answer = describe(str(path))
    assert answer["error"] == "the checksums of both copies of the header are wrong"
    assert answer["virtual_size"] == 1 << 30


def test_descriptors_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(samples.qcow2(size=1 << 63))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        describe(str(path))
        describe(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) <= before  # fewer: garbage of other tests is collected whenever it is


def test_most_files_cost_two_or_three_reads() -> None:
    for data, size, reads, total in (
        (samples.qcow2(backing=b"base", extensions=((0xE2792ACA, b"raw"),)), 200_000, 2, 4096 + 5),
        (b"", 1 << 30, 3, 4096 + 5 + 512),
        (b"", 4096, 2, 4096 + 512),
    ):
        reader = Sparse({0: data}, size)
        as_format(reader, "raw")
        assert (reader.reads, reader.bytes) == (reads, total)


def test_a_descriptor_stays_open_and_its_position_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(samples.qcow2())
    fd = os.open(path, os.O_RDONLY)
    try:
        os.lseek(fd, 100, os.SEEK_SET)
        assert probe_fd(fd, path.stat().st_size).format == "qcow2"
        assert os.lseek(fd, 0, os.SEEK_CUR) == 100
    finally:
        os.close(fd)
    assert "Bad file descriptor" in (probe_fd(fd, 4096).error or "")


def test_a_file_cut_while_it_is_read() -> None:
    """The size is older than the content: short reads everywhere, and still answers."""
    for data in (samples.vhd(), samples.luks1(), vhdx().pread(1 << 19, 0), samples.cow3(), samples.vmdk()):
        for length in (0, 5, 70, 600, 4096):

            class Shrinking(Sparse):
                def pread(self, length: int, offset: int, limit: int = length) -> bytes:
                    return super().pread(length, offset)[: max(0, limit - offset)]

            info = as_format(Shrinking({0: data}, len(data)), "raw")
            assert info.format == "raw"


def test_a_disk_that_fails_in_the_middle() -> None:
    """The first page is read, what it points at is not."""

    class Late(Sparse):
        def pread(self, length: int, offset: int) -> bytes:
            if offset > 40_000:
                raise OSError(5, "Input/output error")
            return super().pread(length, offset)

    info = probe(Late({0: samples.vhd(offset=50_000)}, 100_000))
    assert (info.format, info.capacity, info.error) == ("vpc", None, "cannot be read: Input/output error")
    pinned = as_format(Late({0: samples.qcow2()}, 100_000), "dmg")
    assert (pinned.format, pinned.error) == ("dmg", "cannot be read: Input/output error")


def test_the_net_under_the_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a reader forget a check, its exception still stays inside."""

    def careless(reader: object, head: bytes, info: ImageInfo) -> None:
        info.capacity = 1 // len(head[:0])

    monkeypatch.setitem(formats._READERS, "qed", careless)
    info = probe(Sparse({0: samples.qed()}))
    assert (info.format, info.capacity, info.error) == ("qed", None, "malformed header (ZeroDivisionError)")


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="'q\\\\\\\\x1b' is not known"):
        as_format(Sparse({}), "q\x1b")
    for alias, name in (("parallels", "ploop"), ("vhd", "vpc"), ("fat", "fat")):
        assert as_format(Sparse({}, 512), alias).format == name


def test_rare_formats_are_loaded_when_they_turn_up() -> None:
    code = (
        "import sys, poolkit.formats as f; names = lambda: sorted(n for n in sys.modules if n.startswith('poolkit.formats.'))\n"
        "print(*names()); f.probe_fd(0, 5); print(*names())\n"
        "print(*[n for n in ('lxml', 'json', 'asyncio', 'subprocess', 'rich') if n in sys.modules])"
    )
    plain = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}  # it imports json
    argv = [sys.executable, "-c", code]
    with open(__file__, "rb") as file:
        done = subprocess.run(argv, stdin=file, capture_output=True, text=True, check=True, env=plain)
    first, second, heavy = done.stdout.split("\n")[:3]
    assert first == second == "poolkit.formats._info poolkit.formats.qcow2 poolkit.formats.raw"
    assert heavy == ""


def test_reader_of_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        reader = FdReader(file.fileno(), 10)
        assert (reader.size, reader.pread(4, 8), reader.pread(1, 20)) == (10, b"89", b"")
