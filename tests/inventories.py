"""Inventories as earlier versions of poolkit left them, made of one of this version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

# What each version brought; without it an inventory is one of the version before.
_BROUGHT = {
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
