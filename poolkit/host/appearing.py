"""How the file of a volume comes to be under its name: whole, on the disk and on record before, or not at all.

What is not finished has no name at all where the file system can do that (O_TMPFILE), else a private one, which is taken away
again whatever happens.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress

from poolkit import errors
from poolkit.host import undo
from poolkit.host.descriptors import begin_sync
from poolkit.host.directory import TEMPORARY
from poolkit.host.undo import identity
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from poolkit.host import rights
    from poolkit.host.devices import Devices
    from poolkit.host.directory import Directory
    from poolkit.host.gathered import Gathered
    from poolkit.host.mounts import Mount
    from poolkit.host.undo import Undo
else:
    rights = later(globals(), "rights", "poolkit.host.rights")


class Port(Protocol):
    """What the operations on files need of the host; its class says what each does."""

    dry_run: bool
    fault: Callable[[str], None] | None

    @property
    def devices(self) -> Devices:
        """The machine's devices, whose knobs are written there."""

    def step(self, label: str, undo: Undo | None = None) -> bool:
        """Announce a change; False means not to make it."""

    def keep_undo(self, undo: Undo) -> None:
        """Write an undo step to the journal."""

    def locate(self, path: str) -> tuple[str, Mount | None]:
        """The real path and its mount."""

    def adopt(self, name: str, inode: int, format: str) -> None:
        """Record the format of a new file."""

    def enlist(self, files: Sequence[Appearing]) -> None:
        """Record the formats of new files, and list them."""

    def check_abort(self) -> None:
        """Raise ``Aborted`` if the caller asked to stop."""


NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What link(2) says where a file cannot have another name: vfat, some of FUSE."""

_UNNAMED = frozenset({"ext4", "xfs", "btrfs", "f2fs", "tmpfs"})
"""Kernel names of file systems with O_TMPFILE (open(2)), of which this is known to be sound."""


class Appearing(NamedTuple):
    """A file that is about to have its name: what it had been before it got its owner and mode, its format, and what it is
    described as (a ``VolumeInfo``).
    """

    name: str
    facts: os.stat_result
    format: str
    info: Any


class NewFile:
    """A file that does not have its name yet; made by :meth:`NewFiles.new`. ``temporary`` is None for one without any name.

    ``info`` is what it was described as when it was to get its name. Who fills it says with ``laid_out`` that its blocks are
    where they stay, as with holes and shared or reserved ones: then what it is described as is not changed by an fsync. ``like``
    is an open file that has the same bytes, if there is one.
    ``waits`` is true of one that gets its name together with others (:meth:`NewFiles.gathering`); ``facts`` are from before it
    got its owner and mode, and ``format`` is what the engine records for it.
    """

    __slots__ = ("directory", "facts", "fd", "format", "info", "laid_out", "like", "name", "temporary", "waits")
    facts: os.stat_result
    format: str

    def __init__(self, directory: Directory, name: str, temporary: str | None, fd: int) -> None:
        self.directory = directory
        self.name = name
        self.temporary = temporary
        self.fd = fd
        self.info: Any = None
        self.laid_out = False
        self.like: int | None = None
        self.waits = False

    @property
    def appearing(self) -> Appearing:
        """What its name, facts, format and description are."""
        return Appearing(self.name, self.facts, self.format, self.info)


class NewFiles:
    """The part of :class:`poolkit.host.files.Files` that makes and replaces the files of volumes."""

    def __init__(self, host: Port) -> None:
        self._host = host
        self._gathered: Gathered | None = None

    @contextmanager
    def new(
        self, directory: Directory, name: str, *, format: str, mode: int = 0o600, owner: int = -1, group: int = -1,
        unnamed: int | None = None, describe: Callable[[NewFile], Any] | None = None,
    ) -> Iterator[NewFile]:  # fmt: skip
        """A new file that appears under ``name`` whole, with its final owner and mode, or not at all.

        The body fills the file; leaving it puts the file under its name without replacing anything
        (``VolumeExists``). On an error nothing is left. ``format`` is what the engine records for it. ``unnamed`` is a
        descriptor that :meth:`scratch` gave and :meth:`nameable` is true of: that file gets the name. ``describe`` tells what
        the file is to be listed as (a ``VolumeInfo``), so that the engine can do that along with the record of its format. Not
        for a dry run: ask ``host.dry_run`` first.
        """
        if directory.exists(name):
            raise _exists(directory, name)
        without_name = self.has_unnamed(directory) if self._gathered is None else self._gathered.unnamed
        make = self._unnamed if without_name else self._temporary
        with make(directory, name, "create") if unnamed is None else self._given(directory, name, unnamed) as new:
            yield new
            new.facts, new.format = self._own(new, mode, owner, group), format
            if self._gathered is not None and describe is not None and unnamed is None and new.temporary is None:
                self._gathered.add(new, describe)
                return
            with self._on_disk(new, beside=new.laid_out and new.temporary is None):
                new.info = None if describe is None else describe(new)
                self._host.keep_undo(undo.unlink_whole(directory.join(name), new.facts))
                self._host.enlist([new.appearing])
            self._host.check_abort()
            self.fault(f"name {name}")
            self.give_name(new)
            self.fault(f"fsync directory of {name}")
            os.fsync(directory.fd)

    @contextmanager
    def gathering(self, path: str) -> Iterator[Gathered]:
        """New files of the directory ``path`` that :meth:`new` makes in the body get their names together when it ends.

        All are on the disk then, and on record in one step, before the first has its name; if the body fails none gets one. Each
        is open until then, so they should be some hundred at most. Where files must have a private name from the beginning
        they get their names one by one, as ever.
        """
        from poolkit.host.gathered import Gathered

        self._gathered = Gathered(self, self._host, path)
        try:
            yield self._gathered
            self._gathered.appear()
        finally:
            self._gathered.close()
            self._gathered = None

    @contextmanager
    def rewrite(
        self, directory: Directory, name: str, *, format: str, old: int | None = None,
        scrub: Callable[[], None] | None = None, overwritten: bool = False,
    ) -> Iterator[NewFile]:  # fmt: skip
        """A new file that takes the place of the regular file ``name`` at once, with its owner and mode, or not at all.

        Other names of the old file keep the old content. ``old`` is a descriptor of the file that ``name`` must be.
        ``scrub`` makes the data of the old file unreadable when the new one has its place; should this process die in it, or be
        interrupted (Ctrl-C), the old file is removed by what takes the operation back, after one pass of random bytes if it was
        to be ``overwritten``. Otherwise as :meth:`new`.
        """
        with directory.regular(name) as fd:
            facts = os.fstat(fd if old is None else old)
        kept = None
        with self._temporary(directory, name, "replace") as new:
            yield new
            made = self._own(new, stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid)
            with self._on_disk(new):
                self._host.adopt(name, made.st_ino, format)
            self._host.check_abort()
            if identity(directory.lstat(name)) != identity(facts):
                raise errors.Unsafe(f"'{directory.join(name)}' was replaced meanwhile; it was left alone", volume=name)
            if scrub is not None:
                kept = self._keep(directory, name, facts, overwritten)
            self.fault(f"rename {name}")
            os.replace(str(new.temporary), name, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)
            self.fault(f"fsync directory of {name}")
            os.fsync(directory.fd)
        if scrub is None:
            return
        try:
            scrub()
            self.fault(f"unlink the old {name}")
        except (OSError, errors.PoolkitError) as error:
            self._let_go(directory, kept)
            worded = error if isinstance(error, errors.PoolkitError) else errors.from_os_error(error, f"wipe '{name}'")
            worded.hint = "the volume is new and empty; its old data was given back before all of it was overwritten"
            raise worded from error
        self._let_go(directory, kept)

    @staticmethod
    def _let_go(directory: Directory, kept: str | None) -> None:
        """Remove the private name of an old file, whose data goes with it."""
        if kept is not None:
            os.unlink(kept, dir_fd=directory.fd)
            os.fsync(directory.fd)

    @contextmanager
    def scratch(self, directory: Directory) -> Iterator[int]:
        """A descriptor of an empty file that only this user can open, on the file system of the directory; gone afterwards."""
        make = self._unnamed if self.has_unnamed(directory) else self._temporary
        with make(directory, "", "read a copy in") as new:
            if new.temporary is not None:
                os.unlink(new.temporary, dir_fd=directory.fd)
            yield new.fd

    def _keep(self, directory: Directory, name: str, facts: os.stat_result, overwritten: bool) -> str | None:
        """Another, private name for a file that is about to lose its own, so that it can be found again; None without links."""
        kept = f"{TEMPORARY}{os.urandom(8).hex()}"
        self._host.keep_undo(undo.overwrite(directory.join(kept), directory.join(name), facts, random=overwritten))
        self.fault(f"keep {name}")
        try:
            os.link(name, kept, src_dir_fd=directory.fd, dst_dir_fd=directory.fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return None
        os.fsync(directory.fd)
        return kept

    def has_unnamed(self, directory: Directory) -> bool:
        """Whether its file system is known to make files without a name (O_TMPFILE)."""
        mount = self._host.locate(directory.path)[1]
        return mount is not None and mount.fstype in _UNNAMED

    @contextmanager
    def _unnamed(self, directory: Directory, name: str, verb: str) -> Iterator[NewFile]:
        """An unfinished file without a name: whatever happens to this process or the machine, nothing is left of it."""
        self._host.step(f"{verb} {directory.join(name)}")
        try:
            fd = os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=directory.fd)
        except OSError as error:
            error.filename = directory.path
            raise
        new = NewFile(directory, name, None, fd)
        try:
            yield new
        finally:
            if not new.waits:
                os.close(fd)

    @contextmanager
    def _given(self, directory: Directory, name: str, fd: int) -> Iterator[NewFile]:
        self._host.step(f"create {directory.join(name)}")
        yield NewFile(directory, name, None, fd)

    def nameable(self, directory: Directory, fd: int) -> bool:
        """Whether an open file of :meth:`scratch` can get a name in that directory."""
        return self.has_unnamed(directory) and os.fstat(fd).st_dev == os.fstat(directory.fd).st_dev

    @contextmanager
    def _temporary(self, directory: Directory, name: str, verb: str) -> Iterator[NewFile]:
        """An unfinished file under a private name, which is gone afterwards unless it was renamed."""
        temporary = f"{TEMPORARY}{os.urandom(8).hex()}"
        self._host.step(f"{verb} {directory.join(name)}", undo.unlink(directory.join(temporary)))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        new = NewFile(directory, name, temporary, os.open(temporary, flags, 0o600, dir_fd=directory.fd))
        maker = os.getpid()
        try:
            yield new
        except BaseException:
            if os.getpid() == maker:  # a child that was forked meanwhile has no say
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=directory.fd)
            raise
        finally:
            os.close(new.fd)

    @staticmethod
    def _own(new: NewFile, mode: int, owner: int, group: int) -> os.stat_result:
        """Give an unfinished file its owner and mode; returns its facts before that."""
        facts = os.fstat(new.fd)
        if (owner not in (-1, facts.st_uid)) or (group not in (-1, facts.st_gid)):
            rights.give(new.fd, new.directory.join(new.name), owner, group)
        os.fchmod(new.fd, mode)
        return facts

    @contextmanager
    def _on_disk(self, new: NewFile, *, beside: bool = False) -> Iterator[None]:
        """An unfinished file is on the disk before the body begins, or with ``beside`` when it ends: nothing has its name yet."""
        self.fault(f"fsync {new.name}")
        if not beside:
            os.fsync(new.fd)
            yield
            return
        wait = begin_sync(new.fd)
        try:
            yield
        finally:
            wait()

    @staticmethod
    def give_name(new: NewFile) -> None:
        """Put a file that is whole and on the disk under its name, which is on the disk with its folder; ``VolumeExists``."""
        folder = new.directory.fd
        try:
            if new.temporary is None:
                os.link(f"/proc/self/fd/{new.fd}", new.name, dst_dir_fd=folder)  # as linkat(2) has it for O_TMPFILE
                os.fsync(new.fd)  # btrfs writes no log of a file that has no name yet
                return
            from poolkit.host import libc

            try:
                libc.rename_noreplace(new.temporary, new.name, dir_fd=folder)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                # NFS has no RENAME_NOREPLACE; a hard link refuses to replace as well.
                os.link(new.temporary, new.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                os.unlink(new.temporary, dir_fd=folder)
        except FileExistsError:
            raise _exists(new.directory, new.name) from None

    def fault(self, label: str) -> None:
        """A fault point between two system calls of one change; does nothing outside tests."""
        if self._host.fault is not None:
            self._host.fault(label)


def _exists(directory: Directory, name: str) -> errors.VolumeExists:
    path, hint = directory.join(name), "choose another name, or delete that volume first"
    try:
        mode = directory.lstat(name).st_mode
    except OSError:
        mode = stat.S_IFREG
    if stat.S_IFMT(mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFBLK):
        # No verb of ours removes what is no volume.
        what = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
        hint = f"choose another name; it is {what}, and if it is to go: rm '{path}'"
    return errors.VolumeExists(f"'{path}' exists already", volume=name, hint=hint)
