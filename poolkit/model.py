"""What documents have in common: permissions, targets, hosts, credentials; and the definition of a volume.

A pool's own definition class is in the file of its backend (``poolkit/backends``). Sizes are bytes. Fields that are
reported and not defined (capacity of a pool, key of a volume ...) do not count in equality, so that comparing two
definitions is the diff.
"""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING

from .xmlmap import Element, foreign, simple, xml
from .xmlmap.rules import exactly_one, requires
from .xmlmap.tree import Flag, Words

if TYPE_CHECKING:
    from typing import Any, ClassVar, Literal


POOLKIT_NAMESPACE = "urn:poolkit:pool:1"
POOLKIT_VOLUME_NAMESPACE = "urn:poolkit:volume:1"

# The order is that of libvirt's documentation; what follows "vmdk" is known to libvirt's schema or to poolkit alone.
FILE_FORMATS = (
    "none", "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow", "qcow2", "qed",
    "vmdk", "luks", "vhdx", "unknown",
)  # fmt: skip
PARTITION_FORMATS = ("none", "linux", "fat16", "fat32", "linux-swap", "linux-lvm", "linux-raid", "extended")
FILESYSTEM_FORMATS = (
    "auto", "ext2", "ext3", "ext4", "ufs", "iso9660", "udf", "gfs", "gfs2", "vfat", "hfs+", "xfs", "ocfs2", "vmfs",
)  # fmt: skip
VOLUME_FORMATS = tuple(dict.fromkeys(FILE_FORMATS + PARTITION_FORMATS + FILESYSTEM_FORMATS))
VOLUME_FEATURES = ("lazy_refcounts", "extended_l2", "data_file")


class Permissions(Element):
    """Mode, owner, group and security label of a directory or volume; None means as the system does by default."""

    omit_empty: ClassVar[bool] = True
    mode: int | None = xml(
        "mode",
        type=simple.Mode,
        default=None,
        since="0.4.1",
        effect="acted",
        doc="Permission bits, octal, at most 0777.",
    )
    owner: int | None = xml(
        "owner", type=simple.Owner, default=None, since="0.4.1", effect="acted", doc="Numeric user id; -1 means none."
    )
    group: int | None = xml(
        "group", type=simple.Owner, default=None, since="0.4.1", effect="acted", doc="Numeric group id; -1 means none."
    )
    label: str | None = xml(
        "label", type=simple.Text, default=None, since="0.4.1", effect="kept", doc="SELinux label; kept, not applied."
    )


class Cow(Element):
    """Whether copy-on-write is wanted for the directory; only file systems such as btrfs can turn it off."""

    state: bool = xml("@state", type=simple.YesNo, effect="acted", doc="yes or no.")


class PoolTarget(Element):
    """Where the pool appears on the host."""

    path: str = xml(
        "path", type=simple.AbsPath, since="0.4.1", effect="acted", doc="Directory in which the volumes are found."
    )
    permissions: Permissions = xml(
        "permissions", default=Permissions, since="0.4.1", doc="What build gives the directory; 0711 by default."
    )


class DeviceTarget(PoolTarget):
    """Where the device nodes of the pool's volumes are."""

    permissions: Permissions = xml(
        "permissions", default=Permissions, since="0.4.1", effect="kept", doc="Kept for libvirt's sake."
    )


class OptionalTarget(Element):
    """Where the pool appears on the host, when that follows from the source."""

    path: str | None = xml(
        "path",
        type=simple.Path,
        default=None,
        since="0.4.1",
        effect="kept",
        doc="Directory in which the volumes are found.",
    )
    permissions: Permissions = xml(
        "permissions", default=Permissions, since="0.4.1", effect="kept", doc="Kept for libvirt's sake."
    )


class SourceHost(Element):
    """A server."""

    name: str = xml("@name", type=simple.Host, since="0.4.1", effect="acted", doc="Host name or address.")
    port: int | None = xml(
        "@port", type=simple.Port, default=None, skip=0, since="0.4.1", effect="acted", doc="Port; 0 is the usual one."
    )


_UUID_OR_USAGE = exactly_one("uuid", "usage", paths=("@uuid", "@usage"))


class AuthSecret(Element):
    """Which secret holds the password of a login: by uuid or by usage, never the password itself."""

    rules = (_UUID_OR_USAGE,)
    type: str | None = xml(
        "@type", type=simple.Word, default=None, since="3.0.0", effect="kept", doc="Its kind of use, such as ceph."
    )
    uuid: str | None = xml(
        "@uuid", type=simple.Uuid, default=None, since="0.9.7", effect="acted", doc="The secret's uuid."
    )
    usage: str | None = xml(
        "@usage", type=simple.Text, default=None, since="0.9.7", effect="acted", doc="The secret's usage."
    )


class Auth(Element):
    """How to log in to the server."""

    type: Literal["chap", "ceph"] = xml("@type", since="0.9.7", effect="acted", doc="chap for iSCSI, ceph for cephx.")
    username: str = xml("@username", type=simple.Text, since="0.9.7", effect="acted", doc="User name.")
    secret: AuthSecret = xml("secret", since="0.9.7", doc="Where the password is.")


class SourceDevice(Element):
    """A block device of the host."""

    path: str = xml("@path", type=simple.Path, since="0.4.1", effect="acted", doc="Path of the device.")


class WantedPool(Element):
    """What a folder of documents wants of a pool beyond its definition; what is not said stays as it is."""

    state: Literal["active", "inactive", "absent"] | None = xml(
        "@state",
        default=None,
        effect="acted",
        doc="active, inactive, or absent: then it is stopped and undefined, and its storage stays.",
    )
    autostart: bool | None = xml(
        "@autostart", type=simple.YesNo, default=None, effect="acted", doc="Whether it is marked to be started at boot."
    )
    build: Literal["never", "if-empty"] = xml(
        "@build",
        default="never",
        effect="acted",
        doc="Whether its storage is built before it is started; never over something else.",
    )


# libvirt has one reader for the sources of all pool types, and no type uses all of it.
_ANY_SOURCE = ("host", "device", "dir", "name", "adapter", "initiator", "auth", "format", "protocol")


class Pool(Element):
    """What every pool has. A pool type's class adds ``source``, ``target`` and what else it needs."""

    tag: ClassVar[str] = "pool"
    type: ClassVar[str]
    first: ClassVar[str | None] = None
    """The version of libvirt that first had the type (its formatstorage.html says); None for types that it does not have."""
    local_namespaces: ClassVar[dict[str, str]] = {"pk": POOLKIT_NAMESPACE}
    block: ClassVar[bool] = True
    spare: ClassVar[dict[str, tuple[str, ...]]] = {"": ("target",), "source": _ANY_SOURCE, "target": ("encryption",)}

    name: str = xml(
        "name", type=simple.Name, since="0.4.1", effect="acted", doc="Name of the pool, unique on the host."
    )
    uuid: str | None = xml(
        "uuid",
        type=simple.Uuid,
        default=None,
        since="0.4.1",
        effect="acted",
        doc="Identity of the pool; made when it is not given.",
    )
    capacity: int = xml(
        "capacity", type=simple.Size, default=0, reported=True, since="0.4.1", doc="Size of the storage; reported only."
    )
    allocation: int = xml(
        "allocation", type=simple.Size, default=0, reported=True, since="0.4.1", doc="Space in use; reported only."
    )
    available: int = xml(
        "available", type=simple.Size, default=0, reported=True, since="0.4.1", doc="Space left; reported only."
    )
    wanted: WantedPool | None = xml(
        "pk:wanted",
        default=None,
        beside=True,
        effect="acted",
        doc="What plan and apply are to make of the pool; no part of its definition, and not stored.",
    )
    metadata: tuple[str, ...] = foreign(
        default=(), doc="<metadata> and elements of other name spaces, kept as they are."
    )


def vendor() -> Any:
    """The field ``vendor`` of a source, anew for each class: in the order of elements it comes last but one."""
    return xml("vendor/@name", default=None, since="0.8.4", effect="kept", doc="Who made the storage; for information.")


def product() -> Any:
    """The field ``product`` of a source, anew for each class: in the order of elements it comes last."""
    return xml("product/@name", default=None, since="0.8.4", effect="kept", doc="What it is; for information.")


class PlainSource(Element):
    """The source of a pool that has none but may carry its maker."""

    vendor: str | None = vendor()
    product: str | None = product()


class VolumeSecret(Element):
    """The passphrase of an encrypted volume."""

    rules = (_UUID_OR_USAGE,)
    type: Literal["passphrase"] = xml(
        "@type", default="passphrase", since="0.7.1", effect="acted", doc="Always passphrase."
    )
    uuid: str | None = xml(
        "@uuid", type=simple.Uuid, default=None, since="0.7.1", effect="acted", doc="The secret's uuid."
    )
    usage: str | None = xml(
        "@usage", type=simple.Text, default=None, since="2.1.0", effect="acted", doc="The secret's usage."
    )


class Cipher(Element):
    """The cipher of an encrypted volume."""

    name: str = xml("@name", since="2.1.0", effect="acted", doc="Cipher, such as aes.")
    size: int = xml("@size", type=simple.UInt, since="2.1.0", effect="acted", doc="Key size in bits.")
    mode: str | None = xml("@mode", default=None, since="2.1.0", effect="acted", doc="Mode, such as cbc or xts.")
    hash: str | None = xml("@hash", default=None, since="2.1.0", effect="acted", doc="Hash, such as sha256.")


class IvGenerator(Element):
    """How an encrypted volume makes its initialisation vectors."""

    name: str = xml("@name", since="2.1.0", effect="acted", doc="Generator, such as plain64 or essiv.")
    hash: str | None = xml("@hash", default=None, since="2.1.0", effect="acted", doc="Hash, such as sha256.")


class Encryption(Element):
    """Encryption of a volume."""

    rules = (requires("ivgen", "cipher", paths=("ivgen", "cipher")),)
    block: ClassVar[bool] = True
    format: Literal["default", "qcow", "luks", "luks2", "luks-any"] = xml(
        "@format", since="0.7.1", effect="acted", doc="Kind of encryption."
    )
    engine: Literal["qemu", "librbd"] | None = xml(
        "@engine", default=None, since="7.9.0", effect="acted", doc="Who encrypts."
    )
    secrets: tuple[VolumeSecret, ...] = xml(
        "secret", default=(), since="0.7.1", doc="Its passphrases; several for layers."
    )
    cipher: Cipher | None = xml("cipher", default=None, since="2.1.0", doc="Cipher; the format's own by default.")
    ivgen: IvGenerator | None = xml("ivgen", default=None, since="2.1.0", doc="Generator of initialisation vectors.")


class Timestamps(Element):
    """Times of a volume, in seconds since 1970 with up to nine decimals, as text so that no digit is lost."""

    block: ClassVar[bool] = True
    atime: str | None = xml("atime", type=simple.Stamp, default=None, since="0.10.0", effect="acted", doc="Last read.")
    mtime: str | None = xml(
        "mtime", type=simple.Stamp, default=None, since="0.10.0", effect="acted", doc="Last change of the data."
    )
    ctime: str | None = xml(
        "ctime", type=simple.Stamp, default=None, since="0.10.0", effect="acted", doc="Last change of the inode."
    )
    btime: str | None = xml(
        "btime", type=simple.Stamp, default=None, since="0.10.0", effect="acted", doc="Birth, where it is known."
    )


class VolumeFeatures(Element):
    """What a qcow2 image can do that its first version could not. libvirt prints it, empty or not, for the newer version."""

    words: tuple[str, ...] = xml(
        "*", type=Words(*VOLUME_FEATURES), default=(), since="1.1.0", effect="acted", doc="Features of a qcow2 image."
    )


class VolumeTarget(Element):
    """Where the volume is and what it is."""

    path: str | None = xml(
        "path",
        type=simple.Path,
        default=None,
        since="0.4.1",
        effect="kept",
        doc="Its path or address; the pool decides it.",
    )
    format: str | None = xml(
        "format/@type",
        type=simple.choice(*VOLUME_FORMATS),
        default=None,
        since="0.4.1",
        effect="acted",
        doc="Format; the pool type's by default.",
    )
    permissions: Permissions = xml(
        "permissions", default=Permissions, since="0.4.1", doc="Mode and owner; 0600 by default."
    )
    timestamps: Timestamps | None = xml(
        "timestamps", default=None, reported=True, since="0.10.0", doc="Times of the volume; reported only."
    )
    encryption: Encryption | None = xml("encryption", default=None, since="0.7.1", doc="Encryption of the volume.")
    compat: str | None = xml(
        "compat", type=simple.Version, default=None, since="1.1.0", effect="acted", doc="qcow2 version: 0.10 or 1.1."
    )
    nocow: bool = xml(
        "nocow",
        type=Flag,
        default=False,
        since="1.2.7",
        effect="acted",
        doc="Turn copy-on-write off for the file (btrfs).",
    )
    cluster_size: int | None = xml(
        "clusterSize",
        type=simple.Size,
        default=None,
        skip=0,
        unit="B",
        since="7.4.0",
        effect="acted",
        doc="qcow2 cluster size.",
    )
    features: VolumeFeatures | None = xml(
        "features", default=None, since="1.1.0", doc="Features of a qcow2 image; empty means that it may have some."
    )

    @property
    def feature_words(self) -> tuple[str, ...]:
        """The features that are named."""
        return self.features.words if self.features is not None else ()


class BackingStore(Element):
    """The image a volume is an overlay of; without a path there is none."""

    absent_without: ClassVar[str] = "path"

    path: str = xml(
        "path", type=simple.Text, since="0.6.0", effect="acted", doc="Path or address of the backing image."
    )
    format: str | None = xml(
        "format/@type",
        type=simple.choice(*VOLUME_FORMATS),
        default=None,
        since="0.6.0",
        effect="acted",
        doc="Format of the backing image.",
    )
    permissions: Permissions = xml(
        "permissions", default=Permissions, since="0.6.0", effect="kept", doc="Its mode and owner."
    )
    timestamps: Timestamps | None = xml("timestamps", default=None, reported=True, since="0.10.0", doc="Its times.")


class Extent(Element):
    """A piece of a device, in bytes from its start."""

    start: int = xml("@start", type=simple.ULong, since="0.4.1", effect="acted", doc="First byte.")
    end: int = xml("@end", type=simple.ULong, since="0.4.1", effect="acted", doc="Byte after the last.")


class VolumeDevice(Element):
    """A device that holds a part of the volume."""

    block: ClassVar[bool] = True
    path: str = xml("@path", type=simple.Path, since="0.4.1", effect="acted", doc="Path of the device.")
    extents: tuple[Extent, ...] = xml("extent", default=(), since="0.4.1", doc="The pieces it holds.")


class VolumeSource(Element):
    """What the volume consists of; reported by the pool types disk and logical."""

    omit_empty: ClassVar[bool] = True
    devices: tuple[VolumeDevice, ...] = xml("device", default=(), since="0.4.1", doc="Devices and extents.")


class RbdImage(Element):
    """What a new image of a pool of type rbd is to be, beyond its size; what is not said is the cluster's to choose."""

    object_size: int | None = xml(
        "@object_size", type=simple.Size, default=None, effect="acted", doc="Size of its objects, a power of two."
    )
    features: str | None = xml(
        "@features", type=simple.Text, default=None, effect="acted", doc="Its features, with commas between."
    )
    data_pool: str | None = xml(
        "@data_pool", type=simple.Name, default=None, effect="acted", doc="The Ceph pool that holds its data."
    )
    stripe_unit: int | None = xml(
        "@stripe_unit", type=simple.Size, default=None, effect="acted", doc="Bytes of a stripe in one object."
    )
    stripe_count: int | None = xml(
        "@stripe_count", type=simple.UInt, default=None, effect="acted", doc="Objects that a stripe goes over."
    )


class Layout(Element):
    """How a logical volume lies on the devices of its group; linear without one. Both make a RAID 10."""

    stripes: int | None = xml(
        "@stripes",
        type=simple.UInt,
        default=None,
        effect="acted",
        doc="Number of devices that its data is spread over.",
    )
    mirrors: int | None = xml(
        "@mirrors", type=simple.UInt, default=None, effect="acted", doc="Number of further copies on other devices."
    )


class WantedVolume(Element):
    """What a folder of documents wants of a volume beyond its definition."""

    pool: str | None = xml(
        "@pool",
        type=simple.Name,
        default=None,
        effect="acted",
        doc="Name of its pool; the name of the folder that the document is in by default.",
    )
    state: Literal["present", "absent"] = xml(
        "@state", default="present", effect="acted", doc="present, or absent: then it is deleted, with its data."
    )


class VolumeContent(Element):
    """Where the content of a volume comes from when it is made; the content of one that is there is not looked at."""

    rules = (exactly_one("file", "volume", paths=("@file", "@volume")),)
    file: str | None = xml(
        "@file",
        type=simple.Path,
        default=None,
        effect="acted",
        doc="Path of an image; a relative one begins at the folder of the document.",
    )
    volume: str | None = xml("@volume", type=simple.VolumeName, default=None, effect="acted", doc="Name of a volume.")
    pool: str | None = xml(
        "@pool", type=simple.Name, default=None, effect="acted", doc="The pool of that volume; its own by default."
    )
    checksum: str | None = xml(
        "@checksum", type=simple.Text, default=None, effect="acted", doc="Of the file: sha256:HEX or sha512:HEX."
    )


class Volume(Element):
    """A volume of any pool type.

    ``capacity`` None means not given (from a backing image or another volume); ``allocation`` None means the whole
    capacity, and is printed so.
    """

    tag: ClassVar[str] = "volume"
    local_namespaces: ClassVar[dict[str, str]] = {"pkv": POOLKIT_VOLUME_NAMESPACE}
    block: ClassVar[bool] = True

    type: Literal["file", "block", "dir", "network", "netdir", "ploop"] | None = xml(
        "@type", default=None, reported=True, since="1.2.0", doc="What the volume is on the host; reported only."
    )
    name: str = xml(
        "name", type=simple.VolumeName, since="0.4.1", effect="acted", doc="Name of the volume, unique in its pool."
    )
    key: str | None = xml(
        "key", default=None, reported=True, since="0.4.1", doc="Identity of the volume; reported only."
    )
    source: VolumeSource = xml(
        "source",
        default=VolumeSource,
        reported=True,
        since="0.4.1",
        doc="Devices and extents; reported only.",
    )
    capacity: int | None = xml(
        "capacity",
        type=simple.Size,
        default=None,
        fallback=0,
        since="0.4.1",
        effect="acted",
        doc="Size that a machine sees.",
    )
    allocation: int | None = xml(
        "allocation",
        type=simple.Size,
        default=None,
        fallback="capacity",
        since="0.4.1",
        effect="acted",
        doc="Space to reserve; all by default.",
    )
    physical: int | None = xml(
        "physical",
        type=simple.Size,
        default=None,
        skip=0,
        reported=True,
        since="3.0.0",
        doc="Size on the host; reported only.",
    )
    target: VolumeTarget = xml("target", default=VolumeTarget, always=True, since="0.4.1", doc="Place and format.")
    backing_store: BackingStore | None = xml(
        "backingStore", default=None, since="0.6.0", doc="The image below this one."
    )
    rbd: RbdImage | None = xml("pkv:rbd", default=None, doc="How to make an image of RBD.")
    layout: Layout | None = xml(
        "pkv:layout", default=None, doc="How a logical volume lies on its devices; other pool types refuse it."
    )
    wanted: WantedVolume | None = xml(
        "pkv:wanted",
        default=None,
        beside=True,
        effect="acted",
        doc="What plan and apply are to make of the volume; vol-create leaves it out.",
    )
    content: VolumeContent | None = xml(
        "pkv:content",
        default=None,
        beside=True,
        effect="acted",
        doc="Where plan and apply take its content from; vol-create leaves it out.",
    )

    @staticmethod
    def complete(values: dict[str, Any]) -> None:
        """Features need the newer qcow2 version, which libvirt then fills in."""
        target = values.get("target")
        if target is not None and target.features is not None and target.compat is None:
            from .xmlmap import replace

            values["target"] = replace(target, compat="1.1")
