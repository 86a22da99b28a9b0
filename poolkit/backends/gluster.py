"""Pools of type ``gluster``: a Gluster volume whose files are the volumes, reached through libgfapi without a mount.

Definitions are read, checked and kept; a pool of type ``netfs`` with format ``glusterfs`` mounts the same storage.
"""

from __future__ import annotations

from typing import Any, ClassVar

from poolkit.model import Pool, SourceHost
from poolkit.xmlmap import Effect, Element, replace, simple, xml
from poolkit.xmlmap.rules import at_least_one


class GlusterSource(Element):
    """The servers, the Gluster volume and a directory in it."""

    hosts: tuple[SourceHost, ...] = xml("host", min=1, since="1.2.0", doc="Servers of the Gluster volume.")
    dir: str = xml("dir/@path", type=simple.Path, default="/", since="1.2.0", doc="Directory in the Gluster volume.")
    name: str | None = xml(
        "name", type=simple.Name, default=None, since="1.2.0", doc="The Gluster volume; the pool's name by default."
    )
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is; for information.")


class GlusterPool(Pool):
    """The files of one directory of a Gluster volume."""

    type: ClassVar[str] = "gluster"
    first: ClassVar[str | None] = "1.2.0"
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
    source: GlusterSource = xml("source", doc="The Gluster volume.")

    @staticmethod
    def complete(values: dict[str, Any]) -> None:
        """The source's name defaults to the pool's."""
        if values["source"].name is None:
            values["source"] = replace(values["source"], name=values["name"])
