"""The documents that are neither pool nor volume: secrets, capabilities, and the sources that discovery finds."""

from __future__ import annotations

from typing import ClassVar

from .model import Auth, Extent, SourceHost
from .xmlmap import Effect, Element, simple, xml


class VolumeUsage(Element):
    """The secret belongs to one volume."""

    type: ClassVar[str] = "volume"
    id: str = xml("volume", type=simple.Text, since="0.7.1", effect="acted", doc="Path of the volume.")


class CephUsage(Element):
    """The secret is a cephx key."""

    type: ClassVar[str] = "ceph"
    id: str = xml("name", type=simple.Text, since="0.9.7", effect="acted", doc="Name that pools refer to.")


class IscsiUsage(Element):
    """The secret is a CHAP password."""

    type: ClassVar[str] = "iscsi"
    id: str = xml("target", type=simple.Text, since="1.0.4", effect="acted", doc="Name that pools refer to.")


class TlsUsage(Element):
    """The secret unlocks a TLS key."""

    type: ClassVar[str] = "tls"
    id: str = xml("name", type=simple.Text, since="2.3.0", effect="acted", doc="Name that is referred to.")


class VtpmUsage(Element):
    """The secret encrypts the state of a virtual TPM."""

    type: ClassVar[str] = "vtpm"
    id: str = xml("name", type=simple.Text, since="5.6.0", effect="acted", doc="Name that is referred to.")


class Secret(Element):
    """The description of a secret. Its value is never in a document."""

    tag: ClassVar[str] = "secret"
    block: ClassVar[bool] = True
    ephemeral: bool = xml("@ephemeral", default=False, since="0.7.1", effect="acted", doc="Kept in memory only.")
    private: bool = xml("@private", default=False, since="0.7.1", effect="acted", doc="The value is never given out.")
    uuid: str | None = xml(
        "uuid",
        type=simple.Uuid,
        default=None,
        since="0.7.1",
        effect="acted",
        doc="Identity; made when it is not given.",
    )
    description: str | None = xml(
        "description", type=simple.Free, default=None, since="0.7.1", effect="kept", doc="A text for people."
    )
    usage: VolumeUsage | CephUsage | IscsiUsage | TlsUsage | VtpmUsage | None = xml(
        "usage", default=None, since="0.7.1", doc="What it is for, and the name it is found by."
    )


class CapabilityEnum(Element):
    """The values something can have."""

    block: ClassVar[bool] = True
    name: str = xml("@name", type=simple.Word, since="5.2.0", doc="sourceFormatType or targetFormatType.")
    values: tuple[str, ...] = xml("value", type=simple.Word, default=(), since="5.2.0", doc="Its values.")


class CapabilityOptions(Element):
    """The formats of a pool type, for its source or its volumes."""

    block: ClassVar[bool] = True
    default_format: str | None = xml(
        "defaultFormat/@type", type=simple.Word, default=None, since="5.2.0", doc="The default."
    )
    enums: tuple[CapabilityEnum, ...] = xml("enum", default=(), since="5.2.0", doc="All of them.")


class PoolTypeCapabilities(Element):
    """What is known of one pool type."""

    block: ClassVar[bool] = True
    type: str = xml("@type", type=simple.Word, since="5.2.0", doc="The pool type.")
    supported: bool = xml("@supported", since="5.2.0", doc="Whether its backend is installed.")
    pool_options: CapabilityOptions | None = xml("poolOptions", default=None, since="5.2.0", doc="Source formats.")
    volume_options: CapabilityOptions | None = xml("volOptions", default=None, since="5.2.0", doc="Volume formats.")


class StoragePoolCapabilities(Element):
    """All pool types."""

    tag: ClassVar[str] = "storagepoolCapabilities"
    effect: ClassVar[Effect | None] = "reported"
    block: ClassVar[bool] = True
    pools: tuple[PoolTypeCapabilities, ...] = xml("pool", default=(), since="5.2.0", doc="The pool types.")


class PoolCapabilities(Element):
    """The same under the name that older libvirt documents use."""

    tag: ClassVar[str] = "poolCapabilities"
    effect: ClassVar[Effect | None] = "reported"
    block: ClassVar[bool] = True
    pools: tuple[PoolTypeCapabilities, ...] = xml("pool", default=(), since="5.2.0", doc="The pool types.")


class FoundDevice(Element):
    """A device that belongs to a source."""

    path: str = xml("@path", type=simple.Path, since="0.4.5", doc="Path or name.")
    part_separator: bool | None = xml("@part_separator", default=None, since="1.3.1", doc="As in a disk pool.")
    free_extents: tuple[Extent, ...] = xml("freeExtent", default=(), since="0.4.5", doc="Free space.")


class FoundSource(Element):
    """A source that discovery found, or that tells discovery where to look; it fits into a pool of that type."""

    tag: ClassVar[str] = "source"
    effect: ClassVar[Effect | None] = "reported"
    block: ClassVar[bool] = True
    hosts: tuple[SourceHost, ...] = xml("host", default=(), since="0.4.5", effect="acted", doc="Servers.")
    devices: tuple[FoundDevice, ...] = xml("device", default=(), since="0.4.5", doc="Devices.")
    dir: str | None = xml("dir/@path", type=simple.Path, default=None, since="0.4.5", doc="Exported directory.")
    name: str | None = xml("name", type=simple.Text, default=None, since="0.4.5", doc="Volume group, pool or cluster.")
    initiator: str | None = xml("initiator/iqn/@name", type=simple.Iqn, default=None, since="0.8.8", doc="Initiator.")
    format: str | None = xml("format/@type", type=simple.Word, default=None, since="0.4.5", doc="Format.")
    auth: Auth | None = xml("auth", default=None, since="0.9.7", doc="Login.")
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is.")


class Sources(Element):
    """What discovery found."""

    tag: ClassVar[str] = "sources"
    effect: ClassVar[Effect | None] = "reported"
    block: ClassVar[bool] = True
    sources: tuple[FoundSource, ...] = xml("source", default=(), since="0.4.5", doc="The sources.")
