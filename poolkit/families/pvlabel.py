"""LVM's label of a device, read without LVM: whether the device belongs to a volume group, active here or not.

The layout is that of LVM's lib/format_text/layout.h and lib/label/label.h. What the device says is a stranger's: every number is
held against the device's size, and nothing is followed more than once.
"""

from __future__ import annotations

import os
import re
import struct

from poolkit import errors
from poolkit.families import blockdevice
from poolkit.host.port import Host

_SECTOR, _SCANNED = 512, 4  # LABEL_SCAN_SECTORS
_AREA = struct.Struct("<QQ")  # disk_locn: offset and size
_MAGIC = b" LVM2 x[5A%r0N*>"
_USED = 1  # PV_EXT_USED
_MOST = 32  # areas of one kind; LVM makes one of data and two of metadata at most


def group(fd: int) -> str | None:
    """The volume group that an open device is a part of; None if it is in none, "" if it does not hold the name of its group."""
    head = os.pread(fd, _SECTOR * _SCANNED, 0)
    for start in range(0, len(head), _SECTOR):
        sector = head[start : start + _SECTOR]
        if sector[:8] == b"LABELONE" and sector[24:32] == b"LVM2 001":
            at = int.from_bytes(sector[20:24], "little")
            return _of_header(fd, sector[at:]) if 32 <= at < _SECTOR else ""
    return None


def _of_header(fd: int, header: bytes) -> str | None:
    position = 40  # the uuid and the size of the device
    kinds: list[list[tuple[int, int]]] = []
    for _ in ("data", "metadata"):
        areas: list[tuple[int, int]] = []
        while True:
            if position + _AREA.size > len(header) or len(areas) > _MOST:
                return ""
            offset, size = _AREA.unpack_from(header, position)
            position += _AREA.size
            if not offset:
                break
            areas.append((offset, size))
        kinds.append(areas)
    for offset, size in kinds[1]:
        if name := _named(fd, offset, size):
            return name
    # Who has no metadata, or ignores it, still says that it is used (since LVM 2.02.129).
    version, flags = struct.unpack_from("<II", header.ljust(position + 8, b"\0"), position)
    return "" if version >= 2 and flags & _USED else None


def _named(fd: int, offset: int, size: int) -> str:
    """The group that a metadata area tells of; empty if of none."""
    area = os.pread(fd, _SECTOR, offset) if offset < 1 << 62 else b""
    if area[4:20] != _MAGIC or len(area) < 64:
        return ""
    where, length = _AREA.unpack_from(area, 40)  # raw_locn: what is committed
    ignored = area[60] & 1  # RAW_LOCN_IGNORED: what it has may be of an earlier group
    if not where or not length or where >= size or offset + where >= 1 << 62 or ignored:
        return ""
    text = os.pread(fd, min(length, _SECTOR), offset + where)
    found = re.match(rb"([A-Za-z0-9_.+-]{1,127})\s*\{", text)
    return found[1].decode() if found else ""


def require_no_group(host: Host, pool: str, path: str) -> None:
    """``Unsafe`` for a device of a volume group, even one of which nothing is active: its other devices would lose it, too."""
    with blockdevice.opened(host, path) as fd:
        name = group(fd)
    if name is None:
        return
    which = f"the volume group '{name}'" if name else "a volume group"
    raise errors.Unsafe(
        f"pool '{pool}': '{path}' belongs to {which}", pool=pool,
        hint="take it out of that group first: vgreduce, or vgremove; if nobody needs the group and it is of another machine: "
        f"wipefs --all {host.devices.real(path)}",
    )  # fmt: skip
