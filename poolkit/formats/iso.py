"""ISO 9660, with the UDF of a bridge disc and the partition tables of a hybrid one (ECMA-119, ECMA-167)."""

from __future__ import annotations

from poolkit.formats import raw
from poolkit.formats._info import ImageInfo, Reader, cstring

_FIRST = 32768
_SECTOR = 2048
_MAX_DESCRIPTORS = 16


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info``: the capacity is the file's size, for that is what a guest sees; the volume's own is a detail."""
    info.capacity = reader.size
    volume = reader.pread(190, _FIRST)
    if len(volume) == 190 and volume[0] == 1:
        size = int.from_bytes(volume[80:84], "little") * int.from_bytes(volume[128:130], "little")
        info.details = {"volume_size": size, "label": cstring(volume[40:72]).rstrip()}
        if size > reader.size:
            info.note(f"the volume has {size} bytes, the file {reader.size}: cut short?")
    info.also = tuple(hint for hint in raw.hints(head) if hint != "vfat")
    if udf(reader):
        info.also = (*info.also, "udf")


def udf(reader: Reader) -> bool:
    """True when the volume recognition sequence holds an NSR descriptor: there is UDF, perhaps beside ISO 9660."""
    for number in range(_MAX_DESCRIPTORS):
        mark = reader.pread(6, _FIRST + number * _SECTOR)[1:]
        if mark in (b"NSR02", b"NSR03"):
            return True
        if mark not in (b"CD001", b"BEA01", b"BOOT2"):
            return False
    return False
