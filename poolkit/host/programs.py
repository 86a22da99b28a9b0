"""Running other programs: where they are looked for, what they are given, and how one is listened to until its end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Protocol

from poolkit.host import cores
from poolkit.host.descriptors import write_some

if TYPE_CHECKING:
    import select
    import subprocess

SEARCH_PATH = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")

# Limits for tools that read images nobody should trust: a 1 KiB VDI header makes qemu-img 7.2 take 2 GiB.
UNTRUSTED_LIMITS = {"as": 1 << 30, "cpu": 30, "nofile": 256, "core": cores.LIMIT}

# Debian's package for a program that poolkit itself uses, where the two differ in name. Those of a pool type are in its class.
PACKAGES = {
    "qemu-img": "qemu-utils", "umount": "mount", "blkid": "util-linux", "wipefs": "util-linux", "blkdiscard": "util-linux",
    "prlimit": "util-linux", "udevadm": "udev", "chattr": "e2fsprogs", "stat": "coreutils",
}  # fmt: skip

PIPE = -1  # subprocess.PIPE, which is not imported before a program is run

TICK = 0.25
"""Seconds after which whoever waits for a program is asked again whether it should go on."""

_READABLE, _WRITABLE = 1, 4  # POLLIN and POLLOUT of Linux, poll(2); the module select is imported when a program runs
_PIPE = 1 << 16  # bytes; what a pipe holds (pipe(7))
_LAST_WAIT = 5.0  # seconds that a killed program has to end; one that waits for a dead server may not even then


class Feed(Protocol):
    """What goes into a program, piece by piece."""

    def source(self) -> int | None:
        """The descriptor that has to be waited for before the next piece; None if that comes at once."""

    def piece(self) -> bytes | None:
        """The next piece: empty at the end, None if there is nothing yet after all."""


Drain = Callable[[bytes], None]
"""Takes a piece of a program's output."""


def start(
    argv: Sequence[str], *, own_session: bool, pass_fds: Sequence[int] = (), confined: Sequence[str] = (),
    stdin: int | None = None, stdout: int | None = None, stderr: int | None = None, charset: str = "C.UTF-8",
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a program. Raises ``OSError``.

    ``stdin``, ``stdout`` and ``stderr`` are descriptors, or ``PIPE``; without one it gets no input, and what it says is
    listened to. ``charset`` is the locale of its names and messages.
    With ``confined``, the paths of the programs that it may be besides what is installed, it reaches no file by name but
    those and its libraries, and no network (``poolkit.host.confine``).
    """
    import subprocess

    def process() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE if stderr is None else stderr,
            env=_environment(charset),
            cwd="/",
            umask=0o077,
            start_new_session=own_session,
            pass_fds=tuple(pass_fds),
        )

    if not confined:
        return process()
    from poolkit.host import confine

    return confine.apart(process, programs=confined, fds=pass_fds)


def _environment(charset: str) -> Mapping[str, str]:
    # Built from nothing: a tool's behaviour must not depend on who calls it.
    # One arena: glibc reserves 64 MiB of address space for each further one, and qemu-img has dozens of threads and 1 GiB.
    return {
        "PATH": ":".join(SEARCH_PATH), "LC_ALL": charset, "HOME": "/",
        "LVM_SUPPRESS_FD_WARNINGS": "1", "MALLOC_ARENA_MAX": "1",
    }  # fmt: skip


def converse(
    process: subprocess.Popen[bytes],
    until: float,
    tick: Callable[[], None],
    feed: Feed | None = None,
    drain: Drain | None = None,
) -> tuple[bytes, bytes]:
    """Give a program its input, and return its standard output and error when it has ended.

    ``drain`` takes the output piece by piece; then none is returned. Whoever waits in it sees an abort there. A source of the
    input that gives nothing hides neither the program's end nor its output.
    ``tick`` is called every ``TICK`` seconds and at ``until`` (monotonic); what it raises ends the program and all of its
    group.
    """
    try:
        return _converse(process, until, tick, feed, drain)
    except BaseException:
        kill_group(process)
        raise


def _converse(
    process: subprocess.Popen[bytes], until: float, tick: Callable[[], None], feed: Feed | None, drain: Drain | None
) -> tuple[bytes, bytes]:
    # subprocess's own communicate() sleeps a millisecond or more when the pipes are closed before the program has ended,
    # as most programs do it: longer than many of them run.
    import select

    output = -1 if process.stdout is None else process.stdout.fileno()
    said: dict[int, list[bytes]] = {pipe.fileno(): [] for pipe in (process.stdout, process.stderr) if pipe is not None}
    poller = select.poll()
    waiting = set(said)
    try:
        end = os.pidfd_open(process.pid)
    except OSError:
        end = -1  # an old kernel, or a sandbox
    else:
        waiting.add(end)
    for fd in waiting:
        poller.register(fd, select.POLLIN)
    entry = None if process.stdin is None or feed is None else _Entry(process.stdin, feed, poller)
    try:
        due = time.monotonic() + TICK
        while waiting or process.poll() is None:
            pause = max(0.0, min(due, until) - time.monotonic())
            # Without a descriptor that tells the end it has to be looked for.
            for fd, _ in poller.poll(pause * 1000 if waiting else 1):
                if entry is not None and fd in (entry.fd, entry.source):
                    entry.ready(fd)
                elif fd in said and (data := os.read(fd, _PIPE)):
                    if fd == output and drain is not None:
                        drain(data)
                    else:
                        said[fd].append(data)
                elif fd in waiting:
                    poller.unregister(fd)
                    waiting.discard(fd)
            if (now := time.monotonic()) >= min(due, until):
                tick()
                due = now + TICK
    finally:
        if end >= 0:
            os.close(end)
    pipes = (process.stdout, process.stderr)
    out, err = (b"" if pipe is None else b"".join(said[pipe.fileno()]) for pipe in pipes)
    return out, err


class _Entry:
    """The pipe into a program. While its source has nothing to give, the program is still listened to."""

    def __init__(self, pipe: IO[bytes], feed: Feed, poller: select.poll) -> None:
        self.pipe = pipe
        self.feed = feed
        self.poller = poller
        self.fd = pipe.fileno()
        self.source = -1
        """What is waited for; then of the pipe only its end is told."""
        self.left = memoryview(b"")
        os.set_blocking(self.fd, False)
        poller.register(self.fd, _WRITABLE)

    def ready(self, fd: int) -> None:
        """Write what fits, if the source has something."""
        if fd == self.fd and self.source >= 0:
            self._close()  # the program wants no more
            return
        if not self.left and not self._fill(waited=fd == self.source):
            return
        try:
            self.left = self.left[write_some(self.fd, self.left[:_PIPE]) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._close()

    def _fill(self, waited: bool) -> bool:
        """Whether there is something to write now; if not, the source is waited for, or it is over."""
        source = None if waited else self.feed.source()
        if source is not None:
            self.poller.modify(self.fd, 0)
            self.poller.register(source, _READABLE)
            self.source = source
            return False
        data = self.feed.piece()
        if data is None:
            return False
        if waited:
            self.poller.unregister(self.source)
            self.poller.modify(self.fd, _WRITABLE)
            self.source = -1
        if not data:
            self._close()
        self.left = memoryview(data)
        return len(data) > 0

    def _close(self) -> None:
        self.poller.unregister(self.fd)
        if self.source >= 0:
            self.poller.unregister(self.source)
        self.fd = self.source = -1
        self.pipe.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """Tell a program to end, and kill it and what it started if it does not. Repeatable."""
    import subprocess

    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_LAST_WAIT)
        except subprocess.TimeoutExpired:
            kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and what it started, and wait for its end as long as that makes sense."""
    import signal
    import subprocess

    with suppress(ProcessLookupError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()  # it shares our group, which somebody else ends
    try:
        process.wait(_LAST_WAIT)
    except subprocess.TimeoutExpired:
        process.returncode = -signal.SIGKILL  # it hangs in the kernel; who waited for it could hang as long
