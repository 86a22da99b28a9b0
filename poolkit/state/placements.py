"""What flavors have placed where, what is reserved for volumes that are being made, and which backends are broken."""

from __future__ import annotations

import time

from poolkit.lean import TYPE_CHECKING, NamedTuple
from poolkit.state.database import signed, unsigned

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Mapping

    from poolkit.backend import VolumeInfo
    from poolkit.state.database import Database

TABLE = """
CREATE TABLE placements (pool INTEGER NOT NULL, name TEXT NOT NULL, flavor TEXT NOT NULL, inode INTEGER NOT NULL, key TEXT,
    PRIMARY KEY (pool, name)) WITHOUT ROWID;
CREATE TABLE reservations (id TEXT PRIMARY KEY, pool INTEGER NOT NULL, name TEXT NOT NULL, pid INTEGER NOT NULL,
    capacity INTEGER NOT NULL, allocation INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE turns (flavor TEXT PRIMARY KEY, pool TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE broken (pool INTEGER PRIMARY KEY, why TEXT NOT NULL, at REAL NOT NULL);
"""
_PROMISED = "SELECT pool, sum(capacity), sum(allocation) FROM reservations GROUP BY pool"

_VERSION = "SELECT version FROM pools WHERE id = ?"


class Placement(NamedTuple):
    """A volume on its way: the flavor it is made through, and the reservation that ends when it is listed.

    ``pools`` are the backends of the flavor. Each attempt of one call has the same reservation, one after the other.
    """

    flavor: str
    reservation: str
    pools: tuple[str, ...] = ()


class Promised(NamedTuple):
    """What is reserved in a pool for volumes that are being made: bytes of capacity, and of space."""

    capacity: int = 0
    allocation: int = 0


def _promised(rows: Iterable[tuple[int, int, int]]) -> dict[int, Promised]:
    return {pool: Promised(capacity, allocation) for pool, capacity, allocation in rows}


def _as_seen(row: Callable[[str, tuple[int]], tuple[int] | None], seen: Mapping[int, int]) -> bool:
    return all(row(_VERSION, (number,)) == (version,) for number, version in seen.items())


def settle(db: sqlite3.Connection, pool: int, info: VolumeInfo, placed: Placement) -> None:
    """The volume is listed from now on: its reservation ends in the same transaction."""
    db.execute("DELETE FROM reservations WHERE id = ?", (placed.reservation,))
    values = (pool, info.name, placed.flavor, signed(info.inode), info.key)
    db.execute("INSERT OR REPLACE INTO placements VALUES (?, ?, ?, ?, ?)", values)


def forget(db: sqlite3.Connection, pool: int, name: str) -> None:
    """The volume is gone."""
    db.execute("DELETE FROM placements WHERE pool = ? AND name = ?", (pool, name))


class Ledger:
    """The tables of one inventory. All methods may raise ``HostError``."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def promised(self) -> dict[int, Promised]:
        """What is reserved, by the number of the pool."""
        return _promised(self._db.rows(_PROMISED))

    def reserve(
        self, placed: Placement, pool: tuple[int, str], name: str, pid: int, sizes: tuple[int, int],
        seen: Mapping[int, int], promised: Mapping[int, Promised],
    ) -> bool:  # fmt: skip
        """Reserve capacity and space in a pool (number, name); False, and nothing, if anything that was seen has changed.

        ``seen`` has the versions of the listings that the choice was made from, ``promised`` the reservations.
        """
        with self._db.transaction() as db:
            if (
                not _as_seen(lambda *ask: db.execute(*ask).fetchone(), seen)
                or _promised(db.execute(_PROMISED)) != promised
            ):
                return False
            db.execute(
                "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?)", (placed.reservation, pool[0], name, pid, *sizes)
            )
            db.execute("INSERT OR REPLACE INTO turns VALUES (?, ?)", (placed.flavor, pool[1]))
        return True

    def unchanged(self, seen: Mapping[int, int], promised: Mapping[int, Promised]) -> bool:
        """Whether what was seen, as for :meth:`reserve`, is so still."""
        return _as_seen(self._db.row, seen) and self.promised() == promised

    def release(self, reservation: str) -> None:
        """End a reservation whose volume was not made. Repeatable."""
        with self._db.transaction() as db:
            db.execute("DELETE FROM reservations WHERE id = ?", (reservation,))

    def reconcile(self, alive: Callable[[], Collection[tuple[str, int]]], mine: str) -> None:
        """End reservations of the dead: ``alive`` tells name and process of all placing under way; none is of ``mine``, yet."""
        rows = self._db.rows("SELECT id, name, pid FROM reservations")
        # Asked afterwards: who had reserved by then is alive still, or needs it no more.
        there = alive() if rows else ()
        dead = [ident for ident, name, pid in rows if name == mine or (name, pid) not in there]
        if dead:
            with self._db.transaction() as db:
                db.executemany("DELETE FROM reservations WHERE id = ?", ((ident,) for ident in dead))

    def last(self, flavor: str) -> str:
        """The pool that the flavor's last volume went to; empty for none."""
        row = self._db.row("SELECT pool FROM turns WHERE flavor = ?", (flavor,))
        return row[0] if row else ""

    def set_broken(self, pool: int, why: str) -> None:
        """Note that a backend refused the login: it is not tried again until it was refreshed or started."""
        with self._db.transaction() as db:
            db.execute("INSERT OR REPLACE INTO broken VALUES (?, ?, ?)", (pool, why, time.time()))

    def broken(self, pool: int) -> str:
        """Why a backend is broken; empty if it is not, or was refreshed or started since."""
        query = (
            "SELECT why FROM broken JOIN pools ON pools.id = broken.pool "
            "WHERE broken.pool = ? AND max(coalesce(refreshed, 0), coalesce(started, 0)) <= at"
        )
        row = self._db.row(query, (pool,))
        return row[0] if row else ""

    def placed(self, flavor: str) -> list[tuple[int, str, int, str | None]]:
        """Pool, name, inode and key of the volumes that were placed through a flavor, by name."""
        query = "SELECT pool, name, inode, key FROM placements WHERE flavor = ? ORDER BY name, pool"
        return [(pool, name, unsigned(inode), key) for pool, name, inode, key in self._db.rows(query, (flavor,))]
