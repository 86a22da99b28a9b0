"""Durable file operations of the host port: each is a fault point, shown in a dry run, and undone on failure.

*Durable* means: temporary file in the same directory, fsync, rename, fsync of the directory. Everything that appears
under a final name is whole and has its final owner and mode.
"""

from __future__ import annotations

import os
import stat

from poolkit import errors
from poolkit.host import undo
from poolkit.host.appearing import NO_LINKS, NewFiles
from poolkit.host.descriptors import sync_directory, write_all
from poolkit.host.directory import TEMPORARY, open_own, parent_of
from poolkit.host.undo import Undo, run
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poolkit.host import rights
    from poolkit.host.directory import Directory
else:
    rights = later(globals(), "rights", "poolkit.host.rights")


class Files(NewFiles):
    """The durable operations; reached as ``host.files``. Those on files of volumes are of ``poolkit.host.appearing``."""

    def mkdir(self, path: str, mode: int = 0o755, *, keep: bool = False) -> bool:
        """Make a directory, and its parents with mode 0755. Returns False if it exists already.

        Undone by rmdir, unless ``keep``: for folders that other operations may begin to use at once.
        """
        parent = os.path.dirname(path)
        if os.path.isdir(path):
            if keep and not self._host.dry_run:
                self.sync(parent)  # who made it may have died before that
            return False
        if parent and not os.path.isdir(parent):
            self.mkdir(parent, 0o755, keep=keep)
        if self._host.step(f"mkdir {path}", None if keep else undo.rmdir(path)):
            with parent_of(path) as (folder, name):
                try:
                    os.mkdir(name, 0o700, dir_fd=folder)
                except FileExistsError:
                    if not os.path.isdir(path):
                        raise
                    return False  # another process was faster
                fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.fchmod(fd, mode)  # whatever the umask is
            finally:
                os.close(fd)
            self.fault(f"fsync directory of {path}")
            self.sync(parent)
        return True

    def rmdir(self, path: str) -> bool:
        """Remove an empty directory; False if it is gone already. Raises ``OSError`` if it is not empty."""
        if not os.path.lexists(path):
            return False
        if self._host.step(f"rmdir {path}"):
            os.rmdir(path)
            self.fault(f"fsync directory of {path}")
            self.sync(os.path.dirname(path))
        return True

    def chmod(self, path: str, mode: int) -> bool:
        """Set the mode of a directory or device; False if it has it. Undone by the old mode. Follows no link of others."""
        fd = open_own(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            facts = os.fstat(fd)
            old = stat.S_IMODE(facts.st_mode)
            if old == mode:
                return False
            if self._host.step(f"chmod {mode:04o} {path}", undo.chmod(path, facts)):
                rights.give_mode(fd, path, mode)
        finally:
            os.close(fd)
        return True

    def chown(self, path: str, owner: int, group: int) -> bool:
        """Set owner and group (-1 leaves one as it is); False if it has them. Undone by the old ones.

        Follows no link of others.
        """
        fd = open_own(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            facts = os.fstat(fd)
            if owner in (-1, facts.st_uid) and group in (-1, facts.st_gid):
                return False
            if self._host.step(f"chown {owner}:{group} {path}", undo.chown(path, facts)):
                rights.give(fd, path, owner, group)
        finally:
            os.close(fd)
        return True

    def replace(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """As :meth:`write`, and undone by the old file, which waits under a private name until the operation is complete."""
        directory = os.path.dirname(path)
        if not self._host.dry_run and os.path.lexists(path):
            kept = os.path.join(directory, f"{TEMPORARY}{os.urandom(8).hex()}")
            self._host.keep_undo(undo.restore(kept, path))
            self.fault(f"keep {path}")
            try:
                os.link(path, kept, follow_symlinks=False)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                self._copy(path, kept)
        self.write(path, data, mode, undone=True)

    def write(self, path: str, data: bytes, mode: int = 0o600, *, undone: bool = False) -> None:
        """Replace or make a file durably; its old content stays until the rename, which is the last step.

        ``undone``: an undo removes the file, if it is still this one.
        """
        directory = os.path.dirname(path)
        if self._host.dry_run:
            self._host.step(f"write {path}")
            return
        temporary = os.path.join(directory, f"{TEMPORARY}{os.urandom(8).hex()}")
        self._host.step(f"write {path}", undo.unlink(temporary))
        self._put(temporary, path, data, mode, undone)

    def _copy(self, path: str, kept: str) -> None:
        """A copy of a file of ours, whole as soon as it has its name: for a file system that cannot give a file two names."""
        if os.path.islink(path):
            os.symlink(os.readlink(path), kept)
            self.sync(os.path.dirname(path))
            return
        temporary = os.path.join(os.path.dirname(path), f"{TEMPORARY}{os.urandom(8).hex()}")
        self._host.keep_undo(undo.unlink(temporary))
        with open(path, "rb") as file:
            self._put(temporary, kept, file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode), undone=False)

    def _put(self, temporary: str, path: str, data: bytes, mode: int, undone: bool) -> None:
        directory, name = os.path.split(path)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                write_all(fd, data)
                os.fchmod(fd, mode)
                self.fault(f"fsync {name}")
                os.fsync(fd)
                facts = os.fstat(fd)
            finally:
                os.close(fd)
            if undone:
                self._host.keep_undo(undo.unlink(path, facts))
            self.fault(f"rename {name}")
            os.replace(temporary, path)
        except BaseException as error:
            if isinstance(error, OSError):
                error.filename = path  # a descriptor tells none, and the private name nobody anything
            _unlink(temporary)
            raise
        self.fault(f"fsync directory of {name}")
        self.sync(directory)

    def symlink(self, target: str, path: str) -> bool:
        """Make a symbolic link; False if it is there with that target. Undone if it still has that target."""
        try:
            if os.readlink(path) == target:
                return False
        except OSError:
            pass
        if self._host.step(f"symlink {path} -> {target}", undo.unsymlink(target, path)):
            os.symlink(target, path)
            self.fault(f"fsync directory of {path}")
            self.sync(os.path.dirname(path))
        return True

    def unlink(self, path: str) -> bool:
        """Remove a file or link of ours; False if it is gone already. Undo puts it back.

        A file waits under a private name until the operation is complete.
        """
        directory = os.path.dirname(path)
        try:
            target = os.readlink(path)
        except FileNotFoundError:
            return False
        except OSError:
            kept = os.path.join(directory, f"{TEMPORARY}{os.urandom(8).hex()}")
            if self._host.step(f"unlink {path}", undo.restore(kept, path)):
                os.rename(path, kept)
                self.fault(f"fsync directory of {path}")
                self.sync(directory)
            return True
        if self._host.step(f"unlink {path}", undo.symlink(target, path)):
            os.unlink(path)
            self.fault(f"fsync directory of {path}")
            self.sync(directory)
        return True

    def remove(self, directory: Directory, name: str) -> bool:
        """Remove an entry of an open directory; False if it is gone already. Not undone: it was asked for."""
        if not directory.exists(name):
            return False
        if self._host.step(f"unlink {directory.join(name)}"):
            os.unlink(name, dir_fd=directory.fd)
            self.fault(f"fsync directory of {name}")
            os.fsync(directory.fd)
        return True

    def sync(self, path: str) -> None:
        """fsync a directory, so that its entries survive a power failure."""
        sync_directory(path)

    def tell(self, path: str, text: str, *, undo: Sequence[str] | Undo | None = None) -> None:
        """Write ``text`` to a knob of the kernel, a file of sysfs or procfs such as ``/sys/class/scsi_host/host0/scan``.

        In one write(2), as the kernel wants it. ``undo`` is an argv or a step that takes back what it brings about.
        """
        if not path.startswith(("/sys/", "/proc/")):
            raise errors.Unsafe(f"'{path}' is no knob of the kernel")
        step = undo if undo is None or isinstance(undo, Undo) else run(undo)
        if self._host.step(f"write '{text}' to {path}", step):
            self._host.devices.tell(path, text)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
