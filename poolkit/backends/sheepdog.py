"""Pools of type ``sheepdog``: a Sheepdog cluster whose virtual disks are the volumes."""

from __future__ import annotations

from typing import Any, ClassVar

from poolkit.model import Pool, SourceHost
from poolkit.xmlmap import Effect, Element, replace, simple, xml
from poolkit.xmlmap.rules import at_least_one


class SheepdogSource(Element):
    """The gateway and the cluster's name."""

    hosts: tuple[SourceHost, ...] = xml("host", min=1, since="0.9.13", doc="A node of the cluster; the first is used.")
    name: str | None = xml(
        "name", type=simple.Name, default=None, since="0.9.13", doc="Name of the cluster; the pool's name by default."
    )
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is; for information.")


class SheepdogPool(Pool):
    """The virtual disks of one Sheepdog cluster."""

    type: ClassVar[str] = "sheepdog"
    first: ClassVar[str | None] = "0.10.0"
    effect: ClassVar[Effect | None] = "kept"
    rules = (at_least_one("name", "source.name", paths=("name", "source/name")),)
    name: str = xml(
        "name",
        type=simple.Name,
        source="source.name",
        since="0.4.1",
        effect="acted",
        doc="Name; the source's by default.",
    )
    source: SheepdogSource = xml("source", doc="The cluster.")

    @staticmethod
    def complete(values: dict[str, Any]) -> None:
        """The source's name defaults to the pool's."""
        if values["source"].name is None:
            values["source"] = replace(values["source"], name=values["name"])
