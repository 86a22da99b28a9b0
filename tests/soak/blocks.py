"""A disk of which every write and every flush is kept in order, so that it can be had as a power failure would have left it.

The disk is one file of a FUSE file system (the kernel's protocol, include/uapi/linux/fuse.h) behind a loop device. What was
written before the last flush is on the disk; of what was written after it a power failure may take back any part.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

from tests.backends.loops import sh

BLOCK = 4096
_libc = ctypes.CDLL(None, use_errno=True)
_GETATTR, _OPEN, _READ, _WRITE, _STATFS, _RELEASE, _FSYNC, _FLUSH, _INIT = 3, 14, 15, 16, 17, 18, 20, 25, 26
_FORGET, _INTERRUPT, _DESTROY, _BATCH_FORGET = 2, 36, 38, 42
_SILENT = (_FORGET, _INTERRUPT, _BATCH_FORGET)
_LARGEST = 128 << 10  # bytes of one write: 32 pages, which need not be asked for
_DETACH = 2  # linux/fs.h, MNT_DETACH
_RECORD = struct.Struct("<QI")  # of the log: offset and length; the length 0 is a flush


class Recorded:
    """A disk of ``size`` bytes at the path ``file``, as long as the body of ``with`` lasts; what happens to it is in ``log``."""

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self.file, self.log = folder / "recorded", folder / "recorded.log"
        self._data = folder / "recorded.data"
        self._child = 0

    def __enter__(self) -> Recorded:
        for path in (self.file, self.log, self._data):
            path.write_bytes(b"")
        os.truncate(self._data, self.size)
        fd = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={fd},rootmode=100600,user_id=0,group_id=0"
        self._child = os.fork()
        if not self._child:
            try:
                self._mounted(fd, options)
                self._serve(fd)
            finally:
                os._exit(0)
        os.close(fd)
        while not os.path.ismount(self.file):
            assert os.waitpid(self._child, os.WNOHANG)[0] == 0, "the FUSE file system could not be mounted"
        return self

    def __exit__(self, *_: object) -> None:
        _libc.umount2(os.fsencode(self.file), _DETACH)
        os.waitpid(self._child, 0)

    def position(self) -> int:
        """How much of the log there is now."""
        return self.log.stat().st_size

    def _mounted(self, fd: int, options: str) -> None:
        if _libc.mount(b"recorded", os.fsencode(self.file), b"fuse", 6, options.encode()):  # 6: MS_NOSUID | MS_NODEV
            raise OSError(ctypes.get_errno(), "mount")

    def _serve(self, fd: int) -> None:
        data = os.open(self._data, os.O_RDWR)
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        while True:
            try:
                asked = os.read(fd, _LARGEST + BLOCK)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return  # ENODEV: it is unmounted
            _, operation, unique = struct.unpack_from("<IIQ", asked)
            if operation in _SILENT:
                continue
            answer, failed = self._answer(operation, memoryview(asked)[40:], data, log)
            with contextlib.suppress(FileNotFoundError):  # who asked was interrupted
                os.write(fd, struct.pack("<IiQ", 16 + len(answer), -failed, unique) + answer)
            if operation == _DESTROY:
                return

    def _answer(self, operation: int, body: memoryview, data: int, log: int) -> tuple[bytes, int]:
        """What is answered, and the errno."""
        if operation == _INIT:
            # major, minor, read ahead, flags (big writes), background and congestion, largest write, grain of times, and zeros
            return struct.pack("<IIIIHHII36x", 7, 31, 0, 1 << 5, 12, 9, _LARGEST, 1), 0
        if operation == _GETATTR:
            facts = struct.pack(
                "<6Q10I", 1, self.size, self.size // 512, 0, 0, 0, 0, 0, 0, 0o100600, 1, 0, 0, 0, BLOCK, 0
            )
            return struct.pack("<QII", 3600, 0, 0) + facts, 0
        if operation == _OPEN:
            return struct.pack("<QII", 0, 1, 0), 0  # 1: FOPEN_DIRECT_IO, nothing waits in a cache
        if operation == _READ:
            _, offset, length = struct.unpack_from("<QQI", body)
            return os.pread(data, length, offset), 0
        if operation == _WRITE:
            _, offset, length = struct.unpack_from("<QQI", body)
            written = body[40 : 40 + length]
            os.write(log, _RECORD.pack(offset, length) + bytes(written))
            os.pwrite(data, written, offset)
            return struct.pack("<II", length, 0), 0
        if operation == _FSYNC:
            os.write(log, _RECORD.pack(0, 0))
            return b"", 0
        if operation == _STATFS:
            return struct.pack("<5Q3I28x", 1 << 20, 1 << 20, 1 << 20, 1, 1, BLOCK, 255, BLOCK), 0
        if operation in (_FLUSH, _RELEASE, _DESTROY):
            return b"", 0
        return b"", errno.ENOSYS


class Crashes:
    """Gives disks as a power failure at some position of a log would have left them; positions may only grow."""

    def __init__(self, log: Path, size: int) -> None:
        self._records = list(_read(log))
        self._size = size
        self._next = 0
        self._durable: dict[int, bytes] = {}

    def at(self, position: int, chance: random.Random, made: Path) -> int:
        """Make the file ``made`` the disk after a failure at ``position``; returns how many writes were in doubt."""
        end = next((n for n, record in enumerate(self._records) if record[0] >= position), len(self._records))
        flushed = max((n for n in range(self._next, end) if not self._records[n][2]), default=self._next)
        for _, offset, data in self._records[self._next : flushed]:
            _put(self._durable, offset, data)
        self._next = flushed
        doubtful = [record for record in self._records[flushed:end] if record[2]]
        blocks = dict(self._durable)
        kept = chance.choice((0.0, 0.5, 0.5, 0.9, 1.0))
        for _, offset, data in doubtful:
            if chance.random() < kept:
                _put(blocks, offset, data)
        with made.open("wb") as file:
            file.truncate(self._size)
            for number, data in blocks.items():
                file.seek(number * BLOCK)
                file.write(data)
        return len(doubtful)


def _read(log: Path) -> Iterator[tuple[int, int, bytes]]:
    """The records of a log: where each ends, offset and data; no data is a flush."""
    data = log.read_bytes()
    at = 0
    while at < len(data):
        offset, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size + length
        yield at, offset, data[at - length : at]


def _put(blocks: dict[int, bytes], offset: int, data: bytes) -> None:
    """Write into a disk of blocks."""
    while data:
        number, begin = divmod(offset, BLOCK)
        piece = data[: BLOCK - begin]
        old = blocks.get(number, bytes(BLOCK))
        blocks[number] = piece if len(piece) == BLOCK else old[:begin] + piece + old[begin + len(piece) :]
        data, offset = data[len(piece) :], offset + len(piece)


@contextlib.contextmanager
def attached(file: Path) -> Iterator[str]:
    """A loop device for a file."""
    device = sh("losetup", "--find", "--show", str(file)).strip()
    try:
        yield device
    finally:
        sh("losetup", "--detach", device, check=False)


@contextlib.contextmanager
def mounted(device: str, place: Path) -> Iterator[None]:
    """A mounted file system. What another process still sees of the last one must not be in the way of a copy (xfs)."""
    # Without --probe it answers by its cache for two seconds: with what was on another disk of the same loop device.
    kind = sh("blkid", "--probe", "--output", "value", "--match-tag", "TYPE", device, check=False).strip()
    sh("mount", *(("-o", "nouuid") if kind == "xfs" else ()), device, str(place))
    try:
        yield
    finally:
        sh("umount", str(place))
