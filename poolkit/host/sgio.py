"""The SCSI commands that poolkit sends itself: who a disk is, and whether it is reserved (SG_IO of linux/scsi/sg.h).

The kernel keeps the answer of the day on which it found the disk. A target may have put another logical unit in that place since.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl

_SG_IO = 0x2285
_FROM_DEVICE = -3  # SG_DXFER_FROM_DEV
_TIMEOUT = 10_000  # milliseconds
_CHECK = 0x02  # SCSI status CHECK CONDITION
_CONFLICT = 0x18  # SCSI status RESERVATION CONFLICT
_ILLEGAL = 0x05  # sense key ILLEGAL REQUEST
_NO_UNIT = 0x25  # additional sense code LOGICAL UNIT NOT SUPPORTED
_NO_SCSI = frozenset((errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES))


class _Header(ctypes.Structure):
    """struct sg_io_hdr."""

    _fields_ = (
        ("interface_id", ctypes.c_int), ("dxfer_direction", ctypes.c_int), ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte), ("iovec_count", ctypes.c_ushort), ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p), ("cmdp", ctypes.c_void_p), ("sbp", ctypes.c_void_p), ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint), ("pack_id", ctypes.c_int), ("usr_ptr", ctypes.c_void_p), ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte), ("msg_status", ctypes.c_ubyte), ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort), ("driver_status", ctypes.c_ushort), ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint), ("info", ctypes.c_uint),
    )  # fmt: skip


def inquiry(fd: int, page: int) -> bytes | None:
    """A page of the vital product data of the open disk, as the unit tells it now.

    ``b""`` when the unit does not have that page; None when the device speaks no SCSI. Raises ``FileNotFoundError`` when the
    target has no such unit any more, other ``OSError`` when it does not answer.
    """
    answer = _ask(fd, bytes((0x12, 1, page, 0x10, 0, 0)))  # room for 4096 bytes
    if answer is None:
        return None
    data, status, key, code = answer
    if status == _CHECK and key == _ILLEGAL and code != _NO_UNIT:
        return b""
    # The peripheral qualifier 3: no unit is there.
    if (status == _CHECK and code == _NO_UNIT) or (not status and data[:1] and data[0] >> 5 == 3):
        raise FileNotFoundError(errno.ENOENT, "the target has no such logical unit")
    if status:
        raise OSError(errno.EIO, "the logical unit does not answer an INQUIRY")
    return data


def reserved(fd: int) -> bool:
    """Whether somebody has a persistent reservation of the open disk (SPC-3 6.11, READ RESERVATION). Raises ``OSError``."""
    answer = _ask(fd, bytes((0x5E, 1, 0, 0, 0, 0, 0, 0x10, 0, 0)))
    if answer is None:
        return False
    data, status, _, _ = answer
    return status == _CONFLICT or (not status and len(data) >= 8 and int.from_bytes(data[4:8], "big") > 0)


def _ask(fd: int, words: bytes) -> tuple[bytes, int, int, int] | None:
    """Send a command that reads: what came, the status, sense key and additional sense code. None: no SCSI is spoken."""
    command = (ctypes.c_ubyte * len(words))(*words)
    answer, sense = (ctypes.c_ubyte * 4096)(), (ctypes.c_ubyte * 64)()
    header = _Header(
        ord("S"), _FROM_DEVICE, len(command), len(sense), 0, len(answer), ctypes.addressof(answer),
        ctypes.addressof(command), ctypes.addressof(sense), _TIMEOUT,
    )  # fmt: skip
    try:
        fcntl.ioctl(fd, _SG_IO, header)
    except OSError as error:
        if error.errno in _NO_SCSI:
            return None
        raise
    status = header.status
    if not status and (header.host_status or header.driver_status & 0x0F):
        raise OSError(errno.EIO, "the logical unit does not answer")
    key, code = _sense(bytes(sense[: header.sb_len_wr])) if status == _CHECK else (0, 0)
    return bytes(answer[: len(answer) - max(0, header.resid)]), status, key, code


def _sense(data: bytes) -> tuple[int, int]:
    """Sense key and additional sense code, of both formats (SPC-3 4.5)."""
    if len(data) >= 3 and data[0] & 0x7F in (0x72, 0x73):
        return data[1] & 0x0F, data[2]
    return (data[2] & 0x0F, data[12]) if len(data) > 12 else (0, 0)
