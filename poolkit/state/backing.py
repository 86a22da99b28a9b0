"""What volumes stand on, as rows of the inventory: the look-up of what stands on a volume is an index query over all pools.

What changes rows works within the transaction that the caller has begun.
"""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Sequence


TABLE = """
CREATE TABLE backing (
    pool INTEGER NOT NULL, name TEXT NOT NULL, said TEXT NOT NULL, real TEXT NOT NULL, node TEXT, missing INTEGER NOT NULL,
    PRIMARY KEY (pool, name, said)) WITHOUT ROWID;
CREATE INDEX backing_said ON backing (said);
CREATE INDEX backing_real ON backing (real);
CREATE INDEX backing_node ON backing (node) WHERE node IS NOT NULL;
"""


_PATHS = 100  # in one statement: SQLite of long ago takes 999 values


class Edge(NamedTuple):
    """A volume and one file or device that it stands on.

    ``said`` is the path as the volume says it, absolute; ``real`` the same without symbolic links; ``node`` tells the file or
    device whatever its name, None where that is not known. ``missing`` says that nothing is there.
    """

    name: str
    said: str
    real: str
    node: str | None = None
    missing: bool = False


def replace(db: sqlite3.Connection, pool: int, edges: Iterable[Edge], keep: Collection[str]) -> None:
    """Store what a listing of the whole pool says; the rows of the volumes ``keep`` are newer, and stay."""
    query = "SELECT name, said, real, node, missing FROM backing WHERE pool = ?"
    old = {row[:2]: row for row in db.execute(query, (pool,)) if row[0] not in keep}
    new = {edge[:2]: edge for edge in edges if edge.name not in keep}
    gone = ((pool, *key) for key in old if key not in new)
    db.executemany("DELETE FROM backing WHERE pool = ? AND name = ? AND said = ?", gone)
    _insert(db, pool, (edge for key, edge in new.items() if old.get(key) != edge))


def put(db: sqlite3.Connection, pool: int, names: Iterable[str], edges: Iterable[Edge]) -> None:
    """Store what the volumes of these names stand on."""
    db.executemany("DELETE FROM backing WHERE pool = ? AND name = ?", ((pool, name) for name in names))
    _insert(db, pool, edges)


def mark(db: sqlite3.Connection, paths: Sequence[str], missing: bool) -> None:
    """Note of all volumes that stand on the file of these paths that it is there now, or is not any more."""
    for start in range(0, len(paths), _PATHS):
        at, values = _at(paths[start : start + _PATHS])
        db.execute(f"UPDATE backing SET missing = ? WHERE ({at}) AND missing != ?", (missing, *values, missing))  # noqa: S608


def _insert(db: sqlite3.Connection, pool: int, edges: Iterable[Edge]) -> None:
    db.executemany("INSERT OR REPLACE INTO backing VALUES (?, ?, ?, ?, ?, ?)", ((pool, *edge) for edge in edges))


def _at(paths: Sequence[str]) -> tuple[str, list[str]]:
    marks = ", ".join("?" * len(paths))
    return f"backing.said IN ({marks}) OR backing.real IN ({marks})", [*paths, *paths]


def on_paths(paths: Sequence[str], but: tuple[int, str], boot: str) -> tuple[str, list[object]]:
    """The query for pool and name of what stands on the file of these paths, in active pools; ``but`` is that volume itself."""
    at, values = _at(paths)
    return _active(f"({at}) AND NOT (backing.pool = ? AND backing.name = ?)"), [*values, *but, boot]


def below_folder(folders: Sequence[str], but: int, boot: str) -> tuple[str, list[object]]:
    """The query for pool and name of what stands on anything below these folders, in active pools other than ``but``."""
    ranges = " OR ".join(
        f"(backing.{column} >= ? AND backing.{column} < ?)" for column in ("said", "real") for _ in folders
    )
    values = [
        bound for _ in range(2) for f in folders for bound in (f.rstrip("/") + "/", f.rstrip("/") + "0")
    ]  # after "/"
    return _active(f"({ranges}) AND backing.pool != ?"), [*values, but, boot]


def _active(where: str) -> str:
    what = "SELECT DISTINCT pools.name, backing.name FROM backing JOIN pools ON pools.id = backing.pool"
    return f"{what} WHERE {where} AND pools.active AND pools.boot = ?"
