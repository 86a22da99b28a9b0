"""Listed volumes as blocks of bytes: 256 volumes a row of the inventory, because a row each costs more than the scan itself.

A block is a CRC-32 of all that follows it, the number of volumes (both 32 bits, little-endian), eleven 64-bit numbers for each,
then JSON with the names and what else is not a number.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache, partial

from poolkit.backend import VolumeInfo
from poolkit.lean import TYPE_CHECKING, dumps, loads
from poolkit.listing import NUMBERS, PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any


SIZE = 256
"""Volumes in a new block; one that has grown to twice that is split."""

_COUNT = struct.Struct("<I")
_SUM = struct.Struct("<I")
_LIMIT = 1 << 63
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


Entry = VolumeInfo | bytes
"""A volume, or the packed numbers of one that is plain: see ``poolkit.listing``."""


def encode(volumes: Mapping[str, Entry]) -> bytes:
    """One block of volumes by name, in their order; ``detail`` must be JSON values."""
    if set(map(type, volumes.values())) == {bytes}:
        words = _encode([list(volumes), [PLAIN], 0, {}, []])
        return seal(b"".join([_COUNT.pack(len(volumes)), *volumes.values(), words.encode("ascii")]))  # type: ignore[list-item]
    numbers = b"".join([v if isinstance(v, bytes) else _numbers(v) for v in volumes.values()])
    kinds: dict[tuple[str, str], int] = {}
    kind = [kinds.setdefault(PLAIN if isinstance(v, bytes) else v[1:3], len(kinds)) for v in volumes.values()]
    details: dict[int, tuple[int, Any]] = {}  # volumes of one template share theirs
    rare = {
        n: (v[14], v[15], None if v[16] is None else details.setdefault(id(v[16]), (len(details), v[16]))[0])
        for n, v in enumerate(volumes.values())
        if not isinstance(v, bytes) and v[14:] != _NOTHING
    }
    told = [detail for _, detail in details.values()]
    words = _encode([list(volumes), list(kinds), kind if len(kinds) > 1 else 0, rare, told])
    return seal(_COUNT.pack(len(volumes)) + numbers + words.encode("ascii"))


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
    names, *words = _words(block)
    for n, name in enumerate(names):
        yield _volume(n, name, words, NUMBERS.unpack_from(block, _place(n)))


def names(block: bytes) -> list[str]:
    """The names of a block, in order; ``Damaged``."""
    found: list[str] = _words(_content(block))[0]
    return found


def entries(block: bytes) -> dict[str, Entry]:
    """The volumes of a block by name, plain ones as they are stored; ``Damaged``."""
    block = _content(block)
    names, *words = _words(block)
    kinds, kind, rare, _ = words
    if not kind and not rare and kinds and tuple(kinds[0]) == PLAIN:
        places = range(_COUNT.size, _place(len(names)), NUMBERS.size)
        return {name: block[place : place + NUMBERS.size] for name, place in zip(names, places, strict=True)}
    plain = [tuple(k) == PLAIN for k in kinds]
    return {
        name: block[_place(n) : _place(n + 1)]
        if plain[kind[n] if kind else 0] and str(n) not in rare
        else _volume(n, name, words, NUMBERS.unpack_from(block, _place(n)))
        for n, name in enumerate(names)
    }


def outline(block: bytes) -> tuple[dict[str, int], dict[str, VolumeInfo]]:
    """The stamps of the volumes of a block by name, and those volumes of which more than numbers is known; ``Damaged``."""
    block = _content(block)
    names, *words = _words(block)
    stamps = dict(zip(names, _stamps(len(names)).unpack_from(block, _COUNT.size), strict=True))
    told = {}
    for key in words[2]:
        n = int(key)
        told[names[n]] = _volume(n, names[n], words, NUMBERS.unpack_from(block, _place(n)))
    return stamps, told


@lru_cache(maxsize=32)
def _stamps(count: int) -> struct.Struct:
    """The fourth of the eleven numbers of each volume."""
    return struct.Struct("<" + "24xq56x" * count)


def find(block: bytes, name: str) -> VolumeInfo | None:
    """One volume of a block by name, without making the others; ``Damaged``."""
    block = _content(block)
    names, *words = _words(block)
    try:
        n = names.index(name)
    except ValueError:
        return None
    return _volume(n, name, words, NUMBERS.unpack_from(block, _place(n)))


def split(volumes: Mapping[str, Entry]) -> Iterator[dict[str, Entry]]:
    """Volumes in pieces of a block's size, sorted by name."""
    names = sorted(volumes)
    for start in range(0, len(names), SIZE):
        yield {name: volumes[name] for name in names[start : start + SIZE]}


def _place(n: int) -> int:
    """Where the numbers of the volume ``n`` begin."""
    return _COUNT.size + n * NUMBERS.size


def _words(block: bytes) -> list[Any]:
    """The names, and what ``_volume`` needs."""
    found: list[Any] = loads(block[_place(_COUNT.unpack_from(block)[0]) :])
    return found


def _volume(n: int, name: str, words: Sequence[Any], numbers: tuple[int, ...]) -> VolumeInfo:
    kinds, kind, rare, told = words
    type, format = kinds[kind[n] if kind else 0]
    key, path, detail = rare.get(str(n), _NOTHING) if rare else _NOTHING
    if detail is not None:
        detail = told[detail]
    if numbers[4] < 0:
        numbers = (*numbers[:4], numbers[4] + 2 * _LIMIT, *numbers[5:])  # inode numbers are unsigned
    return VolumeInfo._make((name, type, format, *numbers, key, path, detail))


def _signed(number: int) -> int:
    if number >= 2 * _LIMIT:
        return _LIMIT - 1
    return number - 2 * _LIMIT if number >= _LIMIT else number
