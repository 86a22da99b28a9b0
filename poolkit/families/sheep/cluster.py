"""What a cluster can be asked: its nodes, its VDIs, and the objects that hold their data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from poolkit import errors
from poolkit.families.sheep import wire
from poolkit.families.sheep.client import Connection, Failed
from poolkit.families.sheep.wire import Inode

MOST_VDIS = 100_000
"""VDIs that a cluster may list: far more than there are in one, and few enough to be asked for one by one."""


class Cluster:
    """One connection's view of the cluster. ``VolumeNotFound``, ``VolumeExists`` and other errors name what was asked for."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.pool = connection.pool

    @contextlib.contextmanager
    def worded(self, volume: str | None = None) -> Iterator[None]:
        """What a node answers becomes an error of poolkit."""
        try:
            yield
        except Failed as failed:
            raise self.error(failed.result, volume) from failed

    def error(self, result: int, volume: str | None = None) -> errors.PoolkitError:
        """The error for a result."""
        pool, where = self.pool, self.connection.where
        what = f"volume '{volume}': " if volume is not None else ""
        head = f"pool '{pool}': {what}"
        if result in (wire.NO_VDI, wire.NO_TAG):
            return errors.VolumeNotFound(f"pool '{pool}' has no volume '{volume}'", pool=pool, volume=volume)
        if result == wire.EXISTS:
            return errors.VolumeExists(f"pool '{pool}' has a volume '{volume}' already", pool=pool, volume=volume)
        if result == wire.NO_SPACE:
            return errors.NoSpace(f"{head}the cluster has no space left", pool=pool, volume=volume)
        if result == wire.LOCKED:
            return errors.Busy(f"{head}{wire.MEANINGS[result]}", pool=pool, volume=volume)
        if result == wire.READ_ONLY:
            return errors.PermissionDenied(f"{head}{wire.MEANINGS[result]}", pool=pool, volume=volume)
        if result == wire.UNFORMATTED:
            return errors.InvalidState(
                f"{head}the cluster at {where} is not formatted", pool=pool,
                hint="on one of its nodes: dog cluster format --copies N",
            )  # fmt: skip
        if result == wire.WAITING:
            return errors.Unreachable(
                f"{head}the cluster at {where} waits for nodes that it had when it was stopped", pool=pool,
                hint="start them; what is missing for good: dog cluster recover force",
            )  # fmt: skip
        if result == wire.HALTED:
            return errors.Unreachable(
                f"{head}the cluster at {where} is halted: it has fewer nodes than its data has copies", pool=pool,
                hint="start more of its nodes",
            )  # fmt: skip
        if result == wire.WRONG_VERSION:
            return errors.Unsupported(
                f"{head}{where} speaks a version of Sheepdog's protocol that is not known here (0.4 to 1.0 are)",
                pool=pool,
            )
        meaning = wire.MEANINGS.get(result, "an error of its own")
        return errors.HostError(f"{head}{where} answers with result {result:#x}: {meaning}", pool=pool, volume=volume)

    # -- the cluster ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise unless the cluster works: one that is not formatted lists no VDIs, without an error."""
        with self.worded():
            self.connection.ask(wire.STAT_CLUSTER, wire.STATUS)

    def nodes(self) -> list[tuple[str, int]]:
        """Addresses and ports of all nodes."""
        with self.worded():
            _, data = self.connection.ask(wire.NODES, wire.NODE * wire.MOST_NODES)
        return [wire.node_address(data, at) for at in range(0, len(data) - wire.NODE + 1, wire.NODE)]

    def space(self) -> tuple[int, int]:
        """Bytes of all nodes' stores, and how many are free; a node that cannot be reached from here is warned of."""
        total = unused = 0
        nodes = self.nodes()
        silent = []
        for address in nodes:
            try:
                with Connection(self.connection.host, address, self.pool, self.connection.version) as node:
                    answer, _ = node.ask(wire.STAT_NODE)
            except errors.Unreachable as error:
                silent.append(error)
                continue
            except Failed as failed:
                raise self.error(failed.result) from failed
            size, free = answer.space
            total, unused = total + size, unused + min(free, size)
        if silent and len(silent) == len(nodes):
            raise silent[0]
        if silent:
            self.connection.host.warn(
                f"the sizes are those of {len(nodes) - len(silent)} of {len(nodes)} nodes of the cluster: {silent[0]}"
            )
        if not 0 <= total < 1 << 63:
            raise errors.HostError(f"pool '{self.pool}': the cluster says that it has {total} bytes", pool=self.pool)
        return total, unused

    def vids(self) -> list[int]:
        """The numbers of all VDIs, in order."""
        with self.worded():
            _, used = self.connection.ask(wire.READ_VDIS, wire.BITMAP)
            deleted = b""
            with contextlib.suppress(_Unknown):
                deleted = self._deleted()
        there = int.from_bytes(used, "little") & ~int.from_bytes(deleted, "little")
        if (count := there.bit_count()) > MOST_VDIS:
            raise errors.HostError(
                f"pool '{self.pool}': the cluster says that it has {count} disks; more than {MOST_VDIS} are not listed",
                pool=self.pool,
            )
        return wire.vids(there.to_bytes(wire.BITMAP, "little"))

    def _deleted(self) -> bytes:
        try:
            return self.connection.ask(wire.READ_DELETED, wire.BITMAP)[1]
        except Failed as failed:
            # Before 0.9.3 there is no such request; the name of a deleted one is empty then.
            raise _Unknown from failed

    def inode(self, vid: int) -> Inode | None:
        """The inode of a VDI; None for one that is deleted, ``Damaged`` for one that cannot be."""
        try:
            data = self._read(wire.inode_oid(vid), wire.HEAD)
        except Failed as failed:
            if failed.result == wire.NO_OBJECT:
                return None
            raise self.error(failed.result) from failed
        try:
            found = wire.inode(data, vid)
        except wire.Damaged as error:
            raise wire.Damaged(f"pool '{self.pool}': {error}", pool=self.pool) from error
        return found if found.name else None

    def find(self, name: bytes, tag: bytes = b"", snapshot: int = 0) -> int:
        """The number of the VDI, or of its snapshot; ``Failed`` with NO_VDI or NO_TAG."""
        sent = wire.padded(name) + wire.padded(tag)
        answer, _ = self.connection.ask(wire.GET_VDI_INFO, union=wire.vdi_union(snapshot=snapshot), send=sent)
        return answer.vid

    # -- VDIs -----------------------------------------------------------------------------------------------------

    def new(self, name: bytes, size: int, base: Inode | None = None, *, snapshot: bool = False) -> tuple[int, int]:
        """Make a VDI: its number and the power of two of its objects' size. ``Failed`` with EXISTS for a name that is taken.

        ``base`` is the snapshot that it shares its data with; with ``snapshot`` that becomes a snapshot now, and the new one
        is in its place.
        """
        union = wire.vdi_union(size)
        if base is not None:
            union = wire.vdi_union(
                size,
                base.vid,
                copies=base.copies,
                copy_policy=base.copy_policy,
                shift=base.shift,
                snapshot=int(snapshot),
            )
        answer, _ = self.connection.ask(wire.NEW_VDI, union=union, send=wire.padded(name))
        shift = answer.shift or wire.SHIFT
        if not 20 <= shift <= 31:
            raise errors.HostError(f"pool '{self.pool}': a new disk has objects of 2^{shift} bytes", pool=self.pool)
        return answer.vid, shift

    def set_size(self, disk: Inode, size: int) -> None:
        """Say how large the disk is."""
        self._write_inode(disk, wire.SIZE_AT, size.to_bytes(8, "little"), flags=wire.F_DIRECT)

    def set_tag(self, disk: Inode, tag: bytes) -> None:
        """Say what the snapshot that comes next is called."""
        self._write_inode(disk, wire.TAG_AT, wire.padded(tag))

    def delete(self, disk: Inode) -> None:
        """Delete a VDI and the data that nobody shares."""
        if self.counts_references(disk.vid):
            self.drop(disk, 0, disk.objects)
        sent = wire.padded(disk.name) + wire.padded(disk.tag if disk.is_snapshot else b"")
        # Where a tag tells the snapshot, its number is left out, as Sheepdog's own tool does.
        number = disk.snapshot if disk.is_snapshot and not disk.tag else 0
        self.connection.ask(wire.DELETE_VDI, union=wire.vdi_union(snapshot=number), send=sent)

    def counts_references(self, vid: int) -> bool:
        """Whether inodes have the reference counts of versions since 0.9, where an entry that is dropped frees its object."""
        try:
            self._read(wire.inode_oid(vid), 8, wire.REFERENCES)
        except Failed:
            return False
        return True

    def entries(self, disk: Inode, first: int, count: int) -> list[int]:
        """For data objects from ``first`` on: the VDI that has the data, 0 for none."""
        data = self._read(wire.inode_oid(disk.vid), count * 4, wire.MAP + first * 4)
        return [int.from_bytes(data[at : at + 4], "little") for at in range(0, count * 4, 4)]

    def drop(self, disk: Inode, first: int, count: int) -> None:
        """Let go of data objects: they read as zeros afterwards."""
        if count:
            self._write_inode(disk, wire.MAP + first * 4, bytes(count * 4), flags=wire.F_DIRECT)

    def take(self, disk: Inode, index: int) -> None:
        """Say that the disk has a data object of its own."""
        self._write_inode(disk, wire.MAP + index * 4, disk.vid.to_bytes(4, "little"))

    # -- objects --------------------------------------------------------------------------------------------------

    def read(self, vid: int, index: int, offset: int, length: int) -> bytes:
        """Bytes of a data object."""
        return self._read(wire.data_oid(vid, index), length, offset, direct=False)

    def write(self, disk: Inode, index: int, data: bytes, offset: int = 0, *, create: bool = False) -> None:
        """Write into a data object of the disk's own; ``create`` makes it."""
        union = wire.object_union(
            wire.data_oid(disk.vid, index), offset, copies=disk.copies, copy_policy=disk.copy_policy
        )
        self.connection.ask(wire.CREATE_AND_WRITE if create else wire.WRITE, union=union, send=data)

    def _read(self, oid: int, length: int, offset: int = 0, *, direct: bool = True) -> bytes:
        flags = wire.F_DIRECT if direct else 0
        answer, data = self.connection.ask(wire.READ, length, wire.object_union(oid, offset), flags=flags)
        if len(data) == length:
            return data
        if answer.offset + len(data) > length:
            raise wire.Damaged(f"pool '{self.pool}': the cluster answers with bytes beyond the end", pool=self.pool)
        return (bytes(answer.offset) + data).ljust(length, b"\0")

    def _write_inode(self, disk: Inode, offset: int, data: bytes, *, flags: int = 0) -> None:
        union = wire.object_union(wire.inode_oid(disk.vid), offset, copies=disk.copies, copy_policy=disk.copy_policy)
        self.connection.ask(wire.WRITE, union=union, send=data, flags=flags)


class _Unknown(Exception):
    """The version has no such request."""
