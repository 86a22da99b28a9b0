"""Directories and what is in them: reached by descriptors and by no link of others, so that nobody can lead the way elsewhere."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager

from poolkit import errors
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


TEMPORARY = ".poolkit-"  # names that begin so are ours, unfinished, and never listed

LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""How an entry nobody vouches for is opened: never through a link, never waiting for a FIFO, never as a terminal."""


_LINKS = 40  # the kernel's own limit, path_resolution(7)


@contextmanager
def parent_of(path: str) -> Iterator[tuple[int, str]]:
    """A descriptor (O_PATH) of the directory that ``path`` is in, and its name there, which no link has now.

    Symbolic links on the way and at the end are followed if root or this user made them: ``Unsafe`` for those of others,
    who could make root work on what they choose. Open the name with O_NOFOLLOW. ``FileNotFoundError`` only for a folder.
    An ``OSError`` of the body that names a part of the path names all of it.
    """
    try:
        with _parent_of(path) as found:
            yield found
    except OSError as error:
        if error.filename in path.split("/"):  # calls that begin at a descriptor tell the last part alone
            error.filename = path
        raise


@contextmanager
def _parent_of(path: str) -> Iterator[tuple[int, str]]:
    aim = path
    links = 0
    rest: list[str] = []
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            if aim.startswith("/"):
                os.close(here)
                here = -1
                here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            rest += [part for part in aim.split("/") if part not in ("", ".")][::-1]
            aim = ""
            while rest and not aim:
                last = len(rest) == 1
                try:
                    found = os.open(rest[-1], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                except FileNotFoundError:
                    if not last:
                        raise
                    break
                try:
                    facts = os.fstat(found)
                    if stat.S_ISLNK(facts.st_mode):
                        links += 1
                        aim = _aim(path, rest.pop(), found, facts, links)
                    elif last:
                        break
                    else:
                        # O_DIRECTORY has what is to be mounted on demand mounted, which O_PATH alone has not.
                        below = os.open(
                            rest.pop(), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here
                        )
                        os.close(here)
                        here = below
                finally:
                    os.close(found)
            if not aim:
                yield here, rest[0] if rest else "."
                return
    finally:
        if here >= 0:
            os.close(here)


def _aim(path: str, name: str, link: int, facts: os.stat_result, links: int) -> str:
    """Where an open link on the way to ``path`` leads to, if it may be followed."""
    if links > _LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    if facts.st_uid not in (0, os.geteuid()):
        raise errors.Unsafe(
            f"'{path}' leads through the symbolic link '{name}' of user {facts.st_uid}; it was not followed",
            hint="name the place it leads to, if that is meant",
        )
    return os.readlink("", dir_fd=link)


def open_own(path: str, flags: int) -> int:
    """Open what is at ``path``, reached as :func:`parent_of` has it; O_NOFOLLOW and O_CLOEXEC are added."""
    with parent_of(path) as (folder, name):
        try:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            error.filename = path
            raise


def _place_of(fd: int) -> str | None:
    """Where an open directory is, without symbolic links."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None


class Directory:
    """An open directory: entries are reached through its descriptor and never through a symbolic link."""

    __slots__ = ("fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if _place_of(self.fd) != path:  # as most are, and this is ten times as fast as going step by step
            os.close(self.fd)
            self.fd = -1
            self.fd = open_own(path, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        # Calls that begin at a descriptor tell the name alone, which says neither where it is nor whose right is missing.
        if isinstance(error, OSError) and isinstance(error.filename, str) and "/" not in error.filename:
            error.filename = self.join(error.filename)

    def close(self) -> None:
        """Close the descriptor; repeatable."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def join(self, name: str) -> str:
        """The path of an entry, for people and for tools; poolkit itself uses the descriptor."""
        return os.path.join(self.path, name)

    def lstat(self, name: str) -> os.stat_result:
        """Facts of an entry itself, not of what a link points to. Raises ``FileNotFoundError``."""
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False)

    def exists(self, name: str) -> bool:
        """Whether there is an entry of that name, of any kind."""
        try:
            self.lstat(name)
        except FileNotFoundError:
            return False
        return True

    def open(self, name: str, flags: int = LOOK) -> int:
        """Open an entry; O_NOFOLLOW, O_NONBLOCK, O_NOCTTY and O_CLOEXEC are always added. The caller closes it."""
        return os.open(name, flags | LOOK, dir_fd=self.fd)

    @contextmanager
    def regular(self, name: str, *, write: bool = False) -> Iterator[int]:
        """A descriptor of an existing regular file; ``Unsafe`` if the entry is a link, device, FIFO or directory."""
        try:
            fd = self.open(name, os.O_RDWR if write else os.O_RDONLY)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK):
                raise errors.Unsafe(
                    f"'{self.join(name)}' is a symbolic link; it was not followed", volume=name
                ) from error
            if error.errno == errno.EISDIR:
                raise errors.Unsafe(f"'{self.join(name)}' is a directory, not a file", volume=name) from error
            if error.errno == errno.ENXIO:
                raise errors.Unsafe(f"'{self.join(name)}' is not a regular file", volume=name) from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise errors.Unsafe(f"'{self.join(name)}' is not a regular file", volume=name)
            yield fd
        finally:
            os.close(fd)
