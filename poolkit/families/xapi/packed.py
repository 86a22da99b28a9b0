"""Disks as files that others take: a VHD, as the hosts make and take it, and a gzipped tar of the raw bytes (``--form``)."""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import struct
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from poolkit import errors
from poolkit.backend import Transfer, VolumeInfo
from poolkit.content import copying
from poolkit.families.xapi.transfer import PIECE, Moving
from poolkit.host import streams
from poolkit.host.port import Host

FORMS = ("vhd", "tar")
"""What the bytes of a disk can be packed as."""
_FOOTER = 512  # bytes; Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format"
_DIFFERENCING = 4  # type of a disk that stands on another one
_HEAD = (
    4 * PIECE
)  # bytes of an archive that are read for its first file: a header may say that it is as long as it likes


def check(info: VolumeInfo, transfer: Transfer, form: str | None) -> None:
    """Refuse a form that is none, and a part of a disk in a form that has whole ones only."""
    if form is not None and form not in FORMS:
        raise errors.InvalidArgument(
            f"volume '{info.name}': '{form}' is no form of a disk",
            volume=info.name,
            hint=f"there are {', '.join(FORMS)}",
        )
    if form is not None and (transfer.offset or transfer.length):
        raise errors.InvalidArgument(
            f"volume '{info.name}': a {form} has the whole disk, and a part was asked for", volume=info.name
        )


def require_open(info: VolumeInfo) -> None:
    """``Unsupported`` for what cannot be written to."""
    if (info.detail or {}).get("snapshot"):
        raise errors.Unsupported(
            f"volume '{info.name}' is a snapshot: it cannot be changed", volume=info.name,
            hint=errors.Hint("make a disk of it: ", errors.remedy("vol-clone", info.name, ..., linked=True)),
        )  # fmt: skip


# -- to a stream ------------------------------------------------------------------------------------------------------


def download(
    host: Host, moving: Moving, info: VolumeInfo, stream: BinaryIO, transfer: Transfer, form: str | None
) -> int:
    """Write a disk to a stream; returns how many bytes that were."""
    if form is None:
        return moving.download(host, stream, transfer, info.capacity)
    out = _Out(host, stream)
    if form == "tar":
        _tar_to(out, moving, info)
        return out.count
    with moving.coming("vhd") as response:
        while data := moving.piece(response):
            out.write(data)
            host.progress(out.count, max(out.count, info.allocation), "download")
    return out.count


def _tar_to(out: Any, moving: Moving, info: VolumeInfo) -> None:
    member = tarfile.TarInfo(f"{info.name}.raw")
    member.size, member.mode = info.capacity, 0o600
    with contextlib.closing(moving.receive(info.capacity)) as pieces:
        with tarfile.open(fileobj=out, mode="w|gz", format=tarfile.PAX_FORMAT) as tar:
            content: Any = _Pieces(out.host, pieces, info.capacity)
            tar.addfile(member, content)
        next(pieces, None)  # which asks the host whether all went well


class _Out:
    """A stream that is written to, as tarfile does."""

    def __init__(self, host: Host, stream: BinaryIO) -> None:
        self.host, self._stream, self.count = host, stream, 0
        stream.flush()

    def write(self, data: Any) -> int:
        self.host.files.fault("download")
        streams.put(self.host, self._stream, data)
        self.count += len(data)
        return len(data)


class _Pieces:
    """The bytes of a disk, to be read."""

    def __init__(self, host: Host, pieces: Iterator[tuple[int, memoryview]], size: int) -> None:
        self._host, self._pieces, self._size, self._held = host, pieces, size, memoryview(b"")

    def read(self, length: int) -> bytes:
        found = b""
        while len(found) < length:
            if not self._held:
                at, self._held = next(self._pieces, (0, memoryview(b"")))
                if not self._held:
                    break
                self._host.progress(at + len(self._held), self._size, "download")
            wanted = length - len(found)
            found, self._held = found + self._held[:wanted], self._held[wanted:]
        return found


# -- from a stream ----------------------------------------------------------------------------------------------------


def upload(
    host: Host, moving: Moving, info: VolumeInfo, stream: BinaryIO, transfer: Transfer, form: str | None
) -> None:
    """Write a stream into a disk. What is not written of a raw disk is read first: a host takes whole disks."""
    if form == "tar":
        _tar_from(host, moving, info, stream)
    elif form == "vhd":
        _vhd_from(host, moving, info, stream)
    elif (fd := _whole(stream, transfer, info.capacity)) is not None:
        moving.fill(host, fd, info.capacity, info.capacity)
        stream.seek(info.capacity)
    else:
        with host.spooled(info.allocation, lambda fd: moving.send_to(host, fd, info.capacity)) as fd:
            copying.upload(host, fd, stream, transfer, info.capacity)
            moving.fill(host, fd, info.capacity, info.capacity)


def _whole(stream: BinaryIO, transfer: Transfer, size: int) -> int | None:
    """The descriptor of a file with the content of a whole disk, and nothing else; None for any other stream."""
    fd = streams.descriptor(stream)
    if fd is None or transfer.offset or transfer.length not in (0, size) or not stat.S_ISREG(os.fstat(fd).st_mode):
        return None
    return fd if stream.tell() == 0 and os.fstat(fd).st_size == size else None


def _vhd_from(host: Host, moving: Moving, info: VolumeInfo, stream: BinaryIO) -> None:
    def take(fd: int) -> None:
        copying.upload(host, fd, stream, Transfer(), None)

    with host.spooled(info.allocation, take) as fd:
        length = os.fstat(fd).st_size
        _check_vhd(fd, info)

        def pieces() -> Iterator[bytes]:
            done = 0
            while data := os.pread(fd, PIECE, done):
                host.files.fault("upload")
                yield data
                done += len(data)
                host.progress(done, length, "upload")

        moving.put(length, pieces, "vhd")


def _check_vhd(fd: int, info: VolumeInfo) -> None:
    """Refuse what is no VHD that can be the content of the disk."""
    footer = os.pread(fd, _FOOTER, 0)
    why = ""
    if footer[:8] != b"conectix" or len(footer) < _FOOTER:
        why = "it is no VHD of the dynamic kind"  # the hosts read it as it comes, and a fixed one begins with its data
    elif struct.unpack_from(">I", footer, 60)[0] == _DIFFERENCING:
        why = "it stands on another image"
    elif (size := struct.unpack_from(">Q", footer, 48)[0]) > info.capacity:
        why = f"it is of a disk of {size} bytes, and the volume has {info.capacity}"
    if why:
        raise errors.InvalidArgument(
            f"volume '{info.name}': what was given is not its content: {why}", volume=info.name,
            hint="qemu-img convert -O vpc -o subformat=dynamic,force_size=on makes one",
        )  # fmt: skip


def _tar_from(host: Host, moving: Moving, info: VolumeInfo, stream: BinaryIO) -> None:
    size = info.capacity
    given: Any = _Unpacked(_In(host, stream))
    try:
        with tarfile.open(fileobj=given, mode="r|", bufsize=PIECE) as tar:
            member = tar.next()
            given.left = None
            data = tar.extractfile(member) if member is not None and member.isreg() and not member.issparse() else None
            if data is None or member is None:
                raise errors.InvalidArgument(
                    f"volume '{info.name}': the archive does not begin with a plain file", volume=info.name
                )
            if member.size > size:
                raise errors.InvalidArgument(
                    f"volume '{info.name}': the file in the archive has {member.size} bytes, and the volume {size}",
                    volume=info.name,
                )

            def pieces() -> Iterator[bytes]:
                done = 0
                while done < size:
                    host.files.fault("upload")
                    piece = data.read(PIECE) if done < member.size else bytes(min(PIECE, size - done))
                    if not piece:
                        return
                    yield piece
                    done += len(piece)
                    host.progress(done, size, "upload")

            moving.put(size, pieces)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise errors.InvalidArgument(
            f"volume '{info.name}': what was given is no gzipped tar: {error}", volume=info.name
        ) from error


class _Unpacked:
    """The bytes in a gzipped stream. ``left`` says how many may be read yet; None for any number."""

    def __init__(self, given: Any) -> None:
        self._file = gzip.GzipFile(fileobj=given)
        self.left: int | None = _HEAD

    def read(self, length: int) -> bytes:
        if self.left is not None:
            self.left -= length
            if self.left < 0:
                raise tarfile.ReadError(f"no file begins in its first {_HEAD} bytes")
        return self._file.read(length)


class _In:
    """A stream that is read, as tarfile does; one that stalls is waited for."""

    def __init__(self, host: Host, stream: BinaryIO) -> None:
        self._read = streams.reader(host, stream)

    def read(self, length: int) -> bytes:
        data = bytearray(length)
        return bytes(data[: self._read(memoryview(data))])
