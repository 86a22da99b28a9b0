"""What the file-backed pool types share: everything one does to a volume that is a file of a directory.

Every entry is reached through the directory's descriptor and never through a symbolic link; what is checked is what is
worked on, because both go through one descriptor. A new volume appears under its name whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from poolkit import errors
from poolkit.backend import Source, Transfer, VolumeInfo
from poolkit.families.directory import DirectoryBackend
from poolkit.host import undo
from poolkit.host.files import Directory, NewFile
from poolkit.later import later
from poolkit.model import FILE_FORMATS, Permissions, Volume

if TYPE_CHECKING:
    from poolkit.content import copying, images, inuse, space, wiping
    from poolkit.formats import ImageInfo
    from poolkit.host import libc
else:
    # A listing needs none of them.
    libc = later(globals(), "libc", "poolkit.host.libc")
    copying = later(globals(), "copying", "poolkit.content.copying")
    inuse = later(globals(), "inuse", "poolkit.content.inuse")
    images = later(globals(), "images", "poolkit.content.images")
    space = later(globals(), "space", "poolkit.content.space")
    wiping = later(globals(), "wiping", "poolkit.content.wiping")

__all__ = ["FileBackend"]


class FileBackend(DirectoryBackend):
    """The base of dir, fs and netfs: everything about volumes; the subclasses bring the directory up and down."""

    volume_formats = ("raw", *(f for f in FILE_FORMATS if f != "raw"))

    @cached_property
    def trust_blocks(self) -> bool:  # type: ignore[override]
        """Whether a file without blocks is known to be empty: not on FUSE, overlays and others that count late or never."""
        mount = self.host.locate(self.place)[1]
        return mount is not None and mount.fstype in space.PROMPT

    # -- making -------------------------------------------------------------------------------------------------------

    def create(self, volume: Volume, *, preallocation: str | None = None) -> VolumeInfo:
        """Make a volume of any format in ``images.PREALLOCATION``.

        A raw one is sparse but for ``allocation`` bytes, which are reserved (all of them when it is not given);
        ``preallocation`` off, metadata, falloc or full says otherwise for every format. ``NoSpace`` before anything is
        written if what is to be reserved does not fit.
        """
        backing = self._backing_of(volume)
        wanted = images.recipe(
            self.host, volume, self._capacity_of(volume, backing), default="raw", preallocation=preallocation
        )
        if self.host.dry_run:
            self.host.step(f"create {self.place}/{volume.name} {wanted.format} {wanted.capacity} bytes")
            return VolumeInfo(volume.name, "file", wanted.format, wanted.capacity)
        with self.open() as directory, self._new(directory, volume, wanted.format) as new:
            if wanted.format in images.BYTES:
                self._fill(new.fd, volume, wanted.capacity, preallocation)
            else:
                if wanted.preallocation in ("falloc", "full"):
                    copying.require_space(new.fd, wanted.capacity)
                images.create(self.host, new.fd, volume.name, wanted)
        return self._made(volume.name, wanted.format)

    def clone(
        self,
        volume: Volume,
        source: Source,
        *,
        linked: bool = False,
        reflink: bool | None = None,
        preallocation: str | None = None,
        chain: Sequence[tuple[str, str]] = (),
        secret: bytes | None = None,
    ) -> VolumeInfo:
        """Make a volume with the content of ``source``: a copy of its bytes, or a conversion when the format differs.

        ``linked`` makes a qcow2 overlay on the source instead. ``reflink`` is as for ``copying.duplicate``. ``chain`` has the
        path and format of each image below the source that a conversion may read; ``secret`` opens an encrypted source.
        Raises ``SourceChanged`` if the source was changed while it was read, and then leaves nothing.
        """
        if source.info.type == "dir":
            raise errors.Unsupported(f"{source} is a directory and cannot be cloned", volume=source.info.name)
        if (source.info.detail or {}).get("ambiguous"):
            raise errors.Unsafe(
                f"{source} passes for several formats, so it is not used", volume=source.info.name,
                hint=errors.Hint(
                    "say which one it is: ",
                    errors.remedy("vol-adopt", source.info.name, pool=source.pool.name, format=...),
                ),
            )  # fmt: skip
        with source.open() as fd:
            copy = (volume, source, fd, linked, reflink, preallocation, chain, secret)
            return copying.twice(self.host, fd, lambda _: self._clone(*copy))

    def _clone(
        self, volume: Volume, source: Source, fd: int, linked: bool, reflink: bool | None, preallocation: str | None,
        chain: Sequence[tuple[str, str]], secret: bytes | None,
    ) -> VolumeInfo:  # fmt: skip
        inuse.check_copy(self.host, fd, source.format, str(source), linked=linked)
        size = copying.size_of(fd)
        unchanged = contextlib.nullcontext() if linked else copying.unchanged(fd, source)
        image = images.examine(self.host, fd, size, source.format, str(source))
        have = source.capacity if image.capacity is None else image.capacity
        wanted = images.recipe(
            self.host, volume, max(volume.capacity or 0, have),
            default="qcow2" if linked else source.format, preallocation=preallocation, copied=source.format,
        )  # fmt: skip
        if self.host.dry_run:
            how = "link" if linked else "copy"
            self.host.step(f"{how} {source.path} to {self.place}/{volume.name} {wanted.format}")
            return VolumeInfo(volume.name, "file", wanted.format, wanted.capacity)
        with self.open() as directory, self._new(directory, volume, wanted.format) as new, unchanged:
            if linked:
                self._link(new, volume, source, wanted)
            elif self._same(source.format, image, wanted):
                self._copy(new, volume, source, fd, size, image, wanted, reflink, chain)
            else:
                if reflink:
                    raise errors.Unsupported(
                        f"{source} is {source.format}, and the new volume {wanted.format}: blocks cannot be shared"
                    )
                self._convert(new, volume, source, fd, wanted, chain, secret)
        return self._made(volume.name, wanted.format)

    @staticmethod
    def _same(format: str, image: ImageInfo, wanted: images.Recipe) -> bool:
        """Whether a copy of the bytes is what is wanted: it keeps snapshots, bitmaps and encryption."""
        if wanted.format in images.BYTES:
            return format in images.BYTES
        return (
            format == wanted.format
            and wanted.preallocation == "off"
            and wanted.secret is None
            and wanted.cluster_size in (None, image.cluster_size)
            and wanted.compat in (None, image.compat)
            and set(wanted.features) <= set(image.features)
        )

    def _link(self, new: NewFile, volume: Volume, source: Source, wanted: images.Recipe) -> None:
        import dataclasses

        if wanted.format not in images.OVERLAYS:
            raise errors.InvalidArgument(
                f"volume '{volume.name}': a linked clone has the format qcow2, not {wanted.format}", volume=volume.name
            )
        if not source.path.startswith("/"):
            raise errors.Unsupported(f"{source} has no path that an overlay could name")
        wanted = dataclasses.replace(wanted, backing=(source.path, source.format))
        images.create(self.host, new.fd, volume.name, wanted)

    def _copy(
        self, new: NewFile, volume: Volume, source: Source, fd: int, size: int, image: ImageInfo,
        wanted: images.Recipe, reflink: bool | None, chain: Sequence[tuple[str, str]],
    ) -> None:  # fmt: skip
        folder = os.path.dirname(source.path)
        backing = image.backing
        if backing is not None and backing.kind == "file" and not backing.raw.startswith(b"/") and folder != self.place:
            raise errors.Unsafe(
                f"{source} names its backing image relative to its own folder, '{backing.name[:200]}': "
                f"in '{self.place}' that would be another file",
                hint="clone it in its own pool, or convert it to another format",
            )
        grown = wanted.capacity > (size if image.capacity is None else image.capacity)
        if grown and wanted.format not in images.BYTES:
            images.check_resize(self.host, fd, wanted.format, wanted.capacity, shrink=False)
        if wanted.format in images.BYTES:
            os.ftruncate(new.fd, size)
            if _whole(volume, wanted):
                copying.require_space(new.fd, wanted.capacity)
        self.host.files.fault("copying")
        copying.duplicate(self.host, fd, new.fd, size, reflink=reflink)
        os.ftruncate(new.fd, max(size, wanted.capacity) if wanted.format in images.BYTES else size)
        if wanted.format in images.BYTES:
            if _whole(volume, wanted):
                space.reserve(self.host, new.fd, 0, wanted.capacity)
        elif grown:
            key = images.secret_of(self.host, source.info, source.path) if image.encryption else None
            self._resize(new.fd, source.path, str(source), wanted.format, wanted.capacity, chain=chain, key=key)

    def _convert(
        self, new: NewFile, volume: Volume, source: Source, fd: int, wanted: images.Recipe,
        chain: Sequence[tuple[str, str]], secret: bytes | None,
    ) -> None:  # fmt: skip
        encryption = (source.info.detail or {}).get("encryption")
        if encryption and secret is None:
            secret = images.secret_of(self.host, source.info, source.path)
        if _whole(volume, wanted):
            copying.require_space(new.fd, wanted.capacity)
        with contextlib.ExitStack() as stack:
            fd = self._pinned(stack, fd, source.format, str(source))
            below, fds = self._below(stack, source.path, fd, source.format, str(source), list(chain))
            nodes = images.node(fd, source.format, backing=below, encryption=encryption)
            images.convert(
                self.host, nodes, (fd, *fds), source.format, secret, new.fd, volume.name, wanted,
                max(source.allocation, 1),
            )  # fmt: skip
        if wanted.format in images.BYTES:
            if os.fstat(new.fd).st_size < wanted.capacity:
                os.ftruncate(new.fd, wanted.capacity)
            if _whole(volume, wanted):
                space.reserve(self.host, new.fd, 0, wanted.capacity)
        elif wanted.capacity > source.capacity:
            what = f"volume '{volume.name}'"
            self._resize(new.fd, source.path, what, wanted.format, wanted.capacity, key=wanted.secret)

    def _below(
        self, stack: contextlib.ExitStack, path: str, fd: int, format: str, what: str, chain: list[tuple[str, str]]
    ) -> tuple[Any, list[int]]:
        """The node of the image that the open image stands on, all below it included, and the descriptors of them."""
        image = images.examine(self.host, fd, copying.size_of(fd), format, what)
        if image.backing is None:
            return None, []
        name = image.backing.name[:200]
        if not chain or image.backing.kind != "file" or images.resolve(image.backing.raw, path) != chain[0][0]:
            raise errors.Unsafe(
                f"{what} stands on '{name}', which is no volume of an active pool; it was not opened",
                hint="make a pool of its folder, or convert the image where its chain is known",
            )
        below, kind = chain[0]
        under = stack.enter_context(images.opened(below, "the backing image"))
        under = self._pinned(stack, under, kind, f"the backing image '{below}'")
        node, fds = self._below(stack, below, under, kind, f"the backing image '{below}'", chain[1:])
        return images.node(under, kind, backing=node), [under, *fds]

    def _pinned(self, stack: contextlib.ExitStack, fd: int, format: str, what: str) -> int:
        """The open image, or a copy that nobody else can write where its header could still make a tool open other files."""
        if images.pinned(fd, format):
            return fd
        with self.open() as directory:
            copy = stack.enter_context(self.host.files.scratch(directory))
        self._copy_whole(fd, copy, format, what)
        return copy

    def _copy_whole(self, fd: int, copy: int, format: str, what: str) -> None:
        size = copying.size_of(fd)
        copying.duplicate(self.host, fd, copy, size)
        os.ftruncate(copy, size)
        images.examine(self.host, copy, size, format, what)

    # -- changing -----------------------------------------------------------------------------------------------------

    def resize(
        self, info: VolumeInfo, capacity: int, *, allocate: bool = False, shrink: bool = False, force: bool = False,
        chain: Sequence[tuple[str, str]] = (),
    ) -> VolumeInfo:  # fmt: skip
        """Set the capacity; ``allocate`` reserves what is added, or all of it at the capacity it has.

        ``force`` works on files with several names as well. ``chain`` is as for ``clone``: an overlay that grows needs it.
        """
        if info.format not in images.RESIZABLE and info.format not in images.BYTES:
            raise errors.Unsupported(
                f"volume '{info.name}': images of format {info.format} cannot be resized", volume=info.name,
                hint="clone it to qcow2 or raw with a larger capacity",
            )  # fmt: skip
        if self.host.dry_run:
            self.host.step(f"resize {self.place}/{info.name} {info.format} to {capacity} bytes")
            return info
        with self.open_volume(info, write=True, force=force) as fd:
            self.host.step(f"resize {self.place}/{info.name} {info.format} to {capacity} bytes")
            if info.format in images.BYTES:
                size, maker = os.fstat(fd).st_size, os.getpid()
                try:
                    if allocate and capacity > size:
                        self.host.keep_undo(undo.trim(f"{self.place}/{info.name}", os.fstat(fd)))
                        self.host.files.fault("reserve")
                        space.reserve(self.host, fd, size, capacity - size, beyond=True)
                        self.host.files.fault("reserved")
                    elif allocate and capacity == size and not space.reserve(self.host, fd, 0, size):
                        raise self._cannot_reserve(info, "the file system cannot fill the holes of a file")
                    os.ftruncate(fd, capacity)
                    self.host.files.fault("truncated")
                except BaseException:
                    if capacity > size and os.getpid() == maker:  # a child that was forked meanwhile has no say
                        os.ftruncate(fd, size)  # nothing was cut off yet; give back what was reserved
                    raise
            else:
                if allocate and capacity == info.capacity:
                    raise self._cannot_reserve(info, f"the space of a {info.format} image is reserved when it grows")
                if allocate and capacity > info.capacity:
                    copying.require_space(fd, capacity - info.capacity)
                encrypted = (info.detail or {}).get("encryption")
                key = images.secret_of(self.host, info, f"{self.place}/{info.name}") if encrypted else None
                what = f"volume '{info.name}'"
                how: dict[str, Any] = {"shrink": shrink, "allocate": allocate, "chain": chain, "key": key}
                if not images.pinned(fd, info.format):
                    rewrite = self.host.files.rewrite
                    with self.open() as directory, rewrite(directory, info.name, format=info.format, old=fd) as new:
                        self._copy_whole(fd, new.fd, info.format, what)
                        self._resize(new.fd, f"{self.place}/{info.name}", what, info.format, capacity, **how)
                    return self._made(info.name, info.format)
                self._resize(fd, f"{self.place}/{info.name}", what, info.format, capacity, **how)
            os.fsync(fd)
        return self.look(info.name, info)

    def _resize(
        self, fd: int, path: str, what: str, format: str, capacity: int, *, shrink: bool = False, allocate: bool = False,
        chain: Sequence[tuple[str, str]] = (), key: bytes | None = None,
    ) -> None:  # fmt: skip
        """Set the capacity of an open image that names what it stands on as seen from ``path``."""
        image = images.check_resize(self.host, fd, format, capacity, shrink=shrink)
        with contextlib.ExitStack() as stack:
            below: Any = None
            fds: list[int] = []
            if image.backing is not None and capacity > (image.capacity or 0):
                below, fds = self._below(stack, path, fd, format, what, list(chain))
            nodes = images.node(fd, format, backing=below, encryption="luks" if key is not None else None)
            images.resize(self.host, nodes, (fd, *fds), format, capacity, shrink=shrink, allocate=allocate, key=key)

    @staticmethod
    def _cannot_reserve(info: VolumeInfo, why: str) -> errors.Unsupported:
        return errors.Unsupported(
            f"volume '{info.name}': {why}", volume=info.name, hint="reserve the space in a clone of it"
        )

    def delete(self, info: VolumeInfo, *, force: bool = False) -> None:
        """Unlink the file, or remove the empty directory; ``VolumeNotFound`` if it is gone already.

        ``Busy`` for a file that a machine has open, unless ``force``: its data would be gone when the machine ends.
        """
        with self.open() as directory:
            self.require_uncovered(info.name)
            try:
                self._same_file(directory, info, directory.lstat(info.name))
            except FileNotFoundError:
                raise self.missing(info.name) from None
            if info.type != "dir":
                self._check_unused(directory, info, force)
                if not self.host.files.remove(directory, info.name):
                    raise self.missing(info.name)
            elif self.host.step(f"rmdir {directory.join(info.name)}"):
                try:
                    os.rmdir(info.name, dir_fd=directory.fd)
                except FileNotFoundError:
                    raise self.missing(info.name) from None
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                        raise
                    raise errors.Unsafe(
                        f"volume '{info.name}' is a directory that is not empty; it was left alone", volume=info.name
                    ) from None

    @staticmethod
    def _check_unused(directory: Directory, info: VolumeInfo, force: bool) -> None:
        with contextlib.suppress(OSError, errors.Unsafe):  # what cannot be opened can be deleted all the same
            with directory.regular(info.name) as fd:
                inuse.require_free(fd, f"volume '{info.name}'", force=force, volume=info.name)

    def wipe(self, info: VolumeInfo, algorithm: str = "zero", *, force: bool = False) -> VolumeInfo:
        """Wipe every byte of the file. An image is replaced first by an empty one with its capacity, whole or not at all.

        Where no such image can be made, as for an encrypted one, it becomes a raw volume of that capacity; where no file can
        be so large, one of the file's size. When this returns the old data is gone.
        """
        wiping.check_algorithm(algorithm)
        if self.host.dry_run:
            self.host.step(f"wipe {self.place}/{info.name} with {algorithm}")
            return info
        with self.open_volume(info, write=True, force=force) as fd:
            self.host.step(f"wipe {self.place}/{info.name} with {algorithm}")
            size = os.fstat(fd).st_size
            if info.format in images.BYTES:
                wiping.wipe(self.host, fd, size, algorithm)
                return self.look(info.name, info)
            encrypted = (info.detail or {}).get("encryption")
            format = info.format if info.format in images.PREALLOCATION and not encrypted else "raw"
            with (
                self.open() as directory,
                self.host.files.rewrite(
                    directory, info.name, format=format, old=fd, overwritten=algorithm in wiping.PASSES,
                    scrub=lambda: wiping.wipe(self.host, fd, size, algorithm),
                ) as new,
            ):  # fmt: skip
                images.keep_no_cow(fd, new.fd)
                wiping.check_storage(self.host, new.fd, algorithm)
                self._empty(new.fd, info, format, size)
        return self._made(info.name, format)

    def _empty(self, fd: int, info: VolumeInfo, format: str, size: int) -> None:
        """Make an open empty file what a wipe leaves of the volume, whose file had ``size`` bytes."""
        detail = info.detail or {}
        if format != "raw":
            features = tuple(f for f in detail.get("features", ()) if f in ("lazy_refcounts", "extended_l2"))
            recipe = images.Recipe(
                format, info.capacity,
                cluster_size=detail.get("cluster_size") if format in ("qcow2", "qed") else None,
                compat=detail.get("compat") if format == "qcow2" else None, features=features,
            )  # fmt: skip
            images.create(self.host, fd, info.name, recipe)
            return
        try:
            os.ftruncate(fd, info.capacity)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            self.host.warn(f"volume '{info.name}': no file here can have its {info.capacity} bytes")
            os.ftruncate(fd, size)

    def upload(
        self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer, *, backing: bool = False, force: bool = False
    ) -> VolumeInfo:
        """Write the bytes of ``stream``. A raw volume is written in place and keeps its size.

        A container is replaced as a whole, and only by a sound image of its recorded format that needs no other file
        (``backing`` allows one that stands on a backing image): until the last byte is there the old one stays.
        """
        if info.type == "dir":
            raise errors.Unsupported(f"volume '{info.name}' is a directory", volume=info.name)
        if self.host.dry_run:
            self.host.step(f"upload to {self.place}/{info.name} from byte {transfer.offset}")
            return info
        if info.format in images.BYTES:
            with self.open_volume(info, write=True, force=force) as fd:
                self.host.step(f"upload to {self.place}/{info.name} from byte {transfer.offset}")
                copying.upload(
                    self.host, fd, stream, transfer, space.check_range(info.name, transfer, os.fstat(fd).st_size)
                )
                self.host.files.fault(f"fsync {info.name}")
                os.fsync(fd)
            return self.look(info.name, info)
        if transfer.offset:
            raise errors.Unsupported(
                f"volume '{info.name}' is {info.format}: it can only be uploaded as a whole", volume=info.name
            )
        with self.open() as directory, self.host.files.rewrite(directory, info.name, format=info.format) as new:
            self._check_unused(directory, info, force)
            copying.require_space(new.fd, transfer.length)
            copying.upload(self.host, new.fd, stream, transfer, None)
            what = f"what was uploaded to volume '{info.name}'"
            images.examine(self.host, new.fd, os.fstat(new.fd).st_size, info.format, what, backing=backing)
            self._check_unused(directory, info, force)  # a machine may have been started while the bytes came
        return self._made(info.name, info.format)

    def download(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> int:
        """Write the bytes of the file, as they are, to ``stream``."""
        with self.open_volume(info) as fd:
            inuse.check_copy(self.host, fd, info.format, f"volume '{info.name}'", whole=False)
            size = os.fstat(fd).st_size
            space.check_range(info.name, transfer, size)
            return copying.download(self.host, fd, stream, transfer, size)

    # -- parts ----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def open_volume(self, info: VolumeInfo, *, write: bool = False, force: bool = False) -> Iterator[int]:
        """A descriptor of the listed file; ``Unsafe`` if something else has its name now.

        For writing a file with several names is refused, for another user may have linked it here, and one that a machine has
        open (``Busy``). ``force`` allows both.
        """
        if info.type == "dir":
            raise errors.Unsupported(f"volume '{info.name}' is a directory: it has no bytes", volume=info.name)
        with self.open() as directory:
            try:
                with directory.regular(info.name, write=write) as fd:
                    facts = os.fstat(fd)
                    self._same_file(directory, info, facts)
                    if write and facts.st_nlink > 1 and not force:
                        raise errors.Unsafe(
                            f"volume '{info.name}' has {facts.st_nlink} names (hard links): "
                            "changing it would change the others",
                            volume=info.name, hint=errors.Hint("if that is meant, add ", errors.Option("force")),
                        )  # fmt: skip
                    if write:
                        inuse.require_free(fd, f"volume '{info.name}'", force=force, volume=info.name)
                    yield fd
            except FileNotFoundError:
                raise self.missing(info.name) from None

    def _same_file(self, directory: Directory, info: VolumeInfo, facts: os.stat_result) -> None:
        """``Unsafe`` if an entry is not the one that was listed: another file, or one that is mounted over it."""
        if not info.inode:
            return
        same = facts.st_ino == info.inode
        if same and info.type != "dir" and facts.st_dev != os.fstat(directory.fd).st_dev:
            # The files of an overlay may show the device of the layer they are in.
            mount = self.host.locate(self.place)[1]
            same = mount is not None and mount.fstype == "overlay"
        if not same:
            raise self.replaced(f"'{directory.join(info.name)}'", info.name)

    @contextlib.contextmanager
    def _new(self, directory: Directory, volume: Volume, format: str) -> Iterator[NewFile]:
        mode, owner, group = self.ownership(volume.target.permissions)
        files = self.host.files
        with files.new(directory, volume.name, format=format, mode=mode, owner=owner, group=group) as new:
            if volume.target.nocow and not images.no_cow(new.fd):
                self.host.warn(
                    f"volume '{volume.name}': the file system of '{self.place}' cannot turn copy-on-write off"
                )
            yield new

    def _fill(self, fd: int, volume: Volume, capacity: int, preallocation: str | None) -> None:
        allocation = capacity if volume.allocation is None else min(volume.allocation, capacity)
        if preallocation is not None:
            allocation = 0 if preallocation == "off" else capacity
        os.ftruncate(fd, capacity)
        self.host.files.fault("truncated")
        space.reserve(self.host, fd, 0, allocation, full=preallocation)

    def _made(self, name: str, format: str) -> VolumeInfo:
        with self.open() as directory:
            inode = directory.lstat(name).st_ino
        return self.look(name, VolumeInfo(name, format=format, inode=inode, capacity=1))

    def _backing_of(self, volume: Volume) -> ImageInfo | None:
        """The header of the image that a new overlay is to stand on, checked."""
        backing = volume.backing_store
        if backing is None or backing.format is None:
            return None  # without a format the recipe is refused
        with images.opened(backing.path, "the backing store") as fd:
            size = copying.size_of(fd)
            info = images.examine(self.host, fd, size, backing.format, f"the backing store '{backing.path}'")
            if info.capacity is None:
                info.capacity = size
            return info

    def _capacity_of(self, volume: Volume, backing: ImageInfo | None) -> int:
        capacity = volume.capacity
        if not capacity and backing is not None:
            capacity = backing.capacity
        if capacity is None:
            raise errors.InvalidArgument(f"volume '{volume.name}' needs a capacity", volume=volume.name)
        if capacity >= 1 << 63:
            raise errors.InvalidArgument(
                f"volume '{volume.name}' cannot have {capacity} bytes: a file has less than 2^63", volume=volume.name
            )
        return capacity

    def ownership(self, given: Permissions) -> tuple[int, int, int]:
        """Mode, owner and group of a new volume: its own, else the pool's defaults, else 0600 and this process's."""
        default = self.pool.volume_defaults or Permissions()
        mode = given.mode if given.mode is not None else default.mode
        owner = given.owner if given.owner is not None else default.owner
        group = given.group if given.group is not None else default.group
        return 0o600 if mode is None else mode, _or_any(owner), _or_any(group)


def _whole(volume: Volume, wanted: images.Recipe) -> bool:
    """Whether all space of a copy is to be reserved; without a word it takes what its data takes."""
    return wanted.preallocation in ("falloc", "full") or 0 < wanted.capacity <= (volume.allocation or 0)


def _or_any(number: int | None) -> int:
    return -1 if number is None else number
