"""The blocks of a pool's listing in the inventory: rows of 256 volumes, sorted by name, of which a change rewrites few.

A block is found by its first name. All functions work within the transaction that the caller has begun.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import chain
from operator import itemgetter

from poolkit.backend import VolumeInfo
from poolkit.state import packing

_name = itemgetter(0)


def readable(found: Sequence[bytes]) -> tuple[dict[str, VolumeInfo], list[bytes]]:
    """The volumes of the sound blocks by name, and the blocks that are damaged."""
    volumes: dict[str, VolumeInfo] = {}
    damaged = []
    for block in found:
        try:
            volumes.update((v[0], v) for v in packing.decode(block))
        except packing.Damaged:
            damaged.append(block)
    return volumes, damaged


def store(
    db: sqlite3.Connection,
    pool: int,
    listing: dict[str, VolumeInfo],
    changed: Sequence[VolumeInfo],
    missing: Sequence[str],
) -> None:
    """Bring the blocks in step with ``listing``, of which ``changed`` is new and ``missing`` was there before."""
    firsts = [first for (first,) in db.execute("SELECT first FROM blocks WHERE pool = ? ORDER BY first", (pool,))]
    touched = {max(bisect_right(firsts, n) - 1, 0) for n in chain((v[0] for v in changed), missing)}
    if len(touched) * 2 >= len(firsts):
        db.execute("DELETE FROM blocks WHERE pool = ?", (pool,))
        _insert(db, pool, sorted(listing.values(), key=_name))
        return
    gone = frozenset(missing)
    for index in touched:
        last = firsts[index + 1] if index + 1 < len(firsts) else None
        first = firsts[index] if index else ""
        mine = [v for v in changed if v[0] >= first and (last is None or v[0] < last)]
        _edit(db, pool, firsts[index], {v[0]: v for v in mine}, gone)


def put(db: sqlite3.Connection, pool: int, info: VolumeInfo) -> None:
    """Store one volume; ``packing.Damaged``."""
    first = _first(db, pool, info.name)
    if first is None:
        _insert(db, pool, [info])
    else:
        _edit(db, pool, first, {info.name: info}, ())


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


def _edit(db: sqlite3.Connection, pool: int, first: str, put: dict[str, VolumeInfo], drop: Collection[str]) -> None:
    """Change one block, which is split when it has grown too large."""
    row = db.execute("SELECT id, volumes FROM blocks WHERE pool = ? AND first = ?", (pool, first)).fetchone()
    inside = {v[0]: v for v in packing.decode(row[1])}
    inside.update(put)
    kept = sorted((v for n, v in inside.items() if n not in drop), key=_name)
    if kept and kept[0][0] == first and len(kept) < 2 * packing.SIZE:
        db.execute("UPDATE blocks SET volumes = ? WHERE id = ?", (packing.encode(kept), row[0]))
        return
    db.execute("DELETE FROM blocks WHERE id = ?", (row[0],))
    _insert(db, pool, kept)


def _insert(db: sqlite3.Connection, pool: int, volumes: Sequence[VolumeInfo]) -> None:
    db.executemany(
        "INSERT INTO blocks (pool, first, volumes) VALUES (?, ?, ?)",
        ((pool, part[0][0], packing.encode(part)) for part in packing.split(volumes)),
    )
