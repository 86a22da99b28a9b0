"""Pools of type ``dir``: the files of a directory that is there already or that ``build`` makes."""

from __future__ import annotations

from typing import ClassVar

from poolkit.model import Permissions, PlainSource, Pool, PoolTarget
from poolkit.xmlmap import xml


class DirPool(Pool):
    """A directory whose files are the volumes."""

    type: ClassVar[str] = "dir"
    cow: bool | None = xml("features/cow/@state", default=None, since="6.6.0", doc="Whether files are copied on write.")
    source: PlainSource = xml("source", default=PlainSource, always=True, doc="Vendor and product only.")
    target: PoolTarget = xml("target", always=True, doc="The directory.")
    volume_defaults: Permissions | None = xml(
        "pk:volumes/pk:permissions", default=None, doc="Mode, owner and group of new volumes that do not say their own."
    )
