"""VHDX, Hyper-V's disk image (Microsoft's MS-VHDX)."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING

from poolkit.formats._info import Backing, ImageInfo, Malformed, Reader, UnknownFeature, clean, size_of, uuid_text

if TYPE_CHECKING:
    from poolkit.formats.tables import Walk

_KIB = 1024
_HEADERS = (64 * _KIB, 128 * _KIB)
_REGION_TABLES = (192 * _KIB, 256 * _KIB)
_MAX_ENTRIES = 2047
_MAX_LOCATOR = 16 * _KIB  # a parent locator is a handful of paths

_HEADER = Struct("<4sIQ").unpack_from  # signature checksum sequence
_REGION = Struct("<16sQII").unpack_from
_LOG = Struct("<HHIQ").unpack_from  # log_version version log_length log_offset, from 64
_PRESENT = (6, 7)  # states of a block: all of it is there, part of it is
_ITEM = Struct("<16sIII").unpack_from
_PAIR = Struct("<IIHH").unpack_from

_METADATA = "8b7ca206-4790-4b9a-b8fe-575f050f886e"
_BAT = "2dc27766-f623-4200-9d64-115e9bfd4a08"
_PARAMETERS = "caa16737-fa36-4d43-b3b6-33f0aa44e76b"
_SIZE = "2fa54224-cd1b-4876-b211-5dbed83bf4b8"
_LOGICAL = "8141bf1d-a96f-4709-ba47-f233a8faab5f"
_PHYSICAL = "cda348c7-445d-4471-9cc9-e9885251c556"
_PAGE83 = "beca12ab-b2e6-4523-93ef-c309e000c746"
_PARENT = "a8d35f2d-b30b-454d-abf7-d3d84834ab0c"
_KNOWN = (_PARAMETERS, _SIZE, _LOGICAL, _PHYSICAL, _PAGE83, _PARENT)


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info`` from the newer header, the region table and the metadata; checksums are left to ``check``."""
    _newest_header(reader, info)
    offset, length = _metadata_region(reader)
    table = reader.pread(32, offset)
    if len(table) < 32 or not table.startswith(b"metadata"):
        raise Malformed(f"no metadata table at {offset}")
    count = int.from_bytes(table[10:12], "little")
    if count > _MAX_ENTRIES:
        raise Malformed(f"a metadata table of {count} entries")
    entries = reader.pread(count * 32, offset + 32)
    items: dict[str, tuple[int, int]] = {}
    for place in range(0, len(entries) - 31, 32):
        guid, where, size, flags = _ITEM(entries, place)
        name = uuid_text(guid)
        if name in _KNOWN:
            if where + size > length:
                raise Malformed(f"metadata item {name} ends outside its region")
            items[name] = (offset + where, size)
        elif flags & 4:
            raise UnknownFeature(f"required metadata item {name}")
    _fill(reader, info, items)


def _fill(reader: Reader, info: ImageInfo, items: dict[str, tuple[int, int]]) -> None:
    parameters = _item(reader, items, _PARAMETERS, 8)
    block, flags = int.from_bytes(parameters[:4], "little"), int.from_bytes(parameters[4:], "little")
    info.subtype = "differencing" if flags & 2 else "fixed" if flags & 1 else "dynamic"
    if flags & 2:
        info.backing = _parent(reader, items)
    if block & (block - 1) or not 1 << 20 <= block <= 256 << 20:
        raise Malformed(f"blocks of {block} bytes (a power of 2 from 1 MiB to 256 MiB is possible)")
    info.cluster_size = block
    sector = int.from_bytes(_item(reader, items, _LOGICAL, 4), "little")
    info.details = {**(info.details or {}), "logical_sector_size": sector}
    if sector not in (512, 4096):
        raise Malformed(f"logical sectors of {sector} bytes")
    size = size_of(int.from_bytes(_item(reader, items, _SIZE, 8), "little"))
    if size > 64 << 40:
        raise Malformed(f"virtual size {size} (64 TiB at most)")
    info.capacity = size
    if sector != 512:
        info.note("QEMU opens only VHDX with logical sectors of 512 bytes")


def _newest(reader: Reader) -> bytes:
    best = b""
    newest = -1
    for offset in _HEADERS:
        header = reader.pread(80, offset)
        if len(header) == 80 and header.startswith(b"head"):
            _, _, sequence = _HEADER(header)
            if sequence > newest:
                best, newest = header, sequence
    if not best:
        raise Malformed("neither header is there")
    return best


def _newest_header(reader: Reader, info: ImageInfo) -> None:
    best = _newest(reader)
    version = int.from_bytes(best[66:68], "little")
    if version != 1:
        raise UnknownFeature(f"VHDX version {version} (1 is known)")
    if best[48:64].strip(b"\0"):
        info.features = ("dirty",)
        info.note("the log may have to be replayed before the image can be read")


def _regions(reader: Reader) -> dict[str, tuple[int, int]]:
    """Place and length of the regions that are known."""
    for offset in _REGION_TABLES:
        table = reader.pread(16, offset)
        if len(table) == 16 and table.startswith(b"regi"):
            break
    else:
        raise Malformed("neither region table is there")
    count = int.from_bytes(table[8:12], "little")
    if count > _MAX_ENTRIES:
        raise Malformed(f"a region table of {count} entries")
    entries = reader.pread(count * 32, offset + 16)
    found: dict[str, tuple[int, int]] = {}
    for place in range(0, len(entries) - 31, 32):
        guid, where, length, required = _REGION(entries, place)
        name = uuid_text(guid)
        if name in (_METADATA, _BAT):
            found[name] = where, length
        elif required & 1:
            raise UnknownFeature(f"required region {name}")
    return found


def _metadata_region(reader: Reader) -> tuple[int, int]:
    found = _regions(reader).get(_METADATA)
    if found is None:
        raise Malformed("the region table names no metadata")
    if found[0] + found[1] > reader.size:
        raise Malformed(f"truncated: the metadata region ends at {found[0] + found[1]}, the file at {reader.size}")
    return found


def _item(reader: Reader, items: dict[str, tuple[int, int]], name: str, length: int) -> bytes:
    offset, size = items.get(name, (0, 0))
    data = reader.pread(length, offset) if size >= length else b""
    if len(data) < length:
        raise Malformed(f"metadata item {name} is missing")
    return data


def _parent(reader: Reader, items: dict[str, tuple[int, int]]) -> Backing:
    """The parent by the path Windows tries first; by the name ``unknown`` when the locator has none."""
    offset, size = items.get(_PARENT, (0, 0))
    data = reader.pread(min(size, _MAX_LOCATOR), offset) if size >= 20 else b""
    paths: dict[str, bytes] = {}
    for number in range(min(int.from_bytes(data[18:20], "little"), 16)):
        if 20 + number * 12 + 12 > len(data):
            break
        key, value, key_length, value_length = _PAIR(data, 20 + number * 12)
        text = data[key : key + key_length].decode("utf-16-le", errors="replace")
        paths[text] = data[value : value + value_length]
    for key in ("relative_path", "volume_path", "absolute_win32_path"):
        if paths.get(key):
            text = paths[key].decode("utf-16-le", errors="replace")
            return Backing(clean(text.encode()), paths[key], "file", "vhdx")
    return Backing("unknown", b"", "uuid", "vhdx", clean=False)


def check(reader: Reader) -> str | None:
    """Verify the checksums of headers and region tables; the first problem, or None. Some milliseconds."""
    for what, offsets, signature, length in (
        ("header", _HEADERS, b"head", 4 * _KIB),
        ("region table", _REGION_TABLES, b"regi", 64 * _KIB),
    ):
        good = 0
        for offset in offsets:
            data = reader.pread(length, offset)
            stored = int.from_bytes(data[4:8], "little")
            good += data.startswith(signature) and stored == crc32c(data[:4] + bytes(4) + data[8:])
        if not good:
            return f"the checksums of both copies of the {what} are wrong"
    return None


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), which the standard library lacks."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def tables(walk: Walk, head: bytes, info: ImageInfo) -> None:
    """The log, the regions, and the blocks that the allocation table names."""
    reader = walk.reader
    _, _, log_length, log = _LOG(_newest(reader), 64)
    walk.inside("the log", log, log_length)
    found = _regions(reader).get(_BAT)
    if found is None:
        return
    start, length = found
    walk.inside("the allocation table", start, length)
    block, sector = info.cluster_size or 0, int((info.details or {}).get("logical_sector_size", 512))
    # after the entries of so many blocks there is one for the map of their sectors
    ratio = (sector << 23) // block
    blocks = -(-walk.capacity // block)
    count = min(blocks + (blocks - 1) // ratio if blocks else 0, length // 8)
    first = 0
    for piece in walk.numbers("the allocation table", start, count, 8, "little"):
        if (max(piece) >> 20 << 20) + block > walk.size:
            _payload(walk, piece, first, ratio, block)
        first += len(piece)


def _payload(walk: Walk, entries: Sequence[int], first: int, ratio: int, block: int) -> None:
    for number, entry in enumerate(entries, first):
        if entry & 7 in _PRESENT:
            start = entry >> 20 << 20
            chunk, place = divmod(number, ratio + 1)
            if place < ratio:
                walk.blocks("a block", (start,), block, (chunk * ratio + place) * block)
            else:
                walk.blocks("a map of sectors", (start,), 1 << 20)
