"""What is known of pools and volumes: run state, the last listing of every volume, and the recorded formats.

One SQLite file (WAL), so that any number of processes read without waiting. Look-up of a volume by key or
path over all pools is an index query. The file is derived data: deleting it makes pools inactive until they are started again,
and makes formats be read from the images once more.
"""

from __future__ import annotations

import json
import sqlite3
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

from poolkit import errors
from poolkit.backend import Usage, VolumeInfo
from poolkit.state import packing
from poolkit.state.database import Database

_VERSION = 1
_SCHEMA = """
CREATE TABLE pools (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, uuid TEXT NOT NULL, type TEXT NOT NULL, stamp INTEGER,
    claims TEXT NOT NULL, target TEXT, active INTEGER NOT NULL DEFAULT 0, boot TEXT, live TEXT,
    capacity INTEGER NOT NULL DEFAULT 0, allocation INTEGER NOT NULL DEFAULT 0, available INTEGER NOT NULL DEFAULT 0,
    started REAL, refreshed REAL, error TEXT, trouble TEXT, version INTEGER NOT NULL DEFAULT 0);
CREATE INDEX pools_uuid ON pools (uuid);
CREATE INDEX pools_target ON pools (target) WHERE target IS NOT NULL;
CREATE TABLE blocks (id INTEGER PRIMARY KEY, pool INTEGER NOT NULL, first TEXT NOT NULL, volumes BLOB NOT NULL);
CREATE UNIQUE INDEX blocks_first ON blocks (pool, first);
CREATE TABLE places (pool INTEGER NOT NULL, name TEXT NOT NULL, key TEXT, path TEXT, PRIMARY KEY (pool, name)) WITHOUT ROWID;
CREATE INDEX places_key ON places (key);
CREATE INDEX places_path ON places (path);
CREATE TABLE touched (pool INTEGER NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX touched_version ON touched (pool, version);
CREATE TABLE formats (
    place TEXT NOT NULL, name TEXT NOT NULL, inode INTEGER NOT NULL, format TEXT NOT NULL,
    PRIMARY KEY (place, name)) WITHOUT ROWID;
CREATE TABLE completed (operation TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
"""

_MAX = (1 << 63) - 1


class Record(NamedTuple):
    """A pool as the inventory knows it. ``stamp`` is that of the definition file, None for a transient pool.

    ``error`` is what is wrong with the definition file, ``trouble`` why the last refresh failed.
    """

    id: int
    name: str
    uuid: str
    type: str
    stamp: int | None
    claims: str
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


_RECORD = ", ".join(Record._fields)


class _Started(NamedTuple):
    """What a pool was started with, and since which boot of the machine."""

    live: str
    boot: str


class Inventory:
    """The SQLite file; one connection per thread, made when first needed. All methods may raise ``HostError``."""

    def __init__(self, path: str, *, fault: Callable[[str], None] | None = None, keep: bool = True) -> None:
        self._db = Database(path, _SCHEMA, _VERSION, fault=fault, keep=keep)
        self._known: dict[int, tuple[int, dict[str, VolumeInfo]]] = {}
        self._ended: set[str] = set()  # operations whose marks are not needed any more

    @property
    def path(self) -> str:
        """The file."""
        return self._db.path

    @property
    def damaged(self) -> str | None:
        """Where a damaged inventory was set aside: while that file is there, recorded formats may be missing."""
        return self._db.damaged

    def close(self) -> None:
        """Close the connections of all threads; repeatable."""
        if self._ended:
            # A mark that stays does no harm.
            with suppress(OSError, errors.HostError), self._db.transaction() as db:
                self._clear_marks(db, tuple(self._ended))
            self._ended.clear()
        self._db.close()

    @contextmanager
    def transaction(self, operation: str | None = None) -> Iterator[sqlite3.Connection]:
        """All or nothing; with ``operation`` its journal counts as complete from the same instant."""
        ended: tuple[str, ...] = ()
        with self._db.transaction() as db:
            yield db
            if operation is not None:
                ended = tuple(self._ended)
                self._clear_marks(db, ended)
                db.execute("INSERT OR IGNORE INTO completed VALUES (?, ?)", (operation, time.time()))
        self._ended.difference_update(ended)

    @staticmethod
    def _clear_marks(db: sqlite3.Connection, operations: Iterable[str]) -> None:
        db.executemany("DELETE FROM completed WHERE operation = ?", ((operation,) for operation in operations))

    def completed(self, operation: str) -> bool:
        """Whether that operation ended well before its journal could be removed."""
        return self._db.row("SELECT 1 FROM completed WHERE operation = ?", (operation,)) is not None

    def sync(self) -> None:
        """Bring all that was stored to the disk. A power failure could take back what was stored since the last time."""
        self._db.sync()

    def forget_operation(self, operation: str) -> None:
        """Its journal is gone, so its mark may go: with the next transaction that makes one, or when this is closed.

        One of its own would cost as much as what the verb stores.
        """
        self._ended.add(operation)

    # -- pools ------------------------------------------------------------------------------------------------

    def records(self) -> list[Record]:
        """All pools, by name."""
        return self._many("ORDER BY name")

    def active_targets(self, boot: str, types: tuple[str, str]) -> list[tuple[str, str]]:
        """Name and target path of the pools of two types that were started since that boot, by name."""
        query = "SELECT name, target FROM pools WHERE active AND boot = ? AND type IN (?, ?) AND target IS NOT NULL ORDER BY name"
        return self._db.rows(query, (boot, *types))

    def record(self, name: str) -> Record | None:
        """One pool by name."""
        return self._one("name = ?", name)

    def by_uuid(self, uuid: str) -> Record | None:
        """One pool by uuid (canonical form)."""
        return self._one("uuid = ?", uuid)

    def by_target(self, target: str) -> list[Record]:
        """Pools with that target path; an active one first."""
        if not _is_text(target):
            return []
        return self._many("WHERE target = ? ORDER BY active DESC, name", target)

    def by_id(self, number: int) -> Record | None:
        """One pool by row number."""
        return self._one("id = ?", number)

    def _require(self, name: str) -> Record:
        record = self.record(name)
        if record is None:
            raise errors.PoolNotFound(f"there is no pool '{name}'", pool=name)
        return record

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
    ) -> Record:
        """Insert or update what the definition says; run state stays."""
        with self.transaction(operation) as db:
            db.execute(
                "INSERT INTO pools (name, uuid, type, stamp, claims, target, error) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET uuid = excluded.uuid, type = excluded.type, stamp = excluded.stamp, "
                "claims = excluded.claims, target = excluded.target, error = excluded.error",
                (name, uuid, type, stamp, json.dumps(list(claims)), target, error),
            )
        return self._require(name)

    def set_active(
        self, number: int, live: str, boot: str, operation: str | None, volumes: Sequence[VolumeInfo], usage: Usage
    ) -> None:
        """The pool is up: its live definition, sizes and first listing, in one transaction."""
        with self.transaction(operation) as db:
            saved = self._save(db, number, volumes, None, usage, _Started(live, boot))
        self._remember(number, *saved)

    def add_active(
        self,
        identity: tuple[str, str, str, str | None],
        claims: Sequence[str],
        live: str,
        boot: str,
        operation: str | None,
        volumes: Sequence[VolumeInfo],
        usage: Usage,
    ) -> None:
        """A transient pool is up: it appears with all that :meth:`set_active` stores. ``identity``: name, uuid, type, target."""
        with self.transaction(operation) as db:
            name, uuid, type, target = identity
            db.execute("DELETE FROM pools WHERE name = ?", (name,))
            cursor = db.execute(
                "INSERT INTO pools (name, uuid, type, claims, target) VALUES (?, ?, ?, ?, ?)",
                (name, uuid, type, json.dumps(list(claims)), target),
            )
            number = int(cursor.lastrowid or 0)
            saved = self._save(db, number, volumes, None, usage, _Started(live, boot))
        self._remember(number, *saved)

    def set_inactive(self, number: int, operation: str | None = None, *, same: bool = False) -> None:
        """The pool is down. Formats and the last listing stay for the next start; a transient pool vanishes.

        Unless the definition is the ``same`` as when the pool was started, its stamp is cleared, so that it is read again: its
        target counts from now.
        """
        with self.transaction(operation) as db:
            db.execute(
                "UPDATE pools SET active = 0, stamp = stamp * ?, live = NULL, started = NULL, trouble = NULL, capacity = 0, "
                "allocation = 0, available = 0 WHERE id = ?",
                (int(same), number),
            )
            if db.execute("SELECT 1 FROM pools WHERE id = ? AND stamp IS NULL", (number,)).fetchone():
                self._drop(db, number)

    def set_trouble(self, number: int, error: str | None) -> None:
        """Remember why the last refresh failed; None clears it."""
        with self.transaction() as db:
            db.execute("UPDATE pools SET trouble = ? WHERE id = ?", (error, number))

    def drop(
        self,
        number: int,
        *,
        formats: bool = True,
        operation: str | None = None,
        unless: Callable[[], bool] | None = None,
    ) -> None:
        """Forget a pool; with ``formats`` the recorded formats of its volumes are kept for their place.

        ``unless`` is asked when nobody else can write any more, whether the pool is to be kept after all.
        """
        with self.transaction(operation) as db:
            if unless is None or not unless():
                self._drop(db, number, formats)

    def _drop(self, db: sqlite3.Connection, number: int, formats: bool = True) -> None:
        if formats:
            self._keep_formats(db, number, self.volumes(number))
        else:
            db.execute("DELETE FROM formats WHERE place = (SELECT target FROM pools WHERE id = ?)", (number,))
        for statement in (
            "blocks WHERE pool",
            "places WHERE pool",
            "touched WHERE pool",
            "pools WHERE id",
        ):
            db.execute(f"DELETE FROM {statement} = ?", (number,))  # noqa: S608
        self._known.pop(number, None)

    @staticmethod
    def _keep_formats(db: sqlite3.Connection, number: int, volumes: Sequence[VolumeInfo]) -> None:
        """Record the formats of files for the pool's place; each is bound to name and inode."""
        target = db.execute("SELECT target FROM pools WHERE id = ?", (number,)).fetchone()
        if target is not None and target[0] is not None:
            listed = ((target[0], v.name, _signed(v.inode), v.format) for v in volumes if v.inode and v.recorded)
            db.executemany("INSERT OR REPLACE INTO formats VALUES (?, ?, ?, ?)", listed)

    # -- volumes ----------------------------------------------------------------------------------------------

    def known(self, record: Record | None, place: str | None) -> tuple[int, dict[str, VolumeInfo]]:
        """The version of ``record`` and the last listing of its pool, by name, and formats recorded at ``place`` for what is
        not in it.
        """
        version, listing = 0, {}
        if record is not None:
            version = record.version  # what has changed since then counts as changed during the scan
            cached = self._known.get(record.id)
            if cached is None or cached[0] != version:
                cached = self._known[record.id] = (version, self._load(record.id))
            listing = cached[1]
        if place is not None:
            pinned = self._db.rows("SELECT name, inode, format FROM formats WHERE place = ?", (place,))
            # Not empty: an empty file would have no format yet.
            extra = {
                n: VolumeInfo(n, inode=i % (1 << 64), format=f, physical=1) for n, i, f in pinned if n not in listing
            }
            if extra:
                listing = {**listing, **extra}
        return version, listing

    def _load(self, number: int) -> dict[str, VolumeInfo]:
        return {v[0]: v for v in self.volumes(number)}

    def record_format(self, place: str, name: str, inode: int, format: str) -> None:
        """Record durably the format of a file that is about to appear; it is bound to the inode: a replaced file is a new one."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO formats VALUES (?, ?, ?, ?)", (place, name, _signed(inode), format))
        self.sync()

    def save_listing(self, number: int, volumes: Sequence[VolumeInfo], scanned: int, usage: Usage) -> None:
        """Store a refresh that began at version ``scanned``; what others changed since then is kept."""
        with self.transaction() as db:
            saved = self._save(db, number, volumes, scanned, usage)
        self._remember(number, *saved)

    def _save(
        self,
        db: sqlite3.Connection,
        number: int,
        volumes: Sequence[VolumeInfo],
        scanned: int | None,
        usage: Usage,
        started: _Started | None = None,
    ) -> tuple[int, int, dict[str, VolumeInfo]]:
        """Store a listing, and that the pool was ``started``. Returns the version before and after, and the listing: what
        ``_remember`` takes once that is committed.
        """
        current = self.version(number)
        cached = self._known.pop(number, None)
        old = cached[1] if cached is not None and cached[0] == current else self._load(number)
        # A volume made or changed by others during the scan is newer than what the scan saw; one deleted is not back.
        newer: set[str] = set()
        if scanned is not None and current > scanned:
            query = "SELECT name FROM touched WHERE pool = ? AND version > ?"
            newer.update(name for (name,) in db.execute(query, (number, scanned)))
        listing = {v[0]: v for v in volumes}
        for name in newer:
            listing.pop(name, None)
            if name in old:
                listing[name] = old[name]
        changed = [v for v in listing.values() if old.get(v[0]) is not v]
        missing = [n for n in old if n not in listing]
        version = current
        if changed or missing:
            version = current + 1
            self._store(db, number, listing, changed, missing)
            # What is not there now may come back, as with a file system that was not mounted for a while: its formats stay.
            self._keep_formats(db, number, [old[n] for n in missing])
        now = time.time()
        sets = "capacity = ?, allocation = ?, available = ?, refreshed = ?, version = ?, trouble = NULL"
        values: list[object] = [*map(_clamp, usage), now, version]
        if started is not None:
            sets += ", active = 1, started = ?, live = ?, boot = ?"
            values += [now, *started]
        cursor = db.execute(f"UPDATE pools SET {sets} WHERE id = ?", (*values, number))  # noqa: S608
        if started is not None and not cursor.rowcount:
            raise errors.HostError("the pool's definition was taken away while it was started", hint="define it again")
        return current, version, listing

    def _remember(self, number: int, before: int, version: int, listing: dict[str, VolumeInfo]) -> None:
        self._known[number] = version, listing
        if version != before:
            self.sync()  # a format that is found out counts from now on, also if the power fails

    def _store(
        self,
        db: sqlite3.Connection,
        number: int,
        listing: dict[str, VolumeInfo],
        changed: Sequence[VolumeInfo],
        missing: Sequence[str],
    ) -> None:
        """Bring the blocks in step with ``listing``, of which ``changed`` is new and ``missing`` was there before."""
        firsts = [first for (first,) in db.execute("SELECT first FROM blocks WHERE pool = ? ORDER BY first", (number,))]
        touched = {max(bisect_right(firsts, n) - 1, 0) for n in chain((v[0] for v in changed), missing)}
        if len(touched) * 2 >= len(firsts):
            db.execute("DELETE FROM blocks WHERE pool = ?", (number,))
            self._insert(db, number, sorted(listing.values(), key=_name))
        else:
            gone = frozenset(missing)
            for index in touched:
                last = firsts[index + 1] if index + 1 < len(firsts) else None
                first = firsts[index] if index else ""
                mine = [v for v in changed if v[0] >= first and (last is None or v[0] < last)]
                self._edit(db, number, firsts[index], {v[0]: v for v in mine}, gone)
        self._note(db, number, changed, missing)

    def _edit(
        self, db: sqlite3.Connection, number: int, first: str, put: dict[str, VolumeInfo], drop: frozenset[str]
    ) -> None:
        """Change one block, which is split when it has grown too large."""
        row = db.execute("SELECT id, volumes FROM blocks WHERE pool = ? AND first = ?", (number, first)).fetchone()
        inside = {v[0]: v for v in packing.decode(row[1])}
        inside.update(put)
        kept = sorted((v for n, v in inside.items() if n not in drop), key=_name)
        if kept and kept[0][0] == first and len(kept) < 2 * packing.SIZE:
            db.execute("UPDATE blocks SET volumes = ? WHERE id = ?", (packing.encode(kept), row[0]))
            return
        db.execute("DELETE FROM blocks WHERE id = ?", (row[0],))
        self._insert(db, number, kept)

    @staticmethod
    def _insert(db: sqlite3.Connection, number: int, volumes: Sequence[VolumeInfo]) -> None:
        db.executemany(
            "INSERT INTO blocks (pool, first, volumes) VALUES (?, ?, ?)",
            ((number, part[0][0], packing.encode(part)) for part in packing.split(volumes)),
        )

    @staticmethod
    def _note(db: sqlite3.Connection, number: int, changed: Sequence[VolumeInfo], missing: Sequence[str]) -> None:
        """Keep the look-up by key and path in step, and drop recorded formats: what is listed carries its own."""
        placed = [(number, v[0], v[14], v[15]) for v in changed if v[14] is not None or v[15] is not None]
        if placed or db.execute("SELECT 1 FROM places WHERE pool = ? LIMIT 1", (number,)).fetchone():
            names = chain((v[0] for v in changed), missing)
            db.executemany("DELETE FROM places WHERE pool = ? AND name = ?", ((number, n) for n in names))
            db.executemany("INSERT INTO places VALUES (?, ?, ?, ?)", placed)
        place = "(SELECT target FROM pools WHERE id = ?)"
        if db.execute(f"SELECT 1 FROM formats WHERE place = {place} LIMIT 1", (number,)).fetchone():  # noqa: S608
            listed = ((number, v[0]) for v in changed)
            db.executemany(f"DELETE FROM formats WHERE place = {place} AND name = ?", listed)  # noqa: S608

    def put_volume(self, number: int, info: VolumeInfo, operation: str | None = None) -> None:
        """Store one volume as it is now."""
        with self.transaction(operation) as db:
            self._touch(db, number, info.name)
            first = self._first(number, info.name)
            if first is None:
                self._insert(db, number, [info])
            else:
                self._edit(db, number, first, {info.name: info}, frozenset())
            self._note(db, number, [info], [])

    def drop_volume(self, number: int, name: str, operation: str | None = None) -> None:
        """Forget one volume; a refresh that is under way will not bring it back."""
        with self.transaction(operation) as db:
            self._touch(db, number, name)
            first = self._first(number, name)
            if first is not None:
                self._edit(db, number, first, {}, frozenset((name,)))
            self._note(db, number, [], [name])

    def _first(self, number: int, name: str) -> str | None:
        """The block a name belongs to: the last that begins at or before it, else the first of all."""
        where = "SELECT first FROM blocks WHERE pool = ?"
        row = self._db.row(f"{where} AND first <= ? ORDER BY first DESC LIMIT 1", (number, name))
        row = row or self._db.row(f"{where} ORDER BY first LIMIT 1", (number,))
        return None if row is None else str(row[0])

    @staticmethod
    def _touch(db: sqlite3.Connection, number: int, name: str) -> None:
        """Note that a volume was made, changed or deleted: a scan that began earlier knows less."""
        db.execute("UPDATE pools SET version = version + 1 WHERE id = ?", (number,))
        version = db.execute("SELECT version FROM pools WHERE id = ?", (number,)).fetchone()[0]
        now = time.time()
        db.execute("DELETE FROM touched WHERE pool = ? AND at < ?", (number, now - 86400))  # no scan takes a day
        db.execute("INSERT INTO touched VALUES (?, ?, ?, ?)", (number, version, name, now))

    def version(self, number: int) -> int:
        """A number that grows with every change of the pool's listing."""
        row = self._db.row("SELECT version FROM pools WHERE id = ?", (number,))
        return int(row[0]) if row else 0

    def volumes(self, number: int) -> list[VolumeInfo]:
        """The last listing of a pool, by name."""
        rows = self._db.rows("SELECT volumes FROM blocks WHERE pool = ? ORDER BY first", (number,))
        return [volume for (block,) in rows for volume in packing.decode(block)]

    def volume(self, number: int, name: str) -> VolumeInfo | None:
        """One volume of a pool by name."""
        if not _is_text(name):
            return None
        query = "SELECT volumes FROM blocks WHERE pool = ? AND first <= ? ORDER BY first DESC LIMIT 1"
        row = self._db.row(query, (number, name))
        return None if row is None else packing.find(row[0], name)

    def find(self, column: str, value: str) -> Iterable[tuple[int, VolumeInfo]]:
        """Volumes over all pools whose ``key`` or ``path`` is stored as ``value``."""
        if column not in ("key", "path"):
            raise ValueError(column)
        if not _is_text(value):
            return
        for pool, name in self._db.rows(f"SELECT pool, name FROM places WHERE {column} = ?", (value,)):  # noqa: S608
            info = self.volume(pool, name)
            if info is not None:
                yield pool, info


def _signed(inode: int) -> int:
    """An inode number as SQLite can store it: Gluster's use all 64 bits."""
    return inode - (1 << 64) if inode >= 1 << 63 else inode


def _clamp(value: int) -> int:
    return min(max(value, 0), _MAX)


_name = itemgetter(0)


def _is_text(value: str) -> bool:
    """Whether SQLite can take it: bytes of a file name that are not UTF-8 come as lone surrogates, and none are stored."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
