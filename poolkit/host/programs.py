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

TICK = 0.25
"""Seconds after which whoever waits for a program is asked again whether it should go on."""

_PIPE = 1 << 16  # bytes; what a pipe holds (pipe(7))
_LAST_WAIT = 5.0  # seconds that a killed program has to end; one that waits for a dead server may not even then


def start(
    argv: Sequence[str], *, input: bool, own_session: bool, pass_fds: Sequence[int] = (), confined: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start a program whose output is listened to; ``input`` says whether it gets a standard input. Raises ``OSError``.

    With ``confined``, the paths of the programs that it may be besides what is installed, it reaches no file by name but
    those and its libraries, and no network (``poolkit.host.confine``).
    """
    import subprocess

    def process() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
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
    process: subprocess.Popen[bytes], input: bytes | None, until: float, tick: Callable[[], None]
) -> tuple[bytes, bytes]:
    """Give a program its input, and return its standard output and error when it has ended.

    ``tick`` is called every ``TICK`` seconds and at ``until`` (monotonic); what it raises ends the program and all of its
    group.
    """
    try:
        return _converse(process, input, until, tick)
    except BaseException:
        kill_group(process)
        raise


def _converse(
    process: subprocess.Popen[bytes], input: bytes | None, until: float, tick: Callable[[], None]
) -> tuple[bytes, bytes]:
    # subprocess's own communicate() sleeps a millisecond or more when the pipes are closed before the program has ended,
    # as most programs do it: longer than many of them run.
    import select

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
    left = memoryview(input or b"")
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
                    left = _feed(fd, left)
                    if not left:
                        poller.unregister(fd)
                        process.stdin.close()
                elif fd in said and (data := os.read(fd, _PIPE)):
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
    out, err = (b"".join(pieces) for pieces in said.values())
    return out, err


def _feed(fd: int, left: memoryview) -> memoryview:
    """Write what fits; what is still to be written. A program that does not want its input gets no more."""
    try:
        return left[write_some(fd, left[:_PIPE]) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]


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
