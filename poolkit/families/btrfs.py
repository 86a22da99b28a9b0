"""File systems of btrfs on several devices: how many there are to be, and which of them are missing."""

from __future__ import annotations

import os
import uuid
from typing import NamedTuple

from poolkit.host import kernel

_AT, _MAGIC = 65536, b"_BHRfS_M"  # struct btrfs_super_block of linux/btrfs_tree.h, whose first copy is at 64 KiB


class Members(NamedTuple):
    """The UUID of a file system, and the number of its devices."""

    uuid: str
    devices: int


def members(fd: int) -> Members | None:
    """What the open device says of the file system it is a part of; None if that is no btrfs."""
    data = os.pread(fd, 144, _AT)
    if data[64:72] != _MAGIC or len(data) < 144:
        return None
    return Members(str(uuid.UUID(bytes=data[32:48])), int.from_bytes(data[136:144], "little"))


def missing(ident: str) -> list[str]:
    """The numbers of the devices that a mounted file system goes without."""
    folder = f"/sys/fs/btrfs/{ident}/devinfo"
    return [number for number in kernel.names(folder) if kernel.value(f"{folder}/{number}/missing") == "1"]
