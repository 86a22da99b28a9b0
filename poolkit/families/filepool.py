"""What the file-backed pool types share: everything one does to a volume that is a file of a directory.

Every entry is reached through the directory's descriptor and never through a symbolic link; what is checked is what is
worked on, because both go through one descriptor. How new ones are made is in ``filemaker``.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress

from poolkit import errors
from poolkit.families.filemaker import FileMaker
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING
from poolkit.model import FILE_FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, BinaryIO, ClassVar

    from poolkit.backend import Transfer, VolumeInfo
    from poolkit.content import copying, images, inuse, recipes, space, wiping
    from poolkit.host import rights, undo
    from poolkit.host.directory import Directory
else:
    # A listing needs none of them.
    copying = later(globals(), "copying", "poolkit.content.copying")
    inuse = later(globals(), "inuse", "poolkit.content.inuse")
    images = later(globals(), "images", "poolkit.content.images")
    recipes = later(globals(), "recipes", "poolkit.content.recipes")
    space = later(globals(), "space", "poolkit.content.space")
    wiping = later(globals(), "wiping", "poolkit.content.wiping")
    rights = later(globals(), "rights", "poolkit.host.rights")
    undo = later(globals(), "undo", "poolkit.host.undo")

__all__ = ["FileBackend"]


class FileBackend(FileMaker):
    """The base of dir, fs and netfs: everything about volumes; the subclasses bring the directory up and down."""

    offers: ClassVar[tuple[str, ...]] = ("thin", "encryption")
    volume_formats = ("raw", *(f for f in FILE_FORMATS if f != "raw"))

    # -- changing -----------------------------------------------------------------------------------------------------

    def fixed_size(self, info: VolumeInfo) -> str | None:
        """qemu-img resizes images of a few formats only, and a directory has no bytes."""
        if info.type == "dir":
            return "it is a directory, which has no capacity"
        if info.format in images.RESIZABLE or info.format in recipes.BYTES:
            return None
        return f"images of format {info.format} cannot be resized"

    def resize(
        self, info: VolumeInfo, capacity: int, *, allocate: bool = False, shrink: bool = False, force: bool = False,
        chain: Sequence[tuple[str, str]] = (),
    ) -> VolumeInfo:  # fmt: skip
        """Set the capacity; ``allocate`` reserves what is added, or all of it at the capacity it has.

        ``force`` works on files with several names as well. ``chain`` is as for ``clone``: an overlay that grows needs it.
        """
        if (why := self.fixed_size(info)) is not None:
            raise errors.Unsupported(
                f"volume '{info.name}': {why}", volume=info.name,
                hint=None if info.type == "dir" else "clone it to qcow2 or raw with a larger capacity",
            )  # fmt: skip
        if self.host.dry_run:
            self.host.step(f"resize {self.place}/{info.name} {info.format} to {capacity} bytes")
            return info
        with self.open_volume(info, write=True, force=force) as fd:
            self.host.step(f"resize {self.place}/{info.name} {info.format} to {capacity} bytes")
            if info.format in recipes.BYTES:
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

    @staticmethod
    def _cannot_reserve(info: VolumeInfo, why: str) -> errors.Unsupported:
        return errors.Unsupported(
            f"volume '{info.name}': {why}", volume=info.name, hint="reserve the space in a clone of it"
        )

    def permit(
        self, info: VolumeInfo, mode: int | None, owner: int | None, group: int | None, *, force: bool = False
    ) -> VolumeInfo:
        """Set permission bits, owner and group of a file; None leaves one as it is. A machine may have it open.

        ``Unsafe`` for a file with several names, unless ``force``: another user may have linked it here.
        """
        asked = (("mode", None if mode is None else f"{mode:04o}"), ("owner", owner), ("group", group))
        words = ", ".join(f"{what} {number}" for what, number in asked if number is not None)
        self._require_own_name(info)
        if self.host.dry_run:
            self.host.step(f"give {self.place}/{info.name} the permissions {words or 'that it has'}")
            return info
        with self.open_volume(info) as fd:
            facts = os.fstat(fd)
            if facts.st_nlink > 1 and not force:
                raise self._several_names(info, facts)
            path = f"{self.place}/{info.name}"
            new = tuple(-1 if number is None else number for number in (owner, group))
            if new[0] not in (-1, facts.st_uid) or new[1] not in (-1, facts.st_gid):
                self.host.step(f"chown {new[0]}:{new[1]} {path}", undo.chown(path, facts))
                rights.give(fd, path, *new)  # may take bits of the mode away, which comes behind it
            if mode is not None and mode != stat.S_IMODE(os.fstat(fd).st_mode):
                self.host.step(f"chmod {mode:04o} {path}", undo.chmod(path, facts))
                rights.give_mode(fd, path, mode)
            self.host.files.fault("fsync the permissions")
            os.fsync(fd)
        return self.look(info.name, info)

    @staticmethod
    def _several_names(info: VolumeInfo, facts: os.stat_result) -> errors.Unsafe:
        return errors.Unsafe(
            f"volume '{info.name}' has {facts.st_nlink} names (hard links): changing it would change the others",
            volume=info.name, hint=errors.Hint("if that is meant, add ", errors.Option("force")),
        )  # fmt: skip

    def delete(self, info: VolumeInfo, *, force: bool = False) -> None:
        """Unlink the file, or remove the empty directory; ``VolumeNotFound`` if it is gone already.

        ``Busy`` for a file that a machine has open, unless ``force``: its data would be gone when the machine ends.
        """
        with self.open() as directory:
            self.require_uncovered(info.name)
            if "link" in (info.detail or {}):
                self._delete_link(directory, info)
                return
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

    def _delete_link(self, directory: Directory, info: VolumeInfo) -> None:
        """Remove a symbolic link and not the file that it leads to."""
        try:
            if not stat.S_ISLNK(directory.lstat(info.name).st_mode):
                raise self.replaced(f"'{directory.join(info.name)}'", info.name)
            if self.host.step(f"unlink {directory.join(info.name)}"):
                os.unlink(info.name, dir_fd=directory.fd)
                os.fsync(directory.fd)
        except FileNotFoundError:
            raise self.missing(info.name) from None

    @staticmethod
    def _check_unused(directory: Directory, info: VolumeInfo, force: bool) -> None:
        with suppress(OSError, errors.Unsafe):  # what cannot be opened can be deleted all the same
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
            if info.format in recipes.BYTES:
                wiping.wipe(self.host, fd, size, algorithm)
                return self.look(info.name, info)
            encrypted = (info.detail or {}).get("encryption")
            format = info.format if info.format in recipes.PREALLOCATION and not encrypted else "raw"
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
            recipe = recipes.Recipe(
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
        self._require_own_name(info)
        if self.host.dry_run:
            self.host.step(f"upload to {self.place}/{info.name} from byte {transfer.offset}")
            return info
        if info.format in recipes.BYTES:
            with self.open_volume(info, write=True, force=force) as fd:
                end = space.check_range(info.name, transfer, os.fstat(fd).st_size)
                self.host.step(f"upload to {self.place}/{info.name} from byte {transfer.offset}")
                copying.upload(self.host, fd, stream, transfer, end)
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

    def landing(self) -> AbstractContextManager[int]:
        """In the pool's own directory, where an image needs only a name; storage that may hang gets it when it is whole."""
        return super().landing() if "clone" in self.may_hang else self._landing()

    @contextmanager
    def _landing(self) -> Iterator[int]:
        with self.open() as directory, self.host.files.scratch(directory) as fd:
            yield fd

    @contextmanager
    def open_volume(self, info: VolumeInfo, *, write: bool = False, force: bool = False) -> Iterator[int]:
        """A descriptor of the listed file; ``Unsafe`` if something else has its name now.

        For writing a file with several names is refused, for another user may have linked it here, and one that a machine has
        open (``Busy``). ``force`` allows both.
        """
        if info.type == "dir":
            raise errors.Unsupported(f"volume '{info.name}' is a directory: it has no bytes", volume=info.name)
        if write:
            self._require_own_name(info)
        with self.open() as directory:
            try:
                with self._opened(directory, info, write) as fd:
                    facts = os.fstat(fd)
                    self._same_file(directory, info, facts)
                    if write and facts.st_nlink > 1 and not force:
                        raise self._several_names(info, facts)
                    if write:
                        inuse.require_free(fd, f"volume '{info.name}'", force=force, volume=info.name)
                    yield fd
            except FileNotFoundError:
                raise self.missing(info.name) from None

    @contextmanager
    def _opened(self, directory: Directory, info: VolumeInfo, write: bool) -> Iterator[int]:
        if "link" not in (info.detail or {}):
            with directory.regular(info.name, write=write) as fd:
                yield fd
            return
        from poolkit.families import links

        found = links.opened(directory, info.name)
        if found is None:
            raise self.replaced(f"'{directory.join(info.name)}'", info.name)
        try:
            yield found[0]
        finally:
            os.close(found[0])

    def _require_own_name(self, info: VolumeInfo) -> None:
        """``Unsafe`` for a symbolic link: what is written through it would change another volume."""
        if aim := (info.detail or {}).get("link"):
            raise errors.Unsafe(
                f"volume '{info.name}' is a symbolic link to '{aim}': it is read and copied, and not changed",
                pool=self.pool.name, volume=info.name, hint="name the file itself",
            )  # fmt: skip

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
