"""The documents that are neither pool nor volume: secrets, capabilities, and the sources that discovery finds."""

from __future__ import annotations

from typing import ClassVar, Literal

from .model import Auth, Extent, SourceHost
from .xmlmap import Effect, Element, simple, xml
from .xmlmap.rules import exactly_one

_NAMESPACE = "urn:poolkit:secret:1"
_RATIO = simple.Simple(
    "ratio", pattern=r"[1-9][0-9]{0,3}(\.[0-9]{1,3})?", expected="a ratio of at least 1, such as 1.5", to=float,
    form=lambda value: f"{value:g}",
)  # fmt: skip
_PERCENT = simple.Simple(
    "percent", pattern="[0-9]{1,2}", low=0, high=99, expected="a whole number of percent from 0 to 99", to=int
)


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


class SmbUsage(Element):
    """The secret is the password of a user of SMB. A type of poolkit's own."""

    type: ClassVar[str] = "smb"
    id: str = xml("name", type=simple.Text, effect="acted", doc="Name that pools refer to.")


class XapiUsage(Element):
    """The secret is the password of a user of XAPI, or belongs to a storage repository. A type of poolkit's own."""

    type: ClassVar[str] = "xapi"
    id: str = xml("name", type=simple.Text, effect="acted", doc="Name that pools refer to.")


class ValueSource(Element):
    """Where the value is, if poolkit does not keep it: read anew whenever it is needed."""

    rules = (exactly_one("file", "credential", paths=("@file", "@credential")),)
    file: str | None = xml(
        "@file", type=simple.AbsPath, default=None, effect="acted", doc="A file that only its owner can read."
    )
    credential: str | None = xml(
        "@credential", type=simple.Word, default=None, effect="acted", doc="A credential of the systemd service."
    )


class WantedPresence(Element):
    """What a folder of documents wants of a secret or flavor beyond its definition."""

    state: Literal["present", "absent"] = xml(
        "@state",
        default="present",
        effect="acted",
        doc="present, or absent: then it is deleted, a secret with its value.",
    )


class Secret(Element):
    """The description of a secret. Its value is never in a document."""

    tag: ClassVar[str] = "secret"
    local_namespaces: ClassVar[dict[str, str]] = {"pks": _NAMESPACE}
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
    usage: VolumeUsage | CephUsage | IscsiUsage | TlsUsage | VtpmUsage | SmbUsage | XapiUsage | None = xml(
        "usage", default=None, since="0.7.1", doc="What it is for, and the name it is found by."
    )
    value: ValueSource | None = xml("pks:value", default=None, doc="Where the value is, if it is not to be kept here.")
    wanted: WantedPresence | None = xml(
        "pks:wanted", default=None, beside=True, effect="acted",
        doc="What plan and apply are to make of the secret; no part of its description, and not stored.",
    )  # fmt: skip


class FlavorCapability(Element):
    """Something that volumes must be able to have or do."""

    name: Literal["thin", "clone", "resize", "snapshot", "shared", "encryption"] = xml(
        "@name", effect="acted", doc="What a backend must offer."
    )


class FlavorNeeds(Element):
    """What a backend must offer to be used."""

    omit_empty: ClassVar[bool] = True
    capabilities: tuple[FlavorCapability, ...] = xml("capability", default=(), doc="Abilities, all of them.")
    format: str | None = xml(
        "format/@type", type=simple.Word, default=None, effect="acted", doc="Format that its volumes can have."
    )


class FlavorBackend(Element):
    """A pool in which volumes may be placed."""

    pool: str = xml("@pool", type=simple.Name, effect="acted", doc="Name of the pool.")
    priority: int = xml(
        "@priority", type=simple.UInt, default=0, skip=0, effect="acted",
        doc="Backends with a lower number are tried first; the policy decides among those of one number.",
    )  # fmt: skip
    ratio: float = xml(
        "@ratio", type=_RATIO, default=1.0, skip=1.0, effect="acted",
        doc="How much capacity thin volumes may have in all, as a multiple of what is not reserved.",
    )  # fmt: skip
    reserve: int = xml(
        "@reserve", type=_PERCENT, default=0, skip=0, effect="acted", doc="Percent of the pool that stay free."
    )
    drained: bool = xml(
        "@drained", default=False, skip=False, effect="acted", doc="Whether it gets no new volumes; those there stay."
    )
    number: int | None = xml(
        "@number", type=simple.UInt, default=None, effect="acted",
        doc="What sm calls it by, given out by sm backend-add.",
    )  # fmt: skip


class Flavor(Element):
    """A kind of storage under one name, and the pools that a volume of that kind is placed in."""

    tag: ClassVar[str] = "flavor"
    block: ClassVar[bool] = True
    name: str = xml("name", type=simple.Name, effect="acted", doc="Name of the flavor.")
    description: str | None = xml(
        "description", type=simple.Free, default=None, effect="kept", doc="A text for people."
    )
    policy: Literal["first-fit", "most-free", "best-fit", "round-robin"] = xml(
        "policy/@type", default="first-fit", effect="acted", doc="Which backend of one priority is tried first."
    )
    needs: FlavorNeeds = xml("requires", default=FlavorNeeds, doc="What each backend must offer.")
    backends: tuple[FlavorBackend, ...] = xml("backend", default=(), doc="The pools, in order.")
    wanted: WantedPresence | None = xml(
        "wanted", default=None, beside=True, effect="acted",
        doc="What plan and apply are to make of the flavor; no part of it, and not stored.",
    )  # fmt: skip


class Documents(Element):
    """Several documents in one file. Each is read as a document of its own (:mod:`poolkit.engine.plan.several`)."""

    tag: ClassVar[str] = "documents"
    holds: ClassVar[tuple[str, ...]] = ("pool", "volume", "secret", "flavor")


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
