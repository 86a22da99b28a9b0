"""The mount table, asked without waiting for anybody.

A path on a network file system whose server is dead makes ``stat`` hang for ever, and with it ``realpath`` and every tool
that tidies its operands. What is mounted where is therefore found out from ``/proc/self/mountinfo`` alone: a path is followed
component by component, and nothing at or below a mount point of a network file system is touched.
"""

from __future__ import annotations

import os
from functools import cached_property, lru_cache

from poolkit import errors
from poolkit.host import kernel
from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


# Kernel names of the file systems that need somebody else to answer; FUSE has the client's name after a dot.
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.glusterfs", "fuse.sshfs"})

_LINKS = 40  # the kernel's own limit for symbolic links in one path


class Mount(NamedTuple):
    """One line of the mount table."""

    device: str
    root: str
    target: str
    fstype: str
    source: str
    options: str

    def words(self) -> str:
        """What is mounted, for a message: ``'tmpfs' (tmpfs)``."""
        return f"'{errors.shown(self.source, 100)}' ({self.fstype})"


class MountTable(tuple[Mount, ...]):
    """All mounts, in the order in which they were made."""

    @cached_property
    def tops(self) -> dict[str, Mount]:
        """The mount that is seen at each mount point: later lines lie above earlier ones."""
        return {mount.target: mount for mount in self}


def read() -> MountTable:
    """The mount table of this process as it is now (``/proc/self/mountinfo``, proc(5)); ``HostError``."""
    try:
        with open("/proc/self/mountinfo", "rb", buffering=0) as file:
            return parse(file.readall())
    except OSError as error:
        raise errors.from_os_error(error, "read '/proc/self/mountinfo'") from error


@lru_cache(maxsize=2)  # it seldom changes from one call to the next
def parse(text: bytes) -> MountTable:
    """The table that is written in ``text``."""
    mounts = []
    # proc(5): space, tab, newline, backslash and, in the source, # appear as a backslash and three octal digits. Nothing else,
    # so not splitlines: whoever may mount with FUSE chooses a name with a carriage return.
    for line in text.decode("utf-8", "backslashreplace").split("\n"):
        fields = line.split(" ")
        try:
            tail = fields.index("-", 6) + 1  # any number of optional fields stands before the hyphen
            kind, source = fields[tail], fields[tail + 1]
        except (ValueError, IndexError):
            continue
        root, target = fields[3], fields[4]
        if "\\" in line:
            root, target, source = map(_unescaped, (root, target, source))
        mounts.append(Mount(fields[2], root, target, kind, source, ",".join([fields[5], *fields[tail + 2 :]])))
    return MountTable(mounts)


_ESCAPES = {"040": " ", "011": "\t", "012": "\n", "134": "\\", "043": "#"}


def _unescaped(field: str) -> str:
    first, *rest = field.split("\\")
    # What is no escape of the kernel's stands for a byte that is not UTF-8.
    return first + "".join(_ESCAPES[p[:3]] + p[3:] if p[:3] in _ESCAPES else "\\" + p for p in rest)


def number(device: int) -> str:
    """A device number (``st_dev``, ``st_rdev``) as the mount table writes it: ``major:minor``."""
    return f"{os.major(device)}:{os.minor(device)}"


def is_network(fstype: str) -> bool:
    """Whether a file system of that kernel name lives on another machine."""
    return fstype in NETWORK


def may_wait(fstype: str) -> bool:
    """Whether looking at a file system of that kernel name may wait for somebody: a network's, a process's (FUSE), autofs."""
    return is_network(fstype) or fstype in ("autofs", "fuse", "fuseblk") or fstype.startswith("fuse.")


def locate(
    path: str, mounts: Iterable[Mount], untouched: Callable[[str], bool] = is_network
) -> tuple[str, Mount | None]:
    """The path without symbolic links, as far as that can be told without waiting, and the mount it is on.

    Below a network mount, or another that is to stay ``untouched`` by its kind, the rest of the path is taken as it is. What
    does not exist is taken as it is, too. Raises ``OSError`` (ELOOP) for a loop of links.
    """
    tops = (mounts if isinstance(mounts, MountTable) else MountTable(mounts)).tops
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
            if untouched(mount.fstype):
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
            if kernel.value(f"{base}/{name}/dev") == number:
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
