"""A folder that plays a machine with disks: their nodes, what sysfs says of them, and bytes by which content is recognised."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poolkit.host import Result
from poolkit.testing import ScriptedHost

MIB = 1 << 20
_BOOT = {510: b"\x55\xaa"}
_FAT = {0: b"\xeb\x3c\x90", 11: b"\0\2\4", 16: b"\2", 54: b"FAT16   "}
# What of each content poolkit recognises, by place; a negative one is counted from the disk's end.
CONTENT: dict[str, dict[int, bytes]] = {
    "mbr": _BOOT,
    "gpt": {512: b"EFI PART"},
    "sun": {508: b"\xda\xbe\xda\xbe"},
    "mac": {0: b"ER", 512: b"PM"},
    "ext4": {1028: b"\1", 1080: b"\x53\xef", 1120: b"\x40"},
    "xfs": {0: b"XFSB"},
    "vfat": {**_BOOT, **_FAT},
    "hfsplus": {1024: b"H+\0\4"},
    "gfs2": {65536: b"\x01\x16\x19\x70\0\0\0\1"},
    "iso9660": {32769: b"CD001"},
    "linux_raid_member": {-65536: b"\xfc\x4e\x2b\xa9"},
    "LVM2_member": {512: b"LABELONE", 536: b"LVM2 001"},
}  # fmt: skip


class Machine:
    """What ``ScriptedHost(machine=...)`` takes: its ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __fspath__(self) -> str:
        return str(self.folder)

    def write(self, path: str, text: str) -> None:
        """What a file of the kernel says."""
        file = self.folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def link(self, path: str, target: str) -> None:
        """A symbolic link; both are absolute."""
        place = self.folder / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(self.folder / target.lstrip("/"), place.parent))

    def block(self, name: str, number: str, size: int = 0, *, within: str = "", **facts: str) -> None:
        """A block device: its node, and its folder in sysfs with these facts (``dm__name`` for ``dm/name``)."""
        base = f"/sys/block/{within}/{name}" if within else f"/sys/block/{name}"
        for fact, text in {"dev": number, "size": str(size // 512), "ro": "0", **facts}.items():
            self.write(f"{base}/{fact.replace('__', '/')}", text)
        self.link(f"/sys/dev/block/{number}", base)
        self.link(f"/sys/class/block/{name}", base)
        node = self.folder / "dev" / name
        node.parent.mkdir(exist_ok=True)
        node.touch()
        node.chmod(0o660)
        os.truncate(node, size)

    def disk(self, name: str, number: str, size: int) -> None:
        """A disk of sectors of 512 bytes."""
        self.block(name, number, size, queue__logical_block_size="512", device__type="0")

    def part(self, disk: str, number: int) -> None:
        """A partition with a node; repeatable."""
        name = f"{disk}{number}"
        if not (self.folder / "dev" / name).exists():
            self.block(name, f"8:{number}", within=disk, partition=str(number))

    def unpart(self, disk: str, number: int) -> None:
        """The partition has no node any more; repeatable."""
        name = f"{disk}{number}"
        base = self.folder / "sys/block" / disk / name
        if base.exists():
            for path in (self.folder / f"sys/dev/block/8:{number}", self.folder / "sys/class/block" / name):
                path.unlink()
            for path in (*base.iterdir(), self.folder / "dev" / name):
                path.unlink()
            base.rmdir()

    def put(self, name: str, place: int, data: bytes) -> None:
        """Bytes of a disk."""
        with open(self.folder / "dev" / name, "r+b") as file:
            file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
            file.write(data)

    def holds(self, name: str, *content: str) -> None:
        """Make a disk hold just that."""
        size = os.path.getsize(node := self.folder / "dev" / name)
        os.truncate(node, 0)
        os.truncate(node, size)
        for one in content:
            for place, data in CONTENT[one].items():
                self.put(name, place, data)


class PartitionedHost(ScriptedHost):
    """A scripted host on which partx, kpartx and parted make and remove the nodes of the partitions of ``/dev/sda``."""

    played: Machine

    def change(self, argv: Sequence[str], **how: Any) -> Result:
        answer = super().change(argv, **how)
        if argv[0] == "partx":
            number = int(argv[argv.index("--nr") + 1])
            (self.played.part if "--add" in argv else self.played.unpart)("sda", number)
        elif argv[:2] == ["kpartx", "-a"]:
            mapped(self.played, 1)
        elif "mkpart" in argv and "set" in argv:
            self.played.part("sda", int(argv[argv.index("set") + 1]))
        return answer


def multipath(played: Machine, size: int) -> None:
    """``/dev/sda`` is a path of the map mpatha, which has its name."""
    (played.folder / "dev/sda").unlink()
    played.block("dm-0", "253:0", size, queue__logical_block_size="512", dm__name="mpatha", dm__uuid="mpath-1")
    for path in ("/dev/sda", "/dev/mapper/mpatha"):
        played.link(path, "/dev/dm-0")


def mapped(played: Machine, number: int) -> None:
    """A partition of that map."""
    name = f"dm-{number}"
    label = f"mpatha-part{number}"
    played.block(name, f"253:{number}", dm__name=label, dm__uuid=f"part{number}-mpath-1")
    played.write(f"/sys/block/dm-0/holders/{name}", "")
    played.link(f"/dev/mapper/{label}", f"/dev/{name}")
