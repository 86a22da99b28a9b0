"""A listing of a pool on its way from the storage to the inventory: what is as it was by name alone, plain new files packed.

A directory of a million files is listed in seconds because most entries never become objects: a name and one stamp say that
a volume is unchanged, and eleven numbers say all there is to say of a raw image that is a plain file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import chain, islice

from poolkit.facts import VolumeInfo
from poolkit.lean import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Fetch = Callable[[str | None], Iterable[VolumeInfo]]

NUMBERS = struct.Struct("<11q")
"""The numbers of a volume as the inventory has them: fields 3 (capacity) to 13 (ctime) of ``VolumeInfo``."""

PLAIN = ("file", "raw")
"""Type and format of a volume of which the numbers are all there is to say."""

Portion = tuple[list[tuple[str, bytes | VolumeInfo]], list[int], list[str]]
"""A part of a listing on its way between processes: names with packed numbers or volumes, their stamps, and links."""


class Known(Mapping[str, VolumeInfo]):
    """The last listing by name: the stamps of all volumes at once, a volume itself when it is asked for.

    ``told`` are the volumes of which more than numbers is known. ``fetch`` reads a name and its neighbours, or all for None.
    """

    def __init__(self, stamps: Mapping[str, int], told: Mapping[str, VolumeInfo], fetch: Fetch) -> None:
        self.stamps = stamps
        self.told = told
        self._fetch = fetch
        self._read: dict[str, VolumeInfo] = {}
        self._whole = False

    @classmethod
    def of(cls, volumes: Mapping[str, VolumeInfo]) -> Known:
        """What is known from any other mapping."""
        if isinstance(volumes, Known):
            return volumes
        return cls({name: info.stamp for name, info in volumes.items()}, volumes, lambda _: ())

    def held(self, name: str) -> VolumeInfo | None:
        """A volume if it was read already."""
        found = self.told.get(name)
        return self._read.get(name) if found is None else found

    def __getitem__(self, name: str) -> VolumeInfo:
        if name not in self.stamps:
            raise KeyError(name)
        found = self.held(name)
        if found is None and not self._whole:
            self._take(self._fetch(name))
            found = self._read.get(name)
        if found is None:
            raise KeyError(name)  # it was deleted meanwhile
        return found

    def _take(self, volumes: Iterable[VolumeInfo]) -> None:
        for info in volumes:
            if info.name in self.stamps and info.name not in self.told:
                self._read.setdefault(info.name, info)

    def __iter__(self) -> Iterator[str]:
        if not self._whole:
            self._take(self._fetch(None))
            self._whole = True
        return (name for name in self.stamps if self.held(name) is not None)

    def __len__(self) -> int:
        return len(self.stamps)


class Listing(Sequence[VolumeInfo]):
    """What a backend found; as a sequence it has all volumes, which are made when somebody looks.

    ``same`` are the names of volumes that are as they were known, ``plain`` the packed ``NUMBERS`` of new ones of type and
    format ``PLAIN``, ``others`` all the rest, ``stamps`` those of what is not the same, and ``links`` the
    names of symbolic links that were passed over.
    """

    def __init__(self, known: Known) -> None:
        self.known = known
        self.same: list[str] = []
        self.plain: dict[str, bytes] = {}
        self.others: dict[str, VolumeInfo] = {}
        self.stamps: dict[str, int] = {}
        self.links: list[str] = []

    @classmethod
    def of(cls, volumes: Iterable[VolumeInfo], known: Mapping[str, VolumeInfo] | None = None) -> Listing:
        """A listing of volumes; those of ``known`` that come as the same object are unchanged."""
        if isinstance(volumes, Listing):
            return volumes
        found = cls(Known.of(known or {}))
        for info in volumes:
            found.add(info)
        return found

    def add(self, info: VolumeInfo) -> None:
        """Add a volume; one that is the object that was known is unchanged."""
        name = info[0]
        if self.known.held(name) is info:
            self.same.append(name)
        else:
            self.others[name] = info
            self.stamps[name] = info[6]

    def portions(self, size: int = 4096) -> Iterator[Portion]:
        """What is new in pieces of so many volumes, for :meth:`join` of another listing."""
        entries: Iterator[tuple[str, bytes | VolumeInfo]] = chain(self.plain.items(), self.others.items())
        while part := list(islice(entries, size)):
            yield part, [self.stamps[name] for name, _ in part], []
        yield [], [], self.links

    def join(self, portion: Portion) -> None:
        """Add a portion of another listing, which has no name that this one has."""
        part, stamps, links = portion
        self.links += links
        for (name, entry), stamp in zip(part, stamps, strict=True):
            if isinstance(entry, bytes):
                self.plain[name] = entry
            else:
                self.others[name] = entry
            self.stamps[name] = stamp

    def names(self) -> Iterator[str]:
        """All names."""
        yield from self.same
        yield from self.plain
        yield from self.others

    def told(self) -> Iterator[VolumeInfo]:
        """The volumes that have ``detail``, in no order."""
        if self.known.told:
            told = (self.known.told.get(name) for name in self.same)
            yield from (info for info in told if info is not None and info.detail is not None)
        yield from (info for info in self.others.values() if info.detail is not None)

    def __len__(self) -> int:
        return len(self.same) + len(self.plain) + len(self.others)

    def __iter__(self) -> Iterator[VolumeInfo]:
        yield from (self.known[name] for name in self.same)
        yield from (unpacked(name, numbers) for name, numbers in self.plain.items())
        yield from self.others.values()

    @overload
    def __getitem__(self, at: int) -> VolumeInfo: ...
    @overload
    def __getitem__(self, at: slice) -> list[VolumeInfo]: ...
    def __getitem__(self, at: int | slice) -> VolumeInfo | list[VolumeInfo]:
        return list(self)[at]


def unpacked(name: str, numbers: bytes) -> VolumeInfo:
    """The volume of a name and its packed ``NUMBERS``."""
    return VolumeInfo._make((name, *PLAIN, *NUMBERS.unpack(numbers), None, None, None))
