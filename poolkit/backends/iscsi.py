"""Pools of type ``iscsi``: an iSCSI target whose logical units are the volumes."""

from __future__ import annotations

from typing import ClassVar

from poolkit.model import Auth, Pool, PoolTarget, SourceHost
from poolkit.xmlmap import Effect, Element, simple, xml


class IscsiTarget(Element):
    """The target's name."""

    path: str = xml("@path", type=simple.Iqn, since="0.4.1", doc="iSCSI qualified name of the target.")


class IscsiSource(Element):
    """The portal, the target and how to log in."""

    hosts: tuple[SourceHost, ...] = xml("host", min=1, since="0.4.1", doc="Portals; the first is used.")
    devices: tuple[IscsiTarget, ...] = xml("device", min=1, since="0.4.1", doc="The target; only the first is used.")
    initiator: str | None = xml(
        "initiator/iqn/@name",
        type=simple.Iqn,
        default=None,
        since="0.8.8",
        doc="Name to log in as; the host's by default.",
    )
    auth: Auth | None = xml("auth", default=None, since="0.9.7", doc="CHAP login.")
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is; for information.")


class IscsiPool(Pool):
    """The logical units of one iSCSI target."""

    type: ClassVar[str] = "iscsi"
    first: ClassVar[str | None] = "0.4.1"
    effect: ClassVar[Effect | None] = "kept"
    source: IscsiSource = xml("source", doc="The portal and the target.")
    target: PoolTarget = xml("target", doc="Where stable device names are, usually /dev/disk/by-path.")
