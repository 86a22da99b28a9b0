"""What volumes stand on, as rows of the inventory: the look-up of what stands on a volume is an index query over all pools.

What changes rows works within the transaction that the caller has begun.
"""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING, NamedTuple, dumps

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Mapping, Sequence, Set


TABLE = """
CREATE TABLE grounds (id INTEGER PRIMARY KEY, pool INTEGER NOT NULL, said TEXT NOT NULL, real TEXT NOT NULL, node TEXT,
missing INTEGER NOT NULL, UNIQUE (pool, said));
CREATE INDEX grounds_said ON grounds (said);
CREATE INDEX grounds_real ON grounds (real);
CREATE INDEX grounds_node ON grounds (node);
CREATE TABLE stands (pool INTEGER, name TEXT, ground INTEGER, PRIMARY KEY (pool, name, ground)) WITHOUT ROWID;
CREATE INDEX stands_ground ON stands (ground, name);
"""
"""What volumes of a pool stand on, and which volumes that are: ten thousand overlays have one template.

Few words, so that all tables are described on the first page of the file, which each opening reads.
"""

UPGRADE = f"""
CREATE TABLE before AS SELECT pool, name, said, real, node, missing FROM backing;
DROP TABLE backing;
{TABLE}
INSERT INTO grounds (pool, said, real, node, missing) SELECT pool, said, max(real), max(node), max(missing) FROM before
    GROUP BY pool, said;
INSERT INTO stands SELECT before.pool, name, grounds.id FROM before
    JOIN grounds ON grounds.pool = before.pool AND grounds.said = before.said;
DROP TABLE before;
"""  # noqa: S608
"""From the table of earlier versions, which had all of it for each volume."""


class Ground(NamedTuple):
    """One file or device that volumes of a pool stand on.

    ``said`` is the path as the volumes say it, absolute; ``real`` the same without symbolic links; ``node`` tells the file or
    device whatever its name, None where that is not known. ``missing`` says that nothing is there.
    """

    said: str
    real: str
    node: str | None = None
    missing: bool = False


_FEW = 8  # volumes that stand on the same
_PATHS = 100  # in one statement: SQLite of long ago takes 999 values


class Edge(NamedTuple):
    """A volume and one file or device that it stands on: ``name``, and the rest as of ``Ground``."""

    name: str
    said: str
    real: str
    node: str | None = None
    missing: bool = False


class Standing:
    """What the volumes of a listing stand on: the grounds, and by the path of each the names of those that do.

    ``folder``: what a volume stands on follows from its detail and from this folder of the pool alone. So whoever is as it was
    stands on what it did while that is the same. None where nothing of that kind can be said.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self.grounds: dict[str, Ground] = {}
        self.names: dict[str, Collection[str]] = {}

    @classmethod
    def of(cls, edges: Iterable[Edge] | Standing) -> Standing:
        """That of edges of single volumes."""
        if isinstance(edges, Standing):
            return edges
        found = cls()
        names: dict[str, list[str]] = {}
        for edge in edges:
            found.grounds[edge.said] = Ground._make(edge[1:])
            names.setdefault(edge.said, []).append(edge.name)
        found.names.update(names)
        return found

    def add(self, ground: Ground, names: Collection[str]) -> None:
        """These volumes, which were not named with this ground before, stand on it."""
        said = ground.said
        self.grounds[said] = ground
        self.names[said] = names if said not in self.names else [*self.names[said], *names]


def replace(
    db: sqlite3.Connection, pool: int, found: Standing, keep: Collection[str], changed: Set[str] | None
) -> None:
    """Store what a listing of the whole pool says; what is on record of the volumes ``keep`` is newer, and stays.

    ``changed``: only these may stand on something else than what is on record. None: all may.
    """
    old = _grounds(db, pool)
    new: dict[str, Iterable[str]]
    if changed is None:
        on_record: dict[int, set[str]] = {}
        for name, ground in db.execute("SELECT name, ground FROM stands WHERE pool = ?", (pool,)):
            if name not in keep:
                on_record.setdefault(ground, set()).add(name)
        here = {said: set(found.names[said]).difference(keep) for said in found.grounds}
        numbers = _set_grounds(db, pool, old, [ground for said, ground in found.grounds.items() if here[said]], keep)
        for said, (number, _) in old.items():
            _leave(db, pool, sorted(on_record.get(number, set()) - here.get(said, set())), number)
        new = {said: names - on_record.get(numbers[said], set()) for said, names in here.items() if names}
    else:
        numbers = _set_grounds(db, pool, old, found.grounds.values(), keep)
        if changed and old:
            _leave(db, pool, changed)
        new = {said: filter(changed.__contains__, found.names[said]) for said in found.grounds} if changed else {}
    _stand(db, pool, {numbers[said]: sorted(names) for said, names in new.items()})
    if old or found.grounds:
        _sweep(db, pool)


def _grounds(db: sqlite3.Connection, pool: int) -> dict[str, tuple[int, Ground]]:
    """What volumes of the pool stand on, by its path, with its number."""
    query = "SELECT id, said, real, node, missing FROM grounds WHERE pool = ?"
    return {
        said: (n, Ground(said, real, node, bool(missing)))
        for n, said, real, node, missing in db.execute(query, (pool,))
    }


def _set_grounds(
    db: sqlite3.Connection, pool: int, old: dict[str, tuple[int, Ground]], grounds: Iterable[Ground], keep: Collection[str]
) -> dict[str, int]:  # fmt: skip
    """Store grounds; their numbers. What others have learned meanwhile of that on which a volume of ``keep`` stands, stays."""
    query = "SELECT ground FROM stands WHERE pool = ? AND name = ?"
    newer = {ground for name in keep for (ground,) in db.execute(query, (pool, name))}
    new, changed = [], []
    for ground in grounds:
        number, was = old.get(ground.said, (0, None))
        if was is None:
            new.append((pool, *ground))
        elif was != ground and number not in newer:
            changed.append((*ground[1:], number))
    db.executemany("INSERT INTO grounds (pool, said, real, node, missing) VALUES (?, ?, ?, ?, ?)", new)
    db.executemany("UPDATE grounds SET real = ?, node = ?, missing = ? WHERE id = ?", changed)
    if not new:
        return {said: number for said, (number, _) in old.items()}
    return dict(db.execute("SELECT said, id FROM grounds WHERE pool = ?", (pool,)).fetchall())


def _stand(db: sqlite3.Connection, pool: int, names: Mapping[int, Sequence[str]]) -> None:
    """Note which volumes stand on which ground."""
    # One statement for all of a ground, as a row each by Python takes three times as long, but for a few.
    for ground, each in names.items():
        if len(each) > _FEW:
            db.execute("INSERT OR IGNORE INTO stands SELECT ?, value, ? FROM json_each(?)", (pool, ground, dumps(each)))
    rows = [(pool, name, ground) for ground, each in names.items() if len(each) <= _FEW for name in each]
    db.executemany("INSERT OR IGNORE INTO stands VALUES (?, ?, ?)", sorted(rows))


def _leave(db: sqlite3.Connection, pool: int, names: Iterable[str], ground: int | None = None) -> None:
    """Note that volumes do not stand on a ground any more, or on any."""
    if text := list(names):
        which = "" if ground is None else " AND ground = ?"
        db.execute(
            f"DELETE FROM stands WHERE pool = ? AND name IN (SELECT value FROM json_each(?)){which}",  # noqa: S608
            (pool, dumps(text), *(() if ground is None else (ground,))),
        )


def _sweep(db: sqlite3.Connection, pool: int) -> None:
    """Forget what nothing stands on any more."""
    db.execute(
        "DELETE FROM grounds WHERE pool = ? AND NOT EXISTS (SELECT 1 FROM stands WHERE ground = grounds.id)", (pool,)
    )


def put(db: sqlite3.Connection, pool: int, names: Collection[str], edges: Iterable[Edge]) -> None:
    """Store what the volumes of these names stand on."""
    query = "SELECT ground FROM stands WHERE pool = ? AND name = ?"
    before = {ground for name in names for (ground,) in db.execute(query, (pool, name))}
    db.executemany("DELETE FROM stands WHERE pool = ? AND name = ?", ((pool, name) for name in names))
    numbers: dict[str, int] = {}
    for name, *values in edges:
        said = str(values[0])
        if said not in numbers:
            db.execute(
                "INSERT OR IGNORE INTO grounds (pool, said, real, node, missing) VALUES (?, ?, ?, ?, ?)",
                (pool, *values),
            )
            (number,) = db.execute("SELECT id FROM grounds WHERE pool = ? AND said = ?", (pool, said)).fetchone()
            db.execute("UPDATE grounds SET real = ?, node = ?, missing = ? WHERE id = ?", (*values[1:], number))
            numbers[said] = number
        db.execute("INSERT OR IGNORE INTO stands VALUES (?, ?, ?)", (pool, name, numbers[said]))
    for ground in before:
        db.execute(
            "DELETE FROM grounds WHERE id = ? AND NOT EXISTS (SELECT 1 FROM stands WHERE ground = ?)", (ground,) * 2
        )


def mark(db: sqlite3.Connection, paths: Sequence[str], missing: bool) -> None:
    """Note of all volumes that stand on the file of these paths that it is there now, or is not any more."""
    for start in range(0, len(paths), _PATHS):
        at, values = _at(paths[start : start + _PATHS])
        db.execute(f"UPDATE grounds SET missing = ? WHERE ({at}) AND missing != ?", (missing, *values, missing))  # noqa: S608


def _at(paths: Sequence[str]) -> tuple[str, list[str]]:
    marks = ", ".join("?" * len(paths))
    return f"grounds.said IN ({marks}) OR grounds.real IN ({marks})", [*paths, *paths]


def on_paths(paths: Sequence[str], but: tuple[int, str], boot: str) -> tuple[str, list[object]]:
    """The query for pool and name of what stands on the file of these paths, in active pools; ``but`` is that volume itself."""
    at, values = _at(paths)
    return _active(f"({at}) AND NOT (stands.pool = ? AND stands.name = ?)"), [*values, *but, boot]


def below_folder(folders: Sequence[str], but: int, boot: str) -> tuple[str, list[object]]:
    """The query for pool and name of what stands on anything below these folders, in active pools other than ``but``."""
    ranges = " OR ".join(
        f"(grounds.{column} >= ? AND grounds.{column} < ?)" for column in ("said", "real") for _ in folders
    )
    values = [
        bound for _ in range(2) for f in folders for bound in (f.rstrip("/") + "/", f.rstrip("/") + "0")
    ]  # after "/"
    return _active(f"({ranges}) AND stands.pool != ?"), [*values, but, boot]


def _active(where: str) -> str:
    what = "SELECT DISTINCT pools.name, stands.name FROM grounds CROSS JOIN stands ON ground = grounds.id"
    return f"{what} JOIN pools ON pools.id = stands.pool WHERE {where} AND pools.active AND pools.boot = ?"
