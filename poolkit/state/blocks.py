"""The blocks of a pool's listing in the inventory: rows of 256 volumes, sorted by name, of which a change rewrites few.

A block is found by its first name. All functions work within the transaction that the caller has begun.
"""

from __future__ import annotations

from poolkit.later import later
from poolkit.lean import TYPE_CHECKING, NamedTuple
from poolkit.listing import Alike

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Any, TypeVar

    from poolkit.backend import VolumeInfo
    from poolkit.state import packing
    from poolkit.state.packing import Entry

    T = TypeVar("T")
    Rows = Callable[[str, Sequence[Any]], Iterable[Any]]
else:
    packing = later(globals(), "packing", "poolkit.state.packing")


class Outline(NamedTuple):
    """What a refresh needs of the last listing: all stamps, the volumes that have more than numbers, the damaged blocks.

    Those are told one by one, or together by what they are like.
    """

    stamps: dict[str, int]
    told: dict[str, VolumeInfo]
    damaged: dict[int, bytes]
    alike: dict[str, Alike]


def outline(rows: Iterable[tuple[int, bytes]]) -> Outline:
    """The outline of blocks, given by number."""
    found = Outline({}, {}, {}, {})
    for number, block in rows:
        try:
            stamps, told, alike = packing.outline(block)
        except packing.Damaged:
            found.damaged[number] = block
        else:
            found.stamps.update(stamps)
            found.told.update(told)
            for one in alike:
                found.alike.setdefault(one.like.key(), Alike(one.like, {})).numbers.update(one.numbers)
    return found


PAGE = 64
"""Blocks that are read at once of a listing that is walked: about 2 MB."""

"""Runs a query and has all its rows, so that nobody who writes waits for the reader."""

# A page begins with the block that holds the last name of the one before: blocks may be divided and joined meanwhile.
_PAGE = """SELECT volumes FROM blocks WHERE pool = ? AND first >= coalesce(
    (SELECT max(first) FROM blocks WHERE pool = ? AND first <= ?), '') ORDER BY first LIMIT ?"""


def walk(rows: Rows, pool: int, unpacked: Callable[[bytes], list[T]], name: Callable[[T], str]) -> Iterator[list[T]]:
    """What ``unpacked`` has of each block, by name and in portions, with few in memory at any time; ``packing.Damaged``.

    What is there all the while comes exactly once, whatever others put into the listing or drop from it.
    """
    after = ""
    while True:
        page = [block for (block,) in rows(_PAGE, (pool, pool, after, PAGE))]
        for block in page:
            found = unpacked(block)
            if block is page[0]:
                found = [one for one in found if name(one) > after]
            if found:
                after = name(found[-1])
                yield found
        if len(page) < PAGE:
            return


def near(rows: Rows, pool: int, name: str, count: int) -> Iterator[bytes]:
    """The ``count`` blocks before the place of a name in the order, and as many from there on."""
    query = "SELECT volumes FROM blocks WHERE pool = ? AND first"
    for half in ("<= ? ORDER BY first DESC", "> ? ORDER BY first"):
        for (block,) in rows(f"{query} {half} LIMIT ?", (pool, name, count)):
            yield block


def store(db: sqlite3.Connection, pool: int, fresh: Mapping[str, Entry], missing: Collection[str]) -> None:
    """Bring the blocks in step: ``fresh`` is new or changed, ``missing`` was there before; ``packing.Damaged``."""
    from bisect import bisect_right  # who only reads needs none

    firsts = [first for (first,) in db.execute("SELECT first FROM blocks WHERE pool = ? ORDER BY first", (pool,))]
    mine: dict[
        int, tuple[dict[str, Entry], set[str]]
    ] = {}  # what is put into a block and dropped from it, by its place
    for name, entry in fresh.items() if firsts else ():
        mine.setdefault(max(bisect_right(firsts, name) - 1, 0), ({}, set()))[0][name] = entry
    for name in missing if firsts else ():
        mine.setdefault(max(bisect_right(firsts, name) - 1, 0), ({}, set()))[1].add(name)
    if len(mine) * 2 < len(firsts):
        for place, (put, drop) in mine.items():
            _edit(db, pool, firsts[place], put, drop)
        return
    whole: dict[str, Entry] = {}
    for (block,) in db.execute("SELECT volumes FROM blocks WHERE pool = ?", (pool,)):
        whole.update(packing.entries(block))
    for name in missing:
        whole.pop(name, None)
    db.execute("DELETE FROM blocks WHERE pool = ?", (pool,))
    _insert(db, pool, {**whole, **fresh} if whole else fresh)


def put(db: sqlite3.Connection, pool: int, info: VolumeInfo) -> None:
    """Store one volume; ``packing.Damaged``."""
    first = _first(db, pool, info.name)
    if first is None:
        _insert(db, pool, {info.name: packing.packed(info)})
    else:
        _edit(db, pool, first, {info.name: packing.packed(info)}, ())


def drop(db: sqlite3.Connection, pool: int, name: str) -> None:
    """Forget one volume; ``packing.Damaged``."""
    first = _first(db, pool, name)
    if first is not None:
        _edit(db, pool, first, {}, (name,))


def _first(db: sqlite3.Connection, pool: int, name: str) -> str | None:
    """The block a name belongs to: the last that begins at or before it, else the first of all."""
    where = "SELECT first FROM blocks WHERE pool = ?"
    row = db.execute(f"{where} AND first <= ? ORDER BY first DESC LIMIT 1", (pool, name)).fetchone()
    row = row or db.execute(f"{where} ORDER BY first LIMIT 1", (pool,)).fetchone()
    return None if row is None else str(row[0])


def _edit(db: sqlite3.Connection, pool: int, first: str, put: Mapping[str, Entry], drop: Collection[str]) -> None:
    """Change one block, which is split when it has grown too large."""
    row = db.execute("SELECT id, volumes FROM blocks WHERE pool = ? AND first = ?", (pool, first)).fetchone()
    inside = {**packing.entries(row[1]), **put}
    for name in drop:
        inside.pop(name, None)
    if inside and min(inside) == first and len(inside) < 2 * packing.SIZE:
        kept = {name: inside[name] for name in sorted(inside)}
        db.execute("UPDATE blocks SET volumes = ? WHERE id = ?", (packing.encode(kept), row[0]))
        return
    db.execute("DELETE FROM blocks WHERE id = ?", (row[0],))
    _insert(db, pool, inside)


def _insert(db: sqlite3.Connection, pool: int, volumes: Mapping[str, Entry]) -> None:
    db.executemany(
        "INSERT INTO blocks (pool, first, volumes) VALUES (?, ?, ?)",
        ((pool, next(iter(part)), packing.encode(part)) for part in packing.split(volumes)),
    )
