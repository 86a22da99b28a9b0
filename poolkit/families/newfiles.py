"""The short way of a listing: a file that was not known, which mostly is a raw image of which numbers say all there is to say.

A directory of a hundred thousand new files is a hundred thousand times this, so it is one function with its names at hand:
open, fstat, three reads of a few bytes, close, and eleven numbers in a row of bytes. Everything else goes the long way.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import contextmanager
from itertools import islice
from struct import error as StructError

from poolkit.facts import VolumeInfo
from poolkit.host.directory import LOOK
from poolkit.host.places import stamp_of
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING
from poolkit.listing import NUMBERS, Like, Listing

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator
    from typing import Any

    from poolkit import formats
    from poolkit.formats import ImageInfo, usual
    from poolkit.host import beside
    from poolkit.listing import Portion

    # Takes an open file that is more than a plain raw image, or that could not be read.
    Other = Callable[[int, str, os.stat_result, "ImageInfo | OSError"], None]
    # What is said of an image: its format, and the rarer facts.
    Say = Callable[[ImageInfo], tuple[str, dict[str, Any] | None]]
else:
    formats = later(globals(), "formats", "poolkit.formats")
    usual = later(globals(), "usual", "poolkit.formats.usual")
    beside = later(globals(), "beside", "poolkit.host.beside")

# A file changed within the clock tick of the scan can change again without showing it: such a stamp is not kept.
# Kernels tick every 1-10 ms; file systems that store whole seconds show zero nanoseconds.
_TICK = 50_000_000
_SECOND = 2_000_000_000
_KIND = 0o170000  # inode(7), S_IFMT
_FILE = stat.S_IFREG
_KINDS = 256  # of images that are told together
_SMALL = 4096  # bytes; the content of a file that is not larger may be in its inode

_EIGHTHS, _THEIRS = 7, 5
"""Of eight known files five are compared by the copy of the process: the process itself reads the directory meanwhile."""

_PORTION = 1024  # files that the copy looks at before it tells of them

Walk = Callable[[Listing, "Iterable[os.DirEntry[str] | Named]"], None]
"""Adds entries of a directory to a listing."""


def in_halves(directory: int, walk: Walk, found: Listing, entries: Iterable[os.DirEntry[str]]) -> None:
    """List many files of which none is known: a copy of this process takes those of which the hash of the name is odd."""

    def portions() -> Iterator[Portion]:
        with _again(directory) as again:
            odd = (entry for entry in again if hash(entry.name) & 1)
            while part := list(islice(odd, _PORTION)):
                other = Listing(found.known)
                walk(other, part)
                yield from other.portions()

    with beside.doing(portions) as hand_on:
        walk(found, (entry for entry in entries if not hash(entry.name) & 1))
        whole = hand_on(found.join)
    if not whole:
        found.links = [name for name in found.links if not hash(name) & 1]
        with _again(directory) as again:
            walk(found, (entry for entry in again if hash(entry.name) & 1 and entry.name not in found.stamps))


class Named:
    """An entry of which only the name is known: what a walk asks of an ``os.DirEntry``."""

    __slots__ = ("_directory", "name")

    def __init__(self, directory: int, name: str) -> None:
        self._directory = directory
        self.name = name

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        """Its facts as they are now; ``FileNotFoundError``."""
        return os.stat(self.name, dir_fd=self._directory, follow_symlinks=follow_symlinks)

    def is_file(self, *, follow_symlinks: bool) -> bool:
        """Whether it is a regular file now; ``FileNotFoundError``."""
        return stat.S_ISREG(self.stat(follow_symlinks=follow_symlinks).st_mode)


def compared_in_parts(
    directory: int, walk: Walk, found: Listing, entries: Iterable[os.DirEntry[str]], special: Container[str]
) -> None:
    """List many files of which most are known: a copy of this process compares a part of those, by their names on record.

    It reads no record and opens nothing: whatever is not as it was known, is new or ``special``, this process looks at.
    """
    stamps = found.known.stamps

    def theirs(name: str) -> bool:
        return hash(name) & _EIGHTHS < _THEIRS and name in stamps and name not in special

    def ours() -> Iterator[os.DirEntry[str]]:
        for entry in entries:
            name = entry.name
            if hash(name) & _EIGHTHS >= _THEIRS or not theirs(name):
                yield entry

    def compared() -> Iterator[set[str]]:
        names = filter(theirs, stamps)
        while part := list(islice(names, _PORTION)):
            others = set()
            for name in part:
                try:
                    if stamps[name] != stamp_of(os.stat(name, dir_fd=directory, follow_symlinks=False)):
                        others.add(name)
                except OSError:
                    others.add(name)
            yield others

    told: list[set[str]] = []
    with beside.doing(compared) as hand_on:
        walk(found, ours())
        whole = hand_on(told.append)
    others = set().union(*told) if whole else set(filter(theirs, stamps))
    found.same += [name for name in filter(theirs, stamps) if name not in others]
    walk(found, (Named(directory, name) for name in others))


@contextmanager
def _again(directory: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """The entries of an open directory from the first one on.

    By a descriptor of its own: how far a folder is read belongs to the open folder, not to the process.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(fd) as entries:
            yield entries
    finally:
        os.close(fd)


def is_young(ctime: int, now: int) -> bool:
    """Whether a file that was changed at ``ctime`` can change again without showing it."""
    return ctime > now - _TICK or (ctime > now - _SECOND and not ctime % 1_000_000_000)


def is_hollow(size: int, blocks: int, trust_blocks: bool) -> bool:
    """Whether there is nothing in a file to read."""
    return not blocks and size > _SMALL and trust_blocks


def taker(
    directory: int, now: int, found: Listing, other: Other, say: Say, *, trust_blocks: bool, ahead: bool = False
) -> Callable[[str], bool]:  # fmt: skip
    """The function that adds the file of a name to ``found``, and says whether it is hollow.

    ``ahead``: all that is read of a file is asked for before the first read waits for it.

    It raises the ``OSError`` of a file that cannot be opened, and adds nothing where the name is no regular file any more.
    """
    plain, stamps = found.plain, found.stamps
    # What is looked up once here is not looked up for each file.
    open_, fstat, close, glance, pack, hash_ = os.open, os.fstat, os.close, usual.glance, NUMBERS.pack, hash
    settled = now - _SECOND
    kinds: dict[usual.Usual, dict[str, bytes]] = {}

    def take(name: str) -> bool:
        fd = open_(name, LOOK, dir_fd=directory)
        try:
            facts = fstat(fd)
            mode, inode, _, _, owner, group, size, _, _, _ = facts
            if mode & _KIND != _FILE:
                return False  # replaced while we looked
            blocks, mtime, ctime = facts.st_blocks, facts.st_mtime_ns, facts.st_ctime_ns
            hollow = not blocks and is_hollow(size, 0, trust_blocks)
            into: dict[str, bytes] | None = plain
            capacity = size
            if not hollow:
                try:
                    if ahead:
                        formats.ask_ahead(fd, size)
                    image = glance(fd, size, ahead=ahead)
                except OSError as error:
                    other(fd, name, facts, error)
                    return False
                if image is not None:
                    if not isinstance(image, tuple):
                        other(fd, name, facts, image)
                        return False
                    kind, capacity = image
                    into = kinds.get(kind) or numbers_of(kind)
            stamp = 0 if ctime > settled and is_young(ctime, now) else hash_((inode, size, mtime, ctime, blocks))
            numbers = (
                capacity, blocks * 512, size, stamp, inode, mode & 0o7777, owner, group, facts.st_atime_ns, mtime, ctime
            )  # fmt: skip
            if into is None:
                format, detail = say(kind.image)
                found.add(VolumeInfo._make((name, "file", format, *numbers, None, None, detail)))
                return False
            try:
                into[name] = pack(*numbers)
            except StructError:  # an inode number with the highest bit set
                other(fd, name, facts, formats.listed(fd, size) or formats.ImageInfo("raw", size))
                return hollow
            stamps[name] = stamp
            return hollow
        finally:
            close(fd)

    def numbers_of(kind: usual.Usual) -> dict[str, bytes] | None:
        """Where the numbers of such images go; None where there are so many kinds that few images can be of this one."""
        if (into := kinds.get(kind)) is None and len(kinds) < _KINDS:
            format, detail = say(kind.image)
            into = kinds[kind] = found.numbers_like(Like("file", format, detail or {}))
        return into

    return take
