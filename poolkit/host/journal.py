"""The journal: a file that keeps the undo steps of an operation over the death of its process.

One line of JSON each: first who and what (a *head*), then the steps, and what is learned later as further heads. A line is there
whole or not at all, unless the machine failed while it was written: a torn last line means that its change was never begun.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress

from poolkit import errors
from poolkit.host import forks
from poolkit.host.descriptors import sync_directory, write_all
from poolkit.host.kernel import boot
from poolkit.host.private import open_ours, open_private
from poolkit.host.undo import Undo
from poolkit.lean import TYPE_CHECKING, dumps, loads

if TYPE_CHECKING:
    from typing import Any


TICKS = os.sysconf("SC_CLK_TCK")
_HEAD: dict[str, Any] = {
    "pool": str, "verb": str, "volume": str | None, "id": str, "mount": str, "pid": int, "since": float, "boot": str,
    "running": int, "until": int, "later": bool,
}  # fmt: skip


class Journal:
    """The undo steps of one operation, in the file ``IDENT.journal`` of ``directory`` while the operation runs.

    The file appears with the first step and is gone when the operation has ended, well or badly. It is locked as long as its
    process lives.
    """

    def __init__(self, directory: str, ident: str, facts: dict[str, Any]) -> None:
        self.path = os.path.join(directory, f"{ident}.journal")
        self.ident = ident
        self.facts = facts
        self.steps: list[Undo] = []
        self._fd = -1
        self._on_disk = False
        self._pid = os.getpid()

    @property
    def ours(self) -> bool:
        """Whether the operation is this process's: a child that was forked in the middle of it has no part in it."""
        return self._pid == os.getpid()

    def append(self, step: Undo) -> None:
        """Write ``step`` durably; call it before the change is made. Raises ``OSError``, and the step is not there then.

        For what ends with the machine's boot, as a mount does, durable means: over the death of this process.
        """
        if not self.ours:
            raise errors.HostError(
                "this process was forked while work was being done, which goes on in its parent",
                hint="do nothing with poolkit in a callback's child but to open an engine of its own",
            )
        head: list[Any] = []
        if not self.steps:
            self._open()
            head = [{**self.facts, "id": self.ident, "pid": os.getpid(), "since": time.time(), "boot": boot()}]
        try:
            _append(self._fd, *head, [step.kind, *step.args], durable=not step.ends_with_boot)
        except OSError as error:
            error.filename = self.path
            raise
        self.steps.append(step)
        if not step.ends_with_boot and not self._on_disk:
            sync_directory(os.path.dirname(self.path))
            self._on_disk = True

    def _open(self) -> None:
        while self._fd < 0:
            with (
                forks.undivided()
            ):  # a child that had the descriptor would make the work look alive when this process has died
                fd = open_private(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
                forks.hold(fd)
                fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                self._fd = fd
            else:
                forks.release(fd)  # before it was locked somebody took it for one that a dead process had left

    def running(self, pid: int) -> None:
        """A program is at work that belongs to the last step: it may outlive this process, and is waited for before an undo."""
        if self._fd >= 0 and self.ours:
            now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)
            _append(self._fd, {"running": pid, "until": now})

    def close(self) -> None:
        """The operation has ended and nothing is left to undo: the file goes, durably. Repeatable."""
        if self._fd >= 0:
            try:
                remove(self.path, on_disk=self._on_disk)
            finally:
                self.leave()
        self.steps.clear()

    def put_aside(self, *, later: bool) -> None:
        """The operation has ended and something is left to undo: as :func:`put_aside`."""
        if self._fd >= 0:
            try:
                put_aside(self.path, later=later)
            finally:
                self.leave()
        self.steps.clear()

    def leave(self) -> None:
        """Let go of the file as it is: whoever finds it takes it for one of work that has ended."""
        forks.release(self._fd)
        self._fd = -1
        self._on_disk = False


def remove(path: str, *, on_disk: bool = True) -> None:
    """Remove a journal for good: it must not be there again after a power failure, since what it would undo may hold data then.

    One that is not ``on_disk`` cannot come back.
    """
    with suppress(FileNotFoundError):
        os.unlink(path)
    if on_disk:
        sync_directory(os.path.dirname(path))


def put_aside(path: str, *, later: bool) -> None:
    """Keep a journal, with all its steps: for the next verb on its pool (``later``), or else for people to look at."""
    if not later:
        with suppress(OSError):  # under its old name it is tried again
            os.replace(path, path + ".failed")  # `poolkit doctor` reports it
        return
    with suppress(OSError):  # without the line whoever opens the engine tries it, too
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _append(fd, {"later": True})
        finally:
            os.close(fd)


def read(path: str) -> tuple[dict[str, Any], list[Undo]]:
    """The head and the steps of a journal file; ``Unsafe`` where others may have written it. A torn last line is none.

    A damaged line before the last stands for a step that cannot be undone (``damaged``): what it was is not known, and what
    the others undo is not in doubt. In the head ``running`` and ``until`` are of the last program that the operation ran (see
    ``alive``), and ``later`` says that its undo waits, as for a server that did not answer.
    """
    with open(open_ours(path), "rb") as file:
        return parse(file.read())


def parse(data: bytes) -> tuple[dict[str, Any], list[Undo]]:
    """The head and the steps in the bytes of a journal, as :func:`read`."""
    head: dict[str, Any] = {}
    steps: list[Undo] = []
    lines = data.split(b"\n")
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


def alive(head: dict[str, Any]) -> bool:
    """Whether the last program that an operation ran is still at work: a process of its pid that is not younger.

    None is whose machine was started again since; an older poolkit did not write down since when it ran.
    """
    pid = head.get("running") or 0
    if head.get("boot", boot()) != boot():
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    # proc(5), stat: the state, and when it began in clock ticks since the boot
    return fields[0] not in (b"Z", b"X") and int(fields[19]) <= (head.get("until") or 0)


def _parsed(line: bytes) -> dict[str, Any] | Undo | None:
    try:
        match loads(line):
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
        write_all(fd, b"".join(dumps(line).encode() + b"\n" for line in lines))
        if durable:
            os.fsync(fd)
    except BaseException:
        with suppress(OSError):  # a reader sees a damaged line then
            os.ftruncate(fd, size)
        raise
