"""Pools of type ``disk``: a disk whose partitions are the volumes."""

from __future__ import annotations

from typing import ClassVar, Literal

from poolkit.model import Extent, Pool, PoolTarget
from poolkit.xmlmap import Element, simple, xml


class Disk(Element):
    """The disk."""

    path: str = xml("@path", type=simple.Path, since="0.4.1", doc="Path of the disk.")
    part_separator: bool | None = xml(
        "@part_separator", default=None, since="1.3.1", doc="Whether partitions are named with a p before the number."
    )
    free_extents: tuple[Extent, ...] = xml(
        "freeExtent", default=(), compare=False, since="0.4.1", doc="Free space; reported."
    )


class DiskSource(Element):
    """The disk and its partition table."""

    devices: tuple[Disk, ...] = xml("device", min=1, since="0.4.1", doc="The disk; only the first is used.")
    format: Literal["unknown", "dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2"] = xml(
        "format/@type", default="unknown", since="0.4.1", doc="Partition table; unknown takes what is there."
    )
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is; for information.")


class DiskPool(Pool):
    """A partitioned disk of this host."""

    type: ClassVar[str] = "disk"
    source: DiskSource = xml("source", doc="The disk.")
    target: PoolTarget = xml("target", doc="Where the partitions' device nodes are, usually /dev.")
