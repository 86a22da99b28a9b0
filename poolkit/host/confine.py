"""What a program that reads images nobody vouches for can reach: what it was given open, its libraries, and no network.

The means is Landlock (Linux 5.13, https://docs.kernel.org/userspace-api/landlock.html): a program that a confined thread
starts is confined before its first instruction, and nothing lifts that. So the thread that starts it exists for that alone.
Root's programs get a network of their own besides, without interfaces: before ABI 4 Landlock knows no network, and never UDP.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from poolkit import errors

_Started = TypeVar("_Started")

# The numbers are the same on every architecture (asm-generic/unistd.h).
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH
# linux/landlock.h, LANDLOCK_ACCESS_FS_*
_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE, _IOCTL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_KNOWN = {1: 13, 2: 14, 3: 15, 4: 15}  # rights to files that each ABI knows; 16 since ABI 5
_TCP = 3  # LANDLOCK_ACCESS_NET_BIND_TCP and _CONNECT_TCP, since ABI 4
_SCOPES = 3  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and _SIGNAL, since ABI 6
_NO_NEW_PRIVS = 38  # linux/prctl.h
_NEWNET = 0x40000000  # linux/sched.h

_RUN = (
    "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/libexec", "/usr/share/locale",
    "/usr/local/bin", "/usr/local/sbin", "/usr/local/lib", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin",
    "/nix/store", "/gnu/store",
)  # fmt: skip
"""Where programs and their libraries are, which everybody may read: read and executed. Leave is given for all below, so that
nothing of root's own may be there, as it is in /usr/local/etc."""
_LOOKED_AT = (
    "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ssl/openssl.cnf", "/etc/gnutls", "/etc/crypto-policies", "/etc/localtime",
    "/dev/urandom", "/dev/random", "/proc/sys/crypto", "/sys/devices/system/cpu", "/sys/devices/system/node",
)  # fmt: skip
"""What the loader, the C library and the libraries for encryption read."""

_libc = ctypes.CDLL(None, use_errno=True)


@functools.cache
def abi() -> int:
    """The version of Landlock that this kernel has switched on; 0 without it (older, not configured, or not allowed)."""
    return max(0, _syscall(CREATE_RULESET, None, 0, _VERSION))


def apart(start: Callable[[], _Started], *, programs: Iterable[str], fds: Sequence[int]) -> _Started:
    """What ``start`` returns, called in a confined thread: a program that it starts is confined for all its life.

    It can execute and read ``programs`` (absolute paths) and what is installed, and open the files of the descriptors ``fds``
    again, to write only where the descriptor may. ``HostError`` where the kernel has the means and refuses them.
    """
    answer: list[_Started] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            restrict(programs, fds)
            answer.append(start())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="confined")
    thread.start()
    interrupted: BaseException | None = None
    while thread.is_alive():
        try:
            thread.join()
        except BaseException as error:  # Ctrl-C: what is being started must be known before anybody can end it
            interrupted = error
    if failed:
        raise failed[0]
    if interrupted is not None:
        stop = getattr(answer[0], "kill", None)
        if stop is not None:
            stop()
        raise interrupted
    return answer[0]


def restrict(programs: Iterable[str], fds: Sequence[int]) -> None:
    """Confine the calling thread."""
    if os.geteuid() == 0:
        # In a container without the right to do so Landlock's rules for TCP have to do.
        _libc.unshare(_NEWNET)
    if _libc.prctl(_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))):
        raise _refused()
    version = abi()
    if not version:
        return
    all_rights = (1 << _KNOWN.get(version, 16)) - 1
    attribute = struct.pack("=QQQ", all_rights, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = _syscall(CREATE_RULESET, attribute, size, 0)
    if rules < 0:
        raise _refused()
    try:
        for path in _RUN:
            _allow_path(rules, path, (_EXECUTE | _READ | _LIST) & all_rights)
        for path in programs:
            _allow_path(rules, path, (_EXECUTE | _READ) & all_rights)
        for path in _LOOKED_AT:
            _allow_path(rules, path, (_READ | _LIST) & all_rights)
        _allow_path(rules, os.devnull, (_READ | _WRITE) & all_rights)
        for fd in fds:
            writes = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            # A device is asked for its size and told to discard by ioctl(2).
            rights = _READ | _IOCTL | (_WRITE | _TRUNCATE if writes else 0)
            # Pipes, sockets and files in memory only have no place in the tree, and need no leave.
            with contextlib.suppress(OSError):
                _allow(rules, fd, rights & all_rights)
        if _syscall(RESTRICT_SELF, rules, 0, 0) < 0:
            raise _refused()
    finally:
        os.close(rules)


def _allow_path(rules: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no leave
    try:
        _allow(rules, fd, rights)
    finally:
        os.close(fd)


def _allow(rules: int, fd: int, rights: int) -> None:
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        rights &= ~_LIST
    if _syscall(ADD_RULE, rules, _BENEATH, struct.pack("=Qi", rights, fd), 0) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    answer: int = _libc.syscall(ctypes.c_long(number), *words)
    return answer


def _refused() -> errors.HostError:
    return errors.HostError(
        f"a program that reads images could not be confined: {os.strerror(ctypes.get_errno())}",
        hint="poolkit runs inside of too many sandboxes; give it one less",
    )
