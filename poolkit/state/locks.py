"""Who works on what: one file per piece of work in progress, locked by its worker as long as it lives.

Work on a whole pool (define, start, destroy ...) excludes all other work on it; work on a volume excludes work on the same
volume and work on the whole pool; reading takes no lock at all. The file of a piece of work says in JSON who does what
since when, so that a refusal can name it. The kernel drops the lock (flock(2)) when its process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from poolkit import errors
from poolkit.values import value


@value(frozen=True)
class Work:
    """One piece of work in progress. ``volume`` is None for work on the whole pool; ``since`` is seconds since 1970."""

    pool: str
    verb: str
    volume: str | None
    pid: int
    user: str
    since: float
    shared: bool = False

    def __str__(self) -> str:
        started = time.strftime("%H:%M:%S", time.localtime(self.since))
        what = f"{self.verb} of volume '{self.volume}'" if self.volume else self.verb
        return f"{what} by process {self.pid} ({self.user}) since {started}"

    def conflicts(self, other: Work) -> bool:
        """Whether the two may not run at once.

        Unshared work on the whole pool excludes everything; otherwise only work on the same volume conflicts, unless
        both only read it.
        """
        if (self.volume is None and not self.shared) or (other.volume is None and not other.shared):
            return True
        return self.volume is not None and self.volume == other.volume and not (self.shared and other.shared)


class Locks:
    """The folder of work files. Names of pools and volumes are quoted, so any name is a file name."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    @contextlib.contextmanager
    def work(
        self,
        pool: str,
        verb: str,
        *,
        volume: str | None = None,
        shared: bool = False,
        wait: float = 0.0,
        check: Callable[[], None] | None = None,
    ) -> Iterator[Work]:
        """Do work while nothing that conflicts is in progress; raises ``Busy`` after ``wait`` seconds of waiting.

        ``check`` is called while waiting, so that an abort can end it.
        """
        mine = Work(pool, verb, volume, os.getpid(), _user(os.getuid()), time.time(), shared)
        folder = os.path.join(self.directory, _quote(pool))
        deadline = time.monotonic() + wait
        pause = 0.001
        while True:
            with self._gate(folder):
                busy = next((w for w, _ in self._alive(folder) if mine.conflicts(w)), None)
                if busy is None:
                    path, fd = self._enter(folder, mine)
                    break
            if check is not None:
                check()
            if time.monotonic() >= deadline:
                raise errors.Busy(
                    f"pool '{pool}' is busy: {busy}",
                    pool=pool,
                    volume=volume,
                    hint="try again when it has ended, or let poolkit wait with --wait SECONDS",
                )
            time.sleep(pause)
            pause = min(pause * 2, 0.1)
        try:
            yield mine
        finally:
            # The gate keeps the folder from vanishing between another process's look and its lock.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.close(fd)

    @contextlib.contextmanager
    def definitions(self) -> Iterator[None]:
        """The short lock for comparing a definition with all others and writing it; waits, as it is held for milliseconds."""
        with self._gate(os.path.join(self.directory, "%definitions")):
            yield

    def current(self, pool: str) -> list[Work]:
        """The work in progress on a pool, oldest first. Takes no lock that others wait for."""
        folder = os.path.join(self.directory, _quote(pool))
        return sorted((w for w, _ in self._alive(folder)), key=lambda w: w.since)

    @contextlib.contextmanager
    def _gate(self, folder: str) -> Iterator[None]:
        fd = open_private(folder + ".gate", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _enter(self, folder: str, work: Work) -> tuple[str, int]:
        path = os.path.join(folder, f"{work.pid}-{os.urandom(6).hex()}")
        fd = open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        fcntl.flock(fd, fcntl.LOCK_EX)
        facts = {name: getattr(work, name) for name in Work.__annotations__}
        os.write(fd, json.dumps(facts).encode())
        return path, fd

    def _alive(self, folder: str) -> list[tuple[Work, str]]:
        """Work files that are locked. A file that nobody locks is left over from a dead process and is removed."""
        found = []
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return []
        for name in names:
            path = os.path.join(folder, name)
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look are no holder
            except BlockingIOError:
                work = _read(fd)
                if work is not None:
                    found.append((work, path))
            else:
                # Written and locked under the gate; unlocked and unlinked means ended, unlocked and present means died.
                if _read(fd) is not None:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
            finally:
                os.close(fd)
        return found


def open_private(path: str, flags: int) -> int:
    """Open or make one of poolkit's own files, for its user alone, and the folder if that is missing."""
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _read(fd: int) -> Work | None:
    try:
        facts: dict[str, Any] = json.loads(os.pread(fd, 65536, 0))
        return Work(**facts)
    except (ValueError, TypeError):
        return None


def _quote(name: str) -> str:
    """A file name for any name: readable where it can be, else a digest (255 bytes is all a file name may have)."""
    if name.isascii() and len(name) < 200 and all(c.isalnum() or c in "-_." for c in name) and name[0] != ".":
        return name
    import hashlib

    return "%" + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40]


@functools.cache
def _user(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return str(uid)
