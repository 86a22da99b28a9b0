"""The plain description of one file, for ``poolkit probe`` and for programs that want JSON."""

from __future__ import annotations

import os
import stat
from typing import Any

from poolkit.formats._info import FdReader, ImageInfo

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
}


def describe(path: str) -> dict[str, Any]:
    """What the header of the file or block device at ``path`` says, as plain values; sizes in bytes.

    Keys: path, format, virtual_size, actual_size, backing_file, backing_format, backing_kind, data_file, encrypted,
    encryption, compat, cluster_size, subtype, features, extents, snapshots, also, ambiguous, tail, hints, content,
    unsupported, notes, details, error. Unknown values are None. A link is followed, since the caller named it. A
    file that cannot be opened is an answer with an ``error``, not an exception.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)  # looked at first: opening a device or FIFO can already do things
        if kind not in (stat.S_IFREG, stat.S_IFBLK):
            return _answer(path, None, None, (), f"is {_KINDS.get(kind, 'no regular file')}")
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        return _answer(path, None, None, (), error.strerror or str(error))
    except ValueError:
        return _answer(path, None, None, (), "the name contains a NUL byte")
    try:
        return _describe_fd(path, fd)
    except OSError as error:
        return _answer(path, None, None, (), error.strerror or str(error))
    finally:
        os.close(fd)


def _describe_fd(path: str, fd: int) -> dict[str, Any]:
    from poolkit.formats import check, content, probe, vhdx

    status = os.fstat(fd)
    actual: int | None = None
    if stat.S_ISREG(status.st_mode):
        size, actual = status.st_size, status.st_blocks * 512
    elif stat.S_ISBLK(status.st_mode):
        size = os.lseek(fd, 0, os.SEEK_END)
    else:
        return _answer(path, None, None, (), "was replaced while it was opened")
    reader = FdReader(fd, size)
    info = probe(reader)
    if info.format == "vhdx" and info.error is None:
        info.error = vhdx.check(reader)
    info.error = check(reader, info)
    return _answer(path, info, actual, content(reader), info.error)


def _answer(
    path: str, info: ImageInfo | None, actual: int | None, found: tuple[str, ...], error: str | None
) -> dict[str, Any]:
    known = info or ImageInfo("")
    backing = known.backing
    return {
        "path": path,
        "format": known.format or None,
        "virtual_size": known.capacity,
        "actual_size": actual,
        "backing_file": backing.name if backing else None,
        "backing_format": backing.format if backing else None,
        "backing_kind": backing.kind if backing else None,
        "data_file": known.data_file,
        "encrypted": None if info is None else known.encryption is not None,
        "encryption": known.encryption,
        "compat": known.compat,
        "cluster_size": known.cluster_size,
        "subtype": known.subtype,
        "features": list(known.features),
        "extents": [
            {"access": e.access, "size": e.size, "type": e.type, "file": e.file, "offset": e.offset}
            for e in known.extents
        ],
        "snapshots": known.snapshots,
        "also": list(known.also),
        "ambiguous": known.ambiguous,
        "tail": known.tail,
        "hints": list(known.hints),
        "content": list(found),
        "unsupported": known.unsupported,
        "notes": list(known.notes),
        "details": dict(known.details or {}),
        "error": error,
    }
