"""File systems for the pool type fs: the programs that make them, what they are called, and how one made here is known again.

A file system that ``build`` makes carries an identity that follows from the pool's uuid and the device's path. Building
again finds it, and undo removes nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from poolkit.host.port import Host

# Definition's name -> the kernel's, where they differ; the latter are those of blkid(8) and formats.content as well.
KERNEL = {"hfs+": "hfsplus"}

# What formats.content recognises and mount(8) can be told to mount.
MOUNTABLE = (
    "ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "udf", "iso9660", "hfsplus", "gfs2", "ocfs2", "ufs",
)  # fmt: skip

# What a file system needs beyond the definition's options, which may change it: new volumes get mode 0600 by chmod,
# and vfat takes only modes that its masks allow; iso9660 has no other way of being mounted.
OPTIONS = {"vfat": ("fmask=0177", "dmask=0077"), "iso9660": ("ro",)}

# Program and words: {mark} is the identity, and what follows a `+` is only for a device that held something.
MAKERS: dict[str, tuple[str, ...]] = {
    "ext2": ("mkfs.ext2", "-q", "-U", "{mark}", "+-F"),
    "ext3": ("mkfs.ext3", "-q", "-U", "{mark}", "+-F"),
    "ext4": ("mkfs.ext4", "-q", "-U", "{mark}", "+-F"),
    "xfs": ("mkfs.xfs", "-q", "-m", "uuid={mark}", "+-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-U", "{mark}", "+-f"),
    "vfat": ("mkfs.vfat", "-i", "{mark}", "+-I"),
    "udf": ("mkudffs", "--bootarea=erase", "--uuid={mark}"),  # by default it pretends that there are partitions
}

PACKAGES = {
    "mkfs.ext2": "e2fsprogs", "mkfs.ext3": "e2fsprogs", "mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs", "mkfs.vfat": "dosfstools", "mkudffs": "udftools",
}  # fmt: skip


def mark(format: str, pool: str | None, device: str) -> str:
    """The identity of the file system that ``build`` makes for the pool of that uuid, in the form its program takes.

    ``device`` is the definition's path: two disks that a pool has had one after the other never share an identity.
    """
    import uuid

    base = uuid.uuid5(uuid.UUID(pool), f"file system on {device}") if pool else uuid.uuid4()
    return {"vfat": base.hex[:8], "udf": base.hex[:16]}.get(format, str(base))


def argv(format: str, mark: str, device: str, *, force: bool) -> list[str]:
    """The command that makes a file system."""
    found = []
    for word in MAKERS[format]:
        if not word.startswith("+"):
            found.append(word.format(mark=mark))
        elif force:
            found.append(word[1:])
    return [*found, "--", device]


def question(device: str) -> list[str]:
    """The command that prints the identity of what is on a device."""
    return ["blkid", "--probe", "--output", "value", "--match-tag", "UUID", "--", device]


def shown(format: str, mark: str) -> str:
    """An identity as that command prints it: vfat's 1a2b3c4d is shown as 1A2B-3C4D."""
    return f"{mark[:4]}-{mark[4:]}".upper() if format == "vfat" else mark


def identity(host: Host, device: str) -> str:
    """The identity of the file system on a device, as ``shown`` has it; empty if it has none (2) or several (8)."""
    return host.query(question(os.path.realpath(device)), ok=(0, 2, 8)).stdout.strip()


def content(fd: int) -> tuple[str, ...]:
    """What is recognised on an open device."""
    from poolkit.formats import FdReader
    from poolkit.formats import content as scan

    return tuple(scan(FdReader(fd, os.lseek(fd, 0, os.SEEK_END))))


def file_system(found: Sequence[str]) -> str:
    """The one file system among what a device holds, or nothing if that is not certain.

    Discs are often made with a partition table around them, so that firmware boots them from any medium.
    """
    names = [name for name in found if name in MOUNTABLE]
    others = set(found).difference(names)
    if len(names) != 1 or (others and not (names[0] in ("iso9660", "udf") and others <= {"mbr", "gpt", "mac"})):
        return ""
    return names[0]


def words(found: Sequence[str]) -> str:
    """What a device holds, as the end of a sentence."""
    return f"holds {' and '.join(found)}" if found else "holds nothing that is known"
