"""New disks, and how they are taken back.

Sheepdog cannot rename: a disk has its name from the first moment. While it is made its size is a number drawn for it alone, by
which an undo knows it; it gets its own when it is whole.
"""

from __future__ import annotations

import secrets
from typing import Any

from poolkit import errors
from poolkit.families.sheep import naming, wire
from poolkit.families.sheep.client import Failed
from poolkit.families.sheep.cluster import Cluster
from poolkit.families.sheep.wire import Inode
from poolkit.model import Volume


def check(volume: Volume, pool: str) -> bytes:
    """The name of the new disk as the cluster has it; refuses what no disk can be."""
    name = volume.name
    raw, tag, number = naming.meant(name, pool)
    if tag or number:
        raise errors.InvalidArgument(
            f"pool '{pool}': '{name}' is the name of a snapshot, which is made of its disk", volume=name,
            hint=errors.Hint("clone the disk to that name with ", errors.Option("linked")),
        )  # fmt: skip
    if volume.target.format not in (None, "raw", "unknown") or volume.target.encryption is not None:
        raise errors.Unsupported(f"volume '{name}': disks of Sheepdog are raw", volume=name)
    return raw


def mark(size: int, base: Inode | None) -> int | None:
    """A size by which a new disk is known until it is whole; None where there is no room for one.

    It is not less than the disk's own where it shares data, since what is beyond is not shared, and never more than objects
    of the smallest size (1 MiB) can hold where that of the cluster is not known.
    """
    low, limit = (1, wire.MOST_OBJECTS << 20) if base is None else (size, wire.MOST_OBJECTS << base.shift)
    return low + secrets.randbelow(limit - low) if limit - low > 1 << 30 else None


def take_back(cluster: Cluster, raw: bytes, kind: str, number: int, *more: Any) -> None:
    """Undo what was made of the disk ``raw``, if it is still that.

    ``kind`` is ``marked`` (the disk of the size ``number``), ``vdi`` (the one of that VDI id), ``size`` (old and new one, of that
    id) or ``tag`` (in hexadecimal: of the snapshot that the VDI of that id has become, or was to become).
    """
    if kind == "tag":
        disk = cluster.inode(number)
        if disk is not None and disk.name == raw and disk.tag.hex() == more[0]:
            if disk.is_snapshot:
                cluster.delete(disk)
            else:
                cluster.set_tag(disk, b"")
        return
    try:
        disk = cluster.inode(cluster.find(raw))
    except Failed as failed:
        if failed.result in (wire.NO_VDI, wire.NO_TAG):
            return
        raise
    if disk is None or disk.is_snapshot:
        return
    if (kind == "marked" and disk.size == number) or (kind == "vdi" and disk.vid == number):
        cluster.delete(disk)
    elif kind == "size" and disk.vid == number and disk.size == more[1]:
        cluster.set_size(disk, more[0])
