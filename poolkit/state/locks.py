"""Who works on what: one file per piece of work in progress, locked by its worker as long as it lives.

Work on a whole pool (define, start, destroy ...) excludes all other work on it; work on a volume excludes work on the same
volume and work on the whole pool; reading takes no lock at all. The file of a piece of work says in JSON who does what
since when, so that a refusal can name it. The kernel drops the lock (flock(2)) when its process dies, however it dies.

Who has to wait takes a ticket, and whoever comes later and conflicts waits behind it: work on a whole pool gets its turn
however many volumes are worked on.

Where a full disk takes no new file, the pool's folder itself is locked instead, which excludes all other work on the pool: a
volume can be deleted, so that there is room again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import contextmanager, suppress
from functools import cache
from threading import local

from poolkit import errors
from poolkit.host import forks, private
from poolkit.host.descriptors import read_at, write_at
from poolkit.lean import TYPE_CHECKING, dumps, loads
from poolkit.values import value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


GATE = 10.0
"""Seconds that are waited at least for a gate, which is held for milliseconds: longer means a process that was stopped in it."""
RECOVERY = 5.0
"""Seconds that are waited at least while another process takes back what a dead one left; whoever waits would do the same."""
_TRIES = 100
_FULL = (errno.ENOSPC, errno.EDQUOT)
_GATE = "gate"  # no file of work has this name: those begin with a number


@value(frozen=True)
class Work:
    """One piece of work in progress. ``volume`` is None for work on the whole pool; ``since`` is seconds since 1970.

    ``ticket`` is 0 for work that is at work; who waits has a number, and goes in the order of numbers.
    """

    pool: str
    verb: str
    volume: str | None
    pid: int
    user: str
    since: float
    shared: bool = False
    ticket: int = 0

    def __str__(self) -> str:
        started = time.strftime("%H:%M:%S", time.localtime(self.since))
        what = f"{self.verb} of volume '{self.volume}'" if self.volume else self.verb
        waits = ", which waits its turn" if self.ticket else ""
        who = f"process {self.pid} ({self.user})" if self.pid else "a process that could note nothing on a full disk"
        return f"{what} by {who} since {started}{waits}"

    def waiting(self, ticket: int) -> Work:
        """The same work while it waits its turn."""
        return Work(self.pool, self.verb, self.volume, self.pid, self.user, self.since, self.shared, ticket)

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
        self._mine = local()

    @contextmanager
    def work(
        self,
        pool: str,
        verb: str,
        *,
        volume: str | None = None,
        shared: bool = False,
        wait: float = 0.0,
        check: Callable[[], None] | None = None,
    ) -> Iterator[Work | None]:
        """Do work while nothing that conflicts is in progress; raises ``Busy`` after ``wait`` seconds of waiting.

        ``check`` is called while waiting, so that an abort can end it. Work that only reads a volume is done unlocked where
        nothing can be written, and gets None.
        """
        mine = Work(pool, verb, volume, os.getpid(), _user(os.getuid()), time.time(), shared)
        folder = os.path.join(self.directory, _quote(pool))
        held = False
        try:
            with self._held(folder, mine, wait, check):
                held = True
                self._mine.count = getattr(self._mine, "count", 0) + 1
                try:
                    yield mine
                finally:
                    self._mine.count -= 1
        except errors.PermissionDenied:
            if held or volume is None or not shared:
                raise
        if not held:
            for other, _ in self._alive(folder, gated=False):
                if mine.conflicts(other) and not other.ticket:
                    raise _busy(mine, other)
            yield None

    @contextmanager
    def _held(self, folder: str, mine: Work, wait: float, check: Callable[[], None] | None) -> Iterator[None]:
        began = time.monotonic()
        pause = 0.001
        pid = os.getpid()
        path, fd, ticket = "", -1, 0
        try:
            while True:
                with self._gate(folder, wait, check):
                    own = (path, *getattr(self._mine, "folders", ()))
                    others = [w for w, other in self._alive(folder) if other not in own and mine.conflicts(w)]
                    # Work within work goes before those who wait: they wait for what this thread holds.
                    nested = getattr(self._mine, "count", 0) > 0
                    busy = next(
                        (w for w in others if not w.ticket or (not nested and (not ticket or w.ticket < ticket))), None
                    )
                    if busy is None:
                        if fd < 0:
                            path, fd = self._enter(folder, mine)
                            if path == folder:
                                self._mine.folders = {*getattr(self._mine, "folders", ()), folder}
                        elif ticket:
                            _write(fd, mine)
                        break
                    if fd < 0 and wait > 0:
                        ticket = 1 + max((w.ticket for w, _ in self._alive(folder)), default=0)
                        with suppress(errors.NoSpace):  # it waits without a ticket
                            path, fd = self._make(folder, mine.waiting(ticket))
                if check is not None:
                    check()
                patience = max(wait, RECOVERY) if busy.verb == "recover" else wait
                if time.monotonic() - began >= patience:
                    raise _busy(mine, busy)
                time.sleep(pause)
                pause = min(pause * 2, 0.1)
            yield
        finally:
            if fd >= 0 and pid == os.getpid():  # a child that was forked meanwhile ends nothing
                if path == folder:
                    self._mine.folders = getattr(self._mine, "folders", {folder}) - {folder}
                else:
                    _remove(path)
                forks.release(fd)

    @contextmanager
    def definitions(self, check: Callable[[], None] | None = None) -> Iterator[None]:
        """The short lock for comparing a definition with all others and writing it; waits, as it is held for milliseconds.

        ``Busy`` when a process stays in it for ``GATE`` seconds.
        """
        with self._gate(os.path.join(self.directory, "%definitions"), 0.0, check):
            yield

    @contextmanager
    def secrets(self) -> Iterator[None]:
        """The short lock for changing a secret; as :meth:`definitions`."""
        with self._gate(os.path.join(self.directory, "%secrets"), 0.0, None):
            yield

    @contextmanager
    def flavors(self) -> Iterator[None]:
        """The short lock for changing a flavor; as :meth:`definitions`."""
        with self._gate(os.path.join(self.directory, "%flavors"), 0.0, None):
            yield

    def current(self, pool: str) -> list[Work]:
        """The work in progress on a pool, oldest first. Takes no lock that others wait for."""
        folder = os.path.join(self.directory, _quote(pool))
        return sorted((w for w, _ in self._alive(folder, gated=False)), key=lambda w: w.since)

    def forget(self, pool: str) -> None:
        """Remove the folder of a pool that is gone. It stays while anybody works on the pool, and where it cannot be removed."""
        folder = os.path.join(self.directory, _quote(pool))
        with suppress(OSError, errors.PoolkitError):
            if not os.path.isdir(folder):
                return
            with self._gate(folder, 0.0, None):
                if not self._alive(folder):
                    os.unlink(os.path.join(folder, _GATE))
                    os.rmdir(folder)

    @contextmanager
    def _gate(self, folder: str, wait: float, check: Callable[[], None] | None) -> Iterator[None]:
        private.check(folder)
        until = time.monotonic() + max(wait, GATE)
        pid = os.getpid()
        fd = self._open_gate(folder)
        try:
            while True:
                if _try(fd):
                    if os.fstat(fd).st_nlink:
                        break
                    forks.release(fd)  # the pool was forgotten meanwhile: this is the gate of nothing
                    fd = self._open_gate(folder)
                    continue
                if check is not None:
                    check()
                if time.monotonic() > until:
                    raise errors.Busy(
                        f"'{folder}/{_GATE}' has been locked by another process for {max(wait, GATE):.0f} seconds",
                        hint=f"see which one with: fuser -v {folder}/{_GATE}",
                    )
                time.sleep(0.002)
            yield
        finally:
            if pid == os.getpid():
                forks.release(fd)

    @staticmethod
    def _open_gate(folder: str) -> int:
        tries = 0
        while True:
            try:
                with forks.undivided():
                    fd = private.open_private(os.path.join(folder, _GATE), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
                    forks.hold(fd)
                return fd
            except OSError as error:
                tries += 1
                # Others may forget the pool, and make its folder and forget it again, between any two steps of this.
                if not isinstance(error, (FileNotFoundError, FileExistsError)) or tries == _TRIES:
                    raise errors.from_os_error(error, f"lock '{folder}'") from error

    def _enter(self, folder: str, work: Work) -> tuple[str, int]:
        """The path of the file that stands for the work, and its locked descriptor; the folder where no file can be made."""
        try:
            return self._make(folder, work)
        except errors.NoSpace as full:
            fd = -1
            try:
                with forks.undivided():
                    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    forks.hold(fd)
                nested = folder in getattr(self._mine, "folders", ())
                until = time.monotonic() + (0.0 if nested else GATE)
                while not _try(fd):  # at work nobody is, but who looks has it for a moment
                    if time.monotonic() > until:
                        raise full
                    time.sleep(0.002)
            except (OSError, errors.HostError):
                forks.release(fd)
                raise full from None
            return folder, fd

    def _make(self, folder: str, work: Work) -> tuple[str, int]:
        path = os.path.join(folder, f"{work.pid}-{os.urandom(6).hex()}")
        fd = -1
        try:
            with forks.undivided():
                fd = private.open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
                forks.hold(fd)
            fcntl.flock(fd, fcntl.LOCK_EX)
            _write(fd, work)
        except OSError as error:
            if fd >= 0:
                _remove(path)
                forks.release(fd)
            raise errors.from_os_error(error, f"note the work in '{folder}'") from error
        return path, fd

    def _alive(self, folder: str, gated: bool = True) -> list[tuple[Work, str]]:
        """Work files that are locked. A file that nobody locks is left over from a dead process and is removed."""
        found = []
        try:
            here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if _is_locked(here):
                    found.append((_unknown(folder, ""), folder))
                for name in os.listdir(here):
                    path = os.path.join(folder, name)
                    fd = -1 if name == _GATE else _look(name, here)
                    if fd < 0:
                        continue
                    try:
                        if _is_locked(fd):
                            found.append((_read(fd) or _unknown(folder, name), path))
                        # Written and locked under the gate; unlocked and unlinked means ended, unlocked and present means died.
                        elif gated or _read(fd) is not None:
                            _remove(path)
                    finally:
                        os.close(fd)
            finally:
                os.close(here)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise errors.from_os_error(error, f"see who works in the folder '{folder}'") from error
        return found


def _busy(mine: Work, other: Work) -> errors.Busy:
    return errors.Busy(
        f"pool '{mine.pool}' is busy: {other}",
        pool=mine.pool,
        volume=mine.volume,
        hint=errors.Hint("try again when it has ended, or wait for it: ", errors.Option("wait", 60)),
    )


def _look(name: str, folder: int) -> int:
    """A descriptor of a work file; -1 if it is gone or is none. What cannot be opened may be at work: ``OSError``."""
    try:
        return os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO):
            return -1
        raise


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look are no holder
    except BlockingIOError:
        return True
    return False


def _remove(path: str) -> None:
    """Remove a work file; one that stays is removed by whoever looks next, since nobody locks it."""
    with suppress(OSError):
        os.unlink(path)


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise errors.from_os_error(error, "lock a file of poolkit's own") from error
    return True


def _write(fd: int, work: Work) -> None:
    """Say who works. A full disk may refuse these bytes: the lock alone stands for work on the whole pool then."""
    facts = {name: getattr(work, name) for name in Work.__annotations__}
    data = dumps(facts).encode()
    try:
        os.ftruncate(fd, 0)
        write_at(fd, data, 0)
    except OSError as error:
        if error.errno not in _FULL:
            raise


def _unknown(folder: str, name: str) -> Work:
    pid = name.partition("-")[0]
    return Work(os.path.basename(folder), "work", None, int(pid) if pid.isdigit() else 0, "", time.time())


def _read(fd: int) -> Work | None:
    try:
        facts: dict[str, Any] = loads(read_at(fd, 65536, 0))
        return Work(**facts)
    except (ValueError, TypeError):
        return None


def _quote(name: str) -> str:
    """A file name for any name: readable where it can be, else a digest (255 bytes is all a file name may have)."""
    if name.isascii() and len(name) < 200 and all(c.isalnum() or c in "-_." for c in name) and name[0] != ".":
        return name
    import hashlib

    return "%" + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40]


@cache
def _user(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return str(uid)
