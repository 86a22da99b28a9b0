"""How a volume that is a file of a directory comes to be: made anew, or from another volume of any pool.

A new volume appears under its name whole or not at all.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from functools import cached_property

from poolkit import errors
from poolkit.backend import Recorded, VolumeInfo
from poolkit.families.directory import DirectoryBackend
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING
from poolkit.model import Permissions
from poolkit.values import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import ExitStack
    from typing import Any

    from poolkit.backend import Source
    from poolkit.content import copying, images, inuse, recipes, space
    from poolkit.formats import ImageInfo
    from poolkit.host.appearing import NewFile
    from poolkit.host.directory import Directory
    from poolkit.model import Volume
else:
    # A listing needs none of them.
    copying = later(globals(), "copying", "poolkit.content.copying")
    inuse = later(globals(), "inuse", "poolkit.content.inuse")
    images = later(globals(), "images", "poolkit.content.images")
    recipes = later(globals(), "recipes", "poolkit.content.recipes")
    space = later(globals(), "space", "poolkit.content.space")


class FileMaker(DirectoryBackend):
    """The part of :class:`poolkit.families.filepool.FileBackend` that makes volumes."""

    @cached_property
    def trust_blocks(self) -> bool:  # type: ignore[override]
        """Whether a file without blocks is known to be empty: not on FUSE, overlays and others that count late or never."""
        mount = self.host.locate(self.place)[1]
        return mount is not None and mount.fstype in space.PROMPT

    # -- making -------------------------------------------------------------------------------------------------------

    def create(self, volume: Volume, *, preallocation: str | None = None) -> VolumeInfo:
        """Make a volume of any format in ``recipes.PREALLOCATION``.

        A raw one is sparse but for ``allocation`` bytes, which are reserved (all of them when it is not given);
        ``preallocation`` off, metadata, falloc or full says otherwise for every format. ``NoSpace`` before anything is
        written if what is to be reserved does not fit.
        """
        backing = self._backing_of(volume)
        wanted = recipes.recipe(
            self.host, volume, self._capacity_of(volume, backing), default="raw", preallocation=preallocation
        )
        if self.host.dry_run:
            self.host.step(f"create {self.place}/{volume.name} {wanted.format} {wanted.capacity} bytes")
            return VolumeInfo(volume.name, "file", wanted.format, wanted.capacity)
        with self.open() as directory, self._new(directory, volume, wanted.format) as new:
            if wanted.format in recipes.BYTES:
                self._fill(new.fd, volume, wanted.capacity, preallocation)
            else:
                if wanted.preallocation in ("falloc", "full"):
                    copying.require_space(new.fd, wanted.capacity)
                images.create(self.host, new.fd, volume.name, wanted)
        return self._appeared(new, wanted.format)

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
        """Make a volume with the content of ``source``: a copy of its bytes, or a conversion when format or encryption differ.

        As in libvirt a definition without a format asks for raw, and one without encryption for a volume that is not encrypted.

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
        if source.sender is not None:
            if linked or reflink:
                raise errors.Unsupported(
                    f"{source} is not in files, so it cannot be {'linked' if linked else 'shared with another volume'}"
                )
            if (volume.target.format or source.format) in recipes.BYTES and volume.target.encryption is None:
                return self._receive(volume, source, source.sender, preallocation)
        with source.open() as fd:
            copy = (volume, source, fd, linked, reflink, preallocation, chain, secret)
            return copying.twice(self.host, fd, lambda _: self._clone(*copy))

    def _receive(
        self, volume: Volume, source: Source, sender: Callable[[int], object], preallocation: str | None
    ) -> VolumeInfo:
        """A raw copy of what no descriptor can reach."""
        wanted = recipes.recipe(
            self.host, volume, max(volume.capacity or 0, source.capacity), default="raw", preallocation=preallocation
        )
        if self.host.dry_run:
            self.host.step(f"copy {source.path} to {self.place}/{volume.name} {wanted.format}")
            return VolumeInfo(volume.name, "file", wanted.format, wanted.capacity)
        with self.open() as directory, self._new(directory, volume, wanted.format) as new:
            copying.require_space(new.fd, wanted.capacity if _whole(volume, wanted) else source.allocation)
            os.ftruncate(new.fd, wanted.capacity)
            self.host.files.fault("copying")
            sender(new.fd)
            if _whole(volume, wanted):
                space.reserve(self.host, new.fd, 0, wanted.capacity)
        return self._appeared(new, wanted.format)

    def _clone(
        self, volume: Volume, source: Source, fd: int, linked: bool, reflink: bool | None, preallocation: str | None,
        chain: Sequence[tuple[str, str]], secret: bytes | None,
    ) -> VolumeInfo:  # fmt: skip
        inuse.check_copy(self.host, fd, source.format, str(source), linked=linked)
        size = copying.size_of(fd)
        unchanged = nullcontext() if linked else copying.unchanged(fd, source)
        image = images.examine(self.host, fd, size, source.format, str(source))
        have = source.capacity if image.capacity is None else image.capacity
        wanted = recipes.recipe(
            self.host, volume, max(volume.capacity or 0, have),
            default="qcow2" if linked else "raw", preallocation=preallocation, copied=source.format,
        )  # fmt: skip
        if self.host.dry_run:
            how = "link" if linked else "copy"
            self.host.step(f"{how} {source.path} to {self.place}/{volume.name} {wanted.format}")
            return VolumeInfo(volume.name, "file", wanted.format, wanted.capacity)
        same = not linked and self._same(source.format, image, wanted, opened=volume.target.encryption is None)
        with self.open() as directory:
            taken = fd if same and source.ours and self.host.files.nameable(directory, fd) else None
            if taken is not None:
                unchanged = nullcontext()  # nobody else has it, and here it gets its size and its name
            with self._new(directory, volume, wanted.format, taken) as new, unchanged:
                if linked:
                    self._link(new, volume, source, wanted)
                elif same:
                    self._copy(new, volume, source, fd, size, image, wanted, reflink, chain, secret)
                else:
                    if reflink:
                        raise errors.Unsupported(
                            f"{source} is {source.format}, and the new volume {wanted.format}: blocks cannot be shared"
                        )
                    self._convert(new, volume, source, fd, wanted, chain, secret)
        return self._appeared(new, wanted.format)

    @staticmethod
    def _same(format: str, image: ImageInfo, wanted: recipes.Recipe, *, opened: bool) -> bool:
        """Whether a copy of the bytes is what is wanted: it keeps snapshots, bitmaps and encryption.

        ``opened``: the new volume is not to be encrypted.
        """
        if wanted.format in recipes.BYTES:
            return format in recipes.BYTES
        return (
            format == wanted.format
            and wanted.preallocation == "off"
            and wanted.secret is None
            and not (opened and image.encryption)
            and wanted.cluster_size in (None, image.cluster_size)
            and wanted.compat in (None, image.compat)
            and set(wanted.features) <= set(image.features)
        )

    def _link(self, new: NewFile, volume: Volume, source: Source, wanted: recipes.Recipe) -> None:
        if wanted.format not in recipes.OVERLAYS:
            raise errors.InvalidArgument(
                f"volume '{volume.name}': a linked clone has the format qcow2, not {wanted.format}", volume=volume.name
            )
        if not source.path.startswith("/"):
            raise errors.Unsupported(f"{source} has no path that an overlay could name")
        wanted = replaced(wanted, backing=(source.path, source.format))
        images.create(self.host, new.fd, volume.name, wanted)

    def _copy(
        self, new: NewFile, volume: Volume, source: Source, fd: int, size: int, image: ImageInfo,
        wanted: recipes.Recipe, reflink: bool | None, chain: Sequence[tuple[str, str]], secret: bytes | None,
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
        if grown and wanted.format not in recipes.BYTES:
            images.check_resize(self.host, fd, wanted.format, wanted.capacity, shrink=False)
        if wanted.format in recipes.BYTES:
            os.ftruncate(new.fd, size)
            if _whole(volume, wanted):
                copying.require_space(new.fd, wanted.capacity)
        self.host.files.fault("copying")
        if new.fd != fd:
            new.laid_out = copying.duplicate(self.host, fd, new.fd, size, reflink=reflink)
        os.ftruncate(new.fd, max(size, wanted.capacity) if wanted.format in recipes.BYTES else size)
        if wanted.format in recipes.BYTES:
            if _whole(volume, wanted):
                space.reserve(self.host, new.fd, 0, wanted.capacity)
            if wanted.capacity <= size:
                new.like = fd
        elif not grown:
            new.like = fd
        else:
            new.laid_out = False
            key = secret if image.encryption else None
            if image.encryption and key is None:
                key = images.secret_of(self.host, source.info, source.path)
            self._resize(new.fd, source.path, str(source), wanted.format, wanted.capacity, chain=chain, key=key)

    def _convert(
        self, new: NewFile, volume: Volume, source: Source, fd: int, wanted: recipes.Recipe,
        chain: Sequence[tuple[str, str]], secret: bytes | None,
    ) -> None:  # fmt: skip
        from contextlib import ExitStack

        encryption = (source.info.detail or {}).get("encryption")
        if encryption and secret is None:
            secret = images.secret_of(self.host, source.info, source.path)
        if _whole(volume, wanted):
            copying.require_space(new.fd, wanted.capacity)
        with ExitStack() as stack:
            fd = self._pinned(stack, fd, source.format, str(source))
            below, fds = self._below(stack, source.path, fd, source.format, str(source), list(chain))
            nodes = images.node(fd, source.format, backing=below, encryption=encryption)
            images.convert(
                self.host, nodes, (fd, *fds), source.format, secret, new.fd, volume.name, wanted,
                max(source.allocation, 1),
            )  # fmt: skip
        if wanted.format in recipes.BYTES:
            if os.fstat(new.fd).st_size < wanted.capacity:
                os.ftruncate(new.fd, wanted.capacity)
            if _whole(volume, wanted):
                space.reserve(self.host, new.fd, 0, wanted.capacity)
        elif wanted.capacity > source.capacity:
            what = f"volume '{volume.name}'"
            self._resize(new.fd, source.path, what, wanted.format, wanted.capacity, key=wanted.secret)

    def _below(
        self, stack: ExitStack, path: str, fd: int, format: str, what: str, chain: list[tuple[str, str]]
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

    def _pinned(self, stack: ExitStack, fd: int, format: str, what: str) -> int:
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

    def _resize(
        self, fd: int, path: str, what: str, format: str, capacity: int, *, shrink: bool = False, allocate: bool = False,
        chain: Sequence[tuple[str, str]] = (), key: bytes | None = None,
    ) -> None:  # fmt: skip
        """Set the capacity of an open image that names what it stands on as seen from ``path``."""
        from contextlib import ExitStack

        image = images.check_resize(self.host, fd, format, capacity, shrink=shrink)
        with ExitStack() as stack:
            below: Any = None
            fds: list[int] = []
            if image.backing is not None and capacity > (image.capacity or 0):
                below, fds = self._below(stack, path, fd, format, what, list(chain))
            nodes = images.node(fd, format, backing=below, encryption="luks" if key is not None else None)
            images.resize(self.host, nodes, (fd, *fds), format, capacity, shrink=shrink, allocate=allocate, key=key)

    # -- parts ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def _new(self, directory: Directory, volume: Volume, format: str, unnamed: int | None = None) -> Iterator[NewFile]:
        mode, owner, group = self.ownership(volume.target.permissions)
        owned = {"mode": mode, "owner": owner, "group": group}

        def describe(new: NewFile) -> VolumeInfo | None:
            return self.look_at(new.fd, new.name, format, new.like)

        with self.host.files.new(
            directory, volume.name, format=format, unnamed=unnamed, describe=describe, **owned
        ) as new:
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
        return self.look(name, None, recorded=Recorded(inode, format))

    def _appeared(self, new: NewFile, format: str) -> VolumeInfo:
        """A new volume: what it was described as, if its file is that still now that it has its name and is closed."""
        if new.waits:
            return VolumeInfo(new.name, "file", format)  # what it is like is told when it gets its name
        info: VolumeInfo | None = new.info
        if info is not None:
            facts = os.stat(f"{self.place}/{new.name}", follow_symlinks=False)
            if (facts.st_ino, facts.st_size, facts.st_blocks * 512) == (info.inode, info.physical, info.allocation):
                return info
        return self._made(new.name, format)

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

    def check_new(self, volume: Volume) -> None:
        """All that is refused of a new image but for its secret, which may have come to be there by then."""
        if volume.backing_store is not None:
            images.check_path(volume.backing_store.path, "the backing store")
        # An overlay has the capacity of its base where it asks for none.
        recipes.recipe(None, volume, 0 if volume.backing_store is not None else self._capacity_of(volume, None))

    def capacity_of(self, volume: Volume) -> int | None:
        """A raw file has any size in bytes; images have whole sectors of 512 bytes (BDRV_SECTOR_SIZE of QEMU)."""
        if not volume.capacity:
            return None
        plain = volume.target.format in (None, "raw", "iso", "none") and volume.target.encryption is None
        return volume.capacity if plain else -(-volume.capacity // 512) * 512

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


def _whole(volume: Volume, wanted: recipes.Recipe) -> bool:
    """Whether all space of a copy is to be reserved; without a word it takes what its data takes."""
    return wanted.preallocation in ("falloc", "full") or 0 < wanted.capacity <= (volume.allocation or 0)


def _or_any(number: int | None) -> int:
    return -1 if number is None else number
