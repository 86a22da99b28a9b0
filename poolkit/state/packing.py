"""Listed volumes as blocks of bytes: 256 volumes a row of the inventory, because a row each costs more than the scan itself.

A block is a CRC-32 of all that follows it, the number of volumes (both 32 bits, little-endian), eleven 64-bit numbers for each,
then JSON with what else is not a number: the names; the pairs of type and format, and which of them each volume has; key, path
and the number of the detail of those volumes that have a key or a path; the details; and which of these each other volume has,
-1 for none. Where all have the same, that is said once. Earlier versions had no last part, and all details in the fourth.
"""

from __future__ import annotations

import zlib
from functools import lru_cache, partial
from itertools import repeat

from poolkit.facts import VolumeInfo
from poolkit.lean import TYPE_CHECKING, dumps, loads
from poolkit.listing import NUMBERS, PLAIN, Alike, Like

if TYPE_CHECKING:
    import struct
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any
else:
    import _struct as struct  # the module without the one around it


SIZE = 256
"""Volumes in a new block; one that has grown to twice that is split."""

_COUNT = struct.Struct("<I")
_SUM = struct.Struct("<I")
_LIMIT = 1 << 63
_EARLIER = 5  # parts of what is not a number in the blocks of earlier versions
_encode = partial(dumps, separators=(",", ":"))


class Damaged(Exception):
    """A block is not what was stored."""


def seal(content: bytes) -> bytes:
    """A block of that content, with its checksum."""
    return _SUM.pack(zlib.crc32(content)) + content


def is_sound(block: bytes) -> bool:
    """Whether a block is what was stored."""
    return len(block) > _SUM.size and _SUM.unpack_from(block)[0] == zlib.crc32(memoryview(block)[_SUM.size :])


def _content(block: bytes) -> bytes:
    if not is_sound(block):
        raise Damaged("the checksum differs")
    return block[_SUM.size :]


Entry = VolumeInfo | bytes | tuple[bytes, Like]
"""A volume; or the packed numbers of one that is plain, or those and what it is like: see ``poolkit.listing``."""


def encode(volumes: Mapping[str, Entry]) -> bytes:
    """One block of volumes by name, in their order; ``detail`` must be JSON values."""
    entries: Any = volumes.values()
    made_of = set(map(type, entries))
    if made_of == {bytes}:
        return _block(entries, [list(volumes), [PLAIN], 0, {}, [], -1])
    if made_of == {tuple}:
        packed, likes = zip(*entries, strict=True)
        if likes.count(likes[0]) == len(likes):
            return _block(packed, [list(volumes), [likes[0][:2]], 0, {}, [likes[0].detail], 0])
    kinds: dict[tuple[str, str], int] = {}
    details: dict[int, tuple[int, Any]] = {}  # volumes of one template share theirs
    rare, numbers, kind, alike = {}, [], [], []
    for n, entry in enumerate(entries):
        what, key, path, detail = PLAIN, None, None, None
        if isinstance(entry, VolumeInfo):
            what, (key, path, detail) = entry[1:3], entry[14:]
            entry = _numbers(entry)
        elif isinstance(entry, tuple):
            entry, like = entry
            what, detail = like[:2], like.detail
        numbers.append(entry)
        kind.append(kinds.setdefault(what, len(kinds)))
        place = None if detail is None else details.setdefault(id(detail), (len(details), detail))[0]
        alone = key is not None or path is not None
        if alone:
            rare[n] = (key, path, place)
        alike.append(-1 if alone or place is None else place)
    told = [detail for _, detail in details.values()]
    return _block(numbers, [list(volumes), list(kinds), _once(kind), rare, told, _once(alike)])


def _block(numbers: Collection[bytes], words: list[Any]) -> bytes:
    return seal(b"".join([_COUNT.pack(len(numbers)), *numbers, _encode(words).encode("ascii")]))


def _once(found: list[int]) -> list[int] | int:
    return found[0] if found and found.count(found[0]) == len(found) else found


def packed(volume: VolumeInfo) -> Entry:
    """A volume as ``encode`` is fastest with it: one of which the numbers are all there is to say as those."""
    return _numbers(volume) if volume[1:3] == PLAIN and volume[14:] == _NOTHING else volume


def _numbers(volume: VolumeInfo) -> bytes:
    try:
        return NUMBERS.pack(*volume[3:14])
    except struct.error:
        # A size that a header claims beyond what a file can have, or an inode number with the highest bit set.
        return NUMBERS.pack(*map(_signed, volume[3:14]))


_NOTHING = (None, None, None)


def decode(block: bytes) -> Iterator[VolumeInfo]:
    """The volumes of a block; ``Damaged``."""
    block = _content(block)
    words = _words(block)
    for n in range(len(words[0])):
        yield _volume(n, words, block)


def names(block: bytes) -> list[str]:
    """The names of a block, in order; ``Damaged``."""
    found: list[str] = _words(_content(block))[0]
    return found


def entries(block: bytes) -> dict[str, Entry]:
    """The volumes of a block by name, as they are stored where they have no key and no path; ``Damaged``."""
    block = _content(block)
    return _entries(block, _words(block))


def _entries(block: bytes, words: Sequence[Any]) -> dict[str, Entry]:
    names, kinds, kind, rare, told, alike = words
    places = range(_COUNT.size, _place(len(names)), NUMBERS.size)
    numbers = [block[place : place + NUMBERS.size] for place in places]
    if isinstance(kind, int) and isinstance(alike, int) and not rare:
        if alike >= 0:
            return dict(zip(names, zip(numbers, repeat(Like._make((*kinds[kind], told[alike])))), strict=False))
        if tuple(kinds[kind]) == PLAIN:
            return dict(zip(names, numbers, strict=True))
    found: dict[str, Entry] = {}
    likes: dict[tuple[int, int], Like] = {}
    for n, name in enumerate(names):
        of, at = _of(kind, n), _of(alike, n)
        if at >= 0:
            found[name] = numbers[n], likes.setdefault((of, at), Like._make((*kinds[of], told[at])))
        else:
            plain = tuple(kinds[of]) == PLAIN and str(n) not in rare
            found[name] = numbers[n] if plain else _volume(n, words, block)
    return found


def outline(block: bytes) -> tuple[dict[str, int], dict[str, VolumeInfo], list[Alike]]:
    """What is known of the volumes of a block; ``Damaged``.

    That is the stamps of all by name, those of which more is known than numbers, and those of these that are alike.
    """
    block = _content(block)
    words = _words(block)
    names, kind, rare, alike = words[0], words[2], words[3], words[5]
    stamps = dict(zip(names, _stamps(len(names)).unpack_from(block, _COUNT.size), strict=True))
    told = {names[int(n)]: _volume(int(n), words, block) for n in rare}
    if alike == -1:
        return stamps, told, []
    found = _entries(block, words)
    if isinstance(alike, int) and isinstance(kind, int) and not rare:
        numbers, likes = zip(*found.values(), strict=True)
        return stamps, told, [Alike(likes[0], dict(zip(names, numbers, strict=True)))]
    groups: dict[int, Alike] = {}
    for name, entry in found.items():
        if isinstance(entry, tuple) and not isinstance(entry, VolumeInfo):
            own, like = entry
            groups.setdefault(id(like), Alike(like, {})).numbers[name] = own
    for one in groups.values():
        if len(one.numbers) == 1:
            told |= {name: one.like.volume(name, own) for name, own in one.numbers.items()}
    return stamps, told, [one for one in groups.values() if len(one.numbers) > 1]


@lru_cache(maxsize=32)
def _stamps(count: int) -> struct.Struct:
    """The fourth of the eleven numbers of each volume."""
    return struct.Struct("<" + "24xq56x" * count)


def find(block: bytes, name: str) -> VolumeInfo | None:
    """One volume of a block by name, without making the others; ``Damaged``."""
    block = _content(block)
    words = _words(block)
    try:
        n = words[0].index(name)
    except ValueError:
        return None
    return _volume(n, words, block)


def split(volumes: Mapping[str, Entry]) -> Iterator[dict[str, Entry]]:
    """Volumes in pieces of a block's size, sorted by name."""
    names = sorted(volumes)
    for start in range(0, len(names), SIZE):
        yield {name: volumes[name] for name in names[start : start + SIZE]}


def _place(n: int) -> int:
    """Where the numbers of the volume ``n`` begin."""
    return _COUNT.size + n * NUMBERS.size


def _words(block: bytes) -> list[Any]:
    """The names, and what else ``_volume`` needs."""
    found: list[Any] = loads(block[_place(_COUNT.unpack_from(block)[0]) :])
    if len(found) == _EARLIER:
        rare = found[3]
        alike = [-1] * len(found[0])
        for n in [n for n, (key, path, _) in rare.items() if key is None and path is None]:
            alike[int(n)] = rare.pop(n)[2]
        found.append(_once(alike))
    return found


def _of(found: list[int] | int, n: int) -> int:
    """The number that is said of the volume ``n``, or of all."""
    return found if isinstance(found, int) else found[n]


def _volume(n: int, words: Sequence[Any], block: bytes) -> VolumeInfo:
    names, kinds, kind, rare, told, alike = words
    type, format = kinds[_of(kind, n)]
    key, path, detail = rare.get(str(n), _NOTHING) if rare else _NOTHING
    if (at := _of(alike, n) if detail is None else detail) >= 0:
        detail = told[at]
    numbers = NUMBERS.unpack_from(block, _place(n))
    if numbers[4] < 0:
        numbers = (*numbers[:4], numbers[4] + 2 * _LIMIT, *numbers[5:])  # inode numbers are unsigned
    return VolumeInfo._make((names[n], type, format, *numbers, key, path, detail))


def _signed(number: int) -> int:
    if number >= 2 * _LIMIT:
        return _LIMIT - 1
    return number - 2 * _LIMIT if number >= _LIMIT else number
