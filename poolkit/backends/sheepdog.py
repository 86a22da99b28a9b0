"""Pools of type ``sheepdog``: a Sheepdog cluster whose virtual disks are the volumes, reached by its own protocol."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from poolkit import disks, errors
from poolkit.backend import Backend, DiskSource, Source, State, Transfer, Usage, VolumeInfo
from poolkit.content import filling, space, wiping
from poolkit.families import away
from poolkit.families.sheep import client, content, listing, making, naming, opening, wire
from poolkit.families.sheep.cluster import Cluster
from poolkit.families.sheep.wire import Inode
from poolkit.model import Pool, SourceHost, Volume, product, vendor
from poolkit.xmlmap import Element, replace, simple, xml
from poolkit.xmlmap.rules import at_least_one


class SheepdogSource(Element):
    """The nodes and the cluster's name."""

    hosts: tuple[SourceHost, ...] = xml(
        "host", min=1, since="0.9.13", doc="Nodes of the cluster, tried in turn; port 7000 by default."
    )
    name: str | None = xml(
        "name", type=simple.Name, default=None, since="0.9.13", effect="acted",
        doc="Name of the cluster, with which keys begin; the pool's name by default.",
    )  # fmt: skip
    vendor: str | None = vendor()
    product: str | None = product()


class SheepdogPool(Pool):
    """The virtual disks of one Sheepdog cluster."""

    type: ClassVar[str] = "sheepdog"
    first: ClassVar[str | None] = "0.10.0"
    rules = (at_least_one("name", "source.name", paths=("name", "source/name")),)
    name: str = xml(
        "name",
        type=simple.Name,
        source="source.name",
        since="0.4.1",
        effect="acted",
        doc="Name; the source's by default.",
    )
    source: SheepdogSource = xml("source", doc="The cluster.")

    @staticmethod
    def complete(values: dict[str, Any]) -> None:
        """The source's name defaults to the pool's."""
        if values["source"].name is None:
            values["source"] = replace(values["source"], name=values["name"])


class SheepdogBackend(Backend):
    """The virtual disks (VDIs) of a cluster and their snapshots.

    Sheepdog cannot rename: a disk has its name from the first moment. While it is made its size is a number drawn for it alone,
    by which an undo knows it; it gets its own when it is whole.
    """

    type = "sheepdog"
    offers = ("thin", "snapshot", "shared")
    definition = SheepdogPool
    volume_formats = ("raw",)
    _sizes: Usage | None = None

    # -- the pool ---------------------------------------------------------------------------------------------------

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """The nodes to ask, in the order of the definition."""
        return [
            (host.name.strip("[]"), host.port if host.port and host.port > 0 else wire.PORT)
            for host in self.pool.source.hosts
        ]

    def claims(self) -> Iterable[str]:
        """The cluster, by each of its nodes."""
        return tuple(f"sheepdog {host}:{port}" for host, port in self.hosts)

    def state(self, *, closely: bool = False) -> State:
        """Nothing on this host is up or down: what the cluster says is found out by the listing."""
        return State(True)

    @contextlib.contextmanager
    def cluster(self, volume: str | None = None) -> Iterator[Cluster]:
        """The cluster, for as long as a connection lasts; raises for one that does not work."""
        with client.connected(self.host, self.hosts, self.pool.name, lambda one: Cluster(one).check()) as connection:
            cluster = Cluster(connection)
            with cluster.worded(volume):
                yield cluster

    def start(self) -> None:
        """Nothing is brought up: the cluster must work."""
        if not self.host.dry_run:
            with self.cluster():
                pass

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """Every disk, and every snapshot as one of its own."""
        with self.cluster() as cluster:
            yield from listing.volumes(cluster, self._place)
            self._sizes = self._usage(cluster)

    def usage(self, volumes: Sequence[VolumeInfo]) -> Usage:
        """The stores of all nodes, copies included, as libvirt has it."""
        if self._sizes is None:
            with self.cluster() as cluster:
                self._sizes = self._usage(cluster)
        return self._sizes

    @staticmethod
    def _usage(cluster: Cluster) -> Usage:
        size, free = cluster.space()
        return Usage(size, size - free, free)

    def look(self, name: str, known: VolumeInfo | None) -> VolumeInfo:
        """One disk or snapshot as it is now."""
        raw, tag, number = naming.meant(name, self.pool.name)
        with self.cluster(name) as cluster:
            found = cluster.inode(cluster.find(raw, tag, number))
            if found is None or found.name != raw or found.is_snapshot != ("@" in name):
                raise self.missing(name)
            return listing.volume(cluster, found, name, self._place, {})

    @property
    def _place(self) -> str:
        return str(self.pool.source.name)

    def identity(self, info: VolumeInfo) -> listing.Lineage:
        """Which VDI it is: a snapshot gives the disk another one, on top of that."""
        return listing.identity(info)

    def disk_source(self, info: VolumeInfo) -> DiskSource:
        """The disk at the first of the hosts: libvirt and QEMU take one."""
        raw, tag, number = naming.meant(info.name, self.pool.name)
        if tag or number:
            remedy = errors.remedy("vol-clone", info.name, ..., pool=self.pool.name, linked=True)
            raise errors.Unsupported(
                f"volume '{info.name}' is a snapshot, which no machine can write to", volume=info.name,
                hint=errors.Hint("make a disk of it: ", remedy),
            )  # fmt: skip
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise errors.Unsupported(f"volume '{info.name}': its name is no text", volume=info.name) from None
        host, port = self.hosts[0]
        source = disks.NetworkSource(protocol="sheepdog", name=name, hosts=(disks.DiskHost(name=host, port=port),))
        return DiskSource(source)

    # -- new disks --------------------------------------------------------------------------------------------------

    def create(self, volume: Volume) -> VolumeInfo:
        """Make a disk of zeros, with the cluster's own number of copies."""
        capacity = space.capacity_given(volume)
        if volume.backing_store is not None:
            raise errors.Unsupported(
                f"volume '{volume.name}': a disk is made on a snapshot by cloning that", volume=volume.name,
                hint=errors.Hint("clone it: ", errors.Option("linked")),
            )  # fmt: skip
        return self._new(volume, capacity)

    def own(self, source: Source) -> bool:
        """A disk of the same cluster is read there."""
        return isinstance(source.pool, SheepdogPool) and source.pool.source.hosts == self.pool.source.hosts

    def clone(
        self, volume: Volume, source: Source, *, linked: bool = False, reflink: bool | None = None,
        secret: bytes | None = None,
    ) -> VolumeInfo:  # fmt: skip
        """Make a disk with the content of ``source``.

        ``linked`` shares the data of a snapshot (``VDI@TAG``) of this cluster; with the name ``VDI@TAG`` it makes that snapshot
        of the disk ``VDI``.
        """
        if reflink:
            raise errors.Unsupported(
                f"volume '{volume.name}': disks share no blocks on demand", volume=volume.name,
                hint=errors.Hint("a clone that shares the data of a snapshot: ", errors.Option("linked")),
            )  # fmt: skip
        size = max(volume.capacity or 0, source.capacity)
        _, tag, number = naming.meant(volume.name, self.pool.name)
        if linked and self.own(source):
            if tag or number:
                return self._snapshot(volume.name, source.info)
            return self._linked(volume, source, size)
        if linked:
            raise errors.Unsupported(
                f"{source} is not in this cluster, so no disk can share its data", volume=volume.name, hint="copy it"
            )
        if self.own(source):

            def copy(cluster: Cluster, disk: content.Disk) -> None:
                content.copy(self.host, content.Disk(cluster, opening.data(cluster, source.info)), disk)

            return self._new(volume, size, fill=copy)
        with filling.raw(self.host, source, secret=secret) as fd:
            return self._new(
                volume, size, fill=lambda _, disk: content.receive(self.host, disk, fd, source.capacity)
            )  # fmt: skip

    def _linked(self, volume: Volume, source: Source, size: int) -> VolumeInfo:
        with self.cluster(source.info.name) as cluster:
            base = opening.inode(cluster, source.info)
        if not base.is_snapshot:
            remedy = errors.remedy(
                "vol-clone", source.info.name, f"{source.info.name}@{volume.name}", pool=self.pool.name, linked=True
            )
            raise errors.Unsupported(
                f"{source} can still be written to; a disk shares the data of a snapshot", volume=volume.name,
                hint=errors.Hint("make one and clone that: ", remedy),
            )  # fmt: skip
        return self._new(volume, size, base=base)

    def _new(
        self, volume: Volume, size: int, *, base: Inode | None = None,
        fill: Callable[[Cluster, content.Disk], None] | None = None,
    ) -> VolumeInfo:  # fmt: skip
        name = volume.name
        raw = making.check(volume, self.pool.name)
        mark = making.mark(size, base)
        undo = away.taken_back(self, f"delete the new disk {name}", "marked", name, mark) if mark else None
        if not self.host.step(f"create disk {name} of {size} bytes", undo):
            return VolumeInfo(name, "network", "raw", size, path=f"{self._place}/{name}")
        with self.cluster(name) as cluster:
            vid, shift = cluster.new(raw, mark or size, base)
            self.host.step(f"give {name} its size", away.taken_back(self, f"delete disk {name}", "vdi", name, vid))
            inode = cluster.inode(vid)
            if inode is None:
                raise self.missing(name)
            if size > wire.MOST_OBJECTS << shift:
                raise errors.InvalidArgument(
                    f"volume '{name}': a disk has at most {wire.MOST_OBJECTS << shift} bytes in this cluster",
                    volume=name,
                )
            if fill is not None:
                fill(cluster, content.Disk(cluster, inode, size))
            cluster.set_size(inode, size)
            return listing.volume(cluster, inode._replace(size=size), name, self._place, {})

    def _snapshot(self, name: str, info: VolumeInfo) -> VolumeInfo:
        raw, tag, _ = naming.meant(name, self.pool.name)
        if naming.spelled(raw) != info.name or not tag:
            raise errors.InvalidArgument(
                f"pool '{self.pool.name}': a snapshot of '{info.name}' is called '{info.name}@' and a tag, not '{name}'",
                volume=name,
            )
        with self.cluster(name) as cluster:
            disk = opening.inode(cluster, info, write=True)
            try:
                cluster.find(raw, tag)
            except client.Failed as failed:
                if failed.result != wire.NO_TAG:
                    raise
            else:
                raise cluster.error(wire.EXISTS, name)
            undo = away.taken_back(self, f"delete snapshot {name}", "tag", info.name, disk.vid, tag.hex())
            if not self.host.step(f"make snapshot {name}", undo):
                return info._replace(name=name, path=f"{self._place}/{name}")
            cluster.set_tag(disk, tag)
            cluster.new(raw, disk.size, disk, snapshot=True)
        return self.look(name, None)

    def take_back(self, *what: Any) -> None:
        """Undo of what was made; only what is still that."""
        kind, name, *more = what
        with self.cluster(name) as cluster:
            making.take_back(cluster, naming.meant(name, self.pool.name)[0], kind, *more)

    # -- changes ----------------------------------------------------------------------------------------------------

    def resize(self, info: VolumeInfo, capacity: int, *, allocate: bool = False, shrink: bool = False) -> VolumeInfo:
        """Let a disk grow."""
        if allocate:
            raise errors.Unsupported(f"volume '{info.name}': disks of Sheepdog reserve no space", volume=info.name)
        if capacity < info.capacity:
            raise errors.Unsupported(f"volume '{info.name}': disks of Sheepdog cannot shrink", volume=info.name)
        with self.cluster(info.name) as cluster:
            disk = opening.data(cluster, info, write=True)
            if capacity > wire.MOST_OBJECTS << disk.shift:
                raise errors.InvalidArgument(
                    f"volume '{info.name}': a disk with objects of {1 << disk.shift} bytes has at most "
                    f"{wire.MOST_OBJECTS << disk.shift}",
                    volume=info.name,
                )
            back = away.taken_back(self, f"shrink {info.name} again", "size", info.name, disk.vid, disk.size, capacity)
            if self.host.step(f"grow disk {info.name} to {capacity} bytes", back):
                cluster.set_size(disk, capacity)
        return self.look(info.name, info)

    def delete(self, info: VolumeInfo) -> None:
        """Delete a disk or a snapshot. Others that share its data keep it."""
        with self.cluster(info.name) as cluster:
            disk = opening.inode(cluster, info)
            if disk.hyper:
                raise opening.strange(info, "a hyper volume", "dog vdi delete")
            if self.host.step(f"delete {'snapshot' if disk.is_snapshot else 'disk'} {info.name}"):
                cluster.delete(disk)

    def wipe(self, info: VolumeInfo, algorithm: str = "zero") -> VolumeInfo:
        """Make a disk read as zeros, or free its data."""
        why = "what the nodes of a cluster do with {} would be less than it promises"
        wiping.check_offered(algorithm, info.name, ("zero", "trim"), why)
        with self.cluster(info.name) as cluster:
            disk = opening.data(cluster, info, write=True)
            if self.host.step(f"wipe {info.name} with {algorithm}"):
                content.wipe(self.host, content.Disk(cluster, disk), algorithm)
        return self.look(info.name, info)

    def upload(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> VolumeInfo:
        """Write the bytes of ``stream`` over those of the disk, within its size."""
        with self.cluster(info.name) as cluster:
            disk = opening.data(cluster, info, transfer, write=True)
            if self.host.step(f"upload to {info.name} from byte {transfer.offset}"):
                content.upload(self.host, content.Disk(cluster, disk), stream, transfer)
        return self.look(info.name, info)

    def download(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> int:
        """Write the bytes of a disk or snapshot to ``stream``."""
        with self.cluster(info.name) as cluster:
            disk = opening.data(cluster, info, transfer)
            return content.download(self.host, content.Disk(cluster, disk), stream, transfer)

    def copy_to(self, info: VolumeInfo, fd: int) -> None:
        """Write the bytes of a disk or snapshot into an open file or device, holes left out."""
        with self.cluster(info.name) as cluster:
            content.send(self.host, content.Disk(cluster, opening.data(cluster, info)), fd)
