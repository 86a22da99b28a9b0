"""Everything that can be recognised on a file or device: the answer to "what would be destroyed?".

Offsets and magic numbers are those of the formats' own documents, as collected in util-linux's libblkid; names are
libblkid's where it has one. Backup copies that tools leave behind on purpose when they wipe (btrfs mirrors, ext
backups) do not count; those that they wipe (the second GPT, RAID superblocks at the end) do.
"""

from __future__ import annotations

from collections.abc import Iterator

from poolkit.formats import raw
from poolkit.formats._info import HEAD, Reader

_KIB = 1024
# offset, magic, name: signatures at one place beyond the first page, or in it and no hint for an ordinary raw image
_SIGNS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"bluestore block device", "ceph_bluestore"),
    (0, b"\x0b\xe5\xa9\x41", "dvh"),
    (3, b"EXFAT   ", "exfat"),
    (3, b"-FVE-FS-", "BitLocker"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (1024, b"\2\0\0\0\0\0\x34\x34", "nilfs2"),
    (1024, b"OCFSV2", "ocfs2"),
    (2048, b"OCFSV2", "ocfs2"),
    (4096, b"OCFSV2", "ocfs2"),
    (8192, b"OCFSV2", "ocfs2"),
    (4096, b"EFI PART", "gpt"),
    (4096, b"\xfc\x4e\x2b\xa9", "linux_raid_member"),
    (4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "bcache"),
    (8182, b"SWAPSPACE2", "swap"),
    (16374, b"SWAPSPACE2", "swap"),
    (32758, b"SWAPSPACE2", "swap"),
    (65526, b"SWAPSPACE2", "swap"),
    (32768, b"JFS1", "jfs"),
    (32769, b"CD001", "iso9660"),
    (8244, b"ReIsEr", "reiserfs"),
    (65588, b"ReIsEr", "reiserfs"),
    (65536, b"\x01\x16\x19\x70\0\0\0\1", "gfs2"),
    (65600, b"_BHRfS_M", "btrfs"),
    (1 << 20, b"\x0d\xd0\x01\xc0", "VMFS_volume_member"),
)
_FROM_END: tuple[tuple[int, bytes, str], ...] = (
    (512, b"EFI PART", "gpt"),
    (4096, b"EFI PART", "gpt"),
    (512, b"conectix", "vpc"),
    (512, b"koly", "dmg"),
    (1024, b"Intel Raid ISM Cfg Sig. ", "isw_raid_member"),
)
_RAID = (b"\xfc\x4e\x2b\xa9", b"\xa9\x2b\x4e\xfc")
_UBERBLOCK = (b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c")


def scan(reader: Reader) -> tuple[str, ...]:
    """Names of all that was recognised, each once, in the order of the list above; at most 600 KiB are read."""
    try:
        return tuple(dict.fromkeys(_all(reader)))
    except OSError:
        return ("unreadable",)


def _all(reader: Reader) -> Iterator[str]:
    from poolkit.formats import iso, sniff_all

    head = reader.pread(HEAD, 0)
    yield from sniff_all(head)
    yield from raw.hints(head)
    yield from _disklabels(head)
    for offset, magic, name in _SIGNS:
        if reader.pread(len(magic), offset) == magic:
            yield name
    if iso.udf(reader):
        yield "udf"
    for offset, magic, name in _FROM_END:
        if reader.size >= offset and reader.pread(len(magic), reader.size - offset) == magic:
            yield name
    if _raid_at_end(reader):
        yield "linux_raid_member"
    for power in range(9):  # the second header of LUKS2 stays when only the start was overwritten
        if reader.pread(6, 16384 << power) == b"SKUL\xba\xbe":
            yield "luks"
    if _zfs(reader):
        yield "zfs_member"


def _disklabels(head: bytes) -> Iterator[str]:
    block = int.from_bytes(head[1044:1048], "big")
    if head[1024:1026] == b"BD" and block and block % 512 == 0:  # two letters alone would find it in any text
        yield "hfs"
    if head[:2] == b"ER" and head[512:514] == b"PM":
        yield "mac"
    if head[508:510] == b"\xda\xbe":
        words = memoryview(head[:512]).cast("H")
        checksum = 0
        for word in words:
            checksum ^= word
        if checksum == 0:
            yield "sun"
    for place in (0, 64, 512):  # by machine: at the start, as Alpha has it, in the second sector
        if head[place : place + 4] == b"\x57\x45\x56\x82" == head[place + 132 : place + 136]:
            yield "bsd"


def _raid_at_end(reader: Reader) -> bool:
    """Superblocks of version 1.0 (8 KiB before the end, aligned to 4 KiB) and 0.90 (the last whole 64 KiB)."""
    sectors = reader.size // 512
    places = ((sectors - 16 & ~7) * 512, (reader.size & ~0xFFFF) - 0x10000)
    return any(place > 0 and reader.pread(4, place) in _RAID for place in places)


def _zfs(reader: Reader) -> bool:
    """Uberblocks in one of the four labels (256 KiB each, two at the start, two at the end)."""
    aligned = reader.size & ~(256 * _KIB - 1)
    for label in (0, 256 * _KIB, aligned - 512 * _KIB, aligned - 256 * _KIB):
        if label >= 0:
            ring = reader.pread(128 * _KIB, label + 128 * _KIB)
            if any(ring[place : place + 8] in _UBERBLOCK for place in range(0, len(ring), _KIB)):
                return True
    return False
