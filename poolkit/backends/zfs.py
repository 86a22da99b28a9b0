"""Pools of type ``zfs``: a ZFS pool, or a dataset of one, whose zvols are the volumes. Definitions are read and kept."""

from __future__ import annotations

from typing import Any, ClassVar

from poolkit.model import OptionalTarget, Pool, SourceDevice
from poolkit.xmlmap import Effect, Element, replace, simple, xml
from poolkit.xmlmap.rules import at_least_one


class ZfsSource(Element):
    """The ZFS pool or dataset, and the devices that it is made of."""

    devices: tuple[SourceDevice, ...] = xml("device", default=(), since="1.2.8", doc="Devices that build makes it of.")
    name: str | None = xml(
        "name",
        type=simple.Dataset,
        default=None,
        since="1.2.8",
        doc="The ZFS pool, or a dataset of one (tank/machines); the pool's name by default.",
    )
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is; for information.")


class ZfsPool(Pool):
    """The zvols of one ZFS pool or dataset."""

    type: ClassVar[str] = "zfs"
    first: ClassVar[str | None] = "1.2.8"
    effect: ClassVar[Effect | None] = "kept"
    rules = (at_least_one("name", "source.name", paths=("name", "source/name")),)
    name: str = xml(
        "name",
        type=simple.Name,
        source="source.name",
        since="0.4.1",
        effect="acted",
        doc="Name; the last part of the source's by default.",
    )
    source: ZfsSource = xml("source", default=ZfsSource, doc="The ZFS pool and its devices.")
    target: OptionalTarget = xml(
        "target", default=OptionalTarget, doc="/dev/zvol/ and the source's name; what is given is ignored."
    )

    @staticmethod
    def complete(values: dict[str, Any]) -> None:
        """The source's name defaults to the pool's, the pool's to its last part, and the target follows from it."""
        source = values.get("source") or ZfsSource()
        if source.name is None:
            source = replace(source, name=values["name"])
        # A pool's name cannot have the slashes of a dataset: libvirt refuses such a document, which loses nothing here.
        values["name"] = values["name"].rpartition("/")[2]
        values["source"] = source
        values["target"] = replace(values.get("target") or OptionalTarget(), path=f"/dev/zvol/{source.name}")
