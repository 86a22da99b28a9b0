"""Whole reads and writes: the kernel may move less than it was asked to, and says so only in what it returns.

A disk that is nearly full, a limit on the size of files, a signal, more than 2 GiB at once: all end in a short count and no
error. Nothing else in poolkit calls write(2) or pwrite(2).
"""

from __future__ import annotations

import _thread
import os

from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


Bytes = bytes | bytearray | memoryview


def write_some(fd: int, data: Bytes) -> int:
    """Write what goes at once and return how many bytes that was: for a pipe that may be full. The caller sends the rest."""
    return os.write(fd, data)


def write_all(fd: int, data: Bytes) -> None:
    """Write all of ``data`` at the descriptor's position. Raises ``OSError``; a part of it may be written then."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]


def write_at(fd: int, data: Bytes, offset: int) -> None:
    """Write all of ``data`` from byte ``offset`` on. Raises ``OSError``; a part of it may be written then."""
    view = memoryview(data).cast("B")
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count


def read_at(fd: int, length: int, offset: int) -> bytes:
    """``length`` bytes from byte ``offset`` on; fewer only where the file or device ends. Raises ``OSError``."""
    data = os.pread(fd, length, offset)
    while 0 < len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def sync_directory(path: str) -> None:
    """fsync a directory, so that its entries survive a power failure."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def begin_sync(fd: int) -> Callable[[], None]:
    """Begin to bring an open file to the disk. What is returned must be called before the descriptor is closed: it waits for the
    end, whatever interrupts it, and raises the ``OSError``.
    """
    ended = _thread.allocate_lock()
    failed: list[OSError] = []

    def sync() -> None:
        try:
            os.fsync(fd)
        except OSError as error:
            failed.append(error)
        finally:
            ended.release()

    ended.acquire()
    try:
        _thread.start_new_thread(sync, ())  # and not a Thread of threading's, whose start waits for its first step
    except RuntimeError:  # this user may have no more threads
        sync()

    def wait() -> None:
        interrupted: BaseException | None = None
        while ended.locked():
            try:
                with ended:
                    break
            except BaseException as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted
        if failed:
            raise failed[0]

    return wait


def blank(data: bytes) -> bool:
    """Whether all bytes are zero."""
    return data == bytes(len(data))  # as fast as memory is, where looking for the first other byte is not
