"""Pools of type ``disk``: a disk whose partitions are the volumes."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from poolkit import errors
from poolkit.backend import Erased, State, Usage, VolumeInfo
from poolkit.families import blockdevice, disknodes, partitiontable, pvlabel
from poolkit.families.partvolumes import SFDISK, PartitionVolumes
from poolkit.host import undo
from poolkit.host.descriptors import read_at
from poolkit.host.port import Host
from poolkit.model import PARTITION_FORMATS, DeviceTarget, Extent, Pool, product, vendor
from poolkit.xmlmap import Element, replace, simple, xml

_SAVED = 1 << 20  # bytes at each end of the disk that are kept to undo a new table: all tables are within them

# What blockdevice.holds calls a table, where that is not libvirt's name. "mbr" is a part of several.
_OWN_NAMES = {"dos": "mbr", "pc98": "mbr", "lvm2": "LVM2_member"}
_AT_ENDS = {"linux_raid_member", "zfs_member"}  # has its mark at the end, which may be that of the last partition


class Disk(Element):
    """The disk."""

    path: str = xml("@path", type=simple.Path, since="0.4.1", effect="acted", doc="Path of the disk.")
    part_separator: bool | None = xml(
        "@part_separator",
        default=None,
        since="1.3.1",
        effect="acted",
        doc="Whether partitions are named with a p before the number.",
    )
    free_extents: tuple[Extent, ...] = xml(
        "freeExtent", default=(), reported=True, since="0.4.1", doc="Free space; reported."
    )


class DiskSource(Element):
    """The disk and its partition table."""

    devices: tuple[Disk, ...] = xml("device", min=1, since="0.4.1", doc="The disk; only the first is used.")
    format: Literal["unknown", "dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2"] = xml(
        "format/@type",
        default="unknown",
        since="0.4.1",
        effect="acted",
        doc="Partition table; unknown takes what is there.",
    )
    vendor: str | None = vendor()
    product: str | None = product()


class DiskPool(Pool):
    """A partitioned disk of this host."""

    type: ClassVar[str] = "disk"
    first: ClassVar[str | None] = "0.4.1"
    source: DiskSource = xml("source", doc="The disk.")
    target: DeviceTarget = xml("target", doc="Where the partitions' device nodes are, usually /dev.")


class DiskBackend(PartitionVolumes):
    """A disk and its partitions."""

    type = "disk"
    needs_root = ("start", "build", "discover")
    definition = DiskPool
    usual_target = "/dev"
    tools = ("sfdisk", "partx", "lsblk", "wipefs")
    bytewise = ("sfdisk",)
    packages: ClassVar[Mapping[str, str]] = {
        "sfdisk": "fdisk", "partx": "util-linux", "lsblk": "util-linux", "resizepart": "util-linux",
    }  # fmt: skip
    source_formats = ("unknown", "dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2")
    volume_formats = PARTITION_FORMATS

    def claims(self) -> Iterable[str]:
        """The disk."""
        return (f"device {self.path}",)

    # -- the pool -----------------------------------------------------------------------------------------------------

    def state(self, *, closely: bool = False) -> State:
        """Whether the disk is there and has the table that the definition wants, or any if it wants none.

        It is never told to be whole: some partitions may have no device node yet.
        """
        if not self.host.devices.number(self.path):
            return State(False, why=f"there is no disk '{self.path}'")
        why = ""
        with contextlib.suppress(PermissionError):  # who may not read it cannot be told more than that it is there
            why = self._wrong(partitiontable.label(self._head()))
        return State(not why, whole=False, why=why)

    def start(self) -> None:
        """Give every partition of the table its device node, which kernels do that know the table; else an error."""
        disk = self._disk()
        table = self._table(disk)
        missing = [p for p in (table.parts if table is not None else ()) if p.number not in disk.names]
        if missing:
            with self._changing() as (disk, table):
                for part in table.parts:
                    if part.number not in disk.names:
                        disknodes.tell(self.host, disk, part.number)

    def build(self, *, overwrite: bool = False) -> bool:
        """Write an empty partition table; a disk that has one of the wanted type is left as it is.

        A disk that holds anything else is refused, and one that is in use always. ``overwrite`` writes a new table whatever
        is there: all partitions are lost. Without a wanted type it is dos, as in libvirt, or gpt for a disk beyond 2 TiB.
        """
        disk = self._disk()
        found = self._label()
        wanted = self.pool.source.format
        if not overwrite and found and not self._wrong(found):
            self._require_own(
                disk, found,
                errors.Hint("if it is not needed, add ", errors.Option("overwrite"), ": all of the disk is lost then"),
            )  # fmt: skip
            self._table(disk)  # what shows that it is one must be readable as well
            return False
        if wanted == "unknown":
            wanted = "dos" if disk.size <= partitiontable.DOS_SECTORS * disk.sector else "gpt"
        if wanted == "lvm2":
            raise self._error(
                errors.Unsupported, "a table of type lvm2 cannot be written", "build a pool of type logical instead"
            )
        with self._named(), disknodes.locked(self.host, disk):
            held = blockdevice.holds(self.host, disk.node)
            if held and not overwrite:
                raise self._error(
                    errors.Unsafe, f"'{self.path}' holds {self._held(disk, held, found)}, which building would destroy",
                    errors.Hint("if that is meant, add ", errors.Option("overwrite")),
                )  # fmt: skip
            if "LVM2_member" in held:
                pvlabel.require_no_group(self.host, self.pool.name, disk.node)
            for number in disk.names:
                pvlabel.require_no_group(self.host, self.pool.name, disk.part(number))
            if held or disk.names:
                self._clear(disk, held)
            self._write_label(disk, wanted)
        return True

    def _require_own(self, disk: disknodes.Disk, label: str, hint: str) -> None:
        """Raise ``Unsafe`` if the disk holds something besides the table: a file system's boot sector can pass for one."""
        left = [name for name in _content(self.host, disk.node) if name not in ("mbr", _OWN_NAMES.get(label, label))]
        if left and label != "lvm2" and set(left) <= _AT_ENDS:
            with contextlib.suppress(errors.PoolkitError):
                if partitiontable.read(self.host, disk.node, label, disk.size, disk.sector).parts:
                    return
        if left:
            raise self._error(
                errors.Unsafe, f"'{self.path}' holds {' and '.join(left)} besides a table of type {label}", hint
            )

    def _held(self, disk: disknodes.Disk, held: tuple[str, ...], label: str) -> str:
        words = " and ".join(held)
        if label and label != "lvm2":
            with contextlib.suppress(errors.PoolkitError):
                count = len(partitiontable.read(self.host, disk.node, label, disk.size, disk.sector).parts)
                words += f" with {count} partition{'' if count == 1 else 's'}"
        return words

    def _clear(self, disk: disknodes.Disk, held: tuple[str, ...]) -> None:
        """Take the old content away; what an operation that fails later puts back is everything within ``_SAVED``."""
        for number in sorted(disk.names, reverse=True):
            disknodes.forget(self.host, disk, number, f"partition '{disk.name(number)}'", stale=not held)
        if held:
            pieces = [] if self.host.dry_run else self._ends(disk)
            kind = [
                "blkid",
                "--probe",
                "--output",
                "value",
                "--match-tag",
                "TYPE",
                "--match-tag",
                "PTTYPE",
                "--",
                disk.node,
            ]
            self.host.change(_blank(disk, ""), undo=undo.write_back(kind, "", disk.node, pieces), whole=True)
            if "bsd" in held:
                self.host.change(_blank(disk, "bsd"), whole=True)

    def _ends(self, disk: disknodes.Disk) -> list[tuple[int, bytes]]:
        with blockdevice.opened(self.host, disk.node) as fd:
            tail = max(_SAVED, disk.size - _SAVED)
            return [(0, read_at(fd, _SAVED, 0)), (tail, read_at(fd, _SAVED, tail))]

    def _write_label(self, disk: disknodes.Disk, wanted: str) -> None:
        if wanted in partitiontable.SFDISK:
            mark = uuid.uuid4()
            ident = str(mark).upper() if wanted == "gpt" else f"0x{mark.hex[:8]}"
            self.host.change(
                [*SFDISK, "--wipe", "always", "--", disk.node],
                input=f"label: {wanted}\nlabel-id: {ident}\n".encode(),
                undo=undo.run_if(["sfdisk", "--disk-id", "--", disk.node], ident, _blank(disk, wanted)),
                whole=True,
            )
        else:
            question, answer = self._question(disk, wanted)
            self.host.change(
                ["parted", "--script", "--", disk.node, "mklabel", wanted],
                undo=undo.run_if(question, answer, _blank(disk, wanted)),
                whole=True,
            )

    def _question(self, disk: disknodes.Disk, wanted: str) -> tuple[list[str], str]:
        """What to ask, and the answer, when the disk has the new table; tables without an identity of their own."""
        if wanted != "bsd":
            kind = {"dvh": "sgi", "pc98": "dos"}.get(wanted, wanted)  # as libblkid names them
            return ["blkid", "--probe", "--output", "value", "--match-tag", "PTTYPE", "--", disk.node], kind
        # libblkid does not see the label where parted puts it; parted prints one line for a disk without partitions.
        question = ["parted", "--script", "--machine", "--", disk.node, "unit", "s", "print"]
        fields = self.host.query(question, ok=(0, 1)).stdout.partition("\n")[2].split(":")
        return question, "BYT;\n" + ":".join([*fields[:5], wanted, *fields[6:]])

    def erase(self) -> bool:
        """Remove an empty partition table; refused while it has partitions, or the disk holds something besides it."""
        self._disk()
        label = self._label()
        if not label or self._wrong(label):
            return False
        with self._changing() as (disk, table):
            names = [disk.name(p.number) for p in table.parts]
            if names:
                raise self._error(
                    errors.Unsafe, f"the disk '{self.path}' has the partitions {errors.some(names, 10)}"
                    f"{' and others' if len(names) > 10 else ''}; nothing was deleted",
                    "delete its volumes first; poolkit removes nothing that was not asked for by name",
                )  # fmt: skip
            self._require_own(disk, table.label, "if that is not needed, remove it by wipefs; nothing was deleted")
            self.host.change(_blank(disk, table.label), whole=True)
        return True

    def erased(self) -> Erased:
        """The table; nothing else of the disk is written."""
        return Erased(f"the partition table of '{self.path}'", "what was written to the disk, which is not wiped")

    @classmethod
    def discover(cls, host: Host, source: Any) -> Iterable[Any]:
        """The disks of this host that nothing uses and that hold a partition table or nothing, with the table's type."""
        from poolkit.documents import FoundDevice, FoundSource

        for disk in disknodes.whole(host):
            with contextlib.suppress(OSError, errors.PoolkitError):  # a disk that cannot be read is of no use
                label = partitiontable.label(disknodes.head(host, disk.node))
                own = {"mbr", _OWN_NAMES.get(label, label)} | _AT_ENDS if label else set()
                if not blockdevice.users(host, disk.number) and own.issuperset(_content(host, disk.node)):
                    yield FoundSource(devices=(FoundDevice(path=disk.node),), format=label or None)

    # -- facts --------------------------------------------------------------------------------------------------------

    def storage(self) -> str | None:
        """The identity of the partition table."""
        try:
            return partitiontable.identity(self._head()) or None
        except OSError:
            return None

    def changed_since(self, noted: str) -> str:
        """Whether another disk, or one with another table, is at the path."""
        now = self.storage()
        return "" if now in (None, noted) else f"another disk is at '{self.path}', or it has another partition table"

    def usage(self, volumes: Sequence[VolumeInfo]) -> Usage:
        """The disk's size, the sum of its partitions, and of the free extents that a partition can be made in."""
        disk = self._disk()
        table = self._table(disk)
        if table is None:
            return Usage(disk.size, disk.size, 0)
        used = sum(p.size for p in table.parts if p.kind != "extended")
        return Usage(disk.size, used, sum(gap.size for gap in table.gaps))

    def live(self) -> Any:
        """The definition with the table's type, if it named none, and the free extents."""
        disk = self._disk()
        table = self._table(disk)
        free = tuple(Extent(start=gap.start, end=gap.end) for gap in (table.gaps if table is not None else ()))
        source = self.pool.source
        first = replace(source.devices[0], free_extents=free)
        return replace(self.pool, source=replace(source, devices=(first, *source.devices[1:])))


def _content(host: Host, node: str) -> tuple[str, ...]:
    """As ``blockdevice.holds``, for a disk whose partitions may be in use."""
    from poolkit.formats import FdReader, content

    with blockdevice.opened(host, node) as fd:
        return tuple(content(FdReader(fd, os.lseek(fd, 0, os.SEEK_END))))


def _blank(disk: disknodes.Disk, label: str) -> list[str]:
    """The command that makes a disk with an empty table one without: that of bsd is not among what wipefs knows."""
    if label == "bsd":
        return ["blkdiscard", "--zeroout", "--force", "--length", "8192", "--", disk.node]
    return ["wipefs", "--all", "--quiet", "--", disk.node]
