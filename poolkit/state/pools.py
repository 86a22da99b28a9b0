"""What the inventory knows of pools: their records, what they claim, and which operations have ended."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

from poolkit import errors
from poolkit.lean import TYPE_CHECKING, NamedTuple
from poolkit.state.database import VERSION, Database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence


class Record(NamedTuple):
    """A pool as the inventory knows it. ``stamp`` is that of the definition file, None for a transient pool.

    ``real`` is the target path without symbolic links, and ``storage`` what tells the storage from another, both as they were
    when the pool was started. ``error`` is what is wrong with the definition file, ``trouble`` why the last refresh failed.
    """

    id: int
    name: str
    uuid: str
    type: str
    stamp: int | None
    target: str | None
    active: int
    boot: str | None
    live: str | None
    capacity: int
    allocation: int
    available: int
    started: float | None
    refreshed: float | None
    error: str | None
    trouble: str | None
    version: int
    real: str | None
    storage: str | None


_RECORD = ", ".join(Record._fields)

JOURNALS = "journal"
"""The folder of the journals, beside the inventory."""
MARKS = 64
"""Marks of operations that have ended which are kept: each new one asks for those beyond whether their journals are gone."""


def _bring_up_to_date(db: sqlite3.Connection, version: int) -> None:
    from poolkit.state import schema  # for the first verb of a root or a version alone

    schema.bring_up_to_date(db, version)


class Pools:
    """What the inventory knows of pools, and its file; see :class:`poolkit.state.inventory.Inventory`. ``HostError``."""

    def __init__(self, path: str, *, fault: Callable[[str], None] | None = None, keep: bool = True) -> None:
        self._db = Database(path, VERSION, _bring_up_to_date, fault=fault, keep=keep)
        self._ended: set[str] = set()  # operations whose marks are not needed any more

    @property
    def database(self) -> Database:
        """The file's connections, for other tables than those of pools and volumes."""
        return self._db

    @property
    def path(self) -> str:
        """The file."""
        return self._db.path

    @property
    def damaged(self) -> str | None:
        """Where a damaged inventory was set aside: while that file is there, recorded formats may be missing."""
        return self._db.damaged

    def make(self) -> None:
        """Make the file if it is not there: what changes anything begins so, and what only reads makes none."""
        self._db.make()

    def close(self) -> None:
        """Close the connections of all threads; repeatable."""
        self._ended.clear()  # marks that stay do no harm, and taking them away would cost as much as a verb stores
        self._db.close()

    @contextmanager
    def transaction(self, operation: str | None = None) -> Iterator[sqlite3.Connection]:
        """All or nothing; with ``operation`` its journal counts as complete from the same instant."""
        ended: tuple[str, ...] = ()
        try:
            with self._db.transaction() as db:
                yield db
                if operation is not None:
                    ended = tuple(self._ended)
                    self._clear_marks(db, [*ended, *self._old_marks(db)])
                    # Later than all others, also where the clock was set back.
                    db.execute(
                        "INSERT OR IGNORE INTO completed SELECT ?, max(?, coalesce(max(at), 0) + 1e-6) FROM completed",
                        (operation, time.time()),
                    )
        except errors.HostError:
            # SQLite's last step can fail after it has taken effect: what is stored counts, and must not be undone elsewhere.
            if operation is None or not self._stored(operation):
                raise
        self._ended.difference_update(ended)

    def _stored(self, operation: str) -> bool:
        try:
            return self.completed(operation)
        except errors.PoolkitError:
            return False

    def _old_marks(self, db: sqlite3.Connection) -> list[str]:
        """The marks of operations of long ago, by other processes, whose journals are gone."""
        query = "SELECT operation FROM completed ORDER BY at DESC LIMIT -1 OFFSET ?"
        folder = f"{os.path.dirname(self.path)}/{JOURNALS}"
        return [old for (old,) in db.execute(query, (MARKS,)) if not os.path.lexists(f"{folder}/{old}.journal")]

    @staticmethod
    def _clear_marks(db: sqlite3.Connection, operations: Iterable[str]) -> None:
        db.executemany("DELETE FROM completed WHERE operation = ?", ((operation,) for operation in operations))

    def completed(self, operation: str) -> bool:
        """Whether that operation ended well before its journal could be removed."""
        return self._db.row("SELECT 1 FROM completed WHERE operation = ?", (operation,)) is not None

    def forget_operation(self, operation: str) -> None:
        """Its journal is gone, so its mark may go: with the next transaction that makes one.

        One of its own would cost as much as what the verb stores.
        """
        self._ended.add(operation)

    # -- pools ------------------------------------------------------------------------------------------------

    def records(self) -> list[Record]:
        """All pools, by name."""
        return self._many("ORDER BY name")

    def on_directory(self, boot: str, inode: int) -> list[tuple[str, str, str]]:
        """Name, target path and type of the pools that were started since that boot on a directory of that inode number.

        It may be that of another file system: only the path tells. An index query, however many pools are active.
        """
        from poolkit.state import schema

        query = (
            f"SELECT name, target, type FROM pools WHERE active AND {schema.INODE} = json_extract(?, '$') AND boot = ?"  # noqa: S608
        )
        # As JSON has it: one of 64 bits is no integer of SQLite's.
        return self._db.rows(f"{query} AND target IS NOT NULL ORDER BY name", (str(inode), boot))

    def record(self, name: str) -> Record | None:
        """One pool by name."""
        return self._one("name = ?", name)

    def by_uuid(self, uuid: str) -> Record | None:
        """One pool by uuid (canonical form)."""
        return self._one("uuid = ?", uuid)

    def by_target(self, target: str) -> list[Record]:
        """Pools with that target path, as defined or without symbolic links; an active one first."""
        if not is_text(target):
            return []
        return self._many("WHERE target = ? OR real = ? ORDER BY active DESC, name", target, target)

    def by_id(self, number: int) -> Record | None:
        """One pool by row number."""
        return self._one("id = ?", number)

    def _many(self, which: str, *values: object) -> list[Record]:
        return [Record._make(r) for r in self._db.rows(f"SELECT {_RECORD} FROM pools {which}", values)]  # noqa: S608

    def _one(self, where: str, value: object) -> Record | None:
        row = self._db.row(f"SELECT {_RECORD} FROM pools WHERE {where}", (value,))  # noqa: S608
        return None if row is None else Record._make(row)

    def put(
        self,
        name: str,
        uuid: str,
        type: str,
        *,
        stamp: int | None,
        claims: Sequence[str],
        target: str | None,
        error: str | None = None,
        operation: str | None = None,
    ) -> None:
        """Insert or update what the definition says; run state stays.

        Without ``operation`` it only follows the definition files, and is kept in memory where nothing can be written.
        """

        def store(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO pools (name, uuid, type, stamp, target, error) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET uuid = excluded.uuid, type = excluded.type, stamp = excluded.stamp, "
                "target = excluded.target, error = excluded.error",
                (name, uuid, type, stamp, target, error),
            )
            number = db.execute("SELECT id FROM pools WHERE name = ?", (name,)).fetchone()[0]
            self._claim(db, number, claims)

        if operation is None:
            self._db.store(store)
            return
        with self.transaction(operation) as db:
            store(db)

    @staticmethod
    def _claim(db: sqlite3.Connection, number: int, claims: Sequence[str]) -> None:
        # Two definitions that were put into the folder by hand may claim the same; what is defined by a verb may not.
        db.execute("DELETE FROM claims WHERE pool = ?", (number,))
        db.executemany("INSERT OR IGNORE INTO claims VALUES (?, ?)", ((claim, number) for claim in claims))

    def claims(self, number: int) -> list[str]:
        """What a pool claims, as its backend said when it was defined, in order."""
        return [
            claim for (claim,) in self._db.rows("SELECT claim FROM claims WHERE pool = ? ORDER BY claim", (number,))
        ]

    def active_claims(self, boot: str) -> list[tuple[int, str, str, str, list[str]]]:
        """Number, name, type, live definition and claims of the pools that were started since that boot, by name."""
        query = (
            "SELECT pools.id, name, type, live, claim FROM pools LEFT JOIN claims ON claims.pool = pools.id "
            "WHERE active AND boot = ? AND live IS NOT NULL ORDER BY name, claim"
        )
        found: dict[int, tuple[int, str, str, str, list[str]]] = {}
        for number, name, type, live, claim in self._db.rows(query, (boot,)):
            one = found.setdefault(number, (number, name, type, live, []))
            one[4].extend([claim] if claim is not None else [])
        return list(found.values())

    def claimed(self, claims: Iterable[str], *, unless: str, since: str | None = None) -> tuple[str, str] | None:
        """The first of ``claims`` that a pool of another name than ``unless`` has, and that name.

        With ``since``, a boot, only of pools that were started since then.
        """
        query = (
            "SELECT name FROM claims JOIN pools ON pools.id = pool WHERE claim = ? AND name != ? "
            "AND (? IS NULL OR (active AND boot = ?)) ORDER BY name LIMIT 1"
        )
        for claim in sorted(claims):
            row = self._db.row(query, (claim, unless, since, since))
            if row is not None:
                return claim, row[0]
        return None

    def stamps(self) -> list[tuple[str, int | None]]:
        """Name and stamp of all pools: what tells whether a definition file was changed."""
        return self._db.rows("SELECT name, stamp FROM pools")

    def set_trouble(self, number: int, error: str | None) -> None:
        """Remember why the last refresh failed; None clears it."""
        self._db.store(lambda db: db.execute("UPDATE pools SET trouble = ? WHERE id = ?", (error, number)))


def is_text(value: str) -> bool:
    """Whether SQLite can take it: bytes of a file name that are not UTF-8 come as lone surrogates, and none are stored."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
