"""A second processor for work that only reads: a copy of this process that does a part of it, and ends.

A thread would not do: Python lets one at a time compute, and what is left of a short system call is mostly Python.
"""

from __future__ import annotations

import marshal
import os
import time
from contextlib import contextmanager, suppress

from poolkit.host.descriptors import read_at, write_all
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn, TypeVar

    R = TypeVar("R")


_LOOKS = 3
"""How often, a millisecond apart, it is asked whether a processor is idle: somebody's short turn is not a busy machine."""

_LENGTH = 8
"""Bytes before each thing that says how long it is."""


def possible() -> bool:
    """Whether this process may have a copy and it would help.

    It may where it has no other threads, which a copy lacks. It helps where a processor is idle: where none is, the two get the
    turns that one had, for the kernel shares out turns among groups of processes (sched(7), autogroup; cgroups).
    """
    try:
        if len(os.sched_getaffinity(0)) < 2 or len(os.listdir("/proc/self/task")) > 1:
            return False
        for look in range(_LOOKS):
            if look:
                time.sleep(0.001)
            if _running() < (os.cpu_count() or 1):
                return True
    except (OSError, ValueError, IndexError):
        pass  # no /proc
    return False


def _running() -> int:
    """How many processes and threads of the machine run or wait for a processor, this one among them (proc(5), loadavg)."""
    with open("/proc/loadavg", "rb", buffering=0) as file:
        return int(file.read(200).split()[3].partition(b"/")[0])


@contextmanager
def doing(work: Callable[[], Iterator[R]]) -> Iterator[Callable[[Callable[[R], object]], bool]]:
    """Have a copy of this process do ``work`` during the body, which gets a function that hands on each thing it yields.

    That returns whether all came: if not, because there can be no copy or it could not end its work, it has to be done here.
    ``work`` must change nothing that is outside of the process, touch no database and no lock, and yield plain values
    (``marshal``), each as soon as it can: what is there already is handed on while the copy is still at work.
    Leaving the body ends the copy, and so does the death of this process: it holds no lock then, but the pool's directory.
    """
    try:
        memory = os.memfd_create("beside", os.MFD_CLOEXEC)
    except OSError:
        yield lambda take: False
        return
    try:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:  # too many processes, or no memory for one
            yield lambda take: False
            return
        if not pid:
            _work(work, memory, parent)
        copy = _Copy(pid, memory)
        try:
            yield copy.hand_on
        finally:
            copy.end()
    finally:
        os.close(memory)


def _work(work: Callable[[], Iterator[Any]], memory: int, parent: int) -> NoReturn:
    """The copy's whole life. Nothing that was registered for the end of this process runs, nor is anything flushed."""
    try:
        for one in work():
            # prctl(2) would tell at once, but ctypes takes longer to load than five hundred files.
            if os.getppid() != parent:
                break
            data = marshal.dumps(one)
            # Not a pipe, in which a copy that is ahead would wait for this process to read.
            write_all(memory, len(data).to_bytes(_LENGTH, "little") + data)
        os._exit(0)
    except BaseException:  # whatever it was: the parent does it again, and sees for itself
        os._exit(1)


class _Copy:
    """A copy of this process, as its parent sees it; ``memory`` is the file with what it has yielded."""

    def __init__(self, pid: int, memory: int) -> None:
        self._pid = pid
        self._memory = memory
        self._read = 0
        self._alive = True

    def hand_on(self, take: Callable[[Any], object]) -> bool:
        """Call ``take`` with each thing that comes; whether the copy ended well."""
        self._hand_on(take)  # what is there, while the copy goes on
        well = self._wait() == 0
        self._hand_on(take)
        return well

    def _hand_on(self, take: Callable[[Any], object]) -> None:
        size = os.fstat(self._memory).st_size
        while self._read + _LENGTH <= size:
            start = self._read + _LENGTH
            length = int.from_bytes(read_at(self._memory, _LENGTH, self._read), "little")
            if start + length > size:
                break  # it is being written
            take(marshal.loads(read_at(self._memory, length, start)))  # noqa: S302 - of our own process
            self._read = start + length

    def end(self) -> None:
        """End it, if it has not ended."""
        if self._alive:
            import signal

            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._wait()

    def _wait(self) -> int:
        self._alive = False
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        except ChildProcessError:
            return -1  # somebody waits for all children of this process: how it ended is not known
