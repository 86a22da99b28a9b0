"""Pools of type ``shared-lvm``: an LVM volume group on storage that several hosts see."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from poolkit.backends.logical import PhysicalVolume
from poolkit.model import OptionalTarget, Pool
from poolkit.xmlmap import Effect, Element, replace, simple, xml
from poolkit.xmlmap.rules import at_least_one


class SharedLvmSource(Element):
    """The volume group and how hosts are kept apart."""

    devices: tuple[PhysicalVolume, ...] = xml(
        "device", default=(), doc="Devices, by a name that is the same on every host."
    )
    name: str | None = xml("name", type=simple.Name, default=None, doc="Volume group; the pool's name by default.")
    format: Literal["lvm2"] = xml("format/@type", default="lvm2", doc="LVM version 2.")
    lock: Literal["auto", "lvmlockd", "system-id", "none"] = xml(
        "lock/@type", default="auto", doc="Protection; auto takes the best that the hosts have, none must be asked for."
    )
    attach_record: bool | None = xml(
        "lock/@record",
        default=None,
        doc="Whether an attach is recorded in the volume group (system-id only); yes by default.",
    )
    vendor: str | None = xml("vendor/@name", default=None, doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, doc="What it is; for information.")


class SharedLvmPool(Pool):
    """A volume group that several hosts share."""

    type: ClassVar[str] = "shared-lvm"
    effect: ClassVar[Effect | None] = "kept"
    spare: ClassVar[dict[str, tuple[str, ...]]] = {}
    rules = (at_least_one("name", "source.name", paths=("name", "source/name")),)
    name: str = xml(
        "name", type=simple.Name, source="source.name", effect="acted", doc="Name; the source's by default."
    )
    source: SharedLvmSource = xml("source", default=SharedLvmSource, doc="The volume group and its devices.")
    target: OptionalTarget = xml(
        "target", default=OptionalTarget, doc="/dev/ and the volume group; what is given is ignored."
    )
    flavor: str | None = xml("flavor", type=simple.Word, default=None, doc="Group of pools a volume may be placed in.")

    @staticmethod
    def complete(values: dict[str, Any]) -> None:
        """The source's name defaults to the pool's, and the target follows from it."""
        source = values.get("source") or SharedLvmSource()
        if source.name is None:
            source = replace(source, name=values["name"])
        values["source"] = source
        values["target"] = replace(values.get("target") or OptionalTarget(), path=f"/dev/{source.name}")
