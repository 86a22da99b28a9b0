"""Pools of type ``fs``: a file system on a block device, mounted at a directory whose files are the volumes."""

from __future__ import annotations

from typing import ClassVar, Literal

from poolkit.model import Permissions, Pool, PoolTarget, SourceDevice
from poolkit.xmlmap import Element, simple, xml

FS_NAMESPACE = "http://libvirt.org/schemas/storagepool/fs/1.0"


class MountOption(Element):
    """One option of mount(8)."""

    name: str = xml("@name", type=simple.Text, since="5.1.0", doc="The option, such as noatime or commit=10.")


class FsSource(Element):
    """The device and its file system."""

    devices: tuple[SourceDevice, ...] = xml(
        "device", min=1, since="0.4.1", doc="Block device that holds the file system."
    )
    format: Literal[
        "auto", "ext2", "ext3", "ext4", "ufs", "iso9660", "udf", "gfs", "gfs2", "vfat", "hfs+", "xfs", "ocfs2", "vmfs"
    ] = xml("format/@type", default="auto", since="0.4.1", doc="File system; auto leaves it to mount.")
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is; for information.")


class FsPool(Pool):
    """A file system on a device of the host."""

    type: ClassVar[str] = "fs"
    namespaces: ClassVar[dict[str, str]] = {"fs": FS_NAMESPACE}
    cow: bool | None = xml("features/cow/@state", default=None, since="6.6.0", doc="Whether files are copied on write.")
    source: FsSource = xml("source", doc="The device.")
    target: PoolTarget = xml("target", doc="The mount point.")
    mount_options: tuple[MountOption, ...] = xml(
        "fs:mount_opts/fs:option", default=(), since="5.1.0", doc="Further options of mount(8)."
    )
    volume_defaults: Permissions | None = xml(
        "pk:volumes/pk:permissions", default=None, doc="Mode, owner and group of new volumes that do not say their own."
    )
