"""Pools of type ``vstorage``: a Virtuozzo Storage cluster that is mounted at a directory. Definitions are read and kept."""

from __future__ import annotations

from typing import Any, ClassVar

from poolkit.model import Pool, PoolTarget
from poolkit.xmlmap import Effect, Element, replace, simple, xml
from poolkit.xmlmap.rules import at_least_one


class VstorageSource(Element):
    """The cluster."""

    name: str | None = xml(
        "name", type=simple.Name, default=None, since="3.1.0", doc="The cluster; the pool's name by default."
    )
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is; for information.")


class VstoragePool(Pool):
    """The files of one Virtuozzo Storage cluster."""

    type: ClassVar[str] = "vstorage"
    first: ClassVar[str | None] = "3.1.0"
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
    source: VstorageSource = xml("source", default=VstorageSource, doc="The cluster.")
    target: PoolTarget = xml("target", doc="The mount point.")

    @staticmethod
    def complete(values: dict[str, Any]) -> None:
        """The source's name defaults to the pool's."""
        source = values.get("source") or VstorageSource()
        values["source"] = source if source.name is not None else replace(source, name=values["name"])
