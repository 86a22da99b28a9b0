"""Pools of type ``rbd``: a Ceph pool whose RBD images are the volumes."""

from __future__ import annotations

from typing import ClassVar, Literal

from poolkit.model import Auth, Pool, SourceHost
from poolkit.xmlmap import Effect, Element, simple, xml

RBD_NAMESPACE = "http://libvirt.org/schemas/storagepool/rbd/1.0"


class CephOption(Element):
    """One option of the Ceph client."""

    name: str = xml("@name", type=simple.Text, since="5.1.0", doc="Option, such as client_mount_timeout.")
    value: str = xml("@value", type=simple.Text, since="5.1.0", doc="Its value.")


class RbdSource(Element):
    """The monitors, the Ceph pool and how to log in."""

    hosts: tuple[SourceHost, ...] = xml("host", min=1, since="0.9.13", doc="Monitors of the cluster.")
    name: str = xml("name", type=simple.Name, since="0.9.13", doc="Name of the Ceph pool.")
    auth: Auth | None = xml("auth", default=None, since="0.9.13", doc="cephx login.")
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is; for information.")


class RbdPool(Pool):
    """The images of one Ceph pool."""

    type: ClassVar[str] = "rbd"
    first: ClassVar[str | None] = "0.9.13"
    effect: ClassVar[Effect | None] = "kept"
    namespaces: ClassVar[dict[str, str]] = {"rbd": RBD_NAMESPACE}
    name: str = xml(
        "name",
        type=simple.Name,
        source="source.name",
        since="0.4.1",
        effect="acted",
        doc="Name; the source's by default.",
    )
    source: RbdSource = xml("source", doc="The cluster and its pool.")
    refresh_allocation: Literal["default", "capacity"] | None = xml(
        "refresh/volume/@allocation",
        default=None,
        since="5.2.0",
        doc="How allocation is told: counted (default) or taken as the capacity, which is quick.",
    )
    config_options: tuple[CephOption, ...] = xml(
        "rbd:config_opts/rbd:option", default=(), since="5.1.0", doc="Options of the Ceph client."
    )
