"""FUSE mounts without a file system behind them: of another user, dead, or never answering."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_DETACH = 2  # linux/fs.h, MNT_DETACH


@contextlib.contextmanager
def mounted(target: Path, kind: str, fstype: str = "fuse") -> Iterator[None]:
    """Mount at ``target`` a FUSE file system that is ``foreign`` (EACCES), ``dead`` (ENOTCONN) or ``silent`` (no answer, ever).

    The end of the test process ends the wait of whoever fell for a silent one.
    """
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    user = 4711 if kind == "foreign" else 0
    options = f"fd={fd},rootmode=40000,user_id={user},group_id={user}"
    try:
        if _libc.mount(b"nobody", os.fsencode(target), fstype.encode(), 6, options.encode()):  # 6: MS_NOSUID | MS_NODEV
            raise OSError(ctypes.get_errno(), "mount")
        if kind == "dead":
            os.close(fd)
            fd = -1
        yield
    finally:
        _libc.umount2(os.fsencode(target), _DETACH)
        if fd >= 0:
            os.close(fd)
