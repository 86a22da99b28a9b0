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
        pieces = [input] if input else []
        return lambda: pieces.pop() if pieces else b""
    if stdin is None or isinstance(stdin, int):
        return None
    total = streams.remaining(stdin) or 0
    read = streams.reader(host, stdin)
    buffer = memoryview(bytearray(_PIECE))
    done = 0

    def piece() -> bytes:
        nonlocal done
        count = read(buffer)
        done += count
        host.progress(done, max(total, done))
        return bytes(buffer[:count])

    return piece


def drain(host: Host, stdout: BinaryIO) -> Drain:
    """What takes a program's output and puts it into a stream."""
    return lambda data: streams.put(host, stdout, data)


def words(fd: int, most: int = 1 << 16) -> bytes:
    """The end of what a program has said into a file."""
    size = os.fstat(fd).st_size
    return os.pread(fd, most, max(size - most, 0))
