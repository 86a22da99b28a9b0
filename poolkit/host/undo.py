"""How a change is taken back: undo steps as data, and the journal that keeps them over a crash.

A step is written to the journal, durably, *before* the change it belongs to is made. When a later step fails, or the
process dies and another one finds the journal, the steps are run newest first. Running the undo of a change
that never happened must therefore be harmless, and running it twice, or days later when a server is back; every kind below is.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from poolkit import errors
from poolkit.host.descriptors import sync_directory, write_all, write_at
from poolkit.host.private import open_ours, open_private
from poolkit.values import value

if TYPE_CHECKING:
    from poolkit.host.port import Host

TICKS = os.sysconf("SC_CLK_TCK")
_AWAY = 60.0  # seconds that one step may take on a server that answers, but not to this


@value(frozen=True)
class Undo:
    """One step.

    ``kind`` is ``run``, ``run-if``, ``unmount``, ``unlink``, ``rmdir``, ``chmod``, ``chown``, ``symlink``, ``unsymlink``,
    ``restore``, ``trim`` or ``write-back``.
    """

    kind: str
    args: tuple[Any, ...]

    @property
    def _boot(self) -> str | None:
        return self.args[2] if self.kind == "unlink" and len(self.args) > 2 else None

    @property
    def ends_with_boot(self) -> bool:
        """Whether a restart of the machine leaves nothing that it would be needed for."""
        return self.kind == "unmount" or self._boot is not None

    @property
    def counts(self) -> bool:
        """Whether it still means anything: not if it was for another boot of the machine."""
        return self._boot in (None, boot())

    def __str__(self) -> str:
        if self.kind == "run-if":
            return f"run {' '.join(self.args[2])} (if {' '.join(self.args[0])} says '{self.args[1]}')"
        if self.kind == "write-back":
            return f"write the saved bytes back to {self.args[2]} (if {' '.join(self.args[0])} says '{self.args[1]}')"
        return " ".join([self.kind, *map(str, self.args[:1] if self.kind == "unlink" else self.args)])


def run(argv: Sequence[str]) -> Undo:
    """Undo by running a program; its failure is reported, not raised."""
    return Undo("run", tuple(argv))


def run_if(question: Sequence[str], answer: str, argv: Sequence[str], *, input: str | None = None) -> Undo:
    """As ``run``, but only if the program ``question``, which reads, prints ``answer`` (but for white space).

    For what others may have replaced since: it is left alone unless it is still what this operation made. ``input`` is
    what the program gets to read.
    """
    return Undo("run-if", (list(question), answer, list(argv), *([] if input is None else [input])))


def write_back(question: Sequence[str], answer: str, device: str, pieces: Sequence[tuple[int, bytes]]) -> Undo:
    """Undo by writing saved bytes to a device again, under the condition of ``run_if``; ``pieces`` are (offset, bytes)."""
    import base64
    import zlib

    packed = [[offset, base64.b64encode(zlib.compress(data)).decode("ascii")] for offset, data in pieces]
    return Undo("write-back", (list(question), answer, device, packed))


def unmount(target: str, source: str) -> Undo:
    """Unmount ``target`` if ``source`` is what is mounted there: that text, device (also of a btrfs), directory or export."""
    return Undo("unmount", (target, source))


def unlink_whole(path: str, facts: os.stat_result) -> Undo:
    """Undo a name given to a file that is whole and on the disk: by unlinking it, if it is still that file.

    A restart of the machine ends that: whether the verb had ended well is not sure to be on record then, and a whole file
    does no harm.
    """
    return Undo("unlink", (path, identity(facts), boot()))


@functools.cache
def boot() -> str:
    """The identity of this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def perform(step: Undo, host: Host, away: set[str]) -> None:
    """Run one undo step. What is already gone is fine; raises ``OSError`` or ``PoolkitError`` for anything else.

    A step on a network file system is done by a child process, which is given up when the server does not answer:
    ``Unreachable``. ``away`` keeps the mount points of such servers, which are not asked again.
    """
    if step.kind in ("unlink", "rmdir", "chmod", "chown", "symlink", "unsymlink", "restore", "trim", "overwrite"):
        from poolkit.host.mounts import is_network, locate

        path = str(step.args[1] if step.kind in ("symlink", "unsymlink") else step.args[0])
        mount = locate(path, host.mounts())[1]
        if mount is not None and is_network(mount.fstype):
            _perform_away(step, host, mount.target, away)
            return
    perform_here(host, step)


def _perform_away(step: Undo, host: Host, target: str, away: set[str]) -> None:
    if target in away:
        raise errors.Unreachable(f"the server of '{target}' does not answer")
    from poolkit.host import worker
    from poolkit.host.port import Host as Machine

    # A host of its own: neither an abort nor a fault that a test injects may stop an undo.
    machine = Machine()
    machine.children = host.children

    until = time.monotonic() + _AWAY

    def alive() -> bool:
        return time.monotonic() < until and worker.answers(machine, target)

    try:
        worker.result(worker.run(machine, "poolkit.host.undo:perform_here", (step,), answers=alive))
    except worker.Silent:
        away.add(target)
        raise errors.Unreachable(f"the server of '{target}' does not answer") from None


def perform_here(host: Host, step: Undo) -> None:
    """``perform`` in this process, wherever the step's path is."""
    kind, args = step.kind, step.args
    try:
        if kind == "damaged":
            raise errors.HostError(f"line {args[0]} of the journal is damaged")
        if kind == "run":
            host.run_undo(args)
        elif kind == "run-if":
            if host.ask_undo(args[0]).split() == args[1].split():
                host.run_undo(args[2], input=args[3] if len(args) > 3 else None)
        elif kind == "write-back":
            if host.ask_undo(args[0]).split() == args[1].split():
                _write_back(args[2], args[3])
        elif kind == "unmount":
            _unmount(args[0], args[1], host)
        elif kind == "unlink":
            # With an identity: only if it is still the file that we made.
            # What is not there needs no undo, and a read-only file system would refuse it.
            mine = os.path.lexists(args[0]) and (len(args) == 1 or identity(os.lstat(args[0])) == list(args[1]))
            if mine and step.counts:
                os.unlink(args[0])
        elif kind == "rmdir":
            _rmdir_empty(args[0])
        elif kind == "trim":
            _trim(*args)
        elif kind == "overwrite":
            _overwrite(*args)
        elif kind in ("chmod", "chown"):
            _with_the_same(
                args[0], args[-1], lambda fd: os.fchmod(fd, args[1]) if kind == "chmod" else os.fchown(fd, *args[1:3])
            )
        elif kind == "symlink":
            if not os.path.lexists(args[1]):
                os.symlink(args[0], args[1])
        elif kind == "unsymlink":
            if os.readlink(args[1]) == args[0]:
                os.unlink(args[1])
        elif kind == "restore":
            # What was removed waits under a private name until the operation is complete: put it back.
            if not os.path.lexists(args[1]):
                os.rename(args[0], args[1])
            elif os.path.lexists(args[0]) and os.path.samefile(args[0], args[1]):
                os.unlink(args[0])  # it was not taken away yet, and has two names
        else:
            raise errors.HostError(f"the journal holds an unknown undo step '{kind}'", hint="a newer poolkit wrote it")
    except FileNotFoundError:
        pass


class Journal:
    """The undo steps of one operation, in a file while the operation runs.

    The file appears with the first step and is gone when the operation has ended, well or badly. One line of
    JSON each: first who and what, then the steps. A line is there whole or not at all, unless the machine failed while it was
    written: a torn last line means that its change was never begun.
    """

    def __init__(self, directory: str, ident: str, facts: dict[str, Any]) -> None:
        self.path = os.path.join(directory, f"{ident}.journal")
        self.ident = ident
        self.facts = facts
        self.steps: list[Undo] = []
        self._fd = -1
        self._on_disk = False

    def record(self, step: Undo) -> None:
        """Write ``step`` durably; call it before the change is made.

        For what ends with the machine's boot, as a mount does, durable means: over the death of this process.
        """
        head: list[Any] = []
        if not self.steps:
            self._open()
            head = [{**self.facts, "id": self.ident, "pid": os.getpid(), "since": time.time()}]
        _append(self._fd, *head, [step.kind, *step.args], durable=not step.ends_with_boot)
        self.steps.append(step)
        if not step.ends_with_boot and not self._on_disk:
            sync_directory(os.path.dirname(self.path))
            self._on_disk = True

    def _open(self) -> None:
        while self._fd < 0:
            self._fd = open_private(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
            fcntl.flock(self._fd, fcntl.LOCK_EX)  # the lock says that the operation is alive
            if not os.fstat(self._fd).st_nlink:
                os.close(self._fd)  # before it was locked somebody took it for one that a dead process had left
                self._fd = -1

    def running(self, pid: int) -> None:
        """A program is at work that belongs to the last step: it may outlive this process, and is waited for before an undo."""
        if self._fd >= 0:
            now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)
            _append(self._fd, {"running": pid, "until": now})

    def finish(self) -> None:
        """The operation is complete: let go of what an undo would have needed."""
        finish(self.steps)
        self._close()

    def roll_back(self, host: Host) -> list[str]:
        """Run all steps, newest first. Returns a sentence for each step that could not be undone.

        If there is one, the journal stays: as ``.failed`` for people to look at, or for the next verb on the pool where only
        a server did not answer.
        """
        undone = undo_all(self.steps, host)
        self._close(undone)
        return list(undone.failures)

    def _close(self, undone: Undone | None = None) -> None:
        if self._fd >= 0:
            try:
                if undone is not None and undone.failures:
                    undone.put_aside(self.path)
                else:
                    _unlink_quietly(self.path)
                    if self._on_disk:
                        # It must not be there again after a power failure: what it would undo may hold data by then.
                        sync_directory(os.path.dirname(self.path))
            finally:
                os.close(self._fd)
                self._fd = -1
                self._on_disk = False
        self.steps.clear()


def finish(steps: Sequence[Undo]) -> None:
    """End an operation that is complete: what it had put aside instead of removing it goes now."""
    for step in steps:
        if step.kind == "restore":
            _unlink_quietly(str(step.args[0]))


def identity(facts: os.stat_result) -> list[int]:
    """What tells a file from one that took its name: device and inode."""
    return [facts.st_dev, facts.st_ino]


class Undone(NamedTuple):
    """What came of undo steps: a sentence for each that failed, and whether all that failed can be tried again."""

    failures: tuple[str, ...]
    later: bool

    def put_aside(self, path: str) -> None:
        """Keep the journal, with all its steps: for the next verb on its pool, or else for people to look at."""
        if not self.later:
            os.replace(path, path + ".failed")  # `poolkit doctor` reports it
            return
        with suppress(OSError):  # without the line whoever opens the engine tries it, too
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                _append(fd, {"later": True})
            finally:
                os.close(fd)


def undo_all(steps: Sequence[Undo], host: Host, away: set[str] | None = None) -> Undone:
    """Run ``steps`` newest first; one failing does not stop the others. ``away`` is as for ``perform``."""
    away = set() if away is None else away
    failures = []
    later = True
    for step in reversed(steps):
        try:
            perform(step, host, away)
        except errors.Unreachable as error:
            failures.append(f"could not undo '{step}': {error}; it is tried again with the next verb on the pool")
        except (OSError, errors.PoolkitError) as error:
            failures.append(f"could not undo '{step}': {error}")
            later = False
    return Undone(tuple(failures), later)


def alive(head: dict[str, Any]) -> bool:
    """Whether the last program that an operation ran is still at work: a process of its pid that is not younger."""
    pid = int(head.get("running") or 0)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    # proc(5), stat: the state, and when it began in clock ticks since the boot
    return fields[0] not in (b"Z", b"X") and int(fields[19]) <= int(head.get("until") or 0)


def read(path: str) -> tuple[dict[str, Any], list[Undo]]:
    """The head and the steps of a journal file; ``Unsafe`` where others may have written it. A torn last line is none.

    A damaged line before the last stands for a step that cannot be undone (``damaged``): what it was is not known, and what
    the others undo is not in doubt. In the head ``running`` and ``until`` are of the
    last program that the operation ran (see ``alive``), and ``later`` says that its undo waits for a server that did not answer.
    """
    head: dict[str, Any] = {}
    steps: list[Undo] = []
    with open(open_ours(path), "rb") as file:
        lines = file.read().split(b"\n")
    last = len(lines) - 1 if lines[-1] else len(lines) - 2
    for number, line in enumerate(lines[: last + 1]):
        found = _parsed(line)
        if isinstance(found, dict):
            head.update({k: v for k, v in found.items() if isinstance(v, _HEAD.get(k, object))})
        elif found is not None:
            steps.append(found)
        elif number < last:
            steps.append(Undo("damaged", (number + 1,)))
    return head, steps


_HEAD: dict[str, Any] = {
    "pool": str, "verb": str, "volume": str | None, "id": str, "mount": str, "pid": int, "since": float, "running": int,
    "until": int, "later": bool,
}  # fmt: skip


def _parsed(line: bytes) -> dict[str, Any] | Undo | None:
    try:
        match json.loads(line):
            case dict(facts):
                return facts
            case [str(kind), *args]:
                return Undo(kind, tuple(args))
    except (ValueError, RecursionError):
        pass
    return None


def _append(fd: int, *lines: Any, durable: bool = False) -> None:
    """Write whole lines or none. Raises ``OSError``."""
    size = os.fstat(fd).st_size
    try:
        write_all(fd, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        if durable:
            os.fsync(fd)
    except BaseException:
        with suppress(OSError):  # a reader sees a damaged line then
            os.ftruncate(fd, size)
        raise


def _unmount(target: str, source: str, host: Host) -> None:
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


def _write_back(device: str, packed: Sequence[tuple[int, str]]) -> None:
    import base64
    import stat
    import zlib

    # udev makes /dev/mapper/NAME a link; what the bytes go to must be a block device all the same.
    fd = os.open(os.path.realpath(device), os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            raise errors.Unsafe(f"'{device}' is not a block device")
        for offset, text in packed:
            write_at(fd, zlib.decompress(base64.b64decode(text)), offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def _with_the_same(path: str, known: Sequence[int], change: Callable[[int], None]) -> None:
    """Change what is at ``path`` if it is still what was there, and never what a symbolic link points to."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return
        raise
    try:
        if identity(os.fstat(fd)) == list(known):
            change(fd)
    finally:
        os.close(fd)


def _trim(path: str, known: Sequence[int], size: int) -> None:
    """Give back what was reserved beyond the end of a file that did not grow after all."""
    with suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            facts = os.fstat(fd)
            if identity(facts) == list(known) and facts.st_size == size:
                os.ftruncate(fd, size)
        finally:
            os.close(fd)


def _overwrite(path: str, name: str, known: Sequence[int], random: bool) -> None:
    """Remove a file whose place another one has taken in a wipe, overwritten once if that had been asked for."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        if identity(facts) != list(known):
            return
        # With a second name it is still the volume, or somebody else's file.
        if random and facts.st_nlink == 1 and not (os.path.lexists(name) and identity(os.lstat(name)) == list(known)):
            position = 0
            while position < facts.st_size:
                position += os.pwrite(fd, os.urandom(min(1 << 20, facts.st_size - position)), position)
            os.fsync(fd)
        os.unlink(path)
    finally:
        os.close(fd)


def _rmdir_empty(path: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        return
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        # Somebody uses it by now: then it is not ours to remove.


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
