"""The quick way through qcow2 images for listings: those of which a few reads say all, and that nothing of them is missing.

Of ten thousand overlays nearly all begin with the same KiB but for sizes and places, so what that says is found out once. What is
in any way unusual, or may be damaged, is left to the full way: no answer here says anything of an image.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from os import POSIX_FADV_WILLNEED, posix_fadvise, pread
from struct import Struct, unpack

from poolkit import formats
from poolkit.formats import QCOW2_V3, START, listed
from poolkit.formats._info import HEAD, MAX_SIZE, ImageInfo
from poolkit.formats.qcow2 import FEW, NEXT, SMALL

# What stands before the size, size, encryption, entries and place of the first level, place and clusters of the reference
# counts, snapshots and their place, all the rest.
_START = Struct(f">24sQIIQQIIQ{START - 72}s").unpack_from
_VDI = 0x7F10DABE


class Usual:
    """What sound qcow2 images have in common whose first KiB differs in nothing but sizes and places.

    ``image`` is what the header says, without a capacity. It is shared, and must not be changed.
    """

    __slots__ = ("cluster", "image", "order", "reach")

    def __init__(self, image: ImageInfo, cluster: int, order: int) -> None:
        self.image = image
        self.cluster = cluster
        self.order = order
        self.reach = cluster * 8 >> order  # clusters that a block of reference counts counts


class _Beyond(Exception):
    """More than the first KiB of an image is needed."""


class _Start:
    """A reader that has nothing beyond what was read already."""

    size = 1 << 62

    def pread(self, length: int, offset: int) -> bytes:
        """Nothing: the file itself must be asked."""
        raise _Beyond


@lru_cache(maxsize=256)
def _usual(before: bytes, after: bytes) -> Usual | None:
    """What is said by all of the first KiB that does not differ; None where that is not all, or not sound."""
    head = before + bytes(48) + after
    info = ImageInfo("qcow2")
    try:
        formats.fill(_Start(), head, info)
    except _Beyond:
        return None
    if info.error is not None or info.notes or info.encryption is not None or info.cluster_size is None:
        return None
    return Usual(info, info.cluster_size, head[99])


class _Plan:
    """Where an image with a certain first KiB has its tables, and what it is if nothing of it is missing."""

    __slots__ = ("answer", "blocks", "cluster", "counts", "end", "first", "length", "order", "reach")

    def __init__(self, usual: Usual, capacity: int, first: int, count: int, counts: int, clusters: int) -> None:
        self.answer = usual, capacity
        self.cluster, self.order, self.reach = usual.cluster, usual.order, usual.reach
        self.first, self.length = first, count * 8
        self.counts, self.blocks = counts, clusters * usual.cluster // 8
        self.end = max(first + self.length, counts + clusters * usual.cluster)


def _plan(start: bytes) -> _Plan | None:
    """The plan for images that begin like this; None where they are to be looked at in full."""
    before, capacity, encrypted, count, first, counts, clusters, snapshots, place, after = _START(start)
    if encrypted or snapshots or capacity & 511 or capacity > MAX_SIZE or place >> 32 == _VDI:
        return None
    usual = _usual(before, after)
    if usual is None or count > SMALL or clusters > FEW:
        return None
    return _Plan(usual, capacity, first, count, counts, clusters)


_LAST: list[tuple[bytes, _Plan | None]] = [(b"", None)]
"""The last plan: copies of one image often follow each other, and bytes are compared in a tenth of the time of what is above."""

_UNUSED = bytes(NEXT * 2)


def _ask(fd: int, size: int, *places: tuple[int, int]) -> None:
    """Have the kernel ask for what is read next of a file; see ``formats.ask_ahead``."""
    for offset, length in places:
        with suppress(OSError):
            if 0 < length <= SMALL * 8 and HEAD <= offset < size:
                posix_fadvise(fd, offset, length, POSIX_FADV_WILLNEED)


def glance(fd: int, size: int, *, ahead: bool = False) -> ImageInfo | tuple[Usual, int] | None:
    """As ``formats.listed``, but of a usual qcow2 image of which nothing is missing what it is like, and its capacity.

    What ``formats.check`` finds missing in a listing is found missing here: then, and where it cannot be told, the answer is that
    of ``formats.listed``. Of a usual image it takes five reads, of at most 4 KiB each. ``ahead``: the kernel is told of two of
    them as soon as it is known where they are, so that they wait together.
    """
    start = pread(fd, START, 0)
    if start.startswith(QCOW2_V3) and len(start) == START:
        found = _usual_image(fd, size, start, ahead)
        if found is not None:
            return found
    return listed(fd, size, start)


def _usual_image(fd: int, size: int, start: bytes, ahead: bool) -> tuple[Usual, int] | None:
    """What a usual image is like, and its capacity; None says nothing."""
    last = _LAST[0]  # at once: other threads may put another there
    if last[0] != start:
        last = _LAST[0] = start, _plan(start)
    plan = last[1]
    if plan is None or size < plan.end:
        return None
    cluster = plan.cluster
    block, number = divmod(-(-size // cluster), plan.reach)
    if ahead:
        _ask(fd, size, (plan.counts + block * 8, 8), (plan.first, plan.length))
    if size > 32774 and pread(fd, 5, 32769) == b"CD001":
        return None
    # What follows is qcow2.counts_beyond and qcow2.plain: whether anything is missing.
    if block < plan.blocks:
        entry = pread(fd, 8, plan.counts + block * 8)
        at = int.from_bytes(entry, "big") & ~0x1FF
        if len(entry) < 8 or at >= size:
            return None
        if at:
            begin = number << plan.order >> 3
            wanted = min(NEXT << plan.order >> 3, cluster - begin)
            found = pread(fd, wanted, at + begin)
            if len(found) < wanted or (found != _UNUSED and found.count(0) != wanted):
                return None
    length = plan.length
    entries = pread(fd, length, plan.first)
    if len(entries) < length:
        return None
    if entries.count(0) != length:
        # Flags are in the highest byte, and in bits that are too low to matter: whom they make look cut is looked at closely.
        places = bytearray(entries)
        places[::8] = bytes(length // 8)
        if max(unpack(f">{length // 8}Q", places)) + cluster > size:
            return None
    return plan.answer
