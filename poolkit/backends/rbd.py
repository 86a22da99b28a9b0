"""Pools of type ``rbd``: a Ceph pool, or a namespace of one, whose RBD images are the volumes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from secrets import token_hex
from typing import BinaryIO, ClassVar, Literal

from poolkit import errors
from poolkit.backend import Backend, DiskSource, Source, State, Transfer, Usage, VolumeInfo
from poolkit.content import filling, space, wiping
from poolkit.families import ceph
from poolkit.families.away import taken_back
from poolkit.families.ceph import bytes as content
from poolkit.families.ceph import login, making, naming, removing
from poolkit.families.ceph.interface import FEATURES, Image, ImageName, Images
from poolkit.families.ceph.listing import Lister
from poolkit.host.undo import Undo
from poolkit.model import Auth, Pool, SourceHost, Volume
from poolkit.xmlmap import Element, simple, xml

RBD_NAMESPACE = "http://libvirt.org/schemas/storagepool/rbd/1.0"


class CephOption(Element):
    """One option of the Ceph client."""

    name: str = xml(
        "@name", type=simple.Text, since="5.1.0", effect="acted", doc="Option, such as client_mount_timeout."
    )
    value: str = xml("@value", type=simple.Text, since="5.1.0", effect="acted", doc="Its value.")


class RbdSource(Element):
    """The monitors, the Ceph pool and how to log in."""

    hosts: tuple[SourceHost, ...] = xml("host", min=1, since="0.9.13", doc="Monitors of the cluster.")
    name: str = xml("name", type=simple.Name, since="0.9.13", effect="acted", doc="Name of the Ceph pool.")
    auth: Auth | None = xml("auth", default=None, since="0.9.13", doc="cephx login.")
    vendor: str | None = xml(
        "vendor/@name", default=None, since="0.8.4", effect="kept", doc="Who made the storage; for information."
    )
    product: str | None = xml(
        "product/@name", default=None, since="0.8.4", effect="kept", doc="What it is; for information."
    )


class RbdPool(Pool):
    """The images of one Ceph pool."""

    type: ClassVar[str] = "rbd"
    first: ClassVar[str | None] = "0.9.13"
    namespaces: ClassVar[dict[str, str]] = {"rbd": RBD_NAMESPACE}
    name: str = xml(
        "name",
        type=simple.Name,
        source="source.name",
        since="0.4.1",
        effect="acted",
        doc="Name; the source's by default.",
    )
    source: RbdSource = xml("source", doc="The cluster and its pool.")
    refresh_allocation: Literal["default", "capacity"] | None = xml(
        "refresh/volume/@allocation",
        default=None,
        since="5.2.0",
        effect="acted",
        doc="How allocation is told: counted (default) or taken as the capacity, which is quick.",
    )
    namespace: str | None = xml(
        "pk:namespace/@name", type=simple.Name, default=None, effect="acted", doc="Namespace of the Ceph pool."
    )
    config_options: tuple[CephOption, ...] = xml(
        "rbd:config_opts/rbd:option", default=(), since="5.1.0", doc="Options of the Ceph client."
    )


class RbdBackend(Backend):
    """The images of a Ceph pool, through librbd, in the child that does what may hang."""

    type = "rbd"
    offers = ("thin", "snapshot", "shared")
    definition = RbdPool
    tools = ("librados.so.2", "librbd.so.1")  # Debian's modules of Python stand on them, too
    packages: ClassVar[dict[str, str]] = {"librados.so.2": "librados2", "librbd.so.1": "librbd1"}
    may_hang = (
        "volumes", "look", "usage", "create", "clone", "resize", "delete", "wipe", "upload", "download", "copy_to", "take_back",
    )  # fmt: skip
    volume_formats = ("raw",)
    _sizes: Usage | None = None

    # -- the pool ---------------------------------------------------------------------------------------------------

    @classmethod
    def lacks(cls) -> errors.ToolMissing | None:
        """The client library of Ceph."""
        return ceph.lacks()

    def claims(self) -> Iterable[str]:
        """The namespace of the cluster's pool."""
        source = self.pool.source
        hosts = ",".join(sorted(f"{host.name}:{host.port or ''}" for host in source.hosts))
        return (f"rbd {source.name}/{self.pool.namespace or ''} of {hosts}",)

    def state(self, *, closely: bool = False) -> State:
        """Nothing on this host is up or down: what the cluster says is found out by the listing."""
        return State(True)

    def answers(self) -> bool:
        """Whether a monitor takes a connection."""
        return login.reachable(self.pool)

    @property
    def place(self) -> tuple[str, str]:
        """The Ceph pool and its namespace."""
        return self.pool.source.name, self.pool.namespace or ""

    @contextlib.contextmanager
    def images(self, volume: str | None = None, place: tuple[str, str] | None = None) -> Iterator[Images]:
        """The images, for as long as a connection lasts; what Ceph answers becomes an error of poolkit."""
        with login.worded(self.pool, volume):
            with ceph.connect(*login.settings(self.pool, self.host)) as cluster:
                with cluster.images(*(place or self.place)) as images:
                    yield images

    # -- the listing ------------------------------------------------------------------------------------------------

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """The images. One whose header and object map have not been written since the last listing is not opened."""
        with login.worded(self.pool), ceph.connect(*login.settings(self.pool, self.host)) as cluster:
            with cluster.images(*self.place) as images:
                used = images.bytes_used()  # raises for a pool that is gone, where a listing is empty
                yield from self._lister(images).all(known)
            capacity, available = cluster.space()
        self._sizes = Usage(capacity, used, available)

    def usage(self, volumes: Sequence[VolumeInfo]) -> Usage:
        """As libvirt has it: the space of the cluster, and what the pool's objects hold of it."""
        if self._sizes is None:
            with login.worded(self.pool), ceph.connect(*login.settings(self.pool, self.host)) as cluster:
                with cluster.images(*self.place) as images:
                    used = images.bytes_used()
                capacity, available = cluster.space()
            self._sizes = Usage(capacity, used, available)
        return self._sizes

    def look(self, name: str, known: VolumeInfo | None) -> VolumeInfo:
        """One image as it is now."""
        with self.images(name) as images:
            info = self._lister(images).one(name)
        if info is None:
            raise self.missing(name)
        return info

    def _lister(self, images: Images) -> Lister:
        return Lister(self.host, images, self.place, counted=self.pool.refresh_allocation != "capacity")

    def identity(self, info: VolumeInfo) -> str:
        """What Ceph calls the image, whatever its name."""
        return str((info.detail or {}).get("id"))

    def disk_source(self, info: VolumeInfo) -> DiskSource:
        """The image, with the monitors and the login of the pool."""
        from poolkit import disks

        source = self.pool.source
        hosts = tuple(disks.DiskHost(name=host.name, port=host.port) for host in source.hosts)
        auth = None
        if source.auth is not None:
            key = disks.DiskSecret(type="ceph", uuid=source.auth.secret.uuid, usage=source.auth.secret.usage)
            auth = disks.DiskAuth(username=source.auth.username, secret=key)
        return DiskSource(
            disks.NetworkSource(protocol="rbd", name=self._path(info.name), hosts=hosts, auth=auth), cache="none"
        )

    def below(self, info: VolumeInfo) -> tuple[str, ...]:
        """The image that this one is a clone of."""
        parent = (info.detail or {}).get("parent")
        return (str(parent).partition("@")[0],) if parent else ()

    # -- volumes ----------------------------------------------------------------------------------------------------

    def create(
        self, volume: Volume, *, features: Sequence[str] | str | None = None, order: int | None = None,
        object_size: int | None = None, data_pool: str | None = None, stripe_unit: int | None = None,
        stripe_count: int | None = None,
    ) -> VolumeInfo:  # fmt: skip
        """Make an image of zeros. The options are Ceph's own and take precedence over the document's; the cluster's otherwise.

        ``order`` is the size of its objects as a power of two, or ``object_size`` in bytes; features are named as Ceph does.
        """
        options = making.options(
            volume, features=features, order=order, object_size=object_size, data_pool=data_pool,
            stripe_unit=stripe_unit, stripe_count=stripe_count,
        )  # fmt: skip
        size = making.capacity(volume, self.pool.name)
        return self._new(volume, size, lambda images, name: images.create(name, size, options))

    def _new(self, volume: Volume, size: int, make: Callable[[Images, str], None]) -> VolumeInfo:
        """Make an image under a name of our own, and give it its name when it is whole, if nothing has that."""
        making.check(volume, self.pool.name)
        temporary = f".poolkit-{token_hex(8)}"
        if not self.host.step(f"create {self._path(volume.name)}", self._undo("remove", temporary, "")):
            return VolumeInfo(volume.name, "network", "raw", size, path=self._path(volume.name))
        with self.images(volume.name) as images:
            make(images, temporary)
            with images.open(temporary) as image:
                ident = image.facts().id
            self.host.step(f"name it {volume.name}", self._undo("remove", volume.name, ident))
            try:
                naming.rename(images, temporary, volume.name, ident)
            except ceph.CephError as error:
                if error.number != ceph.TAKEN:
                    raise
                raise errors.VolumeExists(
                    f"pool '{self.pool.name}' has a volume '{volume.name}' already", volume=volume.name
                ) from error
            info = self._lister(images).one(volume.name)
        if info is None:
            raise self.missing(volume.name)
        return info

    def own(self, source: Source) -> bool:
        """An image of the same cluster is cloned or copied there."""
        return isinstance(source.pool, RbdPool) and source.pool.source.hosts == self.pool.source.hosts

    def clone(
        self, volume: Volume, source: Source, *, linked: bool = False, reflink: bool | None = None, flatten: bool = False,
        snapshot: str | None = None, secret: bytes | None = None, features: Sequence[str] | str | None = None,
        order: int | None = None, object_size: int | None = None, data_pool: str | None = None,
        stripe_unit: int | None = None, stripe_count: int | None = None,
    ) -> VolumeInfo:  # fmt: skip
        """Make an image from an image of this cluster, or with the bytes of any other source.

        ``linked`` makes a clone in Ceph's sense, which shares the data of a snapshot of the source: of ``snapshot``, of one
        since which nothing was written, or of a new one. ``flatten`` copies that data afterwards, so that it stands alone.
        """
        if reflink:
            raise errors.Unsupported(
                f"volume '{volume.name}': images share no blocks on demand", volume=volume.name,
                hint=errors.Hint("a clone that shares the data of a snapshot: ", errors.Option("linked")),
            )  # fmt: skip
        options = making.options(
            volume, features=features, order=order, object_size=object_size, data_pool=data_pool,
            stripe_unit=stripe_unit, stripe_count=stripe_count,
        )  # fmt: skip
        size = max(volume.capacity or 0, source.capacity)
        if not self.own(source):
            if linked or flatten or snapshot:
                raise errors.Unsupported(
                    f"{source} is not in the same cluster, so no clone can stand on it", volume=volume.name,
                    hint="copy it",
                )  # fmt: skip
            with filling.raw(self.host, source, secret=secret) as fd:
                return self._new(volume, size, making.filled(self.host, fd, source.capacity, size, options))
        origin = ImageName(source.pool.source.name, source.pool.namespace or "", source.info.name)
        ident = str((source.info.detail or {}).get("id"))
        maker = making.Cloner(self.host, self._origin, origin, ident, self._undo)
        if linked or flatten or snapshot:
            return self._new(
                volume, size, maker.clone(size, options, snapshot, flatten=flatten, across=origin[:2] != self.place)
            )
        return self._new(volume, size, maker.copy(size, options))

    def _origin(self, origin: ImageName) -> contextlib.AbstractContextManager[Images]:
        return self.images(origin.name, (origin.pool, origin.namespace))

    def rounded(self, capacity: int) -> int:
        """Images have any size in bytes."""
        return capacity

    def resize(self, info: VolumeInfo, capacity: int, *, allocate: bool = False, shrink: bool = False) -> VolumeInfo:
        """Set the size of an image."""
        if allocate:
            raise errors.Unsupported(f"volume '{info.name}': images of RBD reserve no space", volume=info.name)
        if not self.host.step(f"resize {self._path(info.name)} to {capacity} bytes"):
            return info
        with self._changed(info) as (images, image):
            image.resize(capacity, shrink, lambda done, total: self.host.progress(done, total, "resize"))
            return self._lister(images).told(info.name, image)

    def delete(self, info: VolumeInfo, *, delete_snapshots: bool = False) -> None:
        """Remove an image. One with snapshots is refused unless they are to go as well, one with clones or in use always."""
        if self.host.step(f"remove {self._path(info.name)}{' and its snapshots' if delete_snapshots else ''}"):
            with self.images(info.name) as images:
                removing.remove(
                    self.host, images, info.name, self.identity(info), self.pool.name, snapshots=delete_snapshots
                )

    def wipe(self, info: VolumeInfo, algorithm: str = "zero") -> VolumeInfo:
        """Make an image read as zeros, or give its space back."""
        why = "Ceph writes elsewhere what is overwritten, so {} would promise too much"
        wiping.check_offered(algorithm, info.name, ("zero", "trim"), why)
        label = f"wipe {self._path(info.name)} with {algorithm}"
        if self.host.dry_run:
            self.host.step(label)
            return info
        with self._changed(info) as (images, image):
            self.host.step(label)
            content.wipe(self.host, image, image.facts().size, algorithm)
            if kept := [one.name for one in image.snapshots()]:
                self.host.warn(f"volume '{info.name}' has snapshots, which keep its data: {errors.some(kept)}")
            return self._lister(images).told(info.name, image)

    def upload(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> VolumeInfo:
        """Write the bytes of ``stream`` over those of the image, within its size."""
        label = f"upload to {self._path(info.name)} from byte {transfer.offset}"
        if self.host.dry_run:
            self.host.step(label)
            return info
        with self._changed(info) as (images, image):
            end = space.check_range(info.name, transfer, image.facts().size)
            self.host.step(label)
            content.upload(self.host, image, stream, transfer, end)
            return self._lister(images).told(info.name, image)

    def download(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> int:
        """Write the bytes of the image to ``stream``."""
        with self._read(info) as image:
            return content.download(
                self.host, image, stream, transfer, space.check_range(info.name, transfer, image.facts().size)
            )

    def copy_to(self, info: VolumeInfo, fd: int) -> None:
        """Write the bytes of the image into an open file or device, holes left out."""
        with self._read(info) as image:
            content.send(self.host, image, fd, image.facts().size)

    # -- parts ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _changed(self, info: VolumeInfo) -> Iterator[tuple[Images, Image]]:
        with self.images(info.name) as images, self._open(images, info, write=True) as image:
            yield images, image

    @contextlib.contextmanager
    def _read(self, info: VolumeInfo) -> Iterator[Image]:
        with self.images(info.name) as images, self._open(images, info) as image:
            if users := image.watchers():
                self.host.warn(
                    f"volume '{info.name}' is open elsewhere ({', '.join(users)}) and may be written meanwhile"
                )
            yield image

    @contextlib.contextmanager
    def _open(self, images: Images, info: VolumeInfo, *, write: bool = False) -> Iterator[Image]:
        with removing.opened(images, info.name, self.pool.name, write=write) as image:
            if image.facts().id != self.identity(info):
                raise self.replaced(f"the image '{self._path(info.name)}'", info.name)
            yield image

    def _path(self, name: str) -> str:
        return str(ImageName(*self.place, name))

    def _undo(self, action: str, *values: str) -> Undo:
        return taken_back(self, f"{action} {' '.join(filter(None, values))}", action, *values)

    def take_back(self, action: str, *values: str) -> None:
        """Remove an image, or a snapshot that a clone was to stand on, if it is the one that was made."""
        if action == "remove":
            with self.images() as images:
                removing.take_back(images, *values)
        else:
            pool, namespace, name, ident, snapshot = values
            with self.images(place=(pool, namespace)) as images:
                removing.take_back_snapshot(images, name, ident, snapshot)


__all__ = ["FEATURES", "RbdBackend", "RbdPool"]
