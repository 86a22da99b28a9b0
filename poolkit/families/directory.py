"""The directory of a file-backed pool: making it, its sizes, and the listing of its entries as volumes.

Every entry is reached through the directory's descriptor and never through a symbolic link; devices, FIFOs, sockets,
links and names that no document can carry are not listed. One entry that cannot be read is listed with its error, and one on
which another file system is mounted is known from the mount table and never touched: whoever answers for it may never answer.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from functools import partial
from itertools import chain, islice
from types import MappingProxyType

from poolkit import errors
from poolkit.backend import Backend, Erased, Usage, VolumeInfo, quoted
from poolkit.families.entries import BYTES, detail_of, failed, listable, under, unread, volume
from poolkit.host.mounts import may_wait
from poolkit.host.undo import identity
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING
from poolkit.model import Permissions
from poolkit.xmlmap import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from poolkit import formats, listing
    from poolkit.backend import Recorded
    from poolkit.families import newfiles, targets
    from poolkit.families.newfiles import Named, Walk
    from poolkit.formats import ImageInfo, local
    from poolkit.host import beside, libc, places, together
    from poolkit.host.directory import Directory
    from poolkit.host.mounts import Mount
    from poolkit.listing import Listing
else:
    places = later(globals(), "places", "poolkit.host.places")
    libc = later(globals(), "libc", "poolkit.host.libc")  # ctypes: only where the content contradicts the record
    formats = later(globals(), "formats", "poolkit.formats")
    local = later(globals(), "local", "poolkit.formats.local")
    newfiles = later(globals(), "newfiles", "poolkit.families.newfiles")
    targets = later(globals(), "targets", "poolkit.families.targets")
    beside = later(globals(), "beside", "poolkit.host.beside")
    together = later(globals(), "together", "poolkit.host.together")
    listing = later(globals(), "listing", "poolkit.listing")

_AT_ONCE = 32
"""As many requests as servers and their clients have under way with ease: NFS of Linux has 16 to 128 slots a session."""
_MANY = 5_000
"""New files from which on a second processor pays: to copy a process takes some milliseconds, a file ten microseconds."""
_MANY_KNOWN = 8_000
"""Known files from which on it pays: to compare one takes three microseconds."""
_PARTS = frozenset(("data_file", "extent_files"))
_REPLACED = (
    "the file was replaced by one with the same inode number, or the clock was set back: its format on record, {}, may be "
    "that of the old one; adopt it with the right one"
)


class DirectoryBackend(Backend):
    """A backend whose volumes are the entries of one directory; what it can do to them is in ``filepool``."""

    file_backed = True
    below_by_detail = True
    keeps_formats = True
    counts_volumes = False
    trust_blocks = True
    """Whether st_blocks counts what was written but is not on the disk yet; network clients may lag."""

    _sizes: Callable[[], os.statvfs_result] | None = None
    _ahead = False
    """Whether all that will be read of a file is asked for at once, which pays where each read waits for an answer."""

    @property
    def place(self) -> str:
        """The directory of the volumes."""
        path: str = self.pool.target.path
        return path

    def open(self) -> Directory:
        """The open directory; an error in words if it is not there."""
        try:
            return self.host.directory(self.place)
        except FileNotFoundError:
            raise errors.HostError(
                f"pool '{self.pool.name}': the directory '{self.place}' does not exist",
                pool=self.pool.name,
                hint=errors.Hint(
                    "if it is on a file system that is not mounted, mount that first; if it never was there, make it: ",
                    errors.remedy("build", self.pool.name),
                ),
            ) from None
        except NotADirectoryError:
            raise targets.in_the_way(self) from None

    def storage(self) -> str | None:
        """The directory: its file system, inode number and generation."""
        return places.note(self.place, self.host.mounts())

    def changed_since(self, noted: str) -> str:
        """Whether another directory is there now: the file system is not mounted, or it was removed and made again."""
        return places.replaced(noted, self.place, self.host.mounts())

    def build_directory(self, *, only_new: bool = False) -> bool:
        """Make the target directory; see :func:`poolkit.families.targets.build`."""
        return targets.build(self, only_new=only_new)

    def erase_directory(self) -> bool:
        """Remove the target directory; ``Unsafe`` if anything is in it, and for a link, which ``build`` never made."""
        return targets.erase(self)

    def erased(self) -> Erased:
        """The directory."""
        return Erased(f"the directory '{self.place}'")

    def live(self) -> Any:
        """The definition with the directory's real mode, owner and group, as libvirt prints it."""
        facts = os.stat(self.place)
        found = Permissions(mode=stat.S_IMODE(facts.st_mode), owner=facts.st_uid, group=facts.st_gid)
        return replace(self.pool, target=replace(self.pool.target, permissions=found))

    # -- listing ----------------------------------------------------------------------------------------------------

    def usage(self, volumes: Sequence[VolumeInfo]) -> Usage:
        """Sizes of the file system that holds the directory (statvfs(3)).

        What is used is what df and libvirt say; what is available is what a user can have, without the blocks that are reserved
        for root. The three need not add up, therefore.
        """
        sizes, self._sizes = self._sizes, None
        facts = sizes() if sizes is not None else os.statvfs(self.place)
        used = facts.f_blocks - facts.f_bfree
        return Usage(*(blocks * facts.f_frsize for blocks in (facts.f_blocks, used, facts.f_bavail)))

    def __init_subclass__(cls, **words: Any) -> None:
        super().__init_subclass__(**words)
        if "volumes" in vars(cls) and "scan" not in vars(cls):
            cls.scan = Backend.scan  # type: ignore[method-assign]  # a type that lists in its own way is asked for that
        if "below" in vars(cls) and "below_by_detail" not in vars(cls):
            cls.below_by_detail = False

    def volumes(
        self, known: Mapping[str, VolumeInfo], *, recorded: Mapping[str, Recorded] = MappingProxyType({})
    ) -> Iterator[VolumeInfo]:
        """All entries, as :meth:`scan` finds them."""
        found = listing.Listing(listing.Known.of(known))
        DirectoryBackend.scan(self, found, recorded=recorded)
        return iter(found)

    def scan(self, found: Listing, *, recorded: Mapping[str, Recorded] = MappingProxyType({}), **how: Any) -> None:
        """All entries; one whose stamp is unchanged costs one fstatat(2), a new file open, fstat, a few preads, close."""
        with self.open() as directory:
            covered = self._covered()
            walk = partial(self._walk, directory, covered, recorded, time.time_ns())
            with os.scandir(directory.fd) as entries:
                if (count := self.at_once) > 1:
                    self._ahead = True
                    # What changes after this changes during the listing: the sizes need not know of it either.
                    self._sizes = together.meanwhile(partial(os.statvfs, self.place))
                    together.share(partial(walk, found), entries, count, self.host.check_abort)
                else:
                    self._scan_near(directory.fd, walk, found, entries, {*covered, *recorded})
        if count := len(found.links):
            what = "a symbolic link is" if count == 1 else f"{count} symbolic links are"
            self.host.warn(f"pool '{self.pool.name}': {what} not listed: {quoted(sorted(found.links))}")

    @staticmethod
    def _scan_near(
        fd: int, walk: Walk, found: Listing, entries: Iterator[os.DirEntry[str]], special: Container[str]
    ) -> None:
        """Add the entries of a directory where nobody else is waited for, on two processors where that pays."""
        known = len(found.known.stamps)
        first = [] if known else list(islice(entries, _MANY))
        rest = chain(first, entries)
        if len(first) >= _MANY and beside.possible():
            newfiles.in_halves(fd, walk, found, rest)
        elif known >= _MANY_KNOWN and beside.possible():
            newfiles.compared_in_parts(fd, walk, found, rest, special)
        else:
            walk(found, rest)

    def _walk(
        self, directory: Directory, covered: Mapping[str, Mount], recorded: Mapping[str, Recorded], now: int,
        found: Listing, entries: Iterable[os.DirEntry[str] | Named],
    ) -> None:  # fmt: skip
        """Add entries of the directory. Several threads do this at a time with entries of the same one."""
        known, stamps = found.known, found.known.stamps
        special = {*covered, *recorded}
        more = partial(self._more, found, now)
        take = newfiles.taker(
            directory.fd, now, found, more, self._of_image, trust_blocks=self.trust_blocks, ahead=self._ahead
        )
        hollow = False  # a file without blocks is best not even opened, and seldom comes alone
        for count, entry in enumerate(entries):
            if not count & 0xFF:
                self.host.check_abort()
            name = entry.name
            stamp = stamps.get(name)
            try:
                if name in special and name in covered:
                    found.add(under(name, covered[name], known.get(name)))
                    continue
                if stamp is None:
                    if not listable(name):
                        continue  # not even looked at: the mount table cannot name it either
                    if not hollow and name not in special and entry.is_file(follow_symlinks=False):
                        try:
                            hollow = take(name)
                            continue
                        except FileNotFoundError:
                            continue
                        except OSError:  # it cannot be opened: why says the long way
                            hollow = False
                            _add(found, self._entry(directory, name, directory.lstat(name), None, None, now))
                            continue
                facts = entry.stat(follow_symlinks=False)
                if stamp is not None and stamp == places.stamp_of(facts):
                    found.same.append(name)
                    continue
                if stat.S_ISLNK(facts.st_mode):
                    if (linked := self._linked(directory, name, known.get(name), now)) is not None:
                        found.add(linked)
                    else:
                        found.links.append(name)
                    continue
                info = self._entry(directory, name, facts, known.get(name), recorded.get(name), now)
                hollow = hollow and info is not None and not info.allocation
                _add(found, info)
            except FileNotFoundError:
                continue  # deleted while we looked
            except OSError as error:
                _add(found, failed(name, known.get(name), error))

    def _linked(self, directory: Directory, name: str, old: VolumeInfo | None, now: int) -> VolumeInfo | None:
        """The volume that a symbolic link is where the definition lets links be followed, else None."""
        if not getattr(self.pool, "follow", False) or not listable(name):
            return None
        from poolkit.families import links

        def make(name: str, facts: os.stat_result, format: str, size: int, detail: dict[str, Any] | None) -> VolumeInfo:
            return volume(name, facts, now, format, size, detail)

        return links.volume(directory, name, old, self._read, make)

    @property
    def at_once(self) -> int:
        """How many files are looked at at the same time: several where each look may wait for somebody."""
        mount = self.host.locate(self.place)[1]
        return _AT_ONCE if mount is not None and may_wait(mount.fstype) else 1

    def look(self, name: str, known: VolumeInfo | None, *, recorded: Recorded | None = None) -> VolumeInfo:
        """One entry as it is now; its recorded format stays."""
        with self.open() as directory:
            if (mount := self._covered().get(name)) is not None:
                return under(name, mount, known)
            try:
                facts = directory.lstat(name)
                if stat.S_ISLNK(facts.st_mode):
                    info = self._linked(directory, name, known, time.time_ns())
                else:
                    info = self._entry(directory, name, facts, known, recorded, time.time_ns())
            except (FileNotFoundError, ValueError):
                raise self.missing(name) from None
            except OSError as error:
                info = failed(name, known, error)
        if info is None:
            raise self.missing(name)
        return info

    def look_at(self, fd: int, name: str, format: str, like: int | None = None) -> VolumeInfo | None:
        """An open file of a known format that is about to be the entry ``name``; None where only a look at that can tell.

        ``like`` is a file with the same bytes, which need not come from the disk to be read.
        """
        if not listable(name):
            return None
        facts = os.fstat(fd)
        size = facts.st_size
        try:
            # What is reserved and not written reads as zeros, too.
            hollow = self._is_hollow(size, facts.st_blocks, format) or (format == "raw" and self._is_unwritten(fd))
            said = ("raw", size, None) if hollow else self._read(fd if like is None else like, size, format, None)
        except OSError:
            return None
        return volume(name, facts, 0, *said)._replace(stamp=0)  # its times change when it gets the name

    def identity(self, info: VolumeInfo) -> int:
        """The inode number: a file that took another's name is another volume, and its format is not on record."""
        return info.inode

    def below(self, info: VolumeInfo) -> tuple[str, ...]:
        """The local files that the header names, as absolute paths: backing image, data file, extents in files of their own."""
        detail = info.detail
        if detail is None:
            return ()
        if detail.get("backing_kind") == "file" and detail["backing"].startswith("/") and not detail.keys() & _PARTS:
            return (detail["backing"],)  # nearly all
        names = [detail.get("data_file"), *detail.get("extent_files", ())]
        if "backing" in detail:
            found = local.meant(detail["backing"], detail.get("backing_kind", "file"))
            names.append(found[0] if found is not None else None)
        image = f"{self.place}/{info.name}"
        return tuple(dict.fromkeys(local.beside(name, image) for name in names if name))

    def _covered(self) -> dict[str, Mount]:
        """The entries on which another file system is mounted, by name, as the mount table has them.

        A directory of the pool's own file system that is mounted there (a bind mount, a subvolume) is as good as any other.
        """
        place, own = self.host.locate(self.place)
        folder = place.rstrip("/") + "/"
        found = {}
        for target, mount in self.host.mounts().tops.items():
            head, _, name = target.rpartition("/")
            if name and head == folder[:-1] and (own is None or mount.device != own.device):
                found[name] = mount
        return found

    def require_uncovered(self, name: str) -> None:
        """Raise ``Unsafe`` if something is mounted on the entry."""
        if (mount := self._covered().get(name)) is not None:
            why = (under(name, mount, None).detail or {})["covered"]
            raise errors.Unsafe(
                f"pool '{self.pool.name}': volume '{name}': {why}", pool=self.pool.name, volume=name,
                hint=f"unmount it first: umount {self.place}/{name}",
            )  # fmt: skip

    def _more(
        self, found: Listing, now: int, fd: int, name: str, facts: os.stat_result, image: ImageInfo | OSError
    ) -> None:
        """Add a new file of which there is more to say than its numbers."""
        try:
            if isinstance(image, OSError):
                raise image
            found.add(volume(name, facts, now, *self._said(fd, facts.st_size, image, None, None)))
        except OSError as error:
            found.add(unread(name, facts, None, {"error": f"cannot be read: {error.strerror}"}))

    def _entry(
        self, directory: Directory, name: str, facts: os.stat_result, old: VolumeInfo | None, pinned: Recorded | None,
        now: int,
    ) -> VolumeInfo | None:  # fmt: skip
        """An entry whose facts are known; ``old`` is what was known of it, ``pinned`` the format on record."""
        if not listable(name):
            return None
        if stat.S_ISDIR(facts.st_mode):
            return volume(name, facts, now, "dir", 0, None)._replace(type="dir")
        if not stat.S_ISREG(facts.st_mode):
            return None
        recorded = None
        if pinned is not None and pinned.inode == facts.st_ino:
            recorded, old = pinned.format, None
        elif old is not None and old.inode == facts.st_ino and (old.physical or old.capacity):
            # A recorded format stays with its file, whatever a guest writes. An empty file has no format yet, an ambiguous
            # one none until somebody adopts it, and one that could not be read none until it can.
            recorded = old.format if old.recorded else None
        size = facts.st_size
        if self._is_hollow(size, facts.st_blocks, recorded):
            return volume(name, facts, now, "raw", size, None)
        try:
            fd = directory.open(name)
        except OSError as error:
            detail = {"error": f"cannot be opened: {error.strerror}"}
            return unread(name, facts, recorded, detail)
        try:
            if identity(os.fstat(fd)) != identity(facts):
                detail = {"error": "it was replaced while it was looked at"}
                return unread(name, facts, recorded, detail)
            try:
                return volume(name, facts, now, *self._read(fd, size, recorded, old))
            except OSError as error:
                return unread(name, facts, recorded, {"error": f"cannot be read: {error.strerror}"})
        finally:
            os.close(fd)

    def _is_hollow(self, size: int, blocks: int, recorded: str | None) -> bool:
        """Whether there is nothing in a file to read; the content of a tiny one may be in its inode."""
        return not blocks and recorded in (None, "raw") and newfiles.is_hollow(size, blocks, self.trust_blocks)

    def _is_unwritten(self, fd: int) -> bool:
        """Whether an open file has no data at all, as the kernel says that counts its blocks in time (lseek(2))."""
        if not self.trust_blocks:
            return False
        try:
            os.lseek(fd, 0, os.SEEK_DATA)
        except OSError as error:
            return error.errno == errno.ENXIO
        return False

    def _read(
        self, fd: int, size: int, recorded: str | None, old: VolumeInfo | None
    ) -> tuple[str, int, dict[str, Any] | None]:
        """Format, capacity and rarer facts of an open file; ``old`` is what was known of it. ``OSError``."""
        if recorded is None or recorded in BYTES:
            if self._ahead:
                formats.ask_ahead(fd, size)
            image = formats.listed(fd, size)
            if image is None:
                return "raw", size, None
            # A disc and a raw disk are used alike, so the content may say which it is: it may have been half there.
            if recorded is not None and (image.format not in BYTES or image.ambiguous):
                image = formats.as_format(formats.FdReader(fd, size), recorded)
        else:
            image = formats.as_format(formats.FdReader(fd, size), recorded)
        return self._said(fd, size, image, recorded, old)

    def _said(
        self, fd: int, size: int, image: ImageInfo, recorded: str | None, old: VolumeInfo | None
    ) -> tuple[str, int, dict[str, Any] | None]:
        """Format, capacity and rarer facts of an open file that holds ``image``."""
        cut = formats.check(formats.FdReader(fd, size), image, deep=False) if image.error is None else None
        if (wrong := image.error or cut) and wrong.startswith(formats.UNREADABLE):
            raise OSError(errno.EIO, wrong.removeprefix(formats.UNREADABLE))
        detail = detail_of(image)
        if cut is not None:
            detail = {**(detail or {}), "error": cut}
        if image.looks is not None and old is not None and self._is_another(fd, old):
            detail = {**(detail or {}), "ambiguous": True, "replaced": True, "warning": _REPLACED.format(image.format)}
        if recorded is None:
            detail = self._doubted(image, detail)
        return image.format, size if image.capacity is None else image.capacity, detail

    def _of_image(self, image: ImageInfo) -> tuple[str, dict[str, Any] | None]:
        """Format and rarer facts of new files that hold such an image, of which nothing is missing."""
        return image.format, self._doubted(image, detail_of(image))

    def _doubted(self, image: ImageInfo, detail: dict[str, Any] | None) -> dict[str, Any] | None:
        """The rarer facts of an image whose format is not on record: as they are, unless what was on record is lost."""
        if self.host.cautious and detail is not None and image.format not in BYTES:
            # It may be a raw disk into which a guest wrote this header.
            warning = "the record of formats was lost; if this format is right, adopt it"
            return {**detail, "ambiguous": True, "warning": warning}
        return detail

    @staticmethod
    def _is_another(fd: int, old: VolumeInfo) -> bool:
        """Whether an open file that has the inode number of a recorded one was made after the last change of that one.

        Nothing a guest does makes a file younger, but a clock that was set back can make one look so: the record is not
        dropped for that, it is put in doubt.
        """
        if old.detail is not None and old.detail.get("replaced"):
            return True
        return bool(old.ctime) and libc.birth(fd) > old.ctime


def _add(found: Listing, info: VolumeInfo | None) -> None:
    if info is not None:
        found.add(info)
