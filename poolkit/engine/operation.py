"""One verb at work: its lock, its view of the host, its journal, and the recovery of what died before it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext, suppress
from types import MappingProxyType

from poolkit import errors
from poolkit.host import private
from poolkit.host.kernel import boot
from poolkit.host.undo import identity
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING
from poolkit.values import value

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import Any, BinaryIO

    from poolkit.backend import VolumeInfo
    from poolkit.host import journal as journals
    from poolkit.host import rights, rollback
    from poolkit.host.port import Host
    from poolkit.host.undo import Undo
    from poolkit.state.inventory import Inventory
    from poolkit.state.locks import Locks
else:
    journals = later(globals(), "journals", "poolkit.host.journal")
    rights = later(globals(), "rights", "poolkit.host.rights")
    rollback = later(globals(), "rollback", "poolkit.host.rollback")


PATIENCE = 5.0
"""Seconds that a verb waits at least for a program that a dead process had started on its pool."""

Progress = Callable[[int, int, str], None]


@value(frozen=True, ignore=("plan",))
class Outcome:
    """What a verb did. True in a condition when it changed something.

    ``pending`` names the fields of a changed definition that wait for the next start: (path, running value, new value).
    ``plan`` has the changes in order: what a dry run would do, or what was done. ``removed`` and ``stays`` say what ``delete``
    took away and what it left, in words (empty for nothing); None with all other verbs.
    """

    changed: bool
    message: str = ""
    pending: tuple[tuple[str, Any, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    plan: tuple[str, ...] = ()
    removed: str | None = None
    stays: str | None = None

    def __bool__(self) -> bool:
        return self.changed


@value()
class Operation:
    """Handed to the body of a verb."""

    host: Host
    journal: journals.Journal
    listed: Mapping[str, VolumeInfo] = MappingProxyType({})
    """The new volumes that are on record already, by name."""
    more: bool = False
    """Whether other volumes are to be made before the verb is complete."""
    unmark: str | None = None
    """The key of the volume that is half-written no more, once it is listed as it is now."""

    @property
    def id(self) -> str | None:
        """Marks the inventory's transaction that completes the verb; None while there is nothing to undo, or more to do."""
        return self.journal.ident if self.journal.steps and not self.more else None

    @property
    def dry(self) -> bool:
        """Whether nothing may be written."""
        return self.host.dry_run

    def stands_on(self, place: str) -> None:
        """Its undo steps mean files below ``place``: after a reboot they wait until the same mount point is mounted again."""
        mount = self.host.locate(place)[1]
        if mount is not None and mount.target != "/":
            self.journal.facts["mount"] = mount.target

    def plan(self) -> tuple[str, ...]:
        """The changes so far, as lines."""
        return tuple(self.host.redact(str(step)) for step in self.host.plan)

    def outcome(self, changed: bool, message: str, *, removed: str | None = None, stays: str | None = None) -> Outcome:
        """What the verb did, with its plan and its warnings."""
        warnings = tuple(self.host.warnings)
        return Outcome(changed, message, warnings=warnings, plan=self.plan(), removed=removed, stays=stays)


class Operations:
    """Runs verbs: see :meth:`run`."""

    def __init__(self, host: Host, locks: Locks, inventory: Inventory, journals: str) -> None:
        self.host = host
        self.locks = locks
        self.inventory = inventory
        self.journals = journals

    @contextmanager
    def run(
        self,
        pool: str,
        verb: str,
        *,
        volume: str | None = None,
        shared: bool = False,
        wait: float = 0.0,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Operation]:
        """Do a verb: nothing conflicting at the same time, and either all of it or nothing.

        Whatever the body raises, the changes it made through the host are undone, newest first, and the error
        leaves as one of poolkit's. ``Busy`` after ``wait`` seconds.
        """
        abort = abort or self.host.abort
        with self._worded(pool, verb, volume):
            with self.lock(pool, verb, volume, shared, wait, abort) as locked:
                if locked:
                    self.inventory.make()
                    self.recover(pool, patience=max(wait, PATIENCE))
                ident = os.urandom(8).hex()
                journal = journals.Journal(self.journals, ident, {"pool": pool, "verb": verb, "volume": volume})
                host = self.host.operation(journal=journal, abort=abort, progress=progress)
                host.cautious = self.inventory.damaged
                try:
                    yield Operation(host, journal)
                except BaseException as error:
                    # What was never listed before only: its storage answered a moment ago.
                    steps = [step for step in journal.steps if step.field("known")] if journal.ours else []
                    failures = rollback.roll_back(journal, host)
                    with suppress(OSError, errors.PoolkitError):  # the next listing says what is there
                        self._forget_gone(steps)
                    self.inventory.forget_operation(ident)
                    if not failures or not isinstance(error, (OSError, errors.PoolkitError)):
                        raise
                    told = error if isinstance(error, errors.PoolkitError) else worded(error, pool, verb, volume)
                    told.hint = errors.Hint.joined(told.hint, *failures)
                    raise told from error.__cause__ or (None if told is error else error)
                else:
                    marked = bool(journal.steps)
                    if marked and host.fault is not None:
                        host.fault("passed: done")
                    try:
                        rollback.complete(journal)
                    except OSError as error:
                        if not self.inventory.completed(ident):
                            raise
                        # All of it is done and committed; the next verb finishes what is left, which the journal names.
                        host.warn(f"what was put aside for an undo could not be removed yet: {error.strerror}")
                        return
                    if marked:
                        self.inventory.forget_operation(ident)

    def lock(
        self, pool: str, verb: str, volume: str | None, shared: bool, wait: float, abort: threading.Event
    ) -> AbstractContextManager[object]:
        """Keep out what conflicts: ``Busy`` after ``wait`` seconds. Nothing in a dry run."""
        if self.host.dry_run:
            return nullcontext()

        def check() -> None:
            if abort.is_set():
                raise errors.Aborted("stopped while waiting for other work")

        return self.locks.work(pool, verb, volume=volume, shared=shared, wait=wait, check=check)

    @contextmanager
    def _worded(self, pool: str, verb: str, volume: str | None) -> Iterator[None]:
        try:
            yield
        except errors.PoolkitError as error:
            error.pool = error.pool or pool
            error.volume = error.volume or volume
            raise
        except OSError as error:
            raise worded(error, pool, verb, volume) from error

    # -- recovery -------------------------------------------------------------------------------------------------

    def recover(self, pool: str | None = None, *, patience: float = 0.0, waiting: bool = False) -> list[str]:
        """Undo what processes that died had begun (on one pool, or on all); returns a line for each such operation.

        What waits, for a server that did not answer or a disk that failed, is tried again by work on its pool, and with
        ``waiting``.
        A program that a dead process had started may still be at work. On one pool it is waited for, ``patience`` seconds,
        then ``Busy``; else its operation is left for later.
        """
        try:
            return self._recover_all(pool, patience, waiting)
        except OSError as error:
            raise errors.from_os_error(error, f"look for what dead processes left in '{self.journals}'") from error

    def _recover_all(self, pool: str | None, patience: float, waiting: bool) -> list[str]:
        lines = []
        passed_over: tuple[type[Exception], ...] = (FileNotFoundError, PermissionError, errors.Busy)
        if not waiting:  # who only reads must not be stopped; whoever works on that pool is
            passed_over += (errors.PermissionDenied, errors.NoSpace)
        away: set[str] = set()  # mount points whose servers did not answer
        for path in self.left():
            with suppress(FileNotFoundError, PermissionError):
                if pool is not None:
                    lines += self._recover(path, pool, patience, away)
                    continue
            with suppress(*passed_over):
                # Nobody may begin work on that pool while what is left of the last is taken back.
                head = journals.read(path)[0]
                owner = head.get("pool")
                if owner is None:
                    lines += self._headless(path)
                elif (waiting or not head.get("later")) and not _alive(path):
                    with self.locks.work(owner, "recover"):
                        lines += self._recover(path, owner, 0.0, away)
        return lines

    def _recover(self, path: str, pool: str, patience: float, away: set[str]) -> list[str]:
        with _left_behind(path) as (left, head, steps):
            if not left or head.get("pool") != pool:
                return []
            if not any(step.counts for step in steps):
                journals.remove(path)
                return []
            mount = head.get("mount")
            if mount and self.host.operation().mount_at(mount) is None:
                return []  # its files are away: what they are in the way of is another directory
            _wait_for_program(head, patience)
            what = f"{head.get('verb')} of pool '{head.get('pool')}' by process {head.get('pid')}"
            ident = str(head.get("id"))
            if not head.get("later") and self.inventory.completed(ident) and _has_appeared(steps):
                rollback.finish(steps)
                journals.remove(path)
                self.inventory.forget_operation(ident)
                return [f"finished: {what}"]
            host = self.host.operation()
            if head.get("boot", boot()) != boot():
                steps = [rollback.after_boot(step, host) for step in steps]
            undone = rollback.undo_all(steps, host, away)
            self._forget_gone(steps)
            if undone.failures:
                journals.put_aside(path, later=undone.later)
            else:
                journals.remove(path)
            return [f"undone: {what}", *(str(step) for step in steps if step.kind == "tell"), *undone.failures]

    def _forget_gone(self, steps: list[Undo]) -> None:
        """List no more what a verb had removed when it ended before its end, or what it had listed before it was there."""
        for step in steps:
            if step.kind != "gone" or not step.counts:
                continue
            pool, name, path, known = (step.field(field) for field in ("pool", "name", "path", "known"))
            if known is not None:
                listed = self.inventory.volume(pool, name)
                stale = listed is not None and listed.inode == known[1]
            else:
                stale = not os.path.lexists(path)
            if stale:
                self.inventory.drop_volume(pool, name, paths=[path])

    @staticmethod
    def _headless(path: str) -> list[str]:
        """End a journal that does not say whose it is: its process died before it had written that, or the file is damaged."""
        with _left_behind(path) as (left, head, steps):
            if not left or "pool" in head:
                return []
            if not steps:
                journals.remove(path)
                return []
            os.replace(path, path + ".failed")
            return [f"put aside: the journal '{path}' is damaged; what it would have undone is not known"]

    def left(self, ending: str = ".journal") -> list[str]:
        """The files of journals: of operations at work and of dead ones that have not been taken back."""
        return private.files(self.journals, ending)

    def waiting(self) -> list[str]:
        """Journals of dead operations whose undo is tried again, as when a server did not answer."""
        found = []
        for path in self.left():
            with suppress(FileNotFoundError, PermissionError):
                if journals.read(path)[0].get("later"):
                    found.append(path)
        return found

    def failed(self) -> list[str]:
        """Journals of dead operations that could not be undone completely."""
        return self.left(".failed")


def _alive(path: str) -> bool:
    """Whether the operation of a journal is at work: then its pool is left alone."""
    fd = private.open_ours(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _has_appeared(steps: list[Undo]) -> bool:
    """Whether what was listed before it was there has come to be there, and has no private name besides."""
    listed = [step for step in steps if step.kind == "gone" and step.field("known") is not None]
    for step in listed:
        try:
            if identity(os.lstat(step.field("path"))) != step.field("known"):
                return False
        except FileNotFoundError:
            return False
    temporary = [step.field("path") for step in steps if step.kind == "unlink" and step.field("known") is None]
    return not (listed and any(map(os.path.lexists, temporary)))


@contextmanager
def _left_behind(path: str) -> Iterator[tuple[bool, dict[str, Any], list[Undo]]]:
    """Whether a journal's operation is dead, which lasts through the body, and what the journal has."""
    with open(private.open_ours(path), "rb") as file:
        if not _own(file):
            yield False, {}, []
            return
        # Without a name: it has been taken back between the look for it and the lock.
        yield os.fstat(file.fileno()).st_nlink > 0, *journals.parse(file.read())


def _own(file: BinaryIO) -> bool:
    """Lock the journal of a dead operation. Who only looks whether it is dead has it locked for a moment, and is waited for."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            pass
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False  # it is at work, or is being taken back
        fcntl.flock(file, fcntl.LOCK_UN)
        if time.monotonic() > until:
            return False
        time.sleep(0.002)


def _wait_for_program(head: dict[str, Any], patience: float) -> None:
    """Wait until the last program of a dead operation has ended; ``Busy`` if that takes longer."""
    deadline = time.monotonic() + patience
    while journals.alive(head):
        if time.monotonic() > deadline:
            raise errors.Busy(
                f"pool '{head.get('pool')}' is busy: process {head.get('pid')} died in {head.get('verb')}, and the program "
                f"that it had started (process {head.get('running')}) is still at work",
                hint="try again when it has ended; what it does is taken back then",
            )
        time.sleep(0.05)


def worded(error: OSError, pool: str, verb: str, volume: str | None) -> errors.HostError:
    """An error of the system in words: what could not be done, where, and whose right it is that is missing."""
    what = f"volume '{volume}' of pool '{pool}'" if volume else f"pool '{pool}'"
    named = error.filename if isinstance(error.filename, (str, bytes)) else None
    where = f" ('{os.fsdecode(named)}')" if named else ""
    told = errors.from_os_error(error, f"{said(verb)} {what}{where}", pool=pool, volume=volume)
    if error.errno == errno.EFBIG:
        told.hint = "the file system has no files so large, or this user may make none (ulimit -f)"
    if named and told.hint is None:
        path = os.fsdecode(named)
        # Who may take a name away is a matter of the folder, unless the file itself is kept from it.
        folder = verb == "vol-delete" and not (error.errno == errno.EPERM and rights.kept_as_it_is(path))
        told.hint = _rights(error, os.path.dirname(path) if folder else path)
    return told


def _rights(error: OSError, path: str) -> str | None:
    """Whose right it is that is missing: the owner and mode of what is there, or of the folder where something was to be."""
    if error.errno == errno.EROFS:
        return "the file system is mounted read-only"
    if error.errno not in (errno.EACCES, errno.EPERM) or not path.startswith("/"):
        return None
    while True:
        try:
            facts = os.stat(path, follow_symlinks=False)
            break
        except OSError:
            if path == "/":
                return None
            path = os.path.dirname(path)
    if error.errno == errno.EPERM and (kept := rights.kept_as_it_is(path)):
        return f"'{path}' is {kept}: chattr -{kept[0]} '{path}'"
    mode = f"{stat.S_IMODE(facts.st_mode):04o}"
    whose = f"'{path}' is of user {facts.st_uid} and group {facts.st_gid} with mode {mode}; you are user {os.geteuid()}"
    need = stat.S_IRWXU if stat.S_ISDIR(facts.st_mode) else stat.S_IRUSR | stat.S_IWUSR
    lacks = facts.st_uid == os.geteuid() != 0 and facts.st_mode & need != need
    return f"{whose}, its owner: chmod u+rwX '{path}'" if lacks else whose


_SAID = {
    "permit": "change the permissions of",
    "info": "look at",
    "autostart": "mark for autostart",
    "adopt": "record the format of",
    "list": "list the volumes of",
    "lock-status": "tell the locks of",
    "take-control": "take control of",
    "disk-xml": "describe the disk of",
}


def said(verb: str) -> str:
    """A verb as a word of a sentence that begins with "cannot": not every name of a verb is an English one."""
    word = verb.removeprefix("vol-")
    return _SAID.get(word, word)
