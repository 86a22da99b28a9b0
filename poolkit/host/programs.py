"""Running other programs: where they are looked for, what they are given, and how one is listened to until its end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from poolkit.host.descriptors import write_some

if TYPE_CHECKING:
    import subprocess

SEARCH_PATH = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")

# Limits for tools that read images nobody should trust: a 1 KiB VDI header makes qemu-img 7.2 take 2 GiB.
UNTRUSTED_LIMITS = {"as": 1 << 30, "cpu": 30, "nofile": 256, "core": 0}

# Debian's package for a program that poolkit itself uses, where the two differ in name. Those of a pool type are in its class.
PACKAGES = {
    "qemu-img": "qemu-utils", "umount": "mount", "blkid": "util-linux", "wipefs": "util-linux", "blkdiscard": "util-linux",
    "prlimit": "util-linux", "udevadm": "udev", "chattr": "e2fsprogs", "stat": "coreutils",
}  # fmt: skip

# They hand bytes of names on as they are and need no character set, whose dozen files take a tenth of a mount(8) to load.
_BYTES = frozenset(
    ("mount", "umount", "lvs", "vgs", "pvs", "pvcreate", "pvremove", "vgcreate", "vgchange", "vgremove", "lvcreate",
     "lvrename", "lvremove", "lvextend", "lvreduce", "lvresize", "lvchange", "sfdisk")
)  # fmt: skip

PIPE = -1  # subprocess.PIPE, which is not imported before a program is run

TICK = 0.25
"""Seconds after which whoever waits for a program is asked again whether it should go on."""

_PIPE = 1 << 16  # bytes; what a pipe holds (pipe(7))
_LAST_WAIT = 5.0  # seconds that a killed program has to end; one that waits for a dead server may not even then


Feed = Callable[[], bytes]
"""Gives the next piece of a program's input, and nothing at its end."""

Drain = Callable[[bytes], None]
"""Takes a piece of a program's output."""


def start(
    argv: Sequence[str], *, own_session: bool, pass_fds: Sequence[int] = (), confined: Sequence[str] = (),
    stdin: int | None = None, stdout: int | None = None, stderr: int | None = None,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a program. Raises ``OSError``.

    ``stdin``, ``stdout`` and ``stderr`` are descriptors, or ``PIPE``; without one it gets no input, and what it says is
    listened to.
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
            env=_environment(os.path.basename(argv[0])),
            cwd="/",
            umask=0o077,
            start_new_session=own_session,
            pass_fds=tuple(pass_fds),
        )

    if not confined:
        return process()
    from poolkit.host import confine

    return confine.apart(process, programs=confined, fds=pass_fds)


def _environment(program: str) -> Mapping[str, str]:
    # Built from nothing: a tool's behaviour must not depend on who calls it.
    # One arena: glibc reserves 64 MiB of address space for each further one, and qemu-img has dozens of threads and 1 GiB.
    return {
        "PATH": ":".join(SEARCH_PATH), "LC_ALL": "C" if program in _BYTES else "C.UTF-8", "HOME": "/",
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

    ``drain`` takes the output piece by piece; then none is returned. Whoever waits in ``feed`` or ``drain`` sees an abort there.
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
    left = memoryview(b"")
    entry = -1 if process.stdin is None else process.stdin.fileno()
    if entry >= 0:
        os.set_blocking(entry, False)
        poller.register(entry, select.POLLOUT)
    try:
        due = time.monotonic() + TICK
        while waiting or process.poll() is None:
            pause = max(0.0, min(due, until) - time.monotonic())
            # Without a descriptor that tells the end it has to be looked for.
            for fd, _ in poller.poll(pause * 1000 if waiting else 1):
                if fd == entry and process.stdin is not None:
                    left = left or memoryview(feed() if feed is not None else b"")
                    wants = len(left) > 0
                    if wants:
                        left, wants = _feed(fd, left)
                    if not wants:
                        poller.unregister(fd)
                        process.stdin.close()
                elif fd in said and (data := os.read(fd, _PIPE)):
                    if fd == output and drain is not None:
                        drain(data)
                    else:
                        said[fd].append(data)
                else:
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


def _feed(fd: int, left: memoryview) -> tuple[memoryview, bool]:
    """Write what fits; what is still to be written, and whether the program wants any more."""
    try:
        return left[write_some(fd, left[:_PIPE]) :], True
    except BlockingIOError:
        return left, True
    except BrokenPipeError:
        return left[:0], False


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
