"""LUKS 1 and 2 (cryptsetup's on-disk format specifications, 1.2.3 and 1.1.2)."""

from __future__ import annotations

import json
from struct import Struct

from poolkit.formats._info import ImageInfo, Malformed, Reader, UnknownFeature, cstring, need, size_of

_V1 = Struct(">II").unpack_from  # payload_sectors key_bytes, from 104
_V1_SIZE = 592
_V2_SIZES = tuple(16384 << n for n in range(9))
_JSON_AT = 4096
# LUKS2 reserves up to 4 MiB for text of which cryptsetup fills 1 to 20 KiB. More is not parsed: Python's objects take
# up to 30 times the room of their text, and a header decides how much that is.
_MAX_JSON = 32768


def read(reader: Reader, head: bytes, info: ImageInfo) -> None:
    """Fill ``info``; the capacity is the file's size less the header, unknown for a detached header."""
    need(head, 8)
    version = int.from_bytes(head[6:8], "big")
    info.subtype = f"luks{version}"
    if version == 1:
        info.encryption = "luks"
        _luks1(reader, head, info)
    elif version == 2:
        info.encryption = "luks2"
        _luks2(reader, head, info)
    else:
        raise UnknownFeature(f"LUKS version {version} (1 and 2 are known)")


def _luks1(reader: Reader, head: bytes, info: ImageInfo) -> None:
    need(head, _V1_SIZE, "LUKS header")
    payload, key = _V1(head, 104)
    cipher = f"{cstring(head[8:40])}-{cstring(head[40:72])}"
    info.details = {
        "cipher": cipher,
        "hash": cstring(head[72:104]),
        "key_bits": key * 8,
        "uuid": cstring(head[168:208]),
    }
    info.cluster_size = 512
    if payload == 0:
        info.note("a detached header: the data is in another file or device")
        return
    if payload < 8:
        raise Malformed(f"the data starts at sector {payload}, inside the header")
    if payload * 512 > reader.size:
        raise Malformed(f"truncated: the data starts at {payload * 512}, the file ends at {reader.size}")
    info.capacity = reader.size - payload * 512


def _luks2(reader: Reader, head: bytes, info: ImageInfo) -> None:
    need(head, _JSON_AT, "LUKS2 header")
    header = int.from_bytes(head[8:16], "big")
    if header not in _V2_SIZES:
        raise Malformed(f"a LUKS2 header of {header} bytes")
    info.details = {"label": cstring(head[24:72]), "uuid": cstring(head[168:208])}
    text = reader.pread(min(header - _JSON_AT, _MAX_JSON), _JSON_AT)
    text, end, _ = text.partition(b"\0")
    if not end:
        raise Malformed(
            "truncated: the LUKS2 metadata does not end" if len(text) < _MAX_JSON else "LUKS2 metadata too long"
        )
    try:
        segment = json.loads(text)["segments"]["0"]
        offset, size = _number(segment["offset"]), segment["size"]
        info.cluster_size = int(segment.get("sector_size", 512))
        cipher = str(segment.get("encryption", ""))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Malformed(f"LUKS2 metadata without a usable segment ({type(error).__name__})")
    info.details["cipher"] = cstring(cipher[:64].encode(errors="replace"))
    if info.cluster_size not in (512, 1024, 2048, 4096):
        raise Malformed(f"sectors of {info.cluster_size} bytes")
    if offset == 0:
        info.note("a detached header: the data is in another file or device")
        return
    if offset > reader.size:
        raise Malformed(f"truncated: the data starts at {offset}, the file ends at {reader.size}")
    if size == "dynamic":
        info.capacity = reader.size - offset
    else:
        try:
            info.capacity = size_of(_number(size))
        except (ValueError, TypeError):
            raise Malformed("a LUKS2 segment without a size")


def _number(text: object) -> int:
    """A decimal string, as LUKS2 writes 64-bit numbers."""
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 20:
        raise ValueError("no number")
    return int(text)
