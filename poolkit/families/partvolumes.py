"""Partitions as volumes: listing, making, growing and deleting them in the table of one disk.

Each change is one run of sfdisk (or parted, for the tables that sfdisk does not write), and the kernel is told of the one
partition that it concerns: others may be in use. An undo acts only on a partition of exactly the place, size and
identity that this operation gave it.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from poolkit import errors
from poolkit.backend import Source, VolumeInfo
from poolkit.families import disknodes, partitiontable
from poolkit.families.blockdevice import BlockBackend
from poolkit.families.partitiontable import Partition, Table
from poolkit.host import mounts, undo
from poolkit.model import PARTITION_FORMATS, Volume

# The kernel is told by partx, of one partition; sfdisk would make it read the whole table, which fails on a disk in use.
SFDISK = ("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel")


class PartitionVolumes(BlockBackend):
    """Everything about the volumes of a disk pool."""

    @property
    def path(self) -> str:
        """The disk as the definition names it."""
        path: str = self.pool.source.devices[0].path
        return path

    # -- the disk and its table ---------------------------------------------------------------------------------------

    def _disk(self) -> disknodes.Disk:
        separator = self.pool.source.devices[0].part_separator
        disk: disknodes.Disk | None = self.host.shared(
            ("disk", self.path), lambda: disknodes.look(self.host, self.path, separator)
        )
        if disk is None:
            raise self._error(
                errors.HostError, f"there is no disk '{self.path}'", "is it attached? lsblk shows all disks"
            )
        return disk

    def _label(self) -> str:
        label: str = self.host.shared(("label", self.path), lambda: self._read_label(self._head))
        return label

    def _head(self) -> bytes:
        """The beginning of the disk, read once until a change: who opens a disk that nobody has open waits for it."""
        head: bytes = self.host.shared(("head", self.path), self._read_head)
        return head

    def _read_head(self) -> bytes:
        return disknodes.head(self.host, self.path)

    def _read_label(self, head: Callable[[], bytes]) -> str:
        try:
            return partitiontable.label(head())
        except OSError as error:
            raise errors.from_os_error(error, f"read the disk '{self.path}'", pool=self.pool.name) from error

    def _table(self, disk: disknodes.Disk) -> partitiontable.Table | None:
        """The partition table; None for a disk that is LVM's as a whole."""
        label = self._label()
        self._check_label(label)
        return None if label == "lvm2" else partitiontable.read(self.host, disk.node, label, disk.size, disk.sector)

    def _partitioned(self, disk: disknodes.Disk) -> partitiontable.Table:
        table = self._table(disk)
        if table is None:
            raise self._lvm()
        return table

    def _lvm(self) -> errors.PoolkitError:
        return self._error(
            errors.Unsupported, f"'{self.path}' belongs to LVM as a whole and has no partitions",
            "make a pool of type logical of its volume group",
        )  # fmt: skip

    def _check_label(self, label: str) -> None:
        if why := self._wrong(label):
            raise self._error(errors.HostError, why, self._remedy(label))

    @contextlib.contextmanager
    def _changing(self, volume: str | None = None) -> Iterator[tuple[disknodes.Disk, Table]]:
        """Hold the disk's lock; gives the disk and its table as they are then, whatever was answered before.

        The engine keeps others away from one volume only, and another volume's deletion may renumber this one.
        """
        with self._named(volume), disknodes.locked(self.host, disk := self._disk()):
            yield self._anew(disk)

    def _anew(self, disk: disknodes.Disk) -> tuple[disknodes.Disk, Table]:
        now = disknodes.look(self.host, self.path, self.pool.source.devices[0].part_separator)
        if now is None or now.number != disk.number:
            raise self._error(
                errors.Unsafe,
                f"'{self.path}' is another disk than a moment ago",
                "try again when its links are settled",
            )
        self._check_label(label := self._read_label(self._read_head))
        if label == "lvm2":
            raise self._lvm()
        return now, partitiontable.fetch(self.host, now.node, label, now.size, now.sector)

    def _wrong(self, label: str) -> str:
        wanted = self.pool.source.format
        if not label:
            return f"the disk '{self.path}' has no partition table"
        if wanted not in ("unknown", label):
            return f"the disk '{self.path}' has a partition table of type {label}, not {wanted}"
        return ""

    def _remedy(self, label: str) -> str:
        if label:
            return f"if the disk is the right one, change the definition: <format type='{label}'/>"
        return errors.Hint("make one: ", errors.remedy("build", self.pool.name))

    def _error(
        self, kind: type[errors.PoolkitError], text: str, hint: str | None = None, volume: str | None = None
    ) -> errors.PoolkitError:
        return kind(f"pool '{self.pool.name}': {text}", pool=self.pool.name, volume=volume, hint=hint)

    @contextlib.contextmanager
    def _named(self, volume: str | None = None) -> Iterator[None]:
        """Put the pool's name in front of what the parts of this backend raise."""
        try:
            yield
        except (errors.NoSpace, errors.Unsupported, errors.Busy) as error:
            if error.pool is None:
                error.pool, error.volume = self.pool.name, volume
                error.message = f"pool '{self.pool.name}': {error.message}"
                error.args = (error.message,)
            raise

    # -- facts --------------------------------------------------------------------------------------------------------

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """All partitions, the extended one included, by number."""
        disk = self._disk()
        table = self._table(disk)
        if table is None:
            return
        if table.damaged:
            self.host.warn(
                f"the {table.damaged} partition table of '{self.path}' is damaged, and what is listed comes from the other one; "
                "the next volume that is made, resized or deleted writes both anew"
            )
        paths = disknodes.stable(
            self.host, self.pool.target.path, disk, {disk.name(p.number): disk.part(p.number) for p in table.parts}
        )
        for part in table.parts:
            name = disk.name(part.number)
            detail: dict[str, Any] = {"extents": [[self.path, part.start, part.end]]}
            if part.format == "none" and part.type:
                detail["partition_type"] = part.type
            if part.number not in disk.names:
                detail["warning"] = "the partition has no device node; one is made when the pool is stopped and started"
            path = paths[name]
            mode, owner, group = self._permissions(disk.part(part.number))
            info = VolumeInfo(
                name, "block", part.format, part.size, part.size, mode=mode, owner=owner, group=group, key=path, path=path,
                detail=detail,
            )  # fmt: skip
            old = known.get(name)
            yield old if old == info and old is not None else info  # the same object: nothing to be stored

    def _permissions(self, path: str) -> tuple[int, int, int]:
        """Mode, owner and group of a device node; those of a new one while it is not there."""
        node = self.host.devices.node(path)
        return (0o600, 0, 0) if node is None else (node.mode, node.owner, node.group)

    def source(self, info: VolumeInfo) -> Source:
        """The partition as raw bytes: its type says nothing of an image format."""
        return super().source(info._replace(format="raw"))

    def open_volume(self, info: VolumeInfo, *, write: bool = False, force: bool = False) -> AbstractContextManager[int]:
        """As its base; the extended partition has no bytes but the records of its logical partitions."""
        if info.format == "extended":
            raise self._error(
                errors.Unsupported,
                f"volume '{info.name}' is an extended partition, which has no content",
                volume=info.name,
            )
        return super().open_volume(info, write=write, force=force)

    def identity(self, info: VolumeInfo) -> Any:
        """Where it begins: numbers of logical partitions change, and with them names."""
        return (info.detail or {}).get("extents", [[None, None]])[0][1]

    def identify(self, info: VolumeInfo, fd: int) -> None:
        """The open device must be where the listing has the partition: numbers of logical ones change."""
        (_, start, end), *_ = (info.detail or {})["extents"]
        have, size = disknodes.span(self.host, mounts.number(os.fstat(fd).st_rdev))
        if size != end - start or have not in (-1, start):
            raise self.replaced(f"'{info.path}'", info.name)

    # -- changing -----------------------------------------------------------------------------------------------------

    def create(self, volume: Volume) -> VolumeInfo:
        """Make a partition in the smallest free extent it fits in; see ``partitiontable.place``.

        Its name is that of the next free number; ``InvalidArgument``, with the right one, for any other. Old signatures in
        the space it gets are erased, so that nothing takes it for what was there before.
        """
        format = volume.target.format or "none"
        self.check_new(volume)
        with self._changing(volume.name) as (disk, table):
            part = partitiontable.place(table, volume.capacity or 0, format)
            self._check_name(disk, table, volume.name, part.number)
            if table.label in partitiontable.SFDISK:
                self._append(disk, table, part)
            else:
                self._mkpart(disk, table, part)
        name = disk.name(part.number)
        if self.host.dry_run:
            return VolumeInfo(name, "block", format, part.size, part.size, path=disk.part(part.number))
        if part.kind != "extended":
            what = f"pool '{self.pool.name}': partition '{name}'"
            disk = disknodes.arrive(self.host, disk, part.number, what)
            name = disk.name(part.number)
            if (wanted := volume.target.permissions) is not None:
                self._give(self.host.devices.real(disk.part(part.number)), wanted)
        return self._at(part.start, name)

    def _at(self, start: int, name: str) -> VolumeInfo:
        """The volume that begins at ``start``: since the lock was let go it may have got another name than ``name``."""
        for info in self.volumes({}):
            if (info.detail or {})["extents"][0][1] == start:
                return info
        raise self.missing(name)

    def _check_name(self, disk: disknodes.Disk, table: Table, wanted: str, number: int) -> None:
        if disk.may_be(wanted, number):
            return
        name = disk.name(number)
        taken = wanted in {disk.name(p.number) for p in table.parts}
        raise self._error(
            errors.VolumeExists if taken else errors.InvalidArgument,
            f"there is a partition '{wanted}' already" if taken
            else f"the next partition of '{self.path}' is '{name}', and no other name can be chosen",
            f"name the volume {name}", wanted,
        )  # fmt: skip

    def check_new(self, volume: Volume) -> None:
        """Format and capacity, and nothing that a partition cannot have. Only the disk says which name is the next."""
        name, format = volume.name, volume.target.format or "none"
        if format not in PARTITION_FORMATS:
            raise self._error(
                errors.InvalidArgument, f"volume '{name}': '{format}' is no type of a partition",
                f"one of: {', '.join(PARTITION_FORMATS)}", name,
            )  # fmt: skip
        if not volume.capacity:
            raise self._error(errors.InvalidArgument, f"volume '{name}' has no capacity", volume=name)
        if volume.backing_store is not None or volume.target.encryption is not None:
            what = "encryption" if volume.backing_store is None else "a backing store"
            raise self._error(errors.Unsupported, f"volume '{name}': a partition cannot have {what}", volume=name)

    def _append(self, disk: disknodes.Disk, table: Table, part: Partition) -> None:
        """Add an entry by sfdisk. gpt gives it an identity of our own choice, by which the undo knows it."""
        codes = partitiontable.GPT if table.label == "gpt" else partitiontable.DOS
        start, size = part.start // table.sector, part.size // table.sector
        ident = str(uuid.uuid4()).upper() if table.label == "gpt" else ""
        place = _place(table, part._replace(uuid=ident))
        line = f"{disk.part(part.number)} : start={start}, size={size}, type={codes[part.format]}"
        self._added(
            disk, part, place, [*SFDISK, "--delete", "--", disk.node, str(part.number)],
            [*SFDISK, "--append", "--wipe", "never", "--wipe-partitions", "always", "--", disk.node],
            (f"{line}, uuid={ident}" if ident else line) + "\n",
        )  # fmt: skip
        disknodes.tell(self.host, disk, part.number)

    def _mkpart(self, disk: disknodes.Disk, table: Table, part: Partition) -> None:
        """Add an entry by parted, which tells the kernel itself. The word it wants first depends on the table."""
        system, flag = partitiontable.PARTED[part.format]
        start, size = part.start // table.sector, part.size // table.sector
        first = ["primary"] if table.label in ("mac", "pc98", "dvh") else []
        words = ["unit", "s", "mkpart", *first, system, f"{start}s", f"{start + size - 1}s"]
        words += ["set", str(part.number), flag, "on"] if flag else []
        remove = ["parted", "--script", "--", disk.node, "rm", str(part.number)]
        self._added(
            disk,
            part,
            _place(table, part),
            remove,
            ["parted", "--script", "--align", "none", "--", disk.node, *words],
            None,
        )

    def _added(
        self, disk: disknodes.Disk, part: Partition, place: str, remove: list[str], argv: list[str], script: str | None
    ) -> None:
        question = disknodes.question(disk, part.number)
        taken_out = undo.run_if(question, place, remove)
        if disk.dm:
            # The name of its device is not known yet: what the table has no more, kpartx takes away.
            self.host.keep_undo(undo.run(disknodes.resize_argv(disk, part.number, 0)))
            newest = taken_out
        else:
            # The kernel forgets the partition while the table still tells whose it is.
            self.host.keep_undo(taken_out)
            newest = undo.run_if(question, place, disknodes.forget_argv(disk, part.number))
        self.host.change(argv, input=None if script is None else script.encode(), undo=newest, whole=True)

    def clone(
        self,
        volume: Volume,
        source: Source,
        *,
        linked: bool = False,
        reflink: bool | None = None,
        secret: bytes | None = None,
    ) -> VolumeInfo:
        """Make a partition and copy the content of ``source`` into it, images as what they hold; ``secret`` opens one."""
        if linked or reflink:
            what = "be a linked clone" if linked else "share blocks with another volume"
            raise self._error(
                errors.Unsupported, f"volume '{volume.name}': a partition cannot {what}", volume=volume.name
            )
        if volume.target.format not in PARTITION_FORMATS:
            from poolkit.xmlmap import replace

            volume = replace(volume, target=replace(volume.target, format="none", compat=None, features=()))
        if volume.target.format == "extended":
            raise self._error(errors.Unsupported, "an extended partition has no content", volume=volume.name)
        info = self.create(volume)
        label = f"copy {source.path} to {info.path}"
        if self.host.step(label):
            with self.open_volume(info, write=True) as fd:
                self.fill(fd, source, secret=secret)
        return info

    def delete(self, info: VolumeInfo) -> None:
        """Delete the partition; ``Busy``, naming the user, while it is in use.

        Logical partitions behind it get the next lower number, so they must not be in use either.
        """
        what = f"volume '{info.name}'"
        with self._changing(info.name) as (disk, table):
            part = self._listed(disk, table, info)
            if part.kind == "extended" and table.logical:
                raise self._error(
                    errors.InvalidState,
                    f"the extended partition '{info.name}' holds {', '.join(disk.name(p.number) for p in table.logical)}",
                    "delete these first",
                    info.name,
                )
            later = [p.number for p in table.logical if part.kind == "logical" and p.number > part.number]
            for number in (part.number, *later):
                words = what if number == part.number else f"{what} cannot be deleted: '{disk.name(number)}' behind it"
                disknodes.require_idle(self.host, disk, number, words)
            for number in (part.number, *later):
                words = what if number == part.number else f"{what} cannot be deleted: '{disk.name(number)}' behind it"
                disknodes.forget(self.host, disk, number, words)
            if table.label in partitiontable.SFDISK:
                self.host.change([*SFDISK, "--delete", "--", disk.node, str(part.number)], whole=True)
            else:
                self.host.change(["parted", "--script", "--", disk.node, "rm", str(part.number)], whole=True)
            for number in later:
                disknodes.tell(self.host, disk, number - 1)
        if later:
            self.host.warn(
                errors.Hint(
                    f"the logical partitions behind '{info.name}' have other names now; list them anew: ",
                    errors.remedy("refresh", self.pool.name),
                )
            )

    def _listed(self, disk: disknodes.Disk, table: Table, info: VolumeInfo) -> Partition:
        """The entry of a listed volume; ``Unsafe`` if another partition has its name by now."""
        part = next((p for p in table.parts if disk.name(p.number) == info.name), None)
        if part is None:
            raise self.missing(info.name)
        (_, start, end), *_ = (info.detail or {})["extents"]
        if (part.start, part.end) != (start, end):
            raise self.replaced(f"'{info.name}'", info.name)
        return part

    def rounded(self, capacity: int) -> int:
        """Whole sectors."""
        disk = self._disk()
        return partitiontable.rounded(self._partitioned(disk), capacity)

    def resize(
        self, info: VolumeInfo, capacity: int, *, allocate: bool = False, shrink: bool = False, force: bool = False
    ) -> VolumeInfo:
        """Move the end of the partition: into the free space right behind it, or back. It may be in use when it grows.

        ``force`` changes nothing of that: nothing shrinks while it is in use.
        """
        with self._changing(info.name) as (disk, table):
            part = self._listed(disk, table, info)
            self._check_resize(table, part, info, capacity)
            new, old = capacity // table.sector, part.size // table.sector
            if new == old:
                return info
            if capacity < part.size:
                disknodes.require_idle(self.host, disk, part.number, f"volume '{info.name}'")
            argv = [*SFDISK, "--partno", str(part.number), "--", disk.node]
            question = disknodes.question(disk, part.number)
            place = _place(table, part._replace(end=part.start + new * table.sector))
            self.host.keep_undo(undo.run_if(question, place, argv, input=f"size={old}\n"))
            back = disknodes.resize_argv(disk, part.number, part.size)
            self.host.change(argv, input=f"size={new}\n".encode(), undo=undo.run_if(question, place, back), whole=True)
            if part.number in disk.names:
                self.host.change(disknodes.resize_argv(disk, part.number, capacity), whole=True)
        return info if self.host.dry_run else self._at(part.start, info.name)

    def fixed_size(self, info: VolumeInfo) -> str | None:
        """An extended partition holds others."""
        return "extended partitions cannot be resized" if info.format == "extended" else super().fixed_size(info)

    def _check_resize(self, table: Table, part: Partition, info: VolumeInfo, capacity: int) -> None:
        if part.kind == "extended" or table.label not in partitiontable.SFDISK:
            what = "extended partitions" if part.kind == "extended" else f"partitions in a table of type {table.label}"
            raise self._error(errors.Unsupported, f"{what} cannot be resized", volume=info.name)
        most = partitiontable.room(table, part)
        if capacity > most:
            raise self._error(
                errors.NoSpace, f"volume '{info.name}' can grow to {most} bytes and not to {capacity}: "
                "what follows it is in use", "a partition grows only into the free space right behind it", info.name,
            )  # fmt: skip
        if capacity < table.sector:
            raise self._error(errors.InvalidArgument, f"volume '{info.name}' cannot have 0 bytes", volume=info.name)


def _place(table: Table, part: Partition) -> str:
    """What ``disknodes.question`` is answered for the partition: partx counts units of 512 bytes whatever the disk does."""
    mark = part.uuid
    if table.label == "dos" and int(table.ident or "0", 16):  # without an identity of the disk its partitions have none
        mark = f"{table.ident.removeprefix('0x')}-{part.number:02x}"
    return f"{part.start // 512} {part.size // 512} {mark.lower()}".rstrip()
