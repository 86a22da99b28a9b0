"""Moving bytes between descriptors: copies that keep holes as holes, and streams in and out.

Everything here works on descriptors of regular files and of block devices alike, reports progress, and stops on abort.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from poolkit import errors
from poolkit.backend import Transfer
from poolkit.host import libc, streams
from poolkit.host.descriptors import write_at
from poolkit.host.mounts import number
from poolkit.host.port import Host

T = TypeVar("T")

_FICLONE = 0x40049409  # linux/fs.h, _IOW(0x94, 9, int)
_BLKGETSIZE64 = 0x80081272  # linux/fs.h, _IOR(0x12, 114, size_t)
_BLKZEROOUT = 0x127F  # linux/fs.h, _IO(0x12, 127)
_BLOCK = 1 << 20  # of pread and pwrite: larger ones gain nothing on warm or cold caches
_IOCTL = 1 << 28  # of a device's range between two looks at the abort switch
_PAGE = 4096  # to which such a range must be aligned on every device
_SLICE = 1 << 27  # of copy_file_range between two looks at the abort switch
_HOLE = 1 << 16  # smallest run of zeros that becomes a hole when a stream is written sparsely
SMB_LAG = 4.0
"""Seconds; see :func:`settled`."""
_CANNOT = frozenset(
    (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EPERM, errno.ETXTBSY, errno.EBADF)
)


def size_of(fd: int) -> int:
    """Bytes of a regular file or block device; ``Unsafe`` for anything else."""
    facts = os.fstat(fd)
    if stat.S_ISREG(facts.st_mode):
        return facts.st_size
    if stat.S_ISBLK(facts.st_mode):
        return int.from_bytes(fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)), "little")
    raise errors.Unsafe("neither a regular file nor a block device")


def stamp_of(fd: int) -> tuple[int, ...]:
    """What changes when a file is written: compare before and after a copy. A block device has no such thing."""
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode):
        return ()
    return (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def unchanged(fd: int, source: object) -> contextlib.AbstractContextManager[None]:
    """Copy in its body: ``SourceChanged`` at the end if the open file was written to since this was called."""
    return _unchanged(fd, source, stamp_of(fd))


@contextlib.contextmanager
def _unchanged(fd: int, source: object, before: tuple[int, ...]) -> Iterator[None]:
    yield
    if stamp_of(fd) != before:
        raise errors.SourceChanged(
            f"{source} was changed while it was copied; the copy was removed",
            hint="stop what writes to it, and try again",
        )


def settled(host: Host, fd: int) -> bool:
    """After ``SourceChanged``: whether a second try is worth while, for which this waits.

    On SMB the times of a file change up to some seconds after the last write to it: the client believes its own for a second
    (mount.cifs(8), actimeo) and keeps the file open for another (closetimeo), and Samba sets them when the file is closed, or
    after two seconds (smbd's write time update delay).
    """
    device = number(os.fstat(fd).st_dev)
    if not any(mount.device == device and mount.fstype in ("cifs", "smb3") for mount in host.mounts()):
        return False
    host.abort.wait(SMB_LAG)
    host.check_abort()
    return True


def twice(host: Host, fd: int, copy: Callable[[bool], T]) -> T:
    """What ``copy`` returns, which reads ``fd`` and is told whether this is the first time.

    After ``SourceChanged`` it is called once more, if the source has come to rest.
    """
    try:
        return copy(True)
    except errors.SourceChanged:
        if not settled(host, fd):
            raise
    return copy(False)


def duplicate(
    host: Host, source: int, target: int, length: int, *, reflink: bool | None = None, blank: bool = True
) -> bool:
    """Copy the first ``length`` bytes of ``source`` to ``target``, whose size the caller sets afterwards.

    Shared blocks first (FICLONE), then copy_file_range(2) of each run of data, then reading and writing. ``reflink``
    True raises ``Unsupported`` where blocks cannot be shared; False really copies. ``blank`` says that ``target``
    reads as zeros, so that holes need not be written. Raises ``NoSpace`` before copying where the data cannot fit. Returns
    whether the two share their blocks.
    """
    if reflink is not False:
        host.files.fault("reflink")
        if _reflink(source, target):
            host.progress(length, length, "copy")
            return True
        if reflink:
            raise errors.Unsupported(
                "the file system cannot share blocks between the two volumes",
                hint=errors.Hint("to copy the data, leave out ", errors.Option("reflink")),
            )
    require_space(target, _allocated(source, length))
    offload = reflink is None
    done = 0
    position = 0
    for start, end in runs(source, length):
        if not blank:
            zero(target, position, start - position, host)
        position = start
        while position < end:
            host.files.fault("copy")
            count = 0
            if offload:
                try:
                    count = os.copy_file_range(source, target, min(_SLICE, end - position), position, position)
                except OSError as error:
                    if error.errno not in _CANNOT:
                        raise
                offload = count > 0  # 0 for files whose kernel side does not do it
            if not count:
                count = _copy_block(source, target, position, min(_BLOCK, end - position))
                if not count:
                    return False  # shorter than it was: the caller's comparison of stamps tells
            position += count
            done += count
            host.progress(position, length, "copy")
    if not blank:
        zero(target, position, length - position, host)
    host.progress(length, length, "copy")
    return False


def runs(fd: int, length: int) -> Iterator[tuple[int, int]]:
    """The ranges of a file that hold data (lseek(2) SEEK_DATA); all of it where that cannot be told."""
    position = 0
    while position < length:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            start, end = position, length
        if start >= length:
            return
        if end <= start:  # a block device answers so on some kernels
            end = length
        yield start, min(end, length)
        position = end


def on_device(host: Host | None, fd: int, request: int, offset: int, length: int, what: str) -> None:
    """An ioctl over a range of a block device (BLKZEROOUT, BLKDISCARD), in pieces: none can be interrupted, and a device that
    has to write every zero takes hours for a large one. Raises ``OSError``, and ``Aborted`` between two pieces.
    """
    import struct

    done = 0
    while done < length:
        piece = min(_IOCTL, length - done)
        fcntl.ioctl(fd, request, struct.pack("=QQ", offset + done, piece))
        done += piece
        if host is not None:
            host.progress(done, length, what)


def zero(fd: int, offset: int, length: int, host: Host | None = None) -> None:
    """Make a range of a file or device read as zeros, giving its space back where possible; ``host`` may abort it."""
    if length <= 0:
        return
    try:
        if stat.S_ISBLK(os.fstat(fd).st_mode):
            head = min(-offset % _PAGE, length)
            write_at(fd, bytes(head), offset)
            offset, length = offset + head, length - head
            on_device(host, fd, _BLKZEROOUT, offset, length, "zero")
        else:
            libc.fallocate(fd, libc.FALLOC_FL_PUNCH_HOLE | libc.FALLOC_FL_KEEP_SIZE, offset, length)
        return
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    zeros = bytes(min(_BLOCK, length))
    end = offset + length
    while offset < end:
        count = min(len(zeros), end - offset)
        write_at(fd, zeros[:count], offset)
        offset += count


def free_space(fd: int) -> int | None:
    """Bytes an ordinary user may still write on the file system of a regular file; None for a device."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return None
    facts = os.fstatvfs(fd)
    return facts.f_bavail * facts.f_frsize


def require_space(fd: int, length: int) -> None:
    """``NoSpace`` if ``length`` more bytes cannot fit on the file system of ``fd``."""
    free = free_space(fd)
    if free is not None and length > free:
        raise errors.NoSpace(f"{length} bytes are needed and {free} are free")


def _no_room(limit: int) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"more data than the volume has room for: it ends at byte {limit}",
        hint="resize the volume first, or give a length",
    )


def upload(host: Host, fd: int, stream: BinaryIO, transfer: Transfer, limit: int | None) -> int:
    """Write ``stream`` into ``fd`` from ``transfer.offset`` on, at most ``transfer.length`` bytes (0: to its end).

    ``limit`` is the end that must not be passed, None for a file that may grow: a longer file is refused at once, a longer
    stream of another kind when that shows, with what was written so far in place. With ``sparse`` runs of zeros become holes.
    Returns the number of bytes.
    """
    return receive(host, stream, transfer, limit, lambda data, position: _put(fd, data, position, transfer.sparse))


def receive(
    host: Host, stream: BinaryIO, transfer: Transfer, limit: int | None, put: Callable[[memoryview, int], object]
) -> int:
    """``upload`` for storage of any kind: ``put`` writes some bytes at a position."""
    position = transfer.offset
    end = position + transfer.length if transfer.length else None
    total = transfer.length or (limit - position if limit is not None else 0)
    known = streams.remaining(stream)
    if limit is not None and not transfer.length and known is not None and position + known > limit:
        raise _no_room(limit)
    buffer = bytearray(_BLOCK)
    view = memoryview(buffer)
    read = streams.reader(host, stream)
    while end is None or position < end:
        wanted = _BLOCK if end is None else min(_BLOCK, end - position)
        count = read(view[:wanted])
        if not count:
            break
        if limit is not None and position + count > limit:
            raise _no_room(limit)
        host.files.fault("upload")
        put(view[:count], position)
        position += count
        host.progress(position - transfer.offset, total, "upload")
    if end is not None and position < end:
        raise errors.InvalidArgument(
            f"the data ended after {position - transfer.offset} of {transfer.length} bytes; those are written"
        )
    return position - transfer.offset


def download(host: Host, fd: int, stream: BinaryIO, transfer: Transfer, size: int) -> int:
    """Write the bytes of a range of ``fd`` to ``stream``; returns how many.

    With ``sparse`` a stream that is a regular file gets holes where the volume has them.
    """
    end = size if not transfer.length else transfer.offset + transfer.length
    length = end - transfer.offset
    out = streams.descriptor(stream)
    if transfer.sparse and out is not None and stat.S_ISREG(os.fstat(out).st_mode):
        stream.flush()
        _download_sparse(host, fd, out, transfer.offset, end)
        return length
    position = transfer.offset
    send = streams.sender(host, stream)
    while position < end:
        count = send(fd, position, min(_BLOCK, end - position))
        if not count:
            raise _ended(position, end)
        position += count
        host.progress(position - transfer.offset, length, "download")
    return length


def _ended(position: int, end: int) -> errors.HostError:
    return errors.HostError(f"the volume ended at byte {position}, before the {end} that were there")


def _download_sparse(host: Host, fd: int, out: int, offset: int, end: int) -> None:
    base = os.lseek(out, 0, os.SEEK_CUR)
    if os.fstat(out).st_size < base + end - offset:
        os.ftruncate(out, base + end - offset)
    position = offset
    for start, stop in runs(fd, end):
        start = max(start, offset)
        if stop <= start:
            continue
        zero(out, base + position - offset, start - position)
        position = start
        while position < stop:
            data = os.pread(fd, min(_BLOCK, stop - position), position)
            if not data:
                raise _ended(position, end)
            host.files.fault("download")
            write_at(out, data, base + position - offset)
            position += len(data)
            host.progress(position - offset, end - offset, "download")
    if (size := size_of(fd)) < end:
        raise _ended(size, end)
    zero(out, base + position - offset, end - position)
    os.lseek(out, base + end - offset, os.SEEK_SET)


def _reflink(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def _allocated(fd: int, length: int) -> int:
    facts = os.fstat(fd)
    return min(facts.st_blocks * 512, length) if stat.S_ISREG(facts.st_mode) else length


def _copy_block(source: int, target: int, position: int, length: int) -> int:
    data = os.pread(source, length, position)
    write_at(target, data, position)
    return len(data)


def _put(fd: int, data: memoryview, position: int, sparse: bool) -> None:
    if sparse and len(data) >= _HOLE and not any(memoryview(data)[:64]) and bytes(data) == bytes(len(data)):
        zero(fd, position, len(data))
        size = os.fstat(fd).st_size
        if stat.S_ISREG(os.fstat(fd).st_mode) and position + len(data) > size:
            os.ftruncate(fd, position + len(data))
        return
    write_at(fd, data, position)
