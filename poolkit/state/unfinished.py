"""Volumes of which only a part was written: by work in place that was broken off. The mark outlives the pool and its listing."""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING, NamedTuple, dumps

if TYPE_CHECKING:
    import sqlite3
    from typing import Any

    from poolkit.backend import Transfer
    from poolkit.state.database import Database

TABLE = """
CREATE TABLE unfinished (
    key TEXT PRIMARY KEY, identity TEXT NOT NULL, doing TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER) WITHOUT ROWID;
"""

_END = (1 << 63) - 1  # what SQLite can hold, and no volume has more bytes


class Mark(NamedTuple):
    """What was being done to a volume, as a participle, and the bytes that it may have reached: from ``start`` to ``stop``.

    ``identity`` tells the volume from another one that gets its key. ``stop`` is None where the end was not known.
    """

    identity: str
    doing: str
    start: int = 0
    stop: int | None = None

    @classmethod
    def of(cls, identity: Any, doing: str, transfer: Transfer) -> Mark:
        """The mark of work that is about to begin; ``identity`` is what the backend says."""
        stop = min(transfer.offset + transfer.length, _END) if transfer.length else None
        return cls(told(identity), doing, transfer.offset, stop)

    def joined(self, older: Mark | None) -> Mark:
        """This mark with what an ``older`` one of the same volume still says."""
        if older is None or older.identity != self.identity:
            return self
        stop = None if self.stop is None or older.stop is None else max(self.stop, older.stop)
        return self._replace(start=min(self.start, older.start), stop=stop)

    def ended_by(self, work: Mark, capacity: int) -> bool:
        """Whether ``work``, which came to its end, has written all that this one may have left undone.

        Of work whose length nobody had said it is taken that it was all there is to write.
        """
        if work.identity != self.identity:
            return True
        return work.start <= self.start and (work.stop is None or work.stop >= min(self.stop or capacity, capacity))


def told(identity: Any) -> str:
    """What a backend says of a volume's identity, as text."""
    return dumps(identity, default=str)


def drop(db: sqlite3.Connection, key: str) -> None:
    """Take a volume's mark away, if there is one, within the transaction that is open."""
    db.execute("DELETE FROM unfinished WHERE key = ?", (key,))


class Unfinished:
    """The marks of one inventory, by the volumes' keys. All methods may raise ``HostError``."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def all(self) -> dict[str, Mark]:
        """Every mark."""
        rows = self._db.rows("SELECT key, identity, doing, start, stop FROM unfinished")
        return {key: Mark(*rest) for key, *rest in rows}

    def get(self, key: str) -> Mark | None:
        """The mark of one volume."""
        row = self._db.row("SELECT identity, doing, start, stop FROM unfinished WHERE key = ?", (key,))
        return None if row is None else Mark(*row)

    def put(self, key: str, mark: Mark) -> None:
        """Store a mark, durably, in the place of the volume's last one."""
        with self._db.transaction() as db:
            db.execute("INSERT OR REPLACE INTO unfinished VALUES (?, ?, ?, ?, ?)", (key, *mark))

    def drop(self, key: str) -> bool:
        """Take a volume's mark away; whether there was one. Nothing is written where there is none."""
        if self.get(key) is None:
            return False
        with self._db.transaction() as db:
            drop(db, key)
        return True
