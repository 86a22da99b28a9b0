"""Pools of type ``mpath``: the multipath devices of the host."""

from __future__ import annotations

from typing import ClassVar

from poolkit.model import PlainSource, Pool, PoolTarget
from poolkit.xmlmap import Effect, xml


class MpathPool(Pool):
    """All multipath devices of this host."""

    type: ClassVar[str] = "mpath"
    first: ClassVar[str | None] = "0.7.1"
    effect: ClassVar[Effect | None] = "kept"
    source: PlainSource = xml("source", default=PlainSource, always=True, doc="Vendor and product only.")
    target: PoolTarget = xml("target", doc="Where the devices are, usually /dev/mapper.")
