"""What is known of pools and volumes: run state, the last listing of every volume, and the recorded formats.

One SQLite file that any number of processes use at once. Look-up of a volume by key or path over all pools is an index query.
The file is derived data: deleting it makes pools inactive until they are started again, and makes formats be read from the
images once more.

A pool's number is never given to another pool, so what was read earlier of one pool cannot touch another: all that is
stored for a pool is stored only if its row is still there.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

from poolkit import errors
from poolkit.backend import Usage, VolumeInfo
from poolkit.state import blocks, packing
from poolkit.state.pools import Pools, Record, is_text

__all__ = ["Inventory", "Record"]

_MAX = (1 << 63) - 1


class _Started(NamedTuple):
    """What a pool was started with, and since which boot of the machine."""

    live: str
    boot: str
    real: str | None
    storage: str | None


class Inventory(Pools):
    """The SQLite file; one connection per thread, made when first needed. All methods may raise ``HostError``."""

    def __init__(self, path: str, *, fault: Callable[[str], None] | None = None, keep: bool = True) -> None:
        super().__init__(path, fault=fault, keep=keep)
        self._known: dict[int, tuple[int, dict[str, VolumeInfo]]] = {}
        self._hurt: set[int] = set()  # pools of whose listing a damaged block was seen

    # -- pools that start, stop and go --------------------------------------------------------------------------

    def set_active(
        self, number: int, live: str, boot: str, operation: str | None, volumes: Sequence[VolumeInfo], usage: Usage,
        *, real: str | None = None, storage: str | None = None,
    ) -> None:  # fmt: skip
        """The pool is up: its live definition, sizes and first listing, in one transaction."""
        with self.transaction(operation) as db:
            saved = self._save(db, number, volumes, None, usage, _Started(live, boot, real, storage))
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
        *,
        real: str | None = None,
        storage: str | None = None,
    ) -> None:
        """A transient pool is up: it appears with all that :meth:`set_active` stores. ``identity``: name, uuid, type, target."""
        with self.transaction(operation) as db:
            name, uuid, type, target = identity
            for (old,) in db.execute("SELECT id FROM pools WHERE name = ?", (name,)).fetchall():
                self._drop(db, old)
            cursor = db.execute(
                "INSERT INTO pools (name, uuid, type, target) VALUES (?, ?, ?, ?)", (name, uuid, type, target)
            )
            number = int(cursor.lastrowid or 0)
            self._claim(db, number, claims)
            saved = self._save(db, number, volumes, None, usage, _Started(live, boot, real, storage))
        self._remember(number, *saved)

    def set_inactive(self, number: int, operation: str | None = None, *, same: bool = False) -> None:
        """The pool is down. Formats and the last listing stay for the next start; a transient pool vanishes.

        Unless the definition is the ``same`` as when the pool was started, its stamp is cleared, so that it is read again: its
        target counts from now.
        """
        with self.transaction(operation) as db:
            db.execute(
                "UPDATE pools SET active = 0, stamp = stamp * ?, live = NULL, started = NULL, trouble = NULL, real = NULL, "
                "storage = NULL, capacity = 0, allocation = 0, available = 0 WHERE id = ?",
                (int(same), number),
            )
            if db.execute("SELECT 1 FROM pools WHERE id = ? AND stamp IS NULL", (number,)).fetchone():
                self._drop(db, number)

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
        if unless is not None and operation is None:
            self._db.store(lambda db: None if unless() else self._drop(db, number, formats))
            return
        with self.transaction(operation) as db:
            if unless is None or not unless():
                self._drop(db, number, formats)

    def _drop(self, db: sqlite3.Connection, number: int, formats: bool = True) -> None:
        if formats:
            self._keep_formats(db, number, self._load(number)[0].values())
        else:
            db.execute("DELETE FROM formats WHERE place = (SELECT target FROM pools WHERE id = ?)", (number,))
        for statement in (
            "blocks WHERE pool",
            "places WHERE pool",
            "claims WHERE pool",
            "touched WHERE pool",
            "pools WHERE id",
        ):
            db.execute(f"DELETE FROM {statement} = ?", (number,))  # noqa: S608
        self._known.pop(number, None)

    @staticmethod
    def _keep_formats(db: sqlite3.Connection, number: int, volumes: Iterable[VolumeInfo]) -> None:
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
                sound, damaged = self._load(record.id)
                self._put_aside(damaged)
                cached = self._known[record.id] = (version, sound)
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

    def _load(self, number: int) -> tuple[dict[str, VolumeInfo], list[bytes]]:
        """The last listing by name, and the blocks of it that are damaged."""
        rows = self._db.rows("SELECT volumes FROM blocks WHERE pool = ? ORDER BY first", (number,))
        return blocks.readable([block for (block,) in rows])

    def record_format(self, place: str, name: str, inode: int, format: str) -> None:
        """Record durably the format of a file that is about to appear; it is bound to the inode: a replaced file is a new one."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO formats VALUES (?, ?, ?, ?)", (place, name, _signed(inode), format))

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
    ) -> tuple[int, dict[str, VolumeInfo]]:
        """Store a listing, and that the pool was ``started``. Returns the new version and the listing: what ``_remember``
        takes once that is committed.
        """
        current = self._present(db, number)
        cached = self._known.pop(number, None)
        trusted = cached is not None and cached[0] == current
        old, damaged = ({}, []) if trusted and number not in self._hurt else self._load(number)
        if damaged:
            db.execute("DELETE FROM blocks WHERE pool = ?", (number,))
        if trusted and cached is not None:
            old = cached[1]
        else:
            self._put_aside(damaged)
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
        if changed or missing or damaged:
            version = current + 1
            blocks.store(db, number, listing, changed, missing)
            self._note(db, number, changed, missing)
            # What is not there now may come back, as with a file system that was not mounted for a while: its formats stay.
            self._keep_formats(db, number, [old[n] for n in missing])
        now = time.time()
        sets = "capacity = ?, allocation = ?, available = ?, refreshed = ?, version = ?, trouble = NULL"
        values: list[object] = [*map(_clamp, usage), now, version]
        if started is not None:
            sets += ", active = 1, started = ?, live = ?, boot = ?, real = ?, storage = ?"
            values += [now, *started]
        db.execute(f"UPDATE pools SET {sets} WHERE id = ?", (*values, number))  # noqa: S608
        return version, listing

    def _remember(self, number: int, version: int, listing: dict[str, VolumeInfo]) -> None:
        self._known[number] = version, listing
        self._hurt.discard(number)

    @staticmethod
    def _present(db: sqlite3.Connection, number: int) -> int:
        """The version of a pool's listing, if the pool is still the one that this is about."""
        row = db.execute("SELECT version FROM pools WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise errors.HostError("the pool's definition was taken away meanwhile", hint="define it again")
        return int(row[0])

    def _put_aside(self, damaged: Sequence[bytes]) -> None:
        """Keep damaged blocks as a file: while it is there, formats that are found anew are not taken for granted."""
        if not damaged or self.damaged is not None:
            return
        try:
            with open(f"{self.path}.damaged", "ab") as file:
                file.writelines(damaged)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise errors.from_os_error(error, f"set damaged listings aside as '{self.path}.damaged'") from error

    def damaged_pools(self) -> list[str]:
        """The pools whose last listing was damaged on the disk, by name; a refresh lists them anew."""
        query = "SELECT name, volumes FROM blocks JOIN pools ON pools.id = pool ORDER BY name"
        return sorted({name for name, block in self._db.rows(query) if not packing.is_sound(block)})

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
            self._present(db, number)
            self._touch(db, number, info.name)
            with self._whole(number):
                blocks.put(db, number, info)
            self._note(db, number, [info], [])

    def drop_volume(self, number: int, name: str, operation: str | None = None) -> None:
        """Forget one volume; a refresh that is under way will not bring it back. Nothing to do if the pool is gone."""
        with self.transaction(operation) as db:
            if db.execute("SELECT 1 FROM pools WHERE id = ?", (number,)).fetchone() is None:
                return
            self._touch(db, number, name)
            with self._whole(number):
                blocks.drop(db, number, name)
            self._note(db, number, [], [name])

    @contextmanager
    def _whole(self, number: int) -> Iterator[None]:
        try:
            yield
        except packing.Damaged as error:
            self._hurt.add(number)
            record = self.by_id(number)
            name = record.name if record is not None else ""
            raise errors.HostError(
                f"the listing of pool '{name}' was damaged on the disk",
                pool=name,
                hint=errors.Hint("list it anew: ", errors.remedy("refresh", name)),
            ) from error

    @staticmethod
    def _touch(db: sqlite3.Connection, number: int, name: str) -> None:
        """Note that a volume was made, changed or deleted: a scan that began earlier knows less."""
        db.execute("UPDATE pools SET version = version + 1 WHERE id = ?", (number,))
        version = db.execute("SELECT version FROM pools WHERE id = ?", (number,)).fetchone()[0]
        # Seconds since the machine's boot, which nobody sets: what is later than now is of an earlier boot. No scan takes a day.
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        db.execute("DELETE FROM touched WHERE pool = ? AND (at < ? OR at > ?)", (number, now - 86400, now))
        db.execute("INSERT INTO touched VALUES (?, ?, ?, ?)", (number, version, name, now))

    def version(self, number: int) -> int:
        """A number that grows with every change of the pool's listing."""
        row = self._db.row("SELECT version FROM pools WHERE id = ?", (number,))
        return int(row[0]) if row else 0

    def volumes(self, number: int) -> list[VolumeInfo]:
        """The last listing of a pool, by name."""
        rows = self._db.rows("SELECT volumes FROM blocks WHERE pool = ? ORDER BY first", (number,))
        with self._whole(number):
            return [volume for (block,) in rows for volume in packing.decode(block)]

    def volume(self, number: int, name: str) -> VolumeInfo | None:
        """One volume of a pool by name."""
        if not is_text(name):
            return None
        query = "SELECT volumes FROM blocks WHERE pool = ? AND first <= ? ORDER BY first DESC LIMIT 1"
        row = self._db.row(query, (number, name))
        if row is None:
            return None
        with self._whole(number):
            return packing.find(row[0], name)

    def find(self, column: str, value: str) -> Iterable[tuple[int, VolumeInfo]]:
        """Volumes over all pools whose ``key`` or ``path`` is stored as ``value``."""
        if column not in ("key", "path"):
            raise ValueError(column)
        if not is_text(value):
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
