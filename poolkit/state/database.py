"""The SQLite file below the inventory: its connections, its creation, and its errors in words.

The journal of transactions is a file that is written, never one that is mapped: the index of SQLite's write-ahead log is
mapped memory, and touching a page of it for which a full disk has no block ends the process with SIGBUS. So a reader waits
while a writer commits, which takes milliseconds, and each commit is on the disk when it returns.

A commit waits for the disk five times: the journal, its folder, the journal's header, the database, the end of the journal. None
can be left out. With ``synchronous=NORMAL`` journal and header are one wait: of a power failure in it the header may come to the
disk and a record only in part, beside what was there before, since the file is used again. Its checksum takes every 200th byte of
a page: an older state of the same page can pass, and would be written over the good one. The folder is SQLite's own doing
at each opening of the journal, and costs little when nothing has changed in it.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress

from poolkit import errors
from poolkit.host import forks, private
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence
    from threading import local
    from typing import Any, TypeVar

    T = TypeVar("T")
else:
    import _sqlite3 as sqlite3  # the module without `datetime`, of which nothing is stored
    from _thread import _local as local  # the very one of `threading`, without all else that is in it


VERSION = 8
"""Of the tables that are in the file: see ``poolkit.state.schema``."""
PATIENCE = 30.0
"""Seconds that are waited for others who read or write."""
_COPY = 5.0  # seconds that a copy in memory is read before the file is looked at again
_LEFT: list[object] = []  # connections of a parent: SQLite forbids a child even to close them


def signed(inode: int) -> int:
    """An inode number as SQLite can store it: Gluster's use all 64 bits."""
    return inode - (1 << 64) if inode >= 1 << 63 else inode


def unsigned(inode: int) -> int:
    """The inode number that was stored as ``signed``."""
    return inode % (1 << 64)


class _Closer:
    """Closes a thread's connection when the thread has ended, which its local storage does not outlive."""

    def __init__(self, database: Database, db: sqlite3.Connection) -> None:
        self._database, self._db, self._pid = database, db, os.getpid()

    def __del__(self) -> None:
        if os.getpid() == self._pid:
            self._database._end(self._db)


class Database:
    """One SQLite file; a connection per thread and process, made when first needed.

    ``version`` is the number of its tables (``user_version``), and ``upgrade`` brings a file of an earlier version, or a new one,
    whose version is 0, up to it in one transaction. A file that is no database or is damaged is set aside as ``.damaged``; one
    with a
    later version is refused. ``fault`` is called around commits, for tests. Reading makes no file, and without ``keep``
    writing does not either. All methods raise ``HostError`` (``NoSpace``, ``PermissionDenied``), and ``Busy`` when others
    take longer than ``PATIENCE``.
    """

    def __init__(
        self,
        path: str,
        version: int,
        upgrade: Callable[[sqlite3.Connection, int], None],
        *,
        fault: Callable[[str], None] | None = None,
        keep: bool = True,
    ) -> None:
        self.path = path
        self._version = version
        self._upgrade = upgrade
        self._fault = fault or _no_fault
        self._keep = keep
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._local = local()
        self._all: dict[int, sqlite3.Connection] = {}
        self._memories: dict[int, sqlite3.Connection] = {}

    @property
    def damaged(self) -> str | None:
        """The path under which a damaged file was set aside, while it is there."""
        path = f"{self.path}.damaged"
        return path if os.path.exists(path) else None

    def _end(self, db: sqlite3.Connection) -> None:
        with forks.undivided(), suppress(sqlite3.Error):
            if self._all.pop(id(db), None) or self._memories.pop(id(db), None):
                db.close()

    def _look_for_fork(self) -> None:
        if self._pid != os.getpid():
            if self._all and _was_cut:
                raise errors.HostError(
                    f"the inventory '{self.path}' was in use when this process was forked, so it cannot be used here",
                    hint="start a new program instead of forking, or fork while no verb is at work",
                )
            _LEFT.extend((self._local, self._all, self._memories))
            self._forget()

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection for reading: to the file, or to what stands for it in memory."""
        self._look_for_fork()
        local = self._local
        memory, until, _ = getattr(local, "memory", (None, 0.0, None))
        if memory is not None:
            # A copy of nothing is good as long as there is no file, any other for a moment.
            if memory.in_transaction or (time.monotonic() < until if until else not os.path.exists(self.path)):
                return memory  # type: ignore[no-any-return]
            self._drop_memory()
        if getattr(local, "db", None) is None and not os.path.exists(self.path):
            private.check(os.path.dirname(self.path))
            return self._in_memory()
        return self._real()

    def _real(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = self._open()
            with forks.undivided():
                self._all[id(db)] = db
            self._local.closer = _Closer(self, db)
        return db

    def _in_memory(self) -> sqlite3.Connection:
        """What this thread works on where nothing can or may be written: a copy of the file, or an empty inventory."""
        with forks.undivided():
            memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            until = 0.0
            try:
                if os.path.exists(self.path):
                    self._real().backup(memory)
                    until = time.monotonic() + _COPY
                    memory.execute("UPDATE sqlite_sequence SET seq = abs(random()) >> 24")
                else:
                    self._create(memory)
            except BaseException:
                memory.close()
                raise
            self._memories[id(memory)] = memory
        self._local.memory = (memory, until, _Closer(self, memory))
        return memory

    def _drop_memory(self) -> None:
        memory = getattr(self._local, "memory", (None,))[0]
        if memory is not None:
            self._end(memory)
            del self._local.memory

    def close(self) -> None:
        """Close the connections of all threads; repeatable."""
        if self._pid == os.getpid():
            for db in [*self._all.values(), *self._memories.values()]:
                self._end(db)
            self._local = local()

    def make(self) -> None:
        """Make the file if it is not there, and read it from now on, not what stood for it in memory."""
        self._look_for_fork()
        if self._keep or os.path.exists(self.path):
            self._drop_memory()
            self._patiently("open", self._real)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        return self._patiently("read", lambda: self.connection.execute(query, values).fetchall())

    def row(self, query: str, values: Sequence[Any] = ()) -> Any:
        """The first row of a query, or None."""

        def first() -> Any:
            cursor = self.connection.execute(query, values)
            try:
                return cursor.fetchone()
            finally:
                cursor.close()  # a statement that is not at its end keeps others from writing

        return self._patiently("read", first)

    def _patiently(self, verb: str, call: Callable[[], T]) -> T:
        """Do it, again while the file is locked: a process can be stopped meanwhile, and other threads can fork."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with forks.undivided():
                    return call()
            except sqlite3.Error as error:
                if not _is_locked(error) or time.monotonic() > until:
                    raise self._words(verb, error) from error
            time.sleep(0.002)

    def store(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """``work`` in a transaction, for what follows from other files: where nothing can be written it is kept in memory."""
        if os.path.exists(self.path):
            try:
                with self.transaction() as db:
                    return work(db)
            except (errors.NoSpace, errors.PermissionDenied):
                pass
        memory = self._patiently("open", lambda: self.connection)
        if getattr(self._local, "memory", (None,))[0] is not memory:
            memory = self._patiently("copy", self._in_memory)
        return work(memory)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the body's statements or none of them; on the disk when it returns."""
        self._fault("inventory: begin")
        self.make()
        db = self.connection
        until = time.monotonic() + PATIENCE
        pid = os.getpid()
        while True:
            with forks.undivided():
                try:
                    db.execute("BEGIN IMMEDIATE")
                except sqlite3.Error as error:
                    if not _is_locked(error) or time.monotonic() > until:
                        raise self._words("write", error) from error
                else:
                    try:
                        yield db
                        if pid != os.getpid():
                            raise errors.HostError("a forked process cannot end its parent's work on the inventory")
                        self._fault("inventory: commit")
                        self._commit(db, until)
                    except BaseException as error:
                        if pid == os.getpid():
                            with suppress(sqlite3.Error):
                                db.execute("ROLLBACK")
                        if isinstance(error, sqlite3.Error):
                            raise self._words("write", error) from error
                        raise
                    self._fault("passed: inventory committed")
                    return
            time.sleep(0.002)

    @staticmethod
    def _commit(db: sqlite3.Connection, until: float) -> None:
        while True:
            try:
                db.execute("COMMIT")
                return
            except sqlite3.OperationalError as error:
                # Who reads at this instant ends soon, and nobody can begin to.
                if not _is_locked(error) or time.monotonic() > until:
                    raise

    def _words(self, verb: str, error: sqlite3.Error) -> errors.PoolkitError:
        said = str(error)
        what = f"cannot {verb} the inventory '{self.path}'"
        folder = os.path.dirname(self.path)
        if _is_locked(error):
            return errors.Busy(
                f"{what}: others have been at work on it for {PATIENCE:.0f} seconds",
                hint="try again when they have ended",
            )
        if "full" in said or ("I/O" in said and _is_full(folder)):
            return errors.NoSpace(f"{what}: the file system of '{folder}' is full", hint="make room there")
        if "readonly" in said or ("unable to open" in said and not os.access(folder, os.W_OK)):
            return errors.PermissionDenied(
                f"{what}: it cannot be written", hint=f"is the file system of '{folder}' mounted read-only?"
            )
        hint = None
        if "malformed" in said:
            hint = (
                f"the file is damaged: move it away, and pools are inactive until they are started again ({self.path})"
            )
        return errors.HostError(f"{what}: {error}", hint=hint)

    def _open(self) -> sqlite3.Connection:
        while True:
            try:
                return self._connect()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self._set_aside()

    def _set_aside(self) -> None:
        """Move a file that is no database away, under a lock: another process may have made a good one meanwhile."""
        try:
            with open(f"{self.path}.lock", "a", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    self._connect().close()
                except sqlite3.OperationalError:
                    return
                except sqlite3.DatabaseError:
                    for suffix in ("-wal", "-shm", "-journal", ""):
                        with suppress(FileNotFoundError):
                            os.replace(self.path + suffix, f"{self.path}.damaged{suffix}")
                finally:
                    fcntl.flock(lock, fcntl.LOCK_UN)
        except OSError as error:
            raise errors.from_os_error(error, f"set the damaged inventory '{self.path}' aside") from error

    def _connect(self) -> sqlite3.Connection:
        folder = os.path.dirname(self.path)
        try:
            new = not os.path.isdir(folder)
            private.make(folder)
            if new:
                _write_in_place(folder)
        except OSError as error:
            raise errors.from_os_error(error, f"make the folder of '{self.path}'") from error
        with forks.undivided():
            # Connections are closed by whichever thread closes the engine.
            db = sqlite3.connect(self.path, timeout=0.05, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA mmap_size=0")
                if db.execute("PRAGMA user_version").fetchone()[0] != self._version:
                    self._create(db)
                # The journal's blocks stay its own, so that a full disk does not stop a small change. Whoever reads waits for
                # the commit alone, also of what is larger than the cache.
                db.execute("PRAGMA journal_mode=PERSIST").fetchone()
                db.execute("PRAGMA journal_size_limit=1048576").fetchone()
                db.execute("PRAGMA synchronous=FULL")
                db.execute("PRAGMA cache_spill=OFF")
            except BaseException:
                db.close()
                raise
        return db

    def _create(self, db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA user_version").fetchone()[0] <= self._version:
            db.execute("PRAGMA journal_mode=PERSIST").fetchone()  # one of the first version has a write-ahead log
        db.execute("BEGIN IMMEDIATE")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > self._version:
            raise errors.HostError(
                f"the inventory '{self.path}' was written by a later version of poolkit", hint="use that version"
            )
        if version < self._version:
            self._upgrade(db, version)
            db.execute(f"PRAGMA user_version={self._version}")
        db.execute("COMMIT")


def execute(db: sqlite3.Connection, script: str) -> None:
    """The statements of a script, within the transaction that is open."""
    for statement in script.split(";")[:-1]:
        db.execute(statement)


def _write_in_place(folder: str) -> None:
    """Turn copy-on-write off for what a new folder will hold (btrfs): a full disk has no block for a copy."""
    get, set, nocow = 0x80086601, 0x40086602, 0x00800000  # linux/fs.h: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_NOCOW_FL
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # other file systems have no such flag
            flags = int.from_bytes(fcntl.ioctl(fd, get, bytes(8)), "little")
            fcntl.ioctl(fd, set, (flags | nocow).to_bytes(8, "little"))
    finally:
        os.close(fd)


def _is_locked(error: sqlite3.Error) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _is_full(folder: str) -> bool:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return False
    return facts.f_bavail * facts.f_frsize < 65536


def _no_fault(label: str) -> None:
    """Outside tests nothing is injected."""


_was_cut = False


def _in_child(cut: bool) -> None:
    global _was_cut  # noqa: PLW0603 - of this process
    _was_cut = _was_cut or cut
    if cut:
        # Ended with this process, they would take back what the parent is writing.
        import ctypes
        import gc

        for found in gc.get_objects():
            if isinstance(found, Database):
                for db in found._all.values():
                    ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))


forks.in_child(_in_child)
