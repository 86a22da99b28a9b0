"""The mount table, asked without waiting for anybody.

A path on a network file system whose server is dead makes ``stat`` hang for ever, and with it ``realpath`` and every tool
that tidies its operands. What is mounted where is therefore found out from ``/proc/self/mountinfo`` alone: a path is followed
component by component, and nothing at or below a mount point of a network file system is touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poolkit.host import Mount

# Kernel names of the file systems that need somebody else to answer; FUSE has the client's name after a dot.
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.glusterfs", "fuse.sshfs"})

_LINKS = 40  # the kernel's own limit for symbolic links in one path


def is_network(fstype: str) -> bool:
    """Whether a file system of that kernel name lives on another machine."""
    return fstype in NETWORK


def locate(path: str, mounts: Iterable[Mount]) -> tuple[str, Mount | None]:
    """The path without symbolic links, as far as that can be told without waiting, and the mount it is on.

    Below a network mount the rest of the path is taken as it is. What does not exist is taken as it is, too. Raises
    ``OSError`` (ELOOP) for a loop of links.
    """
    tops = {mount.target: mount for mount in mounts}  # later lines lie above earlier ones
    rest = [part for part in os.path.normpath(path).split("/") if part][::-1]
    here, mount, links = "/", tops.get("/"), 0
    while rest:
        part = rest.pop()
        if part == "..":
            here = os.path.dirname(here)
            mount = _above(here, tops)
            continue
        there = f"{here.rstrip('/')}/{part}"
        if there in tops:  # a mount point is a directory, never a link
            here, mount = there, tops[there]
            if is_network(mount.fstype):
                break
            continue
        try:
            aim = os.readlink(there)
        except OSError:
            here = there
            continue
        links += 1
        if links > _LINKS:
            raise OSError(40, "Too many levels of symbolic links", path)
        if aim.startswith("/"):
            here, mount = "/", tops.get("/")
        rest += [one for one in aim.split("/") if one not in ("", ".")][::-1]
    if rest:
        here = "/".join([here.rstrip("/"), *rest[::-1]])
    return here, mount


def network_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The network file system that ``path`` is on, if it is on one: what touches the path may hang."""
    try:
        mount = locate(path, mounts)[1]
    except OSError:
        return None  # a loop of links: nothing is reached
    return mount if mount is not None and is_network(mount.fstype) else None


def shows(mount: Mount, path: str, mounts: Iterable[Mount]) -> bool:
    """Whether ``mount`` is a bind mount of the directory ``path``, as the table alone tells it."""
    mounts = list(mounts)
    real, under = locate(path, mounts)
    if under is None or mount.device != under.device:
        return False
    inner = real[len(under.target.rstrip("/")) :]
    return mount.root == (f"{under.root.rstrip('/')}{inner}".rstrip("/") or "/")


def export(source: str) -> str:
    """The directory of an NFS source. The kernel may show the server by the name of an earlier mount of the same export."""
    return source.partition(":/")[2].strip("/")


def btrfs_has(mount: Mount, number: str) -> bool:
    """Whether the device ``major:minor`` is one of a mounted btrfs, which has a number of its own (sysfs)."""
    if mount.fstype != "btrfs":
        return False
    import fcntl

    # BTRFS_IOC_FS_INFO of linux/btrfs.h: struct of 1024 bytes; the identity is at byte 16
    facts = bytearray(1024)
    try:
        fd = os.open(mount.target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, 0x8400941F, facts)
        finally:
            os.close(fd)
        raw = facts[16:32].hex()
        base = f"/sys/fs/btrfs/{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}/devices"
        for name in os.listdir(base):
            with open(f"{base}/{name}/dev", encoding="ascii") as file:
                if file.read().strip() == number:
                    return True
    except OSError:
        return False
    return False


def _above(path: str, tops: dict[str, Mount]) -> Mount | None:
    while path not in tops:
        if path == "/":
            return None
        path = os.path.dirname(path)
    return tops[path]
