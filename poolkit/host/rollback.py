"""Taking changes back: the undo steps of :mod:`poolkit.host.undo` are run, newest first."""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress

from poolkit import errors
from poolkit.host.descriptors import sync_directory, write_at
from poolkit.host.kernel import boot as this_boot
from poolkit.host.undo import KINDS, Undo, identity
from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from poolkit.host.journal import Journal
    from poolkit.host.port import Host

_AWAY = 60.0  # seconds that one step may take on a server that answers, but not to this
_AGAIN = "; it is tried again with the next verb on the pool"
_CALL = 180.0  # seconds that a function may take that ends by itself, such as one with the time-outs of a cluster


class Undone(NamedTuple):
    """What came of undo steps: a sentence for each that failed, and whether all that failed can be tried again."""

    failures: tuple[str, ...]
    later: bool


def complete(journal: Journal) -> None:
    """The operation is complete: let go of what an undo would have needed. What cannot go stays for the next verb to end."""
    if journal.ours:
        try:
            finish(journal.steps, alive=True)
        except BaseException:
            journal.leave()
            raise
        journal.close()


def finish(steps: Sequence[Undo], *, alive: bool = False) -> None:
    """End an operation that is complete: what it had put aside instead of removing it goes now.

    A new name is brought to the disk first, if the process is not ``alive`` that was to do so.
    """
    for step in steps:
        if step.kind == "gone" and step.field("known") is not None and not alive:
            _sync_parent(step)
        if step.kind == "restore":
            with suppress(FileNotFoundError):
                os.unlink(str(step.field("kept")))
                _sync_parent(step)


def roll_back(journal: Journal, host: Host) -> list[str]:
    """Run all steps of an operation. Returns a sentence for each that could not be undone.

    If there is one, the journal stays: as ``.failed`` for people to look at, or for the next verb on the pool where only
    a server did not answer, or the file system is away on which the work was done.
    """
    if not journal.ours:
        return []
    place = journal.facts.get("mount")
    if journal.steps and place and host.operation().mount_at(place) is None:
        # Below its mount point is another directory now, where nothing of this is found.
        journal.put_aside(later=True)
        return [f"'{place}' is mounted no more: what was begun is taken back with the next verb on the pool when it is"]
    undone = undo_all(journal.steps, host)
    failures = list(undone.failures)
    if undone.failures:
        journal.put_aside(later=undone.later)
    else:
        try:
            journal.close()
        except OSError as error:  # what it undoes is undone, and may be undone again
            failures.append(f"the journal '{journal.path}' could not be removed yet: {error.strerror}")
    return failures


def undo_all(steps: Sequence[Undo], host: Host, away: set[str] | None = None) -> Undone:
    """Run ``steps`` newest first; one failing does not stop the others. ``away`` is as for ``perform``."""
    away = set() if away is None else away
    failures = []
    later = True
    for step in reversed(steps):
        try:
            perform(step, host, away)
        except errors.Unreachable as error:
            failures.append(f"could not undo '{step}': {error}{_AGAIN}")
        except (OSError, errors.PoolkitError) as error:
            why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            # A step may be run twice, and what the system refuses now it may allow when a disk or a right was mended.
            again = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
            failures.append(f"could not undo '{step}': {why}{_AGAIN if again else ''}")
            later = later and again
    return Undone(tuple(failures), later)


def after_boot(step: Undo, host: Host) -> Undo:
    """A step that was written before the machine was started again: devices have other numbers then, or may have.

    The inode number tells the file, and the device is the one that it is on now. A server that hangs is not asked.
    """
    path, known = step.field("path"), step.field("known")
    if not isinstance(path, str) or not isinstance(known, list) or len(known) != 2:
        return step
    from poolkit.host.mounts import is_network, locate

    mount = locate(path, host.mounts())[1]
    if mount is not None and is_network(mount.fstype):
        major, _, minor = mount.device.partition(":")
        device = os.makedev(int(major), int(minor))
    else:
        try:
            device = os.lstat(path).st_dev
        except OSError:
            return step
    place = KINDS[step.kind][0].split().index("known")
    return Undo(step.kind, (*step.args[:place], [device, known[1]], *step.args[place + 1 :]))


def perform(step: Undo, host: Host, away: set[str]) -> None:
    """Run one undo step. What is already gone is fine; raises ``OSError`` or ``PoolkitError`` for anything else.

    A step on a network file system is done by a child process, which is given up when the server does not answer:
    ``Unreachable``. ``away`` keeps the mount points of such servers, which are not asked again.
    """
    path = step.field("path")
    if isinstance(path, str):
        from poolkit.host.mounts import is_network, locate

        mount = locate(path, host.mounts())[1]
        if mount is not None and is_network(mount.fstype):
            _perform_away(step, host, mount.target, away)
            return
    perform_here(host, step)


def _unstoppable(host: Host) -> Host:
    """A host of its own: neither an abort nor a fault that a test injects may stop an undo."""
    from poolkit.host.port import Host as Machine

    machine = Machine()
    machine.children = host.children
    machine.on_secret = host.on_secret
    return machine


def _perform_away(step: Undo, host: Host, target: str, away: set[str]) -> None:
    if target in away:
        raise errors.Unreachable(f"the server of '{target}' does not answer")
    from poolkit.host import worker

    machine = _unstoppable(host)
    until = time.monotonic() + _AWAY

    def alive() -> bool:
        return time.monotonic() < until and worker.answers(machine, target)

    try:
        worker.result(worker.run(machine, "poolkit.host.rollback:perform_here", (step,), answers=alive))
    except worker.Silent:
        away.add(target)
        raise errors.Unreachable(f"the server of '{target}' does not answer") from None


def perform_here(host: Host, step: Undo) -> None:
    """``perform`` in this process, wherever the step's path is."""
    act = _ACTS.get(step.kind)
    if act is None:
        raise errors.HostError(f"the journal holds an unknown undo step '{step.kind}'", hint="a newer poolkit wrote it")
    try:
        act(host, *step.args)
        _sync_parent(step)
    except FileNotFoundError:
        pass
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise errors.HostError(f"the undo step is damaged: {error}") from error


def _sync_parent(step: Undo) -> None:
    """Bring the folder of a step's path to the disk: the journal goes next, and a name must not come back without it."""
    if isinstance(path := step.field("path"), str):
        sync_directory(os.path.dirname(path))


# -- one function for each kind; their parameters are its fields ---------------------------------------------------------


def _run(host: Host, *argv: str) -> None:
    host.run_undo(argv)


def _call(host: Host, words: str, function: str, arguments: list[Any]) -> None:
    from poolkit.host import worker

    until = time.monotonic() + _CALL
    if not isinstance(arguments, list) or ":" not in function:
        raise ValueError(words)
    try:
        work = worker.run(_unstoppable(host), function, arguments, answers=lambda: time.monotonic() < until)
        worker.result(work)
    except worker.Silent:
        raise errors.Unreachable("the storage does not answer") from None
    except ImportError as error:
        raise errors.HostError(f"'{function}' is not to be had: {error}") from error


def _run_if(host: Host, question: list[str], answer: str, argv: list[str], input: str | None = None) -> None:
    if host.ask_undo(question).split() == answer.split():
        host.run_undo(argv, input=input)


def _write_back(host: Host, question: list[str], answer: str, device: str, pieces: list[tuple[int, str]]) -> None:
    import base64
    import zlib

    if host.ask_undo(question).split() != answer.split():
        return
    try:
        saved = [(offset, zlib.decompress(base64.b64decode(text))) for offset, text in pieces]
    except zlib.error as error:
        raise ValueError(f"the saved bytes of '{device}': {error}") from error
    # udev makes /dev/mapper/NAME a link; what the bytes go to must be a block device all the same.
    fd = os.open(os.path.realpath(device), os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            raise errors.Unsafe(f"'{device}' is not a block device")
        for offset, data in saved:
            write_at(fd, data, offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def _unmount(host: Host, target: str, source: str) -> None:
    from poolkit.host.mounts import btrfs_has, export, is_network, number, shows

    mount = host.mount_at(target)
    if mount is None:
        return
    if mount.fstype in ("nfs", "nfs4") and ":/" in source:
        same = export(mount.source) == export(source)
    elif mount.source == source or not source.startswith("/"):
        same = mount.source == source
    else:
        # A device has several names, /dev/dm-3 is mounted as /dev/mapper/NAME, and a bind mount shows the device.
        same = shows(mount, source, host.mounts())
        if not same and not is_network(mount.fstype):
            try:
                device = os.stat(source).st_rdev
            except OSError:
                device = 0
            same = device != 0 and (mount.device == number(device) or btrfs_has(mount, number(device)))
    if not same:
        return
    lazy = ("--internal-only", "--force", "--lazy") if is_network(mount.fstype) else ()
    host.run_undo(["umount", *lazy, "--", mount.target])


def _unlink(host: Host, path: str, known: Sequence[int] | None = None, boot: str | None = None) -> None:
    # With an identity: only if it is still the file that we made.
    # What is not there needs no undo, and a read-only file system would refuse it.
    mine = os.path.lexists(path) and (known is None or identity(os.lstat(path)) == list(known))
    if mine and boot in (None, this_boot()):
        os.unlink(path)


def _rmdir(host: Host, path: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        return
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        # Somebody uses it by now: then it is not ours to remove.


def _chmod(host: Host, path: str, mode: int, known: Sequence[int]) -> None:
    def back(fd: int) -> None:
        # A change that was refused leaves nothing to give back, and the undo would be refused as it was.
        if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
            os.fchmod(fd, mode)

    _with_the_same(path, known, os.O_RDONLY, back)


def _chown(host: Host, path: str, owner: int, group: int, known: Sequence[int]) -> None:
    def back(fd: int) -> None:
        facts = os.fstat(fd)
        if (facts.st_uid, facts.st_gid) != (owner, group):
            os.fchown(fd, owner, group)

    _with_the_same(path, known, os.O_RDONLY, back)


def _trim(host: Host, path: str, known: Sequence[int], size: int) -> None:
    def cut(fd: int) -> None:
        if os.fstat(fd).st_size == size:
            os.ftruncate(fd, size)

    _with_the_same(path, known, os.O_RDWR, cut)


def _with_the_same(path: str, known: Sequence[int], flags: int, change: Callable[[int], None]) -> None:
    """Change what is at ``path`` if it is still what was there, and never what a symbolic link points to."""
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return
        raise
    try:
        if identity(os.fstat(fd)) == list(known):
            change(fd)
            os.fsync(fd)
    finally:
        os.close(fd)


def _symlink(host: Host, target: str, path: str) -> None:
    if not os.path.lexists(path):
        os.symlink(target, path)


def _unsymlink(host: Host, target: str, path: str) -> None:
    if os.path.islink(path) and os.readlink(path) == target:
        os.unlink(path)


def _restore(host: Host, kept: str, path: str) -> None:
    # What was removed waits under a private name until the operation is complete: put it back.
    if not os.path.lexists(path):
        os.rename(kept, path)
    elif os.path.lexists(kept) and (os.path.samefile(kept, path) or _same_bytes(kept, path)):
        os.unlink(kept)  # it was not taken away yet, and has two names, or was copied


def _same_bytes(kept: str, path: str) -> bool:
    if not (os.path.isfile(kept) and os.path.isfile(path)):
        return False
    with open(kept, "rb") as one, open(path, "rb") as other:
        return one.read() == other.read()


def _overwrite(host: Host, path: str, name: str, known: Sequence[int], random: bool) -> None:
    def end(fd: int) -> None:
        facts = os.fstat(fd)
        # With a second name it is still the volume, or somebody else's file.
        if random and facts.st_nlink == 1 and not (os.path.lexists(name) and identity(os.lstat(name)) == list(known)):
            for position in range(0, facts.st_size, 1 << 20):
                write_at(fd, os.urandom(min(1 << 20, facts.st_size - position)), position)
            os.fsync(fd)
        os.unlink(path)

    _with_the_same(path, known, os.O_RDWR, end)


def _tell(host: Host, words: str, boot: str | None = None) -> None:
    """Recovery says it; who lives to see the failure has its error."""


def _gone(
    host: Host, path: str, pool: int, name: str, boot: str, known: Sequence[int] | None = None
) -> None:  # fmt: skip
    """The listing is the inventory's, which ``Operations`` has."""


def _damaged(host: Host, line: int) -> None:
    raise errors.HostError(f"line {line} of the journal is damaged")


_ACTS: dict[str, Callable[..., None]] = {
    "run": _run,
    "run-if": _run_if,
    "call": _call,
    "write-back": _write_back,
    "unmount": _unmount,
    "unlink": _unlink,
    "rmdir": _rmdir,
    "chmod": _chmod,
    "chown": _chown,
    "symlink": _symlink,
    "unsymlink": _unsymlink,
    "restore": _restore,
    "trim": _trim,
    "overwrite": _overwrite,
    "tell": _tell,
    "gone": _gone,
    "damaged": _damaged,
}
