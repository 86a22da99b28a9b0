"""What applies of a folder have made, so that what is taken out of the folder can be told from what others made.

One file for each folder, ``applied/KEY.jsonl`` in the folder of the state; definitions and storage carry no mark. It is a
journal: a line for each thing that was made or is gone, appended and flushed to the disk before the work goes on. A line that
a crash cut short is the last one, and none.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from poolkit import errors
from poolkit.host import libc, private
from poolkit.host.descriptors import sync_directory, write_all

if TYPE_CHECKING:
    from poolkit.backend import Backend, VolumeInfo
    from poolkit.engine.core import Core

_LARGEST = 64 << 20  # bytes; a hundred thousand volumes have 15 MiB
_SPARE = 256  # lines that say nothing any more, before the journal is written anew


class Mark(NamedTuple):
    """One thing that was made: ``uuid`` is that of the pool, which another one of the same name does not have.

    ``key`` is that of a volume, see :func:`key_of`, or of a flavor, see :func:`digest`.
    """

    kind: str
    name: str
    pool: str | None = None
    uuid: str = ""
    key: str = ""


def key_of(backend: Backend, info: VolumeInfo, path: str) -> str:
    """What a mark keeps of a volume at ``path``: another one that is made under its name later has another.

    Of a file that is the inode number, and when it was made where its file system tells that: a number is given again, a time
    is not. A file on a server that may not answer is not asked for its time.
    """
    born = 0
    if backend.file_backed and not backend.may_hang:
        with suppress(OSError):
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                born = libc.birth(fd) if os.fstat(fd).st_ino == info.inode else 0
            finally:
                os.close(fd)
    return f"{backend.identity(info)} {info.inode} {born}"


def digest(definition: Any) -> str:
    """What a mark keeps of a flavor: one that others have changed has another. Empty for None."""
    import hashlib

    from poolkit import xmlmap

    return "" if definition is None else hashlib.sha256(xmlmap.write(definition).encode()).hexdigest()[:32]


class Marks:
    """The marks of one folder; safe in threads, and beside other processes that apply the same folder."""

    def __init__(self, core: Core, folder: str) -> None:
        import hashlib

        self._core = core
        self._folder = folder
        self._directory = f"{core.locations.state}/applied"
        name = hashlib.sha256(folder.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self.path = f"{self._directory}/{name}.jsonl"
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._made: dict[tuple[str, str, str | None], Mark] = {}
        self._lines = self._whole = 0
        self._torn = False
        try:
            private.check(self._directory)
            with open(private.open_ours(self.path), "rb") as file:
                self._take(file.read(_LARGEST))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise errors.from_os_error(error, f"read '{self.path}'") from error

    def __iter__(self) -> Iterator[Mark]:
        return iter(sorted(self._made.values(), key=lambda mark: (mark.kind, mark.name, mark.pool or "")))

    def __enter__(self) -> Marks:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def get(self, kind: str, name: str, pool: str | None) -> Mark | None:
        """The mark of a thing, None if it has none."""
        return self._made.get((kind, name, pool))

    def add(self, mark: Mark) -> None:
        """Remember, durably, that this was made; repeatable."""
        if self._made.get(mark[:3]) != mark:
            self._append(["made", *mark])
            self._made[mark[:3]] = mark

    def drop(self, kind: str, name: str, pool: str | None) -> None:
        """Forget what is gone."""
        if (kind, name, pool) in self._made:
            self._append(["gone", kind, name, pool])
            self._made.pop((kind, name, pool), None)

    def _take(self, data: bytes) -> None:
        lines = data.split(b"\n")
        self._whole = len(data) - len(lines[-1])
        self._torn = bool(lines.pop())
        self._lines = len(lines)
        for number, line in enumerate(lines, 1):
            try:
                match json.loads(line):
                    case ["made", str(kind), str(name), str() | None as pool, str(uuid), str(key)]:
                        self._made[kind, name, pool] = Mark(kind, name, pool, uuid, key)
                    case ["gone", str(kind), str(name), str() | None as pool]:
                        self._made.pop((kind, name, pool), None)
                    case ["folder", str()]:
                        pass
                    case other:
                        raise ValueError(f"not the mark of anything: {other!r:.60}")
            except (ValueError, RecursionError) as error:
                raise errors.HostError(
                    f"'{self.path}', which tells what was made of '{self._folder}', is damaged in line {number}: {error}",
                    hint="without that file nothing of the folder is pruned until it is applied anew: remove it",
                ) from error

    def _append(self, line: list[str | None]) -> None:
        files = self._core.host.operation().files
        with self._lock:
            try:
                if self._fd is None:
                    self._fd = self._open()
                files.fault("append a mark")
                _append(self._fd, _text(line))
                files.fault("fsync the marks")
                os.fsync(self._fd)
            except OSError as error:
                raise errors.from_os_error(error, f"write '{self.path}'") from error

    def _open(self) -> int:
        """The journal, to append to it: shared, so that no other process writes it anew meanwhile."""
        private.check(self._directory)
        while True:
            fresh = not os.path.lexists(self.path)
            if not fresh:
                os.close(private.open_ours(self.path))
            fd = private.open_private(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            try:
                self._tidy(fd)
                fcntl.flock(fd, fcntl.LOCK_SH)
                if os.path.exists(self.path) and os.path.samestat(os.fstat(fd), os.stat(self.path)):
                    if fresh:
                        sync_directory(self._directory)
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # another process has written it anew

    def _tidy(self, fd: int) -> None:
        """Cut a torn line off, and write anew what is mostly of the past; only if nobody else appends."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        self._made.clear()
        self._take(os.pread(fd, _LARGEST, 0))  # others may have appended since it was read
        if not self._lines:
            os.ftruncate(fd, 0)
            _append(fd, _text(["folder", self._folder]))
        elif self._lines > 2 * len(self._made) + _SPARE:
            lines: list[list[str | None]] = [["folder", self._folder], *(["made", *mark] for mark in self)]
            self._core.host.operation().files.write(self.path, b"".join(map(_text, lines)), 0o600)
            self._lines = len(lines)
        elif self._torn:
            os.ftruncate(fd, self._whole)


def _text(line: Sequence[str | None]) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _append(fd: int, line: bytes) -> None:
    """A whole line or nothing."""
    before = os.fstat(fd).st_size
    try:
        write_all(fd, line)
    except BaseException:
        with suppress(OSError):
            if before < os.fstat(fd).st_size < before + len(line):  # nobody else has appended since
                os.ftruncate(fd, before)
        raise
