"""Streams of callers: pipes, sockets and terminals that may stall are waited for in short turns, so that an abort is seen.

Only a stream that is nothing but a descriptor is used as one. Others (compressed files, for instance, which lend the
descriptor below them) are read and written through their methods, and an abort takes effect between two calls.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import stat
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from poolkit.host.descriptors import Bytes, write_all, write_some

_TURN = 250  # milliseconds between two looks at the abort switch, as often as while a program runs
_ATOMIC = 4096  # PIPE_BUF of Linux, pipe(7): as much goes without blocking wherever poll(2) says that something does
_PIECE = 1 << 20
_BUFFERED = (io.BufferedReader, io.BufferedWriter, io.BufferedRandom)
_CANNOT = frozenset((errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF))


class Abortable(Protocol):
    """What can be told to stop."""

    def check_abort(self) -> None:
        """Raise ``Aborted`` if that has happened."""


Read = Callable[[memoryview], int]
"""Fills a buffer as far as the stream goes and says how far that was."""

Send = Callable[[int, int, int], int]
"""Sends some bytes of a descriptor, from an offset, at most so many; says how many, 0 at the end of the file."""


def descriptor(stream: BinaryIO) -> int | None:
    """The descriptor of a stream whose bytes are those of the descriptor; None for any other."""
    inner: Any = getattr(stream, "file", stream)  # tempfile's wrappers
    raw = inner.raw if type(inner) in _BUFFERED else inner
    return raw.fileno() if type(raw) is io.FileIO and not raw.closed else None


def remaining(stream: BinaryIO) -> int | None:
    """Bytes from here to the end of a regular file; None for any other stream."""
    fd = descriptor(stream)
    if fd is None or not stat.S_ISREG(os.fstat(fd).st_mode):
        return None
    return max(os.fstat(fd).st_size - stream.tell(), 0)


def stalls(fd: int) -> bool:
    """Whether a read or write may wait for somebody else: not so for regular files and block devices."""
    mode = os.fstat(fd).st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISBLK(mode))


def wait(host: Abortable, fd: int, event: int) -> None:
    """Wait until ``fd`` is ready or has failed; ``Aborted`` if the caller asked to stop."""
    poll = select.poll()
    poll.register(fd, event)
    host.check_abort()
    while not poll.poll(_TURN):
        host.check_abort()


def reader(host: Abortable, stream: BinaryIO) -> Read:
    """How to fill buffers from ``stream``. A pipe gives what is there; whole blocks make holes and progress regular."""
    fd = descriptor(stream)
    if fd is not None and stalls(fd):
        return _waiting(host, stream, fd)
    into = getattr(stream, "readinto", None)
    if into is None:

        def into(view: memoryview) -> int:
            data = stream.read(len(view))
            view[: len(data)] = data
            return len(data)

    def fill(view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            host.check_abort()
            count = into(view[filled:])
            if not count:
                break
            filled += count
        return filled

    return fill


def _waiting(host: Abortable, stream: BinaryIO, fd: int) -> Read:
    held = memoryview(read_ahead(stream, fd))

    def fill(view: memoryview) -> int:
        nonlocal held
        filled = min(len(held), len(view))
        view[:filled], held = held[:filled], held[filled:]
        while filled < len(view):
            wait(host, fd, select.POLLIN)
            try:
                count = os.readv(fd, [view[filled:]])
            except BlockingIOError:
                continue  # it does not block, and somebody else was faster
            if not count:
                break
            filled += count
        return filled

    return fill


def read_ahead(stream: BinaryIO, fd: int) -> bytes:
    """What a buffered stream has taken from its descriptor already, without waiting for more."""
    inner = getattr(stream, "file", stream)
    if type(inner) is not io.BufferedReader:
        return b""
    # peek() reads when there is nothing in the buffer, and nothing else tells how much is there.
    blocking = os.get_blocking(fd)
    os.set_blocking(fd, False)
    try:
        data = inner.peek(1)
    finally:
        os.set_blocking(fd, blocking)
    return inner.read(len(data)) if data else b""


def sender(host: Abortable, stream: BinaryIO) -> Send:
    """How to send bytes of a file to ``stream``: within the kernel where that can be."""
    out = descriptor(stream)
    if out is None:
        return lambda fd, position, length: _through(stream, fd, position, length)
    stream.flush()
    if not stalls(out):
        return _trying(lambda fd, position, length: os.sendfile(out, fd, position, length), _copier(out))
    pieces = _waiting_copier(host, out)
    if not stat.S_ISFIFO(os.fstat(out).st_mode):
        return pieces

    def splice(fd: int, position: int, length: int) -> int:
        while True:
            host.check_abort()
            try:
                return os.splice(fd, out, length, offset_src=position, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                wait(host, out, select.POLLOUT)

    return _trying(splice, pieces)


def _trying(first: Send, second: Send) -> Send:
    """``first`` until it says that it cannot do that here, then ``second``."""
    able = True

    def send(fd: int, position: int, length: int) -> int:
        nonlocal able
        if able:
            try:
                return first(fd, position, length)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                able = False
        return second(fd, position, length)

    return send


def _copier(out: int) -> Send:
    def send(fd: int, position: int, length: int) -> int:
        data = os.pread(fd, min(_PIECE, length), position)
        write_all(out, data)
        return len(data)

    return send


def _waiting_copier(host: Abortable, out: int) -> Send:
    def send(fd: int, position: int, length: int) -> int:
        data = os.pread(fd, min(_ATOMIC, length), position)
        _write_waiting(host, out, data)
        return len(data)

    return send


def _write_waiting(host: Abortable, out: int, data: Bytes) -> None:
    left = memoryview(data)
    while left:
        wait(host, out, select.POLLOUT)
        with contextlib.suppress(BlockingIOError):
            left = left[write_some(out, left[:_ATOMIC]) :]


def _through(stream: BinaryIO, fd: int, position: int, length: int) -> int:
    data = os.pread(fd, min(_PIECE, length), position)
    _put(stream, data)
    return len(data)


def put(host: Abortable, stream: BinaryIO, data: Bytes) -> None:
    """Write all of ``data`` to ``stream``, waiting for one that stalls. ``Aborted`` if the caller asked to stop meanwhile."""
    out = descriptor(stream)
    if out is None or not stalls(out):
        _put(stream, data)
    else:
        stream.flush()
        _write_waiting(host, out, data)


def _put(stream: BinaryIO, data: Bytes) -> None:
    # A stream without a buffer may take less at a time, as write(2) does; one that says nothing took all.
    view = memoryview(data)
    while view:
        count = stream.write(view)
        view = view[len(view) if count is None else count :]
