"""Images from outside of all pools: read from a file, a stream or a server into a file that nobody else can reach.

What is looked at, summed and copied is then the same bytes, whatever happens to where they came from; and when this process
dies nothing of them is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from poolkit import errors
from poolkit.backend import Transfer
from poolkit.content import copying, images
from poolkit.formats import FORMATS, FdReader, ImageInfo, as_format, probe
from poolkit.host import streams, web
from poolkit.host.port import Host

_SUMS = {"sha256": 64, "sha512": 128}  # hexadecimal digits
_PACKED = {
    b"\x1f\x8b": ("gzip", "gzip -dc"), b"\xfd7zXZ\0": ("xz", "xz -dc"), b"BZh": ("bzip2", "bzip2 -dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dc"), b"PK\x03\x04": ("zip", "unzip -p"), b"\x04\x22\x4d\x18": ("lz4", "lz4 -dc"),
}  # fmt: skip
"""The first bytes of packed files, with the program that unpacks each to standard output."""


class Checksum(NamedTuple):
    """What the bytes of an image must add up to."""

    kind: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """``sha256:HEX`` or ``sha512:HEX``; ``InvalidArgument``."""
        kind, _, value = text.strip().partition(":")
        kind, value = kind.lower(), value.strip().lower()
        if kind not in _SUMS or not re.fullmatch(f"[0-9a-f]{{{_SUMS.get(kind, 0)}}}", value):
            raise errors.InvalidArgument(
                "the checksum is not of the form sha256:HEX or sha512:HEX, with 64 or 128 hexadecimal digits"
            )
        return cls(kind, value)


class _Summed:
    """A stream whose bytes are summed as they pass."""

    def __init__(self, host: Host, stream: BinaryIO, sum: Any) -> None:
        self._read = streams.reader(host, stream)
        self._sum = sum

    def readinto(self, view: memoryview) -> int:
        count = self._read(view)
        if self._sum is not None:
            self._sum.update(view[:count])
        return count


@contextlib.contextmanager
def local(path: str) -> Iterator[tuple[int, bool]]:
    """A descriptor of a file that the caller named, and whether it is a file or block device, which can be read in place."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise errors.from_os_error(error, f"read '{errors.shown(path)}'") from error
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise errors.InvalidArgument(f"'{errors.shown(path)}' is a directory, and not an image")
        yield fd, stat.S_ISREG(mode) or stat.S_ISBLK(mode)
    finally:
        os.close(fd)


def fetch(host: Host, url: str, fd: int, checksum: Checksum | None) -> None:
    """Read the file of a server into the open empty file ``fd``; an early end is an error."""
    with web.opened(url) as body:
        if body.length is not None:
            copying.require_space(fd, body.length)
        elif not body.framed and checksum is None:
            host.warn(
                f"'{body.shown}': the server does not say how long it is, so nobody can tell whether all of it came"
            )
        with web.worded(url):
            take(host, body.stream, fd, checksum, length=body.length or 0)


def take(host: Host, stream: BinaryIO, fd: int, checksum: Checksum | None, *, length: int = 0) -> None:
    """Read a stream to its end into the open empty file ``fd``, with holes for zeros; ``length`` is what it has, if known."""
    sum = hashlib.new(checksum.kind) if checksum is not None else None
    source: Any = _Summed(host, stream, sum)
    copying.upload(host, fd, source, Transfer(length=length, sparse=True), None)
    if sum is not None and checksum is not None:
        _compare(sum.hexdigest(), checksum)


def copy(host: Host, source: int, fd: int, checksum: Checksum | None, what: str) -> None:
    """Copy an open file or device into the open empty file ``fd``; what has been copied is summed."""
    size = copying.size_of(source)
    with copying.unchanged(source, what):
        copying.duplicate(host, source, fd, size)
        os.ftruncate(fd, size)
    if checksum is not None:
        verify(host, fd, checksum)


def verify(host: Host, fd: int, checksum: Checksum) -> None:
    """``Unsafe`` unless the bytes of an open file add up to ``checksum``."""
    sum, position, size = hashlib.new(checksum.kind), 0, copying.size_of(fd)
    while data := os.pread(fd, 1 << 20, position):
        sum.update(data)
        position += len(data)
        host.progress(position, size, "checksum")
    _compare(sum.hexdigest(), checksum)


def _compare(found: str, checksum: Checksum) -> None:
    if not hmac.compare_digest(found, checksum.value):
        raise errors.Unsafe(
            f"the {checksum.kind} checksum is {found}, and not {checksum.value}; nothing was kept",
            hint="it is another file than was meant, or was changed on the way",
        )


def judge(host: Host, fd: int, what: str, format: str | None) -> ImageInfo:
    """What an open image is: what its header says, or the ``format`` that the caller says it has.

    ``Unsafe`` for one that is ambiguous, damaged, cut short or needs other files, ``InvalidArgument`` for one that is empty or
    packed.
    """
    size = copying.size_of(fd)
    if not size:
        raise errors.InvalidArgument(f"{what} is empty")
    if format is not None and format not in FORMATS:
        raise errors.InvalidArgument(f"'{format[:60]}' is no format of an image", hint=f"one of: {', '.join(FORMATS)}")
    image = probe(FdReader(fd, size)) if format is None else as_format(FdReader(fd, size), format)
    if format is None and image.ambiguous:
        raise errors.Unsafe(
            f"{what} passes for {image.format} and for {', '.join(image.also)}",
            hint=errors.Hint("say which one it is: ", errors.Option("source-format", ..., "source_format")),
        )
    if format is None and image.format == "raw":
        _refuse_packed(os.pread(fd, 8, 0), what)
    try:
        return images.examine(host, fd, size, image.format, what, backing=False)
    except errors.Unsafe as error:
        if image.backing is not None:
            error.hint = (
                "import what it stands on first, or an image that stands on nothing (qemu-img convert makes one)"
            )
        raise


def _refuse_packed(head: bytes, what: str) -> None:
    for mark, (name, program) in _PACKED.items():
        if head.startswith(mark):
            raise errors.InvalidArgument(
                f"{what} is packed with {name}: a machine could not read it",
                hint=errors.Hint(
                    f"unpack it first, such as with '{program} FILE', whose output can be imported as it comes; or, if the "
                    "disk itself begins so, add ",
                    errors.Option("source-format", "raw", "source_format"),
                ),
            )
