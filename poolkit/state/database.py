"""The SQLite file below the inventory: its connections, its creation, and its errors in words."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from poolkit import errors


class _Connection(sqlite3.Connection):
    """Can be referred to weakly, which the base class cannot."""


class _Closer:
    """Closes a connection when the thread whose local this is has ended; the connection itself is in a reference cycle."""

    def __init__(self, db: _Connection) -> None:
        self._db = db

    def __del__(self) -> None:
        with suppress(sqlite3.Error):
            self._db.close()


class Database:
    """One SQLite file in WAL mode; a connection per thread and process, made when first needed.

    ``schema`` is a script of statements, ``version`` its number (``user_version``). A file that is no database or is damaged is
    set aside as ``.damaged``; one with a later version is refused. ``fault`` is called around commits, for tests. Without
    ``keep`` a file that is not there yet is not made. All methods raise ``HostError``.
    """

    def __init__(
        self, path: str, schema: str, version: int, *, fault: Callable[[str], None] | None = None, keep: bool = True
    ) -> None:
        self.path = path if keep or os.path.exists(path) else ":memory:"
        self._schema = schema
        self._version = version
        self._fault = fault or _no_fault
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._local = threading.local()
        self._all: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._lock = threading.Lock()

    @property
    def damaged(self) -> str | None:
        """The path under which a damaged file was set aside, while it is there."""
        path = f"{self.path}.damaged"
        return path if os.path.exists(path) else None

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        if self._pid != os.getpid():
            self._inherited = self._local  # SQLite forbids even to close what came through fork(2)
            self._forget()
        db: _Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = self._open()
            self._local.closer = _Closer(db)
            with self._lock:
                self._all.add(db)
        return db

    def close(self) -> None:
        """Close the connections of all threads; repeatable."""
        with self._lock:
            for db in list(self._all):
                db.close()
            self._all.clear()
        self._local = threading.local()

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        try:
            return self.connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._words("read", error) from error

    def row(self, query: str, values: Sequence[Any] = ()) -> Any:
        """The first row of a query, or None."""
        try:
            return self.connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise self._words("read", error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the body's statements or none of them."""
        db = self.connection
        self._fault("inventory: begin")
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                self._fault("inventory: commit")
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._words("write", error) from error

    def sync(self) -> None:
        """Bring all that was committed to the disk; without it a power failure may take back the last transactions."""
        # The log has no locks that closing a descriptor of it could drop.
        try:
            with suppress(FileNotFoundError), open(f"{self.path}-wal", "rb") as log:
                os.fsync(log.fileno())
        except OSError as error:
            raise errors.from_os_error(error, f"bring the inventory '{self.path}' to the disk") from error

    def _words(self, verb: str, error: sqlite3.Error) -> errors.HostError:
        kind = errors.NoSpace if "full" in str(error) else errors.HostError
        hint = None
        if isinstance(error, sqlite3.DatabaseError) and "malformed" in str(error):
            hint = (
                f"the file is damaged: move it away, and pools are inactive until they are started again ({self.path})"
            )
        return kind(f"cannot {verb} the inventory '{self.path}': {error}", hint=hint)

    def _open(self) -> _Connection:
        deadline = time.monotonic() + 30
        while True:
            try:
                return self._connect()
            except sqlite3.OperationalError as error:
                # Several processes creating the file at once: switching to WAL does not honour the busy timeout.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise errors.HostError(
                        f"cannot open the inventory '{self.path}': {error}", hint="is the folder writable for you?"
                    ) from error
                time.sleep(0.01)
            except sqlite3.DatabaseError:
                self._set_aside()

    def _set_aside(self) -> None:
        """Move a file that is no database away, under a lock: another process may have made a good one meanwhile."""
        with open(f"{self.path}.lock", "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self._connect().close()
            except sqlite3.OperationalError:
                return
            except sqlite3.DatabaseError:
                for suffix in ("-wal", "-shm", ""):
                    with suppress(FileNotFoundError):
                        os.replace(self.path + suffix, f"{self.path}.damaged{suffix}")

    def _connect(self) -> _Connection:
        try:
            if self.path != ":memory:":
                os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        except OSError as error:
            raise errors.from_os_error(error, f"make the folder of '{self.path}'") from error
        # Connections are closed by whichever thread closes the engine.
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False, factory=_Connection)
        try:
            if db.execute("PRAGMA user_version").fetchone()[0] != self._version:
                self._create(db)
            db.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            db.close()
            raise
        return db

    def _create(self, db: _Connection) -> None:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("BEGIN IMMEDIATE")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > self._version:
            raise errors.HostError(
                f"the inventory '{self.path}' was written by a later version of poolkit", hint="use that version"
            )
        if version < self._version:
            for statement in self._schema.split(";")[:-1]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version={self._version}")
        db.execute("COMMIT")


def _no_fault(label: str) -> None:
    """Outside tests nothing is injected."""
