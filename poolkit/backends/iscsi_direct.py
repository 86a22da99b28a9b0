"""Pools of type ``iscsi-direct``: the logical units of an iSCSI target, reached through libiscsi without a login of the host.

Definitions are read, checked and kept; a pool of type ``iscsi`` logs the host in to the same target.
"""

from __future__ import annotations

from typing import ClassVar

from poolkit.backends.iscsi import IscsiTarget
from poolkit.model import Auth, Pool, SourceHost
from poolkit.xmlmap import Effect, Element, simple, xml


class IscsiDirectSource(Element):
    """The portal, the target, who asks and how to log in."""

    hosts: tuple[SourceHost, ...] = xml("host", min=1, since="4.7.0", doc="Portals; the first is used.")
    devices: tuple[IscsiTarget, ...] = xml("device", min=1, since="4.7.0", doc="The target; only the first is used.")
    initiator: str = xml("initiator/iqn/@name", type=simple.Iqn, since="4.7.0", doc="Name to log in as.")
    auth: Auth | None = xml("auth", default=None, since="4.7.0", doc="CHAP login.")
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is; for information.")


class IscsiDirectPool(Pool):
    """The logical units of one iSCSI target, which machines reach themselves."""

    type: ClassVar[str] = "iscsi-direct"
    first: ClassVar[str | None] = "4.7.0"
    effect: ClassVar[Effect | None] = "kept"
    source: IscsiDirectSource = xml("source", doc="The portal and the target.")
