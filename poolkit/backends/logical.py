"""Pools of type ``logical``: an LVM volume group whose logical volumes are the volumes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from poolkit.model import Extent, OptionalTarget, Pool
from poolkit.xmlmap import Element, replace, simple, xml
from poolkit.xmlmap.rules import at_least_one


class PhysicalVolume(Element):
    """A device of the volume group."""

    path: str = xml("@path", type=simple.Path, since="0.4.1", doc="Path of the device.")
    free_extents: tuple[Extent, ...] = xml(
        "freeExtent", default=(), compare=False, since="0.4.1", doc="Free space; reported."
    )


class LogicalSource(Element):
    """The volume group."""

    devices: tuple[PhysicalVolume, ...] = xml(
        "device", default=(), since="0.4.1", doc="Devices that build makes it of."
    )
    name: str | None = xml(
        "name", type=simple.Name, default=None, since="0.4.5", doc="Volume group; the pool's name by default."
    )
    format: Literal["lvm2", "unknown"] = xml("format/@type", default="lvm2", since="0.4.1", doc="LVM version 2.")
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is; for information.")


class LogicalPool(Pool):
    """A volume group of this host."""

    type: ClassVar[str] = "logical"
    rules = (at_least_one("name", "source.name", paths=("name", "source/name")),)
    name: str = xml("name", type=simple.Name, source="source.name", since="0.4.1", doc="Name; the source's by default.")
    source: LogicalSource = xml("source", default=LogicalSource, doc="The volume group and its devices.")
    target: OptionalTarget = xml(
        "target", default=OptionalTarget, doc="/dev/ and the volume group; what is given is ignored."
    )

    @staticmethod
    def complete(values: dict[str, Any]) -> None:
        """The source's name defaults to the pool's, and the target follows from it."""
        source = values.get("source") or LogicalSource()
        if source.name is None:
            source = replace(source, name=values["name"])
        values["source"] = source
        values["target"] = replace(values.get("target") or OptionalTarget(), path=f"/dev/{source.name}")
