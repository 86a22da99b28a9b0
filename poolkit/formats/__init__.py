"""Image formats: what a file or block device holds, told from a few bounded reads of its own bytes.

``probe`` and ``probe_fd`` guess; ``as_format`` reads a header as the format on record and never guesses; ``content``
lists every partition table and file system it recognises; ``describe`` answers for a path. None of them opens another
file, follows a name found in a header, or raises for what a header contains: that becomes ``ImageInfo.error``.
"""

from __future__ import annotations

from contextlib import suppress
from os import POSIX_FADV_RANDOM, POSIX_FADV_WILLNEED, posix_fadvise, pread
from struct import error as StructError

from poolkit import lean
from poolkit.errors import InvalidArgument
from poolkit.formats import qcow2, raw
from poolkit.formats._info import (
    HEAD,
    Backing,
    Extent,
    FdReader,
    ImageInfo,
    Malformed,
    Reader,
    UnknownFeature,
    clean,
    qemu_driver,
)
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "FORMATS",
    "UNREADABLE",
    "Backing",
    "Extent",
    "FdReader",
    "ImageInfo",
    "Reader",
    "as_format",
    "check",
    "clean",
    "content",
    "describe",
    "listed",
    "probe",
    "probe_fd",
    "qemu_driver",
    "read_as",
]

FORMATS = (
    "raw", "bochs", "cloop", "cow", "dmg", "iso", "luks", "ploop", "qcow", "qcow2", "qed", "vdi", "vhdx", "vmdk", "vpc",
)  # fmt: skip
"""Every format that has a reader here, by the name ``ImageInfo.format`` uses."""


def read_as(format: str) -> str:
    """The format that a volume's bytes are read as: the type of a partition, or no format, says nothing of them."""
    return format if format in FORMATS else "raw"


_MODULES = {"ploop": "parallels"}
_WALKS = {"ploop": "parallels", "qcow2": "qcow2tables"}  # the modules that know the tables, where they are others
_ALIASES = {"parallels": "ploop", "vhd": "vpc", "luks1": "luks", "luks2": "luks"}
_TABLES = frozenset(FORMATS) - {
    "raw",
    "iso",
    "luks",
    "dmg",
}  # the others are whole when what stands at their end is there
_CONTENT_ONLY = ("fat", "none", "dir", "unknown")  # libvirt's names for what is read as raw bytes

_READERS: dict[str, Callable[[Reader, bytes, ImageInfo], None]] = {"qcow2": qcow2.read, "raw": raw.read}

START = 1024
"""Bytes of a file that say whether it is worth more of a look: less is copied than of the 4 KiB that any image needs."""

_ZERO = bytes(HEAD)
_BLANK = bytes(5)
_QFI = b"QFI\xfb"
QCOW2_V3 = b"QFI\xfb\0\0\0\3"
"""What nearly every image that is not raw starts with."""

_ENDS = frozenset((b"cone", b"koly"))
_DISCS = frozenset((b"CD001", b"BEA01"))
_TEXT = frozenset((b"#", b" ", b"v"))  # how a VMDK descriptor, which is text, can begin
_VDI = b"\x7f\x10\xda\xbe"
_BY_MAGIC: dict[bytes, tuple[str, bytes | tuple[bytes, ...]]] = {
    b"QED\0": ("qed", b"QED\0"),
    b"KDMV": ("vmdk", b"KDMV"),
    b"COWD": ("vmdk", b"COWD"),
    b"\xbe\xba\xfe\xca": ("vmdk", b"\xbe\xba\xfe\xca\0\0\0\0\1\0\0\0\2\0\0\0"),
    b"cone": ("vpc", b"conectix"),
    b"vhdx": ("vhdx", b"vhdxfile"),
    b"LUKS": ("luks", b"LUKS\xba\xbe"),
    b"Boch": ("bochs", b"Bochs Virtual HD Image\0"),
    b"\xce\x8a\x46\x02": ("bochs", b"\xce\x8a\x46\x02"),
    b"OOOM": ("cow", b"OOOM"),
    b"With": ("ploop", (b"WithoutFreeSpace", b"WithouFreSpacExt")),
    b"#!/b": ("cloop", b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"),
}


UNREADABLE = "cannot be read: "
"""How the error of an image begins that could not be read: it says nothing of the image, and may be another the next time."""

_FIRST = frozenset(magic[0] for magic in (*_BY_MAGIC, _QFI, *_TEXT))  # any other first byte begins no image


def probe(reader: Reader) -> ImageInfo:
    """Guess what ``reader`` holds: 4 KiB first, more only where those ask for it. Repeatable; raises nothing.

    A guess is advice: for a volume whose format is on record use ``as_format``, since a guest can write any header
    into its raw disk.
    """
    try:
        head = reader.pread(HEAD, 0)
        far = reader.pread(5, 32769) if reader.size > 32774 else b""
        return _judge(reader, head, far)
    except OSError as error:
        return ImageInfo("raw", error=f"{UNREADABLE}{error.strerror or error}")


def probe_fd(fd: int, size: int) -> ImageInfo:
    """``probe`` for an open file or device of ``size`` bytes; the descriptor stays the caller's."""
    try:
        return _probe_head(fd, size, FdReader(fd, size).pread(HEAD, 0))
    except OSError as error:
        return ImageInfo("raw", error=f"{UNREADABLE}{error.strerror or error}")


def ask_ahead(fd: int, size: int) -> None:
    """Have the kernel ask for what ``listed`` reads of a file beyond its start, so that the reads wait together.

    For files whose server is far; posix_fadvise(2) itself waits for nobody. The kernel is told not to fetch what follows
    either: of the start that would be 16 KiB, four times what is read.
    """
    with suppress(OSError):  # a kernel without it, CONFIG_ADVISE_SYSCALLS
        if size > HEAD:
            posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM)
        if size > 32774:
            posix_fadvise(fd, 32769, 5, POSIX_FADV_WILLNEED)
        if size > HEAD:
            posix_fadvise(fd, size - 512, 4, POSIX_FADV_WILLNEED)


def listed(fd: int, size: int, start: bytes | None = None) -> ImageInfo | None:
    """``probe_fd`` for a listing, where most files are raw: None for a raw disk of which there is nothing else to say.

    What a raw disk's content looks like (partition tables, file systems) is not looked for. ``start``: the first KiB, where
    that was read already.
    """
    if start is None:
        start = pread(fd, START, 0)
    if len(start) < START and len(start) < size:
        start = FdReader(fd, size).pread(START, 0)  # the kernel may give less than there is
    if (not start or start[0] in _FIRST or start[64:68] == _VDI) and (
        start[:4] in _BY_MAGIC or start[:4] == _QFI or start[64:68] == _VDI or start[:1] in _TEXT
    ):
        return _probe_head(fd, size, FdReader(fd, size).pread(HEAD, 0))
    # Its start says nothing: the magics that stand elsewhere.
    if (size > 32774 and pread(fd, 5, 32769) in _DISCS) or (size >= 512 and pread(fd, 4, size - 512) in _ENDS):
        return _probe_head(fd, size, FdReader(fd, size).pread(HEAD, 0))
    return None


def _probe_head(fd: int, size: int, head: bytes) -> ImageInfo:
    """The answer for blank raw disks and plain qcow2 images, of which a pool has ten thousand, in few steps."""
    far = pread(fd, 5, 32769) if size > 32774 else b""
    if head == _ZERO:
        if (not far or far == _BLANK) and pread(fd, 4, size - 512) not in _ENDS:
            return ImageInfo("raw", size)
    elif head[:8] == QCOW2_V3 and far != b"CD001" and head[64:68] != _VDI:
        info = ImageInfo("qcow2")
        fill(FdReader(fd, size), head, info)
        return info
    return _judge(FdReader(fd, size), head, far)


def as_format(reader: Reader, format: str) -> ImageInfo:
    """Read the header as ``format``, whatever else the content looks like; that goes to ``also`` and ``notes``.

    Raises ``InvalidArgument`` for a format that has no reader. Nothing in the file itself makes it raise.
    """
    format = _ALIASES.get(format, format)
    if format in _CONTENT_ONLY or format == "raw":
        seen = probe(reader)
        info = ImageInfo(format, reader.size, hints=seen.hints, notes=())
        if seen.format != "raw":
            info.also = (seen.format, *seen.also)
            info.looks = seen.format
            info.note(f"the format on record is {format}; the content looks like {seen.format}")
        else:
            info.also, info.error = seen.also, seen.error
        return info
    if format not in FORMATS:
        raise InvalidArgument(f"image format {clean(format.encode(errors='replace'))!r} is not known")
    seen = probe(reader)
    if seen.error is not None and seen.error.startswith(UNREADABLE):
        return ImageInfo(format, error=seen.error)
    looks = (seen.format, *(name for name in seen.also if name != format))
    if seen.format == format:
        seen.ambiguous = False
        return seen
    info = ImageInfo(format, also=looks, hints=seen.hints, looks=seen.format)
    info.note(f"the format on record is {format}; the content looks like {seen.format}")
    try:
        head = reader.pread(HEAD, 0)
        if not _claims(reader, head, info):
            info.error, info.notes = info.notes[0], ()
            return info
    except OSError as error:
        info.error = f"{UNREADABLE}{error.strerror or error}"
        return info
    fill(reader, head, info)
    info.also = tuple(dict.fromkeys((*looks, *info.also)))
    return info


def _claims(reader: Reader, head: bytes, info: ImageInfo) -> bool:
    """Whether the mark of ``info.format`` is there although that of another comes before it.

    A guest can write at the start of a fixed VHD or of a disc image; the mark that counts is elsewhere.
    """
    if info.format == "iso":
        return reader.pread(5, 32769) == b"CD001"
    if info.format == "vdi":
        return head[64:68] == _VDI
    mark = {"vpc": b"conectix", "dmg": b"koly"}.get(info.format)
    info.tail = mark is not None and reader.size >= 512 and reader.pread(512, reader.size - 512).startswith(mark)
    return info.tail


def check(reader: Reader, info: ImageInfo, *, deep: bool = True) -> str | None:
    """What is wrong with the image whose header ``info`` tells, or None: what its tables name must lie within the file.

    Without ``deep`` only the first of the tables are looked at, in a few small reads for the usual formats; that is for
    listings. If they show that more than the file is in use, as those of qcow2 can, some of the others are read as well. An
    image with more tables than ``tables.LIMIT`` gets a note that the rest was not checked. Raises nothing.
    """
    if info.error is not None:
        return info.error
    name = info.format
    if name not in _TABLES or info.capacity is None:
        return None
    suspected = False
    if name == "qcow2" and not deep:
        with suppress(OSError):
            head = reader.pread(qcow2.GLANCED, 0)
            suspected = qcow2.counts_beyond(reader, head)
            if not suspected and qcow2.plain(reader, head, info.cluster_size or 0):
                return None
    from poolkit.formats.tables import LIMIT, SUSPECTED, Unchecked, Walk

    try:
        head = reader.pread(HEAD, 0)
        lean.module("poolkit.formats." + _WALKS.get(name, name)).tables(
            Walk(reader, info.capacity, deep=deep or suspected, limit=SUSPECTED if suspected else None), head, info
        )
    except Malformed as error:
        return str(error)
    except Unchecked:
        if deep:
            info.note(
                f"it has more than {LIMIT >> 20} MiB of tables: whether it was cut short was not checked beyond them"
            )
    except OSError as error:
        return f"{UNREADABLE}{error.strerror or error}"
    except (StructError, ValueError, ArithmeticError, LookupError) as error:
        return f"malformed tables ({type(error).__name__})"
    return None


def content(reader: Reader) -> tuple[str, ...]:
    """Name everything recognised in ``reader`` at every known place; empty when nothing is. Raises nothing.

    For the question asked before data is destroyed: image formats, partition tables, file systems, swap, LVM and
    RAID members, including those left over beside a newer one.
    """
    from poolkit.formats.signatures import scan

    return scan(reader)


def describe(path: str) -> dict[str, Any]:
    """What ``poolkit probe`` prints for one file; see ``poolkit.formats.description.describe`` for the keys."""
    from poolkit.formats.description import describe as answer

    return answer(path)


def _judge(reader: Reader, head: bytes, far: bytes) -> ImageInfo:
    """The answer, given the first page and the five letters that would make it a disc."""
    name = None if head == _ZERO else "qcow2" if head[:8] == QCOW2_V3 else _sniff(head)
    if name is None:
        return _raw(reader, head, far)
    info = ImageInfo(name)
    fill(reader, head, info)
    if far == b"CD001":
        info.also = (*info.also, "iso")
        info.ambiguous = True
    if head[64:68] == _VDI and name != "vdi":
        info.also = (*info.also, "vdi")
        info.ambiguous = True
    return info


def _sniff(head: bytes) -> str | None:
    """The format the first bytes claim."""
    magic = head[:4]
    if magic == _QFI:
        version = head[4:8]
        if version == b"\0\0\0\1":
            return "qcow"
        if version > b"\0\0\0\1" and len(version) == 4:
            return "qcow2"
    entry = _BY_MAGIC.get(magic)
    if entry is not None and head.startswith(entry[1]):
        return entry[0]
    if head[64:68] == _VDI:
        return "vdi"
    if head[:1] in _TEXT:
        from poolkit.formats import vmdk

        if vmdk.is_descriptor(head):
            return "vmdk"
    return None


def sniff_all(head: bytes) -> tuple[str, ...]:
    """Every format the first 4 KiB could pass for."""
    first = _sniff(head)
    found = () if first is None else (first,)
    return (*found, "vdi") if first != "vdi" and head[64:68] == _VDI else found


def _raw(reader: Reader, head: bytes, far: bytes) -> ImageInfo:
    """No magic at the start: an ISO, one of the formats known by the end of the file, or raw content."""
    size = reader.size
    if far == b"CD001":
        info = ImageInfo("iso", size)
        fill(reader, head, info)
        return info
    if size >= 512:
        tail = reader.pread(512, size - 512)
        if tail[:4] in _ENDS:
            name = "dmg" if tail.startswith(b"koly") else "vpc" if tail.startswith(b"conectix") else None
            if name is not None:
                info = ImageInfo(name, tail=True)
                fill(reader, head, info)
                return info
    info = ImageInfo("raw", size)
    if head != _ZERO:
        fill(reader, head, info)
    if far == b"BEA01":
        info.also = ("udf",)
        info.hints = (*info.hints, "udf")
    return info


def fill(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Let the format's reader fill ``info``; whatever stops it becomes the error."""
    name = info.format
    try:
        read = _READERS.get(name) or _load(name)
        read(reader, head, info)
    except UnknownFeature as error:
        info.error = str(error)
        info.unsupported = True
    except Malformed as error:
        info.error = str(error)
    except OSError as error:
        info.error = f"{UNREADABLE}{error.strerror or error}"
    except (StructError, ValueError, ArithmeticError, LookupError) as error:
        # the readers check before they compute; should one forget, a bad file must still not end a refresh
        info.error = f"malformed header ({type(error).__name__})"
        info.capacity = None


def _load(name: str) -> Callable[[Reader, bytes, ImageInfo], None]:
    """Import a format's reader when the first file of that format turns up: start-up pays for the common two only."""
    module = lean.module("poolkit.formats." + _MODULES.get(name, name))
    read: Callable[[Reader, bytes, ImageInfo], None] = module.read
    _READERS[name] = read
    return read
