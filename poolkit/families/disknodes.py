"""Disks and the device nodes of their partitions: what the kernel knows, and telling it what changed.

The kernel reads a partition table again by itself only where nothing on the disk is in use, and some kernels cannot read
one at all; so it is told of each single partition (partx(8), which uses BLKPG of linux/blkpg.h). Partitions of
device-mapper disks, such as multipath, are device-mapper devices of their own, made by kpartx.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import NamedTuple

from poolkit import errors
from poolkit.families import blockdevice
from poolkit.host import undo
from poolkit.host.descriptors import read_at
from poolkit.host.devices import Devices
from poolkit.host.port import Host

_WAIT = 10.0  # seconds: for the lock of a disk that udev or another partitioner holds, and for device nodes to appear
_UDEV = "/run/udev/control"  # the socket of a running udevd
_HEAD = 8192  # bytes that tell a partition table: GPT of disks with sectors of 4096 bytes is in the second sector


class Disk(NamedTuple):
    """A disk as the kernel has it: ``node`` is its own name (/dev/sda, /dev/mapper/mpatha), ``number`` major:minor.

    ``dm`` is the device-mapper name or empty; ``names`` are the partitions that have a node, by number.
    """

    path: str
    node: str
    number: str
    size: int
    sector: int
    dm: str
    separator: str
    names: dict[int, str]

    def name(self, number: int) -> str:
        """The name of the partition of that number: the one it has, else the one the kernel will give it."""
        return self.names.get(number) or f"{self.node[self.node.rindex('/') + 1 :]}{self.separator}{number}"

    def may_be(self, name: str, number: int) -> bool:
        """Whether a new partition of that number can be asked for by that name.

        Before a device-mapper disk has its first one nobody can tell how this machine's rules will name it.
        """
        if self.dm and not self.names:
            return name in [f"{self.dm}{separator}{number}" for separator in ("-part", "p", "")]
        return name == self.name(number)

    def part(self, number: int) -> str:
        """The device node of the partition of that number."""
        return self.node[: self.node.rindex("/") + 1] + self.name(number)


def look(host: Host, path: str, part_separator: bool | None = None) -> Disk | None:
    """The block device at ``path``, or None. ``part_separator`` is the definition's, for device-mapper disks."""
    said = host.devices
    number = said.number(path)
    if not number:
        return None
    base = f"/sys/dev/block/{number}"
    name = os.path.basename(said.real(base))
    size = int(said.value(f"{base}/size") or 0) * 512  # always counted in 512 bytes
    sector = int(said.value(f"{base}/queue/logical_block_size") or 512)
    dm = said.value(f"{base}/dm/name")
    if dm:
        names = _dm_parts(said, base)
        return Disk(
            path, f"/dev/mapper/{dm}", number, size, sector, dm, _dm_separator(dm, names, part_separator), names
        )
    separator = "p" if name[-1:].isdigit() else ""
    prefix = name + separator
    names = {}
    for entry in said.names(base):
        tail = entry.removeprefix(prefix)
        if entry.startswith(prefix) and tail.isdigit():
            names[int(tail)] = entry
    return Disk(path, f"/dev/{name.replace('!', '/')}", number, size, sector, "", separator, names)


def whole(host: Host) -> Iterator[Disk]:
    """The disks of this host with a medium that can be written: multipath ones, but no other mapped devices nor loops."""
    said = host.devices
    for name in sorted(said.names("/sys/block")):
        base = f"/sys/block/{name}"
        plain = said.there(f"{base}/device") and not name.startswith(("sr", "fd"))
        if not plain and not said.value(f"{base}/dm/uuid").startswith("mpath-"):
            continue
        mapped = said.value(f"{base}/dm/name")
        found = look(host, f"/dev/mapper/{mapped}" if mapped else f"/dev/{name.replace('!', '/')}")
        if found is not None and found.size and said.value(f"{base}/ro") == "0":
            yield found


def _dm_parts(said: Devices, base: str) -> dict[int, str]:
    """kpartx and parted give a partition the uuid of its disk after ``partN-``."""
    names: dict[int, str] = {}
    own = said.value(f"{base}/dm/uuid")
    for holder in said.names(f"{base}/holders"):
        prefix, _, of = said.value(f"/sys/class/block/{holder}/dm/uuid").partition("-")
        if of == own and own and prefix.startswith("part") and prefix[4:].isdigit():
            names[int(prefix[4:])] = said.value(f"/sys/class/block/{holder}/dm/name")
    return names


def _dm_separator(dm: str, names: dict[int, str], wanted: bool | None) -> str:
    for number, name in names.items():
        if name.startswith(dm) and name.endswith(str(number)):
            return name[len(dm) : -len(str(number))]
    if wanted is None:
        return "-part"  # what Debian's rules for kpartx say
    return "p" if wanted or dm[-1:].isdigit() else ""  # as libvirt: without it the number could not be told


def head(host: Host, path: str) -> bytes:
    """The first 8 KiB of the disk. Raises ``OSError``."""
    fd = host.devices.open(path)
    try:
        return read_at(fd, _HEAD, 0)
    finally:
        os.close(fd)


def span(host: Host, number: str) -> tuple[int, int]:
    """Start and size in bytes that the kernel has for the partition ``major:minor``; the start is -1 if it has none."""
    base = f"/sys/dev/block/{number}"
    start = host.devices.value(f"{base}/start")
    return int(start) * 512 if start else -1, int(host.devices.value(f"{base}/size") or 0) * 512


@contextlib.contextmanager
def locked(host: Host, disk: Disk) -> Iterator[None]:
    """Nobody else who follows systemd's rule for block devices changes the table or reads it again meanwhile.

    udevd is one of them: without the lock it would drop and make anew all partitions while they are told of.
    Afterwards udev has made its links. ``Busy`` when somebody else holds the lock for ten seconds.
    """
    if host.dry_run:
        yield
        return
    fd = _open_locked(host, disk)
    try:
        yield
    finally:
        os.close(fd)
    settle(host)


def _open_locked(host: Host, disk: Disk) -> int:
    # Read-only: udev looks again at a disk that was open for writing.
    fd = host.devices.open(disk.node)

    def taken() -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        if not host.wait_for(taken, _WAIT):
            raise errors.Busy(f"'{disk.path}' is locked by another program, such as a partitioner")
    except BaseException:
        os.close(fd)
        raise
    return fd


def settle(host: Host) -> None:
    """Wait until udev, if it runs, has done what it was told."""
    if host.devices.there(_UDEV):
        host.query(["udevadm", "settle", "--timeout=30"], ok=(0, 1))


# -- telling the kernel -------------------------------------------------------------------------------------------------


def question(disk: Disk, number: int) -> list[str]:
    """The command that prints where the table on the disk has the partition, and its identity."""
    return ["partx", "--show", "--noheadings", "--output", "START,SECTORS,UUID", "--nr", str(number), "--", disk.node]


def forget_argv(disk: Disk, number: int) -> list[str]:
    """The command that makes the kernel forget a partition: refused while that is open, fine when it is unknown."""
    if disk.dm:
        return ["dmsetup", "remove", "--", disk.name(number)]
    return ["partx", "--delete", "--nr", str(number), "--", disk.node]


def tell_argv(disk: Disk, number: int) -> list[str]:
    """The command that makes the kernel read a partition from the table."""
    if disk.dm:
        return ["kpartx", "-a", "-s", "-p", disk.separator, "--", disk.node]
    return ["partx", "--add", "--nr", str(number), "--", disk.node]


def resize_argv(disk: Disk, number: int, size: int) -> list[str]:
    """The command that makes the kernel change the size of a partition, in use or not."""
    if disk.dm:
        return ["kpartx", "-u", "-s", "-p", disk.separator, "--", disk.node]
    return ["resizepart", disk.node, str(number), str(size // 512)]


def tell(host: Host, disk: Disk, number: int) -> None:
    """Make the kernel know a partition of the table. Status 1 of partx means that it did already."""
    host.change(tell_argv(disk, number), ok=(0, 1), whole=True)


def forget(host: Host, disk: Disk, number: int, what: str, *, stale: bool = False) -> None:
    """Make the kernel forget a partition that has a node; ``Busy``, naming the user, while it is in use.

    A ``stale`` one, which no table on the disk has, is not told again when this is undone: nothing could say where it is.
    """
    if number not in disk.names:
        return
    # Undone only if it is unknown then: telling the kernel twice is an error.
    again = undo.run_if(
        ["lsblk", "--noheadings", "--output", "NAME", "--", disk.part(number)], "", tell_argv(disk, number)
    )
    try:
        host.change(forget_argv(disk, number), undo=None if stale else again, whole=True)
    except errors.ToolFailed as error:
        raise errors.Busy(f"{what} is in use{_by(host, disk.part(number))}") from error


def require_idle(host: Host, disk: Disk, number: int, what: str) -> None:
    """Raise ``Busy``, naming the user, if the partition is mounted, swap space, part of something or open for good."""
    if number in disk.names:
        device = host.devices.number(disk.part(number))
        if device and (words := blockdevice.users(host, device)):
            raise errors.Busy(f"{what} is in use: {errors.some(words)}")


def _by(host: Host, node: str) -> str:
    device = host.devices.number(node)
    words = blockdevice.users(host, device, processes=True) if device else []
    return f": {errors.some(words)}" if words else ""


def arrive(host: Host, disk: Disk, number: int, what: str) -> Disk:
    """Wait until the partition has its node; the disk as it is then. ``HostError`` if that does not come."""

    def there() -> Disk | None:
        # With device-mapper the machine's own rules for kpartx may have given it another name than the expected one.
        found = look(host, disk.path) if disk.dm else disk
        if found is not None and (number in found.names or not disk.dm) and host.devices.number(found.part(number)):
            return found
        return None

    found = host.wait_for(there, _WAIT)
    if found is None:
        raise errors.HostError(
            f"{what} is in the partition table, but its device '{disk.part(number)}' did not appear",
            hint=f"another partition of '{disk.path}' may be in the kernel's way: partx --show {disk.node}; lsblk",
        )
    return found


def stable(host: Host, target: str, disk: Disk, nodes: dict[str, str]) -> dict[str, str]:
    """For each partition's node its path below the pool's target: a link there that leads to it, else the node itself.

    Of several links the one whose name continues that of the disk in the definition is taken, else the first by name.
    """
    target = os.path.normpath(target)
    if target in ("/dev", os.path.dirname(disk.node)) or not target.startswith("/dev/"):
        return nodes
    found: dict[str, str] = {}
    own = os.path.basename(disk.path) + "-part"
    said = host.devices
    for entry in sorted(said.names(target), key=lambda entry: (not entry.startswith(own), entry)):
        found.setdefault(said.real(f"{target}/{entry}"), f"{target}/{entry}")
    return {name: found.get(said.real(node), node) for name, node in nodes.items()}
