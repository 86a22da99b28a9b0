"""Pools of type ``netfs``: an exported directory of a server, mounted at a directory whose files are the volumes."""

from __future__ import annotations

from typing import ClassVar, Literal

from poolkit.backends.fs import FS_NAMESPACE, MountOption
from poolkit.model import Permissions, Pool, PoolTarget, SourceHost
from poolkit.xmlmap import Element, simple, xml
from poolkit.xmlmap.rules import only_with


class NetfsSource(Element):
    """The servers, the exported directory and the protocol."""

    rules = (
        only_with(
            "protocol_version",
            "format",
            ("auto", "nfs"),
            ("glusterfs", "cifs"),
            paths=("protocol/@ver", "format/@type"),
        ),
    )
    hosts: tuple[SourceHost, ...] = xml("host", min=1, since="0.4.1", doc="Servers that export the directory.")
    dir: str = xml("dir/@path", type=simple.Path, since="0.4.1", doc="The exported directory, share or gluster volume.")
    format: Literal["auto", "nfs", "glusterfs", "cifs"] = xml(
        "format/@type", default="auto", since="0.4.1", doc="Protocol; auto means nfs."
    )
    protocol_version: str | None = xml(
        "protocol/@ver",
        type=simple.NfsVersion,
        default=None,
        since="5.1.0",
        doc="NFS version, such as 4.2; nfs and auto only.",
    )
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is; for information.")


class NetfsPool(Pool):
    """A directory that a server exports."""

    type: ClassVar[str] = "netfs"
    namespaces: ClassVar[dict[str, str]] = {"fs": FS_NAMESPACE}
    source: NetfsSource = xml("source", doc="The server and its directory.")
    target: PoolTarget = xml("target", doc="The mount point.")
    mount_options: tuple[MountOption, ...] = xml(
        "fs:mount_opts/fs:option", default=(), since="5.1.0", doc="Further options of mount(8)."
    )
    volume_defaults: Permissions | None = xml(
        "pk:volumes/pk:permissions", default=None, doc="Mode, owner and group of new volumes that do not say their own."
    )
