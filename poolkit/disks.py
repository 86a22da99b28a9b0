"""How a machine uses a volume: libvirt's ``<disk>`` element and the node that QEMU's ``-blockdev`` takes.

What a backend says of a volume (:meth:`poolkit.backend.Backend.disk_source`) is one of the sources here; both forms come from it.
The elements are only ever written: names of volumes and servers are escaped by the mapping like those of any other document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from .errors import Unsupported
from .formats import qemu_driver
from .model import Encryption
from .xmlmap import Effect, Element, simple, xml
from .xmlmap.rules import exactly_one
from .xmlmap.tree import Flag

DRIVERS = ("raw", "bochs", "cloop", "dmg", "vpc", "vdi", "ploop", "cow", "qcow", "qcow2", "qed", "vmdk")
"""The values of ``<driver type=…>`` that a format of ours can become (libvirt's ``storageFormat``); it has none for vhdx."""

PORTS = {"sheepdog": 7000, "iscsi": 3260, "gluster": 24007}
"""The port that a server of a protocol has where none is said: QEMU demands one. Ceph's monitors have two usual ones."""

Cache = Literal["none", "writeback", "writethrough", "directsync", "unsafe"]
CACHES: tuple[Cache, ...] = ("none", "writeback", "writethrough", "directsync", "unsafe")
Io = Literal["native", "threads", "io_uring"]


class DiskHost(Element):
    """A server of a network disk."""

    name: str = xml("@name", type=simple.Host, since="0.8.7", doc="Host name or address.")
    port: int | None = xml("@port", type=simple.Port, default=None, skip=0, since="0.8.7", doc="Port.")


class DiskSecret(Element):
    """Which of libvirt's secrets holds the password or key."""

    rules = (exactly_one("uuid", "usage", paths=("@uuid", "@usage")),)
    type: Literal["ceph", "iscsi"] = xml("@type", since="0.9.7", doc="What it is for.")
    uuid: str | None = xml("@uuid", type=simple.Uuid, default=None, since="0.9.7", doc="Its uuid.")
    usage: str | None = xml("@usage", type=simple.Text, default=None, since="0.9.7", doc="Its usage.")


class DiskAuth(Element):
    """How the machine logs in to the server."""

    username: str = xml("@username", type=simple.Text, since="0.9.7", doc="User name.")
    secret: DiskSecret = xml("secret", since="0.9.7", doc="Where the password is.")


class FileSource(Element):
    """A file of this host."""

    file: str = xml("@file", type=simple.AbsPath, since="0.4.1", doc="Its path.")
    encryption: Encryption | None = xml("encryption", default=None, since="3.9.0", doc="How it is encrypted.")

    def node(self, name: str) -> dict[str, Any]:
        """QEMU's node of the bytes; ``name`` is what the ids of secrets begin with."""
        return {"driver": "file", "filename": self.file}


class BlockSource(Element):
    """A block device of this host."""

    dev: str = xml("@dev", type=simple.AbsPath, since="0.4.1", doc="Its path.")
    encryption: Encryption | None = xml("encryption", default=None, since="3.9.0", doc="How it is encrypted.")

    def node(self, name: str) -> dict[str, Any]:
        """QEMU's node of the bytes; ``name`` is what the ids of secrets begin with."""
        return {"driver": "host_device", "filename": self.dev}


class NetworkSource(Element):
    """An image or logical unit that the machine reaches over the network itself.

    ``name`` is libvirt's: ``pool/image`` or ``pool/namespace/image`` (rbd), the virtual disk (sheepdog), ``target/lun`` (iscsi),
    ``volume/path`` (gluster).
    """

    protocol: Literal["rbd", "sheepdog", "iscsi", "gluster"] = xml("@protocol", since="0.8.7", doc="Its protocol.")
    name: str = xml("@name", type=simple.Text, since="0.8.7", doc="Its name there.")
    hosts: tuple[DiskHost, ...] = xml("host", default=(), since="0.8.7", doc="Servers, monitors or portals.")
    snapshot: str | None = xml("snapshot/@name", type=simple.Text, default=None, since="1.2.9", doc="Snapshot (rbd).")
    auth: DiskAuth | None = xml("auth", default=None, since="3.9.0", doc="Login.")
    initiator: str | None = xml(
        "initiator/iqn/@name", type=simple.Iqn, default=None, since="4.7.0", doc="Name to log in as (iscsi)."
    )
    encryption: Encryption | None = xml("encryption", default=None, since="3.9.0", doc="How it is encrypted.")

    def node(self, name: str) -> dict[str, Any]:
        """QEMU's node of the bytes; ``name`` is what the ids of secrets begin with."""
        return _NODES[self.protocol](self, f"{name}-auth")

    def servers(self) -> list[dict[str, str]]:
        """The servers as QEMU's ``InetSocketAddress``, which demands a port and has it as text."""
        if not self.hosts:
            raise Unsupported(f"the {self.protocol} disk '{self.name}' names no server, which QEMU demands")
        return [{"host": h.name.strip("[]"), "port": str(h.port or PORTS[self.protocol])} for h in self.hosts]


def _rbd(source: NetworkSource, secret: str) -> dict[str, Any]:
    pool, _, rest = source.name.partition("/")
    namespace, _, image = rest.rpartition("/")
    node: dict[str, Any] = {"driver": "rbd", "pool": pool, "image": image}
    if namespace:
        node["namespace"] = namespace
    if source.snapshot is not None:
        node["snapshot"] = source.snapshot
    # librados finds both kinds of monitors' ports by itself; QEMU wants one: 6789 speaks the older protocol to every release.
    if source.hosts:
        node["server"] = [{"host": h.name.strip("[]"), "port": str(h.port or 6789)} for h in source.hosts]
    if source.auth is not None:
        node |= {"user": source.auth.username, "key-secret": secret}
    return node


def _sheepdog(source: NetworkSource, secret: str) -> dict[str, Any]:
    return {"driver": "sheepdog", "server": {"type": "inet", **source.servers()[0]}, "vdi": source.name}


def _iscsi(source: NetworkSource, secret: str) -> dict[str, Any]:
    target, _, unit = source.name.rpartition("/")
    server = source.servers()[0]
    host = f"[{server['host']}]" if ":" in server["host"] else server["host"]
    node: dict[str, Any] = {
        "driver": "iscsi", "transport": "tcp", "portal": f"{host}:{server['port']}", "target": target, "lun": int(unit),
    }  # fmt: skip
    if source.initiator is not None:
        node["initiator-name"] = source.initiator
    if source.auth is not None:
        node |= {"user": source.auth.username, "password-secret": secret}
    return node


def _gluster(source: NetworkSource, secret: str) -> dict[str, Any]:
    volume, _, path = source.name.partition("/")
    servers = [{"type": "inet", **server} for server in source.servers()]
    return {"driver": "gluster", "volume": volume, "path": path, "server": servers}


_NODES = {"rbd": _rbd, "sheepdog": _sheepdog, "iscsi": _iscsi, "gluster": _gluster}


class PoolSource(Element):
    """A volume by its pool: the machine's libvirt must have a pool of that name."""

    pool: str = xml("@pool", type=simple.Name, since="1.0.5", doc="The pool.")
    volume: str = xml("@volume", type=simple.VolumeName, since="1.0.5", doc="The volume.")
    encryption: Encryption | None = xml("encryption", default=None, since="3.9.0", doc="How it is encrypted.")


Source = FileSource | BlockSource | NetworkSource
"""Where the bytes of a volume are for a machine."""


class Driver(Element):
    """How QEMU opens the disk."""

    name: Literal["qemu"] = xml("@name", default="qemu", since="0.4.1", doc="Always qemu.")
    type: str = xml("@type", type=simple.choice(*DRIVERS), since="0.4.1", doc="The format on record.")
    cache: Cache | None = xml("@cache", default=None, since="0.6.0", doc="Use of the host's page cache.")
    io: Io | None = xml("@io", default=None, since="0.8.8", doc="How requests are made.")


class DiskTarget(Element):
    """What the machine sees."""

    dev: str = xml("@dev", type=simple.Word, since="0.4.1", doc="Name of the disk, such as vda.")
    bus: str = xml("@bus", type=simple.Word, since="0.4.3", doc="Its bus, such as virtio.")


class Disk(Element):
    """What all kinds of disks have."""

    tag: ClassVar[str] = "disk"
    effect: ClassVar[Effect | None] = "reported"
    block: ClassVar[bool] = True
    device: Literal["disk", "cdrom"] = xml("@device", default="disk", since="0.4.1", doc="cdrom for a disc (iso).")
    driver: Driver = xml("driver", since="0.4.1", doc="Format and hints.")


class FileDisk(Disk):
    """A disk that is a file of the host."""

    type: ClassVar[str] = "file"
    source: FileSource = xml("source", since="0.4.1", doc="The file.")
    target: DiskTarget = xml("target", since="0.4.1", doc="What the machine sees.")
    readonly: bool = xml("readonly", type=Flag, default=False, since="0.4.1", doc="Not written to.")


class BlockDisk(Disk):
    """A disk that is a block device of the host."""

    type: ClassVar[str] = "block"
    source: BlockSource = xml("source", since="0.4.1", doc="The device.")
    target: DiskTarget = xml("target", since="0.4.1", doc="What the machine sees.")
    readonly: bool = xml("readonly", type=Flag, default=False, since="0.4.1", doc="Not written to.")


class NetworkDisk(Disk):
    """A disk that the machine reaches over the network."""

    type: ClassVar[str] = "network"
    source: NetworkSource = xml("source", since="0.8.7", doc="Where it is.")
    target: DiskTarget = xml("target", since="0.8.7", doc="What the machine sees.")
    readonly: bool = xml("readonly", type=Flag, default=False, since="0.8.7", doc="Not written to.")


class VolumeDisk(Disk):
    """A disk that is named by pool and volume."""

    type: ClassVar[str] = "volume"
    source: PoolSource = xml("source", since="1.0.5", doc="Pool and volume.")
    target: DiskTarget = xml("target", since="1.0.5", doc="What the machine sees.")
    readonly: bool = xml("readonly", type=Flag, default=False, since="1.0.5", doc="Not written to.")


class Backing(Element):
    """What all images below a disk have. Those further below are elements inside of it."""

    tag: ClassVar[str] = "backingStore"
    effect: ClassVar[Effect | None] = "reported"
    block: ClassVar[bool] = True
    format: str = xml("format/@type", type=simple.choice(*DRIVERS), since="1.2.4", doc="The format on record.")


class FileBacking(Backing):
    """An image below a disk that is a file."""

    type: ClassVar[str] = "file"
    source: FileSource = xml("source", since="1.2.4", doc="The file.")


class BlockBacking(Backing):
    """An image below a disk that is a block device."""

    type: ClassVar[str] = "block"
    source: BlockSource = xml("source", since="1.2.4", doc="The device.")


class NetworkBacking(Backing):
    """An image below a disk that is reached over the network."""

    type: ClassVar[str] = "network"
    source: NetworkSource = xml("source", since="1.2.4", doc="Where it is.")


CLASSES: tuple[type[Element], ...] = (
    FileDisk, BlockDisk, NetworkDisk, VolumeDisk, FileBacking, BlockBacking, NetworkBacking,
)  # fmt: skip
"""The documents here, for the reference."""

DISKS: dict[type[Element], Any] = {
    FileSource: FileDisk, BlockSource: BlockDisk, NetworkSource: NetworkDisk, PoolSource: VolumeDisk,
}  # fmt: skip
BACKINGS: dict[type[Element], Any] = {
    FileSource: FileBacking, BlockSource: BlockBacking, NetworkSource: NetworkBacking,
}  # fmt: skip


def driver_type(format: str) -> str | None:
    """The value of ``<driver type=…>`` for a format on record; None for what libvirt has no word for.

    A LUKS volume is raw with an encryption, a disc is raw; the content of a partition is the machine's affair.
    """
    if format in DRIVERS:
        return format
    return {"vhd": "vpc", "vhdx": None, "dir": None, "fat": None}.get(format, "raw")


def nested(disk: str, backings: Sequence[str]) -> str:
    """A written ``<disk>`` with the written ``<backingStore>`` elements in it, each inside of the one before.

    The last is empty, which keeps libvirt from looking for more in the header of the lowest image.
    """
    inner = "<backingStore/>\n"
    for outer in (*reversed(backings), disk):
        body, end = outer.rstrip("\n").rsplit("\n", 1)
        inner = body + "\n" + "".join(f"  {line}\n" for line in inner.splitlines()) + end + "\n"
    return inner


def image_node(source: Source, format: str, encryption: str | None, name: str) -> dict[str, Any]:
    """QEMU's node of an image: its format above its bytes. ``format`` is the one on record, ``encryption`` as ``detail`` has it.

    The passphrase is that of an ``-object secret`` whose id is ``name`` and ``-key``. ``Unsupported`` for what QEMU cannot open.
    """
    file = source.node(name)
    if format == "luks":
        return {"driver": "luks", "key-secret": f"{name}-key", "file": file}
    driver = qemu_driver(format) if driver_type(format) != "raw" else "raw"
    if driver is None or format in ("dir", "fat"):
        raise Unsupported(f"QEMU cannot open the format '{format}'")
    node: dict[str, Any] = {"driver": driver, "file": file}
    if encryption is not None and format in ("qcow2", "qcow"):
        node["encrypt"] = {"format": "luks" if "luks" in encryption else "aes", "key-secret": f"{name}-key"}
    return node
