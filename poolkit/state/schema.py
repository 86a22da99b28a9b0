"""The tables of the inventory, and how one of an earlier version becomes one of this."""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING
from poolkit.state import backing, packing, placements, unfinished
from poolkit.state.database import execute

if TYPE_CHECKING:
    import sqlite3


INODE = "CASE WHEN json_valid(storage) THEN json_extract(storage, '$.is[1]') END"
"""The inode number of the directory that an active pool was started with, as ``poolkit.host.places`` notes it."""
_DIRECTORY = f"CREATE INDEX pools_directory ON pools ({INODE}) WHERE active;\n"
_POOLS = """
CREATE TABLE pools (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, uuid TEXT NOT NULL, type TEXT NOT NULL,
    stamp INTEGER, target TEXT, active INTEGER NOT NULL DEFAULT 0, boot TEXT, live TEXT,
    capacity INTEGER NOT NULL DEFAULT 0, allocation INTEGER NOT NULL DEFAULT 0, available INTEGER NOT NULL DEFAULT 0,
    started REAL, refreshed REAL, error TEXT, trouble TEXT, version INTEGER NOT NULL DEFAULT 0,
    real TEXT, storage TEXT, measured INTEGER NOT NULL DEFAULT 0, folder TEXT);
CREATE INDEX pools_uuid ON pools (uuid);
CREATE INDEX pools_target ON pools (target) WHERE target IS NOT NULL;
CREATE INDEX pools_real ON pools (real) WHERE real IS NOT NULL;
CREATE TABLE claims (claim TEXT NOT NULL, pool INTEGER NOT NULL, PRIMARY KEY (claim, pool)) WITHOUT ROWID;
CREATE INDEX claims_pool ON claims (pool);
INSERT INTO sqlite_sequence VALUES ('pools', abs(random()) >> 24);
"""
# The last statement: not even an inventory that took the place of a damaged one gives a number again.
SCHEMA = (
    _POOLS
    + _DIRECTORY
    + backing.TABLE
    + placements.TABLE
    + unfinished.TABLE
    + """
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
)

# What the first version had: claims as JSON in the pool's row, blocks without a checksum, numbers that were used again.
_FROM_1 = """
DROP INDEX pools_uuid;
DROP INDEX pools_target;
ALTER TABLE pools RENAME TO before;
{pools}
INSERT INTO pools SELECT id, name, uuid, type, stamp, target, active, boot, live, capacity, allocation, available, started,
    refreshed, error, trouble, version, NULL, NULL, 0, NULL FROM before;
INSERT OR IGNORE INTO claims SELECT value, before.id FROM before, json_each(before.claims);
UPDATE blocks SET volumes = sealed(volumes);
DELETE FROM touched;
DROP TABLE before;
"""

# The second version did not know which directory a pool was started with.
_FROM_2 = """
ALTER TABLE pools ADD COLUMN real TEXT;
ALTER TABLE pools ADD COLUMN storage TEXT;
CREATE INDEX pools_real ON pools (real) WHERE real IS NOT NULL;
"""

# The third did not know what stands on what, nor when sizes were taken. What is listed is known from the next refresh on.
_FROM_3 = "ALTER TABLE pools ADD COLUMN measured INTEGER NOT NULL DEFAULT 0;" + backing.TABLE


def bring_up_to_date(db: sqlite3.Connection, version: int) -> None:
    """Make the tables of a new file, whose version is 0, or change those of an earlier version.

    Run state, listings and recorded formats stay.
    """
    if not version:
        execute(db, SCHEMA)
        return
    if version == 1:
        db.create_function("sealed", 1, packing.seal, deterministic=True)
        # The number that the sequence starts with comes first, and the rows that keep theirs are below it or do not matter.
        execute(db, _FROM_1.format(pools=_POOLS) + _DIRECTORY + backing.TABLE + placements.TABLE + unfinished.TABLE)
        return
    if version == 2:
        execute(db, _FROM_2)
    if version < 4:
        execute(db, _FROM_3)
    else:
        execute(
            db, backing.UPGRADE
        )  # the fourth to the seventh had a row with all of what it stands on for each volume
    execute(db, "ALTER TABLE pools ADD COLUMN folder TEXT;")
    if version < 5:
        execute(db, placements.TABLE)  # the fourth knew no flavors
    if version < 6:
        execute(db, unfinished.TABLE)  # the fifth forgot what was left half-written
    if version < 7:
        execute(db, _DIRECTORY)  # the sixth looked through all active pools for those of a directory
