"""Listed volumes as blocks of bytes: 256 volumes a row of the inventory, because a row each costs more than the scan itself.

A block is a CRC-32 of all that follows it, the number of volumes (both 32 bits, little-endian), eleven 64-bit numbers for each,
then JSON with the names and what else is not a number.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from poolkit.backend import VolumeInfo

SIZE = 256
"""Volumes in a new block; one that has grown to twice that is split."""

_COUNT = struct.Struct("<I")
_SUM = struct.Struct("<I")
_WIDTH = 11  # numbers of a volume: fields 3 (capacity) to 13 (ctime)
_LIMIT = 1 << 63
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


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


def encode(volumes: Sequence[VolumeInfo]) -> bytes:
    """One block; ``detail`` must be JSON values."""
    count = len(volumes)
    pack = struct.Struct(f"<{_WIDTH * count}q").pack
    try:
        numbers = pack(*chain.from_iterable([v[3:14] for v in volumes]))
    except struct.error:
        # A size that a header claims beyond what a file can have, or an inode number with the highest bit set.
        numbers = pack(*(_signed(n) for v in volumes for n in v[3:14]))
    kinds: dict[tuple[str, str], int] = {}
    kind = [kinds.setdefault(v[1:3], len(kinds)) for v in volumes]
    details: dict[int, tuple[int, Any]] = {}  # volumes of one template share theirs
    rare = {
        n: (key, path, details.setdefault(id(detail), (len(details), detail))[0] if detail is not None else None)
        for n, (key, path, detail) in enumerate([v[14:] for v in volumes])
        if detail is not None or key is not None or path is not None
    }
    told = [detail for _, detail in details.values()]
    words = _encode([[v[0] for v in volumes], list(kinds), kind if len(kinds) > 1 else 0, rare, told])
    return seal(_COUNT.pack(count) + numbers + words.encode("ascii"))


_PLAIN = (None, None, None)


def decode(block: bytes) -> Iterator[VolumeInfo]:
    """The volumes of a block; ``Damaged``."""
    block = _content(block)
    count, names, *words = _words(block)
    numbers = struct.unpack_from(f"<{_WIDTH * count}q", block, _COUNT.size)
    for n, name in enumerate(names):
        yield _volume(n, name, words, numbers[n * _WIDTH : (n + 1) * _WIDTH])


def find(block: bytes, name: str) -> VolumeInfo | None:
    """One volume of a block by name, without making the others; ``Damaged``."""
    block = _content(block)
    _, names, *words = _words(block)
    try:
        n = names.index(name)
    except ValueError:
        return None
    numbers = struct.unpack_from(f"<{_WIDTH}q", block, _COUNT.size + n * _WIDTH * 8)
    return _volume(n, name, words, numbers)


def split(volumes: Sequence[VolumeInfo]) -> Iterator[Sequence[VolumeInfo]]:
    """Sorted volumes in pieces of a block's size."""
    for start in range(0, len(volumes), SIZE):
        yield volumes[start : start + SIZE]


def _words(block: bytes) -> tuple[Any, ...]:
    """The number of volumes, their names, and what ``_volume`` needs."""
    count: int = _COUNT.unpack_from(block)[0]
    return (count, *json.loads(block[_COUNT.size + count * _WIDTH * 8 :]))


def _volume(n: int, name: str, words: Sequence[Any], numbers: tuple[int, ...]) -> VolumeInfo:
    kinds, kind, rare, told = words
    type, format = kinds[kind[n] if kind else 0]
    key, path, detail = rare.get(str(n), _PLAIN) if rare else _PLAIN
    if detail is not None:
        detail = told[detail]
    if numbers[4] < 0:
        numbers = (*numbers[:4], numbers[4] + 2 * _LIMIT, *numbers[5:])  # inode numbers are unsigned
    return VolumeInfo._make((name, type, format, *numbers, key, path, detail))


def _signed(number: int) -> int:
    if number >= 2 * _LIMIT:
        return _LIMIT - 1
    return number - 2 * _LIMIT if number >= _LIMIT else number
