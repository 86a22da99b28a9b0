"""cloop, Knoppix's compressed loop image (QEMU's ``block/cloop.c``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolkit.formats._info import ImageInfo, Malformed, Reader, need, size_of

if TYPE_CHECKING:
    from poolkit.formats.tables import Walk

_MAX_BLOCK = 64 << 20
_MAX_BLOCKS = 0x1FFFFFFF


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from the two numbers after the 128 bytes of script; the size is a whole number of blocks."""
    need(head, 136, "cloop header")
    block = int.from_bytes(head[128:132], "big")
    blocks = int.from_bytes(head[132:136], "big")
    if not block or block % 512 or block > _MAX_BLOCK:
        raise Malformed(f"blocks of {block} bytes (a multiple of 512, 64 MiB at most)")
    if blocks > _MAX_BLOCKS:
        raise Malformed(f"{blocks} blocks ({_MAX_BLOCKS} at most)")
    info.cluster_size = block
    info.capacity = size_of(block * blocks)
    info.note("read-only; the size is that of the source rounded up to whole blocks")


def tables(walk: Walk, head: bytes, info: ImageInfo) -> None:
    """The table of where each block begins; its last entry is where the last block ends."""
    blocks = int.from_bytes(head[132:136], "big")
    for piece in walk.numbers("the table of blocks", 136, blocks + 1, 8, "big"):
        walk.inside("a block", 0, max(piece))
