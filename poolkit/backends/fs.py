"""Pools of type ``fs``: a file system on a block device, mounted at a directory whose files are the volumes."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Iterable
from typing import ClassVar, Literal

from poolkit import errors
from poolkit.backend import Erased, State
from poolkit.content import images
from poolkit.families import blockdevice, btrfs, mkfs, mounting, mountoptions, pvlabel
from poolkit.families.filepool import FileBackend
from poolkit.host import undo
from poolkit.host.mounts import Mount, btrfs_has, is_network, network_of, number, shows
from poolkit.host.toolwords import sentence
from poolkit.model import Permissions, Pool, PoolTarget, SourceDevice, product, vendor
from poolkit.xmlmap import Element, simple, xml

FS_NAMESPACE = "http://libvirt.org/schemas/storagepool/fs/1.0"


class MountOption(Element):
    """One option of mount(8)."""

    name: str = xml(
        "@name", type=simple.Text, since="5.1.0", effect="acted", doc="The option, such as noatime or commit=10."
    )


class FsSource(Element):
    """The device and its file system."""

    devices: tuple[SourceDevice, ...] = xml(
        "device", min=1, since="0.4.1", doc="Block device that holds the file system."
    )
    format: Literal[
        "auto",
        "ext2",
        "ext3",
        "ext4",
        "ufs",
        "iso9660",
        "udf",
        "gfs",
        "gfs2",
        "vfat",
        "hfs+",
        "xfs",
        "ocfs2",
        "vmfs",
        "btrfs",
    ] = xml("format/@type", default="auto", since="0.4.1", effect="acted", doc="File system; auto leaves it to mount.")
    vendor: str | None = vendor()
    product: str | None = product()


class FsPool(Pool):
    """A file system on a device of the host."""

    type: ClassVar[str] = "fs"
    first: ClassVar[str | None] = "0.4.1"
    namespaces: ClassVar[dict[str, str]] = {"fs": FS_NAMESPACE}
    cow: bool | None = xml(
        "features/cow/@state", default=None, since="6.6.0", effect="acted", doc="Whether files are copied on write."
    )
    source: FsSource = xml("source", doc="The device.")
    target: PoolTarget = xml("target", doc="The mount point.")
    mount_options: tuple[MountOption, ...] = xml(
        "fs:mount_opts/fs:option", default=(), since="5.1.0", doc="Further options of mount(8)."
    )
    volume_defaults: Permissions | None = xml(
        "pk:volumes/pk:permissions", default=None, doc="Mode, owner and group of new volumes that do not say their own."
    )


class FsBackend(FileBackend):
    """Files of a file system that the pool mounts."""

    type = "fs"
    needs_root = ("start", "build")
    definition = FsPool
    tools = bytewise = ("mount", "umount")
    packages = mkfs.PACKAGES
    source_formats = (
        "auto", "ext2", "ext3", "ext4", "ufs", "iso9660", "udf", "gfs", "gfs2", "vfat", "hfs+", "xfs", "ocfs2", "vmfs",
        "btrfs",
    )  # fmt: skip

    @property
    def device(self) -> str:
        """The path of the source as the definition has it."""
        path: str = self.pool.source.devices[0].path
        return path

    @property
    def format(self) -> str:
        """The definition's file system, or ``auto``."""
        format: str = self.pool.source.format
        return format

    def claims(self) -> Iterable[str]:
        """The target and the device. Refuses what could never be mounted."""
        name = self.pool.name
        if len(self.pool.source.devices) != 1:
            raise errors.InvalidArgument(
                f"pool '{name}': a pool of type fs has one device, not {len(self.pool.source.devices)}", pool=name
            )
        if not self.device.startswith("/"):
            raise errors.InvalidArgument(
                f"pool '{name}': the device '{self.device}' is not an absolute path", pool=name
            )
        self.options()
        return (*super().claims(), f"device {self.device}")

    def options(self) -> list[str]:
        """The definition's mount options, checked, and those that this file system needs."""
        given = mountoptions.check(self.pool.name, self.format, (option.name for option in self.pool.mount_options))
        return [*mkfs.OPTIONS.get(self.format, ()), *given]

    # -- state --------------------------------------------------------------------------------------------------------

    def mounted(self) -> Mount | None:
        """Our mount, or None."""
        return self._mounted()[0]

    def _mounted(self) -> tuple[Mount | None, str]:
        """Our mount, or None with the reason."""
        return mounting.seen(self.host, self.place, self._ours, lambda: self.device)

    def _ours(self, mount: Mount) -> bool:
        """Whether it is of our device or directory: by number and not by name, unless the device is gone."""
        mounts = self.host.mounts()
        # Directories are compared by the table alone: one of a dead server would make a stat hang, and a listing with it.
        if network_of(self.device, mounts):
            return shows(mount, self.device, mounts)
        try:
            facts = os.stat(self.device)
        except OSError:
            return mount.source in (self.device, self.host.devices.real(self.device))
        if stat.S_ISDIR(facts.st_mode):
            return shows(mount, self.device, mounts)
        if not stat.S_ISBLK(facts.st_mode) or is_network(mount.fstype):
            return False
        device = number(facts.st_rdev)
        return mount.device == device or self.host.devices.number(mount.source) == device or btrfs_has(mount, device)

    def state(self, *, closely: bool = False) -> State:
        """Whether the device is mounted at the target: as the kernel's table of mounts has it."""
        mount, why = self._mounted()
        return State(mount is not None, whole=mount is None or mounting.is_safe(mount), why=why)

    def start(self) -> None:
        """Make the target directory if need be, and mount the device there with nosuid, nodev and noexec.

        The same device mounted there by somebody else is taken as it is, with a warning if it lacks those options.
        """
        if (there := self.mounted()) is not None:
            mounting.warn_unsafe(self.host, self.pool.name, there)
            return
        name, target = self.pool.name, self.place
        mounting.require_free(self.host, name, target, f"'{self.device}'")
        source = self.host.devices.real(self.device)
        bind = self._is_directory()
        kind = None if bind else self._kind()
        options = self.options()
        self.build_directory(only_new=True)
        try:
            mounting.mount(self.host, source, target, kind=kind, options=options, bind=bind)
        except errors.ToolFailed as error:
            raise self._refused(error) from error
        if self.host.dry_run:
            return
        if "degraded" in options:
            self._warn_of_missing()
        if self._shows_device():
            return
        mount, why = self._mounted()
        if mount is None:
            raise errors.HostError(f"pool '{name}': mount ended well, but {why}", pool=name)
        if self.pool.cow is False and mount.fstype == "btrfs":
            self.host.step(f"turn copy-on-write off for new files in {self.place}")
            with self.open() as directory:
                images.no_cow(directory.fd)

    def _warn_of_missing(self) -> None:
        with blockdevice.opened(self.host, self.device) as fd:
            whole = btrfs.members(fd)
        if whole is not None and (gone := btrfs.missing(whole.uuid)):
            self.host.warn(
                f"pool '{self.pool.name}': {len(gone)} of the {whole.devices} devices of its file system are missing; what is "
                "written now has fewer copies, until they are replaced (btrfs replace, btrfs balance)"
            )

    def _shows_device(self) -> bool:
        """Whether what was mounted just now is the device's file system: told without the mount table, which takes longer to
        read. No for file systems with a number of their own (btrfs), and for directories.
        """
        try:
            facts = os.stat(self.device)
            return stat.S_ISBLK(facts.st_mode) and os.stat(self.place).st_dev == facts.st_rdev
        except OSError:
            return False

    def _is_directory(self) -> bool:
        if not os.path.isdir(self.device):
            return False
        if self.format != "auto":
            raise errors.InvalidArgument(
                f"pool '{self.pool.name}': '{self.device}' is a directory, which cannot hold a file system '{self.format}'",
                pool=self.pool.name, hint="leave the format out to mount the directory itself at the target",
            )  # fmt: skip
        return True

    def _kind(self) -> str | None:
        """The kernel's name of the file system to mount: never left to a guess of mount(8)."""
        if self.format != "auto":
            if not self.host.devices.number(self.device):
                with blockdevice.opened(self.host, self.device):  # raises in the right words
                    pass
            return mkfs.KERNEL.get(self.format, self.format)
        with blockdevice.opened(self.host, self.device) as fd:
            found = mkfs.content(fd)
        if name := mkfs.file_system(found):
            return name
        raise errors.Unsafe(
            f"pool '{self.pool.name}': which file system '{self.device}' has cannot be told: {mkfs.words(found)}",
            pool=self.pool.name, hint="name the file system: <format type='ext4'/>",
        )  # fmt: skip

    def _refused(self, error: errors.ToolFailed) -> errors.ToolFailed:
        """The error of mount(8) in our words, with what the device really holds."""
        said = sentence(error.stderr)
        hint: str | None = None
        whole: btrfs.Members | None = None
        try:
            with blockdevice.opened(self.host, self.device) as fd:
                found = mkfs.content(fd)
                whole = btrfs.members(fd)
        except (OSError, errors.PoolkitError):
            found = (self.format,)
        if whole is not None and whole.devices > 1 and "No such file or directory" in error.stderr:
            said = f"its btrfs has {whole.devices} devices, and the kernel does not know all of them"
            hint = (
                "connect the others, and have the kernel look for them: btrfs device scan; to use what is there without them, "
                "add the mount option degraded: <fs:option name='degraded'/>"
            )
        elif not found:
            hint = self._unformatted()
        elif self.format not in ("auto", *found):
            hint = f"the device holds {', '.join(found)}, and the definition says {self.format}"
        return errors.ToolFailed(
            f"pool '{self.pool.name}': '{self.device}' could not be mounted at '{self.place}': {said or error.message}",
            argv=error.argv, status=error.status, stdout=error.stdout, stderr=error.stderr, pool=self.pool.name, hint=hint,
        )  # fmt: skip

    def _unformatted(self) -> str:
        """What to do about a device on which nothing is known: a file system only where it can be kept."""
        try:
            block = f"/sys/dev/block/{number(os.stat(self.device).st_rdev)}"
            with open(f"{block}/size", encoding="ascii") as file:
                size = int(file.read())
            backing = pathlib.Path(block, "loop/backing_file")
            gone = backing.is_file() and backing.read_text().rstrip("\n").endswith(" (deleted)")
        except (OSError, ValueError):
            size, gone = 0, False
        if gone:
            return (
                "the file of the loop device was deleted, and what is on it ends with the device: set up the right one"
            )
        if not size:
            return "the device has no medium, or is not connected to one: connect it first"
        return errors.Hint(
            "nothing known is on the device; make the file system: ", errors.remedy("build", self.pool.name)
        )

    def stop(self) -> None:
        """Unmount; ``Busy`` with who uses it, or covers it. What somebody else has mounted at the target is left alone."""
        mount = self.mounted()
        if mount is not None:
            mounting.unmount(self.host, self.pool.name, mount)
        else:
            mounting.require_uncovered(self.host, self.pool.name, self.place, self._ours)

    # -- making -------------------------------------------------------------------------------------------------------

    def build(self, *, overwrite: bool = False) -> bool:
        """Make the file system and the target directory.

        A device that holds anything is refused, unless it is the file system that ``build`` made for this very pool, which
        is left as it is. ``overwrite`` erases whatever is there. With format ``auto``, or one that cannot be made here, the
        device must have a file system already, and only the directory is made.
        """
        name = self.pool.name
        made = False
        if not self._is_directory():
            found = blockdevice.holds(self.host, self.device)
            wanted = mkfs.KERNEL.get(self.format, self.format)
            have = mkfs.file_system(found) or (found[0] if len(found) == 1 else "")
            if self.format == "auto" or self.format not in mkfs.MAKERS:
                right = mkfs.file_system(found) != "" if self.format == "auto" else have == wanted
                if not right:
                    what = "auto names no file system" if self.format == "auto" else f"{self.format} cannot be made"
                    raise errors.Unsupported(
                        f"pool '{name}': '{self.device}' {mkfs.words(found)}, and {what}", pool=name,
                        hint="name a file system that can be made: " + ", ".join(mkfs.MAKERS),
                    )  # fmt: skip
            elif overwrite or not found:
                if "LVM2_member" in found:
                    pvlabel.require_no_group(self.host, name, self.device)
                self._make(found)
                made = True
            elif found != (wanted,) or mkfs.identity(self.host, self.device) != self._mark[1]:
                raise errors.Unsafe(
                    f"pool '{name}': '{self.device}' {mkfs.words(found)}; making a file system would destroy that",
                    pool=name, hint=errors.Hint(
                        "if that is meant: ", errors.remedy("build", name, overwrite=True),
                        "; to use it as it is: ", errors.remedy("start", name),
                    ),
                )  # fmt: skip
        return self._build_target() or made

    def _build_target(self) -> bool:
        return mounting.at(self.host, self.place) is None and self.build_directory()

    @property
    def _mark(self) -> tuple[str, str]:
        mark = mkfs.mark(self.format, self.pool.uuid, self.device)
        return mark, mkfs.shown(self.format, mark)

    def _make(self, found: tuple[str, ...]) -> None:
        device = self.host.devices.real(self.device)
        if found:
            # Or leftovers could pass for what is there.
            self.host.change(["wipefs", "--all", "--quiet", "--", device], whole=True)
        mark, shown = self._mark
        self.host.change(
            mkfs.argv(self.format, mark, device, force=bool(found)),
            undo=undo.run_if(mkfs.question(device), shown, ["wipefs", "--all", "--quiet", "--", device]),
            timeout=3600,  # a large device without discard
        )

    def erase(self) -> bool:
        """Remove the target directory, which must be empty; the file system and its files stay on the device."""
        return mounting.erase_target(self)

    def erased(self) -> Erased:
        """The target directory and not the file system."""
        return Erased(f"the mount directory '{self.place}'", f"'{self.device}' with its file system and all files")
