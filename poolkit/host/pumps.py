"""What goes into a program and what comes out of it, where that is more than a few lines: streams of callers, with progress."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from poolkit.host import streams

if TYPE_CHECKING:  # the port runs programs with these, and hands itself over
    from poolkit.host.port import Host
    from poolkit.host.programs import Drain, Feed

_PIECE = 1 << 16  # bytes; what a pipe holds (pipe(7))


def feed(host: Host, stdin: int | BinaryIO | None, input: bytes | None) -> Feed | None:
    """What gives a program its input piece by piece; None for one that has none, or a descriptor of its own."""
    if input is not None:
        return _Given(input)
    if stdin is None or isinstance(stdin, int):
        return None
    fd = streams.descriptor(stdin)
    return _Streamed(host, stdin) if fd is None or not streams.stalls(fd) else _Waiting(host, stdin, fd)


class _Given:
    """Bytes that are there."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def source(self) -> None:
        """Nothing is waited for."""

    def piece(self) -> bytes:
        """All of it, once."""
        data, self.data = self.data, b""
        return data


class _Streamed:
    """A file, or a stream that has no descriptor to wait for."""

    def __init__(self, host: Host, stream: BinaryIO) -> None:
        self.host = host
        self.total = streams.remaining(stream) or 0
        self.read = streams.reader(host, stream)
        self.buffer = memoryview(bytearray(_PIECE))
        self.done = 0

    def source(self) -> None:
        """Nothing can be waited for."""

    def piece(self) -> bytes:
        """As much as a pipe holds."""
        count = self.read(self.buffer)
        self.done += count
        self.host.progress(self.done, max(self.total, self.done))
        return bytes(self.buffer[:count])


class _Waiting:
    """A pipe, socket or terminal, which gives what is there."""

    def __init__(self, host: Host, stream: BinaryIO, fd: int) -> None:
        self.host = host
        self.fd = fd
        self.held = streams.read_ahead(stream, fd)
        self.done = 0

    def source(self) -> int | None:
        """Its descriptor, when what the stream had read ahead is used up."""
        return None if self.held else self.fd

    def piece(self) -> bytes | None:
        """What is there."""
        data, self.held = self.held, b""
        try:
            data = data or os.read(self.fd, _PIECE)
        except BlockingIOError:
            return None  # it does not block, and somebody else was faster
        self.done += len(data)
        self.host.progress(self.done, self.done)
        return data


def drain(host: Host, stdout: BinaryIO) -> Drain:
    """What takes a program's output and puts it into a stream."""
    return lambda data: streams.put(host, stdout, data)


def words(fd: int, most: int = 1 << 16) -> bytes:
    """The end of what a program has said into a file."""
    size = os.fstat(fd).st_size
    return os.pread(fd, most, max(size - most, 0))
