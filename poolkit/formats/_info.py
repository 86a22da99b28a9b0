"""What a header says: the record that every format's reader fills, and the few helpers they share.

A reader module has ``read(reader, head, info)``: ``head`` holds the first 4 KiB (or the whole shorter file), ``info``
already names the format. It fills the record as far as it gets and raises ``Malformed`` at what stops it, so that the
facts read before stay known.
"""

from __future__ import annotations

import os

from poolkit.lean import Protocol
from poolkit.values import value

HEAD = 4096
"""Bytes of the first read: one page, in which every magic number that stands near the start has its place."""

MAX_SIZE = (1 << 63) - 1
"""The largest size a file offset can reach (``off_t``); a header that claims more is wrong."""


class Reader(Protocol):
    """Where headers come from: anything with a size in bytes and positioned reads that may come back short."""

    @property
    def size(self) -> int:
        """Bytes in the file or device."""

    def pread(self, length: int, offset: int) -> bytes:
        """At most ``length`` bytes from ``offset``; fewer at the end of the file."""


class FdReader:
    """Reads through an open descriptor that stays the caller's to close; ``size`` in bytes."""

    __slots__ = ("fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    def pread(self, length: int, offset: int) -> bytes:
        """At most ``length`` bytes from ``offset``; ``OSError`` as the kernel gives it."""
        if offset > MAX_SIZE:
            return b""  # a header's word: no file has anything there, and the kernel cannot be asked
        data = os.pread(self.fd, length, offset)
        while 0 < len(data) < length and offset + len(data) < self.size:
            more = os.pread(self.fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data


class Malformed(Exception):
    """A header that cannot be right. Never leaves this package: it becomes ``ImageInfo.error``."""


class UnknownFeature(Malformed):
    """A header that may be right for a newer program: ``ImageInfo.unsupported`` is set besides the error."""


@value()
class Backing:
    r"""The file an overlay stands on, as its header names it.

    ``raw`` is the name as stored. ``name`` is the same as text; where the bytes are no clean text, they show as
    ``\xNN`` and ``clean`` is false. ``kind`` is ``file``, ``protocol`` (``nbd://...``), ``json`` or ``uuid`` (a
    parent known by its identity only). ``format`` is None where the header does not say.
    """

    name: str
    raw: bytes
    kind: str = "file"
    format: str | None = None
    clean: bool = True


@value()
class Extent:
    """One line of a VMDK descriptor: ``size`` in bytes, ``file`` as cleaned text (None for ``ZERO``)."""

    access: str
    size: int
    type: str
    file: str | None = None
    offset: int = 0


@value()
class ImageInfo:
    """What the header of one file says. Nothing here is proven: a header is written by whoever wrote the image.

    ``format`` is a name libvirt uses, or ``vhdx`` or ``luks``, for which it has none. ``capacity`` is the size a
    guest sees in bytes, None where it cannot be known. ``also`` lists what else the same file could pass for;
    ``ambiguous`` is true when that is another image format: such a file is listed and never used unasked.
    ``hints`` is what raw content looks like (``mbr``, ``ext4``). ``tail`` tells that the format was recognised by the
    end of the file only, which a guest can write in a raw disk. ``error`` says what is wrong with the header;
    ``unsupported``, that it asks for features this program does not know. ``looks`` is the format that the content looks
    like where another one is on record.
    """

    format: str
    capacity: int | None = None
    backing: Backing | None = None
    data_file: str | None = None
    encryption: str | None = None
    compat: str | None = None
    cluster_size: int | None = None
    features: tuple[str, ...] = ()
    extents: tuple[Extent, ...] = ()
    also: tuple[str, ...] = ()
    ambiguous: bool = False
    hints: tuple[str, ...] = ()
    error: str | None = None
    unsupported: bool = False
    notes: tuple[str, ...] = ()
    subtype: str | None = None
    snapshots: int = 0
    tail: bool = False
    details: dict[str, int | str] | None = None
    looks: str | None = None

    @property
    def external(self) -> bool:
        """True when the image is not whole by itself: a backing or data file, or extents in other files."""
        return (
            self.backing is not None
            or self.data_file is not None
            or any(extent.file is not None for extent in self.extents)
        )

    @property
    def libvirt_format(self) -> str:
        """The name for a ``<format type=...>``: libvirt sees ``luks`` and ``vhdx`` as raw."""
        return "raw" if self.format in ("luks", "vhdx") else self.format

    @property
    def qemu_driver(self) -> str | None:
        """The name for ``qemu-img -f``; None for what QEMU cannot read."""
        return qemu_driver(self.format)

    def note(self, text: str) -> None:
        """Add a remark that is no error."""
        self.notes = (*self.notes, text)


def qemu_driver(format: str) -> str | None:
    """QEMU's driver for a format of ours; None where it has none (UML's cow)."""
    return {"ploop": "parallels", "iso": "raw", "cow": None, "vhd": "vpc"}.get(format, format)


def clean(data: bytes) -> str:
    r"""Bytes of a header as text fit for a terminal, XML and JSON: everything unprintable shows as ``\xNN``."""
    try:
        text = data.decode()
        if text.isprintable():
            return text
    except UnicodeDecodeError:
        text = data.decode(errors="surrogateescape")
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode(errors="surrogateescape"))


def backing(raw: bytes, format: str | None = None) -> Backing:
    """The record for a stored backing name; the kind is told as QEMU tells it (a colon before the first slash)."""
    try:
        name = raw.decode()
        exact = name.isprintable()
    except UnicodeDecodeError:
        name, exact = "", False
    entry = Backing(name if exact else clean(raw), raw, "file", format, exact)
    if b":" in raw and b"/" not in raw[: raw.index(b":")]:
        entry.kind = "json" if raw.startswith(b"json:") else "protocol"
    return entry


def size_of(value: int, what: str = "virtual size") -> int:
    """``value`` when it can be the size of a file, in bytes."""
    if not 0 <= value <= MAX_SIZE:
        raise Malformed(f"{what} {value} is beyond what any file can hold")
    return value


def need(data: bytes, length: int, what: str = "header") -> None:
    """Raise unless ``data`` has ``length`` bytes."""
    if len(data) < length:
        raise Malformed(f"truncated: the {what} needs {length} bytes, {len(data)} are there")


def fetch(reader: Reader, head: bytes, length: int, offset: int) -> bytes:
    """``length`` bytes at ``offset``, out of ``head`` when they are there; shorter past the end of the file."""
    end = offset + length
    if end <= len(head):
        return head[offset:end]
    if offset >= reader.size:
        return b""
    return reader.pread(min(length, reader.size - offset), offset)


def cstring(data: bytes) -> str:
    """A NUL-terminated text field, cleaned."""
    return clean(data.partition(b"\0")[0])


def uuid_text(data: bytes) -> str:
    """A GUID as Microsoft and VirtualBox store it (three little-endian fields, then eight bytes) in its usual form."""
    first, second, third = data[3::-1], data[5:3:-1], data[7:5:-1]
    return "-".join(part.hex() for part in (first, second, third, data[8:10], data[10:16]))
