"""A listing of a pool on its way from the storage to the inventory: what is as it was by name alone, plain new files packed.

A directory of a million files is listed in seconds because most entries never become objects: a name and one stamp say that
a volume is unchanged, and eleven numbers say all there is to say of a raw image that is a plain file.
"""

from __future__ import annotations

from itertools import islice

from poolkit.facts import VolumeInfo
from poolkit.lean import TYPE_CHECKING, NamedTuple, overload

if TYPE_CHECKING:
    import struct
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    Fetch = Callable[[str | None], Iterable[VolumeInfo]]
else:  # the very ones, without the modules around them
    import _struct as struct
    from _collections_abc import Mapping, Sequence

NUMBERS = struct.Struct("<11q")
"""The numbers of a volume as the inventory has them: fields 3 (capacity) to 13 (ctime) of ``VolumeInfo``."""

PLAIN = ("file", "raw")
"""Type and format of a volume of which the numbers are all there is to say."""


_NO_NUMBERS = (0,) * 11


class Like(NamedTuple):
    """What volumes of which no key or path of their own is known can have in common: all but their names and numbers."""

    type: str
    format: str
    detail: Mapping[str, Any]

    def key(self) -> str:
        """A text that is another for those that differ, and mostly the same for those that do not."""
        return f"{self.type} {self.format} {self.detail}"

    def volume(self, name: str, numbers: bytes) -> VolumeInfo:
        """The volume of a name and its packed ``NUMBERS``."""
        found = NUMBERS.unpack(numbers)
        if found[4] < 0:
            found = (*found[:4], found[4] + (1 << 64), *found[5:])  # inode numbers are unsigned
        return VolumeInfo._make((name, self.type, self.format, *found, None, None, self.detail))

    def sample(self, name: str) -> VolumeInfo:
        """A volume of a name of which only this is told."""
        return VolumeInfo._make((name, self.type, self.format, *_NO_NUMBERS, None, None, self.detail))


class Alike(NamedTuple):
    """Volumes that are alike, as those made from one template are: their packed ``NUMBERS`` by name."""

    like: Like
    numbers: dict[str, bytes]


Portion = tuple[tuple[object, ...] | None, list[str], list[bytes] | list[tuple[object, ...]], list[int], list[str]]
"""A part of a listing on its way between processes, of plain values: names, packed numbers or volumes, their stamps, and links.

The numbers are those of plain volumes, or of ones that are like what comes first.
"""


class Known(Mapping[str, VolumeInfo]):
    """The last listing by name: the stamps of all volumes at once, a volume itself when it is asked for.

    ``told`` are volumes of which more than numbers is known, one by one; those of ``alike`` are told together.
    ``fetch`` reads a name and its neighbours, or all for None.
    """

    def __init__(
        self, stamps: Mapping[str, int], told: Mapping[str, VolumeInfo], fetch: Fetch,
        alike: Mapping[str, Alike] | None = None,
    ) -> None:  # fmt: skip
        self.stamps = stamps
        self.told = told
        self.alike = {} if alike is None else alike
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
        if found is None and (packed := self.packed(name)) is not None:
            numbers, like = packed
            found = self._read[name] = like.volume(name, numbers)
        if found is None:
            raise KeyError(name)  # it was deleted meanwhile
        return found

    def packed(self, name: str) -> tuple[bytes, Like] | None:
        """The numbers of a volume that is told with others, and what it is like."""
        return next(((one.numbers[name], one.like) for one in self.alike.values() if name in one.numbers), None)

    def _take(self, volumes: Iterable[VolumeInfo]) -> None:
        for info in volumes:
            if info.name in self.stamps and info.name not in self.told:
                self._read.setdefault(info.name, info)

    def __iter__(self) -> Iterator[str]:
        if not self._whole:
            self._take(self._fetch(None))
            self._whole = True
            for one in self.alike.values():
                self._take(
                    one.like.volume(name, numbers) for name, numbers in one.numbers.items() if name not in self._read
                )
        return (name for name in self.stamps if self.held(name) is not None)

    def __len__(self) -> int:
        return len(self.stamps)


class Listing(Sequence[VolumeInfo]):
    """What a backend found; as a sequence it has all volumes, which are made when somebody looks.

    ``same`` are the names of volumes that are as they were known, ``plain`` the packed ``NUMBERS`` of new ones of type and
    format ``PLAIN``, ``alike`` new ones that are told together, by what they are like, ``others`` all the rest, ``stamps``
    those of what is not the same, and ``links`` the names of symbolic links that were passed over.
    """

    def __init__(self, known: Known) -> None:
        self.known = known
        self.same: list[str] = []
        self.plain: dict[str, bytes] = {}
        self.alike: dict[str, Alike] = {}
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

    def numbers_like(self, like: Like) -> dict[str, bytes]:
        """Where the packed numbers of new volumes go that are like that."""
        return self.alike.setdefault(like.key(), Alike(like, {})).numbers

    def portions(self, size: int = 4096) -> Iterator[Portion]:
        """What is new in pieces of so many volumes, for :meth:`join` of another listing."""
        packed = [(None, self.plain), *self.alike.values()]
        for like, numbers in packed:
            yield from self._pieces(like, numbers.items(), size)
        # A volume as a plain tuple: one of a class takes four times as long to come over.
        yield from self._pieces(None, ((name, tuple(info)) for name, info in self.others.items()), size)
        yield None, [], [], [], self.links

    def _pieces(self, like: Like | None, entries: Iterable[tuple[str, Any]], size: int) -> Iterator[Portion]:
        left = iter(entries)
        while part := dict(islice(left, size)):
            kind = None if like is None else tuple(like)
            yield kind, list(part), list(part.values()), [self.stamps[name] for name in part], []

    def join(self, portion: Portion) -> None:
        """Add a portion of another listing, which has no name that this one has."""
        like, names, entries, stamps, links = portion
        self.links += links
        self.stamps.update(zip(names, stamps, strict=True))
        if entries and not isinstance(entries[0], bytes):
            self.others.update(zip(names, map(VolumeInfo._make, entries), strict=True))
        elif entries:
            numbers: dict[str, Any] = self.plain if like is None else self.numbers_like(Like._make(like))
            numbers.update(zip(names, entries, strict=True))

    def names(self) -> Iterator[str]:
        """All names."""
        yield from self.same
        yield from self.plain
        for one in self.alike.values():
            yield from one.numbers
        yield from self.others

    def told(self) -> Iterator[VolumeInfo]:
        """The volumes that have ``detail``, in no order."""
        for one in self._groups():
            yield from (one.like.volume(name, numbers) for name, numbers in one.numbers.items())
        yield from self._alone()

    def kinds(self) -> Iterator[tuple[VolumeInfo, Collection[str]]]:
        """What :meth:`told` has, in less time: of volumes that are alike one without its numbers, and the names of all."""
        for one in self._groups():
            yield one.like.sample(next(iter(one.numbers))), one.numbers.keys()
        yield from ((info, (info.name,)) for info in self._alone())

    def _groups(self) -> Iterator[Alike]:
        """The volumes that are told together."""
        if self.known.alike and self.same:
            all_there = len(self.same) == len(self.known.stamps)
            same = () if all_there else frozenset(self.same)
            for one in self.known.alike.values():
                left = one if all_there else Alike(one.like, {n: v for n, v in one.numbers.items() if n in same})
                if left.numbers:
                    yield left
        yield from self.alike.values()

    def _alone(self) -> Iterator[VolumeInfo]:
        """The volumes with ``detail`` that are told one by one."""
        if self.known.told:
            told = (self.known.told.get(name) for name in self.same)
            yield from (info for info in told if info is not None and info.detail is not None)
        yield from (info for info in self.others.values() if info.detail is not None)

    def __len__(self) -> int:
        packed = sum(len(one.numbers) for one in self.alike.values())
        return len(self.same) + len(self.plain) + packed + len(self.others)

    def __iter__(self) -> Iterator[VolumeInfo]:
        yield from (self.known[name] for name in self.same)
        yield from (unpacked(name, numbers) for name, numbers in self.plain.items())
        for one in self.alike.values():
            yield from (one.like.volume(name, numbers) for name, numbers in one.numbers.items())
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
