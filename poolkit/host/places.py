"""Which directory is behind a path: what tells it from another one that appears there later.

An unmounted file system uncovers the directory below its mount point, and a directory that was removed and made again may have
the same inode number at once. Nothing on a network file system is touched: of it the mount table must do.
"""

from __future__ import annotations

import fcntl
import os
import stat

from poolkit.host.mounts import is_network, locate, number
from poolkit.lean import TYPE_CHECKING, dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from poolkit.host.mounts import Mount, MountTable


_ALONE = '{"alone": '
"""What a note begins with that says it ``alone``; what other types note are other texts."""
_GETVERSION = 0x80087601
"""FS_IOC_GETVERSION of linux/fs.h, _IOR('v', 1, long) of 64 bits: the generation, which tells users of one inode number apart."""


def note(path: str, mounts: Sequence[Mount], *, alone: bool = False) -> str:
    """What to remember of the directory at ``path``, for :func:`replaced`; an opaque text. ``OSError``.

    ``alone``: that it is there, and no other one, is all that its pool needs to be up (:func:`gone` tells it), and the pool's
    volumes are its entries, with the stamps of :func:`stamp_of` (:func:`unchanged`).
    """
    facts = _facts(path, mounts)
    return dumps({"alone": path, **facts} if alone else facts)


def gone(noted: str, mounts: Callable[[], Sequence[Mount]]) -> str | None:
    """Why the storage of a pool is not up any more, by what was noted ``alone``; empty if it is, None for any other note.

    So a look at such a pool reads no definition. ``OSError``.
    """
    if not noted.startswith(_ALONE):
        return None
    path = loads(noted)["alone"]
    try:
        return replaced(noted, path, mounts())
    except OSError:
        if os.path.isdir(path):
            raise
        return f"the directory '{path}' does not exist"


def unchanged(noted: str, name: str, stamp: int, mounts: Callable[[], MountTable]) -> os.stat_result | None:
    """The facts of an entry of the directory that was noted ``alone``, if that is up and the entry's stamp is still the same.

    None where that is not so, and where a look at the entry alone cannot tell it or may wait for somebody. ``OSError``.
    """
    if gone(noted, mounts) != "":
        return None
    real, mount = locate(loads(noted)["alone"], mounts())
    entry = f"{real.rstrip('/')}/{name}"
    if mount is None or is_network(mount.fstype) or entry in mounts().tops:
        return None
    facts = os.lstat(entry)
    return facts if stat.S_ISREG(facts.st_mode) and stamp_of(facts) == stamp else None


def stamp_of(facts: os.stat_result) -> int:
    """The number that tells a file and its state from all others, or another state of it."""
    return hash((facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_blocks))


def replaced(noted: str, path: str, mounts: Sequence[Mount]) -> str:
    """Why the directory at ``path`` is not the one that was noted, as the end of a sentence; empty if it is. ``OSError``."""
    then = loads(noted)
    now = _facts(path, mounts, then["is"])
    if _same(then["is"], now["is"]):
        return ""
    at, on = then["at"], then["on"]
    if (now["at"], now["on"]) == (at, on):
        return f"the directory '{path}' is another one than the pool was started with"
    if not any(mount.target == at and mount.words() == on for mount in mounts):
        return f"{on} is not mounted at '{at}' any more, and the directory '{path}' is on {now['on']}"
    return f"the directory '{path}' was on {on} when the pool was started, and is on {now['on']}"


def _facts(path: str, mounts: Sequence[Mount], like: Sequence[object] = (1, 1, 1, 1)) -> dict[str, Any]:
    """What tells the directory from others; what ``like`` has as 0 is not asked for, since a FUSE server may have to answer."""
    real, mount = locate(path, mounts)
    on, at = ("another file system", "/") if mount is None else (mount.words(), mount.target)
    if mount is not None and is_network(mount.fstype):
        inner = real[len(mount.target.rstrip("/")) :]
        return {"on": on, "at": at, "is": [mount.fstype, mount.source, mount.root, inner]}
    facts = os.stat(real)
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(20, os.strerror(20), path)
    system = os.statvfs(real).f_fsid if like[2] else 0
    generation = _generation(real) if like[3] else 0
    return {"on": on, "at": at, "is": [number(facts.st_dev), facts.st_ino, system, generation]}


def _generation(path: str) -> int:
    """The generation of the inode; 0 where it cannot be had: no right to read, or a file system without."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(fd, _GETVERSION, bytes(8))[:4], "little")
    except OSError:
        return 0
    finally:
        os.close(fd)


def _same(then: list[object], now: list[object]) -> bool:
    device, inode, system, generation = then
    if not isinstance(inode, int) or not isinstance(now[1], int):
        return then == now  # as the mount table has it
    if inode != now[1] or (generation and now[3] and generation != now[3]):
        return False
    if system and now[2]:
        # File systems without a device get another number with each mount, and keep their identity.
        return system == now[2] and (
            device == now[0] or (str(device).startswith("0:") and str(now[0]).startswith("0:"))
        )
    return device == now[0]
