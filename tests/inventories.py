"""Inventories as earlier versions of poolkit left them, made of one of this version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

# What each version brought; without it an inventory is one of the version before.
_BROUGHT = {
    8: """
        CREATE TABLE former (
            pool INTEGER NOT NULL, name TEXT NOT NULL, said TEXT NOT NULL, real TEXT NOT NULL, node TEXT,
            missing INTEGER NOT NULL, PRIMARY KEY (pool, name, said)) WITHOUT ROWID;
        INSERT INTO former
            SELECT stands.pool, name, said, real, node, missing FROM grounds JOIN stands ON ground = grounds.id;
        DROP TABLE stands; DROP TABLE grounds;
        ALTER TABLE former RENAME TO backing;
        CREATE INDEX backing_said ON backing (said);
        CREATE INDEX backing_real ON backing (real);
        CREATE INDEX backing_node ON backing (node) WHERE node IS NOT NULL;
        ALTER TABLE pools DROP COLUMN folder;
    """,
    7: "DROP INDEX pools_directory;",
    6: "DROP TABLE unfinished;",
    5: "DROP TABLE placements; DROP TABLE reservations; DROP TABLE turns; DROP TABLE broken;",
    4: "DROP TABLE backing; ALTER TABLE pools DROP COLUMN measured;",
    3: "DROP INDEX pools_real; ALTER TABLE pools DROP COLUMN real; ALTER TABLE pools DROP COLUMN storage;",
}
OLDEST = min(_BROUGHT) - 1


def age(path: Path | str, version: int) -> None:
    """Make the inventory, which nobody has open, one of an earlier version, down to ``OLDEST``."""
    db = sqlite3.connect(path)
    for newer in sorted(_BROUGHT, reverse=True):
        if newer > version:
            db.executescript(_BROUGHT[newer])
    db.execute(f"PRAGMA user_version={version}")
    db.commit()
    db.close()
