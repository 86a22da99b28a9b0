"""What is known of pools and volumes: run state, the last listing of every volume, and the recorded formats.

One SQLite file that any number of processes use at once. Look-up of a volume by key or path over all pools is an index query.
The file is derived data: deleting it makes pools inactive until they are started again, and makes formats be read from the
images once more.

A pool's number is never given to another pool, so what was read earlier of one pool cannot touch another: all that is
stored for a pool is stored only if its row is still there.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from itertools import chain

from poolkit import errors
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING, NamedTuple
from poolkit.state.database import signed, unsigned
from poolkit.state.pools import Pools, Record, is_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from poolkit import facts, listing
    from poolkit.facts import Recorded, Usage, VolumeInfo
    from poolkit.listing import Alike, Known
    from poolkit.state import backing, blocks, changes, packing, placements, unfinished
    from poolkit.state.backing import Edge, Standing
    from poolkit.state.packing import Entry

    Kept = tuple[int, dict[str, int], dict[str, VolumeInfo], Mapping[str, Alike]]
    """Of a listing read or stored: its version, and the stamps, the told volumes and those alike as ``Known`` has them."""
else:
    facts = later(globals(), "facts", "poolkit.facts")
    listing = later(globals(), "listing", "poolkit.listing")
    blocks = later(globals(), "blocks", "poolkit.state.blocks")
    packing = later(globals(), "packing", "poolkit.state.packing")
    placements = later(globals(), "placements", "poolkit.state.placements")
    backing = later(globals(), "backing", "poolkit.state.backing")
    changes = later(globals(), "changes", "poolkit.state.changes")
    unfinished = later(globals(), "unfinished", "poolkit.state.unfinished")


__all__ = ["Inventory", "Record"]

_MAX = (1 << 63) - 1
_SELDOM = 50  # changes of a listing after which old notes of changes are removed
_NEAR = 20  # blocks on each side: about 10,000 names, which are compared with one in a tenth of a second


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
        self._kept: dict[int, Kept] = {}
        self._hurt: set[int] = set()  # pools of whose listing a damaged block was seen

    # -- pools that start, stop and go --------------------------------------------------------------------------

    def set_active(
        self, number: int, live: str, boot: str, operation: str | None, volumes: Sequence[VolumeInfo], usage: Usage,
        *, real: str | None = None, storage: str | None = None, below: Standing | Sequence[Edge] = (),
    ) -> None:  # fmt: skip
        """The pool is up: its live definition, sizes, first listing and what that stands on, in one transaction."""
        with self.transaction(operation) as db:
            saved = self._save(db, number, volumes, None, usage, below, _Started(live, boot, real, storage))
        self._remember(number, saved)

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
        below: Standing | Sequence[Edge] = (),
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
            saved = self._save(db, number, volumes, None, usage, below, _Started(live, boot, real, storage))
        self._remember(number, saved)

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
            for (block,) in db.execute("SELECT volumes FROM blocks WHERE pool = ?", (number,)).fetchall():
                if packing.is_sound(block):
                    self._keep_formats(db, number, packing.decode(block))
        else:
            db.execute("DELETE FROM formats WHERE place = (SELECT target FROM pools WHERE id = ?)", (number,))
        for statement in (
            "blocks WHERE pool",
            "places WHERE pool",
            "claims WHERE pool",
            "touched WHERE pool",
            "stands WHERE pool",
            "grounds WHERE pool",
            "placements WHERE pool",
            "reservations WHERE pool",
            "pools WHERE id",
        ):
            db.execute(f"DELETE FROM {statement} = ?", (number,))  # noqa: S608
        self._kept.pop(number, None)

    @staticmethod
    def _keep_formats(db: sqlite3.Connection, number: int, volumes: Iterable[VolumeInfo]) -> None:
        """Record the formats of files for the pool's place; each is bound to name and inode."""
        target = db.execute("SELECT target FROM pools WHERE id = ?", (number,)).fetchone()
        if target is not None and target[0] is not None:
            listed = ((target[0], v.name, signed(v.inode), v.format) for v in volumes if v.inode and v.recorded)
            db.executemany("INSERT OR REPLACE INTO formats VALUES (?, ?, ?, ?)", listed)

    # -- volumes ----------------------------------------------------------------------------------------------

    def known(self, record: Record | None) -> tuple[int, Known]:
        """The version of ``record`` and the last listing of its pool, by name."""
        if record is None:
            return 0, listing.Known.of({})
        number, version = record.id, record.version  # what has changed since then counts as changed during the scan
        kept = self._kept.get(number)
        if kept is None or kept[0] != version or number in self._hurt:
            outline = self._outline(number)
            kept = self._kept[number] = (version, outline.stamps, outline.told, outline.alike)
        return version, self._known(number, kept)

    def _known(self, number: int, kept: Kept) -> Known:
        _, stamps, told, alike = kept
        return listing.Known(stamps, told, lambda name: self._around(number, name), alike)

    def _outline(self, number: int) -> blocks.Outline:
        """The outline of the last listing; damaged blocks are put aside and stay out."""
        outline = blocks.outline(self._db.rows("SELECT id, volumes FROM blocks WHERE pool = ?", (number,)))
        if outline.damaged:
            self._hurt.add(number)
            self._put_aside(list(outline.damaged.values()))
        return outline

    def _around(self, number: int, name: str | None) -> Iterator[VolumeInfo]:
        """The volumes of the block that a name belongs to, of all blocks for None; nothing of damaged ones."""
        query = "SELECT volumes FROM blocks WHERE pool = ?"
        if name is None:
            rows = self._db.rows(query, (number,))
        else:
            rows = self._db.rows(f"{query} AND first <= ? ORDER BY first DESC LIMIT 1", (number, name))
        for (block,) in rows:
            if packing.is_sound(block):
                yield from packing.decode(block)

    def formats(self, place: str) -> dict[str, Recorded]:
        """The formats on record for files at ``place`` beyond those of listed volumes, by name: see :meth:`record_format`."""
        rows = self._db.rows("SELECT name, inode, format FROM formats WHERE place = ?", (place,))
        return {name: facts.Recorded(unsigned(inode), format) for name, inode, format in rows}

    def format(self, place: str, name: str) -> Recorded | None:
        """The format on record for one file at ``place``, as :meth:`formats` has it."""
        row = self._db.row("SELECT inode, format FROM formats WHERE place = ? AND name = ?", (place, name))
        return None if row is None else facts.Recorded(unsigned(row[0]), row[1])

    def record_format(self, place: str, name: str, inode: int, format: str) -> None:
        """Record durably the format of a file that is about to appear; it is bound to the inode: a replaced file is a new one."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO formats VALUES (?, ?, ?, ?)", (place, name, signed(inode), format))

    def save_listing(
        self, number: int, volumes: Sequence[VolumeInfo], scanned: int, usage: Usage,
        below: Standing | Sequence[Edge] = (),
        *, at_work: Collection[str] = (),
    ) -> None:  # fmt: skip
        """Store a refresh that began at version ``scanned``, and what its volumes stand on; what others changed since is kept.

        ``at_work`` are volumes that were worked on when it began: one that was not found may be about to get its name.
        """
        with self.transaction() as db:
            saved = self._save(db, number, volumes, scanned, usage, below, at_work=at_work)
        self._remember(number, saved)

    def _save(
        self,
        db: sqlite3.Connection,
        number: int,
        volumes: Sequence[VolumeInfo],
        scanned: int | None,
        usage: Usage,
        below: Standing | Sequence[Edge],
        started: _Started | None = None,
        at_work: Collection[str] = (),
    ) -> Kept:
        """Store a listing, and that the pool was ``started``. Returns what ``_remember`` takes once that is committed."""
        found = listing.Listing.of(volumes)
        current = self._present(db, number)
        kept = self._kept.pop(number, None)
        damaged: Collection[int] = ()
        if kept is None or kept[0] != current or number in self._hurt:
            outline = self._outline(number)
            kept, damaged = (current, outline.stamps, outline.told, outline.alike), outline.damaged
            db.executemany("DELETE FROM blocks WHERE id = ?", ((row,) for row in damaged))
        _, stamps, told, alike = kept
        # A volume made or changed by others during the scan is newer than what the scan saw; one deleted is not back.
        newer: set[str] = set()
        if scanned is not None and current > scanned:
            query = "SELECT name FROM touched WHERE pool = ? AND version > ?"
            newer.update(name for (name,) in db.execute(query, (number, scanned)))
        fresh = changes.fresh(found)
        if newer:
            fresh = {name: entry for name, entry in fresh.items() if name not in newer}
        # Unchanged but not stored: another scan missed it, or its block is damaged. It was seen, so it stays listed.
        lost = [n for n in found.same if n not in stamps and n not in newer] if scanned != current or damaged else []
        if lost:
            seen = ((n, found.known.held(n) or found.known.packed(n)) for n in lost)
            fresh = {**fresh, **{n: entry for n, entry in seen if entry is not None}}
        there = set(found.same)
        missing = [n for n in stamps if n not in there and n not in fresh and n not in newer and n not in at_work]
        version = current
        if fresh or missing or damaged:
            version = current + 1
            gone = self._known(number, kept)
            # What is not there now may come back, as with a file system that was not mounted for a while: its formats stay.
            self._keep_formats(db, number, [gone[n] for n in missing if n in gone])
            blocks.store(db, number, fresh, missing)
            self._note(db, number, fresh, missing)
            same_names = found.stamps.keys() == fresh.keys()
            new = found.stamps if same_names else {n: found.stamps.get(n, 0) for n in fresh}
            stamps, told = {**stamps, **new}, {**told, **changes.told(fresh)}
            for name in missing:
                del stamps[name]
                told.pop(name, None)
            for name in fresh.keys() & told.keys():
                if not changes.is_told(fresh[name]):
                    del told[name]
            alike = changes.alike(alike, fresh, missing) if alike or newer or lost or found.others else found.alike
        self._stand(db, number, below, newer, None if damaged else {*fresh, *missing})
        now = time.time()
        sets = "refreshed = ?, version = ?, trouble = NULL"
        values: list[object] = [now, version]
        if started is not None:
            sets += ", active = 1, started = ?, live = ?, boot = ?, real = ?, storage = ?"
            values += [now, *started]
        db.execute(f"UPDATE pools SET {sets} WHERE id = ?", (*values, number))  # noqa: S608
        # Sizes that were taken after a change that the scan may not have seen are newer than those of the scan.
        self._measure(db, number, version, usage, version if scanned is None or started is not None else scanned)
        return version, stamps, told, alike

    @staticmethod
    def _stand(
        db: sqlite3.Connection, number: int, below: Standing | Sequence[Edge], newer: set[str], changed: set[str] | None
    ) -> None:
        """Store what the volumes of a listing stand on. Most are as they were, and then this is as well, in the same folder."""
        found = backing.Standing.of(below)
        (folder,) = db.execute("SELECT folder FROM pools WHERE id = ?", (number,)).fetchone()
        backing.replace(db, number, found, newer, None if found.folder is None or found.folder != folder else changed)
        if found.folder != folder:
            db.execute("UPDATE pools SET folder = ? WHERE id = ?", (found.folder, number))

    @staticmethod
    def _measure(db: sqlite3.Connection, number: int, version: int, usage: Usage, since: int) -> None:
        """Store sizes that hold all changes up to ``version``, unless others were stored that hold more than up to ``since``."""
        db.execute(
            "UPDATE pools SET capacity = ?, allocation = ?, available = ?, measured = ? WHERE id = ? AND measured <= ?",
            (*map(_clamp, usage), version, number, since),
        )

    def note_storage(self, number: int, storage: str | None) -> None:
        """Store what the storage of an active pool was at its last listing."""
        with self.transaction() as db:
            db.execute("UPDATE pools SET storage = ? WHERE id = ? AND active", (storage, number))

    def set_sizes(self, number: int, version: int, usage: Usage) -> None:
        """Store sizes that were taken when the listing had ``version``, unless there are later ones."""
        with self.transaction() as db:
            self._measure(db, number, version, usage, version)

    def _remember(self, number: int, kept: Kept) -> None:
        self._kept[number] = kept
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
    def _note(db: sqlite3.Connection, number: int, changed: Mapping[str, Entry], missing: Sequence[str]) -> None:
        """Keep the look-up by key and path in step, and drop formats on record that the listing carries from now on."""
        volumes = (v for v in changed.values() if isinstance(v, facts.VolumeInfo))
        placed = [(number, v[0], v[14], v[15]) for v in volumes if v[14] is not None or v[15] is not None]
        if placed or db.execute("SELECT 1 FROM places WHERE pool = ? LIMIT 1", (number,)).fetchone():
            names = chain(changed, missing)
            db.executemany("DELETE FROM places WHERE pool = ? AND name = ?", ((number, n) for n in names))
            db.executemany("INSERT INTO places VALUES (?, ?, ?, ?)", placed)
        place = "(SELECT target FROM pools WHERE id = ?)"
        if db.execute(f"SELECT 1 FROM formats WHERE place = {place} LIMIT 1", (number,)).fetchone():  # noqa: S608
            carries = (n for n, v in changed.items() if changes.is_recorded(n, v))
            listed = ((number, name) for name in carries)
            db.executemany(f"DELETE FROM formats WHERE place = {place} AND name = ?", listed)  # noqa: S608

    def put_volumes(
        self, number: int, volumes: Sequence[VolumeInfo], operation: str | None = None, *, below: Sequence[Edge] = (),
        paths: Sequence[str] = (), sizes: tuple[int, Usage] | None = None, placed: placements.Placement | None = None,
        whole: str | None = None,
    ) -> int | None:  # fmt: skip
        """Store volumes as they are now, what they stand on, and that what stands on one of their ``paths`` has it.

        ``placed``: they were made through a flavor, and what was reserved is from the same instant a part of the listing.
        ``whole``: the key by which one was marked as half-written, which it is no more.

        ``sizes`` are those of the pool with the version that the listing had before they were taken. If it has another one by
        now they may lack what others did: then the new version is returned, with which they have to be taken again.
        """
        fresh = {info.name: info for info in volumes}
        with self.transaction(operation) as db:
            current = self._present(db, number)
            self._touch(db, number, *fresh)
            with self._whole(number):
                if len(volumes) == 1:
                    blocks.put(db, number, volumes[0])
                else:
                    blocks.store(db, number, {name: packing.packed(info) for name, info in fresh.items()}, ())
            self._note(db, number, fresh, [])
            backing.put(db, number, fresh, below)
            backing.mark(db, paths, False)
            if placed is not None:
                for info in volumes:
                    placements.settle(db, number, info, placed)
            if whole is not None:
                unfinished.drop(db, whole)
            return self._taken(db, number, current, sizes)

    def drop_volume(
        self, number: int, name: str, operation: str | None = None, *, paths: Sequence[str] = (),
        sizes: tuple[int, Usage] | None = None,
    ) -> int | None:  # fmt: skip
        """Forget one volume; a refresh that is under way will not bring it back. Nothing to do if the pool is gone.

        What stands on one of its ``paths`` misses it from now on. ``sizes`` and the answer as with ``put_volumes``.
        """
        with self.transaction(operation) as db:
            row = db.execute("SELECT version FROM pools WHERE id = ?", (number,)).fetchone()
            if row is None:
                return None
            self._touch(db, number, name)
            with self._whole(number):
                blocks.drop(db, number, name)
            self._note(db, number, {}, [name])
            backing.put(db, number, [name], ())
            placements.forget(db, number, name)
            backing.mark(db, paths, True)
            return self._taken(db, number, int(row[0]), sizes)

    def _taken(self, db: sqlite3.Connection, number: int, before: int, sizes: tuple[int, Usage] | None) -> int | None:
        if sizes is None:
            return None
        taken, usage = sizes
        if taken != before:
            return before + 1
        self._measure(db, number, before + 1, usage, before)
        return None

    # -- what stands on what ------------------------------------------------------------------------------------

    def standing(self, query: tuple[str, list[object]], limit: int) -> tuple[list[tuple[str, str]], int]:
        """Pool and volume of the first few that a query of ``poolkit.state.backing`` finds, by name, and how many it finds."""
        words, values = query
        first = self._db.rows(f"{words} ORDER BY pools.name, stands.name LIMIT ?", (*values, limit + 1))
        count = len(first)
        if count > limit:
            row = self._db.row(f"SELECT count(*) FROM ({words})", values)  # noqa: S608
            count = int(row[0]) if row else count
        return first[:limit], count

    def said_of(self, node: str) -> list[str]:
        """The paths by which volumes name the file or device ``node``."""
        return [path for (path,) in self._db.rows("SELECT DISTINCT said FROM grounds WHERE node = ?", (node,))]

    def edges(self, number: int) -> list[Edge]:
        """What the volumes of a pool stand on, by name."""
        query = (
            "SELECT name, said, real, node, missing FROM grounds JOIN stands ON ground = id WHERE grounds.pool = ? "
            "ORDER BY name, said"
        )
        return [backing.Edge(*row)._replace(missing=bool(row[4])) for row in self._db.rows(query, (number,))]

    def missing(self, number: int, first: str, last: str | None = None) -> dict[str, list[str]]:
        """The paths that a volume, or all from ``first`` to ``last``, stand on and at which nothing is, by volume."""
        found: dict[str, list[str]] = {}
        query = (
            "SELECT name, said FROM grounds CROSS JOIN stands ON ground = id AND stands.pool = grounds.pool "
            "WHERE grounds.pool = ? AND missing AND name BETWEEN ? AND ? ORDER BY said"
        )
        for volume, path in self._db.rows(query, (number, first, first if last is None else last)):
            found.setdefault(volume, []).append(path)
        return found

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
    def _touch(db: sqlite3.Connection, number: int, *names: str) -> None:
        """Note that volumes were made, changed or deleted: a scan that began earlier knows less."""
        db.execute("UPDATE pools SET version = version + 1 WHERE id = ?", (number,))
        version = db.execute("SELECT version FROM pools WHERE id = ?", (number,)).fetchone()[0]
        # Seconds since the machine's boot, which nobody sets: what is later than now is of an earlier boot. No scan takes a day.
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if not version % _SELDOM:  # all notes of the pool are gone through
            db.execute("DELETE FROM touched WHERE pool = ? AND (at < ? OR at > ?)", (number, now - 86400, now))
        db.executemany("INSERT INTO touched VALUES (?, ?, ?, ?)", ((number, version, name, now) for name in names))

    def has_half_written(self) -> bool:
        """Whether any volume is marked as half-written (:mod:`poolkit.state.unfinished`)."""
        return self._db.row("SELECT 1 FROM unfinished LIMIT 1") is not None

    def version(self, number: int) -> int:
        """A number that grows with every change of the pool's listing."""
        row = self._db.row("SELECT version FROM pools WHERE id = ?", (number,))
        return int(row[0]) if row else 0

    def volumes(self, number: int) -> list[VolumeInfo]:
        """The last listing of a pool, by name."""
        rows = self._db.rows("SELECT volumes FROM blocks WHERE pool = ? ORDER BY first", (number,))
        with self._whole(number):
            return [volume for (block,) in rows for volume in packing.decode(block)]

    def walk(self, number: int) -> Iterator[list[VolumeInfo]]:
        """The last listing by name, in portions that are read as they are asked for: see ``blocks.walk``.

        All of it is checked before the first comes, so that nobody gets the beginning of a damaged listing.
        """
        with self._whole(number):
            for _ in blocks.walk(self._db.rows, number, packing.names, str):
                pass
            yield from blocks.walk(self._db.rows, number, _decoded, _name)

    def names(self, number: int) -> Iterator[str]:
        """The names of the last listing, in order, read as they are asked for."""
        with self._whole(number):
            yield from chain.from_iterable(blocks.walk(self._db.rows, number, packing.names, str))

    def names_near(self, number: int, name: str) -> list[str]:
        """The names next to ``name`` in the order: all of a pool with a few thousand volumes."""
        found = blocks.near(self._db.rows, number, name if is_text(name) else "", _NEAR)
        return sorted(chain.from_iterable(packing.names(block) for block in found if packing.is_sound(block)))

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


def _decoded(block: bytes) -> list[VolumeInfo]:
    return list(packing.decode(block))


def _name(volume: VolumeInfo) -> str:
    return volume.name


def _clamp(value: int) -> int:
    return min(max(value, 0), _MAX)
