"""Raw content: what the first 4 KiB show of a partition table or file system. Never a decision, always a hint."""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from poolkit.formats._info import ImageInfo, Reader


_START = {b"XFSB": "xfs", b"hsqs": "squashfs"}
_RAID_1_1 = b"\xfc\x4e\x2b\xa9\1\0\0\0"
_HFSPLUS = (b"H+\0\4", b"HX\0\5")


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Set ``info.capacity`` and ``info.hints`` from the page already read."""
    info.capacity = reader.size
    info.hints = hints(head)


def hints(head: bytes) -> tuple[str, ...]:
    """What the first page looks like, partition tables first."""
    found = []
    boot = head[510:512] == b"\x55\xaa"
    ntfs = head[3:11] == b"NTFS    "
    fat = boot and _fat(head)
    if boot and not fat and not ntfs:
        found.append("mbr")
    if head[512:520] == b"EFI PART":
        found.append("gpt")
    if head[:4] in _START:
        found.append(_START[head[:4]])
    if ntfs:
        found.append("ntfs")
    if fat:
        found.append("vfat")
    if head[1024:1028] in _HFSPLUS:
        found.append("hfsplus")
    if head[1080:1082] == b"\x53\xef" and head[1048] <= 6 and head[1028:1032] != bytes(4):  # block size, blocks
        found.append(_ext(head))
    if head[4086:] == b"SWAPSPACE2":
        found.append("swap")
    if head[:8] == _RAID_1_1:
        found.append("linux_raid_member")
    label = head.find(b"LABELONE", 0, 1544)  # in one of the first four sectors
    if label >= 0 and label % 512 == 0 and head.startswith(b"LVM2 001", label + 24):
        found.append("LVM2_member")
    return tuple(found)


def _ext(head: bytes) -> str:
    """ext2, ext3 or ext4 by the feature bits of the superblock (ext4: extents, 64bit, flex_bg and their kin)."""
    compatible = int.from_bytes(head[1116:1120], "little")
    incompatible = int.from_bytes(head[1120:1124], "little")
    read_only = int.from_bytes(head[1124:1128], "little")
    if incompatible & 8:
        return "jbd"
    if incompatible & ~0x16 or read_only & ~0x7:
        return "ext4"
    return "ext3" if compatible & 4 else "ext2"


def _fat(head: bytes) -> bool:
    """A FAT boot sector: the jump, sane geometry, and the type's name where mkfs writes it."""
    if len(head) < 512 or head[510:512] != b"\x55\xaa":
        return False
    if not (head[0] == 0xE9 or (head[0] == 0xEB and head[2] == 0x90)):
        return False
    sector = head[11] | head[12] << 8
    cluster = head[13]
    if sector not in (512, 1024, 2048, 4096) or not cluster or cluster & (cluster - 1) or not 1 <= head[16] <= 2:
        return False
    return head.startswith((b"FAT12   ", b"FAT16   ", b"FAT     "), 54) or head.startswith(b"FAT32   ", 82)
